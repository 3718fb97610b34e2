"""What properties are tried with: payloads, ways to cut input, tokens and texts of headers."""

from __future__ import annotations

import random

from hypothesis import strategies as st

# Where the encoding of a length or the way of masking changes.
BOUNDARIES = [125, 126, 127, 255, 256, 257, 4095, 4096, 4097, 65535, 65536, 65537]

# However small the pieces: more of them than this make nothing clearer, only slower.
MOST_PIECES = 400

TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

cuts = st.lists(st.integers(1, 4) | st.integers(1, 300), max_size=3)
"""Sizes of pieces, for :func:`cut`; none of them leaves the input whole."""

masking_keys = st.binary(min_size=4, max_size=4)

# By number: Hypothesis takes seconds to find out which characters there are in an encoding.
characters = st.one_of(
    st.integers(0, 0x7F), st.integers(0x80, 0xD7FF), st.integers(0xE000, 0x10FFFF)
).map(chr)

tokens = st.text(TOKEN_CHARACTERS, min_size=1, max_size=12)
"""RFC 9110 §5.6.2."""

field_contents = st.text(st.sampled_from('\t !",;=\\az09\x7e\x80\x85\xa0\xff'), max_size=20).map(
    lambda text: text.strip(" \t")
)
"""RFC 9110 §5.5: what a header may have for its value; bytes over 0x7F are opaque."""


def texts(max_size):
    """Text of any characters."""
    return st.text(characters, max_size=max_size)


def cut(data, sizes):
    """Cut input into pieces of these sizes, again and again in their order."""
    if not sizes:
        return [data]
    pieces = []
    start = 0
    while start < len(data):
        size = max(sizes[len(pieces) % len(sizes)], len(data) // MOST_PIECES)
        pieces.append(data[start : start + size])
        start += size
    return pieces


def noise(size, seed):
    """Bytes that do not compress."""
    return random.Random(seed).getrandbits(8 * size).to_bytes(size, "little") if size else b""


def stretch(pattern, size):
    """Repeat a pattern up to a size."""
    return (pattern * (size // len(pattern) + 1))[:size]


payloads = st.one_of(
    st.binary(max_size=40),
    st.builds(stretch, st.binary(min_size=1, max_size=5), st.sampled_from(BOUNDARIES)),
    st.builds(noise, st.sampled_from(BOUNDARIES), st.integers(0, 3)),
)


@st.composite
def mutations(draw, originals):
    """What is nearly right: input with a few bytes replaced, added or taken away."""
    data = bytearray(draw(originals))
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(data)))
        stop = min(len(data), start + draw(st.integers(0, 3)))
        data[start:stop] = draw(st.binary(max_size=3))
    return bytes(data)
