"""The client: a blocking connection to a server."""

from __future__ import annotations

import logging
import platform
import socket
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional, Union

from .advice import advising, check_not_http2
from .attempt import Attempt
from .connection import Connection
from .deadline import Deadline
from .exceptions import InvalidStatus, SecurityError
from .handshake import ClientHandshake
from .headers import Headers, HeadersLike, build_host
from .http11 import Response, ResponseParser
from .mistakes import check_headers, check_logger, check_options
from .options import Compression, MaxSize, Options, choose_extensions, make_options
from .redirects import is_same_origin, redirect, without_credentials
from .routes import TCP_OPTIONS, Path, Route, SSLOption, check_route
from .sending import LoggerLike
from .transport import PORTABLE_IO, Transport
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
            if not parser.started:
                check_not_http2(data)
            response = parser.feed(data) if data else parser.feed_eof()
            if response is not None:
                return response


def connect(
    uri: str,
    *,
    # TCP/TLS
    sock: Optional[socket.socket] = None,
    ssl: SSLOption = None,
    server_hostname: Optional[str] = None,
    # WebSocket
    origin: Optional[str] = None,
    extensions: Optional[Sequence[Any]] = None,
    subprotocols: Optional[Sequence[str]] = None,
    compression: Compression = "deflate",
    # HTTP
    additional_headers: Optional[HeadersLike] = None,
    user_agent_header: Optional[str] = USER_AGENT,
    max_redirects: int = 10,
    # Proxies
    proxy: Union[str, bool, None] = True,
    proxy_ssl: SSLOption = None,
    proxy_server_hostname: Optional[str] = None,
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
        ssl: TLS configuration for ``wss://``; ``None`` or ``True``: that of
            :func:`ssl.create_default_context`.
        server_hostname: name to check the certificate against; default: that of the URI.
        origin: value of the Origin header.
        extensions: factories of further extensions.
        subprotocols: in order of preference.
        compression: ``"deflate"``, ``None``, or a configured :class:`PerMessageDeflate`.
        additional_headers: further headers of the request.
        user_agent_header: value of the User-Agent header; ``None`` for none.
        max_redirects: HTTP redirects to follow at most; 0 for none. Credentials (of the URI,
            and Authorization, Cookie and Proxy-Authorization of ``additional_headers``) are not
            sent to another scheme, host or port. ``wss`` never leads to ``ws``.
        proxy: ``True`` takes it from the environment (``https_proxy``, ``no_proxy`` and others),
            or from the operating system; ``None`` connects directly. Otherwise
            ``http://user:password@host:port``, or with ``https``, ``socks4``, ``socks4a``,
            ``socks5`` or ``socks5h``; SOCKS needs the package ``python-socks``. With a socket
            of your own, or a Unix socket, there is no proxy.
        proxy_ssl: TLS configuration for an ``https://`` proxy; as ``ssl``.
        proxy_server_hostname: name to check the proxy's certificate against; default: its host.
        open_timeout: seconds for all of it: finding the addresses, connecting to one, proxy,
            TLS, opening handshake, redirects; ``None`` for no limit.
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
        write_limit: bytes that may wait for a slow peer before ``send()`` waits for room.
        logger: default: ``logging.getLogger("syncws.client")``.
        create_connection: subclass of :class:`ClientConnection` to use.
        kwargs: as for :func:`socket.create_connection`: ``source_address``, a host and port to
            connect from; ``timeout``, seconds for each address of the host at most; ``address``,
            a host and port to connect to instead of those of the URI.

    Raises:
        InvalidURI: the URI is not a WebSocket URI.
        InvalidProxy: the proxy is not one.
        InvalidHandshake: the server refused, or broke the protocol; see its subclasses.
        ProxyError: the proxy refused; an :exc:`InvalidHandshake`.
        SecurityError: there were too many redirects, or one to ``ws``; an
            :exc:`InvalidHandshake`.
        TimeoutError: it took longer than ``open_timeout``.
        OSError: the connection failed.
        ssl.SSLError: TLS failed.
        TypeError: an option is not known, or of a wrong kind.
        ValueError: options contradict each other or the URI, or a redirect leads away from
            the socket or address that was given.
        ImportError: a SOCKS proxy needs ``python-socks``.
    """
    ws_uri = parse_uri(uri)
    if max_redirects < 0:
        raise ValueError(f"max_redirects must be at least 0, not {max_redirects}")
    create = create_connection or ClientConnection
    # Of unix_connect() and of reconnect(); not for applications.
    unix_path, attempt = kwargs.pop("unix_path", None), kwargs.pop("attempt", None)
    if kwargs:
        check_options("connect", kwargs, TCP_OPTIONS, connect.__kwdefaults__ or ())
    check_logger(logger)
    opener = _Opener(
        route=Route(
            sock,
            unix_path,
            ssl,
            server_hostname,
            proxy,
            proxy_ssl,
            proxy_server_hostname,
            user_agent_header,
            create.portable_io,
            kwargs,
        ),
        offer={
            "origin": origin,
            "extensions": choose_extensions(compression, extensions),
            "subprotocols": subprotocols,
            "user_agent_header": user_agent_header,
        },
        create=create,
        options=make_options(
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
        ),
        logger=logger or logging.getLogger("syncws.client"),
    )
    check_route(opener.route, ws_uri.secure)
    try:
        headers = Headers() if additional_headers is None else Headers(additional_headers)
    except (TypeError, ValueError):
        check_headers(additional_headers)
        raise
    return opener.follow(ws_uri, headers, max_redirects, attempt or Attempt(open_timeout))


class _Opener(NamedTuple):
    """The options of ``connect()``, as its steps need them."""

    route: Route
    offer: dict[str, Any]
    create: type[ClientConnection]
    options: Options
    logger: LoggerLike

    def follow(
        self, uri: WebSocketURI, headers: Headers, max_redirects: int, attempt: Attempt
    ) -> ClientConnection:
        """Open a connection, where redirects lead to."""
        opener = self
        for count in range(max_redirects + 1):
            try:
                return opener.open(uri, headers, attempt)
            except InvalidStatus as exc:
                target = redirect(uri, exc.response)
                if target is None or max_redirects == 0:
                    raise
                if count == max_redirects:
                    raise SecurityError(f"more than {max_redirects} redirects") from exc
                opener, headers = opener._redirected(uri, target, headers)
            uri = target
        raise AssertionError  # the last round returns or raises

    def _redirected(
        self, uri: WebSocketURI, target: WebSocketURI, headers: Headers
    ) -> tuple[_Opener, Headers]:
        """Options and headers for a redirect; those of the origin stay there."""
        name = build_host(target.host, target.port, target.secure)
        if self.route.sock is not None:
            raise ValueError(f"cannot follow a redirect to {name} with a socket of your own")
        self.logger.info("%s redirects to %s", uri.host, name)
        if is_same_origin(uri, target):
            return self, headers
        if self.route.is_given:
            raise ValueError(
                f"cannot follow a redirect to {name} with a Unix socket or an explicit address"
            )
        return self._replace(route=self.route._replace(server_hostname=None)), without_credentials(
            headers
        )

    def open(self, uri: WebSocketURI, headers: Headers, attempt: Attempt) -> ClientConnection:
        """Open a connection, and follow no redirect."""
        handshake = ClientHandshake(uri, additional_headers=headers, **self.offer)
        transport = self.route.open(uri, attempt)
        connection: Optional[ClientConnection] = None
        try:
            with attempt.watching(transport.sock), advising(uri):
                connection = self.create(transport, self.options, self.logger)
                connection.handshake(handshake, attempt.deadline)
        except BaseException:
            if connection is not None and connection.is_open:
                connection.abort()  # the service thread looks after it already
            else:
                transport.close()
            raise
        return connection


def unix_connect(
    path: Path = None,
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
