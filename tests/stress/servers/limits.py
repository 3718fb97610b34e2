"""
The server under test for the limits: that of ``echo.py``, and calls that are timed in its process.

/held     the handler does nothing until the connection is closed; calls are made on it from outside
/receive  the handler receives and throws away

Its further commands tell what they measured in seconds. Settings: as for ``echo.py``, and ``user``,
an identifier of a user to become, or null.
"""

from __future__ import annotations

import hashlib
import os
import resource
import struct
import threading
import time

from peers import Task
from servers.echo import EchoServers, run

from syncws import ConnectionClosed, broadcast

CHUNK = bytes(65536)
SENDERS = 3
PATIENCE = 60  # seconds; what takes so long hangs

# Of a broadcast message: when it was made, its number, and a hash of all that.
STAMP = struct.Struct("!dI8s")


def timed(function, *args, **kwargs):
    """Call a function; how long it took, and what it raised, in a word."""
    began = time.monotonic()
    try:
        function(*args, **kwargs)
        end = "returned"
    except Exception as exc:
        end = type(exc).__name__
    return {"seconds": time.monotonic() - began, "end": end}


def fill(connection):
    """Send until the peer's window and the outbox are full."""
    try:
        while True:
            connection.send(CHUNK, compress=False, timeout=0.3)
    except TimeoutError:
        return


def send_for_ever(connection):
    """Send until it fails; the last call counts."""
    while True:
        call = timed(connection.send, CHUNK, compress=False)
        if call["end"] != "returned":
            return call


def make_stamped(number, size):
    """A message of ``size`` bytes that tells when it was made."""
    body = number.to_bytes(4, "big") * ((size - STAMP.size) // 4)
    now = time.monotonic()
    digest = hashlib.blake2b(struct.pack("!dI", now, number) + body, digest_size=8).digest()
    return STAMP.pack(now, number, digest) + body


class LimitServers(EchoServers):
    """Servers that also keep connections for calls from outside."""

    def __init__(self, options, certificate):
        self._held = []
        self.handlers = {**self.handlers, "/held": self._hold, "/receive": self._receive}
        super().__init__(options, certificate)

    def commands(self):
        return {
            **super().commands(),
            "count_held": lambda: len(self._held),
            "fill": self.fill,
            "time_send": self.time_send,
            "time_calls": self.time_calls,
            "time_close": self.time_close,
            "time_close_while_sending": self.time_close_while_sending,
            "time_shutdown": self.time_shutdown,
            "time_broadcasts": self.time_broadcasts,
            "become": self.become,
            "limit": self.limit,
        }

    def fill(self, *indexes):
        """Fill outboxes of held connections."""
        filling = [Task(fill, self._held[index]) for index in indexes]
        for task in filling:
            task.result(PATIENCE)
        return [self._held[index].stats()["outbox_bytes"] for index in indexes]

    def time_send(self, index):
        """The call of ``send()`` that fails on a held connection."""
        return send_for_ever(self._held[index])

    def time_calls(self, index):
        """Calls with a timeout of a second on a held connection, all at the same time."""
        connection = self._held[index]
        calls = {
            "recv": Task(timed, connection.recv, 1),
            "send": Task(timed, connection.send, CHUNK, timeout=1),
            "ping": Task(timed, lambda: connection.ping().wait(1)),
            "pong": Task(timed, connection.pong),
        }
        return {name: task.result(PATIENCE) for name, task in calls.items()}

    def time_close(self, index):
        """``close()`` on a held connection."""
        return timed(self._held[index].close)

    def time_close_while_sending(self, index):
        """``close()`` while threads are blocked in ``send()``; and those threads."""
        connection = self._held[index]
        senders = [Task(send_for_ever, connection) for _ in range(SENDERS)]
        threading.Event().wait(0.3)
        close = timed(connection.close)
        return {"close": close, "senders": [task.result(PATIENCE) for task in senders]}

    def time_shutdown(self, timeout):
        """``shutdown()`` of all servers, and its reports."""
        found = []
        for server in self._servers:
            began = time.monotonic()
            report = server.shutdown(timeout=timeout)
            found.append(
                {
                    "seconds": time.monotonic() - began,
                    "closed": report.closed,
                    "aborted": report.aborted,
                    "running": [running.stack for running in report.running],
                }
            )
        return found

    def time_broadcasts(self, count, rate, size, policy):
        """
        Broadcast to all connections of the first server.

        Args:
            count: how many messages.
            rate: messages per second.
            size: bytes of a message.
            policy: ``on_full``.
        """
        totals, slowest, nobody = [0, 0, 0, 0], 0.0, threading.Event()
        began = time.monotonic()
        for number in range(count):
            nobody.wait(max(0.0, began + number / rate - time.monotonic()))
            called = time.monotonic()
            result = broadcast(
                self._servers[0].connections, make_stamped(number, size), on_full=policy
            )
            slowest = max(slowest, time.monotonic() - called)
            totals = [total + more for total, more in zip(totals, result)]
        names = ("sent", "queued", "dropped", "closed")
        return {
            "seconds": time.monotonic() - began,
            "slowest": slowest,
            **dict(zip(names, totals)),
        }

    def become(self, user):
        """Become another user, for good."""
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)

    def limit(self, kind, soft):
        """Set a soft limit of this process; ``None`` for all that is allowed."""
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (hard if soft is None else soft, hard))

    def _hold(self, connection):
        self._held.append(connection)
        connection.wait_closed()

    def _receive(self, connection):
        try:
            while True:
                connection.recv()
        except ConnectionClosed:
            return


if __name__ == "__main__":
    run(LimitServers)
