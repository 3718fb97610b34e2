"""
A bad peer that plays a script: a bare socket, with a small codec that is not the library's.

One thread does all: it writes what the script says, and reads meanwhile what it is sent, unless
it is deaf. What it was sent is kept, to be judged at the end.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import select
import socket
import ssl
import struct
import time
import zlib

from peers import BINARY, CLOSE, CONT, FIN, GUID, PING, PONG, RSV1, TEXT, frame, unmask

__all__ = ["FrameStream", "ScriptPeer", "check_message", "make_message", "welcome"]

WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

WRITE_PATIENCE = 0.5  # seconds until it gives up a frame for which it gets no room
DRAIN_PATIENCE = 8  # seconds until the end of what it is sent

GARBAGE = ("opcode", "bits", "mask", "length", "utf8", "close", "continuation", "noise", "tls")


def make_message(sender, number, size, text):
    """A message that tells who sent it, and that no other is equal to."""
    label = f"{sender}.{number}.{size}.{int(text)}:"
    if text:
        return (label * (size // len(label) + 1))[: max(size, len(label))]
    label = label.encode()
    return label + random.Random(label).randbytes(max(0, size - len(label)))


def check_message(message):
    """The sender and the number of a message; raises ``ValueError`` unless it is whole."""
    start = message[:40].encode() if isinstance(message, str) else message[:40]
    sender, number, size, text = start.partition(b":")[0].decode("latin-1").split(".")
    if message != make_message(sender, int(number), int(size), text == "1"):
        raise ValueError(f"{len(message)} bytes, not those that were sent")
    return sender, int(number)


class FrameStream:
    """
    The frames in a stream of bytes.

    Args:
        masked: whether they are to be masked.
    """

    def __init__(self, masked):
        self._masked = masked
        self._data = bytearray()
        self._start = 0
        self.frames = []

    def feed(self, data):
        self._data += data

    @property
    def rest(self):
        """Bytes of a frame that has not ended."""
        return len(self._data) - self._start

    def parse(self):
        """Find the frames that are complete; returns all so far as pairs of head and payload."""
        while self._parse_frame():
            pass
        del self._data[: self._start]
        self._start = 0
        return self.frames

    def _parse_frame(self):
        data, at = self._data, self._start
        if len(data) < at + 2:
            return False
        head, length = data[at], data[at + 1] & 0x7F
        assert data[at + 1] >> 7 == self._masked, "masked for the wrong role"
        at += 2
        wide = {126: "!H", 127: "!Q"}.get(length)
        if wide is not None:
            if len(data) < at + struct.calcsize(wide):
                return False
            (length,) = struct.unpack_from(wide, data, at)
            at += struct.calcsize(wide)
        end = at + 4 * self._masked + length
        if len(data) < end:
            return False
        payload = bytes(data[at:end])
        self.frames.append((head, unmask(payload[4:], payload[:4]) if self._masked else payload))
        self._start = end
        return True


def welcome(sock, deflate):
    """Do the opening handshake as a server, trusting the client; tell what bytes came after it."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        chunk = sock.recv(1)
        assert chunk, "the client left during the opening handshake"
        head += chunk
    lines = head.lower().split(b"\r\n")
    index = next(i for i, line in enumerate(lines) if line.startswith(b"sec-websocket-key:"))
    key = head.split(b"\r\n")[index].partition(b":")[2].strip()
    fields = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()}",
    ]
    if deflate:
        fields.append("Sec-WebSocket-Extensions: permessage-deflate")
    sock.sendall("\r\n".join([*fields, "", ""]).encode())


class ScriptPeer:
    """
    The peer; ``play()`` runs in a thread of its own.

    Args:
        sock: connected, with the opening handshake done; taken over.
        masks: whether this plays a client.
        over: an event that is set when nobody uses the connection at the other end any more.
        polite: whether a Close frame is answered.
    """

    def __init__(self, sock, masks, over, polite=True):
        sock.setblocking(False)
        self._sock = sock
        self._over = over
        self._polite = polite
        self.masks = masks
        self.stream = FrameStream(masked=not masks)
        self.ended = None  # how input ended: "fin" or "reset"
        self.sent = []  # numbers of the messages that were sent whole
        self.closes = None  # payload of the Close frame that was sent
        self.spoiled = False  # whether something was sent that is against the protocol
        self.cut = False  # whether TCP or TLS were ended other than after the Close frames
        self.stuck = False  # whether a frame could not be sent to its end
        self._deaf = False
        self._half_closed = False
        self._number = 0

    def play(self, script):
        """Do what a script says: names of methods with their arguments; then close the socket."""
        try:
            for name, *args in script:
                getattr(self, name)(*args)
        finally:
            self._sock.close()

    # What scripts consist of

    def message(self, size, text, deflated):
        payload = self._next_message(size, text)
        head = FIN | (TEXT if text else BINARY)
        if deflated:
            head, payload = head | RSV1, deflate(payload)
        self._finish_message(self._write(frame(head, payload, self.masks)))

    def fragments(self, sizes, text, ping):
        """A message in fragments of these sizes, with a ping between them if wanted."""
        payload = self._next_message(sum(sizes), text)
        head = TEXT if text else BINARY
        for size in sizes:
            self._write(frame(head, payload[:size], self.masks))
            payload, head = payload[size:], CONT
            if ping:
                self.ping(4)
        self._finish_message(self._write(frame(FIN | CONT, payload, self.masks)))

    def ping(self, size):
        self._write(frame(FIN | PING, bytes(size), self.masks))

    def pong(self):
        self._write(frame(FIN | PONG, b"unasked", self.masks))

    def close(self, code):
        """A Close frame; without a code if that is ``None``."""
        payload = b"" if code is None else struct.pack("!H", code)
        if self.closes is None and self._write(frame(FIN | CLOSE, payload, self.masks)):
            self.closes = payload

    def garbage(self, kind):
        """Something that is against the protocol."""
        self.spoiled = True
        if kind == "tls" and isinstance(self._sock, ssl.SSLSocket):
            self.cut = True
            with contextlib.suppress(OSError):
                socket.socket.send(self._sock, b"this is no TLS record at all")
            return
        self._write(
            {
                "opcode": frame(FIN | 0x3, b"", self.masks),
                "bits": frame(FIN | 0x20 | TEXT, b"", self.masks),
                "mask": frame(FIN | TEXT, b"mask", not self.masks),
                "length": struct.pack("!BBQ", FIN | BINARY, self.masks << 7 | 127, 2**40),
                "utf8": frame(FIN | TEXT, b"\xff", self.masks),
                "close": frame(FIN | CLOSE, struct.pack("!H", 1005), self.masks),
                "continuation": frame(CONT, b"of nothing", self.masks),
            }.get(kind, b"\xff" * 64)
        )

    def half(self):
        """Begin a frame that is never ended."""
        self._write(frame(FIN | BINARY, bytes(100), self.masks)[:50])
        self.stuck = True

    def deaf(self):
        """Read nothing from here on."""
        self._deaf = True

    def hear(self):
        self._deaf = False

    def read(self, seconds):
        """Read for a while."""
        self._pump(seconds)

    def nap(self, seconds):
        """Neither read nor write for a while."""
        self._over.wait(seconds)

    def fin(self):
        """Close the sending half of TCP."""
        self.cut = True
        self._end_output()

    def reset(self):
        """Reset the TCP connection, or what there is to that for a Unix socket."""
        self.cut = True
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def wait(self):
        """Do nothing until nobody uses the connection any more."""
        self._over.wait(DRAIN_PATIENCE)

    def drain(self):
        """Read until the end, and answer a Close frame as it should be."""
        self._deaf = False
        deadline = time.monotonic() + DRAIN_PATIENCE
        while self.ended is None and self._is_there() and time.monotonic() < deadline:
            self._pump(0.05)
            if self._polite and any(head == FIN | CLOSE for head, _ in self.stream.parse()):
                self._answer_close()

    def leave(self):
        """Close the connection from this side, whatever that takes."""
        self.close(1000)
        if self.closes is None:
            self.reset()
        else:
            self._polite = True
            self.drain()

    # How it is done

    def _answer_close(self):
        if self.closes is None and not self.stuck and not self.cut:
            self.close(1000)
        if not self.masks:
            # RFC 6455 §7.1.1: it is the server that ends TCP.
            self.cut = self.cut or self.closes is None
            self._end_output()

    def _is_there(self):
        return self._sock.fileno() != -1

    def _end_output(self):
        if not self._half_closed:
            self._half_closed = True
            with contextlib.suppress(OSError):  # the other end may have ended it
                socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def _next_message(self, size, text):
        message = make_message("p", self._number, size, text)
        return message.encode() if text else message

    def _finish_message(self, written):
        if written and self.closes is None:
            self.sent.append(self._number)
        self._number += 1

    def _write(self, data):
        """Write all of it; false if that was not possible, or nothing can be written any more."""
        if self.stuck:
            return False
        self.stuck = not self._pump(WRITE_PATIENCE, data)
        return not self.stuck

    def _pump(self, seconds, data=b""):
        """Read and write for a while; ends when all is written. Tells whether it is."""
        deadline = time.monotonic() + seconds
        rest = memoryview(data)
        while self._is_there():
            try:
                while rest:
                    rest = rest[self._sock.send(rest) :]
            except WOULD_BLOCK:
                pass
            except OSError:
                # What the other end sent before may still be there.
                return False
            progress = self._receive()
            if data and not rest:
                return True
            remaining = deadline - time.monotonic()
            if remaining <= 0 or (self.ended is not None and not data):
                break
            if not progress:
                self._poll(bool(rest), remaining)
        return not rest and bool(data)

    def _poll(self, write, seconds):
        hears = not self._deaf and self.ended is None
        if not write and not hears:
            self._over.wait(seconds)  # poll() would report the end again and again
            return
        poll = select.poll()
        poll.register(self._sock, write * select.POLLOUT | hears * select.POLLIN)
        poll.poll(min(seconds, 0.05) * 1000)

    def _receive(self):
        """Read what there is, once; tell whether there was something."""
        if self._deaf or self.ended is not None:
            return False
        try:
            data = self._sock.recv(65536)
        except WOULD_BLOCK:
            return False
        except OSError:
            self.ended = "reset"
            return False
        if not data:
            self.ended = "fin"
        self.stream.feed(data)
        return bool(data)


def deflate(payload):
    """Compress a message without what came before (RFC 7692 §7.2.1)."""
    deflater = zlib.compressobj(wbits=-9)
    data = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]
