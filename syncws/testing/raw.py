"""Peers that a test plays itself, frame by frame, so that they can break every rule."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from types import TracebackType
from typing import Any, Callable, Optional, Union

from ..deadline import Deadline
from ..frames import RSV_BITS, Frame, FrameDecoder, encode_close, encode_frame
from ..handshake import ClientHandshake, ServerHandshake
from ..http11 import Request, RequestParser, ResponseParser
from ..opcodes import Close, CloseCode, Opcode
from ..transport import wait_for
from ..uri import parse_uri

__all__ = ["RawPeer", "RawServer", "raw_client"]

PATIENCE = 5.0  # seconds for what is done in an instant if all is well

READ_SIZE = 65536  # bytes


class RawPeer:
    """
    One end of a connection that a test plays itself; as a context manager, closed at the end.

    The opening handshake is done. From then on nothing happens by itself: no pong, no answer
    to a Close frame, no check of what is sent.

    Thread safety: one thread may send while another receives.

    Attributes:
        sock: the socket, for what the methods don't do.
        request: of the opening handshake, as it was sent or received.
    """

    def __init__(
        self, sock: socket.socket, request: Request, leftover: bytes = b"", *, is_client: bool
    ) -> None:
        self.sock = sock
        self.request = request
        self._is_client = is_client
        self._decoder = FrameDecoder(not is_client, RSV_BITS, RSV_BITS)
        self._decoder.feed(leftover)

    def send(self, opcode: int, data: Union[str, bytes] = b"", **bits: bool) -> None:
        """
        Send a frame; that of a client is masked (RFC 6455 §5.1).

        Args:
            opcode: an :class:`Opcode`, or any number from 0 to 15.
            data: payload; strings are encoded in UTF-8.
            bits: ``fin=False``, ``rsv1=True``, ``rsv2=True`` and ``rsv3=True``.

        Raises:
            OSError: the network failed.
        """
        payload = data.encode() if isinstance(data, str) else bytes(data)
        key = os.urandom(4) if self._is_client else None
        head = Frame(opcode, payload, **bits).head
        self.send_bytes(b"".join(encode_frame(head, payload, key)))

    def send_close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """Send a Close frame (RFC 6455 §5.5.1), and nothing else; as :meth:`send`."""
        self.send(Opcode.CLOSE, encode_close(Close(code, reason)))

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are: a part of a frame, or what is none; as :meth:`send`."""
        self.sock.sendall(data)

    def receive(self, timeout: float = PATIENCE) -> Optional[Frame]:
        """
        Return the next frame, unmasked; ``None`` at the end of the stream.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it did not come in time.
            ProtocolError: what came is no frame.
            OSError: the network failed.
        """
        deadline = Deadline(timeout)
        payload = b""
        while True:
            piece = self._decoder.next()
            if piece is None:
                data = _read(self.sock, deadline)
                if not data:
                    return None
                self._decoder.feed(data)
                continue
            head, part, _, ends = piece
            payload += part
            if ends:
                return Frame.from_head(head, payload)

    def close(self) -> None:
        """Close the socket, without a closing handshake."""
        self.sock.close()

    def __enter__(self) -> RawPeer:
        return self

    def __exit__(self, *args: Any) -> None:
        self.close()


def raw_client(uri: str, *, timeout: float = PATIENCE, **options: Any) -> RawPeer:
    """
    Connect to a server as a client that a test plays itself, without TLS.

    Args:
        uri: ``ws://…``.
        timeout: seconds for the opening handshake.
        options: ``origin``, ``subprotocols`` and ``additional_headers``, as for :func:`connect`.

    Raises:
        InvalidHandshake: the server refused.
        OSError: the network failed, or it took too long.
    """
    ws_uri = parse_uri(uri)
    handshake = ClientHandshake(ws_uri, **options)
    sock = socket.create_connection((ws_uri.host, ws_uri.port), timeout)
    try:
        sock.settimeout(None)
        sock.sendall(handshake.request.serialize())
        parser = ResponseParser()
        handshake.check(_read_head(sock, parser, Deadline(timeout)))
    except BaseException:
        sock.close()
        raise
    return RawPeer(sock, handshake.request, parser.leftover, is_client=True)


class RawServer:
    """
    A server that a test plays itself, at a port of its own on 127.0.0.1; a context manager.

    ::

        def misbehave(peer):
            peer.send(Opcode.TEXT, "half a mess", fin=False)

        with RawServer(misbehave) as server, connect(server.uri) as connection:
            with pytest.raises(ConnectionClosedError):
                connection.recv(timeout=1)

    At the end of the block it raises :exc:`AssertionError` if a script is still running, or
    if one has raised anything but a :exc:`ConnectionError`.

    Args:
        script: called with a :class:`RawPeer` for each connection, in a thread of its own; when it
            returns, the socket is closed.
        timeout: seconds for an opening handshake, and for the scripts to end.

    Attributes:
        uri: where clients find it.
    """

    def __init__(self, script: Callable[[RawPeer], None], *, timeout: float = PATIENCE) -> None:
        self._script = script
        self._timeout = timeout
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.uri = f"ws://127.0.0.1:{self._listener.getsockname()[1]}"
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        # Accepting thread only, until it has ended.
        self._peers: dict[threading.Thread, socket.socket] = {}
        self._errors: list[BaseException] = []

    def __enter__(self) -> RawServer:
        self._acceptor.start()
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._stop_accepting()
        running = self._end_scripts()
        errors = self._errors[:]
        self._errors.clear()  # their tracebacks refer to the peers
        if exc_type is None:
            assert not running, f"{running} scripts still running after {self._timeout} s"
            if errors:
                raise AssertionError(f"a script raised {errors[0]!r}") from errors[0]

    def _stop_accepting(self) -> None:
        self._closing = True
        # It wakes the thread on every platform, which closing the socket does not.
        socket.create_connection(self._listener.getsockname()).close()
        self._acceptor.join()
        self._listener.close()

    def _end_scripts(self) -> int:
        """Wait for the scripts, and cut off those that don't end; returns how many these are."""
        deadline = Deadline(self._timeout)
        running = 0
        for thread, sock in self._peers.items():
            thread.join(deadline.remaining())
            if thread.is_alive():
                running += 1
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
        self._peers.clear()
        return running

    def _accept(self) -> None:
        while True:
            sock, _ = self._listener.accept()
            if self._closing:
                sock.close()
                return
            thread = threading.Thread(target=self._play, args=(sock,), daemon=True)
            self._peers[thread] = sock
            thread.start()

    def _play(self, sock: socket.socket) -> None:
        with sock:
            try:
                self._script(_answer(sock, Deadline(self._timeout)))
            except ConnectionError:
                pass  # that is how clients go
            except BaseException as exc:
                self._errors.append(exc)


def _answer(sock: socket.socket, deadline: Deadline) -> RawPeer:
    """Do a server's part of the opening handshake."""
    parser = RequestParser()
    request = _read_head(sock, parser, deadline)
    handshake = ServerHandshake(origins=None)
    sock.sendall(handshake.respond(request).serialize())
    if handshake.exception is not None:
        raise handshake.exception
    return RawPeer(sock, request, parser.leftover, is_client=False)


def _read_head(sock: socket.socket, parser: Any, deadline: Deadline) -> Any:
    while True:
        data = _read(sock, deadline)
        head = parser.feed(data) if data else parser.feed_eof()
        if head is not None:
            return head


def _read(sock: socket.socket, deadline: Deadline) -> bytes:
    if not wait_for(sock, False, deadline.remaining()):
        raise TimeoutError("nothing arrived in time")
    return sock.recv(READ_SIZE)
