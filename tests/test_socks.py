"""SOCKS proxies, by the optional package python-socks."""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
import time

import pytest
from links import PATIENCE, PortableClientConnection, echo
from peers import Task
from proxies import socks_proxy

from syncws import ClientConnection, ProxyError, connect, process_exception, serve

pytest.importorskip("python_socks")

CREDENTIALS = ("user", "p@ss")


def says(connection, message="hello"):
    connection.send(message)
    return connection.recv(PATIENCE) == message


@pytest.fixture
def server():
    with serve(echo, "127.0.0.1", 0).start() as server:
        yield server


def uri(server, host):
    return f"ws://{host}:{server.server_address[1]}/"


@pytest.mark.parametrize("kind", [ClientConnection, PortableClientConnection])
@pytest.mark.parametrize("scheme", ["socks4", "socks4a", "socks5", "socks5h"])
def test_a_connection_through_socks(server, scheme, kind):
    with socks_proxy() as proxy:
        address = f"{scheme}://127.0.0.1:{proxy.port}"
        with connect(uri(server, "127.0.0.1"), proxy=address, create_connection=kind) as client:
            assert says(client)
        assert proxy.targets == [("127.0.0.1", server.server_address[1])]


@pytest.mark.parametrize("scheme", ["socks4a", "socks5h"])
def test_the_proxy_finds_the_host(server, scheme):
    with socks_proxy(names={"far.example": "127.0.0.1"}) as proxy:
        address = f"{scheme}://127.0.0.1:{proxy.port}"
        with connect(uri(server, "far.example"), proxy=address) as client:
            assert says(client)
        assert proxy.targets == [("far.example", server.server_address[1])]


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_the_client_finds_the_host(server, scheme):
    with socks_proxy() as proxy:
        address = f"{scheme}://127.0.0.1:{proxy.port}"
        options = {"source_address": ("127.0.0.1", 0)}
        with connect(uri(server, "localhost"), proxy=address, **options) as client:
            assert says(client)
        assert proxy.targets[0][0] in ("127.0.0.1", "::1")


def test_socks_4_has_no_ipv6():
    with pytest.raises(ProxyError, match="SOCKS 4 needs an IPv4 address, and ::1 has none"):
        connect("ws://[::1]:1/", proxy="socks4://127.0.0.1:1")


def test_tls_through_socks(tls, client_context):
    with tls.serve(echo).start() as server, socks_proxy() as proxy:
        address = f"socks5h://127.0.0.1:{proxy.port}"
        with connect(tls.uri(server), proxy=address, ssl=client_context) as client:
            assert says(client)


def test_credentials_are_sent(server):
    with socks_proxy(credentials=CREDENTIALS) as proxy:
        address = f"socks5://user:p%40ss@127.0.0.1:{proxy.port}"
        with connect(uri(server, "127.0.0.1"), proxy=address) as client:
            assert says(client)


@pytest.mark.parametrize("user_info", ["", "user:wrong@"])
def test_a_proxy_that_refuses_the_credentials(user_info):
    with socks_proxy(credentials=CREDENTIALS) as proxy:
        with pytest.raises(ProxyError, match="did not connect to localhost:80") as raised:
            connect("ws://localhost/", proxy=f"socks5h://{user_info}127.0.0.1:{proxy.port}")
    assert process_exception(raised.value) is raised.value


@pytest.mark.parametrize("scheme", ["socks4", "socks5"])
def test_a_proxy_that_does_not_reach_the_host(scheme):
    with socks_proxy() as proxy:
        with pytest.raises(ConnectionError, match=r"did not connect to 127.0.0.1:1") as raised:
            connect("ws://127.0.0.1:1/", proxy=f"{scheme}://127.0.0.1:{proxy.port}")
    assert process_exception(raised.value) is None


@pytest.mark.parametrize("answer", [b"\x05", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
def test_a_proxy_that_breaks_the_protocol(answer):
    with socks_proxy(answer=answer) as proxy, pytest.raises(ProxyError):
        connect("ws://localhost/", proxy=f"socks5h://127.0.0.1:{proxy.port}")


def test_a_proxy_that_is_not_there():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError, match=r"cannot connect to proxy 127.0.0.1"):
            connect("ws://localhost/", proxy=f"socks5h://127.0.0.1:{sock.getsockname()[1]}")


@pytest.mark.parametrize("open_timeout", [0.2])
def test_a_silent_proxy_is_left_in_time(open_timeout):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"socks5h://127.0.0.1:{listener.getsockname()[1]}"
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out"):
            connect("ws://localhost/", proxy=address, open_timeout=open_timeout)
        assert time.monotonic() - began < 5


def test_a_trickling_proxy_is_left_in_time():
    ended = threading.Event()

    def trickle():
        sock, _ = listener.accept()
        # RFC 1928 §6: a long name as the bound address, which never ends
        sock.sendall(b"\x05\x00" + b"\x05\x00\x00\x03\xff")
        while not ended.wait(0.02):
            sock.sendall(b"a")
        sock.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"socks5h://127.0.0.1:{listener.getsockname()[1]}"
        task = Task(trickle)
        with pytest.raises(TimeoutError, match="timed out"):
            connect("ws://localhost/", proxy=address, open_timeout=0.3)
        ended.set()
        with contextlib.suppress(OSError):  # the client has gone
            task.result()


def test_without_python_socks_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "python_socks", None)
    monkeypatch.setitem(sys.modules, "python_socks.sync", None)
    with pytest.raises(ImportError, match=r"pip install 'syncws\[socks\]'"):
        connect("ws://localhost/", proxy="socks5h://127.0.0.1:1")
