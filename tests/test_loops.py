"""
No loop of the library escapes the ``try`` or ``with`` that it is in.

The compiler of Python 3.12 and 3.13 turns the jump that closes a loop such as ``while condition:``,
or one whose body ends with an ``if``, into one that no exception handler covers
(https://github.com/python/cpython/issues/130279). Signal handlers run at that jump. So Ctrl-C
there leaves a lock of ``with`` taken for ever, and what is in ``finally`` not done. In a function
of its own the loop is safe: its caller's handlers are in force.
"""

import dis
import sys
import types
from pathlib import Path

import pytest

import syncws

SOURCES = sorted(Path(syncws.__file__).parent.rglob("*.py"))

ESCAPES = """
def loop(lock, count):
    with lock:
        while count:
            count -= 1
"""
STAYS = """
def loop(lock, count):
    with lock:
        while True:
            if not count:
                break
            count -= 1
"""

pytestmark = pytest.mark.skipif(
    sys.version_info < (3, 11),
    reason="handlers are found at run time there",
)


def codes_in(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_in(constant)


def escapes_of(source, name):
    """Jumps back into a ``try`` or ``with`` that have no handler themselves."""
    found = []
    for code in codes_in(compile(source, name, "exec")):
        bytecode = dis.Bytecode(code)
        instructions = {each.offset: each for each in bytecode}
        covered = [
            (entry.start, entry.end)
            for entry in bytecode.exception_entries
            # Not those that only restore the variables of a comprehension.
            if instructions[entry.target].opname == "PUSH_EXC_INFO"
        ]

        def is_covered(offset, covered=covered):
            return any(start <= offset < end for start, end in covered)

        previous = None
        for each in instructions.values():
            if (
                "JUMP_BACKWARD" in each.opname
                and "NO_INTERRUPT" not in each.opname
                and previous.opname != "CLEANUP_THROW"  # of ``yield from``, when it is thrown into
                and is_covered(each.argval)
                and not is_covered(each.offset)
            ):
                found.append(f"{name}:{each.positions.lineno} in {code.co_name}()")
            previous = each
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_no_loop_escapes_its_handlers(path):
    assert escapes_of(path.read_text(encoding="utf-8"), path.name) == []


@pytest.mark.skipif(not (3, 12) <= sys.version_info < (3, 14), reason="the compiler gets it right")
def test_it_would_be_found():
    assert escapes_of(ESCAPES, "example") == ["example:4 in loop()"]


def test_what_is_safe_is_taken_as_safe():
    assert escapes_of(STAYS, "example") == []
