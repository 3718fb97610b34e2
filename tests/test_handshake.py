"""The opening handshake (RFC 6455 §4)."""

from __future__ import annotations

import base64
import email.utils
import gc
import re
import time
import weakref

import pytest

from syncws.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
)
from syncws.handshake import (
    SAME_HOST,
    ClientHandshake,
    ServerHandshake,
    accept_key,
    error_response,
    origin_advice,
    reject,
)
from syncws.headers import Headers, build_extension
from syncws.http11 import Request, RequestParser, Response, ResponseParser
from syncws.uri import parse_uri

# RFC 6455 §1.3
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

URI = parse_uri("ws://example.com/chat")


def make_request(*changes, method="GET", protocol="HTTP/1.1"):
    """Return a valid request, with headers replaced, or removed where the value is None."""
    headers = Headers(
        [
            ("Host", "example.com"),
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", KEY),
            ("Sec-WebSocket-Version", "13"),
        ]
    )
    return Request("/chat", with_changes(headers, changes), method, protocol)


def make_response(*changes, status_code=101):
    """Return a valid response, with headers replaced, or removed where the value is None."""
    headers = Headers(
        [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Accept", ACCEPT),
        ]
    )
    return Response(status_code, "Switching Protocols", with_changes(headers, changes))


def with_changes(headers, changes):
    for name in {name for name, _ in changes}:
        if name in headers:
            del headers[name]
    for name, value in changes:
        if value is not None:
            headers[name] = value
    return headers


def refuse(*changes, **kwargs):
    """Let a default server refuse a request; return its exception and response."""
    handshake = ServerHandshake()
    response = handshake.respond(make_request(*changes, **kwargs))
    assert handshake.exception is not None
    assert handshake.extensions == []
    assert handshake.subprotocol is None
    return handshake.exception, response


def check(response, **kwargs):
    """Let a client check a response; return its handshake."""
    handshake = ClientHandshake(URI, key=KEY, **kwargs)
    handshake.check(response)
    return handshake


class Extension:
    """Factory, for both endpoints, of an extension that has one parameter."""

    def __init__(self, name="x-test", value="1"):
        self.name = name
        self.value = value

    def get_request_params(self):
        return [("level", self.value)]

    def process_request_params(self, params, accepted_extensions):
        if params != [("level", self.value)]:
            raise NegotiationError("wrong level")
        return params, (self.name, self.value, len(accepted_extensions))

    def process_response_params(self, params, accepted_extensions):
        if params != [("level", self.value)]:
            raise NegotiationError("wrong level")
        return (self.name, self.value, len(accepted_extensions))


# The server accepts


def test_accept_key_of_the_rfc():
    assert accept_key(KEY) == ACCEPT


def test_a_valid_request_is_accepted():
    handshake = ServerHandshake()
    response = handshake.respond(make_request())
    assert response.status_code == 101
    assert response.reason_phrase == "Switching Protocols"
    assert response.headers["Upgrade"] == "websocket"
    assert response.headers["Connection"] == "Upgrade"
    assert response.headers["Sec-WebSocket-Accept"] == ACCEPT
    assert "Date" in response.headers
    assert "Sec-WebSocket-Extensions" not in response.headers
    assert "Sec-WebSocket-Protocol" not in response.headers
    assert response.body == b""
    assert handshake.exception is None
    assert handshake.extensions == []
    assert handshake.subprotocol is None


@pytest.mark.parametrize(
    "changes",
    [
        [("Upgrade", "WebSocket")],
        [("Upgrade", "h2c, websocket")],
        [("Upgrade", "h2c"), ("Upgrade", "websocket")],
        [("Connection", "keep-alive, upgrade")],
        [("Connection", "keep-alive"), ("Connection", "UPGRADE")],
        [("Connection", ""), ("Connection", "Upgrade")],
        [("Host", "example.com:8765")],
        [("Host", "example.com:")],
        [("Host", "[::1]:8765")],
        [("Host", "127.0.0.1")],
        [("Host", "my_service")],
    ],
)
def test_variations_that_are_valid(changes):
    assert ServerHandshake().respond(make_request(*changes)).status_code == 101


# The server refuses


@pytest.mark.parametrize(
    ("changes", "status", "error", "message"),
    [
        ([("Host", None)], 400, InvalidHeader, "missing Host header"),
        (
            [("Host", "a"), ("Host", "a")],
            400,
            InvalidHeader,
            "invalid Host header: multiple values",
        ),
        ([("Host", "")], 400, InvalidHeaderValue, "empty Host header"),
        ([("Host", "a b")], 400, InvalidHeaderValue, "invalid Host header: a b"),
        ([("Host", "a/b")], 400, InvalidHeaderValue, "invalid Host header: a/b"),
        ([("Host", "a@b")], 400, InvalidHeaderValue, "invalid Host header: a@b"),
        ([("Host", "a:b")], 400, InvalidHeaderValue, "invalid Host header: a:b"),
        ([("Host", ":80")], 400, InvalidHeaderValue, "invalid Host header: :80"),
        ([("Host", "[::g]")], 400, InvalidHeaderValue, "invalid Host header: [::g]"),
        ([("Host", "[::1")], 400, InvalidHeaderValue, "invalid Host header: [::1"),
        ([("Connection", None)], 426, InvalidUpgrade, "missing Connection header"),
        ([("Connection", "")], 426, InvalidUpgrade, "missing Connection header"),
        ([("Connection", "close")], 426, InvalidUpgrade, "invalid Connection header: close"),
        (
            [("Connection", "a b")],
            400,
            InvalidHeaderFormat,
            "invalid Connection header: expected comma at 2 in a b",
        ),
        ([("Upgrade", None)], 426, InvalidUpgrade, "missing Upgrade header"),
        ([("Upgrade", "h2c")], 426, InvalidUpgrade, "invalid Upgrade header: h2c"),
        (
            [("Upgrade", "websocket/13")],
            426,
            InvalidUpgrade,
            "invalid Upgrade header: websocket/13",
        ),
        (
            [("Upgrade", "?")],
            400,
            InvalidHeaderFormat,
            "invalid Upgrade header: expected protocol at 0 in ?",
        ),
        (
            [("Sec-WebSocket-Version", None)],
            400,
            InvalidHeader,
            "missing Sec-WebSocket-Version header",
        ),
        (
            [("Sec-WebSocket-Version", "13"), ("Sec-WebSocket-Version", "13")],
            400,
            InvalidHeader,
            "invalid Sec-WebSocket-Version header: multiple values",
        ),
        (
            [("Sec-WebSocket-Version", "8")],
            426,
            InvalidHeaderValue,
            "invalid Sec-WebSocket-Version header: 8",
        ),
        (
            [("Sec-WebSocket-Version", "013")],
            426,
            InvalidHeaderValue,
            "invalid Sec-WebSocket-Version header: 013",
        ),
        (
            [("Sec-WebSocket-Version", "13, 8")],
            426,
            InvalidHeaderValue,
            "invalid Sec-WebSocket-Version header: 13, 8",
        ),
        (
            [("Sec-WebSocket-Version", "")],
            426,
            InvalidHeaderValue,
            "empty Sec-WebSocket-Version header",
        ),
        ([("Sec-WebSocket-Key", None)], 400, InvalidHeader, "missing Sec-WebSocket-Key header"),
        (
            [("Sec-WebSocket-Key", KEY), ("Sec-WebSocket-Key", KEY)],
            400,
            InvalidHeader,
            "invalid Sec-WebSocket-Key header: multiple values",
        ),
        ([("Sec-WebSocket-Key", "")], 400, InvalidHeaderValue, "empty Sec-WebSocket-Key header"),
        (
            [("Sec-WebSocket-Key", "not base64")],
            400,
            InvalidHeaderValue,
            "invalid Sec-WebSocket-Key header: not base64",
        ),
        (
            [("Sec-WebSocket-Key", base64.b64encode(bytes(15)).decode())],
            400,
            InvalidHeaderValue,
            "invalid Sec-WebSocket-Key header: AAAAAAAAAAAAAAAAAAAA",
        ),
        (
            [("Sec-WebSocket-Key", base64.b64encode(bytes(17)).decode())],
            400,
            InvalidHeaderValue,
            "invalid Sec-WebSocket-Key header: AAAAAAAAAAAAAAAAAAAAAAA=",
        ),
        (
            [("Sec-WebSocket-Extensions", "a;")],
            400,
            InvalidHeaderFormat,
            "invalid Sec-WebSocket-Extensions header: expected token at 2 in a;",
        ),
        (
            [("Sec-WebSocket-Extensions", "")],
            400,
            InvalidHeaderFormat,
            "invalid Sec-WebSocket-Extensions header: expected token at 0 in ",
        ),
        (
            [("Sec-WebSocket-Protocol", "a/b")],
            400,
            InvalidHeaderFormat,
            "invalid Sec-WebSocket-Protocol header: expected comma at 1 in a/b",
        ),
        (
            [("Origin", "http://example.com"), ("Origin", "http://example.com")],
            400,
            InvalidHeader,
            "invalid Origin header: multiple values",
        ),
        (
            [("Origin", "http://example.org")],
            403,
            InvalidOrigin,
            "invalid Origin header: http://example.org",
        ),
    ],
)
def test_invalid_requests_have_their_status(changes, status, error, message):
    exception, response = refuse(*changes)
    assert response.status_code == status
    assert type(exception) is error
    assert str(exception) == message
    assert response.body.decode().startswith(f"Failed to open a WebSocket connection: {message}.\n")


def test_another_method_is_refused():
    exception, response = refuse(method="POST")
    assert type(exception) is InvalidMethod
    assert response.status_code == 405
    assert response.headers["Allow"] == "GET"


def test_http_1_0_is_refused():
    exception, response = refuse(protocol="HTTP/1.0")
    assert type(exception) is InvalidProtocol
    assert response.status_code == 505


@pytest.mark.parametrize("name", ["Upgrade", "Connection"])
def test_a_browser_that_asks_for_a_page_is_told_what_this_is(name):
    _, response = refuse((name, None))
    assert response.status_code == 426
    assert response.headers["Upgrade"] == "websocket"
    assert response.headers["Connection"] == "Upgrade, close"
    assert b"This is a WebSocket server" in response.body
    assert "Sec-WebSocket-Version" not in response.headers


@pytest.mark.parametrize("version", [None, "8"])
def test_a_refusal_of_the_version_names_the_right_one(version):
    _, response = refuse(("Sec-WebSocket-Version", version))
    assert response.headers["Sec-WebSocket-Version"] == "13"


def test_a_refusal_of_the_version_asks_for_an_upgrade():
    _, response = refuse(("Sec-WebSocket-Version", "8"))
    assert response.headers["Upgrade"] == "websocket"
    assert response.headers["Connection"] == "Upgrade, close"


def test_a_refusal_is_plain_text_that_ends_the_connection():
    _, response = refuse(("Sec-WebSocket-Key", "é"))
    assert response.headers["Connection"] == "close"
    assert response.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert response.headers["Content-Length"] == str(len(response.body))
    assert "Date" in response.headers
    assert response.body == (
        b"Failed to open a WebSocket connection: invalid Sec-WebSocket-Key header: \\xe9.\n"
    )


def test_what_a_peer_sent_is_cut_in_messages():
    exception, response = refuse(("Sec-WebSocket-Key", "A" * 8000))
    assert len(str(exception)) < 200
    assert len(response.body) < 250


def test_the_date_of_a_response_is_that_of_its_second():
    before = time.time()
    date = ServerHandshake().respond(make_request()).headers["Date"]
    after = time.time()
    assert int(before) <= email.utils.parsedate_to_datetime(date).timestamp() <= after


def test_a_refusal_leaves_no_reference_cycle():
    # Frames in the traceback would keep the connection alive until a garbage collection.
    handshake = ServerHandshake()
    handshake.respond(make_request(("Host", None)))
    reference = weakref.ref(handshake)
    gc.disable()
    try:
        del handshake
        assert reference() is None
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("exception", "status"),
    [
        (RequestLineTooLong("too long"), 414),
        (HeaderLineTooLong("too long"), 431),
        (TooManyHeaders("too many"), 431),
        (InvalidMessage("not HTTP"), 400),
        (InvalidProtocol("HTTP/2.0"), 505),
        (NegotiationError("no"), 400),
        (InvalidHandshake("no"), 400),
    ],
)
def test_the_errors_of_a_parser_have_their_status(exception, status):
    response = error_response(exception)
    assert response.status_code == status
    assert response.body.decode() == f"Failed to open a WebSocket connection: {exception}.\n"


def test_reject_makes_a_response_of_text():
    response = reject(503, "Später\n")
    assert response.status_code == 503
    assert response.reason_phrase == "Service Unavailable"
    assert response.headers["Content-Length"] == "8"
    assert response.body == "Später\n".encode()


def test_reject_refuses_a_status_that_does_not_exist():
    with pytest.raises(ValueError, match="999"):
        reject(999, "")


# Origins


@pytest.mark.parametrize(
    ("host", "origin", "allowed"),
    [
        ("example.com", None, True),
        ("example.com", "http://example.com", True),
        ("example.com", "https://example.com", True),
        ("example.com:8765", "http://example.com:8000", True),
        ("Example.COM", "http://example.com", True),
        ("example.com", "HTTP://EXAMPLE.com", True),
        ("[::1]:8765", "http://[::1]:8000", True),
        ("[0:0::1]", "http://[::1]", True),
        ("example.com", "http://www.example.com", False),
        ("www.example.com", "http://example.com", False),
        ("example.com", "http://example.com.evil.org", False),
        ("example.com", "http://evil.org/example.com", False),
        ("example.com", "http://example.com@evil.org", False),
        ("example.com", "http://evil.org:80@example.com", False),
        ("example.com", "http://example.com/", False),
        ("example.com", "http://example.com evil.org", False),
        ("example.com", "null", False),
        ("example.com", "", False),
        ("example.com", "example.com", False),
        ("example.com", "file://", False),
        ("example.com", "http://", False),
        ("example.com", "http://[example.com]", False),
        ("[::1]", "http://[::2]", False),
        ("127.0.0.1", "http://localhost", False),
        ("a" * 400, "http://" + "a" * 400, True),
        ("a" * 400, "http://" + "a" * 401, False),
    ],
)
def test_same_host_is_the_default(host, origin, allowed):
    handshake = ServerHandshake()
    response = handshake.respond(make_request(("Host", host), ("Origin", origin)))
    assert response.status_code == (101 if allowed else 403)
    assert isinstance(handshake.exception, InvalidOrigin) is not allowed


@pytest.mark.parametrize(
    ("origins", "origin", "status"),
    [
        (None, None, 101),
        (None, "null", 101),
        (None, "http://example.org", 101),
        ([], None, 403),
        ([], "http://example.com", 403),
        ([None], None, 101),
        ([None], "http://example.com", 403),
        (["http://example.org"], "http://example.org", 101),
        (["http://example.org"], "http://example.org:80", 403),
        (["http://example.org"], "https://example.org", 403),
        (["http://example.org"], None, 403),
        (["http://a", None, "http://b"], "http://b", 101),
        (["null"], "null", 101),
        ([re.compile(r"https://\w+\.example\.org")], "https://a.example.org", 101),
        ([re.compile(r"https://\w+\.example\.org")], "https://a.example.org.evil", 403),
        ([re.compile(r".*")], None, 403),
        ([SAME_HOST, "http://example.org"], "http://example.org", 101),
        ([SAME_HOST, "http://example.org"], "http://example.com", 101),
        ([SAME_HOST, "http://example.org"], None, 101),
        ([SAME_HOST, "http://example.org"], "http://example.net", 403),
    ],
)
def test_origins(origins, origin, status):
    handshake = ServerHandshake(origins=origins)
    assert handshake.respond(make_request(("Origin", origin))).status_code == status


def test_several_origin_headers_are_invalid_even_if_all_origins_are_allowed():
    request = make_request(("Origin", "http://a"), ("Origin", "http://a"))
    assert ServerHandshake(origins=None).respond(request).status_code == 400


@pytest.mark.parametrize(
    "origins", ["http://example.com", "*", [b"http://a"], [1], [re.compile(b"http://a")]]
)
def test_origins_that_are_no_list_of_rules_are_a_type_error(origins):
    with pytest.raises(TypeError, match="origins must"):
        ServerHandshake(origins=origins)


def test_the_advice_shows_how_to_allow_an_origin():
    assert "origins=[SAME_HOST, 'http://example.org']" in origin_advice("http://example.org")


def test_the_advice_is_not_for_the_peer():
    _, response = refuse(("Origin", "http://example.org"))
    assert b"origins" not in response.body


# Extensions, server


def negotiate(extensions, *offers):
    handshake = ServerHandshake(extensions=extensions)
    request = make_request(*(("Sec-WebSocket-Extensions", offer) for offer in offers))
    response = handshake.respond(request)
    assert response.status_code == 101
    return handshake.extensions, response.headers.get("Sec-WebSocket-Extensions")


def test_an_extension_is_agreed_upon():
    extensions, header = negotiate([Extension()], "x-test; level=1")
    assert extensions == [("x-test", "1", 0)]
    assert header == "x-test; level=1"


@pytest.mark.parametrize("available", [None, (), [Extension("other")], [Extension(value="2")]])
def test_what_is_declined_is_left_out_of_the_response(available):
    assert negotiate(available, "x-test; level=1") == ([], None)


def test_offers_of_one_extension_are_alternatives_in_the_order_of_the_client():
    factories = [Extension(value="1"), Extension(value="2")]
    offers = "x-test; level=3, x-test; level=2", "x-test; level=1"
    extensions, header = negotiate(factories, *offers)
    assert extensions == [("x-test", "2", 0)]
    assert header == "x-test; level=2"


def test_several_extensions_know_of_those_before_them():
    factories = [Extension("a"), Extension("b")]
    extensions, header = negotiate(factories, "b; level=1, unknown", "a; level=1")
    assert extensions == [("b", "1", 0), ("a", "1", 1)]
    assert header == "b; level=1, a; level=1"


def test_an_exception_of_an_extension_is_left_to_the_caller():
    class Broken(Extension):
        def process_request_params(self, params, accepted_extensions):
            raise ZeroDivisionError

    handshake = ServerHandshake(extensions=[Broken()])
    request = make_request(("Sec-WebSocket-Extensions", "x-test"))
    with pytest.raises(ZeroDivisionError):
        handshake.respond(request)


# Subprotocols, server


@pytest.mark.parametrize(
    ("available", "offers", "selected"),
    [
        (None, ["a"], None),
        ([], ["a"], None),
        (None, [], None),
        (["a", "b"], ["b, a"], "a"),
        (["a", "b"], ["c", "b"], "b"),
        (("a",), ["a"], "a"),
    ],
)
def test_the_first_subprotocol_of_ours_that_is_offered_is_selected(available, offers, selected):
    handshake = ServerHandshake(subprotocols=available)
    request = make_request(*(("Sec-WebSocket-Protocol", offer) for offer in offers))
    response = handshake.respond(request)
    assert response.status_code == 101
    assert handshake.subprotocol == selected
    assert response.headers.get("Sec-WebSocket-Protocol") == selected


@pytest.mark.parametrize(
    ("offer", "message"),
    [
        (None, "missing subprotocol; expected one of a, b"),
        ("c", "invalid subprotocol; expected one of a, b"),
        ("A", "invalid subprotocol; expected one of a, b"),
    ],
)
def test_a_client_without_a_common_subprotocol_is_refused(offer, message):
    handshake = ServerHandshake(subprotocols=["a", "b"])
    response = handshake.respond(make_request(("Sec-WebSocket-Protocol", offer)))
    assert response.status_code == 400
    assert str(handshake.exception) == message


@pytest.mark.parametrize("selected", ["b", None])
def test_select_subprotocol_decides(selected):
    offered = []

    def select_subprotocol(subprotocols):
        offered.append(subprotocols)
        return selected

    handshake = ServerHandshake(subprotocols=["a"], select_subprotocol=select_subprotocol)
    response = handshake.respond(make_request(("Sec-WebSocket-Protocol", "a, b")))
    assert offered == [["a", "b"]]
    assert handshake.subprotocol == selected
    assert response.headers.get("Sec-WebSocket-Protocol") == selected


def test_select_subprotocol_is_asked_without_offers_too():
    handshake = ServerHandshake(select_subprotocol=lambda offered: offered[0] if offered else None)
    assert handshake.respond(make_request()).status_code == 101


def test_select_subprotocol_may_refuse():
    def select_subprotocol(subprotocols):
        raise NegotiationError("not today")

    handshake = ServerHandshake(select_subprotocol=select_subprotocol)
    response = handshake.respond(make_request())
    assert response.status_code == 400
    assert response.body == b"Failed to open a WebSocket connection: not today.\n"


def test_other_exceptions_of_select_subprotocol_are_left_to_the_caller():
    handshake = ServerHandshake(select_subprotocol=lambda offered: offered[0])
    request = make_request()
    with pytest.raises(IndexError):
        handshake.respond(request)


def test_select_subprotocol_must_return_what_was_offered():
    handshake = ServerHandshake(select_subprotocol=lambda offered: "b")
    request = make_request(("Sec-WebSocket-Protocol", "a"))
    with pytest.raises(ValueError, match="'b', which the client did not offer"):
        handshake.respond(request)


def test_subprotocols_of_a_server_are_validated():
    with pytest.raises(ValueError, match="invalid subprotocol"):
        ServerHandshake(subprotocols=["a b"])


# The client's request


def test_request_of_a_client():
    request = ClientHandshake(URI, key=KEY).request
    assert request.serialize() == (
        b"GET /chat HTTP/1.1\r\n"
        b"Host: example.com\r\n"
        b"Upgrade: websocket\r\n"
        b"Connection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        b"Sec-WebSocket-Version: 13\r\n"
        b"\r\n"
    )


def test_keys_are_16_random_bytes():
    keys = [ClientHandshake(URI).request.headers["Sec-WebSocket-Key"] for _ in range(50)]
    assert {len(base64.b64decode(key, validate=True)) for key in keys} == {16}
    assert len(set(keys)) == 50


@pytest.mark.parametrize(
    ("uri", "host"),
    [
        ("ws://example.com/", "example.com"),
        ("wss://example.com:443/", "example.com"),
        ("ws://example.com:443/", "example.com:443"),
        ("ws://[::1]:8765/", "[::1]:8765"),
        ("ws://ü.example/", "xn--tda.example"),
    ],
)
def test_host_header_of_a_client(uri, host):
    assert ClientHandshake(parse_uri(uri)).request.headers["Host"] == host


def test_path_and_query_are_requested():
    assert ClientHandshake(parse_uri("ws://a/b?c=d")).request.path == "/b?c=d"


def test_optional_headers_of_a_client():
    handshake = ClientHandshake(
        parse_uri("ws://Aladdin:open%20sesame@example.com/"),
        origin="http://example.com",
        extensions=[Extension("a"), Extension("b", "2")],
        subprotocols=["c", "d"],
        user_agent_header="test",
    )
    headers = handshake.request.headers
    assert headers["Authorization"] == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    assert headers["Origin"] == "http://example.com"
    assert headers["Sec-WebSocket-Extensions"] == "a; level=1, b; level=2"
    assert headers["Sec-WebSocket-Protocol"] == "c, d"
    assert headers["User-Agent"] == "test"


def test_additional_headers_are_added():
    additional = [("Cookie", "a=1"), ("X", "1"), ("X", "2")]
    headers = ClientHandshake(URI, additional_headers=additional).request.headers
    assert headers["Cookie"] == "a=1"
    assert headers.get_all("X") == ["1", "2"]


def test_additional_headers_replace_those_that_do_not_belong_to_the_handshake():
    headers = ClientHandshake(
        parse_uri("ws://user:secret@example.com/"),
        additional_headers={"host": "a", "User-agent": "b", "Authorization": "Bearer c"},
        user_agent_header="test",
    ).request.headers
    assert headers.get_all("Host") == ["a"]
    assert headers.get_all("User-Agent") == ["b"]
    assert headers.get_all("Authorization") == ["Bearer c"]


@pytest.mark.parametrize(
    "name",
    [
        "Connection",
        "Content-Length",
        "Sec-WebSocket-Accept",
        "Sec-WebSocket-Extensions",
        "Sec-WebSocket-Key",
        "Sec-WebSocket-Protocol",
        "Sec-WebSocket-Version",
        "Transfer-Encoding",
        "UPGRADE",
    ],
)
def test_additional_headers_cannot_replace_those_of_the_handshake(name):
    with pytest.raises(ValueError, match=f"must not contain {name.lower()}$"):
        ClientHandshake(URI, additional_headers={name: "a"})


def test_origin_has_an_argument_of_its_own():
    with pytest.raises(ValueError, match="must not contain origin; use the origin argument"):
        ClientHandshake(URI, additional_headers={"Origin": "http://a"})


@pytest.mark.parametrize(
    "kwargs",
    [
        {"origin": "http://a\r\nB: c"},
        {"user_agent_header": "a\nB: c"},
        {"additional_headers": {"A": "b\r\nC: d"}},
    ],
)
def test_arguments_cannot_inject_a_header(kwargs):
    with pytest.raises(InvalidHeaderValue):
        ClientHandshake(URI, **kwargs)


def test_subprotocols_of_a_client_are_validated():
    with pytest.raises(TypeError, match="not a str"):
        ClientHandshake(URI, subprotocols="chat")


# The client's checks


def test_a_valid_response_is_accepted():
    handshake = check(make_response(), extensions=[Extension()], subprotocols=["a"])
    assert handshake.extensions == []
    assert handshake.subprotocol is None


@pytest.mark.parametrize(
    "changes",
    [
        [("Upgrade", "WEBSOCKET")],
        [("Connection", "keep-alive, upgrade")],
        [("Connection", "keep-alive"), ("Connection", "Upgrade")],
        [("Server", "test")],
    ],
)
def test_variations_of_a_response_that_are_valid(changes):
    check(make_response(*changes))


@pytest.mark.parametrize("status_code", [200, 301, 401, 503])
def test_another_status_is_refused_with_its_response(status_code):
    response = make_response(status_code=status_code)
    with pytest.raises(InvalidStatus) as raised:
        check(response)
    assert raised.value.response is response


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ([("Upgrade", None)], InvalidUpgrade, "missing Upgrade header"),
        ([("Upgrade", "h2c")], InvalidUpgrade, "invalid Upgrade header: h2c"),
        (
            [("Upgrade", "websocket, h2c")],
            InvalidUpgrade,
            "invalid Upgrade header: websocket, h2c",
        ),
        (
            [("Upgrade", "/")],
            InvalidHeaderFormat,
            "invalid Upgrade header: expected protocol at 0 in /",
        ),
        ([("Connection", None)], InvalidUpgrade, "missing Connection header"),
        ([("Connection", "close")], InvalidUpgrade, "invalid Connection header: close"),
        (
            [("Sec-WebSocket-Accept", None)],
            InvalidHeader,
            "missing Sec-WebSocket-Accept header",
        ),
        (
            [("Sec-WebSocket-Accept", ACCEPT)] * 2,
            InvalidHeader,
            "invalid Sec-WebSocket-Accept header: multiple values",
        ),
        (
            [("Sec-WebSocket-Accept", ACCEPT.lower())],
            InvalidHeaderValue,
            f"invalid Sec-WebSocket-Accept header: {ACCEPT.lower()}",
        ),
        (
            [("Sec-WebSocket-Accept", KEY)],
            InvalidHeaderValue,
            f"invalid Sec-WebSocket-Accept header: {KEY}",
        ),
        (
            [("Sec-WebSocket-Extensions", "a")],
            NegotiationError,
            "no extensions supported; received a",
        ),
        (
            [("Sec-WebSocket-Protocol", "a")],
            NegotiationError,
            "no subprotocols supported; received a",
        ),
    ],
)
def test_invalid_responses(changes, error, message):
    response = make_response(*changes)
    with pytest.raises(error) as raised:
        check(response)
    assert type(raised.value) is error
    assert str(raised.value) == message


def test_extensions_in_a_response():
    response = make_response(
        ("Sec-WebSocket-Extensions", "b; level=1"), ("Sec-WebSocket-Extensions", "a; level=2")
    )
    factories = [Extension("a", "1"), Extension("a", "2"), Extension("b"), Extension("c")]
    handshake = check(response, extensions=factories)
    assert handshake.extensions == [("b", "1", 0), ("a", "2", 1)]


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("y", "Unsupported extension: name = y, params = []"),
        (
            "x-test; level=2",
            "Unsupported extension: name = x-test, params = [('level', '2')]; wrong level",
        ),
        (
            "x-test; level=1, x-test; level=1",
            "Unsupported extension: name = x-test, params = [('level', '1')]",
        ),
    ],
)
def test_an_extension_that_was_not_offered_like_that_is_refused(header, message):
    response = make_response(("Sec-WebSocket-Extensions", header))
    with pytest.raises(NegotiationError) as raised:
        check(response, extensions=[Extension()])
    assert str(raised.value) == message


def test_malformed_extensions_in_a_response_are_refused():
    response = make_response(("Sec-WebSocket-Extensions", "x-test;"))
    with pytest.raises(InvalidHeaderFormat):
        check(response, extensions=[Extension()])


def test_the_subprotocol_in_a_response():
    response = make_response(("Sec-WebSocket-Protocol", "b"))
    assert check(response, subprotocols=["a", "b"]).subprotocol == "b"


@pytest.mark.parametrize(
    ("headers", "error", "message"),
    [
        (["c"], NegotiationError, "unsupported subprotocol: c"),
        (["A"], NegotiationError, "unsupported subprotocol: A"),
        (["a, b"], InvalidHeader, "invalid Sec-WebSocket-Protocol header: multiple values: a, b"),
        (["a", "b"], InvalidHeader, "invalid Sec-WebSocket-Protocol header: multiple values: a, b"),
        (
            [""],
            InvalidHeaderFormat,
            "invalid Sec-WebSocket-Protocol header: expected token at 0 in ",
        ),
    ],
)
def test_a_subprotocol_that_was_not_offered_is_refused(headers, error, message):
    response = make_response(*(("Sec-WebSocket-Protocol", header) for header in headers))
    with pytest.raises(error) as raised:
        check(response, subprotocols=["a", "b"])
    assert str(raised.value) == message


# Both endpoints


def test_client_and_server_agree():
    client = ClientHandshake(
        parse_uri("ws://localhost:8765/a?b"),
        origin="http://localhost:8000",
        extensions=[Extension("x", "1"), Extension("y", "2")],
        subprotocols=["a", "b"],
    )
    server = ServerHandshake(extensions=[Extension("y", "2")], subprotocols=["b"])
    request = RequestParser().feed(client.request.serialize())
    response = ResponseParser().feed(server.respond(request).serialize())
    client.check(response)
    assert client.extensions == server.extensions == [("y", "2", 0)]
    assert client.subprotocol == server.subprotocol == "b"
    assert response.headers["Sec-WebSocket-Extensions"] == build_extension(
        [("y", [("level", "2")])]
    )
