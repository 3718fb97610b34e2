"""
Healthy clients, as a program: each message that they send must come back exactly, and in time.

Clients send a message every ``pace`` seconds, with their number, its number and its hash, and wait
for its echo. A visitor connects, has one message echoed, closes, and comes again, all along.
They have a small codec of their own, not that of the library.

Settings: ``address``, ``authority`` (a file with a certificate, for TLS, or null), ``count``,
``pace`` in seconds, ``seed``.
"""

from __future__ import annotations

import hashlib
import json
import random
import socket
import ssl
import sys
import threading
import time

from links import handshake
from peers import BINARY, CLOSE, FIN, PING, PONG, TEXT, Wire
from programs import obey

VISIT_PAUSE = 0.1  # seconds
LETTERS = "".join(map(chr, range(0x20, 0x7F))) + "äöüß€𝄞"


class Unhealthy(Exception):
    """The server did not do as it should."""


class Times:
    """How long things took, from any thread; since the last look."""

    def __init__(self):
        self._seconds = []

    def add(self, seconds):
        self._seconds.append(seconds)

    def take(self):
        """Number, median, 90th and 99th percentile and maximum; starts afresh."""
        taken, self._seconds = sorted(self._seconds), []
        if not taken:
            return {"count": 0, "p50": 0.0, "p90": 0.0, "p99": 0.0, "max": 0.0}
        last = len(taken) - 1
        return {
            "count": len(taken),
            "p50": taken[last // 2],
            "p90": taken[round(last * 0.9)],
            "p99": taken[round(last * 0.99)],
            "max": taken[last],
        }


class Client:
    """One connection and what was said on it."""

    def __init__(self, connect, name, rng):
        self._wire = Wire(connect(), masks=True)
        self._name = name
        self._random = rng
        self._number = 0

    def exchange(self):
        """Send a message and check its echo; returns the seconds it took."""
        opcode, payload = self._make_message()
        began = time.monotonic()
        self._wire.send(opcode, payload)
        head, echoed = self._receive()
        took = time.monotonic() - began
        if (head, echoed) != (FIN | opcode, payload):
            raise Unhealthy(f"{self._name}: {echoed[:60]!r} came back for {payload[:60]!r}")
        return took

    def leave(self):
        """Close; nothing may come but the answer."""
        self._wire.send_close(1000)
        frames = [frame for frame in self._wire.end() if frame[0] & 0x0F != PING]
        if [head for head, _ in frames] != [FIN | CLOSE]:
            raise Unhealthy(f"{self._name}: {str(frames)[:60]} instead of the close frame")

    def _make_message(self):
        opcode = self._random.choice((TEXT, BINARY))
        size = self._random.choices((100, 1000, 16384, 65536), (50, 40, 9, 1))[0]
        if opcode == TEXT:
            body = "".join(self._random.choices(LETTERS, k=64)).encode() * (size // 64)
        else:
            body = self._random.getrandbits(8 * size).to_bytes(size, "big")
        self._number += 1
        label = f"{self._name} {self._number} ".encode()
        digest = hashlib.blake2b(label + body, digest_size=8).hexdigest()
        return opcode, label + digest.encode() + b" " + body

    def _receive(self):
        while True:
            frame = self._wire.receive()
            if frame is None:
                raise Unhealthy(f"{self._name}: the server ended the connection")
            head, payload = frame
            if head == FIN | CLOSE:
                raise Unhealthy(f"{self._name}: the server closed with {payload!r}")
            if head != FIN | PING:
                return frame
            self._wire.send(PONG, payload)


class Crowd:
    """All clients and the visitor, each in a thread of its own."""

    def __init__(self, address, authority, count, pace, seed):
        self._address = tuple(address)
        self._context = None
        if authority is not None:
            self._context = ssl.create_default_context(cafile=authority)
        self._pace = pace
        self._stop = threading.Event()
        self._ready = threading.Semaphore(0)
        self.echoes = Times()
        self.visits = Times()
        self.errors = []
        jobs = [(self._live, random.Random(seed * 1000 + i), i) for i in range(count)]
        jobs.append((self._visit, random.Random(seed * 1000 + count), count))
        self._threads = [threading.Thread(target=self._work, args=job) for job in jobs]
        for thread in self._threads:
            thread.start()

    def wait_ready(self):
        """Wait until all clients have had an echo."""
        for _ in self._threads:
            self._ready.acquire(timeout=30)
        return self.errors

    def report(self):
        """Times and errors since the last report."""
        return {
            "echoes": self.echoes.take(),
            "visits": self.visits.take(),
            "errors": self.errors[:10],
        }

    def leave(self):
        """Close all connections; the errors there were."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        return self.errors[:10]

    def _work(self, function, rng, number):
        try:
            function(rng, number)
        except Exception as exc:
            self.errors.append(f"{type(exc).__name__}: {exc}")
            self._ready.release()

    def _live(self, rng, number):
        client = Client(self._connect, f"client-{number}", rng)
        client.exchange()
        self._ready.release()
        while not self._stop.wait(rng.uniform(0.5, 1.5) * self._pace):
            self.echoes.add(client.exchange())
        client.leave()

    def _visit(self, rng, number):
        visits = 0
        while not self._stop.wait(VISIT_PAUSE):
            visits += 1
            began = time.monotonic()
            client = Client(self._connect, f"visitor-{visits}", rng)
            client.exchange()
            self.visits.add(time.monotonic() - began)
            client.leave()
            if visits == 1:
                self._ready.release()

    def _connect(self):
        sock = socket.create_connection(self._address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._context is not None:
            sock = self._context.wrap_socket(sock, server_hostname="127.0.0.1")
        handshake(sock)
        return sock


def main():
    crowd = Crowd(**json.loads(sys.argv[1]))
    obey({"wait_ready": crowd.wait_ready, "report": crowd.report, "leave": crowd.leave})


if __name__ == "__main__":
    main()
