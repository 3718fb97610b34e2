"""The threads of connections: where they run, on what stack, and for how many connections."""

from __future__ import annotations

import collections
import contextlib
import contextvars
import os
import sys
import threading
from collections.abc import Iterable
from typing import Callable, Literal, NamedTuple, Optional, Union

from .speedups import append_result

__all__ = ["Affinity", "ConnectionThread", "Crew", "ThreadOptions", "make_thread_options"]

Affinity = Union[Literal["auto"], Iterable[int], None]

# How long a thread whose connection has ended waits for another one. Under load the next one comes
# at once; else it is as if the thread had ended with its connection.
LINGER = 0.02  # seconds

# Threads that wait so at the same time.
MAX_SPARE = 32

# threading.stack_size() is one setting for the process: threads that start meanwhile get it too.
_stack_size_lock = threading.Lock()


class ThreadOptions(NamedTuple):
    """
    How the threads of connections are made.

    Attributes:
        cores: which cores they run on; ``None`` leaves that to the system.
        stack_size: bytes; ``None`` for the default of the platform.
        reuse: whether a thread may live the life of one connection after the other.
    """

    cores: Optional[frozenset[int]] = None
    stack_size: Optional[int] = None
    reuse: bool = True

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


Job = Callable[[], object]

# A deque takes more than half a KiB: none is kept while a job is done.
_NO_JOB: collections.deque[Job] = collections.deque()


class ConnectionThread(threading.Thread):
    """
    A thread that does one job after the other, as long as the next one comes at once.

    Starting and ending a thread costs about as much as all the rest of an opening handshake.

    Thread safety: ``give()`` and ``dismiss()`` are for whoever has taken it out of its crew. A job
    is passed on in a deque of its own, and done by whoever takes it out of there.
    """

    NAME = "syncws-connection"

    def __init__(self, crew: Crew, daemon: bool) -> None:
        super().__init__(name=self.NAME, daemon=daemon)
        self._crew = crew
        self._job = _NO_JOB
        self._wake = threading.Lock()
        self._wake.acquire()

    def give(self, job: collections.deque[Job]) -> None:
        """
        Have it do a job; raises what ``Thread.start()`` does, if it must be started.

        After any exception: if the job is still in the deque, take it out, and dismiss the thread.
        """
        self._job = job
        if self.ident is None:
            self._crew.options.start(self)
        else:
            self._wake.release()

    def dismiss(self) -> None:
        """Have it end, if it waits for a job."""
        with contextlib.suppress(RuntimeError):  # it was woken a moment ago
            self._wake.release()

    def run(self) -> None:
        """Do jobs; each finds the context variables as they were for the first one."""
        context = contextvars.copy_context()
        while self._job:
            try:
                job = self._job.popleft()
            except IndexError:
                return
            self._job = _NO_JOB
            context.copy().run(job)
            del job  # it refers to a connection
            if self._crew.has_room():
                self._await_job()

    def _await_job(self) -> None:
        """Wait a moment for a job."""
        spare = self._crew.spare
        self.name = self.NAME  # which the last one may have changed
        spare.append(self)
        if self._wake.acquire(timeout=0 if self._crew.closed else self._crew.linger):
            return
        with contextlib.suppress(ValueError):
            spare.remove(self)
            return
        self._wake.acquire()  # somebody has taken it, and is about to wake it


class Crew:
    """
    The threads of a server's connections.

    Thread safety: a thread that waits for a job is in ``spare``, and belongs to whoever takes it
    out of there. All methods may be called from any thread, and from signal handlers.
    """

    def __init__(self, options: ThreadOptions, *, linger: float = LINGER) -> None:
        self.options = options
        self.linger = linger  # seconds
        self.spare: collections.deque[ConnectionThread] = collections.deque()
        self.closed = False
        self._process = os.getpid()

    def has_room(self) -> bool:
        """Whether another thread may wait for a job."""
        return self.options.reuse and not self.closed and len(self.spare) < MAX_SPARE

    def take(self, taken: list[ConnectionThread], daemon: bool = True) -> ConnectionThread:
        """
        A thread without a job, which its first one starts.

        Args:
            taken: gets it, if it waits to be woken; no exception can come in between.
            daemon: whether a fresh one is a daemon thread.
        """
        if self._process != os.getpid():
            self._process = os.getpid()
            self.spare.clear()  # a forked child has none of the parent's threads
        try:
            append_result(taken, self.spare.pop)
        except IndexError:
            return ConnectionThread(self, daemon)
        return taken[-1]

    def close(self) -> None:
        """Have threads end that wait for a job, and let no more of them wait."""
        self.closed = True
        taken: list[ConnectionThread] = []
        try:
            self._take_all(taken)
        finally:
            for thread in taken:
                thread.dismiss()

    def _take_all(self, taken: list[ConnectionThread]) -> None:
        with contextlib.suppress(IndexError):  # the last one went by itself just now
            while True:
                append_result(taken, self.spare.pop)

    def forget(self) -> None:
        """Have no threads, in a forked child."""
        self.closed = True
        self.spare.clear()


def make_thread_options(
    affinity: Affinity, stack_size: Optional[int], reuse: bool = True
) -> ThreadOptions:
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
        return ThreadOptions(None, stack_size, reuse)
    if affinity == "auto":
        return ThreadOptions(_choose_core(), stack_size, reuse)
    if isinstance(affinity, str):
        raise ValueError(f'affinity must be "auto", cores or None, not {affinity!r}')
    if not hasattr(os, "sched_setaffinity"):
        raise NotImplementedError("threads can't choose cores on this platform")
    cores = frozenset(affinity)
    usable = os.sched_getaffinity(0)
    if not cores or not cores <= usable:
        raise ValueError(f"affinity must be among the cores {sorted(usable)}, not {sorted(cores)}")
    return ThreadOptions(cores, stack_size, reuse)


def _choose_core() -> Optional[frozenset[int]]:
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if not has_gil or not hasattr(os, "sched_getaffinity"):
        return None
    cores = sorted(os.sched_getaffinity(0))
    return frozenset({cores[os.getpid() % len(cores)]})
