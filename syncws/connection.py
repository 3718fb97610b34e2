"""
A WebSocket connection for threads.

Who holds what
--------------

``_reader``, the reader role, is held while reading from the transport and decoding, the only
lock that is held while waiting for the peer. Nothing but reading waits for it without a limit.

``_deflate_lock`` keeps compressed frames in the order in which the deflater made
them. Held while compressing and queueing; never while waiting for the peer.

``_outbound_lock`` guards closing state, outbox, pings and the release of the
descriptor. Held for a few lines and for system calls that do not wait.

Order: reader role, then deflate lock, then outbound lock, then the transport's own
locks. No lock is held while user code runs.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Optional, Union

from .deadline import Deadline
from .exceptions import ConnectionClosed
from .frames import FIN
from .http11 import Request, Response
from .locks import Hold
from .opcodes import Close, CloseCode, Opcode, State
from .options import Options
from .protocol import Inbound, Outbound, explain_failure, own_close
from .queues import OutFrame
from .rates import Meter
from .receiving import DRAIN_EAGERLY, LEAVE_TIMEOUT, MAX_STEPS, Receiving
from .sending import LoggerLike, PongWaiter, is_alive
from .service import READ, WRITE, service
from .transport import Transport

__all__ = ["Connection"]

# Reads that the service thread does for one connection before it turns to the others.
READS_AHEAD = 4


class Connection(Receiving):
    """
    What server and client connections have in common. Not made by applications.

    Supports iteration over incoming messages, which ends when the connection is closed normally
    (1000 or 1001) and raises :exc:`ConnectionClosedError` otherwise, and ``with``, which
    closes with 1000, or with 1011 when the block raises.

    Thread safety: every method may be called from any thread at any time, also while another
    thread is in the same method. Each message goes to exactly one ``recv()``.
    """

    __slots__ = (
        "__weakref__",
        "_blocked_at_ping",
        "_close_request",
        "_gone_at",
        "_keepalive_due",
        "_keepalive_ping",
        "_next_ping",
        "_pinged_at",
        "_received_at_ping",
        "_released",
        "_sends_at_ping",
        "_sent_at_ping",
        "_takes_seen",
        "opened_at",
        "request",
        "requested",
        "response",
        "subprotocol",
        "watched",
    )

    # How long after an error of the peer the application may take to answer the messages that
    # came before it; in seconds.
    answer_time = 10.0

    def __init__(self, transport: Transport, options: Options, logger: LoggerLike) -> None:
        super().__init__(transport, options, logger)
        self.request: Optional[Request] = None
        """Request of the opening handshake."""
        self.response: Optional[Response] = None
        """Response of the opening handshake."""
        self.subprotocol: Optional[str] = None
        """Subprotocol that was agreed on, or ``None``."""

        # Guarded by _outbound_lock.
        self._released = False
        self.watched = 0  # events that the service thread watches

        self.requested = False  # of the service thread; by single atomic stores

        self.opened_at = 0.0  # monotonic time

        # Set by single atomic stores.
        self._close_request: Optional[Close] = None

        # Service thread only.
        self._gone_at: Optional[float] = None
        self._takes_seen = -1
        self._keepalive_due = float("inf")
        self._next_ping = float("inf")
        self._pinged_at: Optional[float] = None
        self._received_at_ping = 0
        self._sends_at_ping = 0
        self._sent_at_ping = 0
        self._blocked_at_ping = False
        self._keepalive_ping = b""

    # What it is

    @property
    def was_cut(self) -> bool:
        """Whether this end cut the connection off, after a timeout or by ``abort()``."""
        return isinstance(self._broken, (TimeoutError, ConnectionAbortedError))

    @property
    def local_address(self) -> Any:
        """Address of this end, as :meth:`socket.socket.getsockname` gives it."""
        return self._transport.local_address

    @property
    def remote_address(self) -> Any:
        """Address of the peer, as :meth:`socket.socket.getpeername` gives it."""
        return self._transport.remote_address

    @property
    def peer_certificate(self) -> Optional[dict[str, Any]]:
        """
        Certificate of the peer, as :meth:`ssl.SSLSocket.getpeercert` gives it.

        ``None`` without TLS, or if the peer sent none or it was not asked for: a server
        asks if ``verify_mode`` of its ``SSLContext`` says so.
        """
        return self._transport.peer_certificate

    @property
    def state(self) -> State:
        """
        State of the connection (RFC 6455 §4.1, §7.1).

        CLOSED as soon as no message can pass any more, which may be a moment before the
        TCP connection has ended. Rather call ``recv()`` or ``send()`` and
        handle :exc:`ConnectionClosed` than look at it.
        """
        return self._closing.state if self._opened else State.CONNECTING

    @property
    def close_code(self) -> Optional[int]:
        """
        Code of the Close frame received (RFC 6455 §7.1.5); ``None`` while not closed.

        1005 if that frame had no code, 1006 if the connection ended without one.
        """
        if self.state is not State.CLOSED:
            return None
        rcvd = self._closing.rcvd
        return int(CloseCode.ABNORMAL_CLOSURE) if rcvd is None else rcvd.code

    @property
    def close_reason(self) -> Optional[str]:
        """
        Reason in the Close frame received (RFC 6455 §7.1.6).

        ``""`` if there was none, ``None`` while not closed.
        """
        if self.state is not State.CLOSED:
            return None
        rcvd = self._closing.rcvd
        return "" if rcvd is None else rcvd.reason

    @property
    def end(self) -> ConnectionClosed:
        """How the connection ended, as an exception; only what is known so far before that."""
        return self._closed()

    @property
    def end_code(self) -> int:
        """The code of the Close frame that came first, from either end; 1006 if none did."""
        return self._closing.first_code

    def fileno(self) -> int:
        """Descriptor of the socket, or -1; to look at, not to use."""
        return self._transport.fileno()

    def stats(self) -> dict[str, Union[int, float]]:
        """
        Counts since the opening, and what waits now, as plain numbers.

        ``messages_dropped`` were left out by :func:`broadcast`. Sizes are in bytes:
        ``bytes_received`` as the socket (or TLS) gave them, ``bytes_sent`` frames with
        their headers, ``inbox_bytes`` and ``outbox_bytes`` what waits for the application
        and for the kernel; ``latency`` is in seconds.
        """
        return {
            "messages_received": self._received_messages + self._whole_messages,
            "messages_sent": self._sent_messages,
            "messages_dropped": self._dropped_messages,
            "bytes_received": self._received_bytes,
            "bytes_sent": self._outbox.sent_bytes,
            "inbox_messages": self._inbox.count,
            "inbox_bytes": self._inbox.size,
            "outbox_bytes": self._outbox.waiting,
            "latency": self.latency,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state.name}>"

    # Closing

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """
        Do the closing handshake and end the TCP connection (RFC 6455 §7.1).

        Waits ``close_timeout`` seconds at most, then ends the connection without the peer.
        Idempotent. Wakes all threads that wait in ``recv()`` or ``send()``. Messages that
        arrived before can still be received.

        Args:
            code: 1000 to 1014 except 1004, 1005 and 1006, or 3000 to 4999.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ProtocolError: the code or the reason is not allowed.
            TypeError: the code is no ``int``, or the reason no ``str``.
        """
        self._check_opened()
        close = own_close(code, reason)
        error = self._peer_error
        if error is not None:
            self._fail(explain_failure(error), error)
        self._begin_close(close)
        self._finish_close()

    def wait_closed(self, timeout: Optional[float] = None) -> bool:
        """
        Wait until the connection is closed and its TCP connection has ended.

        Does not close: that is up to the peer or to another thread.

        Args:
            timeout: seconds; ``None`` waits without limit.

        Returns:
            Whether it is closed.
        """
        with self._outbound_lock:
            if self._gone is None:
                self._gone = threading.Event()
                if self.is_gone:
                    self._gone.set()
        return self._gone.wait(timeout)

    def abort(self) -> None:
        """End the connection at once, without a closing handshake; never blocks."""
        self.break_off(ConnectionAbortedError("the connection was aborted by this end"))
        if self._opened:
            service.request(self)

    def request_close(self, close: Close) -> None:
        """
        Have the service thread start the closing handshake; takes no lock.

        For signal handlers, which may have interrupted a thread that holds one.
        """
        self._close_request = close
        service.request(self)

    def _finish_close(self) -> None:
        """Wait for the end of the connection until the deadline of the closing handshake."""
        deadline = self._closing_deadline() if self._broken is None else Deadline(LEAVE_TIMEOUT)
        self._read_until(lambda: self.is_gone, deadline)
        if not self.is_gone:
            self.break_off(TimeoutError("timed out while closing the connection"))
            self._collect()
            if not self.is_gone:
                self._eof(None)
        self._release()

    def _release(self, force: bool = False) -> None:
        """
        Give the descriptor back if the connection is gone and no thread is inside.

        Called by every thread that leaves, and by the service thread at each tick until done.
        """
        hold = Hold(self._reader)
        try:
            if self._released or not (hold.take(0) or force):
                return
            with self._outbound_lock:
                if self.watched or any(map(is_alive, self._pollers)):
                    return
                self._released = True
                self._transport.close()
        finally:
            if hold.taken:
                self._reader.release()
        service.discard(self)

    # Opening, for subclasses

    def _open(self, extensions: Sequence[Any], leftover: bytes, head: bytes = b"") -> None:
        """
        Start the life of the connection after the opening handshake.

        Args:
            extensions: the negotiated ones.
            leftover: input that came after the head.
            head: a response that is still to be sent: when the client has it, the connection is
                open, and whatever others may send by now comes after it.
        """
        options = self.options
        self._inbound = Inbound(
            masked=not self.is_client,
            max_size=options.max_size,
            max_fragment=options.max_fragment,
            max_empty=options.max_empty_fragments,
            extensions=extensions,
        )
        self._hungry = not leftover
        if leftover:
            self._inbound.feed(leftover)
        if extensions:
            self._outbound = Outbound(
                masked=self.is_client, extensions=extensions, random=os.urandom
            )
        self._is_simple_sender = (
            self._transport.direct and self._outbound.shareable and self._outbound.codec is None
        )
        if head:
            self._outbox.begin(head)
        self._look_at_rest()
        if options.rate_limit is not None:
            self._meter = Meter(options.rate_limit, time.monotonic())
        if options.ping_interval is not None:
            self._next_ping = self._keepalive_due = time.monotonic() + options.ping_interval
        self._transport.set_user_timeout(options.user_timeout)
        self.opened_at = time.monotonic()
        self._opened = True
        service.add(self)
        if head:
            self._push()

    # For a forked child

    def forget(self) -> None:
        """
        Be closed in a forked child: the connection is the parent's; the peer is told nothing.

        Called in the child, where no thread of the parent's is left to release a lock.
        """
        self._reader = threading.Lock()
        self._deflate_lock = threading.Lock()
        self._outbound_lock = threading.Lock()
        self._broken = ConnectionAbortedError("the connection belongs to the parent process")
        self._closing.eof()
        self._pings.clear()
        self._outbox.clear()
        self._inbound.end()
        self._gone = None
        self._released = True
        self._transport.forget()

    # For the service thread

    def idle(self, now: float) -> bool:
        """Tell whether a tick of the service thread has nothing to do here."""
        return (
            self._reader.locked()
            and now < self._keepalive_due
            and not self.watched
            and self._close_request is None
            # One look instead of five: with 10,000 connections, what counts is memory touched.
            and (self._at_rest or self._is_quiet())
        )

    def _is_quiet(self) -> bool:
        """Whether nothing waits to be sent, and no closing has begun."""
        outbox = self._outbox
        return not outbox.waiting and outbox.settled and self._closing.open

    def attend(self, now: float) -> int:
        """Do what can be done without waiting; return the events to watch."""
        # Locks are not fair: threads that send all the time have to let this one in.
        self.awaited = True
        try:
            if not self._outbound_lock.acquire(timeout=0.02):
                return self.watched  # its holder may be under a signal handler; look again later
            self._outbound_lock.release()
            return self._attend(now)
        finally:
            self.awaited = False

    def _attend(self, now: float) -> int:
        if not self.is_gone:
            self._attend_closing(now)
            self._keepalive(now)
            wanted = self._write_ahead() | self._read_ahead()
            if not self.is_gone:
                return wanted
        if not self.watched:
            self._release(force=self._is_overdue(now))
        return 0

    def _is_overdue(self, now: float) -> bool:
        """
        Whether all threads have had their time to leave the transport, which was aborted.

        One that still has the reader role has lost it, in an exception at the wrong moment.
        """
        if self._gone_at is None:
            self._gone_at = now
        return now - self._gone_at > LEAVE_TIMEOUT

    def settle(self, watch: int) -> int:
        """Record what the service thread is about to watch; 0 if there is nothing left to watch."""
        with self._outbound_lock:
            if self._released:
                watch = 0
            self.watched = watch
        if not watch and self.is_gone:
            self._release()
        return watch

    def _attend_closing(self, now: float) -> None:
        if self._close_request is not None and self._closing.open:
            self._begin_close(self._close_request)
        if self._close_by is not None and now >= self._close_by:
            self.break_off(TimeoutError("timed out while closing the connection"))

    def _write_ahead(self) -> int:
        ended = not self._closing.over or self._half_closed
        if ended and not self._outbox.waiting and not self._outbox.pong and self._outbox.settled:
            return 0
        with self._outbound_lock:
            return 0 if self._flush() else WRITE

    def _read_ahead(self) -> int:
        """Read for an application that is busy with something else."""
        takes = self._takes + self._whole_messages
        away = takes == self._takes_seen or any(map(is_alive, self._pollers))
        self._takes_seen = takes
        if not away and not self._closing.over and self._broken is None:
            return 0
        if not self._reader.acquire(blocking=False):
            return 0
        try:
            return self._read_for_inbox()
        finally:
            self._reader.release()

    def _read_for_inbox(self) -> int:
        for _ in range(READS_AHEAD):
            if not self._closing.over and not self._fill_inbox():
                if self._broken is not None:
                    # The application may never make room: what is not decoded is lost.
                    self._eof(None)
                if self._unfinished:
                    service.request(self)  # the rest has been read: no socket will tell
                return 0
            if self.is_gone:
                return 0
            if not (self._discard() if self._closing.over else self._read_now()):
                break
        return 0 if self._discarded > DRAIN_EAGERLY else READ

    def _fill_inbox(self) -> bool:
        """Decode what is buffered into the inbox; tell whether more input is wanted."""
        self._unfinished = False
        if self._peer_error is not None:
            return self._fail_late(self._peer_error)
        ignored = 0
        while self._inbox.has_room() or not self._closing.open:
            if self._meter is not None and self._is_held_back(self._meter):
                return False
            message = self._decode(busy=True)
            if message is None:
                error = self._peer_error
                return self._hungry if error is None else self._fail_late(error)
            if self._inbox.has_room():
                self._inbox.put(message)
                continue
            ignored += 1
            if not ignored % MAX_STEPS and self._yield_to_others(busy=True):
                break
        return False

    def _fail_late(self, exc: Exception) -> bool:
        """
        Answer an error of the peer when the messages before it have been answered.

        That is when the application comes back to ``recv()``, or if it does not seem to.
        """
        waited = time.monotonic() - self._peer_error_at
        takes = self._takes + self._whole_messages
        answered = waited > self.answer_time or not (self._inbox.count or takes)
        if answered or not self._closing.open:
            self._fail(explain_failure(exc), exc)
        return self._closing.over

    def _keepalive(self, now: float) -> None:
        """Ping at intervals, and fail the connection when no life follows."""
        if now < self._keepalive_due or not self._closing.open:
            return
        if self._peer_error is not None:
            return  # nothing of the peer is read any more
        timeout = self.options.ping_timeout
        if self._pinged_at is not None and timeout is not None:
            if self._has_lived():
                self._pinged_at = None
            elif now >= self._pinged_at + timeout:
                close = Close(CloseCode.INTERNAL_ERROR, "keepalive ping timeout")
                late = TimeoutError(f"no sign of life for {timeout:.1f}s after a ping")
                self._fail(close, late)
                self.break_off(late)
                return
        if now >= self._next_ping:
            self._send_keepalive(now)
        expires = float("inf")
        if self._pinged_at is not None and timeout is not None:
            expires = self._pinged_at + timeout
        self._keepalive_due = min(self._next_ping, expires)

    def _has_lived(self) -> bool:
        """Tell whether the peer gave a sign of life since the ping."""
        if self._received_bytes != self._received_at_ping or self._transport.has_input():
            return True
        # The ping waits behind a message, for which the peer makes room, if slowly.
        return self._blocked_at_ping and self._transport.sends != self._sends_at_ping

    def _send_keepalive(self, now: float) -> None:
        assert self.options.ping_interval is not None
        self._next_ping = now + self.options.ping_interval
        self._free_deflater()
        if self._pinged_at is None:
            self._pinged_at = now
            self._received_at_ping = self._received_bytes
            self._sends_at_ping = self._transport.sends
            self._blocked_at_ping = self._outbox.waiting > 0
        with self._outbound_lock:
            if not self._closing.open:
                return
            # Of pings that are never answered, one is remembered.
            self._pings.pop(self._keepalive_ping, None)
            self._keepalive_ping = os.urandom(8)
            self._pings[self._keepalive_ping] = PongWaiter()
            ping = self._outbound.encode(FIN | Opcode.PING, self._keepalive_ping)
            if not self._outbox.waiting:
                self._outbox.put_control(OutFrame(ping))
                self._flush()

    def _free_deflater(self) -> None:
        """Give back the memory of a deflater that was not used since the last ping."""
        codec = self._outbound.codec
        unused = self._sent_messages == self._sent_at_ping
        self._sent_at_ping = self._sent_messages
        if codec is not None and unused and self._deflate_lock.acquire(blocking=False):
            codec.reset_deflater()
            self._deflate_lock.release()
