"""One timeout over several blocking steps."""

from __future__ import annotations

import time
from typing import Optional

__all__ = ["Deadline"]


class Deadline:
    """
    The moment at which a timeout expires, on the monotonic clock.

    Args:
        timeout: seconds from now; ``None`` never expires.
    """

    __slots__ = ("at",)

    def __init__(self, timeout: Optional[float]) -> None:
        self.at = None if timeout is None else time.monotonic() + timeout

    def remaining(self) -> Optional[float]:
        """Seconds left, never negative; ``None`` if the deadline never expires."""
        if self.at is None:
            return None
        return max(0.0, self.at - time.monotonic())

    def expired(self) -> bool:
        """Tell whether no time is left."""
        return self.at is not None and time.monotonic() >= self.at
