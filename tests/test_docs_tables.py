"""The tables of the RFCs name the test of each rule: these tests must exist."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parent
DOCS = TESTS.parent / "docs"

# A test by its file; in a document about one file, by its name alone.
TEST_ID = re.compile(r"``(?:(test_\w+\.py)::)?(test_\w+)``")
DEFAULT_FILE = re.compile(r"tests are in ``tests/(test_\w+\.py)``")


def functions(path):
    """Names of the top-level functions of a test file; none if there is no such file."""
    if not path.exists():
        return set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def named_tests(document):
    """File and function of every test that a document names."""
    text = (DOCS / document).read_text(encoding="utf-8")
    default = DEFAULT_FILE.search(text)
    for file, function in TEST_ID.findall(text):
        yield file or (default.group(1) if default else ""), function


@pytest.mark.parametrize("document", ["rfc6455.rst", "rfc7692.rst"])
def test_every_test_that_a_table_names_exists(document):
    named = set(named_tests(document))
    known = {file: functions(TESTS / file) for file, function in named}
    missing = sorted(
        f"{file}::{function}"
        for file, function in named
        - {(file, function) for file, names in known.items() for function in names}
    )
    assert not missing
    assert named


def rows(document):
    """First and last cell of each row of the list-tables, but for their headers."""
    text = (DOCS / document).read_text(encoding="utf-8")
    for table in text.split(".. list-table::")[1:]:
        for row in re.split(r"^   \* - ", table, flags=re.MULTILINE)[2:]:
            cells = re.split(r"^     - ", row, flags=re.MULTILINE)
            yield cells[0].strip(), cells[-1].split("\n\n")[0]


@pytest.mark.parametrize("document", ["rfc6455.rst", "rfc7692.rst"])
def test_every_row_names_a_test_or_says_why_there_is_none(document):
    without = [
        section
        for section, tests in rows(document)
        if not TEST_ID.search(tests) and not tests.strip().startswith("—")
    ]
    assert not without
