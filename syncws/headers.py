"""HTTP header fields: the collection, and the grammar of those that WebSocket uses (RFC 9110)."""

from __future__ import annotations

import base64
import binascii
import codecs
import collections
import ipaddress
import operator
import re
from collections.abc import Iterable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Callable, Optional, TypeVar, Union

from .exceptions import InvalidHeaderFormat, InvalidHeaderValue

__all__ = [
    "ExtensionHeader",
    "ExtensionParameter",
    "Headers",
    "HeadersLike",
    "MultipleValuesError",
    "build_authorization_basic",
    "build_extension",
    "build_host",
    "build_subprotocol",
    "build_www_authenticate_basic",
    "excerpt",
    "parse_authorization_basic",
    "parse_connection",
    "parse_extension",
    "parse_subprotocol",
    "parse_upgrade",
    "validate_subprotocols",
]

# Python imports a codec when it is first used: that must not fail when a peer's mistake
# is to be logged and the process has no descriptor left.
codecs.lookup("unicode_escape")

T = TypeVar("T")

ExtensionParameter = tuple[str, Optional[str]]
"""Name and value of an extension parameter; ``None`` where it has no value."""

ExtensionHeader = tuple[str, Sequence[ExtensionParameter]]
"""Name and parameters of an extension, as offered or agreed upon (RFC 6455 §9.1)."""

# RFC 9110 §5.6.2: token
_TOKEN_PATTERN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_TOKEN = re.compile(_TOKEN_PATTERN)
# RFC 9110 §7.8: protocol
_PROTOCOL = re.compile(f"{_TOKEN_PATTERN}(?:/{_TOKEN_PATTERN})?")
# RFC 9110 §5.6.4: quoted-string. The alternatives exclude each other, so that
# a match that fails has no other way to be tried.
_QUOTED_STRING = re.compile(
    r'"[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]*'
    r'(?:\\[\t\x20-\x7e\x80-\xff][\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]*)*"'
)
_QUOTED_PAIR = re.compile(r"\\(.)")
# RFC 9110 §5.5: field-value. Bytes over 0x7F are opaque; there is no CR, LF or NUL.
_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
# RFC 9110 §5.6.3: OWS; and what may stand between list elements (RFC 9110 §5.6.1.2).
_OWS = re.compile(r"[ \t]*")
_DELIMITERS = re.compile(r"[ \t,]*")
# RFC 7617 §2: the scheme and a token68.
_CREDENTIALS = re.compile(f"({_TOKEN_PATTERN})(?: +([-A-Za-z0-9._~+/]+=*))?")

_EXCERPT_LENGTH = 100

_Values = Union[str, list[str]]

_first, _second = operator.itemgetter(0), operator.itemgetter(1)


class MultipleValuesError(LookupError):
    """A header of which one value was asked for occurs more than once."""

    def __str__(self) -> str:
        return repr(self.args[0])


class Headers(MutableMapping[str, str]):
    """
    Header fields of a request or response, in their order.

    Names are case-insensitive, and a name may have several values:

    - ``headers[name]`` is the value if there is exactly one; otherwise it raises
      :exc:`KeyError` or :exc:`MultipleValuesError`, and so does ``headers.get(name)``
      for several values;
    - ``headers[name] = value`` *adds* a value: delete the header first to replace it;
    - ``del headers[name]`` removes all its values;
    - ``len()`` counts names and iteration yields them, in lower case;
    - :meth:`get_all` and :meth:`raw_items` give every value.

    Names must be tokens and values must not contain control characters, CR and LF above
    all: :exc:`ValueError` and :exc:`InvalidHeaderValue` are raised by the assignment, and
    so no value can add a header or end the head (RFC 9110 §5.1, §5.5).

    On the wire values are ISO-8859-1, which gives back the bytes of any other encoding:
    ``headers[name].encode("iso-8859-1").decode("utf-8")``.

    Args:
        args: another ``Headers``, a mapping, or ``(name, value)`` pairs.
        kwargs: headers whose names are Python identifiers.
    """

    __slots__ = ("_index", "_items")

    def __init__(self, *args: HeadersLike, **kwargs: str) -> None:
        self._items: list[tuple[str, str]] = []
        # Values by name, a list of them if there are several; made when one is looked up.
        self._index: Optional[dict[str, _Values]] = None
        if args or kwargs:
            self.update(*args, **kwargs)

    @classmethod
    def of_parsed(cls, items: list[tuple[str, str]]) -> Headers:
        """Make headers of pairs that were validated already; the list is taken over."""
        headers = cls()
        headers._items = items
        return headers

    def _make_index(self) -> dict[str, _Values]:
        names = [*map(str.lower, map(_first, self._items))]
        values = [*map(_second, self._items)]
        index: dict[str, _Values] = dict(zip(names, values))
        if len(index) < len(names):
            # Some occur several times, in their order.
            for name, amount in collections.Counter(names).items():
                if amount > 1:
                    index[name] = [value for n, value in zip(names, values) if n == name]
        self._index = index
        return index

    def compact(self) -> None:
        """Give back the memory that look-ups took."""
        self._index = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._items!r})"

    def __str__(self) -> str:
        lines = [*map(": ".join, self._items), "", ""]
        return "\r\n".join(lines)

    def serialize(self) -> bytes:
        """Return the header lines and the empty line that ends the head, as bytes."""
        return str(self).encode("iso-8859-1")

    def copy(self) -> Headers:
        """Return headers that can be changed without changing these."""
        copy = type(self)()
        copy._items = self._items.copy()
        return copy

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.lower() in (self._index or self._make_index())

    def __iter__(self) -> Iterator[str]:
        return iter(self._index or self._make_index())

    def __len__(self) -> int:
        return len(self._index or self._make_index())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Headers):
            return NotImplemented
        return self._make_index() == other._make_index()

    def __getitem__(self, name: str) -> str:
        value = (self._index or self._make_index())[name.lower()]
        if isinstance(value, list):
            raise MultipleValuesError(name)
        return value

    def __setitem__(self, name: str, value: str) -> None:
        if not isinstance(value, str):
            raise TypeError(f"value of {name} header must be a str, not {value!r}")
        if not _TOKEN.fullmatch(name):
            raise ValueError(f"invalid header name: {excerpt(name)}")
        if not _VALUE.fullmatch(value):
            raise InvalidHeaderValue(name, excerpt(value))
        self.add_parsed(name, value)

    def __delitem__(self, name: str) -> None:
        name = name.lower()
        if name not in self:
            raise KeyError(name)
        self._items = [item for item in self._items if item[0].lower() != name]
        self._index = None

    def clear(self) -> None:
        """Remove all headers."""
        self._items = []
        self._index = None

    def update(self, *args: HeadersLike, **kwargs: str) -> None:  # type: ignore[override] # MutableMapping has overloads for what HeadersLike says
        """Add headers; arguments as for the constructor."""
        for headers in args:
            # A copy of the pairs, for the case that these headers are added to themselves.
            pairs = list(headers.raw_items()) if isinstance(headers, Headers) else headers
            super().update(pairs)
        super().update(kwargs)

    def get_all(self, name: str) -> list[str]:
        """Return all values of a header, in their order; an empty list if it is missing."""
        value = self.find(name)
        if value is None:
            return []
        return value.copy() if isinstance(value, list) else [value]

    def find(self, name: str) -> Union[str, list[str], None]:
        """Return the value of a header, the list of its values, or ``None``; not to be changed."""
        return (self._index or self._make_index()).get(name.lower())

    def raw_items(self) -> Iterator[tuple[str, str]]:
        """Iterate over all ``(name, value)`` pairs, names as they were written."""
        return iter(self._items)

    def add_parsed(self, name: str, value: str) -> None:
        """Add a value without validation: for a parser that has validated it already."""
        self._items.append((name, value))
        self._index = None


HeadersLike = Union[Headers, Mapping[str, str], Iterable[tuple[str, str]]]
"""What :class:`Headers` can be made from."""


def excerpt(value: Union[str, bytes]) -> str:
    """
    Return what a peer sent in a form that is fit for messages and logs.

    Control and non-ASCII characters are escaped; about 100 characters are kept.
    """
    start = value[: _EXCERPT_LENGTH + 1]
    text = start.decode("iso-8859-1") if isinstance(start, bytes) else start
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= _EXCERPT_LENGTH else f"{text[:_EXCERPT_LENGTH]}..."


def build_host(host: str, port: int, secure: bool) -> str:
    """
    Return the value of a Host header (RFC 9110 §7.2, RFC 6455 §4.1).

    Args:
        host: a name, an IPv4 address, or an IPv6 address without brackets.
        port: left out if it is the default one.
        secure: whether the connection uses TLS, and so has 443 as its default port.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        pass  # It is a name.
    else:
        if address.version == 6:
            # RFC 6874 §1: a zone has a meaning on this host only.
            host = f"[{host.partition('%')[0]}]"
    return host if port == (443 if secure else 80) else f"{host}:{port}"


def _invalid(name: str, error: str, header: str, pos: int) -> InvalidHeaderFormat:
    return InvalidHeaderFormat(name, error, excerpt(header), pos)


def _skip(pattern: re.Pattern[str], header: str, pos: int) -> int:
    match = pattern.match(header, pos)
    return match.end() if match else pos


def _parse_list(
    parse_item: Callable[[str, int, str], tuple[T, int]], header: str, name: str
) -> list[T]:
    """Parse ``#item``; empty elements are skipped (RFC 9110 §5.6.1.2)."""
    items = []
    pos = _skip(_DELIMITERS, header, 0)
    while pos < len(header):
        item, pos = parse_item(header, pos, name)
        items.append(item)
        pos = _skip(_OWS, header, pos)
        if pos < len(header) and header[pos] != ",":
            raise _invalid(name, "expected comma", header, pos)
        pos = _skip(_DELIMITERS, header, pos)
    return items


def _parse_nonempty_list(
    parse_item: Callable[[str, int, str], tuple[T, int]], header: str, name: str
) -> list[T]:
    """Parse ``1#item``."""
    items = _parse_list(parse_item, header, name)
    if not items:
        raise _invalid(name, "expected token", header, len(header))
    return items


def _parse_token(header: str, pos: int, name: str) -> tuple[str, int]:
    match = _TOKEN.match(header, pos)
    if match is None:
        raise _invalid(name, "expected token", header, pos)
    return match.group(), match.end()


def _parse_quoted_token(header: str, pos: int, name: str) -> tuple[str, int]:
    match = _QUOTED_STRING.match(header, pos)
    if match is None:
        raise _invalid(name, "expected quoted string", header, pos)
    value = _QUOTED_PAIR.sub(r"\1", match.group()[1:-1])
    # RFC 6455 §9.1: the value after unescaping must be a token.
    if not _TOKEN.fullmatch(value):
        raise _invalid(name, "invalid quoted header content", header, pos)
    return value, match.end()


def _parse_protocol(header: str, pos: int, name: str) -> tuple[str, int]:
    match = _PROTOCOL.match(header, pos)
    if match is None:
        raise _invalid(name, "expected protocol", header, pos)
    return match.group(), match.end()


def _parse_parameter(header: str, pos: int, name: str) -> tuple[ExtensionParameter, int]:
    parameter, pos = _parse_token(header, pos, name)
    pos = _skip(_OWS, header, pos)
    if not header.startswith("=", pos):
        return (parameter, None), pos
    pos = _skip(_OWS, header, pos + 1)
    parse_value = _parse_quoted_token if header.startswith('"', pos) else _parse_token
    value, pos = parse_value(header, pos, name)
    return (parameter, value), _skip(_OWS, header, pos)


def _parse_extension_item(header: str, pos: int, name: str) -> tuple[ExtensionHeader, int]:
    extension, pos = _parse_token(header, pos, name)
    pos = _skip(_OWS, header, pos)
    parameters = []
    while header.startswith(";", pos):
        pos = _skip(_OWS, header, pos + 1)
        parameter, pos = _parse_parameter(header, pos, name)
        parameters.append(parameter)
    return (extension, parameters), pos


def parse_connection(header: str) -> list[str]:
    """
    Parse a Connection header into its options (RFC 9110 §7.6.1).

    Raises:
        InvalidHeaderFormat: it is malformed.
    """
    return _parse_list(_parse_token, header, "Connection")


def parse_upgrade(header: str) -> list[str]:
    """
    Parse an Upgrade header into protocols, ``name`` or ``name/version`` (RFC 9110 §7.8).

    Raises:
        InvalidHeaderFormat: it is malformed.
    """
    return _parse_list(_parse_protocol, header, "Upgrade")


def parse_extension(header: str) -> list[ExtensionHeader]:
    """
    Parse a Sec-WebSocket-Extensions header (RFC 6455 §9.1).

    Returns:
        ``(name, [(parameter, value), ...])`` pairs; a value is ``None`` if there is none,
        and comes without quotes if it had some.

    Raises:
        InvalidHeaderFormat: it is malformed, or has no extension in it.
    """
    return _parse_nonempty_list(_parse_extension_item, header, "Sec-WebSocket-Extensions")


def parse_subprotocol(header: str) -> list[str]:
    """
    Parse a Sec-WebSocket-Protocol header into subprotocols (RFC 6455 §11.3.4).

    Raises:
        InvalidHeaderFormat: it is malformed, or has no subprotocol in it.
    """
    return _parse_nonempty_list(_parse_token, header, "Sec-WebSocket-Protocol")


def build_extension(extensions: Sequence[ExtensionHeader]) -> str:
    """
    Return the value of a Sec-WebSocket-Extensions header (RFC 6455 §9.1).

    Raises:
        ValueError: a name or a value is not a token.
    """
    return ", ".join(
        "; ".join([_require_token(name), *map(_build_parameter, parameters)])
        for name, parameters in extensions
    )


def _build_parameter(parameter: ExtensionParameter) -> str:
    name, value = parameter
    _require_token(name)
    return name if value is None else f"{name}={_require_token(value)}"


def _require_token(text: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise ValueError(f"extension names and parameters must be tokens: {text!r}")
    return text


def build_subprotocol(subprotocols: Sequence[str]) -> str:
    """Return the value of a Sec-WebSocket-Protocol header (RFC 6455 §11.3.4)."""
    return ", ".join(subprotocols)


def validate_subprotocols(subprotocols: Sequence[str]) -> None:
    """
    Check a list of subprotocols given by the user (RFC 6455 §4.1).

    Raises:
        TypeError: it is not a sequence, or a single string.
        ValueError: a subprotocol is not a token, or occurs twice.
    """
    # A parameter of type Any: mypy would take what follows for unreachable.
    given: Any = subprotocols
    if isinstance(given, str):
        raise TypeError(f"subprotocols must be a list, not a str; write [{given!r}]")
    if not isinstance(given, Sequence):
        raise TypeError("subprotocols must be a list")
    for subprotocol in given:
        if not _TOKEN.fullmatch(subprotocol):
            raise ValueError(f"invalid subprotocol: {subprotocol}")
    if len(set(given)) < len(given):
        raise ValueError(f"duplicate subprotocol: {', '.join(given)}")


def build_www_authenticate_basic(realm: str) -> str:
    """
    Return a WWW-Authenticate header for HTTP Basic authentication (RFC 7617 §2).

    Raises:
        ValueError: ``realm`` has characters that a quoted string cannot carry.
    """
    if not _VALUE.fullmatch(realm):
        raise ValueError(f"invalid characters in realm: {realm!r}")
    quoted = realm.replace("\\", "\\\\").replace('"', '\\"')
    return f'Basic realm="{quoted}", charset="UTF-8"'


def parse_authorization_basic(header: str) -> tuple[str, str]:
    """
    Parse an Authorization header for HTTP Basic authentication (RFC 7617 §2).

    Returns:
        User name and password; bytes that are not UTF-8 become lone surrogates.

    Raises:
        InvalidHeaderValue: it is malformed, or of another scheme. The message does not
            repeat the credentials.
    """
    match = _CREDENTIALS.fullmatch(header)
    if match is None:
        raise InvalidHeaderValue("Authorization", "expected scheme and credentials")
    scheme, credentials = match.groups()
    if scheme.lower() != "basic":
        raise InvalidHeaderValue("Authorization", f"unsupported scheme: {excerpt(scheme)}")
    try:
        raw = base64.b64decode(credentials or "", validate=True)
    except binascii.Error:
        raise InvalidHeaderValue("Authorization", "expected base64-encoded credentials") from None
    username, colon, password = raw.decode(errors="surrogateescape").partition(":")
    if not colon:
        raise InvalidHeaderValue("Authorization", "expected username:password credentials")
    return username, password


def build_authorization_basic(username: str, password: str) -> str:
    """
    Return an Authorization header for HTTP Basic authentication (RFC 7617 §2).

    Raises:
        ValueError: ``username`` contains a colon.
    """
    if ":" in username:
        raise ValueError("username must not contain a colon")
    credentials = f"{username}:{password}".encode(errors="surrogateescape")
    return f"Basic {base64.b64encode(credentials).decode('ascii')}"
