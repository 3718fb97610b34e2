"""
Random interleavings: threads that use one connection in every way, and a peer that does anything.

What happens is planned from a seed, all of it but the moments at which threads run. To play the
same plan again: ``python tests/interleaving.py SEED [TIMES]``.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import random
import socket
import ssl
import struct
import sys
import tempfile
import threading
import time
import traceback
import zlib

if __name__ == "__main__":
    sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent)]

from links import Link, PortableClientConnection, handshake
from peers import CLOSE, CONT, FIN, PING, PONG, RSV1, TEXT
from script_peer import GARBAGE, ScriptPeer, check_message, make_message, welcome

from syncws import (
    ClientConnection,
    ConcurrencyError,
    ConnectionClosed,
    broadcast,
    connect,
)

__all__ = ["Arena", "Plan", "play", "play_all"]

KINDS = ("plain", "tls", "portable", "portable-tls")

# Small, so that everything gets full and times out; larger than the machine's hiccups.
OPTIONS = {
    "close_timeout": 0.4,
    "send_timeout": 0.4,
    "ping_interval": 0.05,
    "ping_timeout": None,
    "max_queue": 4,
    "max_queue_bytes": 100_000,
    "write_limit": 16_384,
    "read_limit": 8192,
}
SOCKET_BUFFER = 16_384  # bytes

MANY = 8  # threads at most

# How long a call may take that is bounded by the options above: send_timeout, close_timeout, and
# a second for other threads to leave; the rest is for a busy machine.
CALL_LIMIT = 6  # seconds
# Until when all threads must have ended: the peer ends the connection at the latest.
PLAN_LIMIT = 30  # seconds


# Plans


class Plan:
    """What the threads of one interleaving do, and how it ends; all of it made from the seed."""

    def __init__(self, seed):
        rng = random.Random(seed)
        self.seed = seed
        self.kind = rng.choices(KINDS, (4, 2, 1, 1))[0]
        self.side = rng.choice(("server", "client"))
        self.deflate = rng.random() < 0.4
        # Nobody breaks anything, and so every message must arrive at both ends.
        self.fair = rng.random() < 0.3
        self.polite = self.fair or rng.random() < 0.7
        self.ender = "peer" if self.fair else rng.choice(("peer", "close", "abort"))
        self.script = plan_script(rng, self.fair, self.ender)
        count = rng.randint(1, MANY)
        self.threads = [plan_thread(rng, self.fair) for _ in range(count)]
        if self.ender == "peer":
            # Close frames are not seen behind messages that nobody comes for. For one that comes
            # late, the service thread has received some.
            self.threads[0] = [("nap", rng.choice((0, 0, 0.25))), ("iterate",)]
        else:
            call = ("abort",) if self.ender == "abort" else ("close", rng.choice((1000, 4321)))
            self.threads[-1] = [("nap", rng.choice((0, rng.random() * 0.03))), call]

    def __str__(self):
        head = f"seed {self.seed}: {self.kind} {self.side}, "
        head += ", ".join(name for name in ("deflate", "fair", "polite") if getattr(self, name))
        threads = "".join(f"\n  {i}: {actions}" for i, actions in enumerate(self.threads))
        return f"{head}; ended by {self.ender}\n  peer: {self.script}{threads}"


def plan_script(rng, fair, ender):
    """What the peer does, as ScriptPeer knows it."""
    harmless = [
        lambda: ("message", rng.choice((10, 1000, 30_000)), rng.random() < 0.5, False),
        lambda: ("message", 300_000, rng.random() < 0.5, False),
        lambda: ("fragments", [rng.choice((0, 5, 2000)) for _ in range(3)], True, True),
        lambda: ("ping", rng.choice((0, 4, 125))),
        lambda: ("pong",),
        lambda: ("read", rng.random() * 0.01),
        lambda: ("nap", rng.random() * 0.01),
    ]
    harmful = [
        lambda: ("close", rng.choice((None, 1000, 1001, 4000))),
        lambda: ("garbage", rng.choice(GARBAGE)),
        lambda: ("half",),
        lambda: ("deaf",),
        lambda: ("hear",),
        lambda: ("fin",),
        lambda: ("reset",),
    ]
    weights = (6, 1, 2, 2, 1, 2, 2) + (0 if fair else 1,) * len(harmful)
    chosen = rng.choices(harmless + harmful, weights, k=rng.randint(0, 8))
    script = [action() for action in chosen]
    if ender == "peer":
        return [*script, ("leave",) if fair else (rng.choice(("leave", "leave", "reset")),)]
    return [*script, (rng.choice(("drain", "drain", "wait")),)]


def plan_thread(rng, fair):
    """What a thread does with the connection."""
    sizes = (10, 10, 1000, 30_000, 300_000)
    harmless = [
        lambda: ("send", rng.choice(sizes), rng.random() < 0.5, rng.random() < 0.7, None),
        lambda: ("fragments", [rng.choice((0, 5, 5000)) for _ in range(3)], rng.random() < 0.5),
        lambda: ("recv", None),
        lambda: ("recv", rng.choice((0, 0.001, 0.02))),
        lambda: ("stream",),
        lambda: ("iterate",),
        lambda: ("ping", rng.choice((None, b"same")), rng.choice((0, 0.01))),
        lambda: ("pong",),
        lambda: ("broadcast", rng.choice(sizes), rng.choice(("drop", "wait"))),
        lambda: ("look",),
        lambda: ("nap", rng.random() * 0.005),
    ]
    harmful = [
        lambda: ("send", rng.choice(sizes), rng.random() < 0.5, True, rng.choice((0, 0.01))),
        lambda: ("mixed",),
        lambda: ("close", rng.choice((1000, 1001, 4000))),
        lambda: ("abort",),
        lambda: ("broadcast", rng.choice(sizes), "close"),
        lambda: ("wait_closed", rng.choice((0, 0.02))),
    ]
    weights = (6, 2, 2, 2, 1, 2, 2, 1, 1, 1, 2) + (0 if fair else 1,) * len(harmful)
    chosen = rng.choices(harmless + harmful, weights, k=rng.randint(1, 5))
    return [action() for action in chosen]


# Threads


class Actor(threading.Thread):
    """A thread that does to a connection what its plan says, and writes down what came of it."""

    def __init__(self, name, actions, connection, go):
        super().__init__(name=f"actor {name}", daemon=True)
        self.connection = connection
        self.sent = {}  # number of a message: whether its sending returned
        self.received = []  # numbers of messages
        self.closed = []  # exceptions that told about the end
        self.durations = {}  # the longest of each kind of call
        self.doing = None
        self.ended_at = None
        self.problems = []
        self._label = str(name)
        self._actions = actions
        self._go = go
        self._number = 0
        self.start()

    def run(self):
        self._go.wait(PLAN_LIMIT)
        for name, *args in self._actions:
            self.doing = name
            began = time.monotonic()
            try:
                getattr(self, f"do_{name}")(*args)
            except ConnectionClosed as exc:
                self._note_closed(exc)
            except Exception:
                self.problems.append(f"{name}{args} raised\n{traceback.format_exc()}")
            took = time.monotonic() - began
            if name not in ("iterate", "stream") and args != [None]:
                self.durations[name] = max(took, self.durations.get(name, 0))
        self.doing = None
        self.ended_at = time.monotonic()
        self.connection = None

    def _note_closed(self, exc):
        if type(exc) is ConnectionClosed:
            self.problems.append(f"a bare {exc!r}")
        self.closed.append(exc.with_traceback(None))

    def _next_message(self, size, text):
        message = make_message(self._label, self._number, size, text)
        self.sent[self._number] = False
        self._number += 1
        return message

    def _receive(self, message):
        sender, number = check_message(message)
        assert sender == "p"
        self.received.append(number)

    def do_send(self, size, text, compress, timeout):
        message = self._next_message(size, text)
        allowed = () if timeout is None else TimeoutError
        with contextlib.suppress(allowed, ConcurrencyError):
            self.connection.send(message, compress=compress, timeout=timeout)
            self.sent[self._number - 1] = True

    def do_fragments(self, sizes, text):
        message = self._next_message(sum(sizes), text)
        ends = list(itertools.accumulate(sizes))
        parts = [message[end - size : end] for size, end in zip(sizes, ends)]
        with contextlib.suppress(ConcurrencyError):
            self.connection.send([*parts, message[ends[-1] :]])
            self.sent[self._number - 1] = True

    def do_mixed(self):
        try:
            self.connection.send(["text", b"bytes"])
        except (TypeError, ConcurrencyError):
            return
        raise AssertionError("a message of mixed types was sent")

    def do_recv(self, timeout):
        with contextlib.suppress(ConcurrencyError, *(() if timeout is None else [TimeoutError])):
            self._receive(self.connection.recv(timeout))

    def do_stream(self):
        with contextlib.suppress(ConcurrencyError):
            parts = list(self.connection.recv_streaming())
            self._receive(("" if isinstance(parts[0], str) else b"").join(parts))

    def do_iterate(self):
        # To the end, also when somebody else is streaming a message.
        while True:
            try:
                for message in self.connection:
                    self._receive(message)
                return
            except ConcurrencyError:
                threading.Event().wait(0.005)

    def do_ping(self, data, timeout):
        with contextlib.suppress(ConcurrencyError):
            self.connection.ping(data, ack_on_close=timeout == 0).wait(timeout)

    def do_pong(self):
        self.connection.pong(b"unasked")

    def do_broadcast(self, size, on_full):
        message = self._next_message(size, False)
        result = broadcast([self.connection], message, on_full=on_full)
        assert sum(result) == 1
        self.sent[self._number - 1] = bool(result.sent or result.queued)

    def do_close(self, code):
        self.connection.close(code, "end")
        if not self.connection.is_gone:
            self.problems.append("close() returned before the end")

    def do_abort(self):
        self.connection.abort()

    def do_wait_closed(self, timeout):
        self.connection.wait_closed(timeout)

    def do_look(self):
        assert repr(self.connection)
        assert self.connection.stats()["outbox_bytes"] >= 0
        assert self.connection.close_code is None or self.connection.close_reason is not None

    def do_nap(self, seconds):
        threading.Event().wait(seconds)


# Where they are played


class Slot:
    """The place of one server connection: the handler waits in it until it is released."""

    def __init__(self):
        self.opened = threading.Event()
        self.done = threading.Event()
        self.connection = None


class Arena:
    """
    A server for each kind of transport, which all interleavings share; a context manager.

    Args:
        server_context, client_context: TLS.
        folder: where there may be files.
    """

    def __init__(self, server_context, client_context, folder):
        self._contexts = server_context, client_context
        self._links = {k: Link(k, server_context, client_context, folder) for k in KINDS}
        self._servers = {}
        self._slots = {}
        self._numbers = itertools.count()

    def __enter__(self):
        for kind, link in self._links.items():
            server = link.serve(self._handle, **OPTIONS)
            server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            self._servers[kind] = server.start()
        return self

    def __exit__(self, *exc_info):
        for server in self._servers.values():
            server.shutdown(timeout=10)

    def _handle(self, connection):
        slot = self._slots.pop(connection.request.path)
        slot.connection = connection
        slot.opened.set()
        slot.done.wait(2 * PLAN_LIMIT)
        slot.connection = None

    @contextlib.contextmanager
    def open(self, plan, over):
        """Open the connection of a plan: yields it and the peer at its other end."""
        opening = self._open_server if plan.side == "server" else self._open_client
        with opening(plan, over) as ends:
            yield ends

    @contextlib.contextmanager
    def _open_server(self, plan, over):
        path, slot = f"/{next(self._numbers)}", Slot()
        self._slots[path] = slot
        sock = self._links[plan.kind].socket(self._servers[plan.kind])
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
        offer = {"Sec_WebSocket_Extensions": "permessage-deflate"} if plan.deflate else {}
        handshake(sock, path, **offer)
        assert slot.opened.wait(PLAN_LIMIT)
        try:
            yield slot.connection, ScriptPeer(sock, True, over, plan.polite)
        finally:
            slot.done.set()

    @contextlib.contextmanager
    def _open_client(self, plan, over):
        secure = plan.kind.endswith("tls")
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SOCKET_BUFFER)
            welcoming = Welcome(listener, self._contexts[0] if secure else None, plan.deflate)
            sock = socket.create_connection(listener.getsockname())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_BUFFER)
            portable = plan.kind.startswith("portable")
            connection = connect(
                f"{'wss' if secure else 'ws'}://127.0.0.1/",
                sock=sock,
                ssl=self._contexts[1] if secure else None,
                compression="deflate" if plan.deflate else None,
                create_connection=PortableClientConnection if portable else ClientConnection,
                **OPTIONS,
            )
            welcoming.join(PLAN_LIMIT)
        yield connection, ScriptPeer(welcoming.sock, False, over, plan.polite)


class Welcome(threading.Thread):
    """Accepts a client and does the opening handshake."""

    def __init__(self, listener, context, deflate):
        super().__init__(name="welcome", daemon=True)
        self._call = (listener, context, deflate)
        self.sock = None
        self.start()

    def run(self):
        listener, context, deflate = self._call
        sock, _ = listener.accept()
        sock.settimeout(PLAN_LIMIT)
        if context is not None:
            sock = context.wrap_socket(sock, server_side=True)
        welcome(sock, deflate)
        self.sock = sock


# Playing and judging


class Result:
    """What came of playing plans: what was wrong, and how long calls took at most."""

    def __init__(self):
        self.played = 0
        self.cut = 0  # connections that this end cut off, as it may when the peer is slow or bad
        self.unfair = 0  # fair plans that came to nothing, because the machine was too slow
        self.failures = []  # pairs of a plan and a list of what was wrong
        self.durations = {}  # seconds by name of the call
        self._lock = threading.Lock()

    def count(self, name):
        """Add one to a number; several threads may do so."""
        with self._lock:
            setattr(self, name, getattr(self, name) + 1)

    def note_durations(self, durations):
        for name, seconds in durations.items():
            self.durations[name] = max(seconds, self.durations.get(name, 0))

    def report(self):
        """What was wrong, as text."""
        return "\n".join(
            f"{plan}\n" + "\n".join(f"  ! {problem}" for problem in problems)
            for plan, problems in self.failures
        )


def play(arena, plan, result):
    """Play a plan, and note in the result what came of it."""
    over, go = threading.Event(), threading.Event()
    problems = []
    try:
        with arena.open(plan, over) as (connection, peer):
            actors = [Actor(i, do, connection, go) for i, do in enumerate(plan.threads)]
            peering = threading.Thread(target=peer.play, args=(plan.script,), daemon=True)
            peering.start()
            go.set()
            problems += wait_for(actors, connection)
            over.set()
            peering.join(PLAN_LIMIT)
            problems += Judge(plan, peer, actors, connection, result).judge()
    except Exception:
        problems.append(traceback.format_exc())
    result.count("played")
    if problems:
        result.failures.append((plan, problems))


def wait_for(actors, connection):
    """Wait for all threads to end; returns what was wrong."""
    deadline = time.monotonic() + PLAN_LIMIT
    for actor in actors:
        actor.join(max(0, deadline - time.monotonic()))
    hanging = [actor for actor in actors if actor.is_alive()]
    problems = [problem for actor in actors for problem in actor.problems]
    if hanging:
        frames = sys._current_frames()
        for actor in hanging:
            stack = "".join(traceback.format_stack(frames.get(actor.ident)))
            problems.append(f"{actor.name} hangs in {actor.doing}\n{stack}")
        connection.abort()
        for actor in hanging:
            actor.join(CALL_LIMIT)
    return problems


class Judge:
    """Looks at both ends of a connection, when nobody uses it any more, for what is wrong."""

    def __init__(self, plan, peer, actors, connection, result):
        self._plan = plan
        self._peer = peer
        self._actors = actors
        self._connection = connection
        self._result = result
        self._problems = []
        cut = connection.was_cut
        if cut:
            result.count("cut")
        # Whether what was sent had to arrive at the peer, to its very end.
        self._whole = not cut and not peer.cut and plan.script[-1][0] in ("drain", "leave")
        self._close = None  # payload of the Close frame that the peer got

    def judge(self):
        """What was wrong."""
        try:
            frames = self._peer.stream.parse()
            self._judge_end()
            self._judge_frames(frames)
            self._judge_received()
            self._judge_exceptions()
            self._judge_durations()
        except Exception:
            self._problems.append(traceback.format_exc())
        return self._problems

    def _check(self, fine, problem):
        if not fine:
            self._problems.append(problem)

    def _judge_end(self):
        connection, peer = self._connection, self._peer
        self._check(connection.wait_closed(CALL_LIMIT), f"still there: {connection!r}")
        deadline = time.monotonic() + CALL_LIMIT
        while connection.fileno() != -1 and time.monotonic() < deadline:
            threading.Event().wait(0.002)
        self._check(connection.fileno() == -1, "the descriptor was not given back")
        if self._whole:
            self._check(peer.ended == "fin", f"the connection ended with {peer.ended}")
            self._check(peer.stream.rest == 0, f"torn: {peer.stream.rest} bytes of a frame")

    def _judge_frames(self, frames):
        closes = [payload for head, payload in frames if head == FIN | CLOSE]
        self._check(len(closes) <= 1, f"several Close frames: {closes}")
        self._check(closes or not self._whole, "no Close frame")
        if closes:
            self._close = closes[0]
            heads = [head for head, _ in frames]
            last = heads[heads.index(FIN | CLOSE) + 1 :]
            self._check(set(last) <= {FIN | PONG}, f"after the Close frame came {last}")
        self._judge_messages(frames)

    def _judge_messages(self, frames):
        arrived = {}
        for message in self._assemble(frames):
            sender, number = check_message(message)
            arrived.setdefault(sender, []).append(number)
        for number, actor in enumerate(self._actors):
            numbers = arrived.pop(str(number), [])
            self._check(numbers == sorted(set(numbers)), f"{number} sent {numbers}")
            self._check(set(numbers) <= set(actor.sent), f"{number} never sent {numbers}")
            lost = {n for n, done in actor.sent.items() if done} - set(numbers)
            self._check(not (self._whole and lost), f"lost of {number}: {lost}")
        self._check(not arrived, f"from nobody: {arrived}")

    def _assemble(self, frames):
        """The messages in frames."""
        inflater = zlib.decompressobj(-15)
        opened, parts, text = False, [], False
        for head, payload in frames:
            if head & 0x8:
                known = head in (FIN | CLOSE, FIN | PING, FIN | PONG)
                self._check(known and len(payload) <= 125, f"bad control frame {head:#x}")
                continue
            opcode = head & 0xF
            self._check(opened == (opcode == CONT), "a message begins within another")
            if not opened:
                text, deflated, parts = opcode == TEXT, bool(head & RSV1), []
            parts.append(payload)
            opened = not head & FIN
            if opened:
                continue
            data = b"".join(parts)
            if deflated:
                data = inflater.decompress(data + b"\x00\x00\xff\xff")
            yield data.decode() if text else data
        peer = self._peer
        broken = peer.spoiled or peer.closes is not None or not self._whole
        self._check(broken or not opened or self._code() == 1011, "a message was not ended")

    def _code(self):
        """The code that the peer was closed with; 1005 for a Close frame without one."""
        return struct.unpack("!H", self._close[:2])[0] if self._close else 1005

    def _judge_received(self):
        received = []
        for index, actor in enumerate(self._actors):
            numbers = actor.received
            self._check(numbers == sorted(set(numbers)), f"{index} received {numbers}")
            received += numbers
        received += self._receive_rest()
        self._check(len(received) == len(set(received)), f"received twice, of {sorted(received)}")
        if not self._plan.fair:
            return
        if self._whole and not self._peer.stuck:
            lost = set(self._peer.sent) - set(received)
            self._check(not lost, f"not received: {lost}")
            for exc in self._closed():
                self._check(exc.rcvd and exc.rcvd.code == 1000, f"not closed by the peer: {exc!r}")
        else:
            self._result.count("unfair")

    def _receive_rest(self):
        """The numbers of messages that no thread came for."""
        received = []
        with contextlib.suppress(ConnectionClosed, TimeoutError, ConcurrencyError):
            while True:
                received.append(check_message(self._connection.recv(0))[1])
        return received

    def _closed(self):
        return [exc for actor in self._actors for exc in actor.closed]

    def _judge_exceptions(self):
        for exc in self._closed():
            if exc.sent is not None and self._whole:
                self._check(exc.sent.code == self._code(), f"{exc!r}, but sent {self._close}")
            if exc.rcvd is not None:
                sent = self._peer.closes
                code = None if sent is None else struct.unpack("!H", sent or b"\x03\xed")[0]
                self._check(exc.rcvd.code == code, f"{exc!r}, but the peer sent {sent}")

    def _judge_durations(self):
        actors = self._actors
        for actor in actors:
            self._result.note_durations(actor.durations)
            for name, seconds in actor.durations.items():
                self._check(seconds < CALL_LIMIT, f"{name} took {seconds:.1f} s")
        ended = [actor.ended_at for actor in actors]
        if self._plan.ender != "peer" and None not in ended:
            late = max(ended) - ended[-1]  # the last one ended the connection
            self._result.note_durations({"wake-up": late})
            self._check(late < CALL_LIMIT, f"the last thread woke up {late:.1f} s after the end")


def play_all(arena, seeds, *, workers=4, max_failures=5, progress=None):
    """Play a plan for each seed, some of them at the same time; returns the result."""
    result, seeds, lock = Result(), iter(seeds), threading.Lock()

    def work():
        while len(result.failures) < max_failures:
            with lock:
                seed = next(seeds, None)
            if seed is None:
                return
            play(arena, Plan(seed), result)
            if progress is not None:
                progress(result)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return result


def make_contexts():
    """TLS for both ends, with a certificate authority of our own."""
    import trustme  # not installed where only the library is used

    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(server)
    authority.configure_trust(client)
    return server, client


def main():
    seed, times = int(sys.argv[1]), int((sys.argv[2:] or ["1"])[0])
    print(Plan(seed))
    with tempfile.TemporaryDirectory() as folder:
        with Arena(*make_contexts(), pathlib.Path(folder)) as arena:
            result = play_all(arena, [seed] * times)
    print(result.report() or f"nothing wrong in {times} plays")
    return 1 if result.failures else 0


if __name__ == "__main__":
    sys.exit(main())
