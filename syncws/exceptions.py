"""
Everything that syncws raises on its own account.

::

    WebSocketException
      ConnectionClosed            the connection ended; says who closed, and why
        ConnectionClosedOK        ... with 1000, 1001 or no code
        ConnectionClosedError     ... with an error, or without a closing handshake
      InvalidURI                  the argument of connect()
      InvalidProxy                the proxy that connect() was given, or found in the environment
      InvalidHandshake            the opening handshake failed
        InvalidMessage            not HTTP/1.1 as RFC 9112 has it
        SecurityError             ... or over a limit
          RequestLineTooLong, StatusLineTooLong, HeaderLineTooLong, TooManyHeaders
        InvalidMethod, InvalidProtocol
        InvalidStatus             the server answered with another status than 101
        ProxyError                a proxy did not connect to the server
          InvalidProxyMessage     ... its answer is not HTTP
          InvalidProxyStatus      ... it refused with an HTTP status
        InvalidHeader             missing, malformed or of a wrong value
          InvalidHeaderFormat, InvalidHeaderValue, InvalidOrigin, InvalidUpgrade
        NegotiationError          of extensions or of a subprotocol
          DuplicateParameter, InvalidParameterName, InvalidParameterValue
      ProtocolError               a frame that breaks RFC 6455, received or asked for
      PayloadTooBig               a message over max_size
      PolicyViolation             a peer over another limit
      ConcurrencyError            what two threads must not do at once
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Optional

if TYPE_CHECKING:
    from .opcodes import Close

__all__ = [
    "ConcurrencyError",
    "ConnectionClosed",
    "ConnectionClosedError",
    "ConnectionClosedOK",
    "DuplicateParameter",
    "HeaderLineTooLong",
    "InvalidHandshake",
    "InvalidHeader",
    "InvalidHeaderFormat",
    "InvalidHeaderValue",
    "InvalidMessage",
    "InvalidMethod",
    "InvalidOrigin",
    "InvalidParameterName",
    "InvalidParameterValue",
    "InvalidProtocol",
    "InvalidProxy",
    "InvalidProxyMessage",
    "InvalidProxyStatus",
    "InvalidStatus",
    "InvalidURI",
    "InvalidUpgrade",
    "NegotiationError",
    "PayloadTooBig",
    "PolicyViolation",
    "ProtocolError",
    "ProxyError",
    "RequestLineTooLong",
    "SecurityError",
    "StatusLineTooLong",
    "TooManyHeaders",
    "WebSocketException",
]


class WebSocketException(Exception):
    """Base class of all exceptions of this package."""


class ConnectionClosed(WebSocketException):
    """
    The connection is closed: nothing more can be sent or received on it.

    Attributes:
        rcvd: code and reason of the Close frame received, or ``None``.
        sent: code and reason of the Close frame sent, or ``None``.
        rcvd_then_sent: with both frames, whether the received one came first,
            that is, whether the peer closed; ``None`` otherwise.

    A network failure or a timeout behind it is its ``__cause__``.
    """

    def __init__(
        self,
        rcvd: Optional[Close],
        sent: Optional[Close],
        rcvd_then_sent: Optional[bool] = None,
    ) -> None:
        super().__init__(rcvd, sent, rcvd_then_sent)
        self.rcvd = rcvd
        self.sent = sent
        self.rcvd_then_sent = rcvd_then_sent

    def __str__(self) -> str:
        if self.rcvd is None and self.sent is None:
            return "no close frame received or sent"
        if self.rcvd is None:
            return f"sent {self.sent}; no close frame received"
        if self.sent is None:
            return f"received {self.rcvd}; no close frame sent"
        if self.rcvd_then_sent:
            return f"received {self.rcvd}; then sent {self.sent}"
        return f"sent {self.sent}; then received {self.rcvd}"


class ConnectionClosedOK(ConnectionClosed):
    """Close frames with code 1000, 1001 or without a code were received and sent."""


class ConnectionClosedError(ConnectionClosed):
    """The connection ended with an error code, or without a closing handshake."""


class InvalidURI(WebSocketException):
    """The argument of ``connect()`` is not a WebSocket URI (RFC 6455 §3)."""

    def __init__(self, uri: str, msg: str) -> None:
        super().__init__(uri, msg)
        self.uri = uri
        self.msg = msg

    def __str__(self) -> str:
        uri = self.uri if self.uri and self.uri.isprintable() else repr(self.uri)
        return f"{uri} isn't a valid URI: {self.msg}"


class InvalidProxy(WebSocketException):
    """The proxy of ``connect()`` is not one; its password is left out of the message."""

    def __init__(self, proxy: str, msg: str) -> None:
        super().__init__(proxy, msg)
        self.proxy = proxy
        self.msg = msg

    def __str__(self) -> str:
        return f"{self.proxy} isn't a valid proxy: {self.msg}"


class InvalidHandshake(WebSocketException):
    """The opening handshake failed (RFC 6455 §4)."""


class InvalidMessage(InvalidHandshake):
    """The request or response is not well-formed HTTP/1.1 (RFC 9112)."""


class SecurityError(InvalidHandshake):
    """The request or response is over a limit."""


class RequestLineTooLong(SecurityError):
    """The request line is over its limit; a server answers 414."""


class StatusLineTooLong(SecurityError):
    """The status line of a response is over its limit."""


class HeaderLineTooLong(SecurityError):
    """A header line, or the head as a whole, is over its limit; a server answers 431."""


class TooManyHeaders(SecurityError):
    """The head has more header lines than allowed; a server answers 431."""


class InvalidMethod(InvalidHandshake):
    """The method of the request is not GET (RFC 6455 §4.1); a server answers 405."""

    def __init__(self, method: str) -> None:
        super().__init__(method)
        self.method = method

    def __str__(self) -> str:
        return f"unsupported HTTP method: {self.method}"


class InvalidProtocol(InvalidHandshake):
    """The HTTP version is not 1.1; a server answers 505."""

    def __init__(self, protocol: str) -> None:
        super().__init__(protocol)
        self.protocol = protocol

    def __str__(self) -> str:
        return f"unsupported HTTP version: {self.protocol}"


class InvalidStatus(InvalidHandshake):
    """
    The server answered with a status other than 101.

    Attributes:
        response: the whole response, with its body (at most 64 KiB of it).
    """

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"server rejected WebSocket connection: {_explain_status(self.response, _ADVICE)}"


class ProxyError(InvalidHandshake):
    """A proxy could not be used, or did not connect to the server."""


class InvalidProxyMessage(ProxyError):
    """The answer of an HTTP proxy is not well-formed HTTP/1.1 (RFC 9112)."""


class InvalidProxyStatus(ProxyError):
    """
    An HTTP proxy refused to connect to the server (RFC 9110 §9.3.6).

    Attributes:
        response: the head of its response.
    """

    def __init__(self, response: Any) -> None:
        super().__init__(response)
        self.response = response

    def __str__(self) -> str:
        return f"proxy rejected connection: {_explain_status(self.response, _PROXY_ADVICE)}"


# What a newcomer can do about a status, where that is not plain.
_ADVICE = {
    200: "this is a page of a web server; is the path that of a WebSocket?",
    401: "the server wants credentials, such as ws://user:password@host/",
    403: "the server may want another origin, see origin=, or credentials",
    404: "is the path right, and the port that of the WebSocket server?",
    405: "is the path right, and the port that of the WebSocket server?",
    426: "the server wants another protocol or version",
    500: "the log of the server should say why",
    502: "a proxy can't reach the server behind it: is that running?",
    504: "the server behind a proxy doesn't answer: is it running?",
}
_PROXY_ADVICE = {407: "the proxy wants credentials: http://user:password@host:port"}


def _explain_status(response: Any, advice: dict[int, str]) -> str:
    """The status of a response, the first line of its body if that is text, and advice."""
    text = f"HTTP {response.status_code:d}"
    body: bytes = getattr(response, "body", b"")
    line = body.lstrip().partition(b"\n")[0].strip()[:100].decode("ascii", "replace")
    if line.isprintable() and not line.startswith("<"):
        text += f": {line}" if line else ""
    hint = advice.get(response.status_code)
    return f"{text} ({hint})" if hint else text


class InvalidHeader(InvalidHandshake):
    """A header is missing, malformed, or has a value that is not acceptable."""

    def __init__(self, name: str, value: Optional[str] = None) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing {self.name} header"
        if self.value == "":
            return f"empty {self.name} header"
        return f"invalid {self.name} header: {self.value}"


class InvalidHeaderFormat(InvalidHeader):
    """A header does not match its grammar."""

    def __init__(self, name: str, error: str, header: str, pos: int) -> None:
        super().__init__(name, f"{error} at {pos} in {header}")
        self.args = (name, error, header, pos)  # what pickle calls the class with


class InvalidHeaderValue(InvalidHeader):
    """A header is well-formed, but its value is not acceptable."""


class InvalidOrigin(InvalidHeader):
    """The Origin of the request is not allowed; a server answers 403."""

    def __init__(self, origin: Optional[str]) -> None:
        super().__init__("Origin", origin)
        self.args = (origin,)  # what pickle calls the class with


class InvalidUpgrade(InvalidHeader):
    """The Upgrade or Connection header does not ask for WebSocket; a server answers 426."""


class NegotiationError(InvalidHandshake):
    """An extension or a subprotocol could not be agreed upon (RFC 6455 §4.1, §9.1)."""


class DuplicateParameter(NegotiationError):
    """An extension parameter occurs twice."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"duplicate parameter: {self.name}"


class InvalidParameterName(NegotiationError):
    """An extension parameter is unknown."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name

    def __str__(self) -> str:
        return f"invalid parameter name: {self.name}"


class InvalidParameterValue(NegotiationError):
    """An extension parameter has a value that is not allowed."""

    def __init__(self, name: str, value: Optional[str]) -> None:
        super().__init__(name, value)
        self.name = name
        self.value = value

    def __str__(self) -> str:
        if self.value is None:
            return f"missing value for parameter {self.name}"
        if self.value == "":
            return f"empty value for parameter {self.name}"
        return f"invalid value for parameter {self.name}: {self.value}"


class ProtocolError(WebSocketException):
    """A frame that breaks RFC 6455 was received, or was asked to be sent."""


class PayloadTooBig(WebSocketException):
    """
    A message is over ``max_size``; the connection closes with 1009 (RFC 6455 §7.4.1).

    Attributes:
        size: bytes in the frame, as far as its header tells; ``None`` if inflated.
        max_size: the limit, in bytes.
        current_size: bytes of the message before this frame; ``None`` in its first.
    """

    def __init__(
        self, size: Optional[int], max_size: int, current_size: Optional[int] = None
    ) -> None:
        super().__init__(size, max_size, current_size)
        self.size = size
        self.max_size = max_size
        self.current_size = current_size

    def __str__(self) -> str:
        text = "frame "
        if self.size is not None:
            text += f"with {self.size} bytes "
        if self.current_size is not None:
            text += f"after reading {self.current_size} bytes "
        return f"{text}exceeds limit of {self.max_size} bytes (max_size)"


class PolicyViolation(WebSocketException):
    """
    The peer kept to the protocol, but not to a limit of this end (RFC 6455 §7.4.1, code 1008).

    Such as ``max_empty_fragments`` or a ``rate_limit``. Found behind
    :exc:`ConnectionClosed`, as its ``__cause__``.
    """


class ConcurrencyError(WebSocketException, RuntimeError):
    """Two threads did at once what only one at a time may do."""
