"""Ten thousand random interleavings of calls and peer actions; see tests/interleaving.py."""

from __future__ import annotations

import functools
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from programs import Program
from scenario import Scenario

PLAYS = 10_000
CHUNK = 250  # plays between two looks at what was left behind

TIME_LIMIT = 900  # seconds


def play_share(figures, firsts, chunks):
    """Have a process play chunks, as long as there are any."""
    with Program("interleaver.py", {}) as program:
        while firsts:
            chunks.append(program.ask("play", firsts.pop(), CHUNK, timeout=TIME_LIMIT))
            figures.progress(f"{sum(chunk['played'] for chunk in chunks)} of {PLAYS} played")


def play_interleavings(figures):
    firsts = list(range(figures.seed, figures.seed + PLAYS, CHUNK))
    chunks = []
    began = time.monotonic()
    with ThreadPoolExecutor() as pool:
        share = functools.partial(play_share, figures, firsts, chunks)
        for running in [pool.submit(share) for _ in range(os.cpu_count() or 1)]:
            running.result()
    seconds = time.monotonic() - began

    def total(name):
        return sum(chunk[name] for chunk in chunks)

    figures.note("played", total("played"))
    figures.note("rate", total("played") / seconds, "/s")
    figures.note("cut off by our end", total("cut"))
    figures.note("fair ones for which the machine was too slow", total("unfair"))
    for name in ("close", "send", "recv", "ping", "wake-up"):
        longest = max(chunk["durations"].get(name, 0.0) for chunk in chunks)
        figures.note(f"longest {name}", longest, "s")
    figures.note("threads left", max(chunk["left"][0] for chunk in chunks), limit=0)
    figures.note("descriptors left", max(chunk["left"][1] for chunk in chunks), limit=0)
    # With seeds: tests/interleaving.py SEED plays one again.
    print("".join(chunk["report"] for chunk in chunks), file=sys.stderr)
    figures.note("failures", total("failures"), limit=0)
    assert total("played") == PLAYS


SCENARIOS = [
    Scenario(
        "interleavings",
        "10,000 random interleavings of up to 8 threads and a bad peer: no hang, one Close frame",
        play_interleavings,
    ),
]
