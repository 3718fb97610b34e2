"""The server's side of the opening handshake, as clients see it on the wire."""

from __future__ import annotations

import base64
import contextlib
import logging
import re
import socket
import ssl
import time

import pytest
from conftest import wait_until
from links import PATIENCE, Held, counts, echo, handshake, masked, read_all

from syncws import (
    SAME_HOST,
    Frame,
    Headers,
    InvalidStatus,
    PerMessageDeflate,
    Response,
    basic_auth,
)

HEADERS = {
    "Host": "127.0.0.1",
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}

SERVER_LOG = "syncws.server"


def request(line="GET / HTTP/1.1", **changes):
    """An opening handshake; ``None`` leaves a header out."""
    fields = {**HEADERS, **{name.replace("_", "-"): value for name, value in changes.items()}}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\r\n".join([line, *lines, "", ""]).encode()


def answer(link, server, data):
    """All that a server sends for ``data`` until it closes: status, headers and body."""
    with link.socket(server) as sock:
        sock.sendall(data)
        head, _, body = read_all(sock).decode().partition("\r\n\r\n")
    status_line, *lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    return int(status_line.split(" ")[1]), headers, body


def never(connection):
    raise AssertionError("the handler was called")


def messages(caplog, level=logging.DEBUG):
    return [record.getMessage() for record in caplog.records if record.levelno >= level]


# Refusals: status, part of the body, and headers that belong to the status.

REFUSALS = {
    "not HTTP": (b"hello\r\n\r\n", 400, "invalid HTTP request line", {}),
    "bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400, "LF", {}),
    "folded header": (
        b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
        400,
        "invalid HTTP header line",
        {},
    ),
    "body": (request(Content_Length="3"), 400, "unsupported request body", {}),
    "chunked body": (request(Transfer_Encoding="chunked"), 400, "transfer codings", {}),
    "no Host": (request(Host=None), 400, "missing Host header", {}),
    "invalid Host": (request(Host="a b"), 400, "invalid Host header: a b", {}),
    "no key": (request(Sec_WebSocket_Key=None), 400, "missing Sec-WebSocket-Key header", {}),
    "invalid key": (request(Sec_WebSocket_Key="abc"), 400, "Sec-WebSocket-Key header: abc", {}),
    "foreign origin": (
        request(Origin="https://evil.example"),
        403,
        "invalid Origin header: https://evil.example",
        {},
    ),
    "method": (request("POST / HTTP/1.1"), 405, "unsupported HTTP method: POST", {"Allow": "GET"}),
    "long request line": (b"GET /" + b"a" * 9000, 414, "", {}),
    "no upgrade": (
        request(Upgrade=None),
        426,
        "missing Upgrade header",
        {"Upgrade": "websocket", "Connection": "Upgrade, close"},
    ),
    "no Connection": (
        request(Connection="close"),
        426,
        "invalid Connection header: close",
        {"Upgrade": "websocket", "Connection": "Upgrade, close"},
    ),
    "version": (
        request(Sec_WebSocket_Version="8"),
        426,
        "invalid Sec-WebSocket-Version header: 8",
        {"Sec-WebSocket-Version": "13", "Connection": "Upgrade, close"},
    ),
    "no version": (
        request(Sec_WebSocket_Version=None),
        400,
        "missing Sec-WebSocket-Version header",
        {"Sec-WebSocket-Version": "13"},
    ),
    "long header": (b"GET / HTTP/1.1\r\nA: " + b"a" * 9000, 431, "", {}),
    "many headers": (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200, 431, "", {}),
    "HTTP/1.0": (request("GET / HTTP/1.0"), 505, "unsupported HTTP version: HTTP/1.0", {}),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "connection preface of HTTP/2", {}),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_requests_are_refused_with_a_status_that_fits_and_a_reason(plain, caplog, name):
    caplog.set_level(logging.INFO, SERVER_LOG)
    data, status, reason, expected = REFUSALS[name]
    with plain.serve(never).start() as server:
        found, headers, body = answer(plain, server, data)
    assert found == status
    assert reason in body
    assert body.endswith("\n")
    assert headers["Content-Length"] == str(len(body))
    assert headers["Content-Type"] == "text/plain; charset=utf-8"
    assert headers["Server"].startswith("Python/")
    assert {"Connection": "close", **expected}.items() <= headers.items()
    assert messages(caplog, logging.ERROR) == []
    assert any("opening handshake" in message for message in messages(caplog))


def test_a_request_cut_into_bytes_is_understood(plain):
    with plain.serve(echo).start() as server, plain.socket(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in request():
            sock.sendall(bytes([byte]))
        assert sock.recv(4096).startswith(b"HTTP/1.1 101 Switching Protocols\r\n")


def test_a_request_that_ends_early_gets_400(plain):
    with plain.serve(never).start() as server, plain.socket(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n")
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_a_connection_without_a_request_is_closed_without_an_answer(plain, caplog):
    caplog.set_level(logging.INFO, SERVER_LOG)
    with plain.serve(never).start() as server, plain.socket(server) as sock:
        sock.shutdown(socket.SHUT_WR)
        assert read_all(sock) == b""
    assert messages(caplog, logging.WARNING) == []


def test_frames_right_behind_the_request_are_not_lost(link):
    with link.serve(echo).start() as server, link.socket(server) as sock:
        sock.sendall(request() + masked(0x81, b"one") + masked(0x82, b"two")[:4])
        response = sock.recv(4096)
        assert response.startswith(b"HTTP/1.1 101 ")
        sock.sendall(masked(0x82, b"two")[4:] + masked(0x88, b""))
        frames = response.partition(b"\r\n\r\n")[2] + read_all(sock)
    assert frames == b"\x81\x03one\x82\x03two\x88\x00"


def test_the_server_does_not_wait_for_those_who_do_not_read_the_refusal(plain):
    with plain.serve(never, close_timeout=PATIENCE).start() as server:
        with plain.socket(server) as sock:
            sock.sendall(b"x\r\n\r\n")
            assert sock.recv(4).startswith(b"HTTP")
            # Neither end closes: the server does so by itself.
            assert wait_until(lambda: server.stats()["total"] == 0)


# Origins


def test_the_log_says_how_to_allow_an_origin_that_was_refused(plain, caplog):
    with plain.serve(never).start() as server:
        status, _, _ = answer(plain, server, request(Origin="https://app.example"))
    assert status == 403
    (message,) = messages(caplog, logging.WARNING)
    assert "to allow it, add 'https://app.example' to the origins argument" in message


@pytest.mark.parametrize(
    ("origins", "origin", "allowed"),
    [
        (SAME_HOST, "http://127.0.0.1:8000", True),
        (SAME_HOST, None, True),
        (SAME_HOST, "null", False),
        (None, "https://evil.example", True),
        (["https://app.example"], "https://app.example", True),
        (["https://app.example"], "https://app.example.evil", False),
        (["https://app.example"], None, False),
        (["https://app.example", None], None, True),
        ([re.compile(r"https://.*\.example")], "https://a.example", True),
        ([re.compile(r"https://.*\.example")], "https://a.example.evil", False),
        ([SAME_HOST, "https://app.example"], "http://127.0.0.1", True),
    ],
)
def test_origins_tells_whose_pages_may_connect(plain, origins, origin, allowed):
    with plain.serve(echo, origins=origins).start() as server, contextlib.ExitStack() as stack:
        if not allowed:
            stack.enter_context(pytest.raises(InvalidStatus, match="HTTP 403"))
        with plain.connect(server, origin=origin) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"


# Hooks


def test_process_request_may_answer_with_a_response(plain):
    def process_request(connection, request):
        assert request.path == "/page?x=1"
        return connection.respond(200, "hello\n")

    with plain.serve(never, process_request=process_request).start() as server:
        found = answer(plain, server, b"GET /page?x=1 HTTP/1.1\r\nHost: a\r\n\r\n")
    assert found[0] == 200
    assert found[2] == "hello\n"


def test_process_request_may_let_a_request_pass(link):
    seen = []

    def process_request(connection, request):
        seen.append((request.path, request.headers["X-Test"]))

    with link.serve(echo, process_request=process_request).start() as server:
        with link.connect(server, "/room", additional_headers={"X-Test": "yes"}) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
    assert seen == [("/room", "yes")]


def test_process_request_may_answer_http_1_0(plain):
    def process_request(connection, request):
        return connection.respond(200, request.protocol)

    with plain.serve(never, process_request=process_request).start() as server:
        status, headers, body = answer(plain, server, b"GET / HTTP/1.0\r\n\r\n")
    assert (status, headers["Connection"], body) == (200, "close", "HTTP/1.0")


def test_the_answer_to_head_has_no_body(plain):
    def process_request(connection, request):
        return connection.respond(200, "hello\n")

    with plain.serve(never, process_request=process_request).start() as server:
        status, headers, body = answer(plain, server, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (status, headers["Content-Length"], body) == (200, "6", "")


def test_a_response_without_headers_gets_what_it_needs(plain):
    def process_request(connection, request):
        return Response(204, "No Content", Headers())

    with plain.serve(never, process_request=process_request).start() as server:
        status, headers, body = answer(plain, server, request())
    assert (status, headers["Connection"], body) == (204, "close", "")
    assert "Server" in headers


def test_process_response_sees_and_changes_the_response(link):
    def process_response(connection, request, response):
        assert connection.request is request
        response.headers["X-Test"] = f"{response.status_code} for {request.path}"

    with link.serve(echo, process_response=process_response).start() as server:
        with link.connect(server, "/a") as connection:
            assert connection.response.headers["X-Test"] == "101 for /a"


def test_process_response_may_replace_the_response(plain):
    def process_response(connection, request, response):
        return connection.respond(402, "pay first\n")

    with plain.serve(never, process_response=process_response).start() as server:
        status, _, body = answer(plain, server, request())
    assert (status, body) == (402, "pay first\n")


def test_process_response_sees_refusals_too(plain):
    seen = []

    def process_response(connection, request, response):
        seen.append(response.status_code)

    with plain.serve(never, process_response=process_response).start() as server:
        answer(plain, server, request(Upgrade=None))
    assert seen == [426]


def fail(*args):
    raise RuntimeError("a bug of the hook")


@pytest.mark.parametrize(
    "options",
    [
        {"process_request": fail},
        {"process_response": fail},
        {"select_subprotocol": fail},
        {"select_subprotocol": lambda connection, offered: "not-offered"},
        {"process_request": lambda connection, request: "not a response"},
        {"process_response": lambda connection, request, response: "not a response"},
        {"process_response": lambda *args: Response(200, "O\nK", Headers())},
        {"process_request": basic_auth(check_credentials=fail)},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_hooks_do_wrong_is_logged_and_answered_with_500(plain, caplog, options):
    with plain.serve(never, **options).start() as server:
        credentials = base64.b64encode(b"a:b").decode()
        data = request(Authorization=f"Basic {credentials}", Sec_WebSocket_Protocol="chat")
        status, _, body = answer(plain, server, data)
    assert status == 500
    assert "See server log" in body
    assert "bug" not in body
    (record,) = (record for record in caplog.records if record.levelno >= logging.ERROR)
    assert record.getMessage() == "opening handshake failed"
    assert record.exc_info is not None


@pytest.mark.parametrize("value", ["Test/1.0", None])
def test_the_server_header_can_be_chosen(plain, value):
    with plain.serve(echo, server_header=value).start() as server:
        with plain.connect(server) as connection:
            assert connection.response.headers.get("Server") == value
        assert answer(plain, server, b"x\r\n\r\n")[1].get("Server") == value


def test_a_server_header_set_by_a_hook_stays(plain):
    def process_request(connection, request):
        response = connection.respond(200, "")
        response.headers["Server"] = "mine"
        return response

    with plain.serve(never, process_request=process_request).start() as server:
        assert answer(plain, server, request())[1]["Server"] == "mine"


# Health checks


@pytest.mark.parametrize(
    ("line", "status", "body"),
    [
        ("GET /healthz HTTP/1.1", 200, "OK\n"),
        ("GET /healthz?from=lb HTTP/1.1", 200, "OK\n"),
        ("GET /healthz HTTP/1.0", 200, "OK\n"),
        ("HEAD /healthz HTTP/1.1", 200, ""),
        ("GET http://a/healthz HTTP/1.1", 200, "OK\n"),
        ("POST /healthz HTTP/1.1", 405, "A health check is a GET or a HEAD request.\n"),
        ("GET /healthz/more HTTP/1.1", 426, None),
    ],
)
def test_health_checks_are_answered_without_a_hook(plain, line, status, body):
    with plain.serve(never, health="/healthz", process_request=None).start() as server:
        found, headers, text = answer(plain, server, f"{line}\r\nHost: a\r\n\r\n".encode())
    assert found == status
    assert body is None or text == body
    assert status != 405 or headers["Allow"] == "GET, HEAD"


def test_health_checks_go_before_hooks(plain):
    with plain.serve(never, health="/healthz", process_request=fail).start() as server:
        assert answer(plain, server, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")[0] == 200


def test_health_checks_get_503_once_the_server_is_closing(plain):
    held = Held()
    server = plain.serve(held, health="/healthz").start()
    with plain.socket(server) as sock, plain.socket(server) as check:
        handshake(sock)
        held.wait()
        # Its thread waits for the request when the server is closed.
        check.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert wait_until(lambda: counts(server) == (1, 2))
        server.close(close_connections=False)
        check.sendall(b"Host: a\r\n\r\n")
        assert read_all(check).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        held.release()
    server.shutdown()


# Timeouts


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost:"], ids=["silent", "begun"])
def test_handshakes_end_with_open_timeout(slow_link, start):
    with (
        slow_link.serve(never, open_timeout=0.3).start() as server,
        slow_link.socket(server) as sock,
    ):
        began = time.monotonic()
        sock.sendall(start)
        assert read_all(sock) == b""
        assert 0.1 < time.monotonic() - began < 5


def test_trickling_does_not_prolong_a_handshake(plain):
    with plain.serve(never, open_timeout=0.3).start() as server, plain.socket(server) as sock:
        began = time.monotonic()
        sock.settimeout(0.02)
        with contextlib.suppress(ConnectionError):
            while time.monotonic() - began < PATIENCE:
                sock.sendall(b"x")
                with contextlib.suppress(socket.timeout):  # TimeoutError, but not in 3.9
                    if not sock.recv(1):
                        break
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("hello", [0, 1, 40], ids=["silent", "one byte", "half a hello"])
def test_tls_handshakes_end_with_open_timeout(tls, plain, client_context, caplog, hello):
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    caplog.set_level(logging.INFO, SERVER_LOG)
    with tls.serve(never, open_timeout=0.3).start() as server, plain.socket(server) as sock:
        sock.sendall(outgoing.read()[:hello])
        assert read_all(sock) == b""
    assert messages(caplog, logging.WARNING) == []
    assert "opening handshake failed: timed out during the TLS handshake" in messages(caplog)


def test_a_client_with_tls_at_a_plain_port_is_closed_and_explained(plain, client_context, caplog):
    caplog.set_level(logging.INFO, SERVER_LOG)
    with plain.serve(never).start() as server, plain.socket(server) as sock:
        with pytest.raises((ssl.SSLError, ConnectionError)):
            client_context.wrap_socket(sock, server_hostname="127.0.0.1")
    expected = "opening handshake failed: received a TLS handshake, but this port has no TLS; "
    assert any(line.startswith(expected) for line in messages(caplog))
    assert messages(caplog, logging.WARNING) == []


def test_a_plain_client_at_a_tls_port_is_closed(tls, plain, caplog):
    with tls.serve(never).start() as server, plain.socket(server) as sock:
        sock.sendall(request())
        assert not read_all(sock).startswith(b"HTTP")
    assert messages(caplog, logging.WARNING) == []


# Negotiation


@pytest.mark.parametrize(
    ("available", "offered", "agreed"),
    [
        (["chat", "superchat"], ["superchat", "chat"], "chat"),
        (["chat"], ["other", "chat"], "chat"),
        (None, ["chat"], None),
    ],
)
def test_the_servers_preference_chooses_the_subprotocol(plain, available, offered, agreed):
    held = Held()
    with plain.serve(held, subprotocols=available).start() as server:
        with plain.connect(server, subprotocols=offered) as connection:
            assert connection.subprotocol == agreed
            assert held.wait().subprotocol == agreed
            held.release()


@pytest.mark.parametrize("offered", [None, ["other"]])
def test_a_client_without_a_common_subprotocol_is_refused(plain, offered):
    with plain.serve(never, subprotocols=["chat"]).start() as server:
        with pytest.raises(InvalidStatus, match="HTTP 400"):
            plain.connect(server, subprotocols=offered)


def test_select_subprotocol_is_asked_with_the_connection(plain):
    def select(connection, offered):
        assert connection.request.path == "/a"
        return offered[-1] if offered else None

    with plain.serve(echo, select_subprotocol=select).start() as server:
        with plain.connect(server, "/a", subprotocols=["x", "y"]) as connection:
            assert connection.subprotocol == "y"
        with plain.connect(server, "/a") as connection:
            assert connection.subprotocol is None


class Reversal:
    """An extension of our own: turns payloads round and marks the frames with RSV2."""

    name = "reversal"
    rsv2 = True

    def encode(self, frame):
        return frame._replace(data=frame.data[::-1], rsv2=True)

    def decode(self, frame, *, max_size=None):
        assert isinstance(frame, Frame)
        return frame._replace(data=frame.data[::-1], rsv2=False)


class ReversalFactory:
    """Negotiates it, in both roles."""

    name = "reversal"

    def get_request_params(self):
        return []

    def process_request_params(self, params, accepted_extensions):
        return [], Reversal()

    def process_response_params(self, params, accepted_extensions):
        return Reversal()


@pytest.mark.parametrize("compression", [None, "deflate"])
def test_extensions_of_the_user_transform_frames(link, compression):
    options = {"extensions": [ReversalFactory()], "compression": compression}
    with link.serve(echo, **options).start() as server:
        with link.connect(server, **options) as connection:
            for message in ("hello", "hello " * 100, b"\x01\x02"):
                connection.send(message)
                assert connection.recv() == message


def test_frames_of_an_extension_look_as_it_made_them(plain):
    with plain.serve(echo, extensions=[ReversalFactory()]).start() as server:
        with plain.socket(server) as sock:
            head = handshake(sock, Sec_WebSocket_Extensions="reversal")
            assert "Sec-WebSocket-Extensions: reversal\r\n" in head
            sock.sendall(masked(0xA1, b"hello") + masked(0x88, b""))
            assert read_all(sock) == b"\xa1\x05hello\x88\x00"


@pytest.mark.parametrize(
    ("compression", "agreed"),
    [
        ("deflate", "permessage-deflate"),
        (None, None),
        (PerMessageDeflate(server_no_context_takeover=True), "server_no_context_takeover"),
        (PerMessageDeflate(client_max_window_bits=10), "client_max_window_bits=10"),
    ],
)
def test_compression_is_agreed_on_as_configured(plain, compression, agreed):
    with plain.serve(echo, compression=compression).start() as server:
        with plain.connect(server) as connection:
            header = connection.response.headers.get("Sec-WebSocket-Extensions")
            assert header is None if agreed is None else agreed in header
            connection.send("hello " * 1000)
            assert connection.recv() == "hello " * 1000


# Basic authentication


def test_basic_auth_asks_for_credentials(plain):
    auth = basic_auth("the realm", ("user", "secret"))
    with plain.serve(never, process_request=auth).start() as server:
        status, headers, body = answer(plain, server, request())
    assert (status, body) == (401, "Missing credentials\n")
    assert headers["WWW-Authenticate"] == 'Basic realm="the realm", charset="UTF-8"'


def test_basic_auth_lets_the_right_user_in(link):
    users = []

    def handler(connection):
        users.append(connection.username)
        echo(connection)

    auth = basic_auth("realm", [("user", "secret"), ("other", "pässword")])
    with link.serve(handler, process_request=auth).start() as server:
        uri = link.uri(server).replace("://", "://other:p%C3%A4ssword@")
        with connect_to(link, uri) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
        with pytest.raises(InvalidStatus, match="HTTP 401") as raised:
            connect_to(link, uri.replace("%C3%A4", "a"))
        assert raised.value.response.body == b"Invalid credentials\n"
    assert users == ["other"]


def connect_to(link, uri):
    """Like ``link.connect()``, with another URI."""

    class Elsewhere(type(link)):
        def uri(self, server, path="/"):
            return uri

    other = object.__new__(Elsewhere)
    other.__dict__.update(link.__dict__)
    return other.connect(None)


# Limits


def refused(link, server):
    """Connect and read a refusal before anything was sent."""
    with link.socket(server) as sock:
        return read_all(sock)


def test_over_max_connections_clients_get_503_without_a_thread(plain, caplog):
    held = Held()
    with plain.serve(held, max_connections=1).start() as server, plain.connect(server):
        held.wait()
        assert counts(server) == (1, 1)
        for _ in range(3):
            response = refused(plain, server).decode()
            assert response.startswith("HTTP/1.1 503 Service Unavailable\r\n")
            assert "\r\nRetry-After: 5\r\n" in response
            assert response.endswith("\r\n\r\nToo many connections.\n")
        with pytest.raises(InvalidStatus) as raised:
            plain.connect(server)
        assert raised.value.response.status_code == 503
        assert counts(server) == (1, 1)
        held.release()
    assert messages(caplog, logging.WARNING) == [
        "connections refused: there are 1, max_connections"
    ]


def test_below_max_connections_again_clients_get_in(plain):
    with plain.serve(echo, max_connections=1).start() as server:
        for _ in range(3):
            with plain.connect(server) as connection:
                with pytest.raises(InvalidStatus, match="HTTP 503"):
                    plain.connect(server)
                connection.send("hello")
                assert connection.recv() == "hello"
            assert wait_until(lambda: server.stats()["total"] == 0)


def test_over_max_connections_tls_clients_are_closed(tls, plain):
    held = Held()
    with tls.serve(held, max_connections=1).start() as server, tls.connect(server):
        held.wait()
        assert refused(plain, server) == b""
        held.release()


def test_a_refused_client_that_stays_is_closed_in_time(plain):
    with plain.serve(never, max_connections=0).start() as server, plain.socket(server) as sock:
        began = time.monotonic()
        assert read_all(sock).startswith(b"HTTP/1.1 503 ")
        # The end of input above is a half-close; the reset shows that it is closed.
        wait_until(lambda: time.monotonic() - began > 1.2)
        with pytest.raises(ConnectionError):
            send_until_reset(sock)


def send_until_reset(sock):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sock.sendall(b"x")


def test_many_refused_clients_cost_no_more_than_a_few_descriptors(plain):
    with plain.serve(never, max_connections=0).start() as server, contextlib.ExitStack() as stack:
        socks = [stack.enter_context(plain.socket(server)) for _ in range(80)]
        for sock in socks:
            assert read_all(sock).startswith(b"HTTP/1.1 503 ")
