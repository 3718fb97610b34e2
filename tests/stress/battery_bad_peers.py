"""
Bad peers of each kind, and beside them 50 healthy clients: their echoes must be exact and in time.

The limits, and why:

* Healthy clients have an echo within 250 ms (99th percentile), and within 2 s always. With a GIL,
  threads that compute take turns of 5 ms: with 20 floods that keep their threads busy it is 100 ms
  until a healthy client's thread has its turn. The rest is for a machine with two noisy cores.
* Newcomers are connected and served within 500 ms (90th percentile; it is about 50 of them), and
  within 2 s always: their thread has to have several such turns.
* The memory of the server grows by what the table of bad peers states for each, and by ALLOWANCE.
* When the bad peers have gone, threads, descriptors and connections are what they were, within
  SETTLE seconds; each timeout of the server is shorter. When the healthy clients have gone too, no
  connection object is left, and memory is what it was at the beginning, and KEPT at most.
* The bad peers end as the table says, and the server's log has neither an error nor a traceback.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import os
import pathlib
import tempfile
import threading
import time

import trustme
from bad_peers import KINDS
from programs import Program, wait_until
from scenario import Scenario

MIB = 2**20

HEALTHY = 50
PACE = 0.1  # seconds between two messages of a healthy client
ALONE = 1  # second without bad peers
DURATION = 6  # seconds with the bad peers
SLICE = 0.25  # seconds between two looks at the server's memory

ECHO_P99, ECHO_MAX = 0.25, 2.0  # seconds
VISIT_P90, VISIT_MAX = 0.5, 2.0  # seconds
SETTLE = 6  # seconds
SHUTDOWN = 5  # seconds
ALLOWANCE = 16 * MIB  # for the bad peers together
KEPT = 8 * MIB  # of that, for caches of Python and of the C library

# Limits are the defaults; timeouts are short, so that seconds show what they do.
OPTIONS = {
    "open_timeout": 2,
    "ping_interval": 1,
    "ping_timeout": 1,
    "close_timeout": 1,
    "send_timeout": 2,
}

# Bad peers get what the server and the healthy clients leave of the CPU: it is the
# server that is tested here, not how the machine shares its cores.
BAD_NICE = 5


def run_kind(kind, figures):
    """One scenario."""
    with contextlib.ExitStack() as stack:
        certificate, authority = None, None
        if kind.secure:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            certificate, authority = make_certificates(pathlib.Path(folder))
        server = start(stack, "servers/echo.py", options=OPTIONS, certificate=certificate)
        address = ["127.0.0.1", server.ask("ports")[-1]]
        idle = server.ask("sample")
        crowd = start(
            stack,
            "healthy.py",
            address=address,
            authority=authority,
            count=HEALTHY,
            pace=PACE,
            seed=figures.seed,
        )
        assert crowd.ask("wait_ready") == []
        Trial(kind, figures, server, idle, crowd, address).run()


def start(stack, script, *, nice=0, **settings):
    return stack.enter_context(Program(script, settings, nice=nice))


def make_certificates(folder):
    """A certificate of the server with its key, and that of the authority, as files."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    issued = authority.issue_cert("localhost", "127.0.0.1")
    issued.private_key_and_cert_chain_pem.write_to_path(str(folder / "server.pem"))
    return str(folder / "server.pem"), str(folder / "authority.pem")


class Trial:
    """What is measured before, while and after bad peers are there."""

    def __init__(self, kind, figures, server, idle, crowd, address):
        self._kind = kind
        self._figures = figures
        self._server = server
        self._idle = idle  # a sample of the server when nobody was there
        self._crowd = crowd
        self._address = address

    def run(self):
        before = self._settled_sample()
        alone = self._measure_alone()
        self._figures.note("echo p99 without", alone["echoes"]["p99"] * 1000, "ms")
        ends, peak, cpu = self._let_loose(before)
        self._check_healthy()
        self._check_ends(ends)
        self._figures.note("server CPU", cpu * 100, "%")
        bound = self._kind.count * self._kind.memory + ALLOWANCE
        self._figures.note("memory +", (peak - before["held"]) / MIB, "MiB", limit=bound / MIB)
        self._check_settled(before)
        self._check_end()

    def _settled_sample(self):
        """A sample with the healthy clients alone, and without a visitor."""
        assert wait_until(lambda: self._server.ask("count")["connections"] == HEALTHY, SETTLE)
        return self._server.ask("sample")

    def _measure_alone(self):
        """How echoes are without bad peers, for comparison."""
        self._crowd.ask("report")
        threading.Event().wait(ALONE)
        return self._crowd.ask("report")

    def _let_loose(self, before):
        """Let the bad peers play; returns how they ended, memory at its highest, and CPU used."""
        settings = {
            "kind": self._kind.name,
            "count": self._kind.count,
            "address": self._address,
            "seed": self._figures.seed,
        }
        peak, nobody = before["held"], threading.Event()
        with Program("bad_peers.py", settings, nice=BAD_NICE) as gang:
            gang.ask("tally")  # it has started
            began, used = time.monotonic(), cpu_seconds(self._server.pid)
            while (passed := time.monotonic() - began) < DURATION:
                nobody.wait(SLICE)
                peak = max(peak, self._server.ask("held"))
                self._figures.progress(f"{passed:.0f} s, {peak / MIB:.0f} MiB")
            used = cpu_seconds(self._server.pid) - used
            return gang.ask("end"), peak, used / passed

    def _check_healthy(self):
        """Echoes were exact and in time, and newcomers were served."""
        report = self._crowd.ask("report")
        assert report["errors"] == [], report["errors"]
        note = self._figures.note
        echoes, visits = report["echoes"], report["visits"]
        note("echoes", echoes["count"])
        note("p50", echoes["p50"] * 1000, "ms")
        note("p99", echoes["p99"] * 1000, "ms", limit=ECHO_P99 * 1000)
        note("max", echoes["max"] * 1000, "ms", limit=ECHO_MAX * 1000)
        note("newcomers", visits["count"])
        note("their p90", visits["p90"] * 1000, "ms", limit=VISIT_P90 * 1000)
        note("their max", visits["max"] * 1000, "ms", limit=VISIT_MAX * 1000)
        assert echoes["count"] > 0.5 * HEALTHY * DURATION / PACE, "too few echoes"

    def _check_ends(self, ends):
        """The bad peers ended as they should."""
        counted = collections.Counter(ends)
        self._figures.note("lives of bad peers", sum(ends.values()))
        self._figures.note("ended", ", ".join(f"{end}: {n}" for end, n in counted.most_common(5)))
        allowed = self._kind.ends.split()
        others = {end: n for end, n in ends.items() if end not in allowed}
        assert not others, f"not as documented: {others}"
        assert ends or "stays" in allowed, "no bad peer was ended"

    def _check_settled(self, before):
        """All is as it was before."""
        began = time.monotonic()
        names = ("threads", "descriptors", "connections")

        def is_settled():
            count = self._server.ask("count")
            return all(count[name] <= before[name] for name in names)

        settled = wait_until(is_settled, SETTLE)
        count = self._server.ask("count")
        assert settled, f"{count}, but before {before}"
        self._figures.note("settled in", time.monotonic() - began, "s")

    def _check_end(self):
        """All leave, the server is shut down, and its log has no traceback."""
        errors = self._crowd.ask("leave")
        assert errors == [], errors
        left = {}

        def is_alone():
            left.update(self._server.ask("sample"))
            return not left["connections"] and not left["objects"]

        assert wait_until(is_alone, SETTLE), f"left: {left}"
        kept = left["held"] - self._idle["held"]
        self._figures.note("memory kept", kept / MIB, "MiB", limit=KEPT / MIB)
        running = self._server.ask("shutdown", SHUTDOWN)
        assert running == [], "\n".join(running)
        log = self._server.log()
        assert "Traceback" not in log, log[log.index("Traceback") - 500 :][:3000]
        assert "ERROR" not in log, log[log.index("ERROR") - 100 :][:1000]


def cpu_seconds(pid):
    """CPU time that a process has used."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


SCENARIOS = [
    Scenario(
        f"bad-peer-{kind.name}", f"a peer that {kind.about}", functools.partial(run_kind, kind)
    )
    for kind in KINDS.values()
]
