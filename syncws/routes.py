"""How a client gets to its server: directly, by a Unix socket, or through a proxy; and TLS."""

from __future__ import annotations

import os
import socket
import ssl as ssl_module
from typing import Any, NamedTuple, Optional, Union

from .attempt import Attempt, connect_tcp
from .nested_tls import NestedTLSTransport, TunnelTransport
from .proxy import Proxy, find_proxy, open_tunnel, parse_proxy
from .socks import connect_socks
from .transport import TLSTransport, Transport
from .uri import WebSocketURI

__all__ = ["TCP_OPTIONS", "Path", "Route", "SSLOption", "check_route"]

SSLOption = Union[ssl_module.SSLContext, bool, None]
Path = Union[str, bytes, os.PathLike[str], None]

TCP_OPTIONS = ("address", "source_address", "timeout")
"""Further arguments of ``connect()``, as :func:`socket.create_connection` has them."""


class Route(NamedTuple):
    """The options of ``connect()`` that tell how to get to a server."""

    sock: Optional[socket.socket]
    path: Path
    ssl: SSLOption
    server_hostname: Optional[str]
    proxy: Union[str, bool, None]
    proxy_ssl: SSLOption
    proxy_server_hostname: Optional[str]
    user_agent: Optional[str]
    portable: bool
    tcp: dict[str, Any]  # TCP_OPTIONS

    @property
    def is_given(self) -> bool:
        """Whether the user said where to connect to, apart from the URI."""
        return self.sock is not None or self.path is not None or "address" in self.tcp

    def open(self, uri: WebSocketURI, attempt: Attempt) -> Transport:
        """Return a transport to the server, whose own TLS handshake is still to be done."""
        if self.sock is not None:
            return self._wrap(self.sock, uri)
        if self.path is not None:
            return self._wrap(_connect_unix(self.path, attempt), uri)
        options = dict(self.tcp)
        host, port = options.pop("address", None) or (uri.host, uri.port)
        proxy = self._choose_proxy(host, port, uri.secure)
        if proxy is None:
            return self._wrap(connect_tcp(attempt, host, port, **options), uri)
        if proxy.is_socks:
            return self._wrap(connect_socks(attempt, proxy, host, port, **options), uri)
        sock = connect_tcp(attempt, proxy.host, proxy.port, role="proxy ", **options)
        try:
            with attempt.watching(sock):
                return self._tunnel(sock, proxy, host, port, uri, attempt)
        except BaseException:
            sock.close()
            raise

    def _choose_proxy(self, host: str, port: int, secure: bool) -> Optional[Proxy]:
        address = find_proxy(host, port, secure) if self.proxy is True else self.proxy
        return parse_proxy(address) if isinstance(address, str) else None

    def _wrap(self, sock: socket.socket, uri: WebSocketURI) -> Transport:
        try:
            if not uri.secure:
                return Transport(sock, portable=self.portable)
            return TLSTransport(
                sock,
                _context(self.ssl),
                server_side=False,
                server_hostname=self.server_hostname or uri.host,
                portable=self.portable,
            )
        except BaseException:
            sock.close()
            raise

    def _tunnel(
        self,
        sock: socket.socket,
        proxy: Proxy,
        host: str,
        port: int,
        uri: WebSocketURI,
        attempt: Attempt,
    ) -> Transport:
        """Go through an HTTP proxy, that itself may use TLS."""
        outer = self._to_proxy(sock, proxy, uri.secure)
        try:
            outer.handshake(attempt.deadline)
        except ssl_module.SSLError as exc:
            exc.strerror = f"{exc.strerror} (TLS to the proxy {proxy.host}:{proxy.port})"
            raise
        open_tunnel(outer, proxy, host, port, user_agent=self.user_agent, deadline=attempt.deadline)
        if not isinstance(outer, TLSTransport):
            return self._wrap(sock, uri)
        if not uri.secure:
            return outer
        return NestedTLSTransport(
            outer, _context(self.ssl), server_hostname=self.server_hostname or uri.host
        )

    def _to_proxy(self, sock: socket.socket, proxy: Proxy, nested: bool) -> Transport:
        if proxy.scheme == "http":
            return Transport(sock, portable=self.portable)
        kind = TLSTransport if nested else TunnelTransport
        return kind(
            sock,
            _context(self.proxy_ssl),
            server_side=False,
            server_hostname=self.proxy_server_hostname or proxy.host,
            portable=self.portable,
        )


def check_route(route: Route, secure: bool) -> None:
    """
    Refuse options that contradict each other or the URI.

    Raises:
        InvalidProxy: ``proxy`` is not one.
        TypeError: ``ssl`` is no TLS configuration.
        ValueError: two options do not go together.
    """
    if route.ssl is not None:
        if not secure:
            raise ValueError("ssl argument is incompatible with a ws:// URI; write wss://")
        if not isinstance(route.ssl, (ssl_module.SSLContext, bool)):
            raise TypeError(
                f"ssl must be an SSLContext, not {route.ssl!r}; "
                "make one: ssl.create_default_context(cafile=...)"
            )
    if route.ssl is False or route.proxy_ssl is False:
        raise ValueError("ssl=False isn't possible with TLS; use an SSLContext, or a ws:// URI")
    if not isinstance(route.proxy, str):
        return
    proxy = parse_proxy(route.proxy)
    if route.sock is not None or route.path is not None:
        raise ValueError("proxy argument is incompatible with a socket of your own")
    if proxy.scheme != "https" and route.proxy_ssl is not None:
        raise ValueError(f"proxy_ssl argument is incompatible with a {proxy.scheme}:// proxy")


def _context(option: SSLOption) -> ssl_module.SSLContext:
    if isinstance(option, ssl_module.SSLContext):
        return option
    context = ssl_module.create_default_context()
    # Servers that know both must not choose HTTP/2 (RFC 7301 §3.1).
    context.set_alpn_protocols(["http/1.1"])
    return context


def _connect_unix(path: Path, attempt: Attempt) -> socket.socket:
    assert path is not None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(attempt.deadline.remaining())
        sock.connect(os.fspath(path))
    except BaseException:
        sock.close()
        raise
    return sock
