"""Redirects in the opening handshake (RFC 6455 §4.1, RFC 9110 §15.4)."""

from __future__ import annotations

import dataclasses
from typing import Optional
from urllib.parse import urldefrag, urljoin

from .exceptions import InvalidHeaderValue, InvalidURI, SecurityError
from .headers import Headers, build_host, excerpt
from .http11 import Response
from .uri import WebSocketURI, parse_uri

__all__ = ["CREDENTIAL_HEADERS", "is_same_origin", "redirect", "without_credentials"]

# RFC 9110 §15.4. A list of choices (300) and "not modified" (304) lead nowhere.
_REDIRECTS = (301, 302, 303, 307, 308)

# Schemes of a Location, and those of the URI that is meant (RFC 6455 §11.1).
_SCHEMES = {"http": "ws", "https": "wss"}

CREDENTIAL_HEADERS = ("Authorization", "Cookie", "Proxy-Authorization")
"""What is meant for one origin only (RFC 9110 §15.4)."""


def redirect(uri: WebSocketURI, response: Response) -> Optional[WebSocketURI]:
    """
    Return where a response sends a client; ``None`` if it is no redirect.

    Within the same origin user name and password are kept.

    Raises:
        InvalidHeaderValue: the Location header is not one that can be followed.
        SecurityError: it leads from ``wss`` to ``ws``.
    """
    locations = response.headers.get_all("Location")
    if response.status_code not in _REDIRECTS or not locations:
        return None
    target = _resolve(uri, locations[0]) if len(locations) == 1 else None
    if target is None:
        raise InvalidHeaderValue("Location", excerpt(", ".join(locations)))
    if uri.secure and not target.secure:
        host = build_host(target.host, target.port, target.secure)
        raise SecurityError(f"refused to follow a redirect from wss:// to ws://{host}")
    if is_same_origin(uri, target) and target.username is None:
        return dataclasses.replace(target, username=uri.username, password=uri.password)
    return target


def _resolve(uri: WebSocketURI, location: str) -> Optional[WebSocketURI]:
    scheme = "https" if uri.secure else "http"
    base = f"{scheme}://{build_host(uri.host, uri.port, uri.secure)}{uri.resource_name}"
    try:
        # Servers send UTF-8 where RFC 9110 §10.2.2 wants ASCII; a fragment is for browsers.
        reference = location.encode("iso-8859-1").decode("utf-8")
        target = urldefrag(urljoin(base, reference)).url
        scheme, colon, rest = target.partition(":")
        return parse_uri(_SCHEMES.get(scheme.lower(), scheme) + colon + rest)
    except (InvalidURI, ValueError):
        return None


def is_same_origin(one: WebSocketURI, other: WebSocketURI) -> bool:
    """Tell whether scheme, host and port are the same (RFC 6454 §5)."""
    return (one.secure, one.host, one.port) == (other.secure, other.host, other.port)


def without_credentials(headers: Headers) -> Headers:
    """Return headers as they may be sent to another origin; a Host is not for that, either."""
    kept = headers.copy()
    for name in (*CREDENTIAL_HEADERS, "Host"):
        if name in kept:
            del kept[name]
    return kept
