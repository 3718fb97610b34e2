"""Proxies for the tests of the client: HTTP CONNECT, with TLS if wanted, and SOCKS 4, 4a and 5."""

from __future__ import annotations

import contextlib
import select
import socket
import socketserver
import ssl
import struct
import threading

from links import PATIENCE


def relay(one, other):
    """Pass bytes both ways until one end is closed."""
    pairs = {one: other, other: one}
    while True:
        ready = [sock for sock in pairs if isinstance(sock, ssl.SSLSocket) and sock.pending()]
        for sock in ready or select.select(list(pairs), [], [], PATIENCE)[0]:
            data = sock.recv(65536)
            if not data:
                return
            pairs[sock].sendall(data)


class Handler(socketserver.BaseRequestHandler):
    """What the proxies below have in common: a connection for each client."""

    def handle(self):
        with contextlib.suppress(OSError):  # peers come and go as they like
            sock = self.server.wrap(self.request)
            with sock:
                sock.settimeout(PATIENCE)
                self.serve(sock)

    def read(self, sock, size):
        data = b""
        while len(data) < size:
            chunk = sock.recv(size - len(data))
            if not chunk:
                raise ConnectionResetError
            data += chunk
        return data

    def read_until(self, sock, end):
        data = b""
        while not data.endswith(end):
            data += self.read(sock, 1)
        return data

    def tunnel(self, sock, host, port, granted, refused):
        """Connect to a host, and say so; then pass bytes."""
        self.server.targets.append((host, port))
        try:
            upstream = socket.create_connection(self.server.route(host, port), timeout=PATIENCE)
        except OSError:
            sock.sendall(refused)
            return
        with upstream:
            sock.sendall(granted)
            relay(sock, upstream)


class ConnectHandler(Handler):
    def serve(self, sock):
        first = self.read(sock, 1)
        if not first.isalpha():
            sock.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
            return
        head = (first + self.read_until(sock, b"\r\n\r\n")).decode()
        self.server.requests.append(head)
        if self.server.answer is not None:
            sock.sendall(self.server.answer)
            return
        target = head.split(" ")[1]
        host, _, port = target.rpartition(":")
        self.tunnel(
            sock,
            host.strip("[]"),
            int(port),
            # RFC 9110 §9.3.6: a client ignores the length.
            b"HTTP/1.1 200 Connection established\r\nContent-Length: 5\r\n\r\n",
            b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n",
        )


class SocksHandler(Handler):
    def serve(self, sock):
        if self.read(sock, 1) == b"\x05":
            self.serve_5(sock)
        else:
            self.serve_4(sock)

    def serve_5(self, sock):
        """RFC 1928, RFC 1929."""
        methods = self.read(sock, self.read(sock, 1)[0])
        if self.server.credentials is not None:
            if 2 not in methods:
                sock.sendall(b"\x05\xff")
                return
            sock.sendall(b"\x05\x02")
            self.read(sock, 1)
            pair = tuple(self.read(sock, self.read(sock, 1)[0]).decode() for _ in range(2))
            sock.sendall(b"\x01\x00" if pair == self.server.credentials else b"\x01\x01")
            if pair != self.server.credentials:
                return
        else:
            sock.sendall(b"\x05\x00")
        _, _, _, kind = self.read(sock, 4)
        if kind == 3:
            host = self.read(sock, self.read(sock, 1)[0]).decode()
        else:
            family, size = (socket.AF_INET, 4) if kind == 1 else (socket.AF_INET6, 16)
            host = socket.inet_ntop(family, self.read(sock, size))
        (port,) = struct.unpack("!H", self.read(sock, 2))
        answer = b"\x05%c\x00\x01" + bytes(6)
        if self.server.answer is not None:
            sock.sendall(self.server.answer)
            return
        self.tunnel(sock, host, port, answer % 0, answer % 5)

    def serve_4(self, sock):
        _, port, address = struct.unpack("!BH4s", self.read(sock, 7))
        self.read_until(sock, b"\x00")
        host = socket.inet_ntoa(address)
        if host.startswith("0.0.0.") and host != "0.0.0.0":  # 4a: the name follows
            host = self.read_until(sock, b"\x00")[:-1].decode()
        self.tunnel(sock, host, port, b"\x00\x5a" + bytes(6), b"\x00\x5b" + bytes(6))


class ProxyServer(socketserver.ThreadingTCPServer):
    """
    A proxy for tests.

    ``route`` says where a name really leads to; ``answer`` is sent instead of connecting.
    """

    block_on_close = True

    def __init__(self, handler, *, context=None, answer=None, credentials=None, names=None):
        super().__init__(("127.0.0.1", 0), handler)
        self.context = context
        self.answer = answer
        self.credentials = credentials
        self.names = names or {}
        self.requests = []
        self.targets = []

    @property
    def port(self):
        return self.server_address[1]

    def wrap(self, sock):
        sock.settimeout(PATIENCE)
        return self.context.wrap_socket(sock, server_side=True) if self.context else sock

    def route(self, host, port):
        return self.names.get(host, host), port

    def shutdown_request(self, request):
        with contextlib.suppress(OSError):
            super().shutdown_request(request)


@contextlib.contextmanager
def running(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def connect_proxy(**options):
    """An HTTP proxy, running within the ``with`` block."""
    return running(ProxyServer(ConnectHandler, **options))


def socks_proxy(**options):
    """A SOCKS proxy, running within the ``with`` block."""
    return running(ProxyServer(SocksHandler, **options))
