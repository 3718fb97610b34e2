"""What the Autobahn suite should find, and how it compares with what it found."""

from __future__ import annotations

import collections
import fnmatch
import json
import pathlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

EXPECTED = pathlib.Path(__file__).parent / "expected.json"


class Finding(NamedTuple):
    """What the suite says about a case, and about how the connection was closed."""

    behavior: str
    close: str

    def __str__(self) -> str:
        return f"{self.behavior} (close: {self.close})"


OK = Finding("OK", "OK")


def section(case: str) -> int:
    """The number before the first dot."""
    return int(case.partition(".")[0])


def order(case: str) -> list[int]:
    """A key to sort cases by."""
    return [int(number) for number in case.split(".")]


def known_cases() -> list[str]:
    """All cases of the suite, in its order."""
    groups = json.loads(EXPECTED.read_text(encoding="utf-8"))["cases"]
    cases = [f"{group}.{n}" for group, count in groups.items() for n in range(1, count + 1)]
    return sorted(cases, key=order)


def existing(patterns: Sequence[str]) -> list[str]:
    """
    Leave out the numbers of sections that the suite keeps but has no cases in, such as 8.

    Raises:
        ValueError: something else has no cases, or nothing is left.
    """
    cases = known_cases()
    last = section(cases[-1])
    left = []
    for pattern in patterns:
        if matching(pattern, cases):
            left.append(pattern)
        elif not pattern.isdecimal() or not 1 <= int(pattern) <= last:
            raise ValueError(f"no such case: {pattern}")
    if patterns and not left:
        raise ValueError("no cases in the sections " + ", ".join(patterns))
    return left


def matching(pattern: str, cases: list[str]) -> list[str]:
    """The cases that an id, a pattern or the number of a section stands for."""
    return fnmatch.filter(cases, f"{pattern}.*" if pattern.isdecimal() else pattern)


def select(patterns: Sequence[str]) -> list[str]:
    """The cases that all the patterns stand for; without any, all of the suite."""
    cases = known_cases()
    selected = {case for pattern in patterns or ["*"] for case in matching(pattern, cases)}
    return sorted(selected, key=order)


def expectation(side: str, cases: Iterable[str]) -> dict[str, Finding]:
    """What the suite should find about the server or the client."""
    others = json.loads(EXPECTED.read_text(encoding="utf-8"))["not OK"][side]
    return {case: Finding(*others.get(case, OK)) for case in cases}


def read_report(folder: pathlib.Path) -> dict[str, Finding]:
    """
    What the suite found.

    Raises:
        OSError, ValueError: there is no usable report.
    """
    agents = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if len(agents) != 1:
        raise ValueError(f"a report about one agent was wanted, not about {sorted(agents)}")
    (results,) = agents.values()
    return {
        case: Finding(result["behavior"], result["behaviorClose"])
        for case, result in results.items()
    }


def differences(expected: dict[str, Finding], found: dict[str, Finding]) -> list[str]:
    """One line for each case that is not as expected."""
    lines = []
    for case in sorted({*expected, *found}, key=order):
        if case not in found:
            lines.append(f"{case}: MISSING, expected {expected[case]}")
        elif case not in expected:
            lines.append(f"{case}: {found[case]}, not expected at all")
        elif found[case] != expected[case]:
            lines.append(f"{case}: {found[case]}, expected {expected[case]}")
    return lines


def counts(found: dict[str, Finding]) -> str:
    """How many cases there are of each kind, the most frequent first."""
    kinds = collections.Counter(finding.behavior for finding in found.values())
    parts = [f"{count} {behavior}" for behavior, count in kinds.most_common()]
    return ", ".join([f"{len(found)} cases", *parts])
