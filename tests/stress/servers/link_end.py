"""
One end of a link: servers and clients of a process that lives in a network namespace.

Settings: ``namespace`` (a name under /run/netns, or null), ``certificate`` (a file with chain and
key, for servers) and ``authority`` (a file with the certificate that clients trust).

Times in answers are those of ``time.monotonic()``, one clock for all processes of a machine.
"""

from __future__ import annotations

import hashlib
import json
import pathlib
import random
import ssl
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from namespaces import enter_namespace  # it is in the folder above
from programs import obey, use_paths

use_paths()

from links import echo  # noqa: E402 # it needs the path

from syncws import (  # noqa: E402 # it needs the path
    ConnectionClosed,
    ConnectionClosedError,
    InvalidHandshake,
    connect,
    serve,
)

# Of messages that are sent without end: what the kernel takes of one, it takes at about once.
LARGE = 16384  # bytes

# What may come of connecting and talking when the network does its worst: an end without a
# Close frame from the peer, or what connect() documents.
BAD_OPENINGS = (InvalidHandshake, OSError)


def tell_end(connection, kind, exc, blocked_at):
    """What a connection's thread knows of its end; ``blocked_at``: when its last call began."""
    return {
        "kind": kind,
        "code": connection.close_code,
        "error": str(exc),
        "cause": repr(exc.__cause__),
        "at": time.monotonic(),
        "blocked_at": blocked_at,
    }


def receive_all(connection):
    """Receive until the end, which is returned, and when the last call began."""
    try:
        while True:
            began = time.monotonic()
            connection.recv()
    except ConnectionClosed as exc:
        return exc, began


def send_without_end(connection):
    """Send until the end, which is returned, and when the last call began."""
    message = bytes(LARGE)
    try:
        while True:
            began = time.monotonic()
            connection.send(message, compress=False)
    except ConnectionClosed as exc:
        return exc, began


def stay_away(connection):
    """Do nothing until the end, which is returned, and when it was there."""
    connection.wait_closed()
    return receive_all(connection)


# What the thread of a connection does; the end it sees is recorded.
LIVES = {"receive": receive_all, "send": send_without_end, "away": stay_away}


def sign(number, body):
    return b"%d %s " % (number, hashlib.sha256(body).hexdigest().encode()) + body


class End:
    """The commands, and what they work on."""

    def __init__(self, namespace, certificate, authority):
        if namespace is not None:
            enter_namespace(namespace)
        self._server_context = self._client_context = None
        if certificate is not None:
            self._server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._server_context.load_cert_chain(certificate)
            self._client_context = ssl.create_default_context(cafile=authority)
            self._client_context.check_hostname = False
        self._servers = []
        self._clients = []
        self._ends = []
        self._exchanges = []
        self._stop = threading.Event()
        self._exchanged = 0
        self._errors = []

    def listen(self, host, secure, options):
        """Start a server; returns its address. The path chooses the life of its connections."""
        context = self._server_context if secure else None
        server = serve(self._handle, host, 0, ssl=context, **options)
        self._servers.append(server.start())
        return server.server_address[:2]

    def open(self, address, secure, kind, count, path, options):
        """Open client connections, each with a thread that lives as ``kind`` says."""
        for _ in range(count):
            connection = self._connect(address, secure, path, options)
            self._clients.append(connection)
            if kind is not None:
                threading.Thread(target=self._live, args=(connection, kind)).start()

    def ends(self):
        """The ends that were seen until now."""
        return self._ends

    def count_open(self):
        """The connections of the servers that are open."""
        return sum(server.stats()["open"] for server in self._servers)

    def close(self):
        """Close all clients, each in a thread; returns the longest time that took."""
        return self._time_all([client.close for client in self._clients])

    def shutdown(self, timeout):
        """Shut all servers down; returns the longest time that took."""
        stops = [lambda server=server: server.shutdown(timeout=timeout) for server in self._servers]
        return self._time_all(stops)

    def start_exchange(self, seed, sizes, window):
        """
        Have clients send messages, and check their echoes, in background threads.

        Those that do so already are left alone.

        Args:
            sizes: of messages, in bytes; each is chosen at random.
            window: messages of a client that may be under way.
        """
        for client in self._clients[len(self._exchanges) :]:
            rng = random.Random(f"{seed} {len(self._exchanges)}")
            talk = Talk(client, rng, sizes, window)
            thread = threading.Thread(target=self._exchange, args=(talk,))
            self._exchanges.append(thread)
            thread.start()

    def finish_exchange(self):
        """Stop it, wait for the last echoes, and tell what became of it."""
        self._stop.set()
        for thread in self._exchanges:
            thread.join()
        return {"messages": self._exchanged, "errors": self._errors}

    # In threads

    def _handle(self, connection):
        kind = connection.request.path.strip("/")
        if kind in LIVES:
            self._live(connection, kind)
        else:
            echo(connection)

    def _live(self, connection, kind):
        exc, blocked_at = LIVES[kind](connection)
        self._ends.append(tell_end(connection, kind, exc, blocked_at))

    def _time_all(self, functions):
        seconds = []

        def measure(function):
            began = time.monotonic()
            function()
            seconds.append(time.monotonic() - began)

        threads = [threading.Thread(target=measure, args=(function,)) for function in functions]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(seconds) == len(functions), "a thread died"
        return max(seconds)

    def _exchange(self, talk):
        try:
            sending = threading.Thread(target=talk.send, args=(self._stop,))
            sending.start()
            talk.receive()
            sending.join()
            self._exchanged += talk.echoed
        except Exception as exc:
            self._errors.append(repr(exc))

    def live(self, address, secure, threads, seconds, seed, options):
        """
        Connect again and again through a network that cuts connections, talking until it does.

        Returns counts of how connections went, the longest, and what should not have happened.
        """
        lives = Lives(lambda: self._connect(address, secure, "", options), seconds)
        workers = [
            threading.Thread(target=lives.run, args=(random.Random(f"{seed} {number}"),))
            for number in range(threads)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return {"counts": lives.counts, "longest": lives.longest, "errors": lives.errors}

    def _connect(self, address, secure, path, options):
        uri = f"ws{'s' if secure else ''}://{address[0]}:{address[1]}/{path}"
        return connect(uri, ssl=self._client_context if secure else None, **options)


class Talk:
    """Numbered messages, each with its hash, that must come back exactly and in order."""

    def __init__(self, connection, rng, sizes, window):
        self._connection = connection
        self._random = rng
        self._sizes = sizes
        self._room = threading.Semaphore(window)
        self.echoed = 0

    def send(self, stop):
        """Send until ``stop`` is set."""
        number = 0
        while not stop.wait(0.01):
            self._room.acquire()
            self._connection.send(self._make(number))
            number += 1
        self._connection.send(b"end %d" % number)

    def receive(self):
        """Receive the echoes, until the last one."""
        while not (message := self._connection.recv()).startswith(b"end"):
            self._check(message)
        assert message == b"end %d" % self.echoed, "messages were lost"

    def exchange(self):
        """Send a message and wait for its echo."""
        self._connection.send(self._make(self.echoed))
        self._check(self._connection.recv())

    def _make(self, number):
        parts = self._random.choice(self._sizes) // 8
        return sign(number, self._random.getrandbits(64).to_bytes(8, "big") * parts)

    def _check(self, message):
        number, _, body = message.split(b" ", 2)
        assert int(number) == self.echoed, f"message {int(number)} instead of {self.echoed}"
        assert sign(int(number), body) == message, f"message {int(number)} was changed"
        self.echoed += 1
        self._room.release()


class Lives:
    """Many short lives of connections, from any number of threads."""

    def __init__(self, open_connection, seconds):
        self._open = open_connection
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("not opened", "cut", "timed out", "closed", "echoes"), 0)
        self.longest = 0.0
        self.errors = []

    def run(self, rng):
        while time.monotonic() < self._until and not self.errors:
            began = time.monotonic()
            try:
                self._count(self._live(rng))
            except Exception as exc:
                self.errors.append(repr(exc))
            self.longest = max(self.longest, time.monotonic() - began)

    def _live(self, rng):
        """One life; tells how it ended."""
        try:
            connection = self._open()
        except BAD_OPENINGS:
            return "not opened"
        talk = Talk(connection, rng, (8, 120, 128, 1000, 20_000), 1)
        try:
            for _ in range(rng.randrange(20)):
                talk.exchange()
                self._count("echoes")
        except ConnectionClosedError as exc:
            # A server that hears nothing of its client says so, if only that direction stalls.
            if exc.rcvd is not None and exc.rcvd.reason != "keepalive ping timeout":
                raise
        connection.close()
        return {1000: "closed", 1006: "cut", 1011: "timed out"}[connection.close_code]

    def _count(self, what):
        with self._lock:
            self.counts[what] += 1


def main():
    end = End(**json.loads(sys.argv[1]))
    names = "listen open ends count_open close shutdown start_exchange finish_exchange live"
    obey({name: getattr(end, name) for name in names.split()})


if __name__ == "__main__":
    main()
