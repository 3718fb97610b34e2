"""The server: a ``socketserver.ThreadingTCPServer`` of blocking connections."""

from __future__ import annotations

import collections
import contextlib
import functools
import logging
import os
import signal
import socket
import socketserver
import ssl as ssl_module
import threading
import time
import uuid
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Callable, Literal, NamedTuple, Optional, Union

from .acceptor import Acceptor
from .admission import Admission, Limits, Slot
from .deadline import Deadline
from .exceptions import ConnectionClosed
from .ledger import Ledger
from .locks import Notifier
from .opcodes import Close, CloseCode, State
from .options import Options
from .protocol import own_close
from .reports import (
    RunningHandler,
    ShutdownReport,
    connection_totals,
    describe_end,
    dump,
    format_address,
    keep_from_falling,
    running_handlers,
    server_stats,
)
from .sending import LoggerLike
from .server_connection import ServerConnection, Settings, set_default, unavailable
from .threads import ConnectionThread, Crew, ThreadOptions
from .transport import (
    PORTABLE_IO,
    TLSTransport,
    Transport,
    is_tcp,
    is_tuned,
    tune_listener,
)

__all__ = ["RunningHandler", "Server", "ServerConnection", "ShutdownReport"]

# socketserver's 5 loses connections under load; the kernel cuts this to its own limit.
BACKLOG = 1024

# Of the time for a shutdown, what is kept for handlers to notice that their connections
# were aborted.
ABORT_SHARE = 0.25
ABORT_RESERVE = 0.5  # seconds

# Handlers that a shutdown without a caller to take its report tells the stacks of.
LOGGED_STACKS = 5

# Entries of the ledger.
_ACCEPTED = {"accepted": 1}
_OPENED = {"opened": 1}

# What OpenSSL says of a request without TLS.
_PLAIN = "HTTP_REQUEST"

_PEEK = int(socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0))

Timeout = Union[float, Literal["close_timeout"], None]


class _Drain(NamedTuple):
    """A shutdown to come: when at the latest, and with what arguments."""

    until: float  # monotonic time
    close_connections: bool
    close: Close


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
        settings, limits, options: what :func:`serve` was given.
        create_connection: class of the connections.
        logger: for the server and its connections.
        unlink: path of a Unix socket to remove at the end.
        shared: whether other processes may listen on the socket, or on sockets of their own
            with the same port, so that newcomers can be left to them.
        threads: how the threads of connections are made.
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
        limits: Limits,
        options: Options,
        create_connection: type[ServerConnection],
        logger: LoggerLike,
        unlink: Optional[str] = None,
        shared: Optional[Literal["socket", "port"]] = None,
        threads: Optional[ThreadOptions] = None,
    ) -> None:
        socketserver.BaseServer.__init__(self, sock.getsockname(), handler)  # type: ignore[arg-type] # finish_request() is ours, and it takes a function
        self.socket = sock
        self.address_family = sock.family
        self.handler = handler
        self.settings = settings
        self.options = options
        self.threads = threads or ThreadOptions()
        self._crew = Crew(self.threads)
        self.create_connection = create_connection
        self.logger = logger
        self._unlink = unlink
        self._shared = shared
        self._ledger = Ledger()
        self._highest: dict[str, int] = {}  # totals that stats() has told
        self._admission = Admission(limits, self._ledger, logger, settings.trusted.trusts)
        self._acceptor = Acceptor(
            sock,
            self._accept_one,
            failed=lambda: self._ledger.count("accept_errors"),
            tick=self._tick,
            log=logger,
        )
        # Held while it serves, from before the thread of start() starts; never waited for.
        self._serving_lock = threading.Lock()
        self._serving: Optional[int] = None  # identity of the thread that serves
        self._drain: Optional[_Drain] = None
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
        self._drain_said = False
        self._progress = Notifier()
        # Whether accepted sockets inherit the options of this one; None: to be seen.
        self._tuned: Optional[bool] = None
        self._tune_listener()

    # What it is

    @property
    def is_closing(self) -> bool:
        """Whether ``close()`` or ``shutdown()`` was called, and any drain period is over."""
        return self._closing

    @property
    def is_draining(self) -> bool:
        """Whether newcomers are refused while connections go on, until the server is closed."""
        return self._drain is not None and not self._closing

    @property
    def connections(self) -> set[ServerConnection]:
        """The connections that are open now, for :func:`broadcast` for example."""
        slots = list(self._admission.slots.values())
        return {slot.connection for slot in slots if slot.connection and slot.connection.is_open}

    def _all_connections(self) -> list[ServerConnection]:
        slots = list(self._admission.slots.values())
        return [slot.connection for slot in slots if slot.connection is not None]

    @property
    def ssl(self) -> Optional[ssl_module.SSLContext]:
        """
        TLS configuration; ``None`` for plain connections.

        Setting it, as when certificates were renewed, counts for connections accepted from
        then on; those that are open go on. Any thread may do it.

        Raises:
            ValueError: on setting it, if it would change between TLS and none.
        """
        return self.settings.ssl

    @ssl.setter
    def ssl(self, context: Optional[ssl_module.SSLContext]) -> None:
        if (context is None) is not (self.settings.ssl is None):
            raise ValueError("a server can't change between TLS and plain connections")
        self.settings = self.settings._replace(ssl=context)

    def report_refusal(self, reason: str, text: str) -> None:
        """Log why connections are refused, once a minute at most; called by connections."""
        self._admission.report(reason, text)

    def admits_client(self, address: Any) -> bool:
        """Tell whether the client of a proxy is within its limit; called by its connection."""
        return self._admission.admits(threading.current_thread(), address)

    def stats(self) -> dict[str, Any]:
        """
        Count what happened since the server was made, and what there is now, as plain data.

        ======================================  =================================================
        ``open``, ``opening``, ``total``        connections now: open, waiting for the client's
                                                request, and all with those closing
        ``accepted``, ``opened``                connections accepted, and opened, so far
        ``refused``                             those that were not opened, by reason: the name
                                                of a limit, ``closing``, ``handshake``, ``origin``,
                                                ``proxy`` (what a trusted one sent is malformed),
                                                ``http`` (other requests), ``network``, ``thread``
        ``closed``                              ended connections by the close code that ended
                                                them; 1006 for none
        ``messages_received``,                  totals, those of open connections included;
        ``messages_sent``, ``bytes_received``,  ``messages_dropped`` by :func:`broadcast`
        ``bytes_sent``, ``messages_dropped``
        ``inbox_messages``, ``inbox_bytes``,    what waits now for applications, and for
        ``outbox_bytes``                        the kernel
        ``accept_errors``, ``thread_errors``    failures for want of resources
        ======================================  =================================================
        """
        # The totals first: a connection may be left out for a moment, but never counts twice.
        stats = server_stats(self._ledger.totals(), self._admission, self._all_connections())
        keep_from_falling(stats, self._highest)
        return stats

    def dump(self) -> str:
        """
        Describe all connections and the stacks of the threads, for people, in some lines each.

        Takes no lock: it may be called when everything seems to hang, from a signal handler too.
        """
        state = "closing" if self._closing else "draining" if self._drain else "open"
        return dump(f"server {format_address(self.server_address)}: {state}", self._admission)

    # Serving

    def serve_forever(
        self, poll_interval: float = 0.5, *, signals: bool = True, drain: float = 0.0
    ) -> None:
        """
        Accept connections until the server is closed.

        Args:
            poll_interval: not used, nothing is polled; kept for the sake of ``socketserver``.
            signals: in the main thread, let SIGINT (Ctrl-C) and SIGTERM shut the server
                down gracefully; this method then returns after the shutdown. A second
                signal acts as it would without. Elsewhere, no effect.
            drain: seconds that connections may go on after a signal; see :meth:`close`.

        Raises:
            RuntimeError: the server is serving already.
        """
        self._begin_serving()
        self._serve(signals, drain)

    def _begin_serving(self) -> None:
        if not self._serving_lock.acquire(blocking=False):
            raise RuntimeError("the server is serving already")
        _serving_servers.add(self)  # for a fork that comes before its thread does anything

    def _end_serving(self) -> None:
        try:
            _serving_servers.discard(self)
        finally:
            self._serving_lock.release()

    def _serve(self, signals: bool = False, drain: float = 0.0) -> None:
        self._serving = threading.get_ident()
        try:
            with self._closing_on_signals(signals, drain):
                if not self._closing:
                    address = format_address(self.server_address)
                    self.logger.info("server listening on %s", address)
                    self._acceptor.run()
        finally:
            self._serving = None
            try:
                if self._closing:
                    self.server_close()
            finally:
                self._end_serving()
                self._progress.notify()
        if self._signalled:
            self._report_running(self.wait_closed())

    @contextlib.contextmanager
    def _closing_on_signals(self, enabled: bool, drain: float) -> Iterator[None]:
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
            self.close(drain=drain)

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
            self._end_serving()
            raise
        return self

    # Hooks of socketserver

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection."""
        return self.socket.accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Tell whether the client is still there: who hung up at once is worth no thread."""
        # With a timeout (of socket.setdefaulttimeout()) Python waits, whatever the flags say.
        if PORTABLE_IO or request.gettimeout() is not None:
            request.setblocking(False)  # until its transport says otherwise
        try:
            return bool(request.recv(1, _PEEK))
        except BlockingIOError:
            return True
        except OSError:
            return False

    def _accept_one(self) -> None:
        request, client_address = self.get_request()
        self._ledger.add(_ACCEPTED)
        try:
            if self.verify_request(request, client_address):
                self.process_request(request, client_address)
            else:
                self._ledger.add({("refused", "network"): 1})
                self.shutdown_request(request)
        except Exception:
            # Of a subclass; as in socketserver, it costs this connection only.
            self.handle_error(request, client_address)
            self.shutdown_request(request)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Find a thread for an accepted connection; never raises for want of one."""
        reason = self._admission.refusal(client_address)
        if reason is not None:
            self._refuse(request, reason)
            return
        # Others listen, but nobody else can serve this one.
        late = self._drain is not None and self._shared is None
        slot = Slot(request, client_address, late)
        # Whoever takes it out of there does it: the thread, or in its place who takes it back.
        job: collections.deque[Callable[[], object]] = collections.deque(
            (functools.partial(self.process_request_thread, request, client_address),)
        )
        waiting: list[ConnectionThread] = []
        thread = None
        try:
            thread = self._crew.take(waiting, self.daemon_threads)
            self._admission.enter(thread, slot)
            thread.give(job)
        except BaseException as exc:
            self._take_back(job, thread, waiting, request)
            if not isinstance(exc, (RuntimeError, MemoryError)):
                raise
            if not self._thread_failing:
                self._thread_failing = True
                self.logger.error("connection dropped: %s", exc)
        else:
            self._thread_failing = False

    def _take_back(
        self,
        job: collections.deque[Any],
        thread: Optional[ConnectionThread],
        waiting: list[ConnectionThread],
        request: Any,
    ) -> None:
        """Drop a connection whose thread could not be started, or was not told of it."""
        try:
            job.popleft()
        except IndexError:
            return  # the thread has it
        self._ledger.add({("refused", "thread"): 1, "thread_errors": 1})
        if thread is not None:
            self._admission.leave(thread)
        for spare in waiting:
            spare.dismiss()
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Live the life of a connection. Runs in its thread."""
        try:
            self.finish_request(request, client_address)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            self._admission.leave(threading.current_thread())
            if self._closing or self._drain is not None:
                self._progress.notify()
                self._acceptor.wake()

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Do the opening handshake, run the handler, close."""
        self.threads.pin()
        slot = self._admission.slots[threading.current_thread()]
        connection = self._connect(request, client_address)
        connection.late = slot.late
        slot.connection = connection
        # Whoever wanted to cut it may have looked before the connection was there to be seen.
        if self._close_with is not None:
            connection.cut_handshake("closing")
        elif slot.dropped:
            connection.cut_handshake("max_handshakes")
        if self._open(connection):
            # close() has seen this connection as open, or it is seen here that it was called.
            if self._close_with is not None:
                self._close_connection(connection, self._close_with)
            self._run_handler(connection)

    def _open(self, connection: ServerConnection) -> bool:
        """Do the opening handshake, and count what came of it."""
        refused: Optional[str] = "network"
        try:
            thread = threading.current_thread()
            refused = connection.handshake(
                self.settings, requested=lambda: self._admission.requested(thread)
            )
        except OSError as exc:
            refused = connection.cut_reason or "network"
            advice = "; use wss:// there" if getattr(exc, "reason", "") == _PLAIN else ""
            why = connection.cut_reason or f"{exc}{advice}"
            connection.logger.info("opening handshake failed: %s", why)
        finally:
            if refused is not None:
                self._ledger.add(
                    {("refused", refused): 1, "thread_errors": int(refused == "thread")}
                )
                connection.discard()
        if refused is None:
            self._ledger.add(_OPENED)
        return refused is None

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log an exception that nobody expected."""
        self.logger.error("unexpected internal error", exc_info=True)

    def _connect(self, sock: socket.socket, address: Any) -> ServerConnection:
        try:
            portable = self.create_connection.portable_io
            tuned = self._is_tuned(sock)
            if self.settings.ssl is None:
                transport = Transport(sock, portable=portable, peer=address, tuned=tuned)
            else:
                transport = TLSTransport(
                    sock,
                    self.settings.ssl,
                    server_side=True,
                    portable=portable,
                    peer=address,
                    tuned=tuned,
                )
            return self.create_connection(transport, self.options, self.logger, self)
        except BaseException:
            sock.close()
            raise

    def _tune_listener(self) -> None:
        """Have accepted sockets inherit their options, where this socket is ours alone."""
        usual = type(self).get_request is Server.get_request
        if PORTABLE_IO or not usual or self._shared == "socket" or not is_tcp(self.socket):
            self._tuned = False
        else:
            tune_listener(self.socket, self.options.user_timeout)

    def _is_tuned(self, sock: socket.socket) -> bool:
        """Whether an accepted socket has inherited its options, as the first one did."""
        if self._tuned is None:
            self._tuned = is_tuned(sock, self.options.user_timeout)
        return self._tuned

    def _run_handler(self, connection: ServerConnection) -> None:
        """Run the user's code, and close as it ended."""
        code = CloseCode.INTERNAL_ERROR
        try:
            self.handler(connection)
            code = CloseCode.NORMAL_CLOSURE
        except ConnectionClosed:
            # Its own connection: how peers go is not an error of the handler.
            if connection.is_open:
                connection.logger.error("connection handler failed", exc_info=True)
        except Exception:
            connection.logger.error("connection handler failed", exc_info=True)
        except SystemExit:
            connection.logger.error(
                "connection handler failed: sys.exit() ends its connection, not the program; "
                "use connection.server.close()"
            )
            raise
        finally:
            # What close() asked the service thread for comes first, if that is still to do it.
            close = self._close_with or Close(code)
            connection.close(close.code, close.reason)
            if connection.was_cut and connection.id in self._asked_to_close:
                self._aborted.add(connection.id)
            self._ledger.add(connection_totals(connection))
            if self.logger.isEnabledFor(logging.INFO):
                connection.logger.info("connection closed: %s", describe_end(connection))

    def _refuse(self, request: socket.socket, reason: str) -> None:
        answer = b""
        if self.settings.ssl is None:
            response = unavailable(reason)
            set_default(response, "Server", self.settings.server_header)
            answer = response.serialize()
        self._acceptor.refuse(request, answer)

    # Closing

    def close(
        self,
        close_connections: bool = True,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        *,
        drain: float = 0.0,
    ) -> None:
        """
        Stop accepting connections, and start closing those that there are. Never blocks.

        With ``drain`` it does so only after a while, or when no connection is left: until then
        those that there are go on, newcomers are answered with 503, and so are health
        checks. If the listening socket was handed in (``sock``), newcomers are left to the
        other processes that listen on it instead. A drain period ends with the thread that
        serves; calling this again ends it early.

        Args:
            close_connections: whether to close them; otherwise they go on until
                their handlers end.
            code: close code for them.
            reason: close reason, at most 123 bytes in UTF-8.
            drain: seconds.

        Raises:
            ProtocolError: the code or the reason is not allowed.
            TypeError: the code is no ``int``, or the reason no ``str``.
        """
        close = own_close(code, reason)
        if drain > 0 and self._serving is not None and not self._closing and self._drain is None:
            self._drain = _Drain(time.monotonic() + drain, close_connections, close)
            self._acceptor.wake()
            return
        first = not self._closing
        self._closing = True
        # It may run in a signal handler, above anything: no lock is taken from here on.
        self._acceptor.stop()
        self._crew.close()
        serving = self._serving
        if serving is None:
            self.server_close()
        elif serving == threading.get_ident() and self._shared != "socket":
            # The accept loop is interrupted and still has the descriptor in use. Where this
            # works, the kernel refuses connections from here on; else it does when the loop ends.
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_RDWR)
        if close_connections and self._close_with is None:
            self._close_with = close
            self._close_connections(close)
        if first:
            self._progress.notify()

    def _tick(self) -> Optional[float]:
        """Advance a drain period; tell when to look again. Called by the accept loop."""
        drain = self._drain
        if drain is None or self._closing:
            return None
        if self._shared is not None:
            self._leave_newcomers()
        if not self._drain_said:
            self._drain_said = True
            connections = len(self._admission.slots)
            self.logger.info("server draining: no newcomers, %d connections go on", connections)
        if self._is_drained() or time.monotonic() >= drain.until:
            self._end_drain()
            return None
        return drain.until

    def _leave_newcomers(self) -> None:
        """Stop accepting, for others do. By the accept loop."""
        if self._shared == "port" and self.socket.fileno() != -1:
            # What waits in this backlog would be reset.
            self._acceptor.pause(BACKLOG)
            self.socket.close()
        else:
            self._acceptor.pause()

    def _is_drained(self) -> bool:
        """Whether no connection is left, but for those whose threads wait for the end."""
        threads = {thread.ident or thread for thread in list(self._admission.slots)}
        return not threads.difference(self._waiting)

    def _end_drain(self) -> None:
        drain = self._drain
        if drain is not None and not self._closing:
            self.close(drain.close_connections, *drain.close)

    def _close_connections(self, close: Close) -> None:
        for connection in self._all_connections():
            if connection.state is State.CONNECTING:
                connection.cut_handshake("closing")
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
            timeout: seconds, from the end of a drain period on; ``None`` waits without limit;
                default: ``close_timeout``.

        Returns:
            What was closed and aborted, and which handlers are still running.
        """
        if timeout == "close_timeout":
            timeout = self.options.close_timeout
        reserve = 0.0 if timeout is None else min(ABORT_RESERVE, timeout * ABORT_SHARE)
        me = threading.get_ident()
        self._waiting.append(me)
        self._progress.notify()  # other waiting threads need not wait for this one
        try:
            self._wait_drained()
            deadline = Deadline(timeout)
            graceful = Deadline(None if timeout is None else timeout - reserve)
            if not self._progress.wait_until(self._has_ended, graceful):
                if self._close_with is not None:
                    self._abort_connections()
                self._progress.wait_until(self._has_ended, deadline)
        finally:
            self._waiting.remove(me)
        closed = len(self._asked_to_close - self._aborted)
        running = running_handlers(self._admission)
        return ShutdownReport(closed, len(self._aborted), running)

    def _wait_drained(self) -> None:
        """Wait for the end of a drain period, and see to it in place of a thread that can't."""
        drain = self._drain
        if drain is None:
            return
        self._acceptor.wake()  # this thread's connection counts no more
        until = Deadline(max(0.0, drain.until - time.monotonic()))
        self._progress.wait_until(lambda: self._closing or self._is_drained(), until)
        self._end_drain()

    def shutdown(  # type: ignore[override] # socketserver's returns nothing
        self,
        close_connections: bool = True,
        code: int = CloseCode.GOING_AWAY,
        reason: str = "",
        *,
        drain: float = 0.0,
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
            drain: seconds that connections may go on before; see :meth:`close`.
            timeout: seconds after that; ``None`` waits without limit; default: ``close_timeout``.

        Returns:
            What was closed and aborted, and which handlers are still running.

        Raises:
            ProtocolError: the code or the reason is not allowed.
            TypeError: the code is no ``int``, or the reason no ``str``.
        """
        self.close(close_connections, code, reason, drain=drain)
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
        left: set[object] = {thread.ident or thread for thread in list(self._admission.slots)}
        if self._serving_lock.locked():
            left.add(self._serving)
        if threading.get_ident() in left:
            left.difference_update(self._waiting)
        return not left

    def _abort_connections(self) -> None:
        for connection in self._all_connections():
            if not connection.is_gone:
                self._aborted.add(connection.id)
                connection.abort()

    def forget(self) -> None:
        """
        Be closed in a forked child, whose parent serves: nothing is said to any client.

        Called in the child, which has none of the parent's threads.
        """
        self._closing = True
        self._serving = None
        self._serving_lock = threading.Lock()
        self._admission.forget()
        self._crew.forget()
        self._open_parts.clear()
        self._acceptor.forget()
        self.socket.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._report_running(self.shutdown())

    def _report_running(self, report: ShutdownReport) -> None:
        """Say which handlers hold up the end of the program, where nobody has the report."""
        for handler in report.running[:LOGGED_STACKS]:
            self.logger.warning(
                "a handler still runs after the shutdown: it has to return when its connection "
                "is closed; it is here:\n%s",
                handler.stack,
            )
        more = len(report.running) - LOGGED_STACKS
        if more > 0:
            self.logger.warning("more handlers still run after the shutdown: %d", more)


# Servers that serve, or are about to.
_serving_servers: weakref.WeakSet[Server] = weakref.WeakSet()


def _forget_servers() -> None:
    for server in list(_serving_servers):
        server.forget()
    _serving_servers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_servers)
