"""The inner loops in C and in Python: the same promises, and the choice between them."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import sysconfig
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples, patience
from strategies import masking_keys, mutations, payloads

from syncws import speedups
from syncws.frames import encode_frame
from syncws.opcodes import Opcode
from syncws.speedups import (
    python_append_result,
    python_apply_mask,
    python_message_block,
    python_whole_frame,
    python_whole_message,
)

ROOT = pathlib.Path(__file__).parent.parent

# Looked for even where SYNCWS_PURE_PYTHON has the library do without it.
BUILT = importlib.util.find_spec("syncws._speedups") is not None
if BUILT:
    from syncws import _speedups

needs_c = pytest.mark.skipif(not BUILT, reason="the C module was not built")

KEY = b"\x37\xfa\x21\x3d"
MASK = 0x80
HEADS = bytes(
    opcode in set(Opcode) and not head & 0x70 and (head & 0x80 or not opcode & 8)
    for head in range(256)
    for opcode in [head & 0x0F]
)
ALL_HEADS = b"\1" * 256

# RFC 6455 §5.2: where the encoding of the length changes, and where C masks in another way.
SIZES = [0, 1, 3, 4, 7, 8, 9, 31, 32, 33, 63, 64, 65, 124, 125, 126, 127, 65535, 65536, 70001]


@pytest.fixture(params=["python", pytest.param("c", marks=needs_c)])
def whole_frame(request):
    return python_whole_frame if request.param == "python" else _speedups.whole_frame


def pattern(size):
    return bytes(range(251)) * (size // 251) + bytes(range(size % 251))


def encode(head, payload, key=None):
    return b"".join(encode_frame(head, payload, key))


# What whole_frame() finds


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("before", [b"", b"before"])
@pytest.mark.parametrize("after", [b"", b"\x81", b"after"])
def test_whole_frame_is_decoded(whole_frame, size, before, after):
    payload = pattern(size)
    for key, mask in [(None, 0), (KEY, MASK)]:
        frame = encode(0x82, payload, key)
        found = whole_frame(before + frame + after, len(before), mask, HEADS)
        assert found == (0x82, payload, len(before + frame))
        assert list(map(type, found)) == [int, bytes, int]


def test_examples_of_the_rfc(whole_frame):
    """RFC 6455 §5.7."""
    hello = bytes.fromhex("81 05 48 65 6c 6c 6f")
    assert whole_frame(hello, 0, 0, HEADS) == (0x81, b"Hello", 7)
    masked = bytes.fromhex("81 85 37 fa 21 3d 7f 9f 4d 51 58")
    assert whole_frame(masked, 0, MASK, HEADS) == (0x81, b"Hello", 11)


@pytest.mark.parametrize("size", [size for size in SIZES if size <= 127])
@pytest.mark.parametrize("key", [None, KEY])
def test_frame_that_is_not_whole_is_left_alone(whole_frame, size, key):
    frame = encode(0x82, pattern(size), key)
    for stop in range(len(frame)):
        assert whole_frame(frame[:stop], 0, MASK if key else 0, HEADS) is None


@pytest.mark.parametrize("size", [65535, 65536])
def test_large_frame_without_its_last_byte_is_left_alone(whole_frame, size):
    assert whole_frame(encode(0x82, bytes(size), KEY)[:-1], 0, MASK, HEADS) is None
    assert whole_frame(encode(0x82, bytes(size))[:-1], 0, 0, HEADS) is None


@pytest.mark.parametrize("size", [0, 5, 126, 65536])
def test_frame_with_wrong_masking_is_left_alone(whole_frame, size):
    """RFC 6455 §5.1."""
    assert whole_frame(encode(0x82, bytes(size), KEY) + b"tail", 0, 0, HEADS) is None
    assert whole_frame(encode(0x82, bytes(size)) + b"tail", 0, MASK, HEADS) is None


def test_only_first_bytes_of_the_table_are_decoded(whole_frame):
    for head in range(256):
        expected = (head, b"ab", 4) if HEADS[head] else None
        assert whole_frame(bytes((head, 2)) + b"ab", 0, 0, HEADS) == expected


@pytest.mark.parametrize(
    "header", ["82 7e 0000", "82 7e 007d", "82 7f 0000000000000000", "82 7f 000000000000ffff"]
)
def test_length_that_is_not_minimally_encoded_is_left_alone(whole_frame, header):
    """RFC 6455 §5.2."""
    assert whole_frame(bytes.fromhex(header) + bytes(65536), 0, 0, HEADS) is None


@pytest.mark.parametrize("head", [0x88, 0x89, 0x8A])
def test_control_frame_has_at_most_125_bytes(whole_frame, head):
    """RFC 6455 §5.5."""
    assert whole_frame(encode(head, bytes(125)), 0, 0, HEADS) == (head, bytes(125), 127)
    assert whole_frame(encode(head, bytes(126)), 0, 0, HEADS) is None
    assert whole_frame(encode(head, bytes(65536)), 0, 0, HEADS) is None


@pytest.mark.parametrize("length", [2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
@pytest.mark.parametrize("mask", [0, MASK])
def test_huge_length_is_left_alone(whole_frame, length, mask):
    frame = bytes((0x82, mask | 127)) + length.to_bytes(8, "big") + bytes(100)
    assert whole_frame(frame, 0, mask, HEADS) is None


@pytest.mark.parametrize(
    "pos", [-1, -7, -(2**63), -(2**64) - 1, -(2**200), 6, 7, 8, 2**31, 2**63 - 1, 2**63, 2**200]
)
def test_position_outside_of_the_buffer_finds_nothing(whole_frame, pos):
    assert whole_frame(bytes.fromhex("81 05 48 65 6c 6c 6f"), pos, 0, ALL_HEADS) is None


@pytest.mark.parametrize("size", [0, 1, 255, 257, 1000])
def test_table_of_another_size_is_refused(whole_frame, size):
    with pytest.raises(ValueError, match="must have 256 bytes"):
        whole_frame(b"\x81\x00", 0, 0, bytes(size))


# C against Python


@needs_c
@pytest.mark.parametrize("mask", [0, MASK])
def test_all_first_two_bytes_are_taken_alike(mask):
    tail = pattern(140)
    for head in range(256):
        for second in range(256):
            for buffer in (bytes((head, second)), bytes((head, second)) + tail):
                found = _speedups.whole_frame(buffer, 0, mask, HEADS)
                assert found == python_whole_frame(buffer, 0, mask, HEADS)


@needs_c
@pytest.mark.parametrize("size", [*range(140), 4096, 4097, 65536, 65537])
def test_masking_is_the_same(size):
    data = pattern(size + 16)
    for start in range(17 if size < 140 else 2):  # However the data is aligned.
        view = memoryview(data)[start : start + size]
        assert _speedups.apply_mask(view, KEY) == python_apply_mask(view, KEY)


frames = st.builds(encode, st.integers(0, 255), payloads, st.none() | masking_keys)
inputs = st.lists(mutations(frames), max_size=3).map(b"".join)
# The bits beside the one that counts make no difference.
masks = st.sampled_from([0, MASK]) | st.integers()


@needs_c
@patience
@examples(200)
@given(inputs, st.integers(-2, 30) | st.integers(), masks, st.sampled_from([HEADS, ALL_HEADS]))
def test_any_input_at_any_position_is_decoded_alike(data, pos, mask, heads):
    expected = python_whole_frame(data, pos, mask, heads)
    assert _speedups.whole_frame(data, pos, mask, heads) == expected


@needs_c
@patience
@examples(50)
@given(inputs, st.sampled_from([0, MASK]), st.integers(0, 200))
def test_frames_one_after_the_other_are_decoded_alike(data, mask, cut_off):
    data = data[: max(0, len(data) - cut_off)]
    pos = 0
    while True:
        found = _speedups.whole_frame(data, pos, mask, ALL_HEADS)
        assert found == python_whole_frame(data, pos, mask, ALL_HEADS)
        if found is None:
            return
        assert found[2] > pos
        pos = found[2]


# Messages


def either(name, python):
    """Parameters for a test: the function in Python, and the one in C."""
    functions = [python]
    if BUILT:
        functions.append(getattr(_speedups, name))
    return pytest.mark.parametrize("function", functions, ids=["python", "c"][: len(functions)])


@either("whole_message", python_whole_message)
def test_message_is_its_payload_and_for_text_a_string(function):
    text = "gr\u00fc\u00dfe \U0001f600".encode()
    assert function(encode(0x81, text, KEY), 0, MASK, 100) == (text, text.decode(), 18)
    assert function(b"--" + encode(0x82, text), 2, 0, 100) == (text, None, 16)
    assert function(encode(0x81, b""), 0, 0, 0) == (b"", "", 2)


@either("whole_message", python_whole_message)
def test_all_but_messages_is_left_alone(function):
    for head in set(range(256)) - {0x81, 0x82}:
        assert function(encode(head, b"ab"), 0, 0, 100) is None
    assert function(encode(0x82, b"ab"), 0, 0, 1) is None
    assert function(encode(0x82, b"ab"), 0, 0, -1) is None
    assert function(encode(0x82, b"ab"), 9, 0, 100) is None
    assert function(encode(0x81, b"\xc3"), 0, 0, 100) is None
    assert function(encode(0x81, b"\xed\xa0\x80"), 0, 0, 100) is None


@needs_c
@patience
@examples(200)
@given(inputs, st.integers(-2, 30) | st.integers(), masks, st.integers(-1, 200) | st.integers())
def test_any_input_holds_the_same_messages(data, pos, mask, limit):
    expected = python_whole_message(data, pos, mask, limit)
    assert _speedups.whole_message(data, pos, mask, limit) == expected


@either("message_block", python_message_block)
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535])
def test_short_message_is_encoded_as_a_frame(function, size):
    data = b"x" * size
    for text, heads in [(None, (0x81, 0x82)), (True, (0x81, 0x81)), (False, (0x82, 0x82))]:
        assert function(data.decode(), text, 65535) == encode(heads[0], data)
        assert function(data, text, 65535) == encode(heads[1], data)
    assert function(data, None, size - 1) is None


@either("message_block", python_message_block)
@pytest.mark.parametrize(
    "message", [bytearray(b"a"), memoryview(b"a"), None, 1, ["a"], b"a" * 65536, "a" * 65536]
)
def test_other_messages_are_left_alone(function, message):
    assert function(message, None, 10**6) is None


@needs_c
@patience
@examples(100)
@given(
    st.binary(max_size=300) | st.text(max_size=300),
    st.none() | st.booleans(),
    st.integers(-1, 400) | st.integers(),
)
def test_message_is_encoded_alike_or_left_to_others(message, text, limit):
    block = _speedups.message_block(message, text, limit)
    if block is not None or isinstance(message, bytes) or message.isascii():
        assert block == python_message_block(message, text, limit)


@either("append_result", python_append_result)
def test_results_are_appended_and_exceptions_passed_on(function):
    results = [0]
    assert function(results, divmod, 7, 2) is None
    function(results, list)
    assert results == [0, (3, 1), []]
    with pytest.raises(ZeroDivisionError):
        function(results, divmod, 7, 0)
    assert results == [0, (3, 1), []]


# What only C can get wrong


@needs_c
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (b"", 0, 0),
        (b"", 0, 0, HEADS, None),
        (bytearray(b"\x81\x00"), 0, 0, HEADS),
        ("\x81\x00", 0, 0, HEADS),
        (b"\x81\x00", 0.0, 0, HEADS),
        (b"\x81\x00", None, 0, HEADS),
        (b"\x81\x00", 0, "0", HEADS),
        (b"\x81\x00", 0, 0, list(HEADS)),
        (b"\x81\x00", 0, 0, bytearray(HEADS)),
    ],
)
def test_arguments_of_other_types_are_refused(arguments):
    with pytest.raises(TypeError):
        _speedups.whole_frame(*arguments)


@needs_c
@pytest.mark.parametrize(
    "arguments", [(), (b"",), (b"", KEY, 1), (b"", bytearray(KEY)), (b"", "abcd"), (b"", None)]
)
def test_arguments_of_masking_of_other_types_are_refused(arguments):
    with pytest.raises(TypeError):
        _speedups.apply_mask(*arguments)


def call_everything(function, data, frame, pos):
    """Each way through the C code, errors included."""
    function.apply_mask(data, KEY)
    function.whole_frame(frame, pos, MASK, HEADS)
    function.whole_frame(frame, 0, 0, HEADS)
    function.whole_message(frame, pos, MASK, 1000)
    function.whole_message(frame, pos, MASK, 1)
    function.message_block("text", None, 100)
    function.message_block(b"bytes", True, 100)
    function.message_block(data, None, 100)
    function.append_result([], len, data)
    for name, arguments in [
        ("apply_mask", (data, b"key")),
        ("apply_mask", ("text", KEY)),
        ("apply_mask", (data,)),
        ("whole_frame", (frame, pos, MASK, KEY)),
        ("whole_frame", (frame, None, MASK, HEADS)),
        ("whole_frame", (frame,)),
        ("whole_message", (frame, pos, MASK, None)),
        ("whole_message", (data, pos, MASK, 1)),
        ("whole_message", (frame,)),
        ("message_block", ("text", None, "1")),
        ("message_block", ("text",)),
        ("append_result", ((), len, data)),
        ("append_result", ([], len, 1)),
        ("append_result", ([],)),
    ]:
        with pytest.raises((TypeError, ValueError)):
            getattr(function, name)(*arguments)


@needs_c
def test_no_reference_is_kept():
    data = bytearray(pattern(500))
    frame = bytes(1000) + encode(0x82, data, KEY)
    pos = int("1000")
    held = [data, frame, pos, KEY, HEADS]
    call_everything(_speedups, data, frame, pos)
    before = list(map(sys.getrefcount, held))
    for _ in range(100):
        call_everything(_speedups, data, frame, pos)
    assert list(map(sys.getrefcount, held)) == before


@needs_c
def test_no_memory_is_kept():
    data = pattern(1000)
    frame = bytes(1000) + encode(0x82, data, KEY) + encode(0x82, data)

    def call_many(times):
        for _ in range(times):
            _speedups.apply_mask(data, KEY)
            _, _, end = _speedups.whole_frame(frame, 1000, MASK, HEADS)
            _speedups.whole_frame(frame, end, 0, HEADS)

    tracemalloc.start()
    try:
        call_many(10)
        before = tracemalloc.get_traced_memory()[0]
        call_many(25_000)
        # One byte a call would be more than this.
        assert tracemalloc.get_traced_memory()[0] - before < 25_000
    finally:
        tracemalloc.stop()


@needs_c
def test_threads_may_call_at_once_and_write_to_the_buffer():
    size = 20_000
    shared = bytearray(size)
    frame = encode(0x82, pattern(size), KEY)
    # A byte that is being written to is the one from before, or the one from after.
    possible = {key ^ written for key in KEY for written in (0, 255)}
    start = threading.Barrier(4)
    good = []

    def hammer():
        start.wait()
        for _ in range(200):
            assert _speedups.whole_frame(frame, 0, MASK, HEADS)[1] == pattern(size)
            masked = _speedups.apply_mask(shared, KEY)
            assert len(masked) == size
            assert set(masked) <= possible
        good.append(True)

    def write():
        start.wait()
        for round_ in range(400):
            shared[:] = (b"\xff" if round_ % 2 else b"\x00") * size
        good.append(True)

    threads = [threading.Thread(target=target) for target in (hammer, hammer, hammer, write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert good == [True] * 4


@needs_c
def test_the_module_does_not_enable_the_gil():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this interpreter always has a GIL")
    probe = "import sys, syncws._speedups; print(sys._is_gil_enabled())"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON_GIL"}
    assert run(probe, environment) == "False"


# The choice


def run(code, environment):
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return done.stdout.strip()


TELL = """
from syncws import speedups
pure = [speedups.apply_mask is speedups.python_apply_mask,
        speedups.whole_frame is speedups.python_whole_frame]
print(speedups.SPEEDUPS, *pure)
"""


@pytest.mark.parametrize(
    ("value", "expected"),
    [("", "True False False" if BUILT else "False True True"), ("1", "False True True")],
)
def test_environment_can_ask_for_python(value, expected):
    assert run(TELL, {**os.environ, "SYNCWS_PURE_PYTHON": value}) == expected


def test_python_does_where_there_is_no_c_module():
    environment = {k: v for k, v in os.environ.items() if k != "SYNCWS_PURE_PYTHON"}
    missing = "import sys; sys.modules['syncws._speedups'] = None"
    assert run(missing + TELL, environment) == "False True True"


def test_what_is_in_use_is_what_the_flag_tells():
    assert (speedups.apply_mask is not python_apply_mask) == speedups.SPEEDUPS
    assert (speedups.whole_frame is not python_whole_frame) == speedups.SPEEDUPS
    assert (BUILT and not os.environ.get("SYNCWS_PURE_PYTHON")) == speedups.SPEEDUPS
