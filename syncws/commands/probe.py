"""A bare client that can do everything wrong on purpose, to see what a server makes of it."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import struct
from types import TracebackType
from typing import NamedTuple, Optional, Union

from ..deadline import Deadline
from ..frames import encode_frame
from ..handshake import ClientHandshake
from ..http11 import Response, ResponseParser
from ..opcodes import Opcode
from ..permessage_deflate import PerMessageDeflate
from ..uri import WebSocketURI

__all__ = ["FIN", "MASKED", "RSV1", "BadServer", "Ended", "Probe", "Seen", "Target"]

FIN, RSV1 = 0x80, 0x40
RSV, MASKED = 0x70, 0x80
NORMAL = struct.pack("!H", 1000)

# A frame of which the server declares more is not read.
MAX_FRAME = 1 << 24  # bytes


class BadServer(Exception):
    """The server broke the protocol; the text says how."""


class Ended(Exception):
    """TCP ended: the text says how."""


class Target(NamedTuple):
    """What is examined, and how to get there."""

    uri: WebSocketURI
    tls: Optional[ssl.SSLContext]
    headers: list[tuple[str, str]]
    origin: Optional[str]
    subprotocols: Optional[list[str]]
    timeout: float


class Seen(NamedTuple):
    """A frame of the server."""

    head: int
    payload: bytes

    @property
    def opcode(self) -> int:
        return self.head & 0x0F

    @property
    def close_code(self) -> Optional[int]:
        """Code of a Close frame; ``None`` if it has none."""
        return struct.unpack("!H", self.payload[:2])[0] if len(self.payload) >= 2 else None


class Probe:
    """
    One connection to the server, used by one thread; a context manager that closes it.

    Everything waits at most until the deadline, which ``renew()`` sets anew.

    Raises:
        OSError: there is no way to the server; also by each of its methods.
    """

    def __init__(self, target: Target) -> None:
        self.target = target
        self.renew()
        self._buffer = bytearray()
        self.deflate = False
        self._opened = False
        uri = target.uri
        self.sock: Union[socket.socket, ssl.SSLSocket] = socket.create_connection(
            (uri.host, uri.port), timeout=target.timeout
        )
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if target.tls is not None:
                self.sock = target.tls.wrap_socket(self.sock, server_hostname=uri.host)
        except BaseException:
            self.sock.close()
            raise

    def renew(self, timeout: Optional[float] = None) -> None:
        """Give what follows its time, in seconds; ``None`` for that of the command line."""
        self._deadline = Deadline(self.target.timeout if timeout is None else timeout)

    def __enter__(self) -> Probe:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        if self._opened:
            # A server's log should not be full of connections that were lost.
            with contextlib.suppress(OSError):
                self.send_frame(FIN | Opcode.CLOSE, NORMAL)
        self.sock.close()

    # Opening handshake

    def open(self, compression: bool = False) -> Response:
        """
        Do the opening handshake as it should be.

        Raises:
            InvalidHandshake: the server refused, or broke the protocol.
        """
        handshake = self.handshake(compression)
        response = self.exchange(handshake, {})
        handshake.check(response)
        self.deflate = bool(handshake.extensions)
        self._opened = True
        return response

    def handshake(self, compression: bool = False) -> ClientHandshake:
        target = self.target
        return ClientHandshake(
            target.uri,
            origin=target.origin,
            extensions=(PerMessageDeflate(),) if compression else (),
            subprotocols=target.subprotocols,
            additional_headers=target.headers,
        )

    def exchange(self, handshake: ClientHandshake, changes: dict[str, Optional[str]]) -> Response:
        """Send the request with some headers changed, or left out; return the response."""
        headers = handshake.request.headers
        for name, value in changes.items():
            if name in headers:
                del headers[name]
            if value is not None:
                headers[name] = value
        self.send(handshake.request.serialize())
        parser = ResponseParser()
        response = None
        while response is None:
            data = self._read()
            response = parser.feed(data) if data else parser.feed_eof()
        self._buffer += parser.leftover
        return response

    # Frames

    def send(self, data: bytes) -> None:
        self.sock.settimeout(self._remaining())
        self.sock.sendall(data)

    def send_frame(self, head: int, payload: bytes = b"", masked: bool = True) -> None:
        key = os.urandom(4) if masked else None
        self.send(b"".join(encode_frame(head, payload, key)))

    def receive(self) -> Seen:
        """
        Return the next frame.

        Raises:
            BadServer: it breaks the protocol.
            Ended: TCP ended.
            TimeoutError, socket.timeout: nothing came.
        """
        head, second = self._take(2)
        length = second & 0x7F
        if length >= 126:
            size = 2 if length == 126 else 8
            length = int.from_bytes(self._take(size), "big")
        if second & MASKED:
            raise BadServer("the server masks its frames (RFC 6455 §5.1)")
        if head & RSV & ~(RSV1 if self.deflate else 0):
            raise BadServer("the server sets reserved bits (RFC 6455 §5.2)")
        if length > MAX_FRAME:
            raise BadServer(f"the server sends a frame of {length:,} bytes")
        return Seen(head, self._take(length))

    def expect(self, opcode: int, payload: Optional[bytes] = None) -> Seen:
        """Return the next frame of a kind, whatever the server says before; pings are answered."""
        while True:
            seen = self.receive()
            if seen.opcode == opcode and payload in (None, seen.payload):
                return seen
            if seen.opcode == Opcode.PING:
                self.send_frame(FIN | Opcode.PONG, seen.payload)
            if seen.opcode == Opcode.CLOSE:
                raise Ended(f"closed with {seen.close_code or 'no code'}")

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self._read()
            if not data:
                raise Ended("ended TCP without a Close frame")
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _read(self) -> bytes:
        self.sock.settimeout(self._remaining())
        try:
            return self.sock.recv(65536)
        except ConnectionResetError:
            raise Ended("reset the TCP connection") from None
        except ssl.SSLEOFError:
            return b""

    def _remaining(self) -> float:
        remaining = self._deadline.remaining()
        # Zero would make the socket non-blocking.
        return max(0.001, remaining if remaining is not None else self.target.timeout)
