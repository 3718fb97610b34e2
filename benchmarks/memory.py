#!/usr/bin/env python3
"""
Measure what a connection of a server takes in memory, and write docs/measured/memory*.inc.

    python3 benchmarks/memory.py                     about ten minutes
    python3 benchmarks/memory.py --counts 100,1000   without the 10,000 threads

A server runs in a process of its own; this one makes connections to it, and reads from /proc
how much resident memory that process has for each of them. Linux only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import pathlib
import platform
import random
import resource
import socket
import subprocess
import sys
import threading
import time

CHECKOUT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(CHECKOUT))

from benchmarks.tables import list_table  # noqa: E402 # found by the line above
from syncws import PerMessageDeflate, serve  # noqa: E402 # found by the line above
from syncws.frames import encode_frame  # noqa: E402 # found by the line above
from syncws.permessage_deflate import DeflateCodec  # noqa: E402 # found by the line above
from syncws.speedups import SPEEDUPS  # noqa: E402 # found by the line above

OUTPUT = CHECKOUT / "docs" / "measured"
SETTLE = 1.5  # seconds until what is not needed has been given back
DEFLATE_COUNT = 200  # connections for each window and memory level
WINDOWS = range(9, 16)
LEVELS = range(1, 10)
FIN_TEXT, RSV1 = 0x81, 0x40


def make_message(size: int) -> bytes:
    """Readings of sensors as JSON, of about that many bytes; always the same."""
    source = random.Random(1)
    readings = [
        {"sensor": source.randrange(40), "value": round(source.gauss(20, 5), 3), "unit": "mbar"}
        for _ in range(size // 47)
    ]
    return json.dumps(readings).encode()


SHORT = make_message(1024)
# A long one fills any window; after some short ones the connection reads as little as before it.
FILL = [make_message(65536), *[SHORT] * 40]

REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n"
)
OFFER = b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"


# The server's process: prints its port, and ends with its standard input


def serve_syncws(window: int, memory_level: int) -> None:
    """Echo; a window of 0 is no compression."""
    deflate = PerMessageDeflate(window_bits=window, memory_level=memory_level) if window else None

    def echo(connection):
        for message in connection:
            connection.send(message)

    server = serve(
        echo, "localhost", 0, compression=deflate, max_connections=None, ping_interval=None
    ).start()
    print(server.server_address[1], flush=True)
    sys.stdin.read()


def serve_bare() -> None:
    """A thread for each socket that does nothing but wait for input: no object, no protocol."""

    def wait(sock):
        sock.recv(4096)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
        sock.recv(4096)

    listener = socket.create_server(("localhost", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)

    def accept():
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=wait, args=(sock,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    sys.stdin.read()


@contextlib.contextmanager
def server_process(*arguments):
    """The process of a server, and its port."""
    command = [sys.executable, __file__, "--serve", *map(str, arguments)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield process.pid, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


# The client's side


def resident(pid: int) -> int:
    """Resident memory of a process, in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError("the server is gone")


def open_one(port: int, deflate: bool) -> tuple[socket.socket, str]:
    """A connection after its opening handshake, and the head of the response."""
    sock = socket.create_connection(("localhost", port))
    sock.sendall(REQUEST % (OFFER if deflate else b""))
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(4096)
    return sock, head.decode()


def make_frames(head: str, messages: list[bytes]) -> list[bytes]:
    """Messages as the response of the server wants them, good for all fresh connections."""
    if "permessage-deflate" not in head:
        return [b"".join(encode_frame(FIN_TEXT, message, bytes(4))) for message in messages]
    window = head.partition("client_max_window_bits=")[2].partition("\r")[0]
    codec = DeflateCodec(own_window_bits=int(window or 15))
    return [
        b"".join(encode_frame(FIN_TEXT | RSV1, codec.deflate(message), bytes(4)))
        for message in messages
    ]


def echo(sock: socket.socket, frame: bytes) -> None:
    """Send a message and wait for all of its echo."""
    sock.sendall(frame)
    head, length = sock.recv(2), 0
    short = head[1] & 0x7F
    if short < 126:
        length = short
    else:
        length = int.from_bytes(sock.recv(2 if short == 126 else 8), "big")
    while length:
        length -= len(sock.recv(min(length, 65536)))


def measure(count: int, *arguments, offer: bool = False, messages=()) -> dict[str, float]:
    """Bytes for each connection: ``idle``, and ``used`` after the echo of messages on each."""
    with contextlib.ExitStack() as stack:
        pid, port = stack.enter_context(server_process(*arguments))
        warm, head = open_one(port, offer)
        stack.enter_context(warm)
        frames = make_frames(head, messages)
        for frame in frames:
            echo(warm, frame)
        time.sleep(SETTLE)
        before = resident(pid)
        socks = [stack.enter_context(open_one(port, offer)[0]) for _ in range(count)]
        time.sleep(SETTLE)
        found = {"idle": (resident(pid) - before) / count}
        if messages:
            for sock in socks:
                for frame in frames:
                    echo(sock, frame)
            time.sleep(SETTLE)
            found["used"] = (resident(pid) - before) / count
        return found


# The tables


def kib(amount: float) -> str:
    return f"{amount / 1024:.1f}"


def conditions() -> str:
    speedups = "with" if SPEEDUPS else "without"
    return (
        f"\nPython {platform.python_version()}, {platform.system()} {platform.machine()}, "
        f"{platform.libc_ver()[0]} {platform.libc_ver()[1]}, {speedups} the C module.\n"
    )


def measure_states(counts: list[int]) -> str:
    """What a connection takes, by what it has done."""
    cases = [
        ("A bare thread that waits for its socket", ["bare"], False, [], "idle"),
        ("Idle", ["syncws", 0, 1], False, [SHORT], "idle"),
        ("After the echo of 1 KiB", ["syncws", 0, 1], False, [SHORT], "used"),
        ("Compression agreed on, not used", ["syncws", 12, 5], True, [SHORT], "idle"),
        ("After the echo of 1 KiB, compressed", ["syncws", 12, 5], True, [SHORT], "used"),
    ]
    done = {}
    for _, arguments, offer, messages, _ in cases:
        for count in counts:
            key = (*arguments, count)
            if key not in done:
                done[key] = measure(count, *arguments, offer=offer, messages=messages)
                print(key, {name: kib(value) for name, value in done[key].items()}, file=sys.stderr)
    rows = [
        [title, *(kib(done[(*arguments, count)][column]) for count in counts)]
        for title, arguments, _, _, column in cases
    ]
    header = ["KiB for each connection", *(f"{count:,} connections" for count in counts)]
    return list_table(header, rows) + conditions()


def measure_windows() -> str:
    """What compression adds to a connection that was used in both directions."""
    plain = measure(DEFLATE_COUNT, "syncws", 0, 1, messages=FILL)["used"]
    rows = []
    for window in WINDOWS:
        row = [str(window)]
        for level in LEVELS:
            settings = ("syncws", window, level)
            used = measure(DEFLATE_COUNT, *settings, offer=True, messages=FILL)["used"]
            row.append(f"{(used - plain) / 1024:.0f}")
        print(row, file=sys.stderr)
        rows.append(row)
    return list_table(["Window bits", *(f"Level {level}" for level in LEVELS)], rows) + conditions()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--counts", default="100,1000,10000", help="connections, by commas; may be empty"
    )
    parser.add_argument("--out", type=pathlib.Path, default=OUTPUT, help="folder")
    parser.add_argument("--serve", nargs="+", help=argparse.SUPPRESS)
    args = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.serve:
        kind, *numbers = args.serve
        serve_bare() if kind == "bare" else serve_syncws(*map(int, numbers))
        return
    args.out.mkdir(exist_ok=True)
    counts = [int(count) for count in args.counts.split(",") if count]
    if counts:
        (args.out / "memory.inc").write_text(measure_states(counts))
    (args.out / "memory-deflate.inc").write_text(measure_windows())


if __name__ == "__main__":
    main()
