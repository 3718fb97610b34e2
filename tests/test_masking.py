"""Masking against a reference that does it byte by byte (RFC 6455 §5.3)."""

from __future__ import annotations

import array
import random
import tracemalloc

import pytest

from syncws import speedups
from syncws.masking import XOR_LIMIT, _table, apply_mask

KEY = b"\x37\xfa\x21\x3d"

SIZES = [*range(71), 125, 126, 255, 1021, *range(XOR_LIMIT - 4, XOR_LIMIT + 6), 3 * XOR_LIMIT + 1]


def reference(data, key):
    """Octet i of the result is octet i of the data XOR octet i modulo 4 of the key."""
    return bytes(octet ^ key[index % 4] for index, octet in enumerate(data))


@pytest.mark.parametrize("size", SIZES)
def test_masking_equals_the_reference(size):
    data = random.Random(size).randbytes(size)
    assert apply_mask(data, KEY) == reference(data, KEY)


@pytest.mark.parametrize("size", SIZES)
def test_masking_twice_changes_nothing(size):
    data = random.Random(size).randbytes(size)
    assert apply_mask(apply_mask(data, KEY), KEY) == data


def test_example_of_the_rfc():
    assert apply_mask(b"Hello", KEY) == bytes.fromhex("7f 9f 4d 51 58")


@pytest.mark.parametrize("size", [5, XOR_LIMIT + 5])
def test_every_octet_of_the_key_counts(size):
    for octet in range(256):
        key = bytes((octet, 255 - octet, octet ^ 0x55, octet ^ 0xAA))
        assert apply_mask(bytes(size), key) == (key * (size // 4 + 1))[:size]


@pytest.mark.parametrize("phase", [1, 2, 3])
@pytest.mark.parametrize("size", [3, 70, XOR_LIMIT, 2 * XOR_LIMIT + 3])
def test_pieces_are_masked_with_a_rotated_key(size, phase):
    data = random.Random(size).randbytes(size)
    first, second = data[:phase], data[phase:]
    rotated = KEY[phase:] + KEY[:phase]
    assert apply_mask(first, KEY) + apply_mask(second, rotated) == apply_mask(data, KEY)


@pytest.mark.parametrize("size", [0, 10, XOR_LIMIT + 1])
def test_result_is_immutable(size):
    assert type(apply_mask(bytes(size), KEY)) is bytes


@pytest.mark.parametrize("size", [64, XOR_LIMIT, XOR_LIMIT + 1])
def test_leading_and_trailing_zeros_are_kept(size):
    masked = (KEY * (size // 4 + 1))[:size]
    assert apply_mask(masked, KEY) == bytes(size)


def test_translation_tables_are_made_once():
    assert _table(0x37) is _table(0x37)


def test_masking_a_short_payload_takes_a_few_times_its_size():
    data = bytes(XOR_LIMIT)
    tracemalloc.start()
    try:
        apply_mask(data, KEY)
        assert tracemalloc.get_traced_memory()[1] < 8 * XOR_LIMIT
    finally:
        tracemalloc.stop()


@pytest.fixture(params=["python", "chosen"])
def either(request):
    """The function of this module, and the one that is in use, which may be in C."""
    return apply_mask if request.param == "python" else speedups.apply_mask


@pytest.mark.parametrize("size", [0, 1, 70, XOR_LIMIT + 7])
@pytest.mark.parametrize(
    "kind", [bytearray, memoryview, lambda data: memoryview(b"abc" + data + b"d")[3:-1]]
)
def test_payload_may_be_any_buffer(either, size, kind):
    data = random.Random(size).randbytes(size)
    masked = either(kind(data), KEY)
    assert masked == reference(data, KEY)
    assert type(masked) is bytes


def test_buffer_of_larger_items_is_masked_by_its_bytes(either):
    data = array.array("H", [1, 2, 65535])
    assert either(memoryview(data), KEY) == reference(data.tobytes(), KEY)


def test_the_buffer_is_left_as_it_is(either):
    data = bytearray(b"Hello")
    either(data, KEY)
    assert data == b"Hello"
    data += b"may grow: nobody holds it"


@pytest.mark.parametrize("key", [b"", b"abc", b"abcde", bytes(8)])
@pytest.mark.parametrize("size", [0, 5, XOR_LIMIT + 1])
def test_masking_key_of_another_size_is_refused(either, key, size):
    with pytest.raises(ValueError, match="must have 4 bytes"):
        either(bytes(size), key)


@pytest.mark.parametrize("data", ["text", None, 5, [1, 2]])
def test_payload_that_is_no_buffer_is_refused(either, data):
    with pytest.raises(TypeError):
        either(data, KEY)


def test_payload_that_is_not_contiguous_is_refused(either):
    with pytest.raises(BufferError):
        either(memoryview(b"abcdef")[::2], KEY)
