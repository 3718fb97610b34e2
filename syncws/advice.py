"""What a client adds to errors of the opening handshake, so that they say what to do."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator

from .exceptions import InvalidMessage, InvalidProtocol
from .headers import build_host
from .uri import WebSocketURI

__all__ = ["advising", "check_not_http2"]

# What OpenSSL says when the peer answers in plain text.
_NOT_TLS = (
    "WRONG_VERSION_NUMBER",
    "RECORD_LAYER_FAILURE",
    "PACKET_LENGTH_TOO_LONG",
    "UNKNOWN_PROTOCOL",
    "HTTP_REQUEST",
)
# X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT and its neighbours: an unknown authority.
_NOT_TRUSTED = (18, 19, 20, 21)

# RFC 9113 §4.1, §6.5: after its length, the head of the SETTINGS frame that servers start with.
_HTTP2_SETTINGS = b"\x04\x00\x00\x00\x00\x00"


@contextlib.contextmanager
def advising(uri: WebSocketURI) -> Iterator[None]:
    """Have errors within the ``with`` block say what may be the reason, and what to do."""
    name = build_host(uri.host, uri.port, secure=uri.port == 80)  # with its port in any case
    try:
        yield
    except ssl.SSLError as exc:
        exc.strerror = f"{exc.strerror}{_advise_tls(exc, name)}"
        raise
    except ConnectionError as exc:
        raise _advise_connection(exc, name, uri.secure) from exc
    except InvalidMessage as exc:
        raise _advise_message(exc, name, uri.secure) from exc.__cause__


def _advise_tls(exc: ssl.SSLError, name: str) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        advice = "; for a certificate of your own pass ssl=create_default_context(cafile=...)"
        return advice if exc.verify_code in _NOT_TRUSTED else ""
    reason = getattr(exc, "reason", None) or ""  # only errors of OpenSSL itself have one
    if reason in _NOT_TLS:
        return f"; {name} doesn't seem to use TLS: use ws:// instead of wss://"
    if "NO_APPLICATION_PROTOCOL" in reason:
        return f"; {name} doesn't offer HTTP/1.1, which WebSocket needs"
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return f"; {name} closed the connection: if it has no TLS, use ws:// instead of wss://"
    return ""


def _advise_connection(exc: ConnectionError, name: str, secure: bool) -> Exception:
    if exc.errno is None:
        return exc
    other = "no TLS (ws://)" if secure else "TLS (wss://)"
    text = f"{exc.strerror}, in the opening handshake with {name}; has it {other}?"
    return OSError(exc.errno, text)  # Called with a number, it makes the fitting subclass.


def _advise_message(exc: InvalidMessage, name: str, secure: bool) -> Exception:
    if not isinstance(exc.__cause__, EOFError):
        return exc
    other = "without TLS (ws://)" if secure else "with TLS (wss://)"
    return InvalidMessage(f"{exc}; is {name} a WebSocket server, or one {other}?")


def check_not_http2(data: bytes) -> None:
    """
    Recognise a server that knows HTTP/2 only, by the first bytes of its answer.

    Raises:
        InvalidProtocol: it is one.
    """
    if data[3:9] == _HTTP2_SETTINGS:
        raise InvalidProtocol("HTTP/2 (the server doesn't offer HTTP/1.1, which WebSocket needs)")
