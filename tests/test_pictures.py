"""The pictures of the documentation are those that their scripts draw."""

from __future__ import annotations

import runpy
import sys

import pytest
from doc_pages import ROOT

PICTURES = ROOT / "docs" / "pictures"
SCRIPTS = sorted(path.stem for path in PICTURES.glob("*.py") if path.stem != "drawing")


@pytest.fixture
def beside_drawing():
    """Scripts import what is in their folder."""
    sys.path.insert(0, str(PICTURES))
    yield
    sys.path.remove(str(PICTURES))
    sys.modules.pop("drawing", None)


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_picture_is_up_to_date(name, beside_drawing):
    drawn = str(runpy.run_path(str(PICTURES / f"{name}.py"))["draw"]())
    stored = (PICTURES / f"{name}.svg").read_text(encoding="utf-8")
    assert drawn == stored, f"run python3 docs/pictures/{name}.py"


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_picture_is_shown_on_a_page_with_a_text_for_those_who_cannot_see_it(name):
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.rst"))
    assert f".. image:: pictures/{name}.svg\n   :alt: " in pages


def test_there_are_pictures():
    assert SCRIPTS
