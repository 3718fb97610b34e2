"""Taking a lock with a timeout."""

from __future__ import annotations

import threading
from typing import Optional

__all__ = ["Hold"]


class Hold:
    """
    A lock that a thread takes with a timeout, to be released in a ``finally``::

        hold = Hold(lock)
        try:
            if hold.take(timeout):
                ...
        finally:
            if hold.taken:
                lock.release()

    Whether it was taken is noted by C code, as :mod:`syncws.transport` explains: an exception
    of a signal handler in between can't lose the lock. For the same reason there is no
    ``release()`` here: it could be interrupted as it is entered.
    """

    __slots__ = ("_lock", "taken")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self.taken: list[bool] = []

    def take(self, timeout: Optional[float]) -> bool:
        """Take the lock within ``timeout`` seconds; ``None`` waits for ever."""
        seconds = -1 if timeout is None else min(max(0.0, timeout), threading.TIMEOUT_MAX)
        self.taken.extend(filter(None, map(self._lock.acquire, (True,), (seconds,))))
        return bool(self.taken)
