"""What a scenario of the stress battery is, and what it tells."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

__all__ = ["Figures", "Scenario", "Skipped"]


class Skipped(Exception):
    """The machine does not allow this scenario; it says why. Never counted as passed."""


class Figures:
    """
    What a scenario measured, in the order in which it was noted.

    ``note("p99", 0.012, "s", limit=0.1)`` fails the scenario if the value is over the limit.
    """

    def __init__(self, seed: int, progress: Callable[[str], None]) -> None:
        self.seed = seed  # of all that is random
        self.progress = progress  # shows one line, which replaces the last one
        self.rows: list[tuple[str, Any, str, Any]] = []

    def note(self, name: str, value: Any, unit: str = "", *, limit: Any = None) -> None:
        """Remember a figure; raises ``AssertionError`` if it is over its limit."""
        self.rows.append((name, value, unit, limit))
        assert limit is None or value <= limit, f"{name} is {value} {unit}, limit {limit}"


class Scenario(NamedTuple):
    """
    One line of the battery. Modules ``battery_*.py`` list theirs as ``SCENARIOS``.

    The function gets the :class:`Figures`; an exception fails the scenario, but ``Skipped``.
    """

    name: str
    about: str  # one line: what must hold
    run: Callable[[Figures], None]
