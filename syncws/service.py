"""
The service thread: one for the process, for what must happen while the application is busy.

It starts with the first open connection, ends when there is none, and never runs
user code nor waits for a peer. Every tick it looks at each connection, or at some of very
many; between ticks it waits for the sockets of those connections that need it.
"""

from __future__ import annotations

import atexit
import collections
import contextlib
import logging
import os
import selectors
import socket
import threading
import time
from typing import Any, Optional, Protocol

from .opcodes import Close, CloseCode

__all__ = ["READ", "WRITE", "Service", "service"]

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

TICK = 0.1  # seconds
# Connections looked at in a tick. With more of them it takes several ticks to see to all.
LOOKS = 2000
# Ticks without a connection after which the thread ends: connecting again soon is common.
IDLE_TICKS = 2

# How long a program that exits without closing its connections waits for their peers.
GOODBYE = 1.0  # seconds

logger = logging.getLogger("syncws.service")


class Serviced(Protocol):
    """What the service thread knows of a connection."""

    watched: int
    """Events watched for it, READ and WRITE; written by the service thread alone."""

    requested: bool
    """Whether it waits among the requests."""

    def fileno(self) -> int: ...

    def idle(self, now: float) -> bool:
        """Tell cheaply that a tick has nothing to do."""

    def attend(self, now: float) -> int:
        """Do what can be done without waiting; return the events to watch."""

    def settle(self, watch: int) -> int:
        """Agree to a change of what is watched; returns what may be watched."""

    def break_off(self, exc: BaseException) -> None:
        """End the connection after an internal error."""

    def forget(self) -> None:
        """Be closed in a forked child."""

    def request_close(self, close: Close) -> None:
        """Ask for the closing handshake."""


class Service:
    """
    The service thread and its queue of requests.

    Thread safety: ``add``, ``discard`` and ``request`` may be called from any thread;
    ``request`` takes no lock and may be called from a signal handler too.
    """

    def __init__(self) -> None:
        # Guards the thread's start and end. Takes no other lock.
        self._lock = threading.Lock()
        self._thread: Optional[threading.Thread] = None
        self._loop: Optional[_Loop] = None
        self._waker: Optional[socket.socket] = None
        self._hurry = False  # somebody waits for the end
        # Changed by single, atomic operations.
        self._connections: set[Any] = set()
        self._requests: collections.deque[Any] = collections.deque()

    def add(self, connection: Serviced) -> None:
        """Look after an open connection; raises ``RuntimeError`` if no thread can be started."""
        with self._lock:
            self._start_if_needed()
            self._connections.add(connection)

    def discard(self, connection: Serviced) -> None:
        """Forget a connection."""
        self._connections.discard(connection)

    def request(self, connection: Any) -> None:
        """Have a connection attended to at once, unless it is not looked after (any more)."""
        # Once is enough: the mark is cleared before the connection is attended to.
        if connection in self._connections and not connection.requested:
            connection.requested = True
            self._requests.append(connection)
            self._wake()

    def ensure(self) -> None:
        """Start the thread if it does not run; raises ``RuntimeError`` or ``OSError``."""
        with self._lock:
            self._start_if_needed()

    def _wake(self) -> None:
        waker = self._waker
        if waker is not None:
            # Full: it will wake anyway. Closed: nobody is left to attend to.
            with contextlib.suppress(OSError):
                waker.send(b"\0")

    def join(self, timeout: Optional[float]) -> bool:
        """Wait for the thread to end, which it does at once when no connection is left."""
        thread = self._thread
        if thread is not None:
            self._hurry = True
            self._wake()
            thread.join(timeout)
        return self._thread is None

    def forget(self) -> None:
        """Start afresh in a forked child, which has none of the parent's threads."""
        waker, loop, connections = self._waker, self._loop, self._connections
        self.__init__()  # type: ignore[misc] # a fresh object in the place that others refer to
        if waker is not None:
            waker.close()
        if loop is not None:
            loop.close()
        for connection in connections:
            connection.forget()

    def say_goodbye(self) -> None:
        """Close what a program that is about to exit left open, without waiting for long."""
        for connection in self.snapshot():
            connection.request_close(Close(CloseCode.GOING_AWAY))
        if self._connections:
            self.join(GOODBYE)

    def _start_if_needed(self) -> None:
        # It is not alive if Ctrl-C came just before its start.
        if self._thread is None or not self._thread.is_alive():
            self._start()

    def _start(self) -> None:
        receiver, waker = socket.socketpair()
        receiver.setblocking(False)
        waker.setblocking(False)
        selector = None
        try:
            selector = selectors.DefaultSelector()
            loop = _Loop(self, receiver, selector)
            thread = threading.Thread(target=loop.run, name="syncws-service", daemon=True)
            self._waker, self._loop, self._thread = waker, loop, thread
            thread.start()
        except BaseException as exc:
            # Ctrl-C may come when the thread runs already: it is left to it.
            if isinstance(exc, Exception) or self._waker is not waker:
                self._waker = self._loop = self._thread = None
                receiver.close()
                waker.close()
                if selector is not None:
                    selector.close()
            raise

    def snapshot(self) -> list[Any]:
        """The connections, as they are."""
        return list(self._connections)

    @property
    def count(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def take_requests(self) -> list[Any]:
        """The connections that have asked by now; those that ask meanwhile wake the thread."""
        requests = [self._requests.popleft() for _ in range(len(self._requests))]
        for connection in requests:
            connection.requested = False
        return requests

    def end_if_idle(self, idle_ticks: int) -> bool:
        """Let the thread end if no connection has been there for a while."""
        with self._lock:
            if self._thread is not threading.current_thread():
                return True  # there is another one, after a start that Ctrl-C interrupted
            if self._connections or (idle_ticks < IDLE_TICKS and not self._hurry):
                return False
            self._hurry = False
            self._requests.clear()  # of connections that are gone; it would keep them
            self._thread = None
            self._loop = None
            if self._waker is not None:
                self._waker.close()
                self._waker = None
            return True


class _Loop:
    """One run of the service thread. All of it belongs to that thread."""

    def __init__(
        self, owner: Service, receiver: socket.socket, selector: selectors.BaseSelector
    ) -> None:
        self.owner = owner
        self.receiver = receiver
        self.selector = selector
        self.selector.register(receiver, READ)
        # Connections that are yet to be looked at, where a tick is too short for all.
        self._rest: list[Any] = []

    def run(self) -> None:
        try:
            self._run()
        finally:
            self.close()

    def close(self) -> None:
        self.selector.close()
        self.receiver.close()

    def _run(self) -> None:
        idle_ticks = 0
        next_tick = time.monotonic() + TICK
        while True:
            self._wait(next_tick - time.monotonic())
            self._attend_requests()
            if self.owner.end_if_idle(idle_ticks):
                return
            now = time.monotonic()
            if now < next_tick:
                continue
            next_tick = now + TICK
            idle_ticks = 0 if self._tick(now) else idle_ticks + 1

    def _attend_requests(self) -> None:
        # A method of its own, as that for the tick.
        for connection in self.owner.take_requests():
            self._attend(connection)

    def _tick(self, now: float) -> int:
        """Attend to the connections that need it; tell how many there are."""
        # A method of its own, so that nothing here keeps them until the next tick.
        connections = self._rest or self.owner.snapshot()
        self._rest = connections[LOOKS:]
        for connection in connections[:LOOKS]:
            if not connection.idle(now):
                self._attend(connection)
        return self.owner.count

    def _wait(self, timeout: float) -> None:
        for key, _ in self.selector.select(max(0.0, timeout)):
            if key.fileobj is self.receiver:
                with contextlib.suppress(BlockingIOError):
                    self.receiver.recv(4096)
            else:
                self._attend(key.data)

    def _attend(self, connection: Any) -> None:
        try:
            wanted = connection.attend(time.monotonic())
            if wanted != connection.watched:
                self._watch(connection, wanted)
        except Exception as exc:
            # A bug of ours; it costs the connection concerned, not the others.
            logger.error("unexpected internal error", exc_info=True)
            connection.break_off(exc)
            with contextlib.suppress(KeyError, ValueError):  # it may not have been watched yet
                self.selector.unregister(connection)
            connection.settle(0)

    def _watch(self, connection: Any, wanted: int) -> None:
        watched = connection.watched
        if not wanted:
            if watched:
                self.selector.unregister(connection)
            connection.settle(0)
            return
        wanted = connection.settle(wanted)
        if not wanted:
            return
        if watched:
            self.selector.modify(connection, wanted, connection)
        else:
            self.selector.register(connection, wanted, connection)


service = Service()
atexit.register(service.say_goodbye)

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=service.forget)
