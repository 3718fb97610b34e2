"""
The soak: everything at once for as long as it is told, and nothing may grow or go astray.

Steady clients, shared connections, subscribers of a broadcast, clients that come and go in every
way, and a few bad peers, plain and TLS. Every message carries its connection, number and hash,
and both sides check that none is lost, doubled, reordered or crossed (ledger.py, servers/soak.py,
soak_clients.py).

Every PERIOD seconds all rest, the server is alone with the connections that stay, and it and the
program of the clients are sampled. The first five minutes (or, of less than 20 minutes, the first
quarter) are for warming up. Of the rest, the medians of the first and last quarter are compared:

* threads, descriptors and connection objects must be the same;
* memory may be TOLERANCE more, or SLACK: holes in pages come and go.

It is paced, and needs about half a core with the bad peers, so that it can run beside other work
with ``nice``. Nothing in it has a limit of time that a busy machine would break.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import statistics
import tempfile
import threading
import time

from bad_peers import KINDS
from battery_bad_peers import MIB, cpu_seconds, make_certificates
from programs import Program, wait_until
from scenario import Scenario

MINUTES = float(os.environ.get("STRESS_MINUTES", "60"))
TIME_LIMIT = 60 * MINUTES + 600  # seconds, for run

PERIOD = 10  # seconds from one sample to the next
GANGS = 2  # kinds of bad peers in each period
GANG_SIZE = 3
GANG_SECONDS = 1.5
SETTLE = 90  # seconds; all timeouts of the server are shorter

WARM_UP = 5 * 60 if MINUTES >= 20 else 60 * MINUTES / 4  # seconds
COURSE = 24  # samples that the report shows

TOLERANCE = 0.05
SLACK = 2 * MIB

OPTIONS = {
    "open_timeout": 10,
    "ping_interval": 5,
    "ping_timeout": 60,
    "close_timeout": 10,
    "send_timeout": 30,
}


def soak(figures):
    """The scenario."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        certificate, authority = make_certificates(pathlib.Path(folder))
        settings = {"options": OPTIONS, "certificate": certificate}
        server = stack.enter_context(Program("servers/soak.py", settings))
        settings = {"ports": server.ask("ports"), "authority": authority, "seed": figures.seed}
        clients = stack.enter_context(Program("soak_clients.py", settings))
        Soak(figures, server, clients).run()


class Soak:
    """What is done and measured."""

    def __init__(self, figures, server, clients):
        self._figures = figures
        self._server = server
        self._clients = clients
        self._random = random.Random(figures.seed)
        self._ports = server.ask("ports")
        self._staying = clients.ask("staying")
        self._began = time.monotonic()
        self._samples = {"server": [], "clients": []}  # with the seconds since the beginning
        self._totals = {"echoes": 0, "broadcasts": 0, "visits": 0, "bad peers": 0}
        self._slowest = 0.0
        self._raw = 0

    def run(self):
        while (passed := time.monotonic() - self._began) < 60 * MINUTES:
            self._work()
            self._rest()
            self._figures.progress(self._describe(passed))
        self._note_totals()
        self._leave()
        for program, samples in self._samples.items():
            self._compare(program, samples)

    def _work(self):
        """Let everything happen for almost a period."""
        began = time.monotonic()
        self._server.ask("stream", True)
        self._clients.ask("work")
        for _ in range(GANGS):
            self._let_loose(self._random.choice(list(KINDS.values())))
        left = PERIOD - 1 - (time.monotonic() - began)
        threading.Event().wait(max(0, left))

    def _let_loose(self, kind):
        settings = {
            "kind": kind.name,
            "count": GANG_SIZE,
            "address": ["127.0.0.1", self._ports[kind.secure]],
            "seed": self._random.getrandbits(32),
        }
        with Program("bad_peers.py", settings) as gang:
            threading.Event().wait(GANG_SECONDS)
            self._totals["bad peers"] += GANG_SIZE + sum(gang.ask("end").values())

    def _rest(self):
        """Let all rest, and sample."""
        self._server.ask("stream", False)
        restless = self._clients.ask("rest", timeout=120)
        self._check_accounts()
        assert restless == [], f"these do not rest: {restless}"
        self._settle()
        now = time.monotonic() - self._began
        for program, samples in (("server", self._server), ("clients", self._clients)):
            self._samples[program].append((now, samples.ask("sample")))
        self._raw = max(self._raw, self._samples["server"][-1][1]["raw"])

    def _settle(self):
        """Wait until the server has but the connections that stay, and their threads."""

        def is_settled():
            return self._server.ask("count")["connections"] == self._staying

        if not wait_until(is_settled, SETTLE):
            count = self._server.ask("count")
            raise AssertionError(f"{count['connections']} connections, not {self._staying}")
        counts = [self._server.ask("count")]

        def is_steady():
            counts.append(self._server.ask("count"))
            return counts[-5:] == [counts[-1]] * 5

        assert wait_until(is_steady, SETTLE, pause=0.1), f"never steady: {counts[-5:]}"

    def _check_accounts(self):
        account, of_server = self._clients.ask("account"), self._server.ask("account")
        faults = account["faults"] + of_server["faults"]
        assert faults == [], "\n".join(faults)
        self._totals["echoes"] += account["echoes"]["count"]
        self._totals["broadcasts"] += account["broadcasts"]
        self._totals["visits"] += account["visits"]
        self._slowest = max(self._slowest, account["echoes"]["max"])

    def _describe(self, passed):
        last = self._samples["server"][-1][1]
        held = last["held"] / MIB
        return (
            f"{passed / 60:.1f} min, {self._totals['echoes']} echoes, {held:.1f} MiB, "
            f"{last['threads']} threads, {last['descriptors']} descriptors"
        )

    def _note_totals(self):
        for name, number in self._totals.items():
            self._figures.note(name, number)
        note, passed = self._figures.note, time.monotonic() - self._began
        note("slowest echo", self._slowest, "s")
        note("CPU of the server", cpu_seconds(self._server.pid) / passed * 100, "%")
        note("CPU of the clients", cpu_seconds(self._clients.pid) / passed * 100, "%")
        note("server's resident memory at most, with holes", self._raw / MIB, "MiB")

    def _leave(self):
        """All leave, and nothing is left."""
        staying = self._clients.ask("leave", timeout=120)
        self._check_accounts()
        assert staying == [], f"these do not end: {staying}"
        left = {}

        def is_alone():
            left.update(self._server.ask("sample"))
            return not left["connections"] and not left["objects"]

        assert wait_until(is_alone, SETTLE), f"left: {left}"
        running = self._server.ask("shutdown", 10)
        assert running == [], "\n".join(running)
        for program in (self._server, self._clients):
            log = program.log()
            assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]

    def _compare(self, program, samples):
        """Hold the last quarter against the first one after the warm-up."""
        warm = [sample for at, sample in samples if at > WARM_UP]
        quarter = max(1, len(warm) // 4)
        first, last = warm[:quarter], warm[-quarter:]
        note = self._figures.note
        note(f"samples of {program}", len(warm))
        for name in ("held", "heap", "threads", "descriptors", "objects"):
            before = statistics.median(sample[name] for sample in first)
            after = statistics.median(sample[name] for sample in last)
            if name in ("held", "heap"):
                course = " ".join(f"{s[name] / MIB:.1f}" for _, s in thin_out(samples, COURSE))
                note(f"{name} of {program} in time", course, "MiB")
                limit = before + max(TOLERANCE * before, SLACK)
                note("first quarter", before / MIB, "MiB")
                note("last quarter", after / MIB, "MiB", limit=limit / MIB)
            else:
                note(f"{name} of {program}", after, limit=before)


def thin_out(items, count):
    """At most so many items, evenly spread."""
    step = max(1, -(-len(items) // count))
    return items[::step]


SCENARIOS = [Scenario("soak", f"everything at once for {MINUTES:g} minutes: nothing grows", soak)]
