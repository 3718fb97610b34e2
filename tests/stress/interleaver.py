"""
Plays random interleavings, as a program: Python threads share a core, processes do not.

Settings: none. The command ``play`` takes the first seed and a number of plays.
"""

from __future__ import annotations

import os
import pathlib
import tempfile
import threading

from programs import obey, use_paths, wait_until

use_paths()

from interleaving import Arena, make_contexts, play_all  # noqa: E402 # it needs the path

from syncws.service import service  # noqa: E402 # it needs the path

WORKERS = 16  # plays at the same time: they mostly wait
SETTLE = 10  # seconds until nothing of them may be left


def count_left():
    """Threads and descriptors of this process."""
    descriptors = os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ()
    return [threading.active_count(), len(descriptors)]


def play(first, count):
    """Play plans; returns what came of it, and the threads and descriptors left behind."""
    before = count_left()
    with tempfile.TemporaryDirectory() as folder:
        with Arena(*make_contexts(), pathlib.Path(folder)) as arena:
            result = play_all(arena, range(first, first + count), workers=WORKERS)
    wait_until(lambda: service.join(1) and count_left() == before, SETTLE)
    return {
        "played": result.played,
        "cut": result.cut,
        "unfair": result.unfair,
        "durations": result.durations,
        "failures": len(result.failures),
        "report": result.report(),
        "left": [now - old for now, old in zip(count_left(), before)],
    }


if __name__ == "__main__":
    obey({"play": play})
