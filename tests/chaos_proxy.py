"""
A proxy that does to TCP connections what bad networks do, as a seed has it.

It stands between clients and a server. What it does to the bytes of each direction of a connection
is a ``Plan``: forward them in parts of random sizes, delayed, with pauses; stop after so many
bytes; end that direction, or reset the connection. The same seed makes the same parts and
pauses for the connection with the same number.
"""

from __future__ import annotations

import collections
import contextlib
import random
import selectors
import socket
import struct
import threading
import time
from typing import NamedTuple, Optional

__all__ = ["ChaosProxy", "Plan", "Route"]

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# Bytes of a direction that the proxy holds itself; more wait with the sender.
HELD = 65536

# On close(), drop what waits and send RST instead of FIN.
RESET_ON_CLOSE = struct.pack("ii", 1, 0)

CONNECT_TIMEOUT = 5.0  # seconds


class Plan(NamedTuple):
    """What happens to one direction of a connection; the default is nothing."""

    sizes: tuple[int, int] = (HELD, HELD)  # bytes forwarded at once: between the two
    delay: float = 0.0  # seconds after each part: from 0 to this
    pause: float = 0.0  # seconds of a longer pause
    pause_chance: float = 0.0  # of a pause instead of a delay, for each part
    stall_after: Optional[int] = None  # bytes; what follows is neither forwarded nor taken
    end_after: Optional[int] = None  # bytes; then FIN, and what follows is dropped
    reset_after: Optional[int] = None  # bytes; then RST to both ends


class Route(NamedTuple):
    """The plans for both directions of a connection."""

    up: Plan = Plan()  # from the client to the server
    down: Plan = Plan()


class Stream:
    """
    One direction of a connection: what was taken from one end and not yet given to the other.

    Attributes:
        carried: bytes forwarded.
        parts: in how many parts that was.
    """

    def __init__(self, source, target, plan, rng):
        self.source = source
        self.target = target
        self.carried = 0
        self.parts = 0
        self.due = 0.0  # monotonic time of the next part
        self.ended = False  # FIN was sent to the target, or it is gone
        self.broken = False  # the source was reset: so will be the target, after what came before
        self._plan = plan
        self._random = rng
        self._held = bytearray()
        self._source_ended = False
        self._part = 0  # size of the next part; chosen once, however often it is tried

    @property
    def stalled(self):
        limit = self._plan.stall_after
        return limit is not None and self.carried >= limit

    @property
    def must_reset(self):
        limit = self._plan.reset_after
        if limit is not None and self.carried >= limit:
            return True
        return self.broken and self._source_ended and not self._held

    def wants_input(self):
        return not self.stalled and not self._source_ended and len(self._held) < HELD

    def wants_output(self, now):
        return bool(self._held) and not self.stalled and not self.ended and now >= self.due

    def waits(self, now):
        """Whether there is a part that is not due yet."""
        return self.wants_output(self.due) and now < self.due

    def take(self):
        """Take bytes from the source."""
        try:
            data = self.source.recv(HELD)
        except BlockingIOError:
            return
        except OSError:
            self.broken = True
            data = b""
        if not data:
            self._source_ended = True
        elif not self.ended:
            self._held += data

    def give(self, now):
        """Give the target the part that is due; false if it is gone."""
        if not self._part:
            self._part = self._random.randint(*self._plan.sizes)
        try:
            size = self.target.send(self._held[: self._allowed(self._part)])
        except BlockingIOError:
            return True
        except OSError:
            self.ended = True
            self._held.clear()
            return False
        del self._held[:size]
        self.carried += size
        self.parts += 1
        self._part = 0
        self.due = now + self._choose_pause()
        return True

    def pass_end(self):
        """End the direction if it is time to."""
        limit = self._plan.end_after
        cut = limit is not None and self.carried >= limit
        if not self.ended and (cut or (self._source_ended and not self._held)):
            self.ended = True
            self._held.clear()
            with contextlib.suppress(OSError):  # the target may be gone
                self.target.shutdown(socket.SHUT_WR)

    def is_over(self):
        return self.ended and self._source_ended

    def _allowed(self, size):
        """No part goes beyond the byte at which something is to happen."""
        plan = self._plan
        for limit in (plan.stall_after, plan.end_after, plan.reset_after):
            if limit is not None:
                size = min(size, limit - self.carried)
        return size

    def _choose_pause(self):
        plan = self._plan
        if plan.pause_chance and self._random.random() < plan.pause_chance:
            return plan.pause
        return self._random.uniform(0, plan.delay) if plan.delay else 0.0


class Tunnel:
    """
    A connection through the proxy.

    Attributes:
        up, down: its streams.
        was_reset: whether the proxy reset it, by plan or since one end did.
        over: whether the proxy has closed it.
    """

    def __init__(self, client, server, route, seed):
        self.up = Stream(client, server, route.up, random.Random(f"{seed} up"))
        self.down = Stream(server, client, route.down, random.Random(f"{seed} down"))
        self.was_reset = False
        self.over = False

    @property
    def sockets(self):
        return self.up.source, self.down.source

    def close(self):
        self.over = True
        for sock in self.sockets:
            if self.was_reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            sock.close()

    def events(self, sock, now):
        """What to watch a socket for."""
        incoming, outgoing = self._streams_of(sock)
        wanted = READ if incoming.wants_input() else 0
        return wanted | (WRITE if outgoing.wants_output(now) else 0)

    def work(self, sock, events, now):
        """Take from and give to a socket that is ready."""
        incoming, outgoing = self._streams_of(sock)
        if events & READ and incoming.wants_input():
            incoming.take()
        if events & WRITE and outgoing.wants_output(now) and not outgoing.give(now):
            incoming.broken = True

    def _streams_of(self, sock):
        """The stream that comes from a socket, and the one that goes to it."""
        return (self.up, self.down) if sock is self.up.source else (self.down, self.up)

    def settle(self):
        """Do what the plans have for the bytes carried so far; tell whether it goes on."""
        self.was_reset = self.was_reset or self.up.must_reset or self.down.must_reset
        if self.was_reset:
            return False
        self.up.pass_end()
        self.down.pass_end()
        return not (self.up.is_over() and self.down.is_over())


class ChaosProxy:
    """
    The proxy: listens on loopback and forwards to a server; a context manager.

    Args:
        target: host and port that connections are forwarded to.
        route: the ``Route`` of all connections, or a function that returns that of one, called
            with its number (from 0) and a ``random.Random``.
        seed: of all that is random.
        buffer: bytes of the kernel's buffers for each socket; ``None`` leaves them alone.

    Attributes:
        server_address: where clients connect to.
        tunnels: all connections there were, in order.
    """

    def __init__(self, target, route=Route(), *, seed=0, buffer=None):  # noqa: B008 # it is constant
        self._target = tuple(target[:2])
        self._choose_route = route if callable(route) else lambda number, rng: route
        self._seed = seed
        self._buffer = buffer
        self._frozen = False  # stop() was called
        self._ending = False
        self._orders = collections.deque()  # filled by other threads, emptied by the proxy's
        self.tunnels = []
        self._open = []
        self._watched = {}
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self._limit_buffers(self._listener)  # what it accepts inherits that
        self._listener.setblocking(False)
        self.server_address = self._listener.getsockname()
        self._selector = selectors.DefaultSelector()
        self._wakee, self._waker = socket.socketpair()
        self._selector.register(self._wakee, READ)
        self._selector.register(self._listener, READ)
        self._thread = threading.Thread(target=self._run, name="chaos-proxy", daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc_info):
        self._order(self._end)
        self._thread.join()
        for thing in (self._selector, self._listener, self._wakee, self._waker):
            thing.close()

    def count(self, direction):
        """Bytes that were forwarded ``up`` or ``down``, on all connections."""
        self._order(lambda: None)  # now it has counted all that its targets may have seen
        return sum(getattr(tunnel, direction).carried for tunnel in self.tunnels)

    def stop(self):
        """Forward nothing more, as if all cables were cut; connections stay as they are."""
        self._order(self._freeze, True)

    def go_on(self):
        """Forward again after ``stop()``."""
        self._order(self._freeze, False)

    def reset(self):
        """Reset all connections, at once."""
        self._order(self._reset)

    # Its own thread

    def _order(self, function, *args):
        """Have the proxy's thread call a function, and wait until it did."""
        done = threading.Event()
        self._orders.append((function, args, done))
        self._waker.send(b"\0")
        assert done.wait(CONNECT_TIMEOUT * 2), "the proxy hangs"

    def _freeze(self, frozen):
        self._frozen = frozen

    def _reset(self):
        for tunnel in list(self._open):
            tunnel.was_reset = True
            self._drop(tunnel)

    def _end(self):
        self._ending = True
        self._reset()

    def _run(self):
        timeout = None
        while not self._ending:
            ready = self._selector.select(timeout)
            now = time.monotonic()
            for key, events in ready:
                if key.fileobj is self._wakee:
                    self._wakee.recv(4096)
                elif key.fileobj is self._listener:
                    self._accept()
                elif not self._frozen:
                    self._serve(key.data, key.fileobj, events, now)
            while self._orders:
                function, args, done = self._orders.popleft()
                function(*args)
                done.set()
            timeout = self._watch_all(time.monotonic())

    def _watch_all(self, now):
        """Tell the selector what to wait for; returns the seconds until the next part is due."""
        dues = []
        for tunnel in self._open:
            self._watch(tunnel, now)
            for stream in (tunnel.up, tunnel.down):
                if not self._frozen and stream.waits(now):
                    dues.append(stream.due - now)
        return min(dues, default=None)

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        number = len(self.tunnels)
        seed = f"{self._seed} {number}"
        route = self._choose_route(number, random.Random(seed))
        try:
            server = self._connect()
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.close()
            return
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        tunnel = Tunnel(client, server, route, seed)
        self.tunnels.append(tunnel)
        self._open.append(tunnel)
        if not tunnel.settle():  # a plan may reset it before the first byte
            self._drop(tunnel)

    def _connect(self):
        sock = socket.socket()
        try:
            self._limit_buffers(sock)
            sock.settimeout(CONNECT_TIMEOUT)
            sock.connect(self._target)
        except BaseException:
            sock.close()
            raise
        return sock

    def _limit_buffers(self, sock):
        if self._buffer is not None:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, self._buffer)

    def _serve(self, tunnel, sock, events, now):
        if tunnel.over:
            return  # since the selector told
        tunnel.work(sock, events, now)
        if not tunnel.settle():
            self._drop(tunnel)

    def _drop(self, tunnel):
        for sock in tunnel.sockets:
            if self._watched.pop(sock, 0):
                self._selector.unregister(sock)
        tunnel.close()
        self._open.remove(tunnel)

    def _watch(self, tunnel, now):
        for sock in tunnel.sockets:
            watched = self._watched.get(sock, 0)
            wanted = 0 if self._frozen else tunnel.events(sock, now)
            if wanted == watched:
                continue
            if not wanted:
                self._selector.unregister(sock)
            elif watched:
                self._selector.modify(sock, wanted, tunnel)
            else:
                self._selector.register(sock, wanted, tunnel)
            self._watched[sock] = wanted
