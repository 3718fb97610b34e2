"""How long to wait before connecting again."""

from __future__ import annotations

import random as random_module
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Callable, Optional

from .headers import Headers

__all__ = ["backoff", "parse_retry_after"]


def backoff(
    initial_delay: float = 1.0,
    max_delay: float = 60.0,
    factor: float = 2.0,
    min_delay: float = 0.1,
    random: Callable[[], float] = random_module.random,
) -> Iterator[float]:
    """
    Yield delays that grow, without end: exponential backoff with full jitter.

    Each is drawn evenly between ``min_delay`` and a bound, so that the clients of a server that
    went down do not come back all at once.

    Args:
        initial_delay: seconds; bound of the first delay.
        max_delay: seconds; what the bound grows to.
        factor: by which the bound grows each time.
        min_delay: seconds; no delay is shorter.
        random: returns numbers from 0 to 1.

    Raises:
        ValueError: the delays would not grow, or not be between 0 and ``max_delay``.
    """
    if not 0 <= min_delay <= initial_delay <= max_delay or factor < 1:
        raise ValueError(
            "backoff needs 0 <= min_delay <= initial_delay <= max_delay and factor >= 1"
        )
    return _delays(initial_delay, max_delay, factor, min_delay, random)


def _delays(
    bound: float, max_delay: float, factor: float, min_delay: float, random: Callable[[], float]
) -> Iterator[float]:
    while True:
        yield min_delay + random() * (bound - min_delay)
        bound = min(max_delay, bound * factor)


def parse_retry_after(headers: Headers, now: float) -> Optional[float]:
    """
    Return the seconds that a Retry-After header asks to wait (RFC 9110 §10.2.3).

    Args:
        now: seconds since the epoch; where the response has a Date, that counts instead, so
            that clocks need not agree.

    Returns:
        Seconds, not negative; ``None`` if there is no such header, or no sense in it.
    """
    value = next(iter(headers.get_all("Retry-After")), "")
    if value.isascii() and value.isdigit():
        return float(value[:18])  # what is longer is longer than anybody waits
    moment = _parse_date(value)
    if moment is None:
        return None
    date = _parse_date(next(iter(headers.get_all("Date")), ""))
    return max(0.0, moment - (now if date is None else date))


def _parse_date(value: str) -> Optional[float]:
    """Seconds since the epoch of an HTTP-date (RFC 9110 §5.6.7)."""
    try:
        return parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
