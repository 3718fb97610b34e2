"""The texts and attributes of all exceptions, which are part of the API."""

from __future__ import annotations

import pickle

import pytest

import syncws.exceptions
from syncws.exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    DuplicateParameter,
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidMethod,
    InvalidOrigin,
    InvalidParameterName,
    InvalidParameterValue,
    InvalidProtocol,
    InvalidProxy,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidUpgrade,
    InvalidURI,
    NegotiationError,
    PayloadTooBig,
    PolicyViolation,
    ProtocolError,
    ProxyError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
    WebSocketException,
)
from syncws.opcodes import Close


class Response:
    status_code = 404
    body = b"No such page\nThere are others\n"

    def __eq__(self, other):
        return isinstance(other, Response)

    __hash__ = None


NORMAL = Close(1000, "bye")
AWAY = Close(1001)

TEXTS = [
    (WebSocketException("something"), "something"),
    (ConnectionClosed(None, None), "no close frame received or sent"),
    (ConnectionClosedError(None, NORMAL), "sent 1000 (OK) bye; no close frame received"),
    (ConnectionClosedError(NORMAL, None), "received 1000 (OK) bye; no close frame sent"),
    (
        ConnectionClosedOK(NORMAL, AWAY, True),
        "received 1000 (OK) bye; then sent 1001 (going away)",
    ),
    (
        ConnectionClosedOK(NORMAL, AWAY, False),
        "sent 1001 (going away); then received 1000 (OK) bye",
    ),
    (
        InvalidURI("http://localhost", "scheme isn't ws or wss"),
        "http://localhost isn't a valid URI: scheme isn't ws or wss",
    ),
    (
        InvalidProxy("ftp://proxy", "scheme ftp isn't supported"),
        "ftp://proxy isn't a valid proxy: scheme ftp isn't supported",
    ),
    (InvalidHandshake("went wrong"), "went wrong"),
    (
        InvalidMessage("did not receive a valid HTTP request"),
        "did not receive a valid HTTP request",
    ),
    (SecurityError("over a limit"), "over a limit"),
    (RequestLineTooLong("line too long"), "line too long"),
    (StatusLineTooLong("line too long"), "line too long"),
    (HeaderLineTooLong("line too long"), "line too long"),
    (TooManyHeaders("more than 128"), "more than 128"),
    (InvalidMethod("POST"), "unsupported HTTP method: POST"),
    (InvalidProtocol("HTTP/1.0"), "unsupported HTTP version: HTTP/1.0"),
    (
        InvalidStatus(Response()),
        "server rejected WebSocket connection: HTTP 404: No such page "
        "(is the path right, and the port that of the WebSocket server?)",
    ),
    (ProxyError("SOCKS failed"), "SOCKS failed"),
    (InvalidProxyMessage("not HTTP"), "not HTTP"),
    (InvalidProxyStatus(Response()), "proxy rejected connection: HTTP 404: No such page"),
    (InvalidHeader("Name"), "missing Name header"),
    (InvalidHeader("Name", ""), "empty Name header"),
    (InvalidHeader("Name", "value"), "invalid Name header: value"),
    (
        InvalidHeaderFormat("Name", "expected token", "a=|", 2),
        "invalid Name header: expected token at 2 in a=|",
    ),
    (
        InvalidHeaderValue("Sec-WebSocket-Version", "12"),
        "invalid Sec-WebSocket-Version header: 12",
    ),
    (InvalidOrigin(None), "missing Origin header"),
    (InvalidOrigin("http://evil"), "invalid Origin header: http://evil"),
    (InvalidUpgrade("Upgrade"), "missing Upgrade header"),
    (InvalidUpgrade("Connection", "close"), "invalid Connection header: close"),
    (NegotiationError("unsupported subprotocol"), "unsupported subprotocol"),
    (DuplicateParameter("a"), "duplicate parameter: a"),
    (InvalidParameterName("|"), "invalid parameter name: |"),
    (InvalidParameterValue("a", None), "missing value for parameter a"),
    (InvalidParameterValue("a", ""), "empty value for parameter a"),
    (InvalidParameterValue("a", "|"), "invalid value for parameter a: |"),
    (ProtocolError("invalid opcode"), "invalid opcode"),
    (PayloadTooBig(None, 4), "frame exceeds limit of 4 bytes (max_size)"),
    (PayloadTooBig(8, 4), "frame with 8 bytes exceeds limit of 4 bytes (max_size)"),
    (
        PayloadTooBig(8, 4, 2),
        "frame with 8 bytes after reading 2 bytes exceeds limit of 4 bytes (max_size)",
    ),
    (PayloadTooBig(None, 4, 2), "frame after reading 2 bytes exceeds limit of 4 bytes (max_size)"),
    (PolicyViolation("over the rate limit"), "over the rate limit"),
    (ConcurrencyError("one at a time"), "one at a time"),
]


@pytest.mark.parametrize(("exc", "text"), TEXTS)
def test_text_of_an_exception(exc, text):
    assert str(exc) == text


@pytest.mark.parametrize(("exc", "text"), TEXTS)
def test_exceptions_survive_pickling(exc, text):
    copy = pickle.loads(pickle.dumps(exc))
    assert type(copy) is type(exc)
    assert str(copy) == text
    assert vars(copy) == vars(exc)


def test_every_exception_has_its_text_tested():
    public = {getattr(syncws.exceptions, name) for name in syncws.exceptions.__all__}
    assert {type(exc) for exc, text in TEXTS} == public


@pytest.mark.parametrize(
    ("base", "derived"),
    [
        (ConnectionClosed, {ConnectionClosedOK, ConnectionClosedError}),
        (
            SecurityError,
            {RequestLineTooLong, StatusLineTooLong, HeaderLineTooLong, TooManyHeaders},
        ),
        (
            InvalidHeader,
            {InvalidHeaderFormat, InvalidHeaderValue, InvalidOrigin, InvalidUpgrade},
        ),
        (NegotiationError, {DuplicateParameter, InvalidParameterName, InvalidParameterValue}),
        (ProxyError, {InvalidProxyMessage, InvalidProxyStatus}),
        (
            InvalidHandshake,
            {
                InvalidMessage,
                SecurityError,
                InvalidMethod,
                InvalidProtocol,
                InvalidStatus,
                ProxyError,
                InvalidHeader,
                NegotiationError,
            },
        ),
        (
            WebSocketException,
            {
                ConnectionClosed,
                InvalidURI,
                InvalidProxy,
                InvalidHandshake,
                ProtocolError,
                PayloadTooBig,
                PolicyViolation,
                ConcurrencyError,
            },
        ),
    ],
)
def test_what_is_caught_together(base, derived):
    assert set(base.__subclasses__()) == derived


def test_concurrency_error_is_a_runtime_error():
    assert issubclass(ConcurrencyError, RuntimeError)


def test_closed_connection_tells_both_close_frames_and_their_order():
    exc = ConnectionClosedOK(NORMAL, AWAY, True)
    assert (exc.rcvd, exc.sent, exc.rcvd_then_sent) == (NORMAL, AWAY, True)


def test_order_of_close_frames_is_unknown_unless_told():
    assert ConnectionClosedError(None, None).rcvd_then_sent is None


def test_invalid_uri_tells_the_uri_and_what_is_wrong():
    exc = InvalidURI("ws:", "no host")
    assert (exc.uri, exc.msg) == ("ws:", "no host")


def test_invalid_status_has_the_response():
    response = Response()
    assert InvalidStatus(response).response is response


def test_invalid_header_tells_name_and_value():
    exc = InvalidHeader("Name", "value")
    assert (exc.name, exc.value) == ("Name", "value")


def test_invalid_header_format_is_an_invalid_header_whose_value_tells_the_place():
    exc = InvalidHeaderFormat("Name", "expected token", "a=|", 2)
    assert (exc.name, exc.value) == ("Name", "expected token at 2 in a=|")


def test_payload_too_big_tells_sizes_and_limit():
    exc = PayloadTooBig(8, 4, 2)
    assert (exc.size, exc.max_size, exc.current_size) == (8, 4, 2)
