"""Proxies: which one is used, HTTP CONNECT with and without TLS, and what goes wrong."""

from __future__ import annotations

import base64
import contextlib
import itertools
import os
import socket
import ssl
import time

import pytest
from conftest import wait_until
from links import PATIENCE, Held, PortableClientConnection, echo
from peers import Task, repeat
from proxies import connect_proxy
from test_fork import in_child

from syncws import (
    ClientConnection,
    ConnectionClosed,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    connect,
    serve,
)
from syncws.nested_tls import NestedTLSTransport
from syncws.proxy import Proxy, find_proxy, parse_proxy

kinds = pytest.mark.parametrize("kind", [ClientConnection, PortableClientConnection])


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    """Tests start in an environment that names no proxy."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def environment(monkeypatch):
    return monkeypatch.setenv


def http(proxy, user_info=""):
    return f"http://{user_info}127.0.0.1:{proxy.port}"


def https(proxy):
    return f"https://127.0.0.1:{proxy.port}"


def uri(server, scheme="ws", host="127.0.0.1"):
    return f"{scheme}://{host}:{server.server_address[1]}/"


def says(connection, message="hello"):
    connection.send(message)
    return connection.recv(PATIENCE) == message


# Addresses of proxies


@pytest.mark.parametrize(
    ("text", "proxy"),
    [
        ("http://proxy", Proxy("http", "proxy", 80)),
        ("HTTP://Proxy:3128/", Proxy("http", "proxy", 3128)),
        ("https://proxy", Proxy("https", "proxy", 443)),
        ("socks4://proxy", Proxy("socks4", "proxy", 1080)),
        ("socks4a://proxy", Proxy("socks4a", "proxy", 1080)),
        ("socks5://u:p@proxy:1", Proxy("socks5", "proxy", 1, "u", "p")),
        ("socks5h://[::1]:1080", Proxy("socks5h", "::1", 1080)),
        ("http://a%40b:c%3Ad@proxy", Proxy("http", "proxy", 80, "a@b", "c:d")),
        ("http://b\u00fccher.example", Proxy("http", "xn--bcher-kva.example", 80)),
    ],
)
def test_an_address_of_a_proxy_is_parsed(text, proxy):
    assert parse_proxy(text) == proxy


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("proxy:3128", "scheme is missing; write http://host:port"),
        ("ftp://proxy", "scheme ftp isn't one of http, https, socks4"),
        ("http://", "hostname isn't provided"),
        ("http://:80", "hostname isn't provided"),
        ("http://proxy/path", "nothing after host and port"),
        ("http://proxy/?query", "nothing after host and port"),
        ("http://proxy#fragment", "nothing after host and port"),
        ("http://proxy:port", "[Pp]ort"),
        ("http://proxy:99999", "[Pp]ort"),
        ("http://a proxy", "space or a control character"),
        ("http://user@proxy", "username provided without password"),
        ("http://%ff:p@proxy", "utf-8"),
        ("http://[::1", "IPv6"),
    ],
)
def test_what_is_no_address_of_a_proxy_raises(text, message):
    with pytest.raises(InvalidProxy, match=message):
        parse_proxy(text)


def test_a_password_is_not_in_the_message():
    with pytest.raises(InvalidProxy, match=r"^ftp://\*\*\*@proxy isn't a valid proxy") as raised:
        parse_proxy("ftp://user:secret@proxy")
    assert "secret" not in repr(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"proxy_ssl": True, "proxy": "http://proxy"}, "proxy_ssl argument is incompatible"),
        ({"sock": socket.SocketType, "proxy": "http://proxy"}, "with a socket of your own"),
        ({"proxy_ssl": False, "proxy": "https://proxy"}, "ssl=False isn't possible"),
    ],
)
def test_options_that_contradict_each_other_raise(options, message):
    with pytest.raises(ValueError, match=message):
        connect("ws://localhost/", **options)


def test_an_invalid_proxy_raises_before_anything_is_connected():
    with pytest.raises(InvalidProxy):
        connect("ws://name.invalid/", proxy="proxy:80")


# Which proxy is used


@pytest.mark.parametrize(
    ("variables", "secure", "proxy"),
    [
        ({}, False, None),
        ({"HTTP_PROXY": "http://a"}, False, "http://a"),
        ({"HTTP_PROXY": "http://a"}, True, None),
        ({"http_proxy": "http://a", "https_proxy": "http://b"}, False, "http://b"),
        ({"https_proxy": "http://b", "wss_proxy": "http://c"}, True, "http://c"),
        ({"https_proxy": "http://b", "ws_proxy": "http://c"}, False, "http://c"),
        ({"https_proxy": "http://b", "socks_proxy": "http://d"}, True, "socks5h://d"),
        ({"socks_proxy": "socks5://d"}, True, "socks5://d"),
        ({"socks_proxy": "d:1080"}, True, "socks5h://d:1080"),
        ({"all_proxy": "socks5h://e"}, False, "socks5h://e"),
        ({"https_proxy": "proxy:3128"}, True, "http://proxy:3128"),
        ({"https_proxy": "http://a", "no_proxy": "example.com"}, True, None),
        ({"https_proxy": "http://a", "no_proxy": "example.com:80"}, True, "http://a"),
        ({"https_proxy": "http://a", "no_proxy": "*"}, True, None),
        ({"https_proxy": ""}, True, None),
    ],
)
def test_the_environment_chooses_the_proxy(environment, variables, secure, proxy):
    for name, value in variables.items():
        environment(name, value)
    assert find_proxy("example.com", 443, secure) == proxy


def test_the_proxy_of_the_environment_is_used(environment):
    with serve(echo, "127.0.0.1", 0).start() as server, connect_proxy() as proxy:
        environment("http_proxy", http(proxy))
        with connect(uri(server)) as connection:
            assert says(connection)
        assert proxy.targets == [("127.0.0.1", server.server_address[1])]


def test_none_connects_directly(environment):
    environment("http_proxy", "http://name.invalid")
    with serve(echo, "127.0.0.1", 0).start() as server:
        with connect(uri(server), proxy=None) as connection:
            assert says(connection)


def test_a_socket_of_the_user_has_no_proxy(environment):
    environment("http_proxy", "http://name.invalid")
    with serve(echo, "127.0.0.1", 0).start() as server:
        sock = socket.create_connection(server.server_address)
        with connect(uri(server), sock=sock) as connection:
            assert says(connection)


# HTTP CONNECT


def test_the_proxy_finds_the_host():
    with serve(echo, "127.0.0.1", 0).start() as server:
        with connect_proxy(names={"far.example": "127.0.0.1"}) as proxy:
            with connect(uri(server, host="far.example"), proxy=http(proxy)) as connection:
                assert says(connection)
    (request,) = proxy.requests
    target = f"far.example:{server.server_address[1]}"
    assert request.startswith(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n")
    assert " syncws/" in request


def test_the_user_agent_is_for_the_proxy_too():
    with serve(echo, "127.0.0.1", 0).start() as server, connect_proxy() as proxy:
        with connect(uri(server), proxy=http(proxy), user_agent_header=None):
            pass
    assert "User-Agent" not in proxy.requests[0]


def test_headers_of_the_request_are_not_for_the_proxy():
    with serve(echo, "127.0.0.1", 0).start() as server, connect_proxy() as proxy:
        options = {"additional_headers": {"Authorization": "Bearer secret"}}
        with connect(uri(server), proxy=http(proxy), **options) as connection:
            assert connection.request.headers["Authorization"] == "Bearer secret"
    assert "secret" not in proxy.requests[0]


def test_credentials_are_sent_to_the_proxy_only():
    with serve(echo, "127.0.0.1", 0).start() as server, connect_proxy() as proxy:
        with connect(uri(server), proxy=http(proxy, "user:p%40ss@")) as connection:
            assert "Proxy-Authorization" not in connection.request.headers
    expected = base64.b64encode(b"user:p@ss").decode()
    assert f"\r\nProxy-Authorization: Basic {expected}\r\n" in proxy.requests[0]


def test_an_ipv6_address_is_in_brackets():
    with socket.socket(socket.AF_INET6) as sock:
        try:
            sock.bind(("::1", 0))
        except OSError:
            pytest.skip("there is no IPv6")
    with serve(echo, "::1", 0).start() as server, connect_proxy() as proxy:
        with connect(uri(server, host="[::1]"), proxy=http(proxy)) as connection:
            assert says(connection)
    assert proxy.requests[0].startswith(f"CONNECT [::1]:{server.server_address[1]} ")


@pytest.mark.parametrize("port", [80, 443])
def test_the_port_is_always_sent(port):
    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    with connect_proxy(answer=answer) as proxy, pytest.raises(InvalidProxyStatus):
        connect(f"ws://far.example:{port}/", proxy=http(proxy))
    assert proxy.requests[0].startswith(f"CONNECT far.example:{port} HTTP/1.1\r\n")


def test_another_address_is_for_the_proxy_to_connect_to():
    with serve(echo, "127.0.0.1", 0).start() as server, connect_proxy() as proxy:
        options = {"address": server.server_address[:2], "proxy": http(proxy)}
        with connect("ws://example.com/", **options) as connection:
            assert says(connection)
            assert connection.request.headers["Host"] == "example.com"


@kinds
def test_tls_through_a_plain_proxy(tls, client_context, kind):
    with tls.serve(echo).start() as server:
        with connect_proxy(names={"localhost": "127.0.0.1"}) as proxy:
            options = {"proxy": http(proxy), "ssl": client_context, "create_connection": kind}
            with connect(uri(server, "wss", "localhost"), **options) as connection:
                assert says(connection)
                names = connection.peer_certificate["subjectAltName"]
                assert ("DNS", "localhost") in names


def test_the_certificate_behind_a_proxy_must_be_for_the_name(tls, client_context):
    with tls.serve(echo).start() as server:
        with connect_proxy(names={"far.example": "127.0.0.1"}) as proxy:
            with pytest.raises(ssl.SSLCertVerificationError, match=r"far\.example"):
                connect(uri(server, "wss", "far.example"), proxy=http(proxy), ssl=client_context)


@kinds
def test_a_proxy_with_tls(server_context, client_context, kind):
    with serve(echo, "127.0.0.1", 0).start() as server:
        with connect_proxy(context=server_context) as proxy:
            options = {"proxy_ssl": client_context, "create_connection": kind}
            with connect(uri(server), proxy=https(proxy), **options) as connection:
                assert says(connection)
                assert says(connection, b"x" * 300_000)
                # That of the proxy is not that of the peer.
                assert connection.peer_certificate is None


def test_the_name_of_the_proxy_is_checked(server_context, client_context):
    with connect_proxy(context=server_context) as proxy:
        options = {"proxy": https(proxy), "proxy_ssl": client_context}
        with pytest.raises(ssl.SSLCertVerificationError, match=r"TLS to the proxy 127.0.0.1:"):
            connect("ws://localhost/", proxy_server_hostname="other.example", **options)


@kinds
def test_tls_inside_tls(tls, server_context, client_context, kind):
    with tls.serve(echo, max_size=None).start() as server:
        with connect_proxy(context=server_context) as proxy:
            options = {
                "ssl": client_context,
                "proxy": https(proxy),
                "proxy_ssl": client_context,
                "create_connection": kind,
                "max_size": None,
            }
            with connect(uri(server, "wss"), **options) as connection:
                assert isinstance(connection._transport, NestedTLSTransport)
                assert says(connection)
                assert says(connection, os.urandom(1_500_000))
                connection.ping().wait(PATIENCE)
                assert connection.peer_certificate is not None
            assert connection.close_code == 1000


@contextlib.contextmanager
def nested(link, contexts, **options):
    """A client whose TLS is inside that of a proxy, and the server's end."""
    held = Held()
    server_context, client_context = contexts
    serving = link.serve(held, max_queue=1).start()
    with serving as server, connect_proxy(context=server_context) as proxy:
        try:
            options.update(ssl=client_context, proxy_ssl=client_context)
            with connect(uri(server, "wss"), proxy=https(proxy), **options) as client:
                yield client, held.wait()
                held.release()
        finally:
            held.release()


@pytest.fixture
def contexts(server_context, client_context):
    return server_context, client_context


def test_the_server_closes_tls_inside_tls(tls, contexts):
    with nested(tls, contexts) as (client, server):
        server.send("last")
        server.close(1001, "bye")
        assert list(client) == ["last"]
        assert (client.close_code, client.close_reason) == (1001, "bye")


def test_abort_of_tls_inside_tls(tls, contexts):
    with nested(tls, contexts) as (client, server):
        client.abort()
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)
        with pytest.raises(ConnectionClosed):
            server.recv(PATIENCE)


def test_a_sender_waits_for_a_slow_receiver_with_tls_inside_tls(tls, contexts):
    message = os.urandom(1_000_000)
    with nested(tls, contexts, send_timeout=PATIENCE) as (client, server):
        sent = itertools.count()

        def fill():
            while True:
                client.send(message, timeout=0.2)
                next(sent)

        with pytest.raises(TimeoutError):
            fill()
        # What was sent arrives, and what waits as well.
        receiving = Task(lambda: sum(1 for _ in server))
        client.close()
        assert receiving.result() == next(sent) + 1


def test_input_within_tls_inside_tls_is_noticed(tls, contexts):
    with nested(tls, contexts) as (client, server):
        assert not client._transport.has_input()
        server.send("hello")
        assert wait_until(client._transport.has_input)
        assert client.recv(PATIENCE) == "hello"


def test_what_a_server_sends_after_the_end_of_tls_inside_tls_is_dropped(tls, contexts):
    message = os.urandom(500_000)
    with nested(tls, contexts, max_queue=1, max_size=None) as (client, server):
        flooding = Task(repeat, lambda: server.send(message))
        assert client.recv(PATIENCE) == message
        client.close()
        assert client.wait_closed(0)
        assert isinstance(flooding.error(), ConnectionClosed)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_forgets_tls_inside_tls(tls, contexts):
    def is_closed():
        with contextlib.suppress(ConnectionClosed):
            client.send("x")
            return False
        return client.fileno() == -1

    with nested(tls, contexts) as (client, server):
        assert in_child(is_closed) == "True"
        client.send("hello")
        assert server.recv(PATIENCE) == "hello"


def test_reading_from_tls_inside_tls_can_be_ended(tls, contexts):
    with nested(tls, contexts) as (client, _):
        client._transport.shutdown_read()
        with pytest.raises(ConnectionClosed):
            client.recv(PATIENCE)


# What goes wrong


def test_a_proxy_that_is_not_there():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError, match=f"proxy 127.0.0.1 port {port}"):
            connect("ws://localhost/", proxy=f"http://127.0.0.1:{port}")


def test_a_proxy_that_wants_credentials():
    answer = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 7\r\n\r\nwho are"
    with connect_proxy(answer=answer) as proxy:
        with pytest.raises(
            InvalidProxyStatus, match=r"HTTP 407: who are .the proxy wants credentials"
        ) as raised:
            connect("ws://localhost/", proxy=http(proxy))
    assert raised.value.response.status_code == 407


def test_a_proxy_that_does_not_reach_the_host():
    with connect_proxy() as proxy, pytest.raises(InvalidProxyStatus, match="HTTP 502"):
        connect("ws://127.0.0.1:1/", proxy=http(proxy))


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"SSH-2.0\r\n", "invalid HTTP status line: SSH-2.0"),
        (b"", "connection closed while reading HTTP response"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", "proxy sent hello after its response"),
    ],
)
def test_a_proxy_that_does_not_speak_http(answer, message):
    with connect_proxy(answer=answer) as proxy, pytest.raises(InvalidProxyMessage, match=message):
        connect("ws://localhost/", proxy=http(proxy))


def test_a_plain_proxy_does_not_do_for_https(client_context):
    with connect_proxy() as proxy, pytest.raises(OSError, match="TLS to the proxy"):
        connect("ws://localhost/", proxy=https(proxy), proxy_ssl=client_context)


def test_a_silent_proxy_is_left_in_time():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connect(
                "ws://localhost/",
                proxy=f"http://127.0.0.1:{listener.getsockname()[1]}",
                open_timeout=0.2,
            )
        assert time.monotonic() - began < 5
