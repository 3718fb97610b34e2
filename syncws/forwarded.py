"""
What trusted proxies say about the client they stand for: ``Forwarded`` and ``X-Forwarded-*``.

The addresses in these headers are a chain: each proxy appends the one that connected to it.
What a client wrote itself comes first, so the chain is read from its end, and no further than
to the first address that is not a trusted proxy's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from .exceptions import InvalidHeader, InvalidHeaderFormat, InvalidHeaderValue
from .headers import Headers, excerpt

__all__ = ["Client", "TrustedProxies", "find_client", "parse_forwarded", "parse_node"]

FORWARDED, FOR = "Forwarded", "X-Forwarded-For"
PROTO, HOST = "X-Forwarded-Proto", "X-Forwarded-Host"

UNIX = "unix"

# Host of a client whose proxy can't tell (RFC 7239 §6.2); others hide it (RFC 7239 §6.3).
UNKNOWN = "unknown"

# RFC 7239 §4: token "=" ( token / quoted-string ), with RFC 9110 §5.6.2 and §5.6.4. The
# alternatives exclude each other, so that a match that fails has no other way to be tried.
_TOKEN = r"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_QUOTED = (
    r'"[\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]*'
    r'(?:\\[\t\x20-\x7e\x80-\xff][\t\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]*)*"'
)
_PAIR = re.compile(f"({_TOKEN})=({_TOKEN}|{_QUOTED})")
_QUOTED_PAIR = re.compile(r"\\(.)")
_COMMA = re.compile(r"[ \t]*(?:,[ \t]*)+")
# RFC 7239 §6: node, whose name and port may be obfuscated
_OBFUSCATED = r"_[-0-9A-Za-z._]+"
_NODE = re.compile(
    r"(?:(?P<four>[0-9.]+)|\[(?P<six>[0-9A-Fa-f.]*:[0-9A-Fa-f:.]*)\]"
    rf"|(?P<hidden>[Uu][Nn][Kk][Nn][Oo][Ww][Nn]|{_OBFUSCATED}))"
    rf"(?::(?:(?P<port>[0-9]{{1,5}})|{_OBFUSCATED}))?"
)
_SCHEMES = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}
# RFC 9110 §7.2 with RFC 3986 §3.2.2: uri-host [ ":" port ]
_HOST_VALUE = re.compile(r"(?:\[[0-9A-Za-z:.%]+\]|[-A-Za-z0-9._~!$&'()*+;=%]+)(?::[0-9]*)?")

IPAddress = Union[ipaddress.IPv4Address, ipaddress.IPv6Address]


class Client(NamedTuple):
    """
    What is known of a client.

    Attributes:
        address: as :meth:`socket.socket.getpeername` gives it. The port is 0 if it isn't known;
            the host is ``"unknown"``, or a name that starts with ``_``, if a proxy hides it.
        host: host and perhaps port that it connected to; ``None`` if no proxy says so.
        scheme: ``"ws"`` or ``"wss"``, as it connected; ``None`` if no proxy says so.
    """

    address: Any
    host: Optional[str] = None
    scheme: Optional[str] = None


class TrustedProxies:
    """
    The proxies that are believed.

    Args:
        proxies: IP addresses, networks such as ``"10.0.0.0/8"``, and ``"unix"`` for all who may
            connect to a Unix socket.

    Raises:
        TypeError: it is not a list of strings.
        ValueError: one of them is neither.
    """

    def __init__(self, proxies: Optional[Sequence[str]] = None) -> None:
        given: Any = () if proxies is None else proxies
        if isinstance(given, (str, bytes)) or not all(isinstance(one, str) for one in given):
            raise TypeError(f"trusted_proxies must be a list of strings, not {given!r}")
        self._unix = UNIX in given
        self._networks = tuple(_parse_network(one) for one in given if one != UNIX)

    def __bool__(self) -> bool:
        return self._unix or bool(self._networks)

    def trusts(self, address: Any) -> bool:
        """Tell whether an address, as sockets have them, is that of a trusted proxy."""
        if not isinstance(address, tuple):
            return self._unix
        if not self._networks:
            return False
        ip = _parse_ip(str(address[0]).partition("%")[0])
        return ip is not None and any(ip in network for network in self._networks)


def _parse_network(text: str) -> Any:
    try:
        return ipaddress.ip_network(text)
    except ValueError as exc:
        raise ValueError(
            f"trusted_proxies has {text!r}, which is no IP address, network or 'unix': {exc}"
        ) from None


def _parse_ip(text: str) -> Optional[IPAddress]:
    try:
        ip = ipaddress.ip_address(text)
    except ValueError:
        return None
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        return ip.ipv4_mapped  # what a socket for both families has for an IPv4 peer
    return ip


# Parsing


def parse_forwarded(header: str) -> list[dict[str, str]]:
    """
    Parse a Forwarded header into the parameters of its elements, one for each proxy (RFC 7239 §4).

    Names come in lower case, values without quotes.

    Raises:
        InvalidHeaderFormat: it is malformed, or a parameter occurs twice in an element.
    """
    elements: list[dict[str, str]] = [{}]
    match = _COMMA.match(header)  # empty elements (RFC 9110 §5.6.1.2)
    pos = match.end() if match else 0
    while pos < len(header):
        match = _PAIR.match(header, pos)
        if match is not None:
            _add_parameter(elements[-1], match, header)
            pos = match.end()
        if header.startswith(";", pos):
            pos += 1
            continue
        match = _COMMA.match(header, pos)
        if match is not None:
            elements.append({})
            pos = match.end()
        elif pos < len(header):
            raise InvalidHeaderFormat(FORWARDED, "expected parameter", excerpt(header), pos)
    return [element for element in elements if element]


def _add_parameter(element: dict[str, str], pair: re.Match[str], header: str) -> None:
    name, value = pair[1].lower(), pair[2]
    if name in element:
        raise InvalidHeaderFormat(FORWARDED, "duplicate parameter", excerpt(header), pair.start())
    quoted = value.startswith('"')
    element[name] = _QUOTED_PAIR.sub(r"\1", value[1:-1]) if quoted else value


def parse_node(node: str, header: str = FORWARDED) -> tuple[Any, ...]:
    """
    Parse a node of Forwarded or X-Forwarded-For into an address as sockets have it (RFC 7239 §6).

    In X-Forwarded-For, which has no specification, an IPv6 address needs no brackets.

    Raises:
        InvalidHeaderValue: it is none.
    """
    match = _NODE.fullmatch(f"[{node}]" if header == FOR and node.count(":") > 1 else node)
    if match is None and header == FOR:
        match = _NODE.fullmatch(node)
    if match is None or int(match["port"] or 0) > 65535:
        raise InvalidHeaderValue(header, excerpt(node))
    port = int(match["port"] or 0)
    if match["hidden"]:
        return (match["hidden"] if match["hidden"].startswith("_") else UNKNOWN, port)
    ip = _parse_ip(match["four"] or match["six"])
    if ip is None:
        raise InvalidHeaderValue(header, excerpt(node))
    return (str(ip), port) if ip.version == 4 else (str(ip), port, 0, 0)


def _split(headers: Headers, name: str) -> list[str]:
    """The elements of a header that is a list of words, from all its lines."""
    elements = ",".join(headers.get_all(name)).split(",")
    return [element.strip(" \t") for element in elements if element.strip(" \t")]


# Finding the client


def find_client(headers: Headers, peer: Any, trusted: TrustedProxies) -> Client:
    """
    Find out for whom a request was made.

    Headers are ignored unless ``peer`` is trusted. With both kinds of headers, what both say
    must agree: a proxy that writes one kind and passes on the other would let
    clients write that themselves.

    Args:
        headers: of the request.
        peer: address of who made it.
        trusted: proxies that are believed.

    Raises:
        InvalidHeader: what a trusted proxy sent is malformed, or contradicts itself.
    """
    if not trusted.trusts(peer):
        return Client(peer)
    one, other = _read_forwarded(headers, peer, trusted), _read_common(headers, peer, trusted)
    return Client(
        _agreed_address(peer, one.address, other.address),
        _agreed("host", one.host, other.host),
        _agreed("proto", one.scheme, other.scheme),
    )


def _read_forwarded(headers: Headers, peer: Any, trusted: TrustedProxies) -> Client:
    elements = parse_forwarded(", ".join(headers.get_all(FORWARDED)))
    nodes = [element.get("for") for element in elements]
    address, hops = _walk(nodes, peer, trusted, FORWARDED)
    believed = elements[len(elements) - hops :]
    # The first of them was nearest to the client.
    host = next((element["host"] for element in believed if "host" in element), None)
    proto = next((element["proto"] for element in believed if "proto" in element), None)
    return Client(address, _check_host(FORWARDED, host), _check_scheme(FORWARDED, proto))


def _read_common(headers: Headers, peer: Any, trusted: TrustedProxies) -> Client:
    address, hops = _walk(_split(headers, FOR), peer, trusted, FOR)

    def believed(name: str) -> Optional[str]:
        # Some proxies append to these, as to the addresses, and some replace them.
        values = _split(headers, name)
        return values[-min(max(hops, 1), len(values))] if values else None

    return Client(address, _check_host(HOST, believed(HOST)), _check_scheme(PROTO, believed(PROTO)))


def _walk(
    nodes: Sequence[Optional[str]], peer: Any, trusted: TrustedProxies, header: str
) -> tuple[Any, int]:
    """Go from proxy to proxy; return the last address, or ``None``, and how many were believed."""
    address, hops = None, 0
    for node in reversed(nodes):
        if not trusted.trusts(peer if address is None else address):
            break
        hops += 1
        if node is None:
            break
        address = parse_node(node, header)
    return address, hops


def _check_host(header: str, value: Optional[str]) -> Optional[str]:
    if value is not None and not _HOST_VALUE.fullmatch(value):
        raise InvalidHeaderValue(header, excerpt(value))
    return value


def _check_scheme(header: str, value: Optional[str]) -> Optional[str]:
    if value is None:
        return None
    if value.lower() not in _SCHEMES:
        raise InvalidHeaderValue(header, excerpt(value))
    return _SCHEMES[value.lower()]


def _agreed(name: str, one: Optional[str], other: Optional[str]) -> Optional[str]:
    if one is not None and other is not None and one.lower() != other.lower():
        raise _disagreement(f"{name} {one}", f"{name} {other}")
    return one or other


def _agreed_address(peer: Any, one: Any, other: Any) -> Any:
    if one is not None and other is not None and one[0] != other[0]:
        raise _disagreement(f"for {one[0]}", f"for {other[0]}")
    known = [address for address in (one, other) if address is not None]
    # One of them may lack the port.
    return max(known, key=lambda address: address[1] != 0) if known else peer


def _disagreement(one: str, other: str) -> InvalidHeader:
    return InvalidHeader(FORWARDED, f"it says {one}, X-Forwarded-* says {other}")
