"""Connections through SOCKS proxies, by the optional package python-socks."""

from __future__ import annotations

import importlib
import socket
from typing import Any

from .attempt import Attempt, connect_tcp
from .deadline import Deadline
from .exceptions import ProxyError
from .proxy import Proxy

__all__ = ["connect_socks"]

# What python-socks calls them, and whether the proxy resolves names.
_KINDS = {
    "socks4": ("SOCKS4", False),
    "socks4a": ("SOCKS4", True),
    "socks5": ("SOCKS5", False),
    "socks5h": ("SOCKS5", True),
}

# RFC 1928 §6: general failure, network or host unreachable, refused, TTL expired; and what
# SOCKS 4 says for all of them.
_NETWORK_FAILURES = (1, 3, 4, 5, 6, 91)


def connect_socks(
    attempt: Attempt, proxy: Proxy, host: str, port: int, **options: Any
) -> socket.socket:
    """
    Have a SOCKS proxy connect to a host; all within the deadline of the attempt.

    Args:
        options: for connecting to the proxy, as :func:`connect_tcp` has them.

    Raises:
        ImportError: python-socks is not installed.
        ProxyError: the proxy refused, or broke its protocol.
        ConnectionError: the proxy could not reach the host.
        OSError: the connection failed, or it took too long.
    """
    python_socks = _import()
    kind, resolves = _KINDS[proxy.scheme]
    if not resolves:
        host = _resolve(attempt, host, port, kind)
    sock = connect_tcp(attempt, proxy.host, proxy.port, role="proxy ", **options)
    bounded = _BoundedSocket(sock, attempt.deadline)
    try:
        with attempt.watching(bounded):
            chained = python_socks.sync.Proxy(
                getattr(python_socks.ProxyType, kind),
                proxy.host,
                proxy.port,
                proxy.username,
                proxy.password,
                resolves,
                forward=_Connected(bounded),
            )
            _negotiate(chained, proxy, host, port)
        # A plain socket again, for the same descriptor.
        return socket.socket(sock.family, sock.type, sock.proto, fileno=bounded.detach())
    finally:
        bounded.close()


def _resolve(attempt: Attempt, host: str, port: int, kind: str) -> str:
    """An address of a host that this kind of proxy can connect to."""
    for family, *_, address in attempt.resolve(host, port):
        if kind != "SOCKS4" or family == socket.AF_INET:
            return str(address[0])
    raise ProxyError(f"SOCKS 4 needs an IPv4 address, and {host} has none")


def _negotiate(chained: Any, proxy: Proxy, host: str, port: int) -> None:
    try:
        chained.connect(host, port)
    except OSError:
        raise
    except Exception as exc:
        text = f"SOCKS proxy {proxy.host}:{proxy.port} did not connect to {host}:{port}: {exc}"
        if getattr(exc, "error_code", None) in _NETWORK_FAILURES:
            raise ConnectionError(text) from exc
        raise ProxyError(text) from exc


def _import() -> Any:
    try:
        importlib.import_module("python_socks.sync")
        return importlib.import_module("python_socks")
    except ImportError as exc:
        raise ImportError(
            "a SOCKS proxy needs the package python-socks: pip install 'syncws[socks]'"
        ) from exc


class _Connected:
    """What python-socks takes for the first proxy of a chain: a connection that exists."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def connect(self, *args: Any, **kwargs: Any) -> socket.socket:
        return self._sock


class _BoundedSocket(socket.socket):
    """A socket whose calls end by a deadline, whatever the peer does."""

    def __init__(self, sock: socket.socket, deadline: Deadline) -> None:
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self._deadline = deadline

    def recv(self, *args: Any) -> bytes:
        self._bound()
        return super().recv(*args)

    def sendall(self, *args: Any) -> None:
        self._bound()
        super().sendall(*args)

    def _bound(self) -> None:
        remaining = self._deadline.remaining()
        if remaining == 0:
            raise TimeoutError("timed out while waiting for the SOCKS proxy")
        self.settimeout(remaining)
