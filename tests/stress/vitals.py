"""What a program can tell of itself: memory, threads, descriptors, connection objects."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import pathlib

from syncws import Connection

__all__ = ["count", "held", "sample"]


def count():
    """Threads and descriptors, which is quick."""
    return {
        "threads": _read_status("Threads"),
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # but the one that lists
    }


def held():
    """Bytes of memory in use, without the holes that the C library keeps in its heap."""
    with contextlib.suppress(AttributeError, OSError):  # another C library: holes stay in
        ctypes.CDLL(None).malloc_trim(0)
    return _read_status("VmRSS") * 1024


def sample():
    """
    All figures.

    ``objects`` are those of connections. ``raw`` is resident memory with the holes, ``held``
    without them; ``heap`` is what is in use of the C library's heap, 0 where that can't tell.
    """
    raw = _read_status("VmRSS") * 1024
    gc.collect()
    objects = sum(isinstance(thing, Connection) for thing in gc.get_objects())
    return {**count(), "objects": objects, "raw": raw, "held": held(), "heap": _heap_in_use()}


class _HeapInfo(ctypes.Structure):
    """``struct mallinfo2`` of glibc, which has ten numbers."""

    _fields_ = tuple((f"number_{index}", ctypes.c_size_t) for index in range(10))

    @property
    def in_use(self):
        return self.number_4 + self.number_7  # hblkhd and uordblks


def _heap_in_use():
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo2.restype = _HeapInfo
    return mallinfo2().in_use


def _read_status(name):
    """A number that the kernel keeps for this process: VmRSS (KiB), Threads, ..."""
    status = pathlib.Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
