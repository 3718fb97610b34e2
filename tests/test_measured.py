"""The tables of measurements in the documentation are those that their scripts make."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from doc_pages import ROOT

MEASURED = ROOT / "docs" / "measured"


def shape(table):
    """A table without its figures, and without the versions of what was measured."""
    rows = [row for row in table.splitlines() if not row.startswith("Python")]
    return [re.sub(r"\d+", "0", row) for row in rows]


@pytest.mark.parametrize("name", ["deflate.inc", "deflate-levels.inc"])
def test_the_tables_about_compression_have_the_rows_that_their_script_makes(name, tables):
    assert shape((tables / name).read_text()) == shape((MEASURED / name).read_text())


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """The tables, of very few messages."""
    folder = tmp_path_factory.mktemp("measured")
    script = ROOT / "benchmarks" / "deflate.py"
    command = [sys.executable, str(script), "--count", "3", "--out", str(folder)]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
    return folder
