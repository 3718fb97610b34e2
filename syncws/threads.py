"""Where the threads of connections run, and on what stack."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterable
from typing import Literal, NamedTuple, Optional, Union

__all__ = ["Affinity", "ThreadOptions", "make_thread_options"]

Affinity = Union[Literal["auto"], Iterable[int], None]

# threading.stack_size() is one setting for the process: threads that start meanwhile get it too.
_stack_size_lock = threading.Lock()


class ThreadOptions(NamedTuple):
    """
    How the threads of connections are made.

    Attributes:
        cores: which cores they run on; ``None`` leaves that to the system.
        stack_size: bytes; ``None`` for the default of the platform.
    """

    cores: Optional[frozenset[int]] = None
    stack_size: Optional[int] = None

    def start(self, thread: threading.Thread) -> None:
        """Start a thread; raises what ``Thread.start()`` does."""
        if self.stack_size is None:
            thread.start()
            return
        with _stack_size_lock:
            previous = threading.stack_size(self.stack_size)
            try:
                thread.start()
            finally:
                threading.stack_size(previous)

    def pin(self) -> None:
        """Move the calling thread to its cores; where it already runs, it may go on doing so."""
        if self.cores is not None:
            # A core may have been taken from the process since.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, self.cores)


def make_thread_options(affinity: Affinity, stack_size: Optional[int]) -> ThreadOptions:
    """
    Check what the user gave.

    ``"auto"`` means one core for all threads of the process, chosen by its process number,
    so that several processes spread. It is nothing where threads can't choose (other
    systems than Linux) and where they need not share (without a GIL).

    Raises:
        ValueError: the process can't use one of the cores, or the stack is too small.
        NotImplementedError: threads can't choose cores on this platform.
    """
    if stack_size is not None:
        with _stack_size_lock:
            threading.stack_size(threading.stack_size(stack_size))  # raises for a wrong one
    if affinity is None:
        return ThreadOptions(None, stack_size)
    if affinity == "auto":
        return ThreadOptions(_choose_core(), stack_size)
    if isinstance(affinity, str):
        raise ValueError(f'affinity must be "auto", cores or None, not {affinity!r}')
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("threads can't choose cores on this platform")
    cores = frozenset(affinity)
    usable = os.sched_getaffinity(0)
    if not cores or not cores <= usable:
        raise ValueError(f"affinity must be among the cores {sorted(usable)}, not {sorted(cores)}")
    return ThreadOptions(cores, stack_size)


def _choose_core() -> Optional[frozenset[int]]:
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if not has_gil or not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return frozenset({cores[os.getpid() % len(cores)]})
