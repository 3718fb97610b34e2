"""Making servers: where they listen, and the options that they take."""

from __future__ import annotations

import logging
import os
import platform
import socket
import ssl as ssl_module
from collections.abc import Mapping, Sequence
from typing import Any, Callable, Literal, Optional, Union

from .admission import make_limits
from .forwarded import TrustedProxies
from .handshake import SAME_HOST, Origins, ServerHandshake
from .listening import SOCKET_OPTIONS, listen
from .mistakes import check_handler, check_logger, check_options, check_settings
from .options import Compression, MaxSize, choose_extensions, make_options
from .paths import Paths, after
from .rates import RateLimit
from .sending import LoggerLike
from .server import Server
from .server_connection import (
    ProcessRequest,
    ProcessResponse,
    SelectSubprotocol,
    ServerConnection,
    Settings,
)
from .threads import Affinity, make_thread_options
from .version import __version__

__all__ = ["serve", "unix_serve"]

SERVER_HEADER = f"Python/{platform.python_version()} syncws/{__version__}"


Handler = Callable[[ServerConnection], None]


def serve(
    handler: Union[Handler, Mapping[str, Handler]],
    host: Optional[str] = None,
    port: Optional[int] = None,
    *,
    # TCP/TLS
    sock: Optional[socket.socket] = None,
    ssl: Optional[ssl_module.SSLContext] = None,
    # WebSocket
    origins: Origins = SAME_HOST,
    extensions: Optional[Sequence[Any]] = None,
    subprotocols: Optional[Sequence[str]] = None,
    select_subprotocol: Optional[SelectSubprotocol] = None,
    compression: Compression = "deflate",
    # HTTP
    process_request: Optional[ProcessRequest] = None,
    process_response: Optional[ProcessResponse] = None,
    server_header: Optional[str] = SERVER_HEADER,
    health: Optional[str] = None,
    # Proxies
    trusted_proxies: Optional[Sequence[str]] = None,
    proxy_protocol: bool = False,
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
    max_connections: Optional[int] = 10_000,
    max_connections_per_ip: Optional[int] = None,
    max_handshakes: Optional[int] = 512,
    rate_limit: Optional[RateLimit] = None,
    # Threads
    affinity: Affinity = None,
    stack_size: Optional[int] = None,
    reuse_threads: bool = True,
    # Logging
    logger: Optional[LoggerLike] = None,
    # Escape hatch
    create_connection: Optional[type[ServerConnection]] = None,
    **kwargs: Any,
) -> Server:
    """
    Make a server that listens on ``host`` and ``port``.

    It accepts connections once it serves::

        def echo(connection):
            for message in connection:
                connection.send(message)

        with serve(echo, "localhost", 8765) as server:
            server.serve_forever()

    or, in the background, ``server = serve(...).start()``.

    ``handler`` is called for each connection, in a thread of its own. When it returns, the
    connection is closed with 1000; when it raises, the traceback is logged and the connection
    closed with 1011.

    Args:
        handler: takes the :class:`ServerConnection`. Or a dictionary of such functions by path,
            ``{"/chat": chat, "/feed": feed}``: other paths are answered with 404.
        host: name or address to listen on; ``None`` or ``""`` for all interfaces.
        port: 0 or ``None`` for any; see ``server.server_address``.
        sock: listening socket to use instead of host and port; taken over. Other
            processes may listen on it, too.
        ssl: TLS configuration; ``None`` for plain connections.
        origins: whose pages may connect: ``"same-host"``, or a list of origins, patterns of
            :func:`re.compile`, ``"same-host"``, and ``None`` for requests without an
            Origin header; ``None`` in place of a list allows all.
        extensions: factories of further extensions.
        subprotocols: in order of preference.
        select_subprotocol: called with the connection and the offered subprotocols; returns one of
            them, or ``None``.
        compression: ``"deflate"``, ``None``, or a configured :class:`PerMessageDeflate`.
        process_request: called with the connection and the :class:`Request`; returns a
            :class:`Response` to answer any HTTP request with, or ``None`` to go on.
        process_response: called with the connection, request and response; returns another
            response, or ``None`` to send that one, which may be changed in place.
        server_header: value of the Server header; ``None`` for none.
        health: path, such as ``"/healthz"``, that is answered with 200, and with 503 once
            the server is closing or draining.
        trusted_proxies: addresses, networks such as ``"10.0.0.0/8"``, and ``"unix"``, whose
            ``Forwarded`` and ``X-Forwarded-For``, ``-Proto`` and ``-Host`` headers are believed:
            ``connection.remote_address`` is the client's then. ``None`` for none.
        proxy_protocol: whether connections of trusted proxies start with a header of
            HAProxy's PROXY protocol, version 1 or 2.
        open_timeout: seconds for TLS and opening handshake together.
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
        read_limit: bytes of one read, besides the header of a frame.
        write_limit: bytes that may wait for a slow peer before ``broadcast()`` applies its
            policy and ``send()`` waits for room.
        max_connections: connections at a time, those still opening included; others are
            answered with 503.
        max_connections_per_ip: the same for one IPv4 address, or 64 bits of an IPv6 address. For
            clients of trusted proxies this counts when their request was read.
        max_handshakes: opening handshakes that wait for the client; over it, the one that has
            waited longest is dropped, with 503 if it had begun its request.
        rate_limit: how much a client may send per second; ``None`` for no limit.
        affinity: which cores the threads of connections run on: ``"auto"`` for one that all of
            them share, which is much faster where Python has a GIL and handlers do little else
            than receive and send; or the numbers of some cores; ``None`` leaves it to the system.
            What a handler starts, threads and processes, inherits it. On Linux.
        stack_size: bytes of stack for the thread of a connection, for handlers that need more or
            for a process with little address space; ``None`` for the default of the platform. Only
            what is used of it takes memory.
        reuse_threads: whether a thread whose connection has ended may take the next one, if that
            comes within 20 milliseconds: opening handshakes cost much less under load then. Context
            variables are fresh for each; whatever else belongs to a thread, a later handler may
            find: :class:`threading.local`, or a signal mask. ``False``: a thread for each.
        logger: default: ``logging.getLogger("syncws.server")``.
        create_connection: subclass of :class:`ServerConnection` to use.
        kwargs: further arguments of :func:`socket.create_server`, such as ``reuse_port=True``,
            for several processes on one port.

    Raises:
        OSError: the address can't be listened on; says what to do about it.
        TypeError, ValueError: an option is wrong.
        NotImplementedError: threads can't choose cores on this platform.
    """
    unix_path = kwargs.pop("unix_path", None)
    check_options("serve", kwargs, SOCKET_OPTIONS, serve.__kwdefaults__ or ())
    settings = Settings(
        ssl=ssl,
        origins=origins,
        extensions=choose_extensions(compression, extensions),
        subprotocols=subprotocols,
        select_subprotocol=select_subprotocol,
        process_request=process_request,
        process_response=process_response,
        server_header=server_header,
        health=health,
        open_timeout=open_timeout,
        trusted=TrustedProxies(trusted_proxies),
        proxy_protocol=proxy_protocol,
    )
    # Mistakes show here, not when the first client comes.
    check_settings(settings)
    check_logger(logger)
    if isinstance(handler, Mapping):
        paths = Paths(handler)
        for function in handler.values():
            check_handler(function)
        handler = paths
        settings = settings._replace(process_request=after(process_request, paths.choose))
    else:
        check_handler(handler)
    if proxy_protocol and not settings.trusted:
        raise ValueError(
            "proxy_protocol needs trusted_proxies: who may say where connections come from"
        )
    threads = make_thread_options(affinity, stack_size, reuse_threads)
    limits = make_limits(max_connections, max_connections_per_ip, max_handshakes)
    ServerHandshake(origins=origins, extensions=settings.extensions, subprotocols=subprotocols)
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
        rate_limit=rate_limit,
    )
    shared: Optional[Literal["socket", "port"]] = None
    # A socket that is handed in may be one of several that share a port.
    if sock is not None or kwargs.get("reuse_port"):
        shared = "port" if kwargs.get("reuse_port") else "socket"
    if sock is not None:
        kwargs.pop("reuse_port", None)
        _check_alone({"host": host, "port": port, "path": unix_path, **kwargs})
    return Server(
        listen(host, port, unix_path, kwargs) if sock is None else sock,
        handler,
        settings=settings,
        limits=limits,
        options=options,
        create_connection=create_connection or ServerConnection,
        logger=logger or logging.getLogger("syncws.server"),
        unlink=unix_path if sock is None else None,
        shared=shared,
        threads=threads,
    )


def _check_alone(others: Mapping[str, Any]) -> None:
    """A socket that is handed in listens already."""
    for name, value in others.items():
        if value is not None:
            raise ValueError(f"{name} is incompatible with sock")


def unix_serve(
    handler: Union[Handler, Mapping[str, Handler]],
    path: Union[str, bytes, os.PathLike[str], None] = None,
    **kwargs: Any,
) -> Server:
    """
    Make a server that listens on a Unix socket, as behind a reverse proxy.

    Args:
        handler: as for :func:`serve`.
        path: of the socket, which is removed when the server is closed; ``None`` with ``sock``.
        kwargs: as for :func:`serve`.

    Raises:
        ValueError: neither ``path`` nor ``sock`` is given.
    """
    if path is None and kwargs.get("sock") is None:
        raise ValueError("missing path argument")
    return serve(handler, unix_path=None if path is None else os.fspath(path), **kwargs)
