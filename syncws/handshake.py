"""
The opening handshake of both endpoints: what to send, and what to accept (RFC 6455 §4).

No I/O: requests and responses come and go as values.
"""

from __future__ import annotations

import base64
import binascii
import email.utils
import functools
import hashlib
import http
import ipaddress
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any, Callable, Optional, Protocol, Union

from .exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderValue,
    InvalidMethod,
    InvalidOrigin,
    InvalidProtocol,
    InvalidStatus,
    InvalidUpgrade,
    NegotiationError,
    RequestLineTooLong,
    TooManyHeaders,
)
from .headers import (
    ExtensionHeader,
    ExtensionParameter,
    Headers,
    HeadersLike,
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    excerpt,
    parse_connection,
    parse_extension,
    parse_subprotocol,
    parse_upgrade,
    validate_subprotocols,
)
from .http11 import Request, Response
from .uri import WebSocketURI

__all__ = [
    "SAME_HOST",
    "ClientExtensionFactory",
    "ClientHandshake",
    "Origins",
    "ServerExtensionFactory",
    "ServerHandshake",
    "accept_key",
    "error_response",
    "origin_advice",
    "reject",
]

SAME_HOST = "same-host"
"""Allows pages of the host that the request was sent to, and clients that are no browsers."""

_SAME_HOST_ONLY = (SAME_HOST,)

Origins = Union[str, Sequence[Union[str, "re.Pattern[str]", None]], None]
"""Type of the ``origins`` option; the only ``str`` that is one by itself is ``SAME_HOST``."""

# RFC 6455 §1.3 and §4.2.2
_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_VERSION = "13"
# RFC 6455 §4.1: 16 bytes in base64
_KEY = re.compile(r"[A-Za-z0-9+/]{22}==")
# RFC 9110 §7.2 with RFC 3986 §3.2.2: uri-host [ ":" port ]
_HOST = re.compile(r"(\[[0-9A-Za-z:.%]+\]|[-A-Za-z0-9._~!$&'()*+,;=%]+)(?::[0-9]*)?")
# RFC 6454 §6.2: scheme "://" host [ ":" port ]
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://(.+)")

# Longest host that is kept in a cache, in characters; names have 253 at most (RFC 1035 §2.3.4).
_MAX_CACHED_HOST = 300

# Headers that the client's handshake sets, or that would end or prolong its request.
_RESERVED_HEADERS = {
    "connection",
    "content-length",
    "origin",
    "sec-websocket-accept",
    "sec-websocket-extensions",
    "sec-websocket-key",
    "sec-websocket-protocol",
    "sec-websocket-version",
    "transfer-encoding",
    "upgrade",
}

# 414 by its number: its name changed in Python 3.13.
_STATUSES: tuple[tuple[type[InvalidHandshake], http.HTTPStatus], ...] = (
    (RequestLineTooLong, http.HTTPStatus(414)),
    (HeaderLineTooLong, http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (TooManyHeaders, http.HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE),
    (InvalidMethod, http.HTTPStatus.METHOD_NOT_ALLOWED),
    (InvalidProtocol, http.HTTPStatus.HTTP_VERSION_NOT_SUPPORTED),
    (InvalidOrigin, http.HTTPStatus.FORBIDDEN),
    (InvalidUpgrade, http.HTTPStatus.UPGRADE_REQUIRED),
)


class ServerExtensionFactory(Protocol):
    """What a server offers one extension with (RFC 6455 §9)."""

    @property
    def name(self) -> str:
        """Name of the extension, as in the header."""

    def process_request_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Any]
    ) -> tuple[Sequence[ExtensionParameter], Any]:
        """
        Answer one offer: return the parameters of the response, and the extension.

        Raises:
            NegotiationError: to decline this offer; the next one is tried.
        """


class ClientExtensionFactory(Protocol):
    """What a client offers one extension with (RFC 6455 §9)."""

    @property
    def name(self) -> str:
        """Name of the extension, as in the header."""

    def get_request_params(self) -> Sequence[ExtensionParameter]:
        """Return the parameters of the offer."""

    def process_response_params(
        self, params: Sequence[ExtensionParameter], accepted_extensions: Sequence[Any]
    ) -> Any:
        """
        Check what the server agreed to, and return the extension.

        Raises:
            NegotiationError: the offer does not allow these parameters.
        """


def accept_key(key: str) -> str:
    """Return the Sec-WebSocket-Accept for a Sec-WebSocket-Key (RFC 6455 §4.2.2)."""
    digest = hashlib.sha1(f"{key}{_GUID}".encode("ascii"), usedforsecurity=False).digest()
    return binascii.b2a_base64(digest, newline=False).decode("ascii")


class _Clock:
    """The time as the Date header has it (RFC 9110 §5.6.7), made once for each second."""

    def __init__(self) -> None:
        self._made = (datetime.min, "")

    def date(self) -> str:
        """The current time. Any thread may call it."""
        now = datetime.now(timezone.utc).replace(microsecond=0)
        made = self._made
        if made[0] != now:
            # In one atomic store, so that no thread sees half of it.
            self._made = made = (now, email.utils.format_datetime(now, usegmt=True))
        return made[1]


_clock = _Clock()


def reject(status: int, text: str) -> Response:
    """
    Return a plain-text response that ends the connection.

    Args:
        status: HTTP status code.
        text: the body; it will be UTF-8.

    Raises:
        ValueError: there is no such status code.
    """
    status = http.HTTPStatus(status)
    body = text.encode()
    headers = Headers()
    headers["Date"] = _clock.date()
    headers["Connection"] = "close"
    headers["Content-Length"] = str(len(body))
    headers["Content-Type"] = "text/plain; charset=utf-8"
    return Response(status.value, status.phrase, headers, body)


def error_response(exc: InvalidHandshake) -> Response:
    """Return the response that says why a request was refused (RFC 6455 §4.2.2, §4.4)."""
    status = _status_for(exc)
    text = f"Failed to open a WebSocket connection: {exc}.\n"
    if isinstance(exc, InvalidUpgrade):
        text += "\nThis is a WebSocket server: a browser cannot show it as a page.\n"
    response = reject(status, text)
    if status == http.HTTPStatus.METHOD_NOT_ALLOWED:
        response.headers["Allow"] = "GET"
    if status == http.HTTPStatus.UPGRADE_REQUIRED:
        # RFC 9110 §15.5.22 and §7.8: a 426 names the protocol, and Connection says so.
        del response.headers["Connection"]
        response.headers["Connection"] = "Upgrade, close"
        response.headers["Upgrade"] = "websocket"
    if _is_about_version(exc):
        response.headers["Sec-WebSocket-Version"] = _VERSION
    return response


def _status_for(exc: InvalidHandshake) -> http.HTTPStatus:
    for kind, status in _STATUSES:
        if isinstance(exc, kind):
            return status
    if isinstance(exc, InvalidHeaderValue) and _is_about_version(exc):
        return http.HTTPStatus.UPGRADE_REQUIRED
    return http.HTTPStatus.BAD_REQUEST


def _is_about_version(exc: InvalidHandshake) -> bool:
    return isinstance(exc, InvalidHeader) and exc.name == "Sec-WebSocket-Version"


def origin_advice(origin: Optional[str]) -> str:
    """Return the sentence that tells an operator how to allow an origin that was refused."""
    return (
        f"to allow it, add {origin!r} to the origins argument of serve(), as in "
        f"origins=[SAME_HOST, {origin!r}]; origins=None allows the pages of every host"
    )


# What both endpoints check


def _single(headers: Headers, name: str) -> str:
    """Return the value of a header that must occur once."""
    value = headers.find(name)
    if isinstance(value, str):
        return value
    raise InvalidHeader(name, "multiple values" if value else None)


def _joined(headers: Headers, name: str) -> Optional[str]:
    """Return a list-based header, of which each line has a part (RFC 9110 §5.3)."""
    value = headers.find(name)
    return ", ".join(value) if isinstance(value, list) else value


def _check_upgrade(headers: Headers) -> list[str]:
    """Check Connection and Upgrade; return the protocols of the latter."""
    options, protocols = _joined(headers, "Connection"), _joined(headers, "Upgrade")
    if protocols == "websocket" and options in ("Upgrade", "keep-alive, Upgrade"):
        return [protocols]  # the common cases, without the grammar
    connection = parse_connection(options or "")
    if not any(option.lower() == "upgrade" for option in connection):
        raise InvalidUpgrade("Connection", excerpt(", ".join(connection)) or None)
    upgrade = parse_upgrade(protocols or "")
    if not any(protocol.lower() == "websocket" for protocol in upgrade):
        raise InvalidUpgrade("Upgrade", excerpt(", ".join(upgrade)) or None)
    return upgrade


def _canonical_host(authority: str) -> Optional[str]:
    """Return the host of ``host[:port]`` in a form to compare; ``None`` if malformed."""
    if len(authority) > _MAX_CACHED_HOST:
        return _find_canonical_host(authority)
    return _cached_canonical_host(authority)


def _find_canonical_host(authority: str) -> Optional[str]:
    match = _HOST.fullmatch(authority)
    if match is None:
        return None
    host = match.group(1).lower()
    if not host.startswith("["):
        return host
    try:
        return f"[{ipaddress.IPv6Address(host[1:-1])}]"
    except ValueError:
        return None


# A server has few names; clients that invent some find others' gone from the cache, no more.
_cached_canonical_host = functools.lru_cache(maxsize=64)(_find_canonical_host)


# The server


class ServerHandshake:
    """
    The server's part in one opening handshake (RFC 6455 §4.2).

    Args:
        origins: whose pages may connect: ``SAME_HOST``, or a list of origins, patterns
            that match a whole origin, ``SAME_HOST``, and ``None`` for requests without
            an Origin header; ``None`` in place of a list allows all.
        extensions: factories of extensions.
        subprotocols: subprotocols in order of preference. With some, a client must
            offer one of them.
        select_subprotocol: takes the offered subprotocols, returns one of them or
            ``None``, or raises :exc:`NegotiationError`; used in place of that rule.

    Attributes:
        exception: why the request was refused, or ``None``.
        accepted: the 101 that was returned, or ``None``.
        extensions: extensions that are in use on the connection, in order.
        subprotocol: the subprotocol of the connection, or ``None``.

    Raises:
        TypeError: ``origins`` or ``subprotocols`` is not a list as described.
        ValueError: a subprotocol is not a token, or occurs twice.
    """

    def __init__(
        self,
        *,
        origins: Origins = SAME_HOST,
        extensions: Optional[Sequence[ServerExtensionFactory]] = (),
        subprotocols: Optional[Sequence[str]] = None,
        select_subprotocol: Optional[Callable[[Sequence[str]], Optional[str]]] = None,
    ) -> None:
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        self._origins = _normalize_origins(origins)
        self._available_extensions = extensions or ()
        self._available_subprotocols = subprotocols or ()
        self._select_subprotocol = select_subprotocol
        self.exception: Optional[InvalidHandshake] = None
        self.accepted: Optional[Response] = None
        self.extensions: list[Any] = []
        self.subprotocol: Optional[str] = None

    def respond(self, request: Request) -> Response:
        """
        Check the request; return the response to send, a 101 or the refusal.

        Nothing that a peer sends raises. Exceptions of ``select_subprotocol`` and of
        extensions are left to the caller, but for :exc:`NegotiationError`.

        Raises:
            ValueError: ``select_subprotocol`` returned what the client did not offer.
        """
        try:
            key = self._check_request(request)
            self._check_origin(request.headers)
            extension_headers, extensions = self._negotiate_extensions(request.headers)
            subprotocol = self._negotiate_subprotocol(request.headers)
        except InvalidHandshake as exc:
            # The traceback would make a cycle of the frame, this object and the exception,
            # which keeps the connection alive until the garbage collector comes by.
            self.exception = exc.with_traceback(None)
            return error_response(exc)
        self.extensions = extensions
        self.subprotocol = subprotocol
        self.accepted = self._accept(key, extension_headers)
        return self.accepted

    def _accept(self, key: str, extension_headers: list[ExtensionHeader]) -> Response:
        # RFC 6455 §4.2.2 step 5
        headers = Headers.of_parsed(
            [
                ("Date", _clock.date()),
                ("Upgrade", "websocket"),
                ("Connection", "Upgrade"),
                ("Sec-WebSocket-Accept", accept_key(key)),
            ]
        )
        if extension_headers:
            headers["Sec-WebSocket-Extensions"] = build_extension(extension_headers)
        if self.subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = self.subprotocol
        return Response(101, "Switching Protocols", headers)

    def _check_request(self, request: Request) -> str:
        """Check what RFC 6455 §4.2.1 asks of a request; return its key."""
        headers = request.headers
        if request.method != "GET":
            raise InvalidMethod(excerpt(request.method))
        if request.protocol != "HTTP/1.1":
            raise InvalidProtocol(request.protocol)
        host = _single(headers, "Host")
        if _canonical_host(host) is None:
            raise InvalidHeaderValue("Host", excerpt(host))
        _check_upgrade(headers)
        version = _single(headers, "Sec-WebSocket-Version")
        if version != _VERSION:
            raise InvalidHeaderValue("Sec-WebSocket-Version", excerpt(version))
        key = _single(headers, "Sec-WebSocket-Key")
        if not _KEY.fullmatch(key):
            raise InvalidHeaderValue("Sec-WebSocket-Key", excerpt(key))
        return key

    def _check_origin(self, headers: Headers) -> None:
        # RFC 6455 §10.2
        # RFC 6454 §7.3: there is at most one Origin header.
        origin = _single(headers, "Origin") if "Origin" in headers else None
        if self._origins is None or (origin is None and self._origins is _SAME_HOST_ONLY):
            return
        for allowed in self._origins:
            if allowed == SAME_HOST:
                if origin is None or _is_same_host(origin, headers["Host"]):
                    return
            elif isinstance(allowed, re.Pattern):
                if origin is not None and allowed.fullmatch(origin):
                    return
            elif allowed == origin:
                return
        raise InvalidOrigin(None if origin is None else excerpt(origin))

    def _negotiate_extensions(self, headers: Headers) -> tuple[list[ExtensionHeader], list[Any]]:
        """Try the offers in the client's order (RFC 6455 §9.1)."""
        agreed: list[ExtensionHeader] = []
        extensions: list[Any] = []
        offers = _joined(headers, "Sec-WebSocket-Extensions")
        if offers is None:
            return agreed, extensions
        for name, params in parse_extension(offers):
            # Several offers of one extension are alternatives (RFC 7692 §5).
            if any(name == agreed_name for agreed_name, _ in agreed):
                continue
            answer = self._answer_offer(name, params, extensions)
            if answer is not None:
                agreed.append((name, answer[0]))
                extensions.append(answer[1])
        return agreed, extensions

    def _answer_offer(
        self, name: str, params: Sequence[ExtensionParameter], accepted: Sequence[Any]
    ) -> Optional[tuple[Sequence[ExtensionParameter], Any]]:
        for factory in self._available_extensions:
            if factory.name == name:
                try:
                    return factory.process_request_params(params, accepted)
                except NegotiationError:
                    continue  # RFC 6455 §9.1: what is declined is left out of the response.
        return None

    def _negotiate_subprotocol(self, headers: Headers) -> Optional[str]:
        header = _joined(headers, "Sec-WebSocket-Protocol")
        offered = [] if header is None else parse_subprotocol(header)
        if self._select_subprotocol is None:
            return self._select_preferred_subprotocol(offered)
        subprotocol = self._select_subprotocol(offered)
        if subprotocol is not None and subprotocol not in offered:
            # RFC 6455 §4.2.2: the client would have to fail the connection.
            raise ValueError(
                f"select_subprotocol returned {subprotocol!r}, which the client did not offer"
            )
        return subprotocol

    def _select_preferred_subprotocol(self, offered: Sequence[str]) -> Optional[str]:
        if not self._available_subprotocols:
            return None
        if not offered:
            expected = ", ".join(self._available_subprotocols)
            raise NegotiationError(f"missing subprotocol; expected one of {expected}")
        for subprotocol in self._available_subprotocols:
            if subprotocol in offered:
                return subprotocol
        expected = ", ".join(self._available_subprotocols)
        raise NegotiationError(f"invalid subprotocol; expected one of {expected}")


def _normalize_origins(
    origins: Origins,
) -> Optional[tuple[Union[str, re.Pattern[str], None], ...]]:
    """Return ``origins`` as a tuple, or ``None`` if all are allowed."""
    if origins is None:
        return None
    if isinstance(origins, str):
        if origins != SAME_HOST:
            raise TypeError(f"origins must be a list, SAME_HOST or None, not {origins!r}")
        return _SAME_HOST_ONLY
    for origin in origins:
        pattern = origin.pattern if isinstance(origin, re.Pattern) else origin
        if pattern is not None and not isinstance(pattern, str):
            raise TypeError(f"origins must contain str, re.Pattern or None, not {origin!r}")
    return tuple(origins)


def _is_same_host(origin: str, host: str) -> bool:
    """
    Tell whether a page comes from the host that it connects to.

    Ports may differ: a page and its WebSocket are often served by two processes, and
    cookies, which are what a foreign page could abuse, do not tell ports apart either.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None:
        return False  # "null", too: a sandboxed page, or one from a file
    origin_host = _canonical_host(match.group(1))
    return origin_host is not None and origin_host == _canonical_host(host)


# The client


class ClientHandshake:
    """
    The client's part in one opening handshake (RFC 6455 §4.1).

    Args:
        uri: where to connect to.
        origin: value of the Origin header; ``None`` leaves it out.
        extensions: factories of extensions to offer, in order of preference.
        subprotocols: subprotocols to offer, in order of preference.
        additional_headers: sent as well; Host, User-Agent and Authorization replace
            those that would be sent otherwise.
        user_agent_header: value of the User-Agent header; ``None`` leaves it out.
        key: value of the Sec-WebSocket-Key header; ``None`` for a random one.

    Attributes:
        request: the request to send.
        extensions: extensions that are in use on the connection, in order.
        subprotocol: the subprotocol of the connection, or ``None``.

    Raises:
        TypeError: ``subprotocols`` is not a list.
        ValueError: ``additional_headers`` has one that belongs to the handshake, or a
            header or subprotocol is malformed.
        InvalidHeaderValue: the value of a header contains a control character.
    """

    def __init__(
        self,
        uri: WebSocketURI,
        *,
        origin: Optional[str] = None,
        extensions: Optional[Sequence[ClientExtensionFactory]] = (),
        subprotocols: Optional[Sequence[str]] = None,
        additional_headers: Optional[HeadersLike] = None,
        user_agent_header: Optional[str] = None,
        key: Optional[str] = None,
    ) -> None:
        if subprotocols is not None:
            validate_subprotocols(subprotocols)
        self._origin = origin
        self._offered_extensions = extensions or ()
        self._offered_subprotocols = subprotocols or ()
        # RFC 6455 §4.1: a nonce of 16 bytes, chosen at random for each connection
        self._key = base64.b64encode(os.urandom(16)).decode("ascii") if key is None else key
        self.extensions: list[Any] = []
        self.subprotocol: Optional[str] = None
        additional = Headers() if additional_headers is None else Headers(additional_headers)
        _check_additional_headers(additional)
        self.request = Request(uri.resource_name, self._build_headers(uri))
        _override(self.request.headers, additional)
        if user_agent_header is not None and "User-Agent" not in additional:
            self.request.headers["User-Agent"] = user_agent_header

    def check(self, response: Response) -> None:
        """
        Check the server's response as RFC 6455 §4.1 asks for.

        Raises:
            InvalidStatus: the status is not 101.
            InvalidUpgrade: Upgrade or Connection is missing or has another value.
            InvalidHeader: another header is missing, malformed or wrong.
            NegotiationError: an extension or a subprotocol was not offered like that.
        """
        if response.status_code != 101:
            raise InvalidStatus(response)
        headers = response.headers
        upgrade = _check_upgrade(headers)
        if len(upgrade) > 1:
            # Of a request "containing" is enough; a response has switched to one protocol.
            raise InvalidUpgrade("Upgrade", excerpt(", ".join(upgrade)))
        accept = _single(headers, "Sec-WebSocket-Accept")
        if accept != accept_key(self._key):
            raise InvalidHeaderValue("Sec-WebSocket-Accept", excerpt(accept))
        self.extensions = self._check_extensions(headers)
        self.subprotocol = self._check_subprotocol(headers)

    def _build_headers(self, uri: WebSocketURI) -> Headers:
        headers = Headers()
        headers["Host"] = build_host(uri.host, uri.port, uri.secure)
        if uri.user_info is not None:
            headers["Authorization"] = build_authorization_basic(*uri.user_info)
        if self._origin is not None:
            headers["Origin"] = self._origin
        headers["Upgrade"] = "websocket"
        headers["Connection"] = "Upgrade"
        headers["Sec-WebSocket-Key"] = self._key
        headers["Sec-WebSocket-Version"] = _VERSION
        if self._offered_extensions:
            headers["Sec-WebSocket-Extensions"] = build_extension(
                [
                    (factory.name, factory.get_request_params())
                    for factory in self._offered_extensions
                ]
            )
        if self._offered_subprotocols:
            headers["Sec-WebSocket-Protocol"] = build_subprotocol(self._offered_subprotocols)
        return headers

    def _check_extensions(self, headers: Headers) -> list[Any]:
        header = _joined(headers, "Sec-WebSocket-Extensions")
        if header is None:
            return []
        if not self._offered_extensions:
            raise NegotiationError(f"no extensions supported; received {excerpt(header)}")
        accepted: list[Any] = []
        unused = list(self._offered_extensions)
        for name, params in parse_extension(header):
            accepted.append(_use_extension(unused, name, params, accepted))
        return accepted

    def _check_subprotocol(self, headers: Headers) -> Optional[str]:
        header = _joined(headers, "Sec-WebSocket-Protocol")
        if header is None:
            return None
        if not self._offered_subprotocols:
            raise NegotiationError(f"no subprotocols supported; received {excerpt(header)}")
        subprotocols = parse_subprotocol(header)
        if len(subprotocols) > 1:
            values = excerpt(", ".join(subprotocols))
            raise InvalidHeader("Sec-WebSocket-Protocol", f"multiple values: {values}")
        if subprotocols[0] not in self._offered_subprotocols:
            raise NegotiationError(f"unsupported subprotocol: {excerpt(subprotocols[0])}")
        return subprotocols[0]


def _use_extension(
    unused: list[ClientExtensionFactory],
    name: str,
    params: Sequence[ExtensionParameter],
    accepted: Sequence[Any],
) -> Any:
    """Give an agreed extension to the factory that offered it; remove that from ``unused``."""
    reason = ""
    for factory in unused:
        if factory.name == name:
            try:
                extension = factory.process_response_params(params, accepted)
            except NegotiationError as exc:
                reason = f"; {exc}"
            else:
                unused.remove(factory)
                return extension
    raise NegotiationError(
        f"Unsupported extension: name = {excerpt(name)}, params = {excerpt(str(params))}{reason}"
    )


def _check_additional_headers(additional: Headers) -> None:
    for name in additional:
        if name in _RESERVED_HEADERS:
            advice = "; use the origin argument" if name == "origin" else ""
            raise ValueError(f"additional_headers must not contain {name}{advice}")


def _override(headers: Headers, additional: Headers) -> None:
    for name in additional:
        if name in headers:
            del headers[name]
    headers.update(additional)
