"""What several samples come to, and who is ahead of whom."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

# Beyond these, in cores, a sample is doubtful.
NOISE = 0.25  # used by other processes
BUSY_CLIENT = 0.9  # used by the load generator, which then may be what is measured


class Cell(NamedTuple):
    """All rounds of one server in one scenario."""

    median: Optional[float]  # None: no sample has a value
    low: Optional[float]
    high: Optional[float]
    noise: float  # cores, median
    client: float  # cores, the most
    faults: tuple[str, ...]
    latencies: dict[str, float]  # percentiles in µs, medians
    cpu_us: Optional[float]  # server's processor time for one message, median
    held: dict[str, float]  # of an idle connection, medians

    @property
    def is_noisy(self) -> bool:
        return self.noise > NOISE

    @property
    def is_client_busy(self) -> bool:
        return self.client > BUSY_CLIENT


PERCENTILES = {"p50": "50 %", "p90": "90 %", "p99": "99 %", "p999": "99.9 %"}
HELD = ("rss_kib", "threads", "descriptors", "base_mib")


def median_of(samples: Sequence[dict[str, Any]], key: str) -> Optional[float]:
    values = [sample[key] for sample in samples if sample.get(key) is not None]
    return statistics.median(values) if values else None


def medians_of(samples: Sequence[dict[str, Any]], keys: Sequence[str]) -> dict[str, float]:
    found = {key: median_of(samples, key) for key in keys}
    return {key: value for key, value in found.items() if value is not None}


def summarize(samples: Sequence[dict[str, Any]]) -> Cell:
    values = [sample["value"] for sample in samples if sample.get("value") is not None]
    return Cell(
        median=statistics.median(values) if values else None,
        low=min(values, default=None),
        high=max(values, default=None),
        noise=median_of(samples, "others") or 0.0,
        client=max((sample.get("client_cpu", 0.0) for sample in samples), default=0.0),
        faults=tuple(sorted({sample["fault"] for sample in samples if sample.get("fault")})),
        latencies=medians_of(samples, list(PERCENTILES)),
        cpu_us=median_of(samples, "cpu_us"),
        held=medians_of(samples, HELD),
    )


def ratio(value: Optional[float], reference: Optional[float]) -> Optional[float]:
    return value / reference if value is not None and reference else None


def times_better(
    value: Optional[float], than: Optional[float], more_is_better: bool
) -> Optional[float]:
    """Over 1 if the first is better; ``None`` if they cannot be compared."""
    return ratio(value, than) if more_is_better else ratio(than, value)


def spread(cell: Cell) -> Optional[float]:
    """Distance from the lowest to the highest round, as a part of the median."""
    if cell.low is None or cell.high is None or not cell.median:
        return None
    return (cell.high - cell.low) / cell.median


def number(value: Optional[float]) -> str:
    """With about three digits; a dash for ``None``."""
    if value is None:
        return "–"
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
