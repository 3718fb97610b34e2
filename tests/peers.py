"""Peers that tests play themselves, frame by frame, and threads that hand back their results."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
import sys
import threading
import traceback

from links import PATIENCE, Held, handshake

from syncws import connect

FIN = 0x80
RSV1 = 0x40
CONT, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Task(threading.Thread):
    """A function that runs in a thread of its own."""

    def __init__(self, function, *args, **kwargs):
        super().__init__(name="task", daemon=True)
        self._call = (function, args, kwargs)
        self._value = None
        self._error = None
        self.start()

    def run(self):
        function, args, kwargs = self._call
        try:
            self._value = function(*args, **kwargs)
        except BaseException as exc:
            self._error = exc
        finally:
            self._call = None

    def result(self, timeout=PATIENCE):
        """What the function returned; raises what it raised."""
        self.join(timeout)
        assert not self.is_alive(), f"the task hangs:\n{self._stack()}"
        if self._error is not None:
            raise self._error
        return self._value

    def _stack(self):
        frame = sys._current_frames().get(self.ident)
        return "".join(traceback.format_stack(frame))

    def error(self, timeout=PATIENCE):
        """What the function raised, or ``None``."""
        self.join(timeout)
        assert not self.is_alive(), f"the task hangs:\n{self._stack()}"
        return self._error


def frame(head, payload=b"", masked=False):
    """Encode a frame; the masking key is one that changes the payload."""
    mask_bit = 0x80 if masked else 0
    if len(payload) < 126:
        header = struct.pack("!BB", head, mask_bit | len(payload))
    elif len(payload) < 65536:
        header = struct.pack("!BBH", head, mask_bit | 126, len(payload))
    else:
        header = struct.pack("!BBQ", head, mask_bit | 127, len(payload))
    if not masked:
        return header + payload
    return header + b"\x01\x02\x03\x04" + unmask(payload, b"\x01\x02\x03\x04")


def repeat(function):
    """Call a function until it raises."""
    while True:
        function()


def unmask(payload, key):
    keys = (key * (len(payload) // 4 + 1))[: len(payload)]
    number = int.from_bytes(payload, "big") ^ int.from_bytes(keys, "big")
    return number.to_bytes(len(payload), "big")


def close_payload(code, reason=""):
    return struct.pack("!H", code) + reason.encode()


class Wire:
    """The socket of a peer that a test plays, with the opening handshake done."""

    def __init__(self, sock, masks):
        self.sock = sock
        self.masks = masks  # whether this plays a client
        self.key = None  # masking key of the last frame received

    def send(self, opcode, payload=b"", fin=FIN):
        """Send a frame."""
        self.sock.sendall(frame(fin | opcode, payload, self.masks))

    def send_close(self, code, reason=""):
        self.send(CLOSE, close_payload(code, reason))

    def receive(self):
        """The next frame: its first byte and its payload; ``None`` at the end of input."""
        start = self.sock.recv(1)
        if not start:
            return None
        head, length = start[0], self._exactly(1)[0]
        self.key = None
        masked, length = length & 0x80, length & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", self._exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", self._exactly(8))
        assert bool(masked) is not self.masks, "masked for the wrong role"
        if masked:
            self.key = self._exactly(4)
        payload = self._exactly(length)
        return head, unmask(payload, self.key) if masked else payload

    def receive_all(self):
        """All frames until the peer ends the TCP connection."""
        frames = []
        while (received := self.receive()) is not None:
            frames.append(received)
        return frames

    def end(self):
        """All frames until the peer ends its half of the TCP connection; then end ours."""
        frames = self.receive_all()
        self.sock.close()
        return frames

    def is_silent(self, seconds=0.1):
        """Tell that nothing arrives, neither data nor the end, for a short while."""
        self.sock.settimeout(seconds)
        try:
            self.sock.recv(1)
        except socket.timeout:  # the TimeoutError of Python 3.9 is another
            return True
        finally:
            self.sock.settimeout(PATIENCE)
        return False

    def hang_up(self):
        """End both directions, also while another thread is sending."""
        with contextlib.suppress(OSError):  # the end may have been noticed already
            socket.socket.shutdown(self.sock, socket.SHUT_RDWR)

    def reset(self):
        """Reset the TCP connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def _exactly(self, size):
        data = bytearray()
        while len(data) < size:
            chunk = self.sock.recv(size - len(data))
            assert chunk, "the connection ended within a frame"
            data += chunk
        return bytes(data)


@contextlib.contextmanager
def bare_client(link, *, headers=None, receive_buffer=None, **options):
    """A client that the test plays: yields its wire and the server's connection."""
    held = Held()
    with link.serve(held, **options).start() as server, contextlib.ExitStack() as stack:
        stack.callback(held.release)
        sock = stack.enter_context(link.socket(server))
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        handshake(sock, **(headers or {}))
        yield Wire(sock, masks=True), held.wait()


@contextlib.contextmanager
def bare_server(*, contexts=None, extensions=None, receive_buffer=None, **options):
    """
    A server that the test plays: yields its wire and the client's connection.

    ``contexts`` are those of the server and of the client, for TLS.
    """
    options.setdefault("close_timeout", PATIENCE)
    scheme = "ws"
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        if receive_buffer is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        if contexts is not None:
            scheme = "wss"
            listener = stack.enter_context(contexts[0].wrap_socket(listener, server_side=True))
            options["ssl"] = contexts[1]
        accepting = Task(_accept, listener, extensions)
        connection = connect(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/", **options)
        stack.callback(connection.close)
        sock = stack.enter_context(accepting.result())
        yield Wire(sock, masks=False), connection


def _accept(listener, extensions):
    """Accept a connection and do the opening handshake as a server, trusting the client."""
    sock, _ = listener.accept()
    sock.settimeout(PATIENCE)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += sock.recv(65536)
    key = next(
        line.partition(b":")[2].strip()
        for line in head.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key:")
    )
    accept = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
    lines = [
        "HTTP/1.1 101 Switching Protocols",
        "Upgrade: websocket",
        "Connection: Upgrade",
        f"Sec-WebSocket-Accept: {accept}",
    ]
    if extensions is not None:
        lines.append(f"Sec-WebSocket-Extensions: {extensions}")
    sock.sendall("\r\n".join([*lines, "", ""]).encode())
    return sock
