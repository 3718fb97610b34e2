"""Taking a lock with a timeout, and waiting without one."""

from __future__ import annotations

import collections
import contextlib
import threading
from typing import Callable, Optional

from .deadline import Deadline

__all__ = ["Hold", "Notifier"]

# How late a signal may be noticed that comes just before a wait.
SIGNAL_SLICE = 0.25  # seconds


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


class Notifier:
    """
    A condition without a lock, so that a signal handler may wait for it.

    The thread that it interrupted may be anywhere, in this class too.
    """

    def __init__(self) -> None:
        self._waiters: collections.deque[threading.Lock] = collections.deque()

    def notify(self) -> None:
        """Have all waiting threads look again."""
        for _ in range(len(self._waiters)):
            with contextlib.suppress(IndexError):
                self._waiters.popleft().release()

    def wait_until(self, done: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``done()`` is true, or the deadline; tell which."""
        while True:
            waiter = threading.Lock()
            waiter.acquire()
            # In the queue before looking: a change after the look releases it.
            self._waiters.append(waiter)
            try:
                if done():
                    return True
                remaining = deadline.remaining()
                if remaining == 0:
                    return False
                # In slices: a signal that came just before does not end the wait for a lock.
                waiter.acquire(timeout=min(remaining or SIGNAL_SLICE, SIGNAL_SLICE))
            finally:
                with contextlib.suppress(ValueError):  # released already
                    self._waiters.remove(waiter)
