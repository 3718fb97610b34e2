"""The order of the measurements, such that what disturbs the machine for a while hits all alike."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Optional, TypeVar

from .catalog import Scenario, Server

T = TypeVar("T")


class Step(NamedTuple):
    """One measurement."""

    round: int
    layout: str
    scenario: Scenario
    server: Server


class UnknownName(ValueError):
    """There is no server or scenario of that name."""


def turned(items: Sequence[T], by: int) -> list[T]:
    """The same items in the same order, beginning with another one."""
    by = by % len(items) if items else 0
    return [*items[by:], *items[:by]]


def belongs(layout: str, scenario: Scenario, server: Server) -> bool:
    return (
        layout in scenario.layouts
        and layout in server.layouts
        and scenario.mode in server.modes
        and (server.deflate or not scenario.deflate)
    )


def make_plan(
    servers: Sequence[Server], scenarios: Sequence[Scenario], layouts: Sequence[str], rounds: int
) -> list[Step]:
    """
    Within a round each scenario is run with all servers, one after the other.

    The order of the servers is turned by one each round, so that none always follows the same one.
    """
    return [
        Step(number, layout, scenario, server)
        for number in range(rounds)
        for layout in layouts
        for scenario in scenarios
        if number < scenario.most_rounds
        for server in turned(servers, number)
        if belongs(layout, scenario, server)
    ]


def choose(known: Iterable[Any], names: Optional[str], what: str) -> list[Any]:
    """
    Those of the given names, separated by commas; a name with ``*`` at its end stands for all that
    begin so. ``None`` for all.
    """
    every = {item.name: item for item in known}
    if names is None:
        return list(every.values())
    chosen: dict[str, Any] = {}
    for name in names.split(","):
        found = [each for each in every if each == name or is_prefix(name, each)]
        if not found:
            raise UnknownName(f"no {what} {name!r}; there are {', '.join(every)}")
        chosen.update((each, every[each]) for each in found)
    return list(chosen.values())


def is_prefix(pattern: str, name: str) -> bool:
    return pattern.endswith("*") and name.startswith(pattern[:-1])
