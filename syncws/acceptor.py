"""The accept loop of a server, and what it refuses without spending a thread."""

from __future__ import annotations

import collections
import contextlib
import errno
import logging
import selectors
import signal
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable, Optional, Union

__all__ = ["Acceptor"]

# Connections taken from the backlog before looking at anything else.
BATCH = 64

# Pause after accept() failed for want of descriptors or memory: short enough to be back within
# a second of relief, long enough to cost nothing.
BACKOFF = 0.25  # seconds

# Refused connections get the time to read the answer: closing at once, with the request
# unread, would reset the connection and destroy it.
REFUSAL_LINGER = 1.0  # seconds
MAX_REFUSALS = 64

# The peer went away while it was in the backlog: no fault of ours.
_GONE = {errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN, errno.ENETUNREACH}


class Acceptor:
    """
    Accepts connections until it is stopped.

    Thread safety: ``run()`` belongs to one thread; ``stop()`` may be called from any thread
    and from a signal handler.

    Args:
        listener: listening socket; made non-blocking.
        accept: accepts a connection, or raises ``OSError``.
        failed: called when ``accept`` failed.
        tick: called each time before waiting; returns when to call it again at the latest, in
            seconds of the monotonic clock, or ``None``.
        log: for what goes wrong.
    """

    def __init__(
        self,
        listener: socket.socket,
        accept: Callable[[], None],
        *,
        failed: Callable[[], None],
        tick: Callable[[], Optional[float]],
        log: Union[logging.Logger, logging.LoggerAdapter[Any]],
    ) -> None:
        self._listener = listener
        self._accept = accept
        self._failed = failed
        self._tick = tick
        self._log = log
        self._stopping = False
        self._paused = False
        self._failing = False
        self._resume_at: Optional[float] = None
        self._selector = selectors.DefaultSelector()
        self._receiver, self._waker = socket.socketpair()
        self._receiver.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._receiver, selectors.EVENT_READ)
        # Refused sockets and when to close them, oldest first.
        self._refusals: collections.OrderedDict[socket.socket, float] = collections.OrderedDict()
        listener.setblocking(False)

    def stop(self) -> None:
        """Make ``run()`` return soon; takes no lock."""
        self._stopping = True
        self.wake()

    def wake(self) -> None:
        """Have ``tick`` called soon; takes no lock."""
        with contextlib.suppress(OSError):
            self._waker.send(b"\0")

    def pause(self, backlog: int = 0) -> None:
        """Accept no more, but up to ``backlog`` connections that wait already; for ``tick``."""
        if not self._paused:
            if self._resume_at is None:
                self._accept_batch(backlog)
            self._paused = True
            self._resume_at = None
            with contextlib.suppress(KeyError):  # not registered while backing off
                self._selector.unregister(self._listener)

    def forget(self) -> None:
        """Give back the descriptors in a forked child; what the parent's have is left alone."""
        # Unregistering would act on the parent's epoll instance, too.
        for sock in [*self._refusals, self._receiver, self._waker]:
            sock.close()
        self._selector.close()
        self._stopping = True
        self._cut_ties()

    def _cut_ties(self) -> None:
        # They refer to the server, which refers to this: it would wait for the garbage collector.
        self._accept = self._failed = self._tick = _do_nothing

    def close(self) -> None:
        """Give back all descriptors but the listener's. After ``run()``, or instead of it."""
        for sock in list(self._refusals):
            self._drop(sock)
        self._selector.close()
        self._receiver.close()
        self._waker.close()
        self._cut_ties()

    def run(self) -> None:
        """Accept connections until ``stop()``."""
        self._paused = False
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            with self._woken_by_signals():
                self._run()
        finally:
            self.pause()

    @contextlib.contextmanager
    def _woken_by_signals(self) -> Iterator[None]:
        """Have a signal end a select() that it came just before, so that its handler runs."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.set_wakeup_fd(self._waker.fileno(), warn_on_full_buffer=False)
        if previous != -1:
            signal.set_wakeup_fd(previous)  # somebody else is woken
        try:
            yield
        finally:
            if previous == -1:
                signal.set_wakeup_fd(-1)

    def _run(self) -> None:
        while not self._stopping:
            ready = self._selector.select(self._timeout(self._tick()))
            if self._stopping:
                return
            for key, _ in ready:
                if key.fileobj is self._listener:
                    self._accept_batch()
                elif key.fileobj is self._receiver:
                    with contextlib.suppress(BlockingIOError):
                        self._receiver.recv(4096)
                else:
                    self._read_refused(key.fileobj)
            self._end_refusals()
            self._resume()

    def _timeout(self, tick_at: Optional[float]) -> Optional[float]:
        moments = [m for m in (tick_at, self._resume_at, self._next_refusal()) if m is not None]
        return max(0.0, min(moments) - time.monotonic()) if moments else None

    def _accept_batch(self, size: int = BATCH) -> None:
        for _ in range(size):
            if self._stopping:
                return  # the listener may be closed by a signal handler
            try:
                self._accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno not in _GONE and not self._stopping:
                    self._failed()
                    self._back_off(exc)
                    return
            else:
                self._failing = False

    def _back_off(self, exc: OSError) -> None:
        """Stop accepting for a moment; say so once for a row of failures."""
        if not self._failing:
            self._failing = True
            self._log.error("accepting connections fails: %s; trying again until it works", exc)
        with contextlib.suppress(KeyError):
            self._selector.unregister(self._listener)
        self._resume_at = time.monotonic() + BACKOFF

    def _resume(self) -> None:
        if self._resume_at is not None and time.monotonic() >= self._resume_at:
            self._resume_at = None
            self._selector.register(self._listener, selectors.EVENT_READ)

    def refuse(self, sock: socket.socket, answer: bytes) -> None:
        """Send ``answer`` as far as the kernel takes it, and close when the peer has read it."""
        try:
            sock.setblocking(False)
            if answer:
                sock.send(answer)
            sock.shutdown(socket.SHUT_WR)
        except OSError:
            sock.close()
            return
        if len(self._refusals) >= MAX_REFUSALS:
            self._drop(next(iter(self._refusals)))
        self._selector.register(sock, selectors.EVENT_READ)
        self._refusals[sock] = time.monotonic() + REFUSAL_LINGER

    def _read_refused(self, sock: Any) -> None:
        if sock not in self._refusals:
            return  # dropped for a later one since select() reported it
        try:
            if sock.recv(65536):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._drop(sock)

    def _next_refusal(self) -> Optional[float]:
        return next(iter(self._refusals.values())) if self._refusals else None

    def _end_refusals(self) -> None:
        now = time.monotonic()
        while self._refusals and next(iter(self._refusals.values())) <= now:
            self._drop(next(iter(self._refusals)))

    def _drop(self, sock: socket.socket) -> None:
        if self._refusals.pop(sock, None) is not None:
            self._selector.unregister(sock)
            sock.close()


def _do_nothing() -> None:
    """What a closed acceptor calls."""
