"""The client: a blocking connection to a server."""

from __future__ import annotations

import logging
import os
import platform
import socket
import ssl as ssl_module
from collections.abc import Sequence
from typing import Any, Optional, Union

from .connection import Connection
from .deadline import Deadline
from .handshake import ClientHandshake
from .headers import HeadersLike
from .http11 import Response, ResponseParser
from .options import Compression, MaxSize, Options, choose_extensions, make_options
from .sending import LoggerLike
from .transport import PORTABLE_IO, TLSTransport, Transport
from .uri import WebSocketURI, parse_uri
from .version import __version__

__all__ = ["ClientConnection", "connect", "unix_connect"]

USER_AGENT = f"Python/{platform.python_version()} syncws/{__version__}"


class ClientConnection(Connection):
    """A connection to a server, as :func:`connect` returns it."""

    is_client = True

    # What sockets can do is asked of the platform; a subclass may insist on less.
    portable_io = PORTABLE_IO

    def __init__(self, transport: Transport, options: Options, logger: LoggerLike) -> None:
        super().__init__(transport, options, logger)

    def handshake(self, handshake: ClientHandshake, deadline: Deadline) -> None:
        """
        Do the opening handshake; called by :func:`connect`.

        Raises:
            InvalidHandshake: the server refused, or broke the protocol.
            OSError: the network or TLS failed, or it took too long.
        """
        transport = self._transport
        transport.handshake(deadline)
        self.request = handshake.request
        transport.send_before(deadline, handshake.request.serialize())
        parser = ResponseParser()
        self.response = self._read_response(parser, deadline)
        handshake.check(self.response)
        self.subprotocol = handshake.subprotocol
        self._open(handshake.extensions, parser.leftover)

    def _read_response(self, parser: ResponseParser, deadline: Deadline) -> Response:
        while True:
            data = self._transport.receive_before(deadline, self.options.read_limit)
            response = parser.feed(data) if data else parser.feed_eof()
            if response is not None:
                return response


def connect(
    uri: str,
    *,
    # TCP/TLS
    sock: Optional[socket.socket] = None,
    ssl: Optional[ssl_module.SSLContext] = None,
    server_hostname: Optional[str] = None,
    # WebSocket
    origin: Optional[str] = None,
    extensions: Optional[Sequence[Any]] = None,
    subprotocols: Optional[Sequence[str]] = None,
    compression: Compression = "deflate",
    # HTTP
    additional_headers: Optional[HeadersLike] = None,
    user_agent_header: Optional[str] = USER_AGENT,
    # Timeouts
    open_timeout: Optional[float] = 10,
    ping_interval: Optional[float] = 20,
    ping_timeout: Optional[float] = 20,
    close_timeout: Optional[float] = 10,
    send_timeout: Optional[float] = 30,
    # Limits
    max_size: MaxSize = 2**20,
    max_empty_fragments: Optional[int] = 1000,
    max_queue: MaxSize = 16,
    max_queue_bytes: Optional[int] = 2**22,
    read_limit: int = 2**16,
    write_limit: int = 2**16,
    # Logging
    logger: Optional[LoggerLike] = None,
    # Escape hatch
    create_connection: Optional[type[ClientConnection]] = None,
    **kwargs: Any,
) -> ClientConnection:
    """
    Connect to a WebSocket server; returns the open connection.

    It may be used with ``with``, which closes it, or without::

        with connect("ws://localhost:8765") as connection:
            connection.send("Hello")
            print(connection.recv())

    Args:
        uri: ``ws://`` or ``wss://``, with ``user:password@`` for basic authentication.
        sock: connected socket to use; taken over.
        ssl: TLS configuration; default: that of :func:`ssl.create_default_context`.
        server_hostname: name to check the certificate against; default: that of the URI.
        origin: value of the Origin header.
        extensions: factories of further extensions.
        subprotocols: in order of preference.
        compression: ``"deflate"``, ``None``, or a configured :class:`PerMessageDeflate`.
        additional_headers: further headers of the request.
        user_agent_header: value of the User-Agent header; ``None`` for none.
        open_timeout: seconds for connecting, TLS and opening handshake together.
        ping_interval: seconds between keepalive pings; ``None`` for none.
        ping_timeout: seconds without life after a ping until the connection is failed with 1011;
            ``None`` for never.
        close_timeout: seconds for the closing handshake and the end of TCP.
        send_timeout: seconds without progress until a blocked ``send()`` fails the connection.
        max_size: bytes of a message, or a pair: of a message, of a fragment. Over it: 1009.
        max_empty_fragments: frames without payload in a message; ``None`` for no limit. Over
            it: 1008.
        max_queue: messages that may wait for the application; beyond, TCP holds the peer back.
        max_queue_bytes: the same in bytes; one message always fits.
        read_limit: bytes of one read.
        write_limit: bytes that may wait for a slow peer before ``send()`` waits for room.
        logger: default: ``logging.getLogger("syncws.client")``.
        create_connection: subclass of :class:`ClientConnection` to use.
        kwargs: further arguments of :func:`socket.create_connection`, such as ``source_address``.

    Raises:
        InvalidURI: the URI is not a WebSocket URI.
        InvalidHandshake: the server refused, or broke the protocol; see its subclasses.
        TimeoutError: it took longer than ``open_timeout``.
        OSError: the connection failed.
        ssl.SSLError: TLS failed.
    """
    ws_uri = parse_uri(uri)
    if not ws_uri.secure and ssl is not None:
        raise ValueError("ssl argument is incompatible with a ws:// URI")
    handshake = ClientHandshake(
        ws_uri,
        origin=origin,
        extensions=choose_extensions(compression, extensions),
        subprotocols=subprotocols,
        additional_headers=additional_headers,
        user_agent_header=user_agent_header,
    )
    options = make_options(
        max_size=max_size,
        max_empty_fragments=max_empty_fragments,
        max_queue=max_queue,
        max_queue_bytes=max_queue_bytes,
        read_limit=read_limit,
        write_limit=write_limit,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        close_timeout=close_timeout,
        send_timeout=send_timeout,
    )
    create = create_connection or ClientConnection
    deadline = Deadline(open_timeout)
    sock = _open_socket(ws_uri, sock, deadline, kwargs)
    try:
        transport = _make_transport(sock, ws_uri, ssl, server_hostname, create.portable_io)
        connection = create(transport, options, logger or logging.getLogger("syncws.client"))
        connection.handshake(handshake, deadline)
    except BaseException:
        sock.close()
        raise
    return connection


def unix_connect(
    path: Union[str, bytes, os.PathLike[str], None] = None,
    uri: Optional[str] = None,
    **kwargs: Any,
) -> ClientConnection:
    """
    Connect to a server that listens on a Unix socket.

    Args:
        path: of the socket; ``None`` with ``sock``.
        uri: for the Host header and the path; default: ``ws://localhost/``, or ``wss://``
            with ``ssl``.
        kwargs: as for :func:`connect`, which also says what is raised.
    """
    if path is None and kwargs.get("sock") is None:
        raise ValueError("missing path argument")
    if path is not None and kwargs.get("sock") is not None:
        raise ValueError("path is incompatible with sock")
    if uri is None:
        uri = "ws://localhost/" if kwargs.get("ssl") is None else "wss://localhost/"
    return connect(uri, unix_path=path, **kwargs)


def _open_socket(
    uri: WebSocketURI, sock: Optional[socket.socket], deadline: Deadline, kwargs: dict[str, Any]
) -> socket.socket:
    unix_path = kwargs.pop("unix_path", None)
    if sock is not None:
        return sock
    if unix_path is None:
        return _connect_to(uri.host, uri.port, deadline, kwargs)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(deadline.remaining())
        sock.connect(os.fspath(unix_path))
    except BaseException:
        sock.close()
        raise
    return sock


def _connect_to(host: str, port: int, deadline: Deadline, kwargs: dict[str, Any]) -> socket.socket:
    """Connect to the first address of a host that answers, all under one deadline."""
    error: Optional[OSError] = None
    host, port = kwargs.pop("address", (host, port))
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        if deadline.expired():
            raise TimeoutError(f"timed out while connecting to {host}") from error
        try:
            options = {"timeout": deadline.remaining(), **kwargs}
            return socket.create_connection((_numeric_host(address), port), **options)
        except OSError as exc:
            error = exc
    raise error or OSError(f"no address found for {host}")


def _numeric_host(address: tuple[Any, ...]) -> str:
    """The host of a resolved address, with the zone of a link-local one (RFC 4007 §11)."""
    host = str(address[0])
    zone = address[3] if len(address) == 4 else 0
    return f"{host}%{zone}" if zone and "%" not in host else host


def _make_transport(
    sock: socket.socket,
    uri: WebSocketURI,
    ssl: Optional[ssl_module.SSLContext],
    server_hostname: Optional[str],
    portable: bool,
) -> Transport:
    if not uri.secure:
        return Transport(sock, portable=portable)
    return TLSTransport(
        sock,
        ssl or ssl_module.create_default_context(),
        server_side=False,
        server_hostname=server_hostname or uri.host,
        portable=portable,
    )
