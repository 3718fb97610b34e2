"""
Clients that listen to broadcasts, as a program: each message must be there, whole and in order.

One thread with a selector serves all of them. Half of them have permessage-deflate. They have a
small codec of their own, not that of the library.

Settings: ``address``, ``path``, ``count``, ``first`` (the number of the first client), ``buffer``
(bytes that the kernel may keep for each, or null).
"""

from __future__ import annotations

import collections
import hashlib
import json
import selectors
import socket
import struct
import sys
import threading
import time
import zlib

from links import handshake
from peers import BINARY, CLOSE, FIN, PING, PONG, RSV1, frame
from programs import obey

STAMP = struct.Struct("!dI8s")
DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}
RESOLUTION = 10_000  # parts of a second


class Listener:
    """One client, and what it has heard."""

    def __init__(self, address, path, number, buffer):
        self.number = number
        self.heard = 0
        self.ended = ""
        self._data = bytearray()
        self.sock = socket.socket()
        if buffer is not None:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.sock.connect(address)
        head = handshake(self.sock, path, **(DEFLATE if number % 2 else {}))
        assert ("permessage-deflate" in head) == bool(number % 2), head
        self._inflater = zlib.decompressobj(-15)

    def receive(self, note):
        """Take what has come; raises ``ValueError`` if it is wrong."""
        data = self.sock.recv(65536)
        now = time.monotonic()
        if not data:
            self.ended = self.ended or "eof"
            return False
        self._data += data
        while (found := self._next_frame()) is not None:
            self._take(*found, now, note)
        return True

    def _next_frame(self):
        data = self._data
        if len(data) < 2:
            return None
        start, size = 2, data[1]
        if size == 126:
            if len(data) < 4:
                return None
            start, size = 4, data[2] << 8 | data[3]
        if size > 65535 or size == 127:
            raise ValueError("a frame that nobody sent")
        if len(data) < start + size:
            return None
        head, payload = data[0], bytes(data[start : start + size])
        del data[: start + size]
        return head, payload

    def _take(self, head, payload, now, note):
        if head == FIN | PING:
            self.sock.sendall(frame(FIN | PONG, payload, masked=True))
        elif head == FIN | CLOSE:
            self.ended = str(struct.unpack("!H", payload[:2])[0])
            self.sock.sendall(frame(FIN | CLOSE, payload[:2], masked=True))
        elif head == FIN | BINARY | RSV1 and self.number % 2:
            self._check(self._inflater.decompress(payload + b"\0\0\xff\xff"), now, note)
        elif head == FIN | BINARY:
            self._check(payload, now, note)
        else:
            raise ValueError(f"a frame that begins with {head:#x}")

    def _check(self, message, now, note):
        made, number, digest = STAMP.unpack_from(message)
        body = message[: STAMP.size - 8] + message[STAMP.size :]
        if hashlib.blake2b(body, digest_size=8).digest() != digest:
            raise ValueError(f"message {number} is not what was sent")
        if number != self.heard:
            raise ValueError(f"message {number} came when {self.heard} was due")
        self.heard += 1
        note(now - made)


class Audience:
    """All listeners of the program."""

    def __init__(self, address, path, count, first, buffer):
        numbers = range(first, first + count)
        self._listeners = [Listener(tuple(address), path, n, buffer) for n in numbers]
        self._delays = collections.Counter()
        self._errors = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def report(self):
        """What was heard: numbers of messages, of clients that heard so many; delays; errors."""
        return {
            "heard": collections.Counter(listener.heard for listener in self._listeners),
            "ended": collections.Counter(listener.ended for listener in self._listeners),
            "delays": dict(self._delays),
            "errors": self._errors[:10],
        }

    def _note(self, delay):
        self._delays[int(delay * RESOLUTION)] += 1

    def _listen(self):
        selector = selectors.DefaultSelector()
        for listener in self._listeners:
            selector.register(listener.sock, selectors.EVENT_READ, listener)
        while selector.get_map():
            for key, _ in selector.select():
                if not self._hear(key.data):
                    selector.unregister(key.data.sock)

    def _hear(self, listener):
        try:
            return listener.receive(self._note)
        except (OSError, ValueError, struct.error, zlib.error) as exc:
            self._errors.append(f"client {listener.number}: {exc!r}")
            return False


def main():
    audience = Audience(**json.loads(sys.argv[1]))
    obey({"report": audience.report})


if __name__ == "__main__":
    main()
