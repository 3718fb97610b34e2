"""The corpora of tests/fuzz pass the checks of their targets; no fuzzer is needed for that."""

from __future__ import annotations

import pathlib

import pytest
from fuzz import codec, head

CORPUS = pathlib.Path(__file__).resolve().parent / "fuzz" / "corpus"

MOST_FILES = 400
MOST_BYTES = 2**20


@pytest.mark.parametrize(("target", "check"), [("codec", codec.check), ("head", head.check)])
def test_corpus_passes_the_checks_of_its_target(target, check):
    inputs = sorted((CORPUS / target).iterdir())
    assert inputs
    for path in inputs:
        try:
            check(path.read_bytes())
        except Exception as exc:
            pytest.fail(f"{target}/{path.name}: {type(exc).__name__}: {exc}", pytrace=True)


def test_corpora_stay_small():
    sizes = [path.stat().st_size for path in CORPUS.glob("*/*")]
    assert len(sizes) < MOST_FILES
    assert sum(sizes) < MOST_BYTES
