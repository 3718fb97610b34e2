"""
The PROXY protocol, versions 1 and 2, as HAProxy specifies it: who a proxy's connection is for.

A proxy that passes bytes on, as one for TCP or TLS does, sends a header before anything else of
the connection, TLS included, that says from where its client came. "PROXY §2.1" and the like
refer to the document ``proxy-protocol.txt`` of HAProxy.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
import struct
from collections.abc import Iterator
from typing import Any

from .headers import excerpt

__all__ = ["ProxyHeaderParser"]

# PROXY §2.1: a line of version 1, CRLF included.
MAX_LINE = 107

# What comes after the fixed part of version 2: addresses, and what a proxy adds about TLS. Its
# length field allows 64 KiB; HAProxy itself takes what fits its buffer, which is this.
MAX_BODY = 16384

_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
_FIXED_PART = 16

_LINE_START = b"PROXY "
_LINE = re.compile(
    rb"PROXY (TCP4|TCP6) ([0-9A-Fa-f.:]+) ([0-9A-Fa-f.:]+) (0|[1-9][0-9]*) (0|[1-9][0-9]*)\r\n"
)
_UNKNOWN_LINE = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")

_VERSION, _LOCAL, _PROXY = 0x20, 0x0, 0x1
# PROXY §2.2: address family and transport; the size of the addresses, and their format.
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
_FORMATS = {_TCP4: "!4s4sHH", _TCP6: "!16s16sHH", _UNIX: "!108s108s"}
# Datagrams can't be what this connection is for: their addresses are passed over.
_DATAGRAMS = (0x12, 0x22, 0x32)

_CRC32C = 0x03  # PROXY §2.2.3: type of the checksum's vector


class ProxyHeaderParser:
    """
    Parser of one header of the PROXY protocol, of either version.

    It never asks for a byte beyond the header, so that what follows is left to others. Feed it
    what was read, at most ``wanted`` bytes at a time.

    Attributes:
        source: once it is complete, address of the client, as ``getpeername()`` gives them:
            for TCP a tuple, for a Unix socket a path; ``None`` if the proxy connected on its own
            account, as for a health check, or does not tell.
        complete: whether the header was read to its end.
    """

    def __init__(self) -> None:
        self._data = b""
        self.source: Any = None
        self.complete = False

    @property
    def wanted(self) -> int:
        """Bytes to read next at most."""
        data = self._data
        if data.startswith(_SIGNATURE):
            return _FIXED_PART - len(data) if len(data) < _FIXED_PART else self._rest()
        if len(data) < len(_SIGNATURE):
            return len(_SIGNATURE) - len(data)
        return 1 if data.endswith(b"\r") else 2  # of a line, whose end is not known

    def feed(self, data: bytes) -> bool:
        """
        Take what was read; return whether the header is complete.

        Raises:
            ValueError: it is no such header, or a malformed one; the message says why.
        """
        self._data += data
        if _starts_as(self._data, _SIGNATURE):
            if len(self._data) >= _FIXED_PART and not self._rest():
                self.source = _parse_binary(self._data)
                self.complete = True
        elif _starts_as(self._data, _LINE_START):
            self._feed_line()
        else:
            raise ValueError(f"expected a PROXY header, not {excerpt(self._data)}")
        return self.complete

    def _rest(self) -> int:
        (length,) = struct.unpack_from("!H", self._data, _FIXED_PART - 2)
        if length > MAX_BODY:
            raise ValueError(f"PROXY header with {length} bytes; at most {MAX_BODY} are read")
        return _FIXED_PART + int(length) - len(self._data)

    def _feed_line(self) -> None:
        ended = self._data.endswith(b"\r\n")
        if len(self._data) + (not ended) > MAX_LINE or (not ended and b"\n" in self._data):
            raise ValueError(f"PROXY line without CRLF in {MAX_LINE} bytes: {excerpt(self._data)}")
        if ended:
            self.source = _parse_line(self._data)
            self.complete = True


def _starts_as(data: bytes, start: bytes) -> bool:
    return data[: len(start)] == start[: len(data)]


# Version 1


def _parse_line(line: bytes) -> Any:
    """Return the source in a line (PROXY §2.1)."""
    if _UNKNOWN_LINE.fullmatch(line):
        return None
    match = _LINE.fullmatch(line)
    if match is None:
        raise ValueError(f"invalid PROXY line: {excerpt(line)}")
    protocol, *fields = (field.decode("ascii") for field in match.groups())
    try:
        source, destination = map(ipaddress.ip_address, fields[:2])
    except ValueError:
        raise ValueError(f"invalid address in PROXY line: {excerpt(line)}") from None
    if (source.version, destination.version) != (int(protocol[-1]),) * 2:
        raise ValueError(f"address of another family in PROXY line: {excerpt(line)}")
    if max(map(int, fields[2:])) > 65535:
        raise ValueError(f"invalid port in PROXY line: {excerpt(line)}")
    return _tcp_address(str(source), int(fields[2]))


def _tcp_address(host: str, port: int) -> tuple[Any, ...]:
    return (host, port, 0, 0) if ":" in host else (host, port)


# Version 2


def _parse_binary(data: bytes) -> Any:
    """Return the source in a binary header (PROXY §2.2)."""
    version_and_command, family = data[12:14]
    body = data[_FIXED_PART:]
    if version_and_command & 0xF0 != _VERSION or version_and_command & 0x0F > _PROXY:
        raise ValueError(f"unknown version or command in PROXY header: {version_and_command:#04x}")
    if version_and_command & 0x0F == _LOCAL:
        return None  # whatever its addresses may be
    if family != _UNSPECIFIED and family not in _DATAGRAMS and family not in _FORMATS:
        raise ValueError(f"unknown address family in PROXY header: {family:#04x}")
    layout = _FORMATS.get(family & 0xF0 | 0x01)
    size = struct.calcsize(layout) if layout else 0
    if len(body) < size:
        raise ValueError(f"addresses of {len(body)} bytes in PROXY header, not {size}")
    if family != _UNSPECIFIED:
        _check_vectors(data, _FIXED_PART + size)
    if family not in _FORMATS or layout is None:
        return None
    source, _, *ports = struct.unpack_from(layout, body)
    if family == _UNIX:
        return _unix_address(source)
    return _tcp_address(str(ipaddress.ip_address(source)), ports[0])


def _unix_address(path: bytes) -> str:
    # Somebody may have bound a socket to a path that is meant for the log.
    text = os.fsdecode(path.rstrip(b"\0"))
    return text.encode("unicode_escape").decode("ascii")


def _check_vectors(data: bytes, start: int) -> None:
    """Pass over the type-length-value vectors; check the checksum if there is one."""
    for kind, offset, length in _vectors(data, start):
        if kind == _CRC32C:
            end = offset + length
            blank = data[:offset] + bytes(length) + data[end:]
            if length != 4 or struct.unpack_from("!I", data, offset) != (_crc32c(blank),):
                raise ValueError("wrong checksum in PROXY header")


def _vectors(data: bytes, pos: int) -> Iterator[tuple[int, int, int]]:
    """Type, offset of the value and its length (PROXY §2.2.1)."""
    while pos < len(data):
        if pos + 3 > len(data):
            raise ValueError("incomplete vector in PROXY header")
        kind, length = struct.unpack_from("!BH", data, pos)
        pos += 3 + length
        if pos > len(data):
            raise ValueError("vector over the end of PROXY header")
        yield kind, pos - length, length


@functools.cache
def _crc32c_table() -> tuple[int, ...]:
    def entry(value: int) -> int:
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
        return value

    return tuple(map(entry, range(256)))


def _crc32c(data: bytes) -> int:
    """CRC32c, the checksum of RFC 4960 appendix B."""
    table = _crc32c_table()
    value = 0xFFFFFFFF
    for byte in data:
        value = value >> 8 ^ table[(value ^ byte) & 0xFF]
    return value ^ 0xFFFFFFFF
