"""The list of mutants that no test can kill, with the reasons (equivalents.txt)."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

LIST = pathlib.Path(__file__).with_name("equivalents.txt")


def known_equivalents() -> dict[tuple[str, str, str, str], str]:
    """The reason for each mutant, by its key."""
    found = {}
    reason = ""
    for paragraph in paragraphs(LIST.read_text()):
        if paragraph[0].startswith("= "):
            reason = " ".join(line[2:] for line in paragraph)
            continue
        module, _, function = paragraph[0].partition(" ")
        before, after = (
            "\n".join(line[2:] for line in paragraph[1:] if line[0] == mark) for mark in "-+"
        )
        found[(module.partition(":")[0], function, before, after)] = reason
    return found


def paragraphs(text: str) -> Iterator[list[str]]:
    """Lines between empty lines, without comments."""
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line and not line.startswith("#")]
        if lines:
            yield lines
