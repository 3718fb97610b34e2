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
_NOT_YET_VALID, _EXPIRED = 9, 10
_OTHER_HOST = (62, 64)  # a name, an address

# How what is said of a response starts that isn't HTTP at all.
_NOT_HTTP = "invalid HTTP status line"

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
    except TimeoutError as exc:
        if exc.errno is None:
            exc.args = (f"{exc}; {name} took the connection: is a WebSocket server at work there?",)
        raise
    except InvalidMessage as exc:
        raise _advise_message(exc, name, uri.secure) from exc.__cause__


def _advise_tls(exc: ssl.SSLError, name: str) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return _advise_certificate(exc)
    reason = getattr(exc, "reason", None) or ""  # only errors of OpenSSL itself have one
    if reason in _NOT_TLS:
        return f"; {name} doesn't seem to use TLS: use ws:// instead of wss://"
    if "NO_APPLICATION_PROTOCOL" in reason:
        return f"; {name} doesn't offer HTTP/1.1, which WebSocket needs"
    if "HANDSHAKE_FAILURE" in reason:
        return f"; has the server at {name} a certificate? its log should say more"
    if isinstance(exc, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return f"; {name} closed the connection: if it has no TLS, use ws:// instead of wss://"
    return ""


def _advise_certificate(exc: ssl.SSLCertVerificationError) -> str:
    if exc.verify_code in _NOT_TRUSTED:
        return "; for a certificate of your own pass ssl=ssl.create_default_context(cafile=...)"
    if exc.verify_code in (_NOT_YET_VALID, _EXPIRED):
        return "; the server needs another certificate, unless the clock here is wrong"
    if exc.verify_code in _OTHER_HOST:
        return "; connect to the name in the certificate, or pass that as server_hostname"
    return ""


def _advise_connection(exc: ConnectionError, name: str, secure: bool) -> Exception:
    if exc.errno is None:
        return exc
    other = "no TLS (ws://)" if secure else "TLS (wss://)"
    text = f"{exc.strerror}, in the opening handshake with {name}; has it {other}?"
    return OSError(exc.errno, text)  # Called with a number, it makes the fitting subclass.


def _advise_message(exc: InvalidMessage, name: str, secure: bool) -> Exception:
    if str(exc).startswith(_NOT_HTTP):
        return InvalidMessage(f"{exc}; {name} is no WebSocket server: is the port right?")
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
