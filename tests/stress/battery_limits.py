"""
Limits: what a peer may cost, measured on servers in processes of their own.

Times are those of the promises, with a second for a busy machine where the promise has one.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import pathlib
import random
import resource
import signal
import socket
import ssl
import tempfile
import threading
import time
import zlib

from bad_peers import make_bomb
from battery_bad_peers import cpu_seconds, make_certificates
from healthy import Client
from links import handshake
from peers import BINARY, CLOSE, CONT, FIN, PING, PONG, RSV1, Task, Wire, frame
from programs import Program, wait_until
from scenario import Scenario, Skipped

MIB = 2**20
GRACE = 1.0  # seconds over its timeout that a call may take
HOST = "127.0.0.1"

DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}


class Place:
    """A server in a process of its own, plain or with TLS, and those who visit it."""

    def __init__(self, stack, secure, figures, **options):
        self.stack = stack
        self.figures = figures
        self.authority = certificate = None
        if secure:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            certificate, self.authority = make_certificates(pathlib.Path(folder))
        settings = {"options": options, "certificate": certificate}
        self.server = stack.enter_context(Program("servers/limits.py", settings))
        self.ports = self.server.ask("ports")
        self._context = None
        if secure:
            self._context = ssl.create_default_context(cafile=self.authority)

    def start(self, script, **settings):
        """Start a program."""
        return self.stack.enter_context(Program(script, settings))

    def idlers(self):
        """Clients that do nothing."""
        settings = {"address": [HOST, self.ports[-1]], "authority": self.authority}
        return self.stack.enter_context(Program("idlers.py", settings))

    def socket(self, timeout=10.0, secure=None):
        """A connected socket, over TLS if the server has that and unless told otherwise."""
        secure = self._context is not None if secure is None else secure
        sock = socket.create_connection((HOST, self.ports[1 if secure else 0]), timeout=timeout)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._context.wrap_socket(sock, server_hostname=HOST) if secure else sock

    def wire(self, path="/", **headers):
        """An open WebSocket connection, played frame by frame."""
        sock = self.stack.enter_context(self.socket(timeout=60))
        handshake(sock, path, **headers)
        return Wire(sock, masks=True)

    def client(self, secure=None):
        """A healthy client."""

        def connect():
            sock = self.socket(secure=secure)
            handshake(sock)
            return sock

        return Client(connect, "healthy", random.Random(self.figures.seed))

    def visit(self, secure=None):
        """Connect, have a message echoed, close; the seconds that took."""
        began = time.monotonic()
        client = self.client(secure)
        client.exchange()
        client.leave()
        return time.monotonic() - began

    def errors(self):
        """Lines of the server's log that tell of errors, but for access."""
        lines = self.server.log().splitlines()
        return [line for line in lines if not line.startswith("INFO")]

    def limit(self, kind, soft):
        """Set a soft limit of the server's process; ``None`` for all that is allowed."""
        self.server.ask("limit", kind, soft)


@contextlib.contextmanager
def place(figures, secure=False, **options):
    with contextlib.ExitStack() as stack:
        yield Place(stack, secure, figures, **options)


def both(name, about, function, *args):
    """A scenario, plain and with TLS."""
    return [
        Scenario(
            f"{name}-{kind}", f"{about} ({kind})", functools.partial(function, kind == "tls", *args)
        )
        for kind in ("plain", "tls")
    ]


# Stopped clients

TIMEOUT = 2  # seconds: send_timeout, close_timeout and that of shutdown()
STOPPED = 9


def run_stopped(secure, figures):
    options = {"send_timeout": TIMEOUT, "close_timeout": TIMEOUT}
    with place(figures, secure, **options) as here:
        idlers, server = here.idlers(), here.server
        idlers.ask("open", STOPPED, "/held")
        assert wait_until(lambda: server.ask("count_held") == STOPPED, 10)
        os.kill(idlers.pid, signal.SIGSTOP)
        waiting = server.ask("fill", *range(1, 8))
        assert min(waiting) > 0, f"there is still room: {waiting}"

        def note(name, call, end, limit):
            figures.note(name, call["seconds"], "s", limit=limit + GRACE)
            assert call["end"] in end, f"{name}: {call}"

        note("send()", server.ask("time_send", 0), ["ConnectionClosedError"], TIMEOUT)
        calls = server.ask("time_calls", 1)
        note("recv(1)", calls["recv"], ["TimeoutError"], 1)
        note("send(timeout=1)", calls["send"], ["TimeoutError"], 1)
        note("ping().wait(1)", calls["ping"], ["returned", "ConnectionClosedError"], TIMEOUT + 1)
        note("pong()", calls["pong"], ["returned", "ConnectionClosedError"], TIMEOUT)
        note("close(), nothing unread", server.ask("time_close", 8), ["returned"], TIMEOUT)
        note("close(), window full", server.ask("time_close", 2), ["returned"], TIMEOUT)
        during = server.ask("time_close_while_sending", 3)
        note("close() while sending", during["close"], ["returned"], TIMEOUT)
        for sender in during["senders"]:
            note("send() meanwhile", sender, ["ConnectionClosedError"], TIMEOUT)
        for report in server.ask("time_shutdown", TIMEOUT):
            figures.note("shutdown()", report["seconds"], "s", limit=TIMEOUT + GRACE)
            assert report["running"] == [], report
        assert server.ask("count")["connections"] == 0
        assert here.errors() == [], here.errors()


# Broadcasts

LISTENERS = 195
PROGRAMS = 5
STOPPED_LISTENERS = 5
MESSAGES = 1000
RATE = 50  # messages per second: 10,000 deliveries per second
SIZE = 1000  # bytes of a message
P99 = 0.1  # seconds


def run_broadcast(policy, figures):
    with place(figures, send_timeout=TIMEOUT, close_timeout=TIMEOUT) as here:
        stopped, audiences = start_audience(here)
        figures.progress(f"{MESSAGES} messages to {LISTENERS + STOPPED_LISTENERS} clients")
        os.kill(stopped.pid, signal.SIGSTOP)
        here.server.ask("fill", *range(STOPPED_LISTENERS))
        seconds = MESSAGES / RATE + 60
        result = here.server.ask("time_broadcasts", MESSAGES, RATE, SIZE, policy, timeout=seconds)
        figures.note("load average", os.getloadavg()[0])
        check_heard(figures, audiences)
        figures.note("rate", MESSAGES / result["seconds"], "messages/s")
        slowest = {"drop": P99, "close": P99, "wait": TIMEOUT}[policy] + GRACE
        figures.note("slowest broadcast()", result["slowest"], "s", limit=slowest)
        for name in ("sent", "queued", "dropped", "closed"):
            figures.note(name, result[name])
        check_policy(here, policy, result)
        assert here.errors() == [] if policy != "drop" else said_once(here), here.errors()


def start_audience(here):
    """The program with the clients to be stopped, and those with the others."""
    address = [HOST, here.ports[0]]

    def start(path, count, first, buffer=None):
        settings = {"address": address, "path": path, "count": count, "first": first}
        return here.start("listeners.py", **settings, buffer=buffer)

    stopped = start("/held", STOPPED_LISTENERS, 0, 4096)
    count = LISTENERS // PROGRAMS
    audiences = [start("/deaf", count, number * count) for number in range(PROGRAMS)]
    everybody = LISTENERS + STOPPED_LISTENERS
    assert wait_until(lambda: here.server.ask("count")["connections"] == everybody, 30)
    for program in (stopped, *audiences):
        program.ask("report")  # it listens
    assert wait_until(lambda: here.server.ask("count_held") == STOPPED_LISTENERS, 10)
    return stopped, audiences


def check_heard(figures, audiences):
    """All messages were heard by all, soon."""

    def report():
        return [audience.ask("report") for audience in audiences]

    def heard():
        return sum((collections.Counter(each["heard"]) for each in report()), collections.Counter())

    complete = wait_until(lambda: heard() == {str(MESSAGES): LISTENERS}, 5)
    errors = [error for each in report() for error in each["errors"]]
    assert errors == [], errors
    assert complete, f"messages heard: {heard()}"
    delays = collections.Counter()
    for each in report():
        delays.update({int(delay): count for delay, count in each["delays"].items()})
    figures.note("deliveries", sum(delays.values()))
    for name, share, limit in (("p50", 0.5, None), ("p99", 0.99, P99), ("max", 1.0, None)):
        value = percentile(delays, share) / 10_000
        figures.note(name, value * 1000, "ms", limit=limit and limit * 1000)


def percentile(counts, share):
    left = share * sum(counts.values())
    for value in sorted(counts):
        left -= counts[value]
        if left <= 0:
            return value
    return max(counts)


def check_policy(here, policy, result):
    """The stopped clients had what the policy says; the others had everything."""
    assert result["sent"] + result["queued"] >= MESSAGES * LISTENERS
    stats = here.server.ask("stats")[0]
    if policy == "drop":
        assert result["dropped"] > STOPPED_LISTENERS * MESSAGES // 2
        assert stats["messages_dropped"] == result["dropped"]
        assert stats["open"] == LISTENERS + STOPPED_LISTENERS
        return
    assert result["dropped"] == 0
    # They close by and by: for the first second or two they count as closed.
    assert result["closed"] >= STOPPED_LISTENERS

    def ended():
        stats = here.server.ask("stats")[0]
        return stats["open"] == LISTENERS and sum(stats["closed"].values()) == STOPPED_LISTENERS

    assert wait_until(ended, TIMEOUT + GRACE + 5), here.server.ask("stats")
    codes = {"close": {"1008"}, "wait": {"1006", "1011"}}[policy]
    assert set(here.server.ask("stats")[0]["closed"]) <= codes, here.server.ask("stats")


def said_once(here):
    """That messages are dropped is said once for each slow client."""
    return len(here.errors()) == STOPPED_LISTENERS


# Shutdown

SILENT = 1000


def run_shutdown(secure, figures):
    with place(figures, secure) as here:
        figures.progress(f"opens {SILENT} connections")
        here.limit(resource.RLIMIT_NOFILE, None)
        idlers = here.idlers()
        idlers.ask("open", SILENT, "/receive", timeout=120)
        assert wait_until(lambda: here.server.ask("stats")[-1]["open"] == SILENT, 10)
        figures.note("threads", here.server.ask("count")["threads"])
        reports = here.server.ask("time_shutdown", 1)
        seconds = sum(report["seconds"] for report in reports)
        figures.note("shutdown(timeout=1)", seconds, "s", limit=2.0)
        # A quarter of the second is for a thousand threads to notice that they were aborted; those
        # that are not through by then are reported, and must be soon.
        figures.note("threads that were still ending", len(reports[-1]["running"]))
        figures.note("aborted", reports[-1]["aborted"])
        assert reports[-1]["aborted"] == SILENT
        ends = idlers.ask("ends")
        figures.note("clients that were told 1001", ends.get("1001", 0))
        assert ends == {"1001": SILENT}, ends
        assert wait_until(lambda: here.server.ask("count")["connections"] == 0, 5)
        assert here.errors() == [], here.errors()


# For want of descriptors and threads

ATTEMPTS = 200
WATCHED = 4  # seconds
CPU = 0.1  # of a core
RELIEF = 1.0  # seconds
DESCRIPTORS = 64
UNUSED_USER = 54_321  # that nobody has, so that its threads are those of the server


def run_descriptors(figures):
    with place(figures) as here:
        friend, idlers = here.client(), here.idlers()
        friend.exchange()
        here.limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
        idlers.ask("attempt", ATTEMPTS, 0)
        assert wait_until(lambda: accept_errors(here) > 0, 10)
        watch_cpu(here, friend)
        assert accept_errors(here) >= WATCHED, "it did not try again"
        figures.note("accepted meanwhile", idlers.ask("answered")["101"])
        check_log(here, "accepting connections fails", 1)

        here.limit(resource.RLIMIT_NOFILE, None)
        began = time.monotonic()
        here.visit()
        figures.note("served after the limit", time.monotonic() - began, "s", limit=RELIEF)
        assert wait_until(lambda: idlers.ask("answered") == {"101": ATTEMPTS}, 10)

        here.limit(resource.RLIMIT_NOFILE, DESCRIPTORS)
        newcomers = here.idlers()
        newcomers.ask("attempt", 1, 0)
        assert wait_until(lambda: len(here.errors()) == 2, 10), here.errors()
        watch_cpu(here, friend)
        assert newcomers.ask("answered") == {"waits": 1}
        began = time.monotonic()
        idlers.ask("close")
        here.visit()
        figures.note("served after others left", time.monotonic() - began, "s", limit=RELIEF)
        check_log(here, "accepting connections fails", 2)
        friend.exchange()
        friend.leave()


def accept_errors(here):
    return here.server.ask("stats")[0]["accept_errors"]


def watch_cpu(here, friend):
    """The server spends little, and serves who is there."""
    used, nobody = cpu_seconds(here.server.pid), threading.Event()
    for _ in range(WATCHED):
        nobody.wait(1)
        here.figures.note("echo meanwhile", friend.exchange(), "s", limit=0.5)
    used = cpu_seconds(here.server.pid) - used
    here.figures.note("server CPU", 100 * used / WATCHED, "%", limit=100 * CPU)


def check_log(here, text, count):
    """There are so many lines that begin like this, and no other."""
    lines = here.errors()
    here.figures.note("log lines", len(lines))
    assert [text in line for line in lines] == [True] * count, lines


def run_threads(figures):
    with place(figures) as here:
        friend, idlers = here.client(), here.idlers()
        friend.exchange()
        here.visit()
        assert wait_until(lambda: here.server.ask("count")["connections"] == 1, 10)
        if os.geteuid() == 0:
            # RLIMIT_NPROC is not for root. The other user may not be allowed to read what
            # Python imports when it is first needed, hence the visit before.
            here.server.ask("become", UNUSED_USER)
        idlers.ask("attempt", ATTEMPTS // 4, 0)
        assert wait_until(lambda: idlers.ask("answered") == {"101": ATTEMPTS // 4}, 10)
        # Lower than what there is, so no thread can be started.
        here.limit(resource.RLIMIT_NPROC, 1)
        idlers.ask("attempt", 1, 0)
        if not wait_until(lambda: here.server.ask("stats")[0]["thread_errors"], 5):
            raise Skipped("RLIMIT_NPROC does not keep this process from starting threads")
        idlers.order("attempt", ATTEMPTS * 3 // 4 - 1, 0.02)
        watch_cpu(here, friend)
        idlers.answer()
        answered = idlers.ask("answered")
        figures.note("dropped", answered["dropped"])
        assert answered == {"101": ATTEMPTS // 4, "dropped": ATTEMPTS * 3 // 4}, answered
        check_log(here, "connection dropped: can't start new thread", 1)
        here.limit(resource.RLIMIT_NPROC, None)
        began = time.monotonic()
        here.visit()
        figures.note("served after the limit", time.monotonic() - began, "s", limit=RELIEF)
        friend.exchange()
        friend.leave()


# Crowds that come to nothing

SLOWLORIS = 200
SILENT_TLS = 50
RESETS = 2000
SERVED = 0.5  # seconds
CROWDED = 12  # seconds, longer than open_timeout
REST = 0.05  # seconds between two visits


class Visitor:
    """Comes again and again to one server; how long it took each time, and what went wrong."""

    def __init__(self, here, secure):
        self._here = here
        self._secure = secure
        self._over = threading.Event()
        self.seconds = []
        self.errors = []
        self._thread = threading.Thread(target=self._visit, daemon=True)
        self._thread.start()

    def end(self):
        """Come no more; the seconds that visits took, sorted."""
        self._over.set()
        self._thread.join()
        return sorted(self.seconds)

    def _visit(self):
        while not self._over.wait(REST):
            try:
                self.seconds.append(self._here.visit(self._secure))
            except Exception as exc:
                self.errors.append(repr(exc))


def run_crowd(options, figures):
    with place(figures, True, **options) as here:
        for secure in (False, True):
            here.visit(secure)
        visitors = [Visitor(here, secure) for secure in (False, True)]
        for kind, count, port in (
            ("slowloris", SLOWLORIS, here.ports[0]),
            ("slowloris", SLOWLORIS, here.ports[1]),
            ("silent-tls", SILENT_TLS, here.ports[1]),
        ):
            settings = {"kind": kind, "count": count, "address": [HOST, port]}
            here.stack.enter_context(
                Program("bad_peers.py", {**settings, "seed": figures.seed}, nice=5)
            )
        began = time.monotonic()
        for port in here.ports:
            storm = here.start("idlers.py", address=[HOST, port])
            figures.note("resets", RESETS / storm.ask("reset", RESETS), "per s")
        threading.Event().wait(max(0.0, began + CROWDED - time.monotonic()))
        figures.note("load average", os.getloadavg()[0])
        figures.note("opening", sum(stats["opening"] for stats in here.server.ask("stats")))
        for name, visitor in zip(("plain", "TLS"), visitors):
            seconds = visitor.end()
            assert visitor.errors == [], visitor.errors[:5]
            figures.note(f"visits, {name}", len(seconds))
            figures.note("p50", seconds[len(seconds) // 2] * 1000, "ms")
            figures.note("p99", seconds[len(seconds) * 99 // 100] * 1000, "ms")
            figures.note("max", seconds[-1] * 1000, "ms", limit=SERVED * 1000)
        assert [line for line in here.errors() if "ERROR" in line or "Trace" in line] == []


# Bombs

GROWTH = 3 * MIB  # three times max_size
EMPTY = 10_000_000
SINGLE = 1_000_000
PINGS = 1_000_000
BATCH = 20_000  # frames that a bomber sends at once
PONG_LIMIT = 1.0  # seconds, for a friend
BOMB_TIME = 300  # seconds; each must end


class Memory:
    """
    How much the memory of a process has grown at its highest.

    It begins after a connection that needed everything once: thread, inflater, buffers.
    """

    def __init__(self, here):
        for _ in range(2):
            warm_up(here)
        assert wait_until(lambda: here.server.ask("count")["connections"] == 0, 10)
        self._status = pathlib.Path(f"/proc/{here.server.pid}/status")
        here.server.ask("sample")  # gives back what is free
        # It makes the highest value begin afresh (proc(5)).
        pathlib.Path(f"/proc/{here.server.pid}/clear_refs").write_text("5")
        self._before = self._read("VmRSS")

    def growth(self):
        return self._read("VmHWM") - self._before

    def _read(self, name):
        lines = self._status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


def warm_up(here):
    wire = here.wire(**DEFLATE)
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(bytes(1000)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    wire.send(RSV1 | BINARY, data[:-4])
    assert wire.receive()[0] in (FIN | BINARY | RSV1, FIN | BINARY)
    wire.send_close(1000)
    wire.end()


def run_bomb(secure, throw, options, figures):
    # Bombers answer no ping; the kernel's timeout for those who don't read goes with it.
    with place(figures, secure, ping_interval=None, **options) as here:
        memory = Memory(here)
        began = time.monotonic()
        throw(here, figures)
        figures.note("took", time.monotonic() - began, "s", limit=BOMB_TIME)
        figures.note("memory +", memory.growth() / MIB, "MiB", limit=GROWTH / MIB)
        here.visit()
        assert here.errors() == [], here.errors()


def throw_all(wire, chunks):
    """Send until it is over or the server ends the connection."""
    sent = 0
    with contextlib.suppress(OSError):
        for chunk in chunks:
            wire.sock.sendall(chunk)
            sent += len(chunk)
    return sent


def expect_close(wire, code):
    """The server says why it ends the connection, and nothing else."""
    frames = []
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        while (received := wire.receive()) is not None:
            frames.append(received)
    heads = [head for head, _ in frames]
    assert heads == [FIN | CLOSE], f"{len(frames)} frames, the last of them {frames[-1:]}"
    closed = int.from_bytes(frames[0][1][:2], "big")
    assert closed == code, f"closed with {closed}, not {code}"


def throw_zeros(fragments, here, figures):
    zeros = make_bomb()
    figures.note("compressed", len(zeros) / MIB, "MiB")
    step = -(-len(zeros) // fragments)
    parts = [zeros[at : at + step] for at in range(0, len(zeros), step)]
    heads = [RSV1 | BINARY] + [CONT] * (len(parts) - 1)
    heads[-1] |= FIN
    wire = here.wire(**DEFLATE)
    throw_all(wire, (frame(head, part, masked=True) for head, part in zip(heads, parts)))
    expect_close(wire, 1009)


def many_frames(head, payload, count):
    batch = frame(head, payload, masked=True) * BATCH
    return (batch for _ in range(count // BATCH))


def throw_empty(code, here, figures):
    """Empty fragments; ``code`` is that of the end, or ``None`` if the message is delivered."""
    wire = here.wire()
    wire.send(BINARY, b"", fin=0)
    sent = throw_all(wire, many_frames(CONT, b"", EMPTY))
    figures.note("fragments sent", sent // 6)
    if code is not None:
        expect_close(wire, code)
        return
    wire.send(CONT, b"the end")
    assert wire.receive() == (FIN | BINARY, b"the end")
    wire.send_close(1000)
    expect_close(wire, 1000)


def throw_single(here, figures):
    wire = here.wire()
    wire.send(BINARY, b"x", fin=0)
    sent = throw_all(wire, many_frames(CONT, b"x", SINGLE))
    figures.note("fragments sent", sent // 7)
    wire.send(CONT, b"y")
    assert wire.receive() == (FIN | BINARY, b"x" * (SINGLE + 1) + b"y")
    wire.send_close(1000)
    expect_close(wire, 1000)


def throw_pings(path, here, figures):
    """Numbered pings whose pongs are not read before all are sent; a friend pings meanwhile."""
    wire = here.wire(path)
    friend = Friend(here)
    began = time.monotonic()
    sent = throw_all(wire, (number_pings(first) for first in range(0, PINGS, BATCH)))
    assert sent == PINGS * (6 + 125), "not all pings were taken"
    figures.note("pings", PINGS / (time.monotonic() - began), "per s")
    delays = friend.end()
    figures.note("pongs to a friend", len(delays))
    figures.note("the latest after", max(delays), "s", limit=PONG_LIMIT)
    check_pongs(wire, figures)
    wire.send(PING, b"once more")
    assert wire.receive() == (FIN | PONG, b"once more")
    wire.send_close(1000)
    expect_close(wire, 1000)


def check_pongs(wire, figures):
    """The newest ping was answered, and others before it in order."""
    last, pongs = -1, 0
    while last < PINGS - 1:
        head, payload = wire.receive()
        number = int(payload)
        assert head == FIN | PONG, f"{head:#x}"
        assert number > last, f"pong {number} after {last}"
        last, pongs = number, pongs + 1
    figures.note("pongs", pongs)


class Friend:
    """Pings a handler that is busy, for which the service thread answers, now and then."""

    def __init__(self, here):
        self._wire = here.wire("/deaf")
        self._over = threading.Event()
        self._delays = []
        self._thread = Task(self._ping)

    def end(self):
        """How long each pong took."""
        self._over.set()
        self._thread.result(BOMB_TIME)
        return self._delays

    def _ping(self):
        while not self._over.wait(0.1):
            began = time.monotonic()
            self._wire.send(PING, b"friend")
            assert self._wire.receive() == (FIN | PONG, b"friend")
            self._delays.append(time.monotonic() - began)


def number_pings(first):
    return b"".join(
        frame(FIN | PING, b"%0125d" % number, masked=True) for number in range(first, first + BATCH)
    )


def bombs(name, about, throw, **options):
    return both(
        f"bomb-{name}", f"{about}: memory grows by less than 3 MiB", run_bomb, throw, options
    )


SCENARIOS = [
    *both("stopped", "calls on clients stopped with SIGSTOP end in time", run_stopped),
    *(
        Scenario(
            f"broadcast-{policy}",
            f"on_full={policy}: 195 of 200 clients get all, 5 are stopped",
            functools.partial(run_broadcast, policy),
        )
        for policy in ("drop", "close", "wait")
    ),
    *both("shutdown-silent", "1,000 clients never answer; shutdown(timeout=1) < 2 s", run_shutdown),
    Scenario("no-descriptors", "RLIMIT_NOFILE 64 and 200 attempts", run_descriptors),
    Scenario("no-threads", "no thread can be started for 150 of 200 attempts", run_threads),
    Scenario(
        "crowd",
        "slowloris, silent TLS and resets: a good client is served within 500 ms",
        functools.partial(run_crowd, {}),
    ),
    Scenario(
        "crowd-over-limit",
        "the same with max_handshakes=100",
        functools.partial(run_crowd, {"max_handshakes": 100}),
    ),
    *bombs("zeros", "1 GiB of zeros in one frame", functools.partial(throw_zeros, 1)),
    *bombs("zeros-fragmented", "the same in 1,000", functools.partial(throw_zeros, 1000)),
    *bombs("empty", "10 million empty fragments", functools.partial(throw_empty, 1008)),
    *bombs(
        "empty-allowed",
        "10 million empty fragments, no limit",
        functools.partial(throw_empty, None),
        max_empty_fragments=None,
    ),
    *bombs("single", "a million fragments of a byte", throw_single),
    *bombs("pings", "a million pings, pongs unread", functools.partial(throw_pings, "/")),
    *bombs("pings-away", "the same, nobody in recv()", functools.partial(throw_pings, "/deaf")),
]
