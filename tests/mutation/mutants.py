"""
Mutants of a module: copies of its source with one small change each, made by mutmut's operators.

mutmut itself leaves out module-level code and decorated functions, since it puts all mutants of a
function beside it, behind a switch. Here each mutant is a source of its own: nothing is left out,
and nothing slows the code down that tests of time and memory look at.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import libcst
from libcst import matchers
from mutmut.mutation.mutators import mutation_operators

# What nothing reads at run time: annotations, texts that stand alone, imports for type checkers;
# and calls whose mutants are not worth a run (mutmut leaves them alone too).
LEFT_OUT = (
    matchers.Annotation()
    | matchers.Expr(matchers.SimpleString())
    | matchers.If(matchers.Name("TYPE_CHECKING"))
    | matchers.Call(matchers.Name("len") | matchers.Name("isinstance"))
    | matchers.Assign(
        [
            matchers.AssignTarget(
                matchers.Name("__all__")
                | matchers.Name("T")
                | matchers.Name("ExtensionParameter")
                | matchers.Name("ExtensionHeader")
                | matchers.Name("HeadersLike")
                | matchers.Name("Piece")
            )
        ]
    )
)


class Mutant(NamedTuple):
    """
    A mutant of a module.

    ``function`` is the qualified name of the function or class that is changed, if any;
    ``before`` and ``after`` are the lines that differ, without their indentation.
    """

    module: str
    function: str
    line: int
    before: str
    after: str
    source: str

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What finds the mutant again when its lines have moved."""
        return (self.module, self.function, self.before, self.after)

    def __str__(self) -> str:
        lines = [f"{self.module}:{self.line} {self.function}".rstrip()]
        lines += [f"- {line}" for line in self.before.splitlines()]
        lines += [f"+ {line}" for line in self.after.splitlines()]
        return "\n".join(lines)


class Changes(libcst.CSTVisitor):
    """Collects what the operators make of each node, and the name of the function around it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, libcst.CSTNode, libcst.CSTNode]] = []
        self._names: list[str] = []

    def on_visit(self, node: libcst.CSTNode) -> bool:
        if matchers.matches(node, LEFT_OUT):
            return False
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                name = ".".join(self._names)
                self.found.extend((name, node, mutated) for mutated in operator(node))
        if isinstance(node, (libcst.FunctionDef, libcst.ClassDef)):
            self._names.append(node.name.value)
        return True

    def on_leave(self, original_node: libcst.CSTNode) -> None:
        if isinstance(original_node, (libcst.FunctionDef, libcst.ClassDef)):
            self._names.pop()


def mutants(module: str, source: str, name: str = "") -> Iterator[Mutant]:
    """
    Make all mutants of a source, but for those that Python cannot compile.

    Args:
        module: name of the module.
        source: its source.
        name: only functions and classes that have this in their qualified names.
    """
    tree = libcst.parse_module(source)
    parts = [tree.code_for_node(statement) for statement in tree.body]
    start = source.index("".join(parts))
    for statement, part in zip(tree.body, parts):
        changes = Changes()
        statement.visit(changes)
        for function, node, mutated in changes.found:
            if name not in function:
                continue
            # Quicker than to replace it in the whole tree.
            replaced = statement.deep_replace(node, mutated)
            changed = source[:start] + tree.code_for_node(replaced) + source[start + len(part) :]
            try:
                compile(changed, module, "exec")
            except SyntaxError:
                continue
            yield Mutant(module, function, *difference(source, changed), changed)
        start += len(part)


def difference(source: str, changed: str) -> tuple[int, str, str]:
    """Number of the first line that differs, and the lines from there to the last, in both."""
    lines = source.splitlines()
    others = changed.splitlines()
    shorter = min(len(lines), len(others))
    start = 0
    while start < shorter and lines[start] == others[start]:
        start += 1
    end = 0
    while end < shorter - start and lines[-1 - end] == others[-1 - end]:
        end += 1
    before, after = (
        "\n".join(line.strip() for line in text[start : len(text) - end])
        for text in (lines, others)
    )
    return start + 1, before, after
