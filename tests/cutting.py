"""Ways to cut input into pieces: what a parser makes of it must not depend on them."""

from __future__ import annotations


def cuttings(data):
    """Whole, byte by byte, and in two at every place."""
    yield [data]
    yield byte_by_byte(data)
    for place in range(1, len(data)):
        yield [data[:place], data[place:]]


def byte_by_byte(data):
    return [data[place : place + 1] for place in range(len(data))]
