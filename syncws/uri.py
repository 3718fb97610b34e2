"""WebSocket URIs (RFC 6455 §3)."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Optional
from urllib.parse import quote, unquote

from .exceptions import InvalidURI

__all__ = ["WebSocketURI", "parse_uri"]

# RFC 3986 appendix B, with what a WebSocket URI must have.
_URI = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?")
# RFC 3986 §3.2: host in brackets or without colons, then a port.
_HOST_PORT = re.compile(r"(?:\[([^\]]*)\]|([^:\[\]]*))(?::([0-9]*))?")
# What names in DNS and in local name services are made of.
_NAME = re.compile(r"[-A-Za-z0-9._~]+")
_CONTROL_OR_SPACE = re.compile(r"[\x00-\x20\x7f-\x9f]")

# RFC 3986 §2.2, and the percent sign of what is encoded already.
_RESERVED = "%:/?#[]@!$&'()*+,;="

_DEFAULT_PORTS = {"ws": 80, "wss": 443}
_MAX_NAME_LENGTH = 253

_FORM = "write ws://host:port/path"


@dataclass(frozen=True)
class WebSocketURI:
    """
    A WebSocket URI in its parts (RFC 6455 §3).

    Attributes:
        secure: whether the scheme is ``wss``.
        host: name in lower case, in its ASCII form, or an address without brackets.
        port: the default one of the scheme if the URI has none.
        path: percent-encoded; may be empty.
        query: percent-encoded, without the question mark; may be empty.
        username: decoded; ``None`` if the URI has none.
        password: decoded; ``None`` if the URI has none.
    """

    secure: bool
    host: str
    port: int
    path: str
    query: str
    username: Optional[str] = None
    password: Optional[str] = None

    @property
    def resource_name(self) -> str:
        """Path and query, for the request line."""
        path = self.path or "/"
        return f"{path}?{self.query}" if self.query else path

    @property
    def user_info(self) -> Optional[tuple[str, str]]:
        """User name and password, or ``None``."""
        if self.username is None or self.password is None:
            return None
        return self.username, self.password


def parse_uri(uri: str) -> WebSocketURI:
    """
    Parse and validate a WebSocket URI (RFC 6455 §3).

    Characters outside of ASCII are encoded: by IDNA in the host, as percent-encoded
    UTF-8 in path and query.

    Raises:
        InvalidURI: it is not a valid WebSocket URI; the message says why.
        TypeError: it is not a string.
    """
    try:
        return _parse(uri)
    except ValueError as exc:
        raise InvalidURI(uri, str(exc)) from None
    except TypeError:
        raise TypeError(f"a URI must be a str, as in 'ws://host:port/path', not {uri!r}") from None


# The functions below raise ValueError with the second half of the message.


def _parse(uri: str) -> WebSocketURI:
    if _CONTROL_OR_SPACE.search(uri):
        raise ValueError("contains a space or a control character; a space is written %20")
    match = _URI.fullmatch(uri)
    if match is None:
        raise ValueError(f"scheme isn't ws or wss; {_FORM}")
    scheme, authority, path, query, fragment = match.groups()
    scheme = scheme.lower()
    _check_scheme(scheme)
    if fragment is not None:
        # RFC 6455 §3: a "#" that is meant must be written as %23.
        raise ValueError("fragment identifier is meaningless; a # is written %23")
    user_info, at, host_port = authority.rpartition("@")
    username, password = _parse_user_info(user_info) if at else (None, None)
    host, port = _parse_host_port(host_port)
    return WebSocketURI(
        secure=scheme == "wss",
        host=host,
        port=_DEFAULT_PORTS[scheme] if port is None else port,
        path=_encode(path),
        query=_encode(query or ""),
        username=username,
        password=password,
    )


def _check_scheme(scheme: str) -> None:
    advice = {"http": "use ws:// instead", "https": "use wss:// instead"}
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"scheme isn't ws or wss; {advice.get(scheme, _FORM)}")


def _parse_user_info(user_info: str) -> tuple[str, str]:
    if "@" in user_info:
        raise ValueError("an @ in the user information must be written as %40")
    raw_username, colon, raw_password = user_info.partition(":")
    if not colon:
        raise ValueError("username provided without password; write user:password@host")
    try:
        username = unquote(raw_username, errors="strict")
        password = unquote(raw_password, errors="strict")
        (username + password).encode()  # no lone surrogates
    except UnicodeError:
        raise ValueError("user information isn't UTF-8") from None
    if ":" in username:
        # RFC 7617 §2: the server would take what follows for the password.
        raise ValueError("username contains a colon")
    return username, password


def _parse_host_port(host_port: str) -> tuple[str, Optional[int]]:
    match = _HOST_PORT.fullmatch(host_port)
    if match is None:
        raise ValueError(f"host or port is malformed; {_FORM}, and IPv6 in brackets")
    address, name, port = match.groups()
    host = _parse_name(name) if address is None else _parse_ipv6(address)
    if not port:
        return host, None
    if len(port) > 5 or not 1 <= int(port) <= 65535:
        raise ValueError("port isn't between 1 and 65535")
    return host, int(port)


def _parse_name(name: str) -> str:
    if not name:
        raise ValueError("hostname isn't provided")
    if len(name) > _MAX_NAME_LENGTH:
        raise ValueError(f"hostname is longer than {_MAX_NAME_LENGTH} characters")
    if not name.isascii():
        try:
            name = name.encode("idna").decode("ascii")
        except UnicodeError:
            raise ValueError("hostname isn't valid in IDNA") from None
        if len(name) > _MAX_NAME_LENGTH:
            raise ValueError(f"hostname is longer than {_MAX_NAME_LENGTH} characters in IDNA")
    if not _NAME.fullmatch(name):
        raise ValueError("hostname contains invalid characters")
    return name.lower()


def _parse_ipv6(address: str) -> str:
    # RFC 6874 §2: a zone follows "%25".
    address = address.replace("%25", "%", 1).lower()
    try:
        ipaddress.IPv6Address(address)
    except ValueError:
        raise ValueError("address in brackets isn't IPv6") from None
    return address


def _encode(component: str) -> str:
    try:
        return quote(component, safe=_RESERVED)
    except UnicodeEncodeError:
        raise ValueError("contains a lone surrogate") from None
