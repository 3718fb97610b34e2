"""The documents name the code and the tests of each rule and promise: these must exist."""

from __future__ import annotations

import ast
import functools
import importlib
import pathlib
import re

import pytest

TESTS = pathlib.Path(__file__).parent
DOCS = TESTS.parent / "docs"
DOCUMENTS = ["rfc6455.rst", "rfc7692.rst"]
PROMISES = ["reliability.rst", "security.rst"]

# A test by its file; in a document about one file, by its name alone.
TEST_ID = re.compile(r"``(?:(test_\w+\.py)::)?(test_\w+)``")
DEFAULT_FILE = re.compile(r"tests are in ``tests/(test_\w+\.py)``")

# Code by its module and its name in there.
CODE_NAME = re.compile(r"``([a-z_0-9]+):([A-Za-z_.0-9]+)``")


def read(document):
    return (DOCS / document).read_text(encoding="utf-8")


def functions(path):
    """Names of the top-level functions of a test file; none if there is no such file."""
    if not path.exists():
        return set()
    body = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name for node in body if isinstance(node, ast.FunctionDef)}


def named_tests(text):
    """File and function of every test that a document names."""
    default = DEFAULT_FILE.search(text)
    for file, function in TEST_ID.findall(text):
        yield file or (default.group(1) if default else ""), function


def rows(text):
    """The cells of each row of the list-tables, but for their headers."""
    for table in text.split(".. list-table::")[1:]:
        for row in re.split(r"^   \* - ", table, flags=re.MULTILINE)[2:]:
            cells = re.split(r"^     - ", row, flags=re.MULTILINE)
            yield [cell.split("\n\n")[0].strip() for cell in cells]


@pytest.mark.parametrize("document", DOCUMENTS + PROMISES)
def test_every_test_that_a_table_names_exists(document):
    named = sorted(set(named_tests(read(document))))
    known = {file: functions(TESTS / file) for file in {file for file, _ in named}}
    missing = [f"{file}::{function}" for file, function in named if function not in known[file]]
    assert named
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_row_names_a_test_or_says_why_there_is_none(document):
    for section, _, _, tests in rows(read(document)):
        assert TEST_ID.search(tests) or tests.startswith("—"), section


@pytest.mark.parametrize(("module", "name"), sorted(set(CODE_NAME.findall(read("rfc6455.rst")))))
def test_code_that_a_table_names_exists(module, name):
    imported = importlib.import_module(f"syncws.{module}")
    assert functools.reduce(getattr, name.split("."), imported) is not None
