"""Masking of frame payloads (RFC 6455 §5.3)."""

from __future__ import annotations

from typing import Optional

__all__ = ["apply_mask"]

# Up to here one XOR of two big integers is the faster way. Beyond, converting to and from
# integers costs more per byte than four passes of translate(). They cross over between 2 and
# 16 KiB, depending on the version of Python.
XOR_LIMIT = 4096

_tables: list[Optional[bytes]] = [None] * 256


def _table(mask: int) -> bytes:
    """Translation table that XORs each byte with ``mask``; made once per value."""
    table = _tables[mask]
    if table is None:
        table = bytes(byte ^ mask for byte in range(256))
        _tables[mask] = table
    return table


def apply_mask(data: bytes, key: bytes) -> bytes:
    """
    Mask or unmask ``data``; the two are the same operation.

    Args:
        data: payload, any size.
        key: masking key, 4 bytes; the first applies to the first byte of ``data``.
    """
    size = len(data)
    if size <= XOR_LIMIT:
        mask = key * ((size + 3) >> 2)
        number = int.from_bytes(data, "little") ^ int.from_bytes(mask[:size], "little")
        return number.to_bytes(size, "little")
    masked = bytearray(size)
    for index in range(4):
        masked[index::4] = data[index::4].translate(_table(key[index]))
    return bytes(masked)
