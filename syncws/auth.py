"""HTTP Basic authentication of clients (RFC 7617)."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Any, Callable, Optional, Protocol, Union

from .exceptions import InvalidHeader
from .headers import build_www_authenticate_basic, parse_authorization_basic
from .http11 import Request, Response

__all__ = ["basic_auth"]

Credentials = tuple[str, str]


class _Connection(Protocol):
    """What :func:`basic_auth` needs of the server's connections."""

    username: Optional[str]

    def respond(self, status: int, text: str) -> Response:
        """Return a plain-text response."""


def basic_auth(
    realm: str = "",
    credentials: Union[Credentials, Iterable[Credentials], None] = None,
    check_credentials: Optional[Callable[[str, str], bool]] = None,
) -> Callable[[_Connection, Request], Optional[Response]]:
    """
    Return a ``process_request`` hook that asks for a user name and a password.

    Where they are right, it sets ``connection.username``; otherwise the server answers
    401. Exactly one of ``credentials`` and ``check_credentials`` must be given. Use it
    with TLS: the password is sent in clear.

    Args:
        realm: what the credentials are for; shown by browsers.
        credentials: the user name and password that are right, or several such pairs. They
            are compared in a time that tells nothing about them.
        check_credentials: takes user name and password, returns whether they are right. It is
            called in the thread of the connection, and may be by several at once.

    Raises:
        TypeError: ``credentials`` is not a pair or pairs of ``str``.
        ValueError: both or none of the two are given, a user name contains a colon, or
            ``realm`` has characters that a header cannot carry.
    """
    if (credentials is None) == (check_credentials is None):
        raise ValueError("provide either credentials or check_credentials")
    check = check_credentials or _build_check(credentials)
    challenge = build_www_authenticate_basic(realm)

    def process_request(connection: _Connection, request: Request) -> Optional[Response]:
        """Let the request pass, or return a 401."""
        refusal, username = _authenticate(request, check)
        if refusal is None:
            connection.username = username
            return None
        response = connection.respond(401, refusal)
        response.headers["WWW-Authenticate"] = challenge
        return response

    return process_request


def _authenticate(
    request: Request, check: Callable[[str, str], bool]
) -> tuple[Optional[str], Optional[str]]:
    """Return the text of a refusal, or the name of the user."""
    values = request.headers.get_all("Authorization")
    if not values:
        return "Missing credentials\n", None
    if len(values) > 1:
        return "Unsupported credentials\n", None
    try:
        username, password = parse_authorization_basic(values[0])
    except InvalidHeader:
        return "Unsupported credentials\n", None
    if not check(username, password):
        return "Invalid credentials\n", None
    return None, username


def _build_check(credentials: Any) -> Callable[[str, str], bool]:
    pairs = [credentials] if _is_pair(credentials) else credentials
    if not isinstance(pairs, Iterable):
        raise TypeError(f"invalid credentials argument: {type(pairs).__name__}")
    digests = [_digest(*_require_pair(pair)) for pair in pairs]

    def check(username: str, password: str) -> bool:
        given = _digest(username, password)
        # All are compared, whichever is right, and digests have the same length: the time
        # taken tells neither whether a user exists nor how much of a password is right.
        matches = [hmac.compare_digest(given, digest) for digest in digests]
        return any(matches)

    return check


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and all(isinstance(part, str) for part in value)
    )


def _require_pair(value: Any) -> Credentials:
    if not _is_pair(value):
        raise TypeError("credentials must be (username, password) pairs")
    username, password = value
    if ":" in username:
        # RFC 7617 §2: what follows it would be taken for the password.
        raise ValueError(f"username must not contain a colon: {username!r}")
    return username, password


def _digest(username: str, password: str) -> bytes:
    return hashlib.sha256(f"{username}:{password}".encode(errors="surrogateescape")).digest()
