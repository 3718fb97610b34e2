"""Masking of frame payloads (RFC 6455 §5.3)."""

from __future__ import annotations

from typing import Optional, Union

__all__ = ["apply_mask"]

# Up to here one XOR of two big integers is the faster way. Beyond, converting to and from
# integers costs more per byte than four passes of translate(). They cross over between 1 and
# 3 KiB, depending on the version of Python.
XOR_LIMIT = 1024  # bytes

_tables: list[Optional[bytes]] = [None] * 256


def _table(mask: int) -> bytes:
    """Translation table that XORs each byte with ``mask``; made once per value."""
    table = _tables[mask]
    if table is None:
        table = bytes(byte ^ mask for byte in range(256))
        _tables[mask] = table
    return table


def _as_bytes(data: Union[bytes, bytearray, memoryview]) -> bytes:
    view = memoryview(data)
    if not view.c_contiguous:
        raise BufferError("the payload must be contiguous")
    return view.tobytes()


def apply_mask(data: Union[bytes, bytearray, memoryview], key: bytes) -> bytes:
    """
    Mask or unmask ``data``; the two are the same operation.

    Args:
        data: payload, any size. What another thread changes in it meanwhile may or may
            not be in the result.
        key: masking key, 4 bytes; the first applies to the first byte of ``data``.

    Raises:
        ValueError: the key has another size.
    """
    if len(key) != 4:
        raise ValueError("the masking key must have 4 bytes")
    if type(data) is not bytes:
        data = _as_bytes(data)
    size = len(data)
    if size <= XOR_LIMIT:
        mask = key * ((size + 3) >> 2)
        number = int.from_bytes(data, "little") ^ int.from_bytes(mask[:size], "little")
        return number.to_bytes(size, "little")
    # Every fourth byte of a bytearray is read faster than that of bytes, since Python 3.11.
    masked = bytearray(data)
    for index in range(4):
        masked[index::4] = masked[index::4].translate(_table(key[index]))
    return bytes(masked)
