"""Networks that split, trickle, pause, stall, cut and reset, as the chaos proxy plays them."""

from __future__ import annotations

import contextlib
import pathlib
import ssl
import tempfile
import threading
import time

import trustme
from chaos_proxy import ChaosProxy, Plan, Route
from links import echo
from programs import Program, wait_until
from scenario import Scenario

from syncws import ConnectionClosedError, InvalidHandshake, connect, serve

SECONDS = 60  # of each of the longer scenarios
CONNECTIONS = 50

# Messages that go through parts of a few bytes, and through longer ones.
TRICKLED_SIZES = (0, 8, 48, 56, 64, 240)
SPLIT_SIZES = (0, 56, 64, 1000, 16384, 65536, 100_000)

# Everything that waits for the network ends within these; all of them together are LONGEST.
TIMEOUTS = {
    "open_timeout": 3,
    "ping_interval": 1,
    "ping_timeout": 3,
    "send_timeout": 3,
    "close_timeout": 2,
}
LONGEST = 15  # seconds; the sum of those for opening, keepalive and closing, and then some


class Certificates:
    """An authority and a certificate for the server, as files."""

    def __init__(self, folder):
        authority = trustme.CA()
        self.server = str(folder / "server.pem")
        self.authority = str(folder / "authority.pem")
        issued = authority.issue_cert("127.0.0.1")
        issued.private_key_and_cert_chain_pem.write_to_path(self.server)
        authority.cert_pem.write_to_path(self.authority)


@contextlib.contextmanager
def make_certificates():
    with tempfile.TemporaryDirectory() as folder:
        yield Certificates(pathlib.Path(folder))


@contextlib.contextmanager
def two_ends():
    """The programs of a server and of clients; neither may log a traceback."""
    with make_certificates() as files, contextlib.ExitStack() as stack:
        settings = {"certificate": files.server, "authority": files.authority, "namespace": None}
        programs = [stack.enter_context(Program("servers/link_end.py", settings)) for _ in range(2)]
        yield programs
        for program in programs:
            assert "Traceback" not in program.log(), program.log()


def choose_split(number, rng):
    """Both directions in parts of random sizes, up to some size, with pauses of up to 0.5 s."""
    return Route(*(make_plan(rng, rng.choice((2000, 20_000, 65536))) for _ in "ud"))


def choose_trickle(number, rng):
    """Both directions in parts of a few bytes."""
    return Route(*(make_plan(rng, rng.choice((1, 2, 10, 100))) for _ in "ud"))


def make_plan(rng, largest):
    return Plan(
        sizes=(1, largest),
        delay=rng.choice((0, 0, 0.001)),
        pause=rng.uniform(0, 0.5),
        pause_chance=rng.choice((0, 0.001, 0.01)),
    )


def choose_fault(number, rng):
    """Parts of random sizes, and for most connections a fault in one direction."""
    route = choose_split(number, rng)
    fault = rng.choice(("reset_after", "end_after", "stall_after", None))
    if fault is None:
        return route
    offset = rng.choice((rng.randrange(700), rng.randrange(5000), rng.randrange(100_000)))
    direction = rng.choice(("up", "down"))
    return route._replace(**{direction: getattr(route, direction)._replace(**{fault: offset})})


def play_exact(figures):
    with two_ends() as (server, client), contextlib.ExitStack() as stack:
        for secure in (False, True):
            address = server.ask("listen", "127.0.0.1", secure, {})
            for choose in (choose_split, choose_trickle):
                proxy = stack.enter_context(ChaosProxy(address, choose, seed=figures.seed))
                sizes = SPLIT_SIZES if choose is choose_split else TRICKLED_SIZES
                client.ask("open", proxy.server_address, secure, None, CONNECTIONS // 4, "echo", {})
                client.ask("start_exchange", figures.seed, sizes, 4)
        watch(figures, SECONDS)
        result = client.ask("finish_exchange", timeout=120)
        assert result["errors"] == [], result["errors"][:5]
        figures.note("messages echoed exactly", result["messages"])
        figures.note("close() of clients", client.ask("close"), "s", limit=10)
        assert wait_until(lambda: server.ask("count_open") == 0, 10)


def watch(figures, seconds):
    """Let things happen for a while."""
    pause = threading.Event()
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        figures.progress(f"{until - time.monotonic():.0f} s to go")
        pause.wait(1)


def play_faults(figures):
    with two_ends() as (server, client):
        for secure in (False, True):
            name = "TLS" if secure else "plain"
            figures.progress(name)
            address = server.ask("listen", "127.0.0.1", secure, TIMEOUTS)
            with ChaosProxy(address, choose_fault, seed=figures.seed) as proxy:
                command = ["live", proxy.server_address, secure, CONNECTIONS, SECONDS]
                result = client.ask(*command, figures.seed, TIMEOUTS, timeout=SECONDS + 120)
            assert result["errors"] == [], result["errors"][:5]
            for what, count in result["counts"].items():
                figures.note(f"{name}: {what}", count)
                assert count or what == "timed out", f"never {what}"
            figures.note(f"{name}: longest", result["longest"], "s", limit=LONGEST)
        assert wait_until(lambda: server.ask("count_open") == 0, 10)


# Cuts at every byte


class Sweep:
    """
    Talks through a proxy that cuts each connection one byte later than the last one.

    Args:
        fault: what to do, as ``Plan`` has it.
        direction: in which direction, ``up`` or ``down``.
        step: bytes between two cuts.
    """

    def __init__(self, server, context, fault, direction, step):
        self._server = server
        self._context = context
        self._fault = fault
        self._direction = direction
        self._step = step

    def run(self):
        """Cut at each byte; returns how often."""
        with ChaosProxy(self._server.server_address) as proxy:
            assert self._talk(proxy) == 1000
            total = proxy.count(self._direction)
        offsets = range(0, total + 10, self._step)
        plans = [Route(**{self._direction: Plan(**{self._fault: o})}) for o in offsets]
        with ChaosProxy(self._server.server_address, lambda number, rng: plans[number]) as proxy:
            for offset in offsets:
                seen = self._talk(proxy)
                # Within the last bytes the Close frames may have passed, and in TLS sizes vary.
                assert seen in ("not opened", 1006) or offset > total - 100, (offset, seen)
        return len(offsets)

    def _talk(self, proxy):
        """Exchange three messages and close; tells the close code."""
        host, port = proxy.server_address
        try:
            scheme = "ws" if self._context is None else "wss"
            client = connect(f"{scheme}://{host}:{port}/", ssl=self._context, compression=None)
        except (InvalidHandshake, OSError):  # as connect() documents
            return "not opened"
        with contextlib.suppress(ConnectionClosedError):
            for message in ("text", bytes(200), "the last"):
                client.send(message)
                assert client.recv(10) == message
        client.close()
        assert client.close_code in (1000, 1006)
        return client.close_code


def play_every_byte(figures):
    with make_certificates() as files:
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(files.server)
        client_context = ssl.create_default_context(cafile=files.authority)
        for ours, theirs, step in ((None, None, 1), (server_context, client_context, 2)):
            cuts = 0
            with serve(echo, "127.0.0.1", 0, ssl=ours, compression=None).start() as server:
                for fault in ("reset_after", "end_after"):
                    for direction in ("up", "down"):
                        figures.progress(f"{fault} {direction}: {cuts} cuts")
                        cuts += Sweep(server, theirs, fault, direction, step).run()
                assert wait_until(lambda: server.stats()["total"] == 0, 10)
            figures.note("cuts, plain" if ours is None else "cuts, TLS", cuts)


SCENARIOS = [
    Scenario("chaos-exact", "split, trickled and paused: 50 connections are exact", play_exact),
    Scenario(
        "chaos-faults",
        "stalled, cut and reset at random: ends are as documented and in time, nothing is torn",
        play_faults,
    ),
    Scenario(
        "chaos-every-byte", "cut and reset at every byte: 1006, and no traceback", play_every_byte
    ),
]
