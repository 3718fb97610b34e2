"""
Messages that tell where they belong: who sent them, their number, and the hash of it all.

``NAME NUMBER HASH BODY``, as text or as bytes. A name is ``CONNECTION.SENDER``.
"""

from __future__ import annotations

import hashlib
import random
import threading

__all__ = ["MAX_MESSAGE", "Ledger", "Wrong", "make_message", "read_message"]

MAX_MESSAGE = 2**20  # bytes, as the server allows
SIZES = (200, 4096, 65536, MAX_MESSAGE), (50, 40, 9, 1)  # limits of sizes, and their weights
DIGEST = 16  # characters
LETTERS = "".join(map(chr, range(0x20, 0x7F))) * 4 + "äöüßéł€☃𝄞"

_pool = random.Random(42)
# Bodies are parts of these, which start anywhere in the first half.
BYTES = _pool.getrandbits(16 * MAX_MESSAGE).to_bytes(2 * MAX_MESSAGE, "big")
TEXT = "".join(_pool.choices(LETTERS, k=2**16)).encode() * 32


class Wrong(Exception):
    """A message that was changed, lost, doubled, reordered or sent to the wrong place."""


def make_message(name, number, rng, largest=None, exact=False):
    """
    A message of a random kind and size.

    Args:
        largest: bytes; default: whatever is allowed, but small ones more often.
        exact: not smaller than that either.
    """
    label = f"{name} {number} "
    size = int(rng.random() * (largest or rng.choices(*SIZES)[0]))
    if exact or (largest is None and rng.random() < 0.005):
        size = largest or MAX_MESSAGE
    room = max(0, size - len(label) - DIGEST - 1)
    start = rng.randrange(MAX_MESSAGE)
    if rng.random() < 0.5:
        body = TEXT[start : start + room].decode(errors="ignore")
        return f"{label}{_digest((label + body).encode())} {body}"
    body = BYTES[start : start + room]
    return f"{label}{_digest(label.encode() + body)} ".encode() + body


def read_message(message):
    """Name and number of a message; raises :exc:`Wrong` if its hash is not that of its content."""
    data = message.encode() if isinstance(message, str) else bytes(message)
    name, _, rest = data.partition(b" ")
    number, _, rest = rest.partition(b" ")
    digest, _, body = rest.partition(b" ")
    if _digest(b"%b %b " % (name, number) + body).encode() != digest:
        raise Wrong(f"the hash of {data[:60]!r} is wrong")
    return name.decode(), int(number)


def _digest(data):
    return hashlib.blake2b(data, digest_size=DIGEST // 2).hexdigest()


class Ledger:
    """
    What one end has received on one connection.

    Args:
        connection: the part of the names that must be the same.
    """

    def __init__(self, connection):
        self._connection = connection
        self._lock = threading.Lock()
        self._last = {}  # number of the last message of each name

    def check(self, message):
        """Check a message that follows on the last one of its sender; returns its name."""
        name, number = read_message(message)
        if name.partition(".")[0] != self._connection:
            raise Wrong(f"{name} came on {self._connection}")
        with self._lock:
            expected = self._last.get(name, 0) + 1
            self._last[name] = number
        if number != expected:
            raise Wrong(f"{name}: {number} instead of {expected}")
        return name
