"""How the bytes of a fuzzer are read as choices, numbers and text."""

from __future__ import annotations

__all__ = ["Source", "cut"]


class Source:
    """
    Reads a fuzzed input from its start. At its end there are zeros, and no more bytes.

    A fuzzer changes, inserts and removes bytes: each byte has its own meaning, so that a small
    change of the input is a small change of the case.
    """

    def __init__(self, data):
        self._data = data
        self._pos = 0

    def __bool__(self):
        return self._pos < len(self._data)

    def byte(self):
        value = self._data[self._pos] if self else 0
        self._pos += 1
        return value

    def choice(self, options):
        return options[self.byte() % len(options)]

    def take(self, size):
        data = self._data[self._pos : self._pos + size]
        self._pos += size
        return data

    def rest(self):
        return self.take(len(self._data))


def cut(data, sizes):
    """Cut ``data`` into pieces of these sizes, over and over; of one byte if there are none."""
    sizes = [size for size in sizes if size] or [1]
    pieces = []
    pos = 0
    while pos < len(data):
        size = sizes[len(pieces) % len(sizes)]
        pieces.append(data[pos : pos + size])
        pos += size
    return pieces
