"""Where servers listen, and what is said where they can't; see test_newcomers.py for more."""

from __future__ import annotations

import errno
import re
import socket

import pytest

from syncws.listening import explain_refusal, listen


@pytest.mark.parametrize("host", [None, "", "127.0.0.1", "localhost"])
@pytest.mark.parametrize("port", [None, 0, False])
def test_any_port_may_be_asked_for(host, port):
    with listen(host, port, None, {}) as sock:
        assert sock.getsockname()[1] > 0


def test_an_address_of_ipv6_needs_no_family():
    with listen("::1", 0, None, {}) as sock:
        assert sock.family == socket.AF_INET6


def test_all_interfaces_may_be_those_of_one_family():
    with listen("", 0, None, {"family": socket.AF_INET}) as sock:
        assert sock.family == socket.AF_INET


def test_a_path_may_be_bytes(tmp_path):
    path = bytes(tmp_path / "socket")
    with listen(None, None, path, {}) as sock:
        assert sock.family == socket.AF_UNIX
    with pytest.raises(OSError, match=re.escape(f"cannot listen on {path!r}: ")):
        listen(None, None, path, {})


def test_a_path_that_is_too_long_is_said_so(tmp_path):
    path = str(tmp_path / ("x" * 200))
    with pytest.raises(OSError, match=f"^cannot listen on {re.escape(path)}: .*too long"):
        listen(None, None, path, {})


@pytest.mark.parametrize("host", ["http://localhost", "localhost:8765", "localhost/"])
def test_a_host_is_no_uri(host):
    with pytest.raises(ValueError, match="host must be a name or address alone"):
        listen(host, 0, None, {})


@pytest.mark.parametrize("host", [8765, b"localhost", ("localhost", 8765), ["localhost"]])
def test_a_host_is_a_string(host):
    with pytest.raises(TypeError, match=re.escape(f"host must be a str or None, not {host!r}")):
        listen(host, 0, None, {})


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_has_16_bits(port):
    with pytest.raises(ValueError, match=f"port must be between 0 and 65535, not {port}"):
        listen("localhost", port, None, {})


@pytest.mark.parametrize("port", ["8765", 8765.0])
def test_a_port_is_an_int(port):
    with pytest.raises(TypeError, match=f"port must be an int or None, not {port!r}"):
        listen("localhost", port, None, {})


def refusal(number, text, host="localhost", port=8765):
    return explain_refusal(OSError(number, text), host, port)


def test_a_refusal_is_of_the_class_that_fits():
    exc = refusal(errno.EACCES, "Permission denied")
    assert type(exc) is PermissionError
    assert exc.errno == errno.EACCES


def test_a_name_that_is_not_found_stays_that():
    exc = explain_refusal(socket.gaierror(-2, "Name or service not known"), "no.example", 8765)
    assert type(exc) is socket.gaierror
    assert exc.strerror.startswith("cannot listen on no.example port 8765: Name or service not ")
    assert exc.strerror.endswith("such as 'localhost', or '' for all")


def test_the_system_is_quoted_where_nothing_is_known_to_do():
    exc = refusal(errno.EMFILE, "Too many open files")
    assert exc.strerror == "cannot listen on localhost port 8765: Too many open files"


def test_all_interfaces_have_a_name():
    exc = refusal(errno.EADDRINUSE, "Address already in use", host=None)
    assert exc.strerror.startswith("cannot listen on all interfaces port 8765: Address already")


def test_a_high_port_needs_no_privileges():
    assert "privileges" not in refusal(errno.EACCES, "Permission denied").strerror
    assert "privileges" in refusal(errno.EACCES, "Permission denied", port=80).strerror
