"""The payload of a message in pieces: the collector in C and in Python, and what it costs."""

from __future__ import annotations

import sys
import threading
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples
from test_speedups import BUILT, needs_c

from syncws.messages import Message
from syncws.speedups import PythonCollector

if BUILT:
    from syncws._speedups import Collector

MIB = 1 << 20
KINDS = ["python", pytest.param("c", marks=needs_c)]

# ASCII or not, of sizes at which one in C copies in another way, or one in Python keeps it.
SIZES = [0, 1, 2, 31, 32, 33, 65, 4095, 4096, 10_000]
pieces = st.lists(
    st.tuples(st.sampled_from(SIZES), st.sampled_from([b"a", b"\x80", "é".encode()]), st.booleans())
)


@pytest.fixture(params=KINDS)
def collector(request):
    return PythonCollector if request.param == "python" else Collector


def contents(taken):
    return Message(True, taken).data


def test_pieces_are_joined(collector):
    found = collector(text=False)
    for piece in [b"one", b"", b"two" * 2000, b"three", b"four"]:
        assert found.add(piece) is False
    assert found.take() == b"one" + b"two" * 2000 + b"threefour"
    assert found.take() == b""


@pytest.mark.parametrize("size", [2, 31, 32, 33, 64, 65, 5000])
def test_it_tells_whether_a_piece_is_ascii(collector, size):
    found = collector(True)
    expected = b""
    assert found.add(b"") is True
    # One that is not, at any place that C may look at in another way.
    for at in [size, 0, 1, size // 2, size - 1]:
        piece = bytearray(b"x" * size)
        if at < size:
            piece[at] = 0x80
        expected += piece
        assert found.add(bytes(piece)) is (at == size)
    assert found.take() == expected


@given(
    collected=st.lists(st.tuples(st.booleans(), pieces), max_size=4),
    announced=st.lists(st.integers(0, 50_000), max_size=5),
)
@examples(100)
@needs_c
def test_both_collect_the_same(collected, announced):
    for text, parts in collected:
        ours, theirs = Collector(text), PythonCollector(text)
        sizes = iter(announced)
        for size, pattern, cut in parts:
            piece = (pattern * size)[: size + cut]
            announcement = next(sizes, len(piece))
            ours.expect(announcement)
            theirs.expect(announcement)
            assert ours.add(piece) is theirs.add(piece)
        assert contents(ours.take()) == theirs.take()
        ours.add(b"again")
        assert ours.take() == b"again"


def test_a_single_piece_is_handed_out_as_it_is(collector):
    piece = b"x" * 5000
    for text in (False, True):
        found = collector(text)
        found.expect(len(piece))
        assert found.add(piece) is text
        assert found.take() is piece or collector is PythonCollector


@needs_c
def test_ascii_in_pieces_becomes_a_string_and_other_text_bytes():
    found = Collector(True)
    found.expect(10)
    found.add(b"hello")
    found.add(b"world")
    assert found.take() == "helloworld"
    found.add("hellö".encode())
    found.add(b"world")
    assert found.take() == "hellöworld".encode()
    found.add(b"hello")
    found.add("wörld".encode())
    found.add(b"!")
    assert found.take() == "hellowörld!".encode()


@needs_c
@pytest.mark.parametrize("size", [1, 2, 100])
def test_less_may_come_than_was_announced(size):
    found = Collector(True)
    found.expect(3 * MIB)
    found.add(b"x" * size)
    taken = found.take()
    assert taken == "x" * size
    # It is a string like others, and no longer than that.
    assert sys.getsizeof(taken) <= sys.getsizeof("x" * size) + 8
    assert {taken: 1}["x" * size] == 1
    assert taken + "é" == "x" * size + "é"


@needs_c
def test_more_may_come_than_was_announced():
    found = Collector(False)
    found.expect(2)
    for _ in range(5000):
        found.add(b"abc")
    assert found.take() == b"abc" * 5000


def held_by(action):
    """Bytes that are allocated after an action and were not before, and its result."""
    tracemalloc.start()
    try:
        result = action()
        return tracemalloc.get_traced_memory()[0], result
    finally:
        tracemalloc.stop()


@needs_c
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("announced", [2 * MIB, 1 << 62, 1 << 100])
def test_an_announcement_alone_takes_a_mebibyte_at_most(text, announced):
    found = Collector(text)

    def announce():
        found.expect(announced)
        found.expect(announced)
        found.add(b"x")

    held, _ = held_by(announce)
    assert MIB <= held < MIB + 1000


@needs_c
@pytest.mark.parametrize("text", [False, True])
def test_a_long_message_is_held_once(text):
    def collect():
        found = Collector(text)
        found.expect(8 * MIB)
        for _ in range(8 * 16):
            found.add(b"x" * (MIB // 16))
        return found.take()

    held, message = held_by(collect)
    assert len(message) == 8 * MIB
    assert held < 8 * MIB + 1000


def test_many_small_pieces_take_no_more_than_a_multiple(collector):
    found = collector(True)

    def add_all():
        for _ in range(100_000):
            found.expect(1)
            found.add(b"x")

    held, _ = held_by(add_all)
    assert held < 2 * 100_000
    assert contents(found.take()) == b"x" * 100_000


@needs_c
@pytest.mark.parametrize(
    "misuse",
    [
        lambda: Collector(),
        lambda: Collector(True, False),
        lambda: Collector(nothing=1),
        lambda: Collector(False).add("text"),
        lambda: Collector(False).add(bytearray(5)),
        lambda: Collector(False).expect("1"),
        lambda: Collector(False).expect(None),
    ],
)
def test_arguments_of_other_types_are_refused(misuse):
    with pytest.raises(TypeError):
        misuse()


@needs_c
def test_a_negative_announcement_says_nothing():
    found = Collector(False)
    found.expect(-5)
    found.add(b"one")
    found.add(b"two")
    assert found.take() == b"onetwo"


@needs_c
def test_no_reference_is_kept():
    small, large = bytes(bytearray(100)), b"\x80" * 5000
    kind = sys.getrefcount(Collector)
    held = list(map(sys.getrefcount, (small, large)))
    for text in (False, True):
        for parts in ([small], [small, small], [small, large, small], [large, small], []):
            for taking in (True, False):
                found = Collector(text)
                for piece in parts:
                    found.add(piece)
                if taking:
                    found.take()
                found = None
    piece = None
    assert list(map(sys.getrefcount, (small, large))) == held
    assert sys.getrefcount(Collector) == kind


ASCII, OTHER = b"x" * 5000, b"\x80" * 5000

# What comes before, how much is announced, what is added when there is no memory.
FAILURES = [
    ([], 100_000, ASCII),
    ([], 5001, OTHER),
    ([ASCII], 0, ASCII),
    ([ASCII], 0, OTHER),
    ([ASCII], 100_000, ASCII),
    ([ASCII, ASCII], 0, ASCII),
    ([ASCII, ASCII], 100_000, OTHER),
    ([OTHER, ASCII], 0, OTHER),
]


def fails(action, *arguments, start, stop):
    """Whether it is a MemoryError that these requests for memory fail."""
    _testcapi = pytest.importorskip("_testcapi")
    failed = False
    _testcapi.set_nomemory(start, stop)
    try:
        action(*arguments)
    except MemoryError:
        failed = True
    finally:
        _testcapi.remove_mem_hooks()
    return failed


@needs_c
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("case", range(len(FAILURES)))
def test_without_memory_it_is_empty_after_the_error(text, case):
    """Never a message with a hole, and never a crash."""
    before, announced, last = FAILURES[case]
    all_of_them = b"".join(before) + last
    failures = 0
    for number in range(4):
        found = Collector(text)
        for piece in before:
            found.add(piece)
        found.expect(announced)
        failed = fails(found.add, last, start=number, stop=number + 1)
        failures += failed
        found.expect(12)
        found.add(b"later")
        found.add(b"and on")
        assert contents(found.take()) == (b"" if failed else all_of_them) + b"laterand on"
    assert failures


@needs_c
@pytest.mark.parametrize("text", [False, True])
def test_without_memory_to_hand_it_out_it_is_lost_with_an_error(text):
    found = Collector(text)
    found.expect(MIB)
    found.add(ASCII)
    assert fails(found.take, start=0, stop=1)
    assert found.take() == b""


@needs_c
def test_threads_that_use_one_against_the_rules_break_nothing():
    """Each connection has its own, and uses it under its role; but nothing may crash."""
    found = Collector(True)
    start = threading.Barrier(3)
    taken = []

    def hammer():
        start.wait()
        for number in range(2000):
            found.expect(100)
            found.add(b"a" * 50)
            found.add(b"\x80" * 50 if number % 7 == 0 else b"b" * 50)
            if number % 3 == 0:
                taken.append(len(found.take()))

    threads = [threading.Thread(target=hammer) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) + len(found.take()) == 3 * 2000 * 100
