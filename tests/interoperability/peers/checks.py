"""
The checks of a client written in Python, with one class for each library.

A program of this folder has a class ``Link``, one open connection, with::

    Link(uri, subprotocols, compression)   opens it
    subprotocol                            the agreed one
    send(message), recv()                  str and bytes
    send_fragments(parts), ping()          ping() returns when the pong is there
    ended()                                waits for the end, returns code and reason
    close(code, reason)                    and waits for the end

and calls ``main()``. What the library cannot do raises ``NotOffered``.
"""

from __future__ import annotations

import json
import sys

PATIENCE = 20  # seconds
PARTS = ["one, ", "two, ", "three"]


class NotOffered(Exception):
    """The library has no such thing."""


class InPart(Exception):
    """It works, with a reservation, which the text gives."""


def pattern(length):
    return bytes(index % 251 for index in range(length))


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {str(got)[:60]}, not {str(wanted)[:60]}")


class Checks:
    """What is checked; each method is one, in the order of the table."""

    # What comes back for fragments from a server that can tell them from a whole message.
    joined = "fragments: one, two, three"

    def __init__(self, link, uri, compressing):
        self.link = link
        self.uri = uri
        self.compressing = compressing

    def open(self, path, subprotocols=(), *, compression=False):
        base = self.compressing if compression else self.uri
        return self.link(base + path, list(subprotocols), compression)

    def echoes(self, *messages):
        link = self.open("/echo")
        for message in messages:
            link.send(message)
            got = link.recv()
            expect(type(got), type(message))
            expect(got, message)
        link.close(1000, "")

    def text(self):
        self.echoes("Grüße, 世界 🌍")

    def binary(self):
        self.echoes(pattern(256))

    def empty(self):
        self.echoes("", b"")

    def kibibytes(self):
        self.echoes("ä" * 32768, pattern(65536))

    def mebibyte(self):
        self.echoes(pattern(1048576))

    def fragments_to(self):
        link = self.open("/fragments")
        expect(link.recv(), "".join(PARTS))
        link.close(1000, "")

    def fragments_from(self):
        link = self.open("/joined")
        link.send_fragments(PARTS)
        expect(link.recv(), self.joined)
        link.close(1000, "")

    def pings_to(self):
        link = self.open("/ping")
        expect(link.recv(), "answered")
        link.close(1000, "")

    def pings_from(self):
        link = self.open("/echo")
        link.ping()
        link.close(1000, "")

    def close_to(self):
        expect(tuple(self.open("/close").ended()), (4001, "Größe"))

    def close_from(self):
        self.open("/closed").close(4002, "Übung")
        link = self.open("/report")
        expect(link.recv(), "4002 Übung")
        link.close(1000, "")

    def subprotocol(self):
        link = self.open("/echo", ["chat.v9", "chat.v2"])
        expect(link.subprotocol, "chat.v2")
        link.close(1000, "")

    def compression(self):
        link = self.open("/compression", compression=True)
        message = "compress me, " * 1000
        link.send(message)
        found = link.recv()
        if found == "not negotiated":
            raise NotOffered
        expect(found, "compressed")
        expect(link.recv(), message)
        link.close(1000, "")


NAMES = {
    "text": Checks.text,
    "binary": Checks.binary,
    "empty": Checks.empty,
    "64k": Checks.kibibytes,
    "1m": Checks.mebibyte,
    "fragments-to": Checks.fragments_to,
    "fragments-from": Checks.fragments_from,
    "pings-to": Checks.pings_to,
    "pings-from": Checks.pings_from,
    "close-to": Checks.close_to,
    "close-from": Checks.close_from,
    "subprotocol": Checks.subprotocol,
    "compression": Checks.compression,
}


def report(**found):
    print(json.dumps(found), flush=True)


def main(version, link, checks=Checks):
    report(version=version)
    suite = checks(link, *sys.argv[1:3])
    for name, function in NAMES.items():
        try:
            getattr(suite, function.__name__)()
        except NotOffered as exc:
            report(check=name, result="absent", note=str(exc))
        except InPart as exc:
            report(check=name, result="partly", note=str(exc))
        except Exception as exc:  # whatever it is, it belongs into the table
            report(check=name, result="no", note=f"{type(exc).__name__}: {exc}"[:200])
        else:
            report(check=name, result="yes")
