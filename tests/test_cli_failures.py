"""What goes wrong on the command line is said in one line that helps."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from syncws.commands.failures import Failure, explain, explain_taken, one_line


def tls_error(reason):
    error = ssl.SSLError(1, f"[SSL: {reason}]")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (Failure("as it is"), "as it is"),
        (tls_error("WRONG_VERSION_NUMBER"), "does not speak TLS; is it ws:// instead of wss://?"),
        (tls_error("UNEXPECTED"), "TLS failed: [SSL: UNEXPECTED]"),
        (socket.gaierror(-2, "Name or service not known"), "no such host (Name or service not"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "?"), "refused: nothing listens there"),
        (ConnectionResetError(errno.ECONNRESET, "reset; is it TLS?"), "reset; is it TLS?"),
        (TimeoutError("whatever"), "timed out: no answer in time"),
        (socket.timeout("whatever"), "timed out: no answer in time"),
        (FileNotFoundError(2, "No such file", "a.pem"), "No such file: a.pem"),
        (OSError(errno.EHOSTUNREACH, "No route to host"), "No route to host"),
        (ValueError("one\n two \x1b[2J"), "one two \N{REPLACEMENT CHARACTER}[2J"),
        (ValueError(), "ValueError"),
    ],
)
def test_an_error_is_explained(error, line):
    assert line in explain(error)
    assert "\n" not in explain(error)


@pytest.mark.parametrize(
    ("number", "line"),
    [
        (errno.EADDRINUSE, "port 80 of host is taken; choose another with --port"),
        (errno.EACCES, "port 80 needs privileges; choose one from 1024 up with --port"),
        (errno.EADDRNOTAVAIL, "host is no address of this machine; choose one with --host"),
        (errno.EIO, "what the system says"),
    ],
)
def test_an_address_that_is_not_to_be_had_is_named(number, line):
    assert str(explain_taken(OSError(number, "what the system says"), "host", 80)) == line


def test_a_long_text_is_shortened():
    assert one_line("word " * 100, 12) == "word word wo…"
