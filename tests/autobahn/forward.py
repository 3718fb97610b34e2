"""
A forwarder that puts TLS between the Autobahn suite, which is plain, and what is tested.

It keeps what the suite looks at: an end of stream arrives as one, in its direction alone, and a
broken connection breaks the other. Two threads for each connection, one for each direction. They
share one OpenSSL object, which is used under a lock, and never while waiting for a socket.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading

BLOCK = 256 * 1024  # bytes


class Forwarder:
    """
    Listens on ``port`` of 127.0.0.1 and forwards to another port there, until ``close()``.

    Args:
        target: the port to forward to.
        context: TLS for the connecting end, or for the listening one.
        listen_tls: whether clients talk TLS to it, and it talks plain to the target.
    """

    def __init__(self, target: int, context: ssl.SSLContext, *, listen_tls: bool) -> None:
        self._target = target
        self._context = context
        self._listen_tls = listen_tls
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Accept no more connections."""
        # To wake accept(): close() alone doesn't everywhere, shutdown() doesn't elsewhere.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(10)

    def _accept(self) -> None:
        while True:
            try:
                accepted, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._forward, args=(accepted,), daemon=True).start()

    def _forward(self, accepted: socket.socket) -> None:
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(accepted)
            connected = stack.enter_context(socket.create_connection(("127.0.0.1", self._target)))
            for sock in (accepted, connected):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            secure, plain = (accepted, connected) if self._listen_tls else (connected, accepted)
            Bridge(secure, plain, self._context, server_side=self._listen_tls).run()


class Bridge:
    """A connection with TLS and one without, and what is between them."""

    def __init__(
        self,
        secure: socket.socket,
        plain: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
    ) -> None:
        self._secure = secure
        self._plain = plain
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        name = None if server_side else "localhost"
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=name
        )

    def run(self) -> None:
        """Forward in both directions until both have ended."""
        self._handshake()
        thread = threading.Thread(target=self._pump, args=(self._encrypt,), daemon=True)
        thread.start()
        self._pump(self._decrypt)
        thread.join()

    def _pump(self, direction) -> None:
        try:
            direction()
        except OSError:
            for sock in (self._secure, self._plain):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)

    def _handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._secure.sendall(self._outgoing.read())
                self._receive()
            else:
                self._secure.sendall(self._outgoing.read())
                return

    def _encrypt(self) -> None:
        while True:
            data = self._plain.recv(BLOCK)
            with self._lock:
                if data:
                    self._tls.write(data)
                else:
                    # It sends the notice that nothing more comes, and wants to read the peer's.
                    with contextlib.suppress(ssl.SSLError):
                        self._tls.unwrap()
                encrypted = self._outgoing.read()
            self._secure.sendall(encrypted)
            if not data:
                self._secure.shutdown(socket.SHUT_WR)
                return

    def _decrypt(self) -> None:
        while True:
            data = self._read()
            if data is None:
                self._receive()
            elif data:
                self._plain.sendall(data)
            else:
                self._plain.shutdown(socket.SHUT_WR)
                return

    def _receive(self) -> None:
        data = self._secure.recv(BLOCK)
        with self._lock:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()

    def _read(self):
        """Decrypted data; empty at the end of the stream, ``None`` where input is wanted."""
        with self._lock:
            try:
                return self._tls.read(BLOCK)
            except ssl.SSLWantReadError:
                return None
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
