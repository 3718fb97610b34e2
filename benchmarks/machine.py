"""What machine this is, and what its processes use: read from /proc, so for Linux."""

from __future__ import annotations

import contextlib
import os
import pathlib
import platform
import resource
import time
from collections.abc import Iterator
from typing import NamedTuple, Optional

TICKS = os.sysconf("SC_CLK_TCK")


class Cores(NamedTuple):
    """Where server and load generator may run; ``None`` for anywhere."""

    server: Optional[set[int]]
    client: Optional[set[int]]


def choose_cores(pinned: bool) -> Cores:
    """One core for each, and the last ones, since interrupts prefer the first."""
    usable = sorted(os.sched_getaffinity(0))
    if not pinned or len(usable) < 2:
        return Cores(None, None)
    return Cores({usable[-2]}, {usable[-1]})


@contextlib.contextmanager
def on_cores(cores: Optional[set[int]]) -> Iterator[None]:
    """Processes started within run there: they inherit it."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores or before)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def raise_descriptor_limit(wanted: int) -> int:
    """Allow as many open files as we may, at most ``wanted``; returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for limits in ((wanted, max(wanted, hard)), (min(wanted, hard), hard)):
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        except (ValueError, OSError):
            continue
        return limits[0]
    return soft


def describe() -> dict[str, object]:
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(read_fields("/proc/meminfo")["MemTotal"] / 2**20, 1),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "kernel": f"{platform.system()} {platform.release()}",
        "libc": " ".join(platform.libc_ver()),
        "python": platform.python_version(),
        "compiler": platform.python_compiler(),
    }


def cpu_model() -> str:
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("model name", "Hardware", "cpu model"):
            return value.strip()
    return platform.machine()


def read_fields(path: str) -> dict[str, int]:
    """The numbers of a file whose lines are like ``VmRSS:   1234 kB``."""
    fields = {}
    for line in pathlib.Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        words = value.split()
        if words and words[0].isdigit():
            fields[key] = int(words[0])
    return fields


class Usage(NamedTuple):
    """What a process holds."""

    rss: int  # KiB
    threads: int
    descriptors: int


def usage(process: int) -> Usage:
    status = read_fields(f"/proc/{process}/status")
    descriptors = len(os.listdir(f"/proc/{process}/fd"))
    return Usage(status["VmRSS"], status["Threads"], descriptors)


class Times(NamedTuple):
    """Clocks, in seconds: of the wall, of all cores, of one process, of ended children."""

    wall: float
    busy: float  # with the time that a hypervisor gave to others
    process: float
    children: float

    @classmethod
    def read(cls, process: int) -> Times:
        fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()
        user, nice, system, _, _, interrupts, soft, stolen = map(int, fields[1:9])
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(
            time.monotonic(),
            (user + nice + system + interrupts + soft + stolen) / TICKS,
            process_time(process),
            children.ru_utime + children.ru_stime,
        )


def process_time(process: int) -> float:
    text = pathlib.Path(f"/proc/{process}/stat").read_text()
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def used_by_others(before: Times, after: Times) -> float:
    """Cores that neither the server nor the load generator, a child meanwhile ended, used."""
    ours = after.process - before.process + after.children - before.children
    return max(0.0, (after.busy - before.busy - ours) / (after.wall - before.wall))
