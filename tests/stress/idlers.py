"""
Clients that connect and then do nothing, as a program: they neither read nor answer.

Settings: ``address``, ``authority`` (a file with a certificate, for TLS, or null).
"""

from __future__ import annotations

import collections
import contextlib
import json
import resource
import socket
import ssl
import struct
import sys
import threading
import time

from bad_peers import Ear
from links import handshake
from programs import obey

PATIENCE = 60  # seconds for the answers of the server

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Idlers:
    """The clients of the program, and the commands that it obeys."""

    def __init__(self, address, authority=None):
        self._address = tuple(address)
        self._context = None
        if authority is not None:
            self._context = ssl.create_default_context(cafile=authority)
        self._socks = []

    def commands(self):
        return {
            "open": self.open,
            "attempt": self.attempt,
            "answered": self.answered,
            "ends": self.ends,
            "close": self.close,
            "reset": self.reset,
        }

    def open(self, count, path):
        """Open WebSocket connections, one after the other."""
        for _ in range(count):
            sock = self._connect()
            handshake(sock, path)
            self._socks.append(sock)

    def attempt(self, count, pause):
        """Send opening handshakes and wait for no answer; ``pause`` is between them, in seconds."""
        nobody = threading.Event()
        for _ in range(count):
            sock = socket.create_connection(self._address, timeout=PATIENCE)
            with contextlib.suppress(ConnectionError):  # it was dropped already
                sock.sendall(REQUEST)
            self._socks.append(sock)
            if pause:
                nobody.wait(pause)

    def answered(self):
        """How attempts stand: how many wait, were accepted, refused, or dropped."""
        return collections.Counter(map(self._look, self._socks))

    def ends(self):
        """Read what came for each until its end, within a second for all; the close codes."""
        deadline = time.monotonic() + 1
        return collections.Counter(self._end(sock, deadline) for sock in self._socks)

    def close(self):
        """End all TCP connections."""
        while self._socks:
            self._socks.pop().close()

    def reset(self, count):
        """Connect and reset at once, so many times, as fast as it goes; the seconds it took."""
        began = time.monotonic()
        for _ in range(count):
            sock = socket.create_connection(self._address, timeout=PATIENCE)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        return time.monotonic() - began

    def _connect(self):
        sock = socket.create_connection(self._address, timeout=PATIENCE)
        if self._context is not None:
            return self._context.wrap_socket(sock, server_hostname="127.0.0.1")
        return sock

    def _look(self, sock):
        sock.settimeout(0)
        try:
            head = sock.recv(12, socket.MSG_PEEK)
        except BlockingIOError:
            return "waits"
        except OSError:
            return "dropped"
        return head[9:12].decode() or "dropped"

    def _end(self, sock, deadline):
        ear = Ear()
        try:
            while True:
                sock.settimeout(max(0.001, deadline - time.monotonic()))
                data = sock.recv(65536)
                if not data:
                    return ear.said or "eof"
                ear.hear(data)
        except socket.timeout:
            return ear.said or "not ended"
        except OSError:
            return ear.said or "reset"


def main():
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    obey(Idlers(**json.loads(sys.argv[1])).commands())


if __name__ == "__main__":
    main()
