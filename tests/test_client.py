"""The client: how it connects, and what it does not put up with."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import ssl
import struct
import threading
import time

import pytest
from links import PATIENCE, Held, echo
from peers import GUID, Task

from syncws import (
    ClientConnection,
    Headers,
    InvalidHandshake,
    InvalidHeader,
    InvalidMessage,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    SecurityError,
    connect,
    serve,
    unix_connect,
    unix_serve,
)
from syncws.advice import advising
from syncws.uri import parse_uri

URI = "ws://127.0.0.1:{}/"


def says(connection, message="hello"):
    connection.send(message)
    return connection.recv(PATIENCE) == message


def accept_key(request):
    """The answer to the key in a request (RFC 6455 §4.2.2)."""
    key = next(
        line.partition(b":")[2].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    return base64.b64encode(hashlib.sha1(key + GUID).digest())


ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: %ACCEPT%\r\n"
)


@contextlib.contextmanager
def answering(response, *, reset=False, stay=False):
    """A server that answers one request with what a test says; yields its port."""
    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_one():
            sock, _ = listener.accept()
            with sock:
                sock.settimeout(PATIENCE)
                request = b""
                while b"\r\n\r\n" not in request:
                    request += sock.recv(65536)
                sock.sendall(response.replace(b"%ACCEPT%", accept_key(request)))
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                if stay:
                    done.wait(PATIENCE)
                return request

        task = Task(serve_one)
        try:
            yield listener.getsockname()[1]
        finally:
            done.set()
            task.result()


# Connecting


def test_with_and_without_with(link):
    with link.serve(echo).start() as server:
        with link.connect(server) as connection:
            assert says(connection)
        connection = link.connect(server)
        assert says(connection)
        connection.close()


def test_a_connection_refused_raises():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # but does not listen
        with pytest.raises(ConnectionRefusedError):
            connect(URI.format(sock.getsockname()[1]))


def test_a_name_that_does_not_exist_raises():
    with pytest.raises(OSError, match=r".+"):
        connect("ws://name.invalid/", open_timeout=5)


@pytest.mark.parametrize(
    "uri", ["http://localhost/", "ws:localhost", "//localhost/", "ws://localhost/#a", "ws://", ""]
)
def test_what_is_no_websocket_uri_raises(uri):
    with pytest.raises(InvalidURI, match="isn't a valid URI"):
        connect(uri)


def test_tls_options_do_not_go_with_a_plain_uri(client_context):
    with pytest.raises(ValueError, match="ssl argument is incompatible with a ws:// URI"):
        connect("ws://localhost/", ssl=client_context)


@pytest.mark.parametrize("response", [b"", b"HTTP/1.1 101 Switching"], ids=["silent", "begun"])
def test_open_timeout_ends_the_handshake(response):
    with answering(response, stay=True) as port:
        began = time.monotonic()
        with pytest.raises(TimeoutError, match="timed out during the opening handshake"):
            connect(URI.format(port), open_timeout=0.3)
        assert time.monotonic() - began < 5


def test_open_timeout_ends_the_tls_handshake(client_context):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        uri = f"wss://127.0.0.1:{listener.getsockname()[1]}/"
        with pytest.raises(TimeoutError, match="timed out during the TLS handshake"):
            connect(uri, ssl=client_context, open_timeout=0.3)


def test_open_timeout_ends_connecting():
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, socket.socket() as sock:
        # The backlog is full then: nobody answers.
        sock.connect(listener.getsockname())
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                other = stack.enter_context(socket.socket())
                other.setblocking(False)
                other.connect_ex(listener.getsockname())
            with pytest.raises(OSError, match="timed out"):
                connect(URI.format(listener.getsockname()[1]), open_timeout=0.3)


def test_a_socket_of_the_user_is_used():
    with serve(echo, "127.0.0.1", 0).start() as server:
        sock = socket.create_connection(server.server_address)
        with connect("ws://example.com/chat", sock=sock) as connection:
            assert says(connection)
            assert connection.local_address == sock.getsockname()
            assert connection.request.headers["Host"] == "example.com"
        assert sock.fileno() == -1


def test_a_socket_with_a_timeout_is_used():
    with serve(echo, "127.0.0.1", 0).start() as server:
        sock = socket.create_connection(server.server_address, timeout=5)
        with connect("ws://localhost/", sock=sock) as connection:
            assert says(connection)


def test_a_socket_of_the_user_is_closed_when_it_fails():
    with answering(b"nonsense\r\n") as port:
        sock = socket.create_connection(("127.0.0.1", port))
        with pytest.raises(InvalidMessage):
            connect("ws://localhost/", sock=sock)
        assert sock.fileno() == -1


def test_arguments_of_create_connection_are_passed_on():
    held = Held()
    with serve(held, "127.0.0.1", 0).start() as server:
        uri = URI.format(server.server_address[1])
        with connect(uri, source_address=("127.0.0.2", 0)):
            assert held.wait().remote_address[0] == "127.0.0.2"
            held.release()


def test_another_address_may_be_connected_to():
    with serve(echo, "127.0.0.1", 0).start() as server:
        with connect("ws://example.com/", address=server.server_address) as connection:
            assert says(connection)
            assert connection.request.headers["Host"] == "example.com"


def test_a_class_of_the_user_is_used(plain):
    class Mine(ClientConnection):
        pass

    with plain.serve(echo).start() as server:
        with plain.connect(server, create_connection=Mine) as connection:
            assert type(connection) is Mine
    del Mine, connection


# The request


def requested(plain, path="/", **options):
    """The request as the server sees it."""
    held = Held()
    with plain.serve(held, origins=None).start() as server:
        with plain.connect(server, path, **options):
            request = held.wait().request
            held.release()
    return request


def test_path_and_query_are_sent(plain):
    assert requested(plain, "/a%20b?c=d&e").path == "/a%20b?c=d&e"


def test_additional_headers_are_sent(plain):
    for headers in (
        {"X-One": "1", "Host": "elsewhere"},
        [("X-One", "1"), ("Host", "elsewhere")],
        Headers({"X-One": "1", "Host": "elsewhere"}),
    ):
        request = requested(plain, additional_headers=headers)
        assert request.headers["X-One"] == "1"
        assert request.headers["Host"] == "elsewhere"


def test_the_origin_is_sent(plain):
    assert requested(plain, origin="https://a.example").headers["Origin"] == "https://a.example"
    assert "Origin" not in requested(plain).headers


@pytest.mark.parametrize("value", ["Test/1.0", None])
def test_the_user_agent_can_be_chosen(plain, value):
    assert requested(plain, user_agent_header=value).headers.get("User-Agent") == value


def test_the_user_agent_says_what_it_is(plain):
    assert " syncws/" in requested(plain).headers["User-Agent"]


def test_credentials_of_the_uri_are_sent():
    held = Held()
    with serve(held, "127.0.0.1", 0).start() as server:
        with connect(f"ws://user:p%40ss@127.0.0.1:{server.server_address[1]}/"):
            request = held.wait().request
            held.release()
    assert request.headers["Authorization"] == "Basic dXNlcjpwQHNz"
    assert "@" not in request.headers["Host"]


# The response


@pytest.mark.parametrize("status", [200, 301, 401, 404, 500, 503])
def test_another_status_raises_with_the_response(status):
    response = b"HTTP/1.1 %d Phrase\r\nContent-Length: 6\r\nX-Test: yes\r\n\r\nreason" % status
    with answering(response) as port:
        expected = f"^server rejected WebSocket connection: HTTP {status}: reason( |$)"
        with pytest.raises(InvalidStatus, match=expected) as raised:
            connect(URI.format(port))
    assert raised.value.response.status_code == status
    assert raised.value.response.headers["X-Test"] == "yes"
    assert raised.value.response.body == b"reason"


@pytest.mark.parametrize(
    "rest",
    [
        b"\r\nuntil the end",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nuntil\r\n8\r\n the end\r\n0\r\n\r\n",
        b"Content-Length: 100\r\n\r\nuntil the end",
    ],
    ids=["until the end", "chunked", "cut"],
)
def test_the_body_is_read_as_far_as_it_comes(rest):
    with answering(b"HTTP/1.1 404 Not Found\r\n" + rest) as port:
        with pytest.raises(InvalidStatus) as raised:
            connect(URI.format(port))
    assert raised.value.response.body == b"until the end"


def test_an_endless_body_is_cut():
    with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 200_000, stay=True) as port:
        with pytest.raises(InvalidStatus) as raised:
            connect(URI.format(port))
    assert raised.value.response.body == b"x" * 65536


BAD_RESPONSES = {
    "nonsense": (b"SSH-2.0-OpenSSH\r\n", InvalidMessage, "invalid HTTP status line"),
    "no answer": (b"", InvalidMessage, "connection closed while reading HTTP response"),
    "half an answer": (
        b"HTTP/1.1 101 Sw",
        InvalidMessage,
        "connection closed while reading HTTP response",
    ),
    "TLS": (b"\x15\x03\x01\x00\x02\x02\x46", InvalidMessage, "use wss://"),
    "endless header": (
        b"HTTP/1.1 101 A\r\nA: " + b"a" * 9000,
        SecurityError,
        "line is longer than 8192 bytes",
    ),
    "many headers": (
        b"HTTP/1.1 101 A\r\n" + b"A: a\r\n" * 200,
        SecurityError,
        "too many|more than",
    ),
    "HTTP/1.0": (
        b"HTTP/1.0 101 A\r\n\r\n",
        InvalidHandshake,
        "unsupported HTTP version: HTTP/1.0",
    ),
    "no Upgrade": (
        b"HTTP/1.1 101 A\r\nConnection: Upgrade\r\n\r\n",
        InvalidUpgrade,
        "missing Upgrade header",
    ),
    "other Upgrade": (
        ACCEPTED.replace(b"websocket", b"h2c") + b"\r\n",
        InvalidUpgrade,
        "invalid Upgrade header: h2c",
    ),
    "no Connection": (
        ACCEPTED.replace(b"Connection", b"X") + b"\r\n",
        InvalidUpgrade,
        "missing Connection header",
    ),
    "no Sec-WebSocket-Accept": (
        ACCEPTED.replace(b"Sec-WebSocket-Accept", b"X") + b"\r\n",
        InvalidHeader,
        "missing Sec-WebSocket-Accept header",
    ),
    "wrong Sec-WebSocket-Accept": (
        ACCEPTED.replace(b"%ACCEPT%", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") + b"\r\n",
        InvalidHeader,
        "invalid Sec-WebSocket-Accept header: s3pPLMBiTxaQ9kYGzzhZRbK",
    ),
    "extension that was not offered": (
        ACCEPTED + b"Sec-WebSocket-Extensions: x-test\r\n\r\n",
        NegotiationError,
        "Unsupported extension: name = x-test",
    ),
    "parameter that was not offered": (
        ACCEPTED + b"Sec-WebSocket-Extensions: permessage-deflate; x=1\r\n\r\n",
        NegotiationError,
        "invalid parameter name: x",
    ),
    "subprotocol that was not offered": (
        ACCEPTED + b"Sec-WebSocket-Protocol: other\r\n\r\n",
        NegotiationError,
        "unsupported subprotocol: other",
    ),
    "two subprotocols": (
        ACCEPTED + b"Sec-WebSocket-Protocol: chat, superchat\r\n\r\n",
        InvalidHeader,
        "multiple values",
    ),
}


@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_responses_raise(name):
    response, error, message = BAD_RESPONSES[name]
    with answering(response) as port, pytest.raises(error, match=message):
        connect(URI.format(port), subprotocols=["chat", "superchat"])


def test_extensions_need_an_offer():
    response = ACCEPTED + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with answering(response) as port:
        with pytest.raises(NegotiationError, match="no extensions supported"):
            connect(URI.format(port), compression=None)


def test_a_subprotocol_needs_an_offer():
    with answering(ACCEPTED + b"Sec-WebSocket-Protocol: chat\r\n\r\n") as port:
        with pytest.raises(NegotiationError, match="no subprotocols supported"):
            connect(URI.format(port))


def test_a_reset_raises():
    with answering(b"HTTP/1.1 1", reset=True) as port:
        with pytest.raises((ConnectionResetError, InvalidMessage)):
            connect(URI.format(port))


def test_frames_right_behind_the_response_are_not_lost():
    with answering(ACCEPTED + b"\r\n\x81\x05hello\x81\x05world\x88\x00") as port:
        with connect(URI.format(port)) as connection:
            assert list(connection) == ["hello", "world"]


def test_interim_responses_are_skipped():
    response = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + ACCEPTED + b"\r\n\x88\x00"
    with answering(response) as port, connect(URI.format(port)) as connection:
        assert connection.response.status_code == 101
        assert list(connection) == []


# TLS


def test_the_certificate_must_be_trusted(tls, caplog):
    with tls.serve(echo).start() as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            connect(tls.uri(server))
        # Of the server's logs, too, it is no traceback.
        with tls.connect(server) as connection:
            assert says(connection)
    assert [record for record in caplog.records if record.exc_info] == []


def test_the_certificate_must_be_for_the_name(tls, client_context):
    with tls.serve(echo).start() as server:
        sock = socket.create_connection(server.server_address)
        with pytest.raises(ssl.SSLCertVerificationError, match=r"example\.com"):
            connect("wss://example.com/", sock=sock, ssl=client_context)
        assert sock.fileno() == -1


def test_another_name_may_be_checked(tls, client_context):
    with tls.serve(echo).start() as server:
        options = {"address": server.server_address, "ssl": client_context}
        with connect("wss://a.example/", server_hostname="localhost", **options) as connection:
            assert says(connection)
            assert connection.request.headers["Host"] == "a.example"


def test_a_context_that_checks_nothing_is_enough(tls):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with tls.serve(echo).start() as server, connect(tls.uri(server), ssl=context) as connection:
        assert says(connection)


def test_a_plain_server_does_not_do_for_tls(plain, client_context):
    with plain.serve(echo).start() as server:
        with pytest.raises((ssl.SSLError, InvalidMessage, OSError)):
            connect(f"wss://127.0.0.1:{server.server_address[1]}/", ssl=client_context)


# Unix sockets


def test_unix_connect_needs_a_path_or_a_socket():
    with pytest.raises(ValueError, match="missing path argument"):
        unix_connect()


def test_unix_connect_takes_not_both():
    with socket.socket(socket.AF_UNIX) as sock:
        with pytest.raises(ValueError, match="path is incompatible with sock"):
            unix_connect("socket", sock=sock)


def test_unix_connect_has_a_default_uri(tmp_path):
    with unix_serve(echo, tmp_path / "socket").start():
        with unix_connect(tmp_path / "socket") as connection:
            assert connection.request.headers["Host"] == "localhost"
            assert connection.request.path == "/"
            assert says(connection)


def test_unix_connect_has_a_default_uri_for_tls(tmp_path, server_context, client_context):
    with unix_serve(echo, tmp_path / "socket", ssl=server_context).start():
        with unix_connect(tmp_path / "socket", ssl=client_context) as connection:
            assert says(connection)


def test_unix_connect_takes_a_socket(tmp_path):
    with unix_serve(echo, str(tmp_path / "socket")).start():
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(str(tmp_path / "socket"))
        with unix_connect(uri="ws://a.example/b", sock=sock) as connection:
            assert connection.request.path == "/b"
            assert says(connection)


def test_unix_connect_raises_where_nobody_listens(tmp_path):
    with pytest.raises(FileNotFoundError):
        unix_connect(tmp_path / "socket")


def test_no_time_to_connect_is_a_timeout(plain):
    with plain.serve(echo).start() as server, pytest.raises(TimeoutError, match="timed out"):
        plain.connect(server, open_timeout=0)


# What a newcomer meets


def test_http_instead_of_ws():
    with pytest.raises(InvalidURI, match="scheme isn't ws or wss; use ws:// instead"):
        connect("http://localhost/")


def test_a_refusal_says_where_and_what_to_do():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        with pytest.raises(ConnectionRefusedError) as raised:
            connect(f"ws://localhost:{port}/")
    assert f"cannot connect to localhost port {port}" in str(raised.value)
    assert "is the server running, and the port right?" in str(raised.value)


def test_tls_to_a_plain_server(plain, client_context):
    with plain.serve(echo).start() as server:
        name = f"127.0.0.1:{server.server_address[1]}"
        with pytest.raises(OSError, match=rf"{name}.*ws://"):
            connect(f"wss://{name}/", ssl=client_context)


def test_tls_to_a_plain_server_that_answers(client_context):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_one():
            sock, _ = listener.accept()
            with sock:
                sock.recv(65536)
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        task = Task(serve_one)
        name = f"127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ssl.SSLError, match=f"{name} doesn't seem to use TLS: use ws://"):
            connect(f"wss://{name}/", ssl=client_context)
        task.result()


def test_no_tls_to_a_server_with_tls(tls):
    with tls.serve(echo).start() as server:
        with pytest.raises((InvalidMessage, OSError), match="wss://"):
            connect(f"ws://127.0.0.1:{server.server_address[1]}/")


def test_a_server_that_says_nothing():
    with answering(b"") as port:
        expected = rf"while reading HTTP response; is 127.0.0.1:{port} a WebSocket server"
        with pytest.raises(InvalidMessage, match=expected) as raised:
            connect(URI.format(port))
    assert isinstance(raised.value.__cause__, EOFError)


def test_a_reset_says_when_it_came():
    with answering(b"", reset=True) as port:
        expected = rf"reset by peer, in the opening handshake with 127.0.0.1:{port}; has it TLS"
        with pytest.raises(ConnectionResetError, match=expected) as raised:
            connect(URI.format(port))
    assert raised.value.errno is not None


@pytest.mark.parametrize("length", [0, 18])
def test_a_server_that_knows_http_2_only(length):
    settings = bytes([0, 0, length, 4, 0, 0, 0, 0, 0]) + bytes(length)
    with answering(settings) as port:
        with pytest.raises(InvalidHandshake, match=r"unsupported HTTP version: HTTP/2 .the server"):
            connect(URI.format(port))


def test_tls_with_a_server_that_knows_http_2_only():
    # What OpenSSL reports when the server answers no_application_protocol (RFC 7301 §3.2).
    error = ssl.SSLError(1, "[SSL] alert")
    error.reason = "TLSV1_ALERT_NO_APPLICATION_PROTOCOL"
    with pytest.raises(ssl.SSLError, match=r"a.example:443 doesn't offer HTTP/1.1"):
        with advising(parse_uri("wss://a.example/")):
            raise error


def test_the_end_of_a_connection_in_the_tls_handshake_may_mean_no_tls():
    with pytest.raises(ssl.SSLEOFError, match=r"a.example:443 closed the connection: if it has"):
        with advising(parse_uri("wss://a.example/")):
            raise ssl.SSLEOFError(8, "EOF occurred in violation of protocol")


def test_an_error_without_a_number_is_left_as_it_is():
    error = ConnectionAbortedError("input was lost")
    with pytest.raises(ConnectionAbortedError) as raised:
        with advising(parse_uri("wss://a.example/")):
            raise error
    assert raised.value is error


def test_a_page_is_no_websocket(plain):
    def page(connection, request):
        return connection.respond(200, "<html>\n")

    with plain.serve(echo, process_request=page).start() as server:
        with pytest.raises(InvalidStatus, match=r"HTTP 200 \(this is a page of a web server"):
            plain.connect(server)


def test_a_wrong_path_tells_what_the_server_says(plain):
    def missing(connection, request):
        return connection.respond(404, "\nNo such room\nTry /lobby\n")

    with plain.serve(echo, process_request=missing).start() as server:
        with pytest.raises(InvalidStatus, match=r"HTTP 404: No such room \(is the path right"):
            plain.connect(server)


def test_a_certificate_of_ones_own_needs_a_context(tls):
    with tls.serve(echo).start() as server:
        with pytest.raises(ssl.SSLCertVerificationError, match=r"cafile=...\)$"):
            connect(tls.uri(server))


@pytest.mark.parametrize("value", [True, None])
def test_ssl_true_and_none_are_the_default_context(tls, authority, monkeypatch, tmp_path, value):
    authority.cert_pem.write_to_path(tmp_path / "root.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    with tls.serve(echo).start() as server, connect(tls.uri(server), ssl=value) as connection:
        assert says(connection)


@pytest.mark.parametrize(("uri", "value"), [("ws://localhost/", True), ("wss://localhost/", False)])
def test_ssl_must_fit_the_uri(uri, value):
    with pytest.raises(ValueError, match="ssl"):
        connect(uri, ssl=value)
