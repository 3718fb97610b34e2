#!/usr/bin/env python3
"""
Measure what compression saves and costs, and write docs/measured/deflate*.inc.

    python3 benchmarks/deflate.py     about two minutes

Messages go one by one through the compressor and the decompressor of a connection, without
a network. CPU time is the least of some rounds, so that other programs disturb it little.
"""

from __future__ import annotations

import argparse
import json
import pathlib
import platform
import random
import sys
import time
import tracemalloc
import zlib
from pydoc_data.topics import topics
from typing import NamedTuple

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from benchmarks.tables import list_table  # noqa: E402 # found by the line above
from syncws.permessage_deflate import DeflateCodec  # noqa: E402 # found by the line above

OUTPUT = CHECKOUT / "docs" / "measured"
ROUNDS = 5

Payloads = list[bytes]


class Setting(NamedTuple):
    """How to compress."""

    window: int
    memory_level: int
    takeover: bool = True
    level: int = 6

    @property
    def title(self) -> str:
        return f"{self.window}, {self.memory_level}" + ("" if self.takeover else ", no takeover")

    def codec(self) -> DeflateCodec:
        return DeflateCodec(
            own_window_bits=self.window,
            peer_window_bits=self.window,
            own_no_context_takeover=not self.takeover,
            peer_no_context_takeover=not self.takeover,
            memory_level=self.memory_level,
            level=self.level,
        )


class Cost(NamedTuple):
    """Compressed size by original size; seconds for a message."""

    ratio: float
    deflate: float
    inflate: float


SETTINGS = [
    Setting(9, 1),
    Setting(10, 3),
    Setting(11, 4),
    Setting(12, 5),
    Setting(12, 5, takeover=False),
    Setting(13, 6),
    Setting(14, 7),
    Setting(15, 8),
    Setting(15, 8, takeover=False),
    Setting(15, 9),
]


# What is sent


def make_json(size: int, count: int) -> Payloads:
    """Readings of sensors, of about that many bytes each; always the same ones."""
    source = random.Random(size)
    return [_readings(source, size) for _ in range(count)]


def _readings(source: random.Random, size: int) -> bytes:
    readings: list[dict[str, object]] = []
    length = 0
    while length < size:
        reading = {
            "sensor": f"{source.choice(['north', 'south', 'roof'])}-{source.randrange(40)}",
            "at": 1_700_000_000 + source.randrange(10_000_000),
            "celsius": round(source.gauss(20, 5), 2),
            "ok": source.random() > 0.05,
        }
        readings.append(reading)
        length += len(json.dumps(reading)) + 2
    return json.dumps(readings).encode()


def make_text(size: int, count: int) -> Payloads:
    """Pieces of English: the manual that comes with Python."""
    manual = "".join(topics[name] for name in sorted(topics)).encode()
    return [manual[n * size : (n + 1) * size] for n in range(count)]


# Measuring


def measure(setting: Setting, payloads: Payloads) -> Cost:
    """What it costs to send and receive these messages on one connection."""
    deflate = inflate = float("inf")
    for _ in range(ROUNDS):
        codec = setting.codec()
        began = time.process_time()
        compressed = [codec.deflate(payload) for payload in payloads]
        between = time.process_time()
        for message in compressed:
            codec.inflate(message, True)
        ended = time.process_time()
        deflate = min(deflate, between - began)
        inflate = min(inflate, ended - between)
    ratio = sum(map(len, compressed)) / sum(map(len, payloads))
    return Cost(ratio, deflate / len(payloads), inflate / len(payloads))


def memory(setting: Setting) -> tuple[int, int]:
    """Bytes that zlib allocates for the compressor and for the decompressor of a connection."""
    codec = setting._replace(takeover=True).codec()
    sample = make_json(65536, 1)[0]
    tracemalloc.start()
    try:
        began = tracemalloc.get_traced_memory()[0]
        compressed = codec.deflate(sample)
        between = tracemalloc.get_traced_memory()[0] - len(compressed)
        codec.inflate(compressed, True)
        return between - began, tracemalloc.get_traced_memory()[0] - len(compressed) - between
    finally:
        tracemalloc.stop()


# The tables


def conditions() -> str:
    return f"\nPython {platform.python_version()}, zlib {zlib.ZLIB_RUNTIME_VERSION}.\n"


def show(cost: Cost) -> str:
    return f"{cost.ratio:.0%}\n{cost.deflate * 1e6:.0f} + {cost.inflate * 1e6:.0f}"


def measure_payloads(kinds: dict[str, Payloads]) -> str:
    """A row for each setting: size and time for each kind of message, and memory."""
    header = ["Window bits, memory level", *kinds, "KiB to send", "KiB to receive"]
    rows = []
    for setting in SETTINGS:
        row = [setting.title]
        for payloads in kinds.values():
            cost = measure(setting, payloads)
            row.append(show(cost))
        sizes = memory(setting)
        row += [f"{size / 1024:.0f}" if setting.takeover else "0" for size in sizes]
        print(row, file=sys.stderr)
        rows.append(row)
    return list_table(header, rows) + conditions()


def measure_levels(kinds: dict[str, Payloads]) -> str:
    """The same for zlib's levels, with the default window."""
    rows = []
    for level in (1, 3, 6, 9):
        row = [str(level)]
        for payloads in kinds.values():
            cost = measure(Setting(12, 5, level=level), payloads)
            row.append(show(cost))
        print(row, file=sys.stderr)
        rows.append(row)
    return list_table(["Level", *kinds], rows) + conditions()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, default=OUTPUT, help="folder")
    parser.add_argument("--count", type=int, default=150, help="messages of each kind")
    args = parser.parse_args()
    args.out.mkdir(exist_ok=True)
    kinds = {
        "JSON, 256 bytes": make_json(256, args.count),
        "JSON, 1 KiB": make_json(1024, args.count),
        "JSON, 16 KiB": make_json(16384, args.count // 3),
        "English, 1 KiB": make_text(1024, args.count),
    }
    (args.out / "deflate.inc").write_text(measure_payloads(kinds))
    (args.out / "deflate-levels.inc").write_text(measure_levels(kinds))


if __name__ == "__main__":
    main()
