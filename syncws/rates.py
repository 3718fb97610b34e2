"""How much a peer may send in a while: a limit, and the meter that holds one peer to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, Optional

__all__ = ["Meter", "RateLimit"]


@dataclass(frozen=True)
class RateLimit:
    """
    How much a peer may send per second, for ``serve(..., rate_limit=...)``.

    *Thread safety*: immutable; any number of servers may share it.

    Args:
        messages: messages per second, control frames included; ``None`` for no limit.
        bytes: bytes per second, as they come from the socket (or TLS); ``None`` for no limit.
        burst: seconds' worth that may come at once after a pause.
        on_excess: ``"slow"`` reads no faster than this, so that TCP holds the peer back;
            ``"close"`` closes the connection with 1008.

    Raises:
        ValueError: a number is not positive, or ``on_excess`` is neither of the two.
    """

    messages: Optional[float] = None
    bytes: Optional[float] = None
    burst: float = 1.0
    on_excess: Literal["slow", "close"] = "slow"

    def __post_init__(self) -> None:
        for name in ("messages", "bytes", "burst"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name} must be positive, not {value}")
        if self.on_excess not in ("slow", "close"):
            raise ValueError(f"on_excess must be 'slow' or 'close', not {self.on_excess!r}")


class Meter:
    """
    What one peer sent lately, held against a limit. Under the reader role; told the time.

    Args:
        limit: what is allowed.
        now: seconds of a monotonic clock.
    """

    def __init__(self, limit: RateLimit, now: float) -> None:
        self.limit = limit
        self._messages = _Bucket(limit.messages, limit.burst, now)
        self._bytes = _Bucket(limit.bytes, limit.burst, now)

    def take(self, messages: int, size: int, now: float) -> None:
        """Count messages and bytes that were received."""
        self._messages.add(messages, now)
        self._bytes.add(size, now)

    def delay(self, now: float) -> float:
        """Seconds until the peer is within its limit again; 0.0 if it is."""
        return max(self._messages.delay(now), self._bytes.delay(now))


class _Bucket:
    """A leaky bucket: it holds what came, and leaks at the rate that is allowed."""

    __slots__ = ("_capacity", "_level", "_rate", "_seen")

    def __init__(self, rate: Optional[float], burst: float, now: float) -> None:
        self._rate = math.inf if rate is None else rate
        # One message or byte always fits, however low the rate.
        self._capacity = max(1.0, self._rate * burst)
        self._level = 0.0
        self._seen = now

    def add(self, amount: int, now: float) -> None:
        if self._rate != math.inf:
            self._level = max(0.0, self._level - (now - self._seen) * self._rate) + amount
            self._seen = now

    def delay(self, now: float) -> float:
        over = self._level - self._capacity
        if over <= 0:
            return 0.0
        return max(0.0, over / self._rate - (now - self._seen))
