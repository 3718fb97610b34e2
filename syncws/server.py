"""The server: a ``socketserver.ThreadingTCPServer`` of blocking connections."""

from __future__ import annotations

import collections
import contextlib
import http
import logging
import os
import platform
import signal
import socket
import socketserver
import ssl as ssl_module
import sys
import threading
import traceback
import uuid
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Any, Callable, Literal, NamedTuple, Optional, Union

from .acceptor import Acceptor
from .deadline import Deadline
from .exceptions import ConnectionClosed
from .handshake import (
    SAME_HOST,
    Origins,
    ServerHandshake,
    reject,
)
from .opcodes import Close, CloseCode, State
from .options import Compression, MaxSize, Options, choose_extensions, make_options
from .protocol import own_close
from .rates import RateLimit
from .sending import LoggerLike
from .server_connection import (
    ProcessRequest,
    ProcessResponse,
    SelectSubprotocol,
    ServerConnection,
    Settings,
    set_default,
)
from .transport import TLSTransport, Transport
from .version import __version__

__all__ = ["RunningHandler", "Server", "ServerConnection", "ShutdownReport", "serve", "unix_serve"]

SERVER_HEADER = f"Python/{platform.python_version()} syncws/{__version__}"

# socketserver's 5 loses connections under load; the kernel cuts this to its own limit.
BACKLOG = 1024

# What clients over max_connections are told to wait.
RETRY_AFTER = 5  # seconds

# How late a signal may be noticed that comes just before a wait.
SIGNAL_SLICE = 0.25  # seconds

# Of the time for a shutdown, what is kept for handlers to notice that their connections
# were aborted.
ABORT_SHARE = 0.25
ABORT_RESERVE = 0.5  # seconds

Timeout = Union[float, Literal["close_timeout"], None]


class RunningHandler(NamedTuple):
    """A handler that had not ended when a shutdown did: its thread, connection and stack."""

    thread: threading.Thread
    connection: Optional[ServerConnection]
    stack: str


class ShutdownReport(NamedTuple):
    """
    How a shutdown went.

    Attributes:
        closed: connections that ended by themselves in time.
        aborted: connections that had to be cut off.
        running: handlers that were still running at the end.
    """

    closed: int
    aborted: int
    running: list[RunningHandler]


class Server(socketserver.ThreadingTCPServer):
    """
    A WebSocket server, as :func:`serve` makes it.

    It listens from the beginning, and serves in :meth:`serve_forever` or, in a thread
    of its own, after :meth:`start`. As a context manager it shuts down gracefully at the end.

    Thread safety: all methods may be called from any thread. ``close()`` and ``shutdown()`` may
    also be called from a signal handler, from a handler's thread, repeatedly, and before serving.

    Args:
        sock: listening socket; taken over.
        handler: called with each connection, in its own thread.
        settings, options: what :func:`serve` was given.
        create_connection: class of the connections.
        logger: for the server and its connections.
        unlink: path of a Unix socket to remove at the end.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = BACKLOG

    def __init__(
        self,
        sock: socket.socket,
        handler: Callable[[Any], None],
        *,
        settings: Settings,
        options: Options,
        create_connection: type[ServerConnection],
        logger: LoggerLike,
        unlink: Optional[str] = None,
    ) -> None:
        socketserver.BaseServer.__init__(self, sock.getsockname(), handler)  # type: ignore[arg-type] # finish_request() is ours, and it takes a function
        self.socket = sock
        self.address_family = sock.family
        self.handler = handler
        self.settings = settings
        self.options = options
        self.create_connection = create_connection
        self.logger = logger
        self._unlink = unlink
        self._acceptor = Acceptor(sock, self._accept_one, logger)
        # Threads with their connections, from before a thread starts until it ends.
        # Changed and copied by single, atomic operations.
        self._handlers: dict[threading.Thread, Optional[ServerConnection]] = {}
        # Held while it serves, from before the thread of start() starts; never waited for.
        self._serving_lock = threading.Lock()
        self._serving: Optional[int] = None  # identity of the thread that serves
        self._closing = False
        self._close_with: Optional[Close] = None  # what connections are closed with
        self._asked_to_close: set[uuid.UUID] = set()
        self._aborted: set[uuid.UUID] = set()
        # Identities of the threads in wait_closed(), once for each call.
        self._waiting: list[int] = []
        self._signalled = False
        self._open_parts = [sock]  # emptied by the one thread that closes them
        # Accepting thread only: whether it was said in the log.
        self._thread_failing = False
        self._over_limit = False
        self._progress = _Notifier()

    # What it is

    @property
    def is_closing(self) -> bool:
        """Whether ``close()`` or ``shutdown()`` was called."""
        return self._closing

    @property
    def connections(self) -> set[ServerConnection]:
        """The connections that are open now, for :func:`broadcast` for example."""
        return {conn for conn in list(self._handlers.values()) if conn is not None and conn.is_open}

    def stats(self) -> dict[str, int]:
        """Numbers of connections: ``open``; ``total`` with those opening or closing."""
        return {"open": len(self.connections), "total": len(self._handlers)}

    # Serving

    def serve_forever(self, poll_interval: float = 0.5, *, signals: bool = True) -> None:
        """
        Accept connections until the server is closed.

        Args:
            poll_interval: not used, nothing is polled; kept for the sake of ``socketserver``.
            signals: in the main thread, let SIGINT (Ctrl-C) and SIGTERM shut the server
                down gracefully; this method then returns after the shutdown. A second
                signal acts as it would without. Elsewhere, no effect.

        Raises:
            RuntimeError: the server is serving already.
        """
        self._begin_serving()
        self._serve(signals)

    def _begin_serving(self) -> None:
        if not self._serving_lock.acquire(blocking=False):
            raise RuntimeError("the server is serving already")

    def _serve(self, signals: bool = False) -> None:
        self._serving = threading.get_ident()
        try:
            with self._closing_on_signals(signals):
                if not self._closing:
                    address = _format_address(self.server_address)
                    self.logger.info("server listening on %s", address)
                    self._acceptor.run()
        finally:
            self._serving = None
            try:
                if self._closing:
                    self.server_close()
            finally:
                self._serving_lock.release()
                self._progress.notify()
        if self._signalled:
            self.wait_closed()

    @contextlib.contextmanager
    def _closing_on_signals(self, enabled: bool) -> Iterator[None]:
        if not enabled or threading.current_thread() is not threading.main_thread():
            yield
            return
        previous: dict[int, Any] = {}

        def restore() -> None:
            while previous:
                signal.signal(*previous.popitem())

        def on_signal(signum: int, frame: Any) -> None:
            restore()
            self._signalled = True
            self.close()

        for signum in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(signum)
            if handler is not None:  # None: installed by C code, and can't be restored
                previous[signum] = handler
                signal.signal(signum, on_signal)
        try:
            yield
        finally:
            restore()

    def start(self) -> Server:
        """
        Serve in a background thread; returns the server, which listens already.

        Raises:
            RuntimeError: the server is serving already, or no thread can be started.
        """
        self._begin_serving()
        try:
            threading.Thread(target=self._serve, name="syncws-server", daemon=True).start()
        except BaseException:
            self._serving_lock.release()
            raise
        return self

    # Hooks of socketserver

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        return self.socket.accept()

    def _accept_one(self) -> None:
        request, client_address = self.get_request()
        try:
            if self.verify_request(request, client_address):
                self.process_request(request, client_address)
            else:
                self.shutdown_request(request)
        except Exception:
            # Of a subclass; as in socketserver, it costs this connection only.
            self.handle_error(request, client_address)
            self.shutdown_request(request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Start a thread for an accepted connection; never raises for want of one."""
        limit = self.settings.max_connections
        if limit is not None and len(self._handlers) >= limit:
            self._refuse_over_limit(request, limit)
            return
        self._over_limit = False
        thread = threading.Thread(
            target=self.process_request_thread,
            args=(request, client_address),
            name="syncws-connection",
            daemon=self.daemon_threads,
        )
        self._handlers[thread] = None
        try:
            thread.start()
        except BaseException as exc:
            if thread.ident is None:
                del self._handlers[thread]
                self.shutdown_request(request)
            if not isinstance(exc, (RuntimeError, MemoryError)):
                raise
            if not self._thread_failing:
                self._thread_failing = True
                self.logger.error("connection dropped: %s", exc)
        else:
            self._thread_failing = False

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Live the life of a connection. Runs in its thread."""
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self._handlers.pop(threading.current_thread(), None)
            if self._closing:
                self._progress.notify()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the opening handshake, run the handler, close."""
        connection = self._connect(request)
        self._handlers[threading.current_thread()] = connection
        if self._close_with is not None:
            # close() may have looked before this connection was there to be seen.
            connection.cut_handshake()
        opened = False
        try:
            opened = connection.handshake(self.settings)
        except OSError as exc:
            connection.logger.info("opening handshake failed: %s", exc)
        finally:
            if not opened:
                connection.discard()
        if opened:
            # close() has seen this connection as open, or it is seen here that it was called.
            if self._close_with is not None:
                self._close_connection(connection, self._close_with)
            self._run_handler(connection)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an exception that nobody expected."""
        self.logger.error("unexpected internal error", exc_info=True)

    def _connect(self, sock: socket.socket) -> ServerConnection:
        try:
            portable = self.create_connection.portable_io
            if self.settings.ssl is None:
                transport = Transport(sock, portable=portable)
            else:
                transport = TLSTransport(
                    sock, self.settings.ssl, server_side=True, portable=portable
                )
            return self.create_connection(transport, self.options, self.logger, self)
        except BaseException:
            sock.close()
            raise

    def _run_handler(self, connection: ServerConnection) -> None:
        """Run the user's code, and close as it ended."""
        code = CloseCode.INTERNAL_ERROR
        try:
            self.handler(connection)
            code = CloseCode.NORMAL_CLOSURE
        except ConnectionClosed as exc:
            # Its own connection: how peers go is not an error of the handler.
            if connection.is_open:
                connection.logger.error("connection handler failed", exc_info=True)
            else:
                connection.logger.info("connection closed: %s", exc)
        except Exception:
            connection.logger.error("connection handler failed", exc_info=True)
        finally:
            # What close() asked the service thread for comes first, if that is still to do it.
            close = self._close_with or Close(code)
            connection.close(close.code, close.reason)
            if connection.was_cut and connection.id in self._asked_to_close:
                self._aborted.add(connection.id)

    def _refuse_over_limit(self, request: socket.socket, limit: int) -> None:
        if not self._over_limit:
            self._over_limit = True
            self.logger.warning("connections refused: there are %d, max_connections", limit)
        answer = b""
        if self.settings.ssl is None:
            response = reject(http.HTTPStatus.SERVICE_UNAVAILABLE, "Too many connections.\n")
            response.headers["Retry-After"] = str(RETRY_AFTER)
            set_default(response, "Server", self.settings.server_header)
            answer = response.serialize()
        self._acceptor.refuse(request, answer)

    # Closing

    def close(
        self,
        close_connections: bool = True,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
    ) -> None:
        """
        Stop accepting connections, and start closing those that there are. Never blocks.

        Args:
            close_connections: whether to close them; otherwise they go on until
                their handlers end.
            code: close code for them.
            reason: close reason, at most 123 bytes in UTF-8.

        Raises:
            ProtocolError: the code or the reason is not allowed.
        """
        close = own_close(code, reason)
        first = not self._closing
        self._closing = True
        # It may run in a signal handler, above anything: no lock is taken from here on.
        self._acceptor.stop()
        serving = self._serving
        if serving is None:
            self.server_close()
        elif serving == threading.get_ident():
            # The accept loop is interrupted and still has the descriptor in use. Where this
            # works, the kernel refuses connections from here on; else it does when the loop ends.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        if close_connections and self._close_with is None:
            self._close_with = close
            self._close_connections(close)
        if first:
            self._progress.notify()

    def _close_connections(self, close: Close) -> None:
        for connection in list(self._handlers.values()):
            if connection is None:
                continue
            if connection.state is State.CONNECTING:
                connection.cut_handshake()
            else:
                self._close_connection(connection, close)

    def _close_connection(self, connection: ServerConnection, close: Close) -> None:
        self._asked_to_close.add(connection.id)
        connection.request_close(close)

    def wait_closed(self, timeout: Timeout = "close_timeout") -> ShutdownReport:
        """
        Wait until the server is closed and its handlers have ended, but the calling one.

        Connections that are left shortly before the deadline are aborted, if they were to
        be closed.

        Args:
            timeout: seconds; ``None`` waits without limit; default: ``close_timeout``.

        Returns:
            What was closed and aborted, and which handlers are still running.
        """
        if timeout == "close_timeout":
            timeout = self.options.close_timeout
        reserve = 0.0 if timeout is None else min(ABORT_RESERVE, timeout * ABORT_SHARE)
        deadline = Deadline(timeout)
        graceful = Deadline(None if timeout is None else timeout - reserve)
        me = threading.get_ident()
        self._waiting.append(me)
        self._progress.notify()  # other waiting threads need not wait for this one
        try:
            if not self._progress.wait_until(self._has_ended, graceful):
                if self._close_with is not None:
                    self._abort_connections()
                self._progress.wait_until(self._has_ended, deadline)
        finally:
            self._waiting.remove(me)
        closed = len(self._asked_to_close - self._aborted)
        return ShutdownReport(closed, len(self._aborted), self._running_handlers())

    def shutdown(  # type: ignore[override] # socketserver's returns nothing
        self,
        close_connections: bool = True,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        *,
        timeout: Timeout = "close_timeout",
    ) -> ShutdownReport:
        """
        Close the server: :meth:`close`, then :meth:`wait_closed`.

        Close frames go to all connections at once, then one deadline holds for
        all. Handshakes under way are answered with 503.

        Args:
            close_connections: whether to close connections, or let them end by themselves.
            code: close code for them.
            reason: close reason, at most 123 bytes in UTF-8.
            timeout: seconds; ``None`` waits without limit; default: ``close_timeout``.

        Returns:
            What was closed and aborted, and which handlers are still running.

        Raises:
            ProtocolError: the code or the reason is not allowed.
        """
        self.close(close_connections, code, reason)
        return self.wait_closed(timeout)

    def server_close(self) -> None:
        """Close the listening socket, and nothing else; see :meth:`shutdown`."""
        try:
            part = self._open_parts.pop()
        except IndexError:
            return
        try:
            self.socket.close()
            self._acceptor.close()
        except BaseException:
            self._open_parts.append(part)  # Ctrl-C: the next call does the rest
            raise
        if self._unlink is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._unlink)

    def _has_ended(self) -> bool:
        """
        Whether no thread of the server runs.

        For one of these threads itself, those that wait for the end like it don't count:
        they would wait for each other.
        """
        left: set[object] = {thread.ident or thread for thread in list(self._handlers)}
        if self._serving_lock.locked():
            left.add(self._serving)
        if threading.get_ident() in left:
            left.difference_update(self._waiting)
        return not left

    def _abort_connections(self) -> None:
        for connection in list(self._handlers.values()):
            if connection is not None and not connection.is_gone:
                self._aborted.add(connection.id)
                connection.abort()

    def _running_handlers(self) -> list[RunningHandler]:
        me = threading.current_thread()
        running = []
        frames = sys._current_frames()
        # This function's own would refer to itself, and so keep all the others, with their
        # variables, until the garbage collector comes by.
        del frames[threading.get_ident()]
        for thread, connection in list(self._handlers.items()):
            frame = frames.get(thread.ident or 0)
            if thread is not me and frame is not None:
                stack = "".join(traceback.format_stack(frame))
                running.append(RunningHandler(thread, connection, stack))
        return running

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.shutdown()


class _Notifier:
    """
    A condition without a lock, so that a signal handler may wait for it.

    The thread that it interrupted may be anywhere, in this class too.
    """

    def __init__(self) -> None:
        self._waiters: collections.deque[threading.Lock] = collections.deque()

    def notify(self) -> None:
        """Have all waiting threads look again."""
        for _ in range(len(self._waiters)):
            with contextlib.suppress(IndexError):
                self._waiters.popleft().release()

    def wait_until(self, done: Callable[[], bool], deadline: Deadline) -> bool:
        """Wait until ``done()`` is true, or the deadline; tell which."""
        while True:
            waiter = threading.Lock()
            waiter.acquire()
            # In the queue before looking: a change after the look releases it.
            self._waiters.append(waiter)
            try:
                if done():
                    return True
                remaining = deadline.remaining()
                if remaining == 0:
                    return False
                # In slices: a signal that came just before does not end the wait for a lock.
                waiter.acquire(timeout=min(remaining or SIGNAL_SLICE, SIGNAL_SLICE))
            finally:
                with contextlib.suppress(ValueError):  # released already
                    self._waiters.remove(waiter)


def serve(
    handler: Callable[[ServerConnection], None],
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
    rate_limit: Optional[RateLimit] = None,
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
        handler: takes the :class:`ServerConnection`.
        host: name or address to listen on; ``None`` or ``""`` for all interfaces.
        port: 0 or ``None`` for any; see ``server.server_address``.
        sock: listening socket to use instead of host and port.
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
            the server is closing.
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
        read_limit: bytes of one read.
        write_limit: bytes that may wait for a slow peer before ``broadcast()`` applies its
            policy and ``send()`` waits for room.
        max_connections: connections at a time; others are answered with 503.
        rate_limit: how much a client may send per second; ``None`` for no limit.
        logger: default: ``logging.getLogger("syncws.server")``.
        create_connection: subclass of :class:`ServerConnection` to use.
        kwargs: further arguments of :func:`socket.create_server`, such as ``reuse_port=True``.

    Raises:
        OSError: the address can't be listened on.
        TypeError, ValueError: an option is wrong.
    """
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
        max_connections=max_connections,
    )
    # Mistakes show here, not when the first client comes.
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
    unix_path = kwargs.pop("unix_path", None)
    return Server(
        _listen(host, port, sock, unix_path, kwargs),
        handler,
        settings=settings,
        options=options,
        create_connection=create_connection or ServerConnection,
        logger=logger or logging.getLogger("syncws.server"),
        unlink=unix_path if sock is None else None,
    )


def unix_serve(
    handler: Callable[[ServerConnection], None],
    path: Union[str, bytes, os.PathLike[str], None] = None,
    **kwargs: Any,
) -> Server:
    """
    Make a server that listens on a Unix socket, as behind a reverse proxy.

    Args:
        handler: takes the :class:`ServerConnection`.
        path: of the socket, which is removed when the server is closed; ``None`` with ``sock``.
        kwargs: as for :func:`serve`.

    Raises:
        ValueError: neither ``path`` nor ``sock`` is given.
    """
    if path is None and kwargs.get("sock") is None:
        raise ValueError("missing path argument")
    return serve(handler, unix_path=None if path is None else os.fspath(path), **kwargs)


def _listen(
    host: Optional[str],
    port: Optional[int],
    sock: Optional[socket.socket],
    unix_path: Optional[str],
    kwargs: dict[str, Any],
) -> socket.socket:
    if sock is not None:
        for name, value in (("host", host), ("port", port), ("path", unix_path)):
            if value is not None:
                raise ValueError(f"{name} is incompatible with sock")
        return sock
    kwargs.setdefault("backlog", BACKLOG)
    if unix_path is not None:
        return socket.create_server(unix_path, family=socket.AF_UNIX, **kwargs)
    if not host and "family" not in kwargs and socket.has_dualstack_ipv6():
        kwargs.update(family=socket.AF_INET6, dualstack_ipv6=True)
    elif host and ":" in host:
        kwargs.setdefault("family", socket.AF_INET6)
    return socket.create_server((host or "", port or 0), **kwargs)


def _format_address(address: Any) -> str:
    if not isinstance(address, tuple):
        return str(address)
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
