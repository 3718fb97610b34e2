"""Servers and clients over each kind of transport, for the tests of layers 3 and 4."""

from __future__ import annotations

import contextlib
import socket
import threading

from syncws import ClientConnection, ServerConnection, connect, serve, unix_connect, unix_serve

PATIENCE = 10  # seconds until a test gives up waiting


class PortableServerConnection(ServerConnection):
    """A connection that uses only what all platforms have."""

    portable_io = True


class PortableClientConnection(ClientConnection):
    """A connection that uses only what all platforms have."""

    portable_io = True


def echo(connection):
    for message in connection:
        connection.send(message)


def counts(server):
    """How many connections are open, and how many there are in all."""
    stats = server.stats()
    return stats["open"], stats["total"]


class Held:
    """A handler that hands its connection to the test, and returns when the test lets it."""

    def __init__(self):
        self.connection = None
        self._entered = threading.Event()
        self._done = threading.Event()

    def __call__(self, connection):
        self.connection = connection
        self._entered.set()
        self._done.wait(PATIENCE)
        self.connection = None

    def wait(self):
        """The server's connection, once it is open."""
        assert self._entered.wait(PATIENCE), "no connection was opened"
        return self.connection

    def release(self):
        """Let the handler return."""
        self._done.set()


class Link:
    """How a test connects clients to servers: ``kind`` is plain, tls, unix or portable(-tls)."""

    def __init__(self, kind, server_context, client_context, folder):
        self.kind = kind
        self.secure = kind.endswith("tls")
        self.portable = kind.startswith("portable")
        self._server_context = server_context
        self._client_context = client_context
        self._path = str(folder / "socket")

    def serve(self, handler, **options):
        """Make a server; it does not serve before ``start()`` or ``serve_forever()``."""
        options.setdefault("close_timeout", PATIENCE)
        if self.portable:
            options.setdefault("create_connection", PortableServerConnection)
        if self.secure:
            options["ssl"] = self._server_context
        if self.kind == "unix":
            return unix_serve(handler, self._path, **options)
        return serve(handler, "127.0.0.1", 0, **options)

    def uri(self, server, path="/"):
        """Where clients find a server."""
        scheme = "wss" if self.secure else "ws"
        if self.kind == "unix":
            return f"{scheme}://localhost{path}"
        return f"{scheme}://127.0.0.1:{server.server_address[1]}{path}"

    def connect(self, server, path="/", **options):
        """Open a client connection."""
        options.setdefault("close_timeout", PATIENCE)
        if self.portable:
            options.setdefault("create_connection", PortableClientConnection)
        if self.secure:
            options["ssl"] = self._client_context
        if self.kind == "unix":
            return unix_connect(self._path, self.uri(server, path), **options)
        return connect(self.uri(server, path), **options)

    def socket(self, server):
        """Open a bare socket to a server, with TLS if it has that; for bad clients."""
        if self.kind == "unix":
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(self._path)
        else:
            sock = socket.create_connection(server.server_address[:2])
        sock.settimeout(PATIENCE)
        if self.secure:
            return self._client_context.wrap_socket(sock, server_hostname="127.0.0.1")
        return sock

    @contextlib.contextmanager
    def pair(self, *, client=None, **options):
        """Two open ends: yields the client's connection and the server's."""
        held = Held()
        with self.serve(held, **options).start() as server:
            try:
                with self.connect(server, **(client or {})) as connection:
                    yield connection, held.wait()
                    held.release()
            finally:
                held.release()


def handshake(sock, path="/", **headers):
    """Do the opening handshake on a bare socket; returns the head of the response, as text."""
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    sock.sendall(f"GET {path} HTTP/1.1\r\n{lines}\r\n".encode())
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = sock.recv(1)
        assert byte, f"connection closed after {head!r}"
        head += byte
    return head.decode()


def masked(head, payload, key=b"\x00\x00\x00\x00"):
    """A frame of a client with at most 125 bytes; the default key leaves the payload as it is."""
    assert len(payload) < 126
    body = bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))
    return bytes((head, 0x80 | len(payload))) + key + body


def read_all(sock):
    """What a peer sends until it closes."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := sock.recv(65536):
            data += chunk
    return data
