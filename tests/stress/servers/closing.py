"""
The server that closes: it floods or is flooded meanwhile.

Settings: ``certificate`` (a file with chain and key). The commands: ``open`` a server, ``trigger``
what ends its connections, ``end`` it; there is one at a time.
"""

from __future__ import annotations

import json
import pathlib
import ssl
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from programs import obey, use_paths

use_paths()

from syncws import serve  # noqa: E402 # it needs the path

FLOOD = b"flood " * 2000
PATIENCE = 60  # seconds


class Failure(Exception):
    """What a handler fails with."""


class ClosingServer:
    """
    A server whose connections end by the cause that is asked for.

    Args:
        direction: ``"floods"``, ``"flooded"``, or ``"deaf"`` for one that is flooded and does not
            receive.
        cause: ``"shutdown"``, ``"close"``, ``"handler"``, ``"return"``, ``"raise"``; or another, of
            which the clients take care.
    """

    def __init__(self, direction, cause, context):
        self._direction = direction
        self._cause = cause
        self._enough = threading.Event()
        options = {"ssl": context, "send_timeout": PATIENCE, "close_timeout": PATIENCE}
        self._server = serve(self._handle, "127.0.0.1", 0, **options).start()
        self.port = self._server.server_address[1]

    def _handle(self, connection):
        while not self._enough.is_set():
            if self._direction == "floods":
                connection.send(FLOOD)
            elif self._direction == "flooded":
                connection.recv()
            else:
                self._enough.wait(PATIENCE)
        if self._cause == "handler":
            connection.close(4000, "enough")
        elif self._cause == "raise":
            raise Failure

    def count_open(self):
        return self._server.stats()["open"]

    def trigger(self):
        """Have the cause happen."""
        if self._cause == "shutdown":
            self._server.close()
        elif self._cause == "close":
            self._server.close(code=4001, reason="enough")
        else:
            self._enough.set()

    def end(self):
        """Wait for the end; returns how many connections had to be aborted."""
        self._enough.set()
        report = self._server.shutdown(timeout=PATIENCE)
        assert not report.running, report.running
        return report.aborted


class Commands:
    """What the program obeys."""

    def __init__(self, certificate):
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(certificate)
        self._server = None

    def open(self, direction, cause, secure):
        self._server = ClosingServer(direction, cause, self._context if secure else None)
        return self._server.port

    def count_open(self):
        return self._server.count_open()

    def trigger(self):
        self._server.trigger()

    def end(self):
        return self._server.end()


if __name__ == "__main__":
    commands = Commands(**json.loads(sys.argv[1]))
    obey({name: getattr(commands, name) for name in ("open", "count_open", "trigger", "end")})
