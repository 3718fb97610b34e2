"""
A link between two network namespaces that loses, doubles, delays and reorders packets.

Its ends are TUN devices; what the kernel sends into one comes out of the other, or does not.

Settings: ``namespaces`` (the names of both), ``device`` (name of the devices), ``seed``, ``delay``
(the shortest and the longest, in seconds; packets overtake each other), ``loss`` and
``duplicates`` (probabilities).
"""

from __future__ import annotations

import fcntl
import heapq
import json
import os
import pathlib
import random
import select
import struct
import sys
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from namespaces import enter_namespace  # it is in the folder above
from programs import obey

# linux/if_tun.h: packets of IP, without a header of their own.
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000

LARGEST = 65536  # bytes of a packet


def open_device(namespace, name):
    """A TUN device in a namespace; it goes when the descriptor is closed."""
    enter_namespace(namespace)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return descriptor


class LossyLink:
    """Carries packets between two devices, in a thread of its own."""

    def __init__(self, namespaces, device, seed, delay, loss, duplicates):
        self._ends = [open_device(namespace, device) for namespace in namespaces]
        self._random = random.Random(seed)
        self._delay = delay
        self._loss = loss
        self._duplicates = duplicates
        self._waiting = []  # a heap of: when, a number to keep equal times apart, where to, what
        self._counts = dict.fromkeys(("carried", "lost", "doubled"), 0)
        threading.Thread(target=self._run, daemon=True).start()

    def count(self):
        """The packets that came, and those of them that were lost and doubled."""
        return self._counts

    def _run(self):
        while True:
            timeout = None
            if self._waiting:
                timeout = max(0.0, self._waiting[0][0] - time.monotonic())
            for source in select.select(self._ends, [], [], timeout)[0]:
                target = self._ends[1 - self._ends.index(source)]
                self._take(os.read(source, LARGEST), target)
            while self._waiting and self._waiting[0][0] <= time.monotonic():
                *_, target, packet = heapq.heappop(self._waiting)
                try:
                    os.write(target, packet)
                except OSError:
                    continue  # the device is down: lost

    def _take(self, packet, target):
        self._counts["carried"] += 1
        if self._random.random() < self._loss:
            self._counts["lost"] += 1
            return
        self._schedule(packet, target)
        if self._random.random() < self._duplicates:
            self._counts["doubled"] += 1
            self._schedule(packet, target)

    def _schedule(self, packet, target):
        due = time.monotonic() + self._random.uniform(*self._delay)
        heapq.heappush(self._waiting, (due, self._random.random(), target, packet))


def main():
    obey({"count": LossyLink(**json.loads(sys.argv[1])).count})


if __name__ == "__main__":
    main()
