"""The payloads of the compressed scenarios, and a check that servers echo them."""

from __future__ import annotations

import base64
import itertools
import json
import os
import pathlib
import socket
import struct
import zlib
from typing import BinaryIO

TAIL = b"\x00\x00\xff\xff"  # left out on the wire: RFC 7692 §7.2.1
TIMEOUT = 5  # seconds


class CompressionDiffers(Exception):
    """A server did not return a compressed message as it was."""


def records(size: int) -> bytes:
    """JSON like that of an API, cut to that size."""
    text = ""
    for number in itertools.count():
        if len(text) >= size:
            return text[:size].encode()
        record = {
            "id": number * 7919 % 100003,
            "user": f"user{number * 104729 % 1000}",
            "price": number * 31 % 997 / 4,
            "side": "buy" if number % 3 else "sell",
            "comment": "partially filled" if number % 5 else "",
        }
        text += json.dumps(record) + "\n"
    raise AssertionError("count() does not end")


def compress(data: bytes) -> bytes:
    """A message by itself: RFC 7692 §7.2.1, without a context from earlier ones."""
    deflate = zlib.compressobj(6, zlib.DEFLATED, -15)
    return (deflate.compress(data) + deflate.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)


def decompress(data: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(data + TAIL)


def write_payloads(folder: pathlib.Path, sizes: set[int]) -> dict[int, pathlib.Path]:
    files = {}
    for size in sorted(sizes):
        files[size] = folder / f"json-{size}.deflate"
        files[size].write_bytes(compress(records(size)))
    return files


def check_echo(port: int, payload: pathlib.Path) -> None:
    """Send one compressed message; what comes back must be the same, and compressed."""
    message = payload.read_bytes()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT) as sock:
        sock.settimeout(TIMEOUT)
        with sock.makefile("rb") as reader:
            sock.sendall(request(port))
            status = reader.readline()
            if b" 101 " not in status:
                raise CompressionDiffers(f"no handshake with compression: {status!r}")
            for line in reader:
                if line == b"\r\n":
                    break
            sock.sendall(masked_frame(0xC1, message))
            first, size = reader.read(1)[0], read_size(reader)
            reply = reader.read(size)
    if first != 0xC1:
        raise CompressionDiffers(f"a reply without compression: its first byte is {first:#x}")
    if decompress(reply) != decompress(message):
        raise CompressionDiffers("a reply that differs from the message")


def request(port: int) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET / HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
        "\r\n",
    ]
    return "\r\n".join(lines).encode()


def masked_frame(first: int, data: bytes) -> bytes:
    key = os.urandom(4)
    masked = bytes(byte ^ key[index % 4] for index, byte in enumerate(data))
    if len(data) < 126:
        return bytes([first, 0x80 | len(data)]) + key + masked
    return bytes([first, 0x80 | 126]) + struct.pack("!H", len(data)) + key + masked


def read_size(reader: BinaryIO) -> int:
    size: int = reader.read(1)[0]
    if size == 126:
        (size,) = struct.unpack("!H", reader.read(2))
    return size
