"""The pages of the documentation, and the blocks of code on them."""

from __future__ import annotations

import pathlib
import re
import textwrap
from typing import NamedTuple

__all__ = ["ROOT", "Block", "blocks_of", "pages"]

ROOT = pathlib.Path(__file__).parent.parent

PYTHON = {"python", "python3"}
SHELL = {"console", "sh", "bash", "shell"}
# What a page shows besides: output, and the files of other programs.
OTHER = {"text", "none", "ini", "nginx", "yaml", "html", "javascript", "json", "toml", "cfg"}
OTHER |= {"haproxy", "docker", "http"}
LANGUAGES = PYTHON | SHELL | OTHER

DIRECTIVE = re.compile(r"^( *)\.\. (code-block|code|sourcecode)::[ \t]*(\w*)[ \t]*$")
MARK = re.compile(r"^ *\.\. run: (.*)$")
FENCE = re.compile(r"^```(\w*)[ \t]*$")


class Block(NamedTuple):
    """
    A block of code.

    Attributes:
        line: of its first line on the page.
        language: as the page has it.
        source: without the indentation.
        mark: of a comment ``.. run: …`` before it, what that says.
    """

    line: int
    language: str
    source: str
    mark: str = ""


def pages():
    """The paths of all pages, relative to the project."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.rst"))]
    return [str(path.relative_to(ROOT)) for path in found]


def blocks_of(page):
    """The blocks of a page."""
    lines = (ROOT / page).read_text(encoding="utf-8").splitlines()
    return list(_fences(lines) if page.endswith(".md") else _directives(lines))


def _fences(lines):
    start = None
    for number, line in enumerate(lines):
        match = FENCE.match(line)
        if start is None and match:
            start, language = number + 1, match.group(1)
        elif start is not None and line.startswith("```"):
            yield Block(start + 1, language, "\n".join(lines[start:number]) + "\n")
            start = None


def _directives(lines):
    mark = ""
    for number, line in enumerate(lines):
        comment = MARK.match(line)
        match = DIRECTIVE.match(line)
        if comment:
            mark = comment.group(1)
        elif match:
            yield _block(lines, number + 1, match, mark)
            mark = ""


def _block(lines, start, match, mark):
    """The block whose directive is in the line before ``start``."""
    indent = len(match.group(1)) + 1
    while start < len(lines) and lines[start].strip().startswith(":"):
        start += 1
    body = []
    for line in lines[start:]:
        if line.strip() and len(line) - len(line.lstrip()) < indent:
            break
        body.append(line)
    while body and not body[0].strip():
        del body[0]
        start += 1
    return Block(start + 1, match.group(3), textwrap.dedent("\n".join(body)).strip() + "\n", mark)
