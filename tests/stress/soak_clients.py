"""
The clients of the soak, as a program; they check what comes back, and rest when they are told to.

Settings: ``ports`` (the plain one and the one with TLS), ``authority`` (a file with a certificate),
``seed``.
"""

from __future__ import annotations

import collections
import contextlib
import json
import random
import socket
import ssl
import struct
import sys
import threading
import time

from healthy import Times
from ledger import MAX_MESSAGE, Ledger, Wrong, make_message, read_message
from links import handshake
from peers import BINARY, CLOSE, FIN, PING, TEXT, Wire
from programs import obey
from vitals import sample

from syncws import connect

WARM_UP = 4  # large messages
STEADY, SHARED, CHECKED, SUBSCRIBERS, PASSING = 16, 2, 2, 3, 3

# A machine that is busy with other things makes everything slow: no wait is shorter.
PATIENCE = 60  # seconds
OPTIONS = {"open_timeout": 60, "ping_interval": 5, "ping_timeout": 60, "send_timeout": 60}


class Gate:
    """Where workers wait while they are to rest."""

    def __init__(self):
        self._condition = threading.Condition()
        self._open = False
        self._ended = False
        self._resting = set()

    def go_on(self, seconds):
        """Pause for a while, and rest if told to; tell whether to go on."""
        deadline = time.monotonic() + seconds
        with self._condition:
            self._condition.wait_for(lambda: not self._open, max(0, deadline - time.monotonic()))
            self._resting.add(threading.current_thread())
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._open or self._ended)
            self._resting.discard(threading.current_thread())
            return not self._ended

    def open(self):
        """Let the workers work."""
        with self._condition:
            self._open = True
            self._condition.notify_all()

    def close(self, workers):
        """Let the workers rest; the names of those that do not."""
        with self._condition:
            self._open = False
            self._condition.notify_all()
            self._condition.wait_for(lambda: workers <= self._resting, PATIENCE)
            return [thread.name for thread in workers - self._resting]

    def end(self):
        """Let the workers end."""
        with self._condition:
            self._open = self._ended = True
            self._condition.notify_all()


class Worker(threading.Thread):
    """One of the clients; subclasses say in ``live()`` what it does."""

    def __init__(self, soak, number):
        super().__init__(name=f"{type(self).__name__.lower()}-{number}")
        self.soak = soak
        self.number = number
        self.random = random.Random(f"{soak.seed} {self.name}")

    def run(self):
        try:
            self.live()
        except Exception as exc:
            self.soak.fault(f"{self.name}: {type(exc).__name__}: {exc}")

    def go_on(self, seconds=0.0):
        return self.soak.gate.go_on(seconds)

    def pause(self, shortest, longest):
        return self.go_on(self.random.uniform(shortest, longest))

    def connect(self, path, secure, **options):
        """Open a connection with the library."""
        compression = self.random.choice(("deflate", None))
        return self.soak.connect(path, secure, compression=compression, **options)


class Talk:
    """Messages of one sender on one connection, and their echoes in the same order."""

    def __init__(self, connection, name, rng, times):
        self._connection = connection
        self._name = name
        self._random = rng
        self._times = times
        self._number = 0

    def warm_up(self):
        """Have the largest messages echoed, so that all buffers are as large as they get."""
        for _ in range(WARM_UP):
            self._number += 1
            message = make_message(self._name, self._number, self._random, MAX_MESSAGE, exact=True)
            self._connection.send(message)
            if self._connection.recv(PATIENCE) != message:
                raise Wrong("a large message came back wrong")

    def exchange(self, count):
        """Send some messages, then receive their echoes."""
        began = time.monotonic()
        sent = [self._send() for _ in range(count)]
        for message in sent:
            echoed = self._connection.recv(PATIENCE)
            self._times.add(time.monotonic() - began)
            if echoed != message:
                raise Wrong(f"{echoed[:60]!r} came back for {message[:60]!r}")

    def _send(self):
        if self._random.random() < 0.02:
            message = self._random.choice(("", b""))
        else:
            self._number += 1
            message = make_message(self._name, self._number, self._random)
        if self._random.random() < 0.3:
            self._connection.send(self._cut(message))
        else:
            self._connection.send(message)
        return message

    def _cut(self, message):
        """Fragments of a message, some of them empty."""
        if not message:
            return [message, message]
        count = self._random.randrange(5)
        cuts = sorted(self._random.randrange(len(message)) for _ in range(count))
        return [message[a:b] for a, b in zip([0, *cuts], [*cuts, len(message)])]


class Steady(Worker):
    """Stays connected all the time, and talks."""

    def live(self):
        name = self.name.replace("-", "")
        with self.connect(f"/checked/{name}", self.number % 2) as connection:
            talk = Talk(connection, f"{name}.0", self.random, self.soak.echoes)
            talk.warm_up()
            while self.pause(0.2, 1.0):
                talk.exchange(self.random.randint(1, 4))
                if self.random.random() < 0.2 and not connection.ping().wait(PATIENCE):
                    raise Wrong("a ping was not answered")


class Shared(Worker):
    """Two threads send on a connection, two receive; the server uses several too."""

    path, receivers = "/shared", 2

    def live(self):
        name = self.name.replace("-", "")
        sent = [0, 0]
        ledger = Ledger(name) if self.receivers == 1 else None
        with self.connect(f"{self.path}/{name}", self.number % 2) as connection:
            while self.pause(0.5, 1.5):
                self._play_round(connection, name, sent, ledger)

    def _play_round(self, connection, name, sent, ledger):
        counts = [self.random.randint(1, 5) for _ in sent]
        expected = collections.Counter(
            (f"{name}.{i}", sent[i] + k + 1) for i, count in enumerate(counts) for k in range(count)
        )
        received = collections.deque()
        errors = []
        jobs = [(self._send, connection, f"{name}.{i}", sent[i], n) for i, n in enumerate(counts)]
        jobs += [(self._receive, connection, sum(counts), received, ledger)] * self.receivers
        threads = [threading.Thread(target=self._try, args=(errors, *job)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors or collections.Counter(received) != expected:
            raise Wrong(f"{errors}, received {sorted(received)} of {sorted(expected)}")
        sent[:] = map(sum, zip(sent, counts))

    def _try(self, errors, function, *args):
        try:
            function(*args)
        except Exception as exc:
            errors.append(f"{type(exc).__name__}: {exc}")

    def _send(self, connection, name, number, count):
        rng = random.Random(f"{self.soak.seed} {name} {number}")
        for k in range(count):
            connection.send(make_message(name, number + k + 1, rng))

    def _receive(self, connection, count, received, ledger):
        deadline = time.monotonic() + PATIENCE
        while len(received) < count and time.monotonic() < deadline:
            with contextlib.suppress(TimeoutError):
                message = connection.recv(0.1)
                if ledger is not None:
                    ledger.check(message)
                received.append(read_message(message))


class Checked(Shared):
    """Two threads send on a connection, one receives: the order of each sender is kept."""

    path, receivers = "/checked", 1


class Subscriber(Worker):
    """Receives the broadcasts, without a gap."""

    def live(self):
        last = None
        with self.connect("/stream", self.number % 2) as connection:
            while self.go_on():
                try:
                    name, number = read_message(connection.recv(0.5))
                except TimeoutError:
                    continue
                self.soak.broadcasts += 1
                if name != "stream.0" or last not in (None, number - 1):
                    raise Wrong(f"{name} {number} after {last}")
                last = number


class Passing(Worker):
    """Comes and goes, in different ways."""

    def live(self):
        visits = 0
        while self.pause(0.1, 0.5):
            visits += 1
            name = f"{self.name.replace('-', '')}x{visits}"
            ways = (self.close, self.close, self.abort, self.reset, self.half_close)
            self.random.choice(ways)(name)
            self.soak.visits += 1

    def close(self, name):
        """A closing handshake, after which nothing comes."""
        with self._talk(name) as connection:
            connection.close()
            if connection.close_code != 1000 or list(connection):
                raise Wrong(f"closed with {connection.close_code}, or messages after it")

    def abort(self, name):
        with self._talk(name) as connection:
            connection.send(make_message(f"{name}.1", 1, self.random))
            connection.abort()

    def reset(self, name):
        """A reset, with a message on its way or half of one."""
        with self._wire(name) as wire:
            if self.random.random() < 0.5:
                wire.send(BINARY, self._message(name, 2))
            else:
                wire.sock.sendall(struct.pack("!BBH", FIN | BINARY, 0xFE, 1000) + bytes(500))
            wire.reset()

    def half_close(self, name):
        """The end of our half of TCP; the server ends the other one."""
        with self._wire(name) as wire:
            wire.sock.shutdown(socket.SHUT_WR)
            frames = [head & 0x0F for head, _ in wire.receive_all()]
            if any(opcode not in (PING, CLOSE) for opcode in frames):
                raise Wrong(f"frames after the echo: {frames}")

    @contextlib.contextmanager
    def _talk(self, name):
        """A connection on which some messages were exchanged."""
        secure = self.random.random() < 0.5
        with self.connect(f"/checked/{name}", secure) as connection:
            talk = Talk(connection, f"{name}.0", self.random, self.soak.echoes)
            talk.exchange(self.random.randint(0, 4))
            yield connection

    @contextlib.contextmanager
    def _wire(self, name):
        """A bare connection on which a message was exchanged."""
        with socket.create_connection(("127.0.0.1", self.soak.ports[0]), PATIENCE) as sock:
            handshake(sock, f"/checked/{name}")
            wire = Wire(sock, masks=True)
            message = self._message(name, 1)
            wire.send(TEXT, message)
            head, echoed = wire.receive()
            if (head, echoed) != (FIN | TEXT, message):
                raise Wrong(f"{echoed[:60]!r} came back for {message[:60]!r}")
            yield wire

    def _message(self, name, number):
        while True:
            message = make_message(f"{name}.0", number, self.random, 4096)
            if isinstance(message, str):
                return message.encode()


class Soak:
    """All clients."""

    def __init__(self, ports, authority, seed):
        self.ports = ports
        self.seed = seed
        self.gate = Gate()
        self.echoes = Times()
        self.broadcasts = self.visits = 0  # each changed by several threads: not exact
        self._context = ssl.create_default_context(cafile=authority)
        self._faults = []
        numbers = {Steady: STEADY, Shared: SHARED, Checked: CHECKED}
        numbers.update({Subscriber: SUBSCRIBERS, Passing: PASSING})
        self._workers = {kind(self, n) for kind, count in numbers.items() for n in range(count)}
        for worker in self._workers:
            worker.start()

    def commands(self):
        return {
            "staying": lambda: STEADY + SHARED + CHECKED + SUBSCRIBERS,
            "work": self.gate.open,
            "rest": lambda: self.gate.close(self._workers),
            "sample": sample,
            "account": self.account,
            "leave": self.leave,
        }

    def fault(self, text):
        self._faults.append(text)

    def connect(self, path, secure, **options):
        scheme, port = ("wss", self.ports[1]) if secure else ("ws", self.ports[0])
        if secure:
            options["ssl"] = self._context
        uri = f"{scheme}://127.0.0.1:{port}{path}"
        return connect(uri, **OPTIONS, **options)

    def account(self):
        """What was done since the last account, and what was wrong until now."""
        broadcasts, self.broadcasts = self.broadcasts, 0
        visits, self.visits = self.visits, 0
        return {
            "echoes": self.echoes.take(),
            "broadcasts": broadcasts,
            "visits": visits,
            "faults": self._faults[:10],
        }

    def leave(self):
        """Close all connections; the names of the clients that do not end."""
        self.gate.end()
        deadline = time.monotonic() + PATIENCE
        for worker in self._workers:
            worker.join(max(0, deadline - time.monotonic()))
        return [worker.name for worker in self._workers if worker.is_alive()]


def main():
    obey(Soak(**json.loads(sys.argv[1])).commands())


if __name__ == "__main__":
    main()
