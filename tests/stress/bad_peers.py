"""
Bad peers, as a program: so many of one kind, each in a thread, that come again when they are ended.

``KINDS`` is the table. Settings of the program: ``kind``, ``count``, ``address``, ``seed``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import json
import random
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import zlib
from typing import Callable, NamedTuple

from links import handshake
from peers import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    close_payload,
    frame,
)
from programs import obey

__all__ = ["KINDS", "Kind"]

MIB = 2**20

# How long a peer waits for the server to do something; longer than any of its timeouts.
PATIENCE = 15  # seconds
END_PATIENCE = 5  # seconds for processes to end
SNDBUF = 65536  # bytes; floods must not hide in buffers of the kernel

DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}


# What a connection with small messages costs: stack and buffers.
SMALL = 256 * 1024  # bytes
# What it may cost in the input that waits: max_queue_bytes, twice max_size, and one read.
FULL = 4 * MIB + 2 * MIB + 65536  # bytes


class Kind(NamedTuple):
    """
    A kind of bad peer.

    Attributes:
        name, about: for the report.
        count: how many of them at a time.
        play: the life of one; returns how it ended.
        ends: how such lives may end, with blanks between; "stays": they may last until the end,
            since they do nothing that is forbidden.
        memory: bytes that one of them may cost the server while it is there.
        secure: whether the server has TLS.
        rest: seconds between two lives.
    """

    name: str
    about: str
    count: int
    play: Callable[[Peer], str]
    ends: str
    memory: int = SMALL
    secure: bool = False
    rest: float = 0.05


class Peer:
    """What the life of a bad peer has at hand."""

    def __init__(self, address: tuple[str, int], stop: threading.Event, seed: int) -> None:
        self.address = address
        self.random = random.Random(seed)
        self.processes: list[subprocess.Popen[bytes]] = []
        self.has_spawned = False
        self._stop = stop
        self._stack = contextlib.ExitStack()

    def connect(self, receive_buffer=None):
        """Make a TCP connection."""
        sock = self._stack.enter_context(socket.socket())
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SNDBUF)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(PATIENCE)
        sock.connect(self.address)
        return sock

    def open(self, path="/", receive_buffer=None, **headers):
        """Make a WebSocket connection."""
        sock = self.connect(receive_buffer)
        handshake(sock, path, **headers)
        return sock

    def spawn(self, path):
        """Start an ordinary client as a process of its own; returns it when it is connected."""
        self.has_spawned = True
        process = self._stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", CLIENT, str(self.address[1]), path],
                stdin=subprocess.PIPE,  # its end tells it to end
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
        )
        self._stack.callback(process.kill)
        self.processes.append(process)
        if not process.stdout.readline():
            raise ConnectionError("the client could not connect")
        return process

    def pause(self, seconds):
        """Wait; tell whether to go on."""
        return not self._stop.wait(seconds)

    def close(self):
        """End all its connections and processes."""
        self._stack.close()
        self.processes.clear()


# An ordinary client: one message after the other, or only receiving on /flood.
CLIENT = """
import os, select, socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall((
    f"GET {sys.argv[2]} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nUpgrade: websocket\\r\\n"
    "Connection: Upgrade\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
    "Sec-WebSocket-Version: 13\\r\\n\\r\\n"
).encode())
while b"\\r\\n\\r\\n" not in sock.recv(65536):
    pass
print("open", flush=True)
size = 20000
message = b"\\x82\\xfe" + size.to_bytes(2, "big") + bytes(4 + size)
while not select.select([sys.stdin], [], [], 0.02)[0]:
    left = 4 + size
    if sys.argv[2] == "/":
        sock.sendall(message)
    while left > 0:
        data = sock.recv(65536)
        if not data:
            sys.exit()
        left -= len(data)
"""


# How lives end


class Ear:
    """Listens to what the server says last: a status, or the code of a Close frame."""

    def __init__(self):
        self._data = bytearray()
        self.said = ""

    def hear(self, data):
        """Take input that follows on what was heard before."""
        self._data += data
        if self._data.startswith(b"HTTP/1.1 "):
            self.said = self._data[9:12].decode()
            return
        while self._take_frame():
            pass

    def _take_frame(self):
        if len(self._data) < 2:
            return False
        start, size = 2, self._data[1] & 0x7F
        if size >= 126:
            start, form = (4, "!H") if size == 126 else (10, "!Q")
            if len(self._data) < start:
                return False
            (size,) = struct.unpack(form, self._data[2:start])
        if len(self._data) < start + size:
            return False
        if self._data[0] & 0x0F == CLOSE:
            self.said = str(struct.unpack("!H", self._data[2:4])[0]) if size else "1005"
        del self._data[: start + size]
        return True


def ended(sock):
    """Read until the server ends the connection; what it said, or else how it ended it."""
    ear, end = Ear(), "eof"
    try:
        while data := sock.recv(65536):
            ear.hear(data)
    except socket.timeout:
        end = "never ended"
    except OSError:
        end = "reset"
    return ear.said or end


def flood(sock, data):
    """Send without reading, until that fails; then what ``ended()`` tells."""
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(data)
    return ended(sock)


def reset(sock):
    """End the connection with a reset."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
    return "done"


# Before the opening handshake


def silent(peer):
    return ended(peer.connect())


def slowloris(peer):
    sock = peer.connect()
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Long: " + b"x" * 8000
    with contextlib.suppress(OSError):
        for byte in head:
            sock.sendall(bytes((byte,)))
            if not peer.pause(0.25):
                break
    return ended(sock)


def huge_head(peer):
    filler = peer.random.choice((b"x" * MIB, b"X-Short: x\r\n" * 100_000, b"X: " + b"x" * 4000))
    return flood(peer.connect(), b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n" + filler)


def garbage(peer):
    sock = peer.connect()
    with contextlib.suppress(OSError):
        sock.sendall(peer.random.getrandbits(8 * 20_000).to_bytes(20_000, "big") + b"\r\n\r\n")
    return ended(sock)


def http_to_tls(peer):
    sock = peer.connect()
    with contextlib.suppress(OSError):
        sock.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        while sock.recv(65536):  # an alert of TLS
            pass
    return "done"


def tls_to_http(peer):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    outgoing = ssl.MemoryBIO()
    hello = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with contextlib.suppress(ssl.SSLWantReadError):
        hello.do_handshake()
    sock = peer.connect()
    sock.sendall(outgoing.read())
    return ended(sock)


def connect_and_reset(peer):
    return reset(peer.connect())


# Silence


def silent_after_handshake(peer):
    return ended(peer.open())


def stops_reading(peer):
    sock = peer.open("/flood", receive_buffer=4096)
    peer.pause(4)
    return ended(sock)


def reads_no_echoes(peer):
    sock = peer.open(receive_buffer=4096)
    return flood(sock, frame(FIN | BINARY, bytes(60_000), masked=True))


def stopped_process(peer):
    process = peer.spawn(peer.random.choice(("/", "/flood")))
    peer.pause(peer.random.uniform(0.1, 0.3))
    process.send_signal(signal.SIGSTOP)
    try:
        peer.pause(4)
    finally:
        process.send_signal(signal.SIGCONT)
    try:
        process.wait(2)  # it ends when it finds its connection ended
    except subprocess.TimeoutExpired:
        return "never ended"
    return "ended"


def killed_process(peer):
    process = peer.spawn(peer.random.choice(("/", "/flood")))
    peer.pause(peer.random.uniform(0.1, 0.3))
    process.kill()
    return "done"


def half_closes(peer):
    sock = peer.open()
    for _ in range(3):
        sock.sendall(frame(FIN | TEXT, b"Hello", masked=True))
    sock.shutdown(socket.SHUT_WR)
    return ended(sock)


def trickles(peer):
    sock = peer.open()
    while True:
        for byte in frame(FIN | BINARY, bytes(100), masked=True):
            sock.sendall(bytes((byte,)))
            if not peer.pause(0.1):
                return "stopped"


# Floods


def floods_pings(peer):
    return flood(peer.open(receive_buffer=4096), frame(FIN | PING, bytes(125), masked=True) * 500)


def floods_pongs(peer):
    return flood(peer.open(), frame(FIN | PONG, b"", masked=True) * 10_000)


def floods_pongs_away(peer):
    return flood(peer.open("/deaf"), frame(FIN | PONG, b"", masked=True) * 10_000)


def floods_fragments(peer):
    sock = peer.open()
    with contextlib.suppress(OSError):
        sock.sendall(frame(BINARY, b"x", masked=True))
    return flood(sock, frame(CONT, b"x", masked=True) * 10_000)


def floods_empty_fragments(peer):
    sock = peer.open()
    with contextlib.suppress(OSError):
        sock.sendall(frame(TEXT, b"", masked=True))
    return flood(sock, frame(CONT, b"", masked=True) * 10_000)


@functools.cache
def make_bomb():
    """1 GiB of zeros, compressed to less than 1 MiB (RFC 7692 §7.2.1)."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    part = deflater.compress(bytes(4 * MIB)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return (part * 256)[:-4]


def bombs(peer):
    bomb = make_bomb()
    sock = peer.open(**DEFLATE)
    if peer.random.random() < 0.5:
        frames = frame(FIN | RSV1 | BINARY, bomb, masked=True)
    else:
        step = len(bomb) // 999
        parts = [bomb[at : at + step] for at in range(0, len(bomb), step)]
        heads = [RSV1 | BINARY] + [CONT] * (len(parts) - 2) + [FIN | CONT]
        frames = b"".join(frame(h, p, masked=True) for h, p in zip(heads, parts))
    with contextlib.suppress(OSError):
        sock.sendall(frames)
    return ended(sock)


def announces_too_much(peer):
    size = peer.random.choice((MIB + 1, 2**31, 2**32, 2**62, 2**63 - 1))
    head = struct.pack("!BBQ", FIN | BINARY, 0xFF, size) + bytes(4)
    sock = peer.open()
    with contextlib.suppress(OSError):
        sock.sendall(head)
    return flood(sock, bytes(65536))


def sends_tiny_messages(peer):
    """To a handler that does not read: TCP holds it back for ever, so it goes."""
    sock = peer.open("/deaf")
    sock.settimeout(2)
    data = frame(FIN | BINARY, b"x", masked=True) * 10_000
    try:
        while True:
            sock.sendall(data)
    except socket.timeout:
        return reset(sock)


# Mistakes


def sends_invalid_utf8(peer):
    bad = peer.random.choice(
        (b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82")
    )
    sock = peer.open()
    sock.sendall(frame(FIN | TEXT, b"good " * 1000 + bad, masked=True))
    return ended(sock)


def sends_unmasked(peer):
    sock = peer.open()
    sock.sendall(frame(FIN | TEXT, b"Hello"))
    return ended(sock)


def sends_bad_frames(peer):
    reserved = [FIN | opcode for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)]
    reserved_bits = [FIN | bit | TEXT for bit in (0x40, 0x20, 0x10)]
    out_of_place = [PING, CLOSE, FIN | CONT, CONT]
    sock = peer.open()
    head = peer.random.choice(reserved + reserved_bits + out_of_place)
    size = peer.random.choice((0, 100, 1000))
    with contextlib.suppress(OSError):
        sock.sendall(frame(head, bytes(size), masked=True))
    return ended(sock)


def sends_bad_closes(peer):
    code = peer.random.choice((0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535))
    bad = peer.random.choice((b"\x03", close_payload(code), close_payload(1000) + b"\xff"))
    sock = peer.open()
    sock.sendall(frame(FIN | CLOSE, bad, masked=True))
    return ended(sock)


# Leaving badly


def never_answers_close(peer):
    return ended(peer.open("/leave"))


def floods_after_close(peer):
    return flood(peer.open("/leave"), frame(FIN | BINARY, bytes(1000), masked=True) * 60)


def closes_and_floods(peer):
    sock = peer.open()
    with contextlib.suppress(OSError):
        sock.sendall(frame(FIN | CLOSE, close_payload(1000), masked=True))
    return flood(sock, frame(FIN | BINARY, bytes(1000), masked=True) * 60)


def comes_and_goes(peer):
    sock = peer.open(**DEFLATE)
    sock.sendall(frame(FIN | TEXT, b"Hello", masked=True))
    sock.recv(1)
    return reset(sock) if peer.random.random() < 0.5 else "done"


def resets_in_frame(peer):
    sock = peer.open()
    data = frame(FIN | BINARY, bytes(50_000), masked=True)
    sock.sendall(data[: peer.random.randrange(1, len(data))])
    return reset(sock)


KINDS = {
    kind.name: kind
    for kind in (
        Kind("silent", "connects and says nothing", 200, silent, "eof"),
        Kind("silent-tls", "says nothing to TLS", 100, silent, "eof", secure=True),
        Kind("slowloris", "sends its head a byte at a time", 200, slowloris, "eof"),
        Kind("huge-head", "sends a head without end", 50, huge_head, "431"),
        Kind("garbage", "sends random bytes instead of HTTP", 50, garbage, "400 eof"),
        Kind("http-to-tls", "talks HTTP to TLS", 50, http_to_tls, "done", secure=True),
        Kind("tls-to-http", "talks TLS to HTTP", 50, tls_to_http, "eof"),
        Kind("connect-reset", "connects and resets at once", 50, connect_and_reset, "done"),
        Kind("silent-open", "answers no ping", 200, silent_after_handshake, "1011"),
        Kind("stops-reading", "does not read what is sent", 100, stops_reading, "eof reset"),
        Kind("echo-unread", "sends, and reads no echo", 50, reads_no_echoes, "eof reset", FULL),
        Kind("stopped", "is a process stopped by SIGSTOP", 20, stopped_process, "ended"),
        Kind("killed", "is a process that SIGKILL ends", 10, killed_process, "done"),
        Kind("half-close", "ends its half of TCP", 100, half_closes, "eof"),
        Kind("trickle", "sends frames a byte at a time", 100, trickles, "stopped stays"),
        Kind("ping-flood", "floods pings, reads no pong", 20, floods_pings, "eof reset stays"),
        Kind("pong-flood", "floods pongs nobody asked for", 20, floods_pongs, "stays"),
        Kind("pong-flood-away", "floods pongs to a busy handler", 20, floods_pongs_away, "stays"),
        Kind("empty-fragments", "floods empty fragments", 20, floods_empty_fragments, "1008"),
        Kind("tiny-fragments", "floods 1-byte fragments", 20, floods_fragments, "1009 stays", FULL),
        Kind("bomb", "sends 1 GiB of zeros in 1 MiB", 20, bombs, "1009", FULL),
        Kind("oversized", "announces too big a frame", 50, announces_too_much, "1009", FULL),
        Kind("tiny-messages", "floods who reads nothing", 50, sends_tiny_messages, "done"),
        Kind("invalid-utf8", "sends text that is none", 50, sends_invalid_utf8, "1007"),
        Kind("unmasked", "sends frames without a mask", 50, sends_unmasked, "1002"),
        Kind("bad-frames", "sends frames that are not allowed", 50, sends_bad_frames, "1002"),
        Kind("bad-close", "closes badly", 50, sends_bad_closes, "1002 1007"),
        Kind("close-unanswered", "answers no Close", 200, never_answers_close, "1000"),
        Kind("flood-after-close", "floods after our Close", 20, floods_after_close, "1000", FULL),
        Kind("close-and-flood", "floods after its own Close", 20, closes_and_floods, "1000", FULL),
        Kind("reconnect-storm", "comes and goes", 20, comes_and_goes, "done", rest=0.01),
        Kind("reset-in-frame", "resets within a frame", 50, resets_in_frame, "done", FULL),
    )
}


class Gang:
    """So many bad peers of one kind."""

    def __init__(self, kind, count, address, seed):
        self._kind = KINDS[kind]
        self._stop = threading.Event()
        self._ends = collections.Counter()
        self._lock = threading.Lock()  # guards _ends
        self._peers = [
            Peer(tuple(address), self._stop, seed * 1000 + number) for number in range(count)
        ]
        self._threads = [
            threading.Thread(target=self._live, args=(peer,), daemon=True) for peer in self._peers
        ]
        for thread in self._threads:
            thread.start()

    def tally(self):
        """How lives have ended so far."""
        with self._lock:
            return dict(self._ends)

    def end(self):
        """How lives have ended; starts no more, and ends the processes that there are."""
        self._stop.set()
        deadline = time.monotonic() + END_PATIENCE
        for peer, thread in zip(self._peers, self._threads):
            for process in list(peer.processes):
                process.kill()
            if peer.has_spawned:
                thread.join(max(0, deadline - time.monotonic()))
        return self.tally()

    def _live(self, peer):
        while peer.pause(self._kind.rest):
            end = self._live_once(peer)
            with self._lock:
                if not self._stop.is_set():
                    self._ends[end] += 1

    def _live_once(self, peer):
        try:
            return self._kind.play(peer)
        except ConnectionError as exc:
            return f"reset early: {exc}"
        except socket.timeout:
            return "stuck"
        except Exception as exc:
            return f"{type(exc).__name__}: {exc}"
        finally:
            peer.close()


def main():
    make_bomb()  # once, rather than in all threads at the same time
    gang = Gang(**json.loads(sys.argv[1]))
    obey({"tally": gang.tally, "end": gang.end})


if __name__ == "__main__":
    main()
