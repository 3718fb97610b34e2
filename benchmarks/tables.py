"""Tables for the documentation."""

from __future__ import annotations

__all__ = ["list_table"]


def list_table(header: list[str], rows: list[list[str]]) -> str:
    """A list-table of reStructuredText; a cell may have several lines."""
    lines = [".. list-table::", "   :header-rows: 1", ""]
    for row in [header, *rows]:
        for number, cell in enumerate(row):
            text = "\n".join(f"| {line}" for line in cell.split("\n")) if "\n" in cell else cell
            lines.append(f"   {' ' if number else '*'} - " + text.replace("\n", "\n       "))
    return "\n".join(lines) + "\n"
