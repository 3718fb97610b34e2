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

import codecs
import contextlib
import enum
import logging
import os
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Callable, Literal, Optional, Union, overload

from .deadline import Deadline
from .exceptions import ConcurrencyError, ConnectionClosed, ConnectionClosedOK
from .frames import FIN, RSV1
from .http11 import Request, Response
from .messages import Message
from .opcodes import Close, CloseCode, Opcode, State
from .options import Options
from .permessage_deflate import DeflateCodec
from .protocol import (
    Closing,
    Control,
    Inbound,
    Outbound,
    PeerError,
    Phase,
    explain_failure,
)
from .queues import Inbox, Outbox, OutFrame
from .service import READ, WRITE, service
from .transport import SLICE, Transport

__all__ = ["Connection", "Data", "DataLike", "LoggerLike", "Offer", "PongWaiter", "SharedMessage"]

Data = Union[str, bytes]
BytesLike = (bytes, bytearray, memoryview)
DataLike = Union[str, bytes, bytearray, memoryview]
LoggerLike = Union[logging.Logger, "logging.LoggerAdapter[Any]"]

# Input thrown away after the closing handshake, until the peer stops sending (RFC 6455 §7.1.1).
DRAIN_LIMIT = 64 * 1024 * 1024  # bytes

# Reads that the service thread does for one connection before it turns to the others.
READS_AHEAD = 4

# How long a thread waits for another to leave a transport that was aborted.
LEAVE_TIMEOUT = 1.0  # seconds


class PongWaiter(threading.Event):
    """
    The answer to a ping: an event that is set when the pong arrives.

    :meth:`wait` also returns when the connection ends: false, since no pong
    came, unless the ping was sent with ``ack_on_close=True``.
    """

    def __init__(self, ack_on_close: bool = False) -> None:
        super().__init__()
        self._ack_on_close = ack_on_close
        self._ended = False
        self.sent_at = time.monotonic()

    def end(self) -> None:
        """The connection ended without the pong."""
        self._ended = not self._ack_on_close
        super().set()

    def is_set(self) -> bool:
        """Tell whether the pong arrived."""
        return super().is_set() and not self._ended

    def wait(self, timeout: Optional[float] = None) -> bool:
        """Wait for the pong, ``timeout`` seconds at most; tell whether it arrived."""
        return super().wait(timeout) and not self._ended


class Offer(enum.Enum):
    """What became of a message offered to a connection without waiting."""

    SENT = "sent"
    QUEUED = "queued"
    FULL = "no room in the outbox"
    BUSY = "sending a fragmented message"
    CLOSED = "closed"


class SharedMessage:
    """
    A message for many connections, encoded once for each kind of them.

    Thread safety: for one thread.
    """

    def __init__(self, opcode: int, data: bytes) -> None:
        self.head = FIN | opcode
        self.data = data
        self._encoded: dict[Any, tuple[bytes, bytes]] = {}

    def encode(self, outbound: Outbound, codec: Optional[DeflateCodec]) -> tuple[bytes, bytes]:
        """Header and payload for a connection, compressed in a context of their own or not."""
        key = None if codec is None else codec.deflate_key
        if not outbound.shareable:
            return self._make(outbound, codec)
        if key not in self._encoded:
            self._encoded[key] = self._make(outbound, codec)
        return self._encoded[key]

    def _make(self, outbound: Outbound, codec: Optional[DeflateCodec]) -> tuple[bytes, bytes]:
        if codec is None:
            return outbound.encode(self.head, self.data)
        return outbound.encode(self.head | RSV1, codec.deflate_alone(self.data))


class Connection:
    """
    What server and client connections have in common. Not made by applications.

    Supports iteration over incoming messages, which ends when the connection is closed normally
    (1000 or 1001) and raises :exc:`ConnectionClosedError` otherwise, and ``with``, which
    closes with 1000, or with 1011 when the block raises.

    Thread safety: every method may be called from any thread at any time, also while another
    thread is in the same method. Each message goes to exactly one ``recv()``.
    """

    # Whether this end is the client: it masks, and leaves it to the server to end TCP.
    is_client = False

    def __init__(self, transport: Transport, options: Options, logger: LoggerLike) -> None:
        self.id: uuid.UUID = uuid.uuid4()
        """Unique identifier, for logs."""
        self.logger: LoggerLike = logging.LoggerAdapter(logger, {"websocket": self})
        """Logger of this connection; its records have the attribute ``websocket``."""
        self.request: Optional[Request] = None
        """Request of the opening handshake."""
        self.response: Optional[Response] = None
        """Response of the opening handshake."""
        self.subprotocol: Optional[str] = None
        """Subprotocol that was agreed on, or ``None``."""
        self.latency: float = 0.0
        """Seconds between the last answered ping and its pong; 0.0 before the first."""
        self.options = options
        self._transport = transport
        self._opened = False

        # Guarded by _reader, the reader role.
        self._reader = threading.Lock()
        self._inbound = Inbound(masked=not self.is_client, max_size=0)
        self._inbox = Inbox(options.max_queue, options.max_queue_bytes)
        self._received: list[bytes] = []  # read, not yet fed to the decoder
        self._torn = False  # an exception hit the decoder half-way
        self._peer_error: Optional[Exception] = None  # found, not yet answered
        self._control: Optional[Control] = None  # received, not yet handled
        self._discarded = 0
        self._streaming = False
        # Written under the role, read by the service thread.
        self._reads = 0
        self._takes = 0
        self._received_messages = 0
        self._received_bytes = 0

        # Guarded by _deflate_lock and, for uncompressed frames, by nothing: stateless.
        self._deflate_lock = threading.Lock()
        self._outbound = Outbound(masked=self.is_client, extensions=(), random=os.urandom)

        # Guarded by _outbound_lock.
        self._outbound_lock = threading.Lock()
        self._closing = Closing()
        self._outbox = Outbox(transport)
        self._fragmenting: Optional[object] = None  # who is sending a fragmented message
        self._pings: dict[bytes, PongWaiter] = {}
        self._pollers = 0  # threads waiting for writability
        self._half_closed = False
        self._released = False
        self._sent_messages = 0
        self.watched = 0  # events that the service thread watches
        self._gone: Optional[threading.Event] = None

        # Set once, by single atomic stores.
        self._broken: Optional[BaseException] = None  # why the transport was aborted
        self._cause: Optional[BaseException] = None  # what ConnectionClosed is chained to
        self._close_by: Optional[float] = None  # monotonic time; None: not closing, or no limit
        self._close_request: Optional[Close] = None

        # Service thread only.
        self._takes_seen = -1
        self._keepalive_due = float("inf")
        self._next_ping = float("inf")
        self._pinged_at: Optional[float] = None
        self._reads_at_ping = 0
        self._keepalive_ping = b""

    # What it is

    @property
    def local_address(self) -> Any:
        """Address of this end, as :meth:`socket.socket.getsockname` gives it."""
        return self._transport.local_address

    @property
    def remote_address(self) -> Any:
        """Address of the peer, as :meth:`socket.socket.getpeername` gives it."""
        return self._transport.remote_address

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
        """Reason in the Close frame received (RFC 6455 §7.1.6), or ``""``; ``None`` while not closed."""
        if self.state is not State.CLOSED:
            return None
        rcvd = self._closing.rcvd
        return "" if rcvd is None else rcvd.reason

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent, as far as is known."""
        return self._opened and self._closing.phase is Phase.OPEN and self._broken is None

    @property
    def is_gone(self) -> bool:
        """Whether the TCP connection has ended."""
        return self._closing.phase is Phase.GONE

    def fileno(self) -> int:
        """Descriptor of the socket, or -1; to look at, not to use."""
        return self._transport.fileno()

    def stats(self) -> dict[str, Union[int, float]]:
        """
        Counts since the opening, and what waits now, as plain numbers.

        Sizes are in bytes: ``bytes_received`` as the socket (or TLS) gave them, ``bytes_sent``
        frames with their headers, ``inbox_bytes`` and ``outbox_bytes`` what waits
        for the application and for the kernel; ``latency`` is in seconds.
        """
        return {
            "messages_received": self._received_messages,
            "messages_sent": self._sent_messages,
            "bytes_received": self._received_bytes,
            "bytes_sent": self._outbox.sent_bytes,
            "inbox_messages": self._inbox.count,
            "inbox_bytes": self._inbox.size,
            "outbox_bytes": self._outbox.waiting,
            "latency": self.latency,
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.state.name}>"

    # Receiving

    def __enter__(self) -> Any:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close(CloseCode.NORMAL_CLOSURE if exc_type is None else CloseCode.INTERNAL_ERROR)

    def __iter__(self) -> Iterator[Data]:
        with contextlib.suppress(ConnectionClosedOK):
            while True:
                yield self.recv()

    @overload
    def recv(self, timeout: Optional[float], decode: Literal[True]) -> str: ...
    @overload
    def recv(self, timeout: Optional[float], decode: Literal[False]) -> bytes: ...
    @overload
    def recv(self, timeout: Optional[float] = None, *, decode: Literal[True]) -> str: ...
    @overload
    def recv(self, timeout: Optional[float] = None, *, decode: Literal[False]) -> bytes: ...
    @overload
    def recv(self, timeout: Optional[float] = None, decode: Optional[bool] = None) -> Data: ...

    def recv(self, timeout: Optional[float] = None, decode: Optional[bool] = None) -> Data:
        """
        Receive the next message; blocks until there is one.

        Any number of threads may call it; each message goes to exactly one of them.
        Messages that arrived before the connection was closed are still returned after it.

        Args:
            timeout: seconds to wait at most; 0 returns only what is already there;
                ``None`` waits until a message arrives or the connection ends.
            decode: ``False`` to get text as UTF-8 bytes too, ``True`` to get binary
                messages as strings too; default: ``str`` for text, ``bytes`` for binary.

        Raises:
            ConnectionClosed: the connection is closed; it says who closed it, and why.
            TimeoutError: no message came in time.
            ConcurrencyError: a ``recv_streaming()`` has not been consumed to its end.
        """
        message: Optional[Message] = None
        try:
            if timeout is None:
                with self._reader:
                    message = self._receive(None)
            else:
                message = self._receive_within(timeout)
            data = message.data
            if message.text if decode is None else decode:
                string = message.string
                return data.decode() if string is None else string
            return data
        except UnicodeDecodeError as exc:
            raise self._refuse_text(exc) from exc
        except BaseException:
            if message is not None:
                self._put_back(message)
            raise
        finally:
            self._takes += 1
            if self.is_gone:
                self._release()

    def recv_streaming(self, decode: Optional[bool] = None) -> Iterator[Data]:
        """
        Receive the next message in parts, one for each fragment as it arrives.

        Fragments that had arrived before are joined: their boundaries have no
        meaning (RFC 6455 §5.4). The iterator must be consumed to its end; otherwise all
        later calls raise :exc:`ConcurrencyError`.

        Args:
            decode: as for :meth:`recv`.

        Raises:
            ConnectionClosed: the connection is closed, perhaps within the message.
            ConcurrencyError: another ``recv_streaming()`` is under way.
        """
        with self._reader:
            self._check_streaming("recv_streaming")
            self._streaming = True
        utf8 = codecs.getincrementaldecoder("utf-8")()
        while True:
            message = self._receive_part()
            if message.text if decode is None else decode:
                try:
                    yield utf8.decode(message.data, message.final)
                except UnicodeDecodeError as exc:
                    raise self._refuse_text(exc) from exc
            else:
                yield message.data
            if message.final:
                self._streaming = False
                return

    def _receive_part(self) -> Message:
        try:
            with self._reader:
                if not self._inbox.count:
                    self._inbound.assembler.streaming = True
                return self._receive(None, streaming=True)
        except BaseException:
            self._streaming = False
            raise
        finally:
            self._takes += 1
            if self.is_gone:
                self._release()

    def _receive_within(self, timeout: float) -> Message:
        deadline = Deadline(max(0.0, timeout))
        late = TimeoutError(f"timed out in {timeout:.1f}s")
        if not self._reader.acquire(timeout=min(max(0.0, timeout), threading.TIMEOUT_MAX)):
            raise late
        try:
            return self._receive(deadline)
        except _OutOfTime:
            raise late from None
        finally:
            self._reader.release()

    def _check_streaming(self, caller: str) -> None:
        if self._streaming:
            raise ConcurrencyError(
                f"cannot call {caller} while another thread is already running recv_streaming"
            )

    def _receive(self, deadline: Optional[Deadline], streaming: bool = False) -> Message:
        """Return the next message, reading as needed. Reader role."""
        if self._streaming is not streaming:
            self._check_streaming("recv")
        while True:
            if self._inbox.count:
                return self._inbox.get()
            message = self._decode()
            if message is not None:
                return message
            if self._closing.over:
                raise self._closed()
            self._read(deadline)

    def _put_back(self, message: Message) -> None:
        """Keep a message that an exception (Ctrl-C) kept from being returned."""
        with self._reader:
            self._inbox.put_first(message)

    def _refuse_text(self, exc: UnicodeDecodeError) -> ConnectionClosed:
        """The application wanted text and got something else."""
        self._fail(explain_failure(exc), exc)
        return self._closed()

    def _read(self, deadline: Optional[Deadline]) -> None:
        """Wait for input and feed it to the decoder. Reader role."""
        transport = self._transport
        try:
            if not self._received:
                if deadline is None:
                    transport.read(self._received, self.options.read_limit)
                elif not transport.read_nowait(self._received, self.options.read_limit):
                    if not transport.wait_readable(deadline.remaining()):
                        raise _OutOfTime
                    return
        except OSError as exc:
            self._eof(exc)
            return
        self._feed()

    def _read_now(self) -> bool:
        """Feed what has arrived to the decoder; false if nothing has. Reader role."""
        try:
            if not self._received and not self._transport.read_nowait(
                self._received, self.options.read_limit
            ):
                return False
        except OSError as exc:
            self._eof(exc)
            return True
        self._feed()
        return True

    def _feed(self) -> None:
        received = self._received
        data = received[0] if len(received) == 1 else b"".join(received)
        if not data:
            self._eof(None)
            return
        end = not received[-1]
        self._torn = True
        self._inbound.feed(data)
        # The end of input is for the next time: what came before must be decoded first.
        received[:] = [b""] if end else []
        self._torn = False
        self._reads += 1
        self._received_bytes += len(data)

    def _decode(self, busy: bool = False) -> Optional[Message]:
        """
        Decode up to the next message, handling control frames. Reader role.

        Args:
            busy: messages before this one still wait for the application; an error of the
                peer is then kept until they have been delivered and answered.
        """
        while self._peer_error is None:
            event = self._control
            if event is None:
                if self._torn:
                    self._fail(Close(CloseCode.INTERNAL_ERROR, "interrupted"), None)
                    return None
                self._torn = True
                try:
                    decoded = self._inbound.next()
                except PeerError as exc:
                    self._peer_error = exc
                    self._torn = False
                    break
                self._torn = False
                if decoded is None:
                    return None
                if isinstance(decoded, Message):
                    self._received_messages += 1
                    return decoded
                self._control = event = decoded
            self._handle(event)
            self._control = None
        if not busy and not self._closing.over:
            self._fail(explain_failure(self._peer_error), self._peer_error)
        return None

    def _handle(self, control: Control) -> None:
        """Answer a control frame (RFC 6455 §5.5). Reader role."""
        if control.close is not None:
            self._answer_close(control.close)
        elif control.opcode == Opcode.PONG:
            self._acknowledge(control.data)
        elif self._closing.phase is Phase.OPEN:
            frame = OutFrame(self._outbound.encode(FIN | Opcode.PONG, control.data))
            self._outbox.pong.append(frame)
            self._push()

    def _acknowledge(self, data: bytes) -> None:
        with self._outbound_lock:
            if data not in self._pings:
                return  # RFC 6455 §5.5.3: a pong may come unasked
            now = time.monotonic()
            # §5.5.3: it may answer only the latest of several pings.
            for payload in list(self._pings):
                waiter = self._pings.pop(payload)
                waiter.set()
                if payload == data:
                    self.latency = now - waiter.sent_at
                    return

    # Sending

    def send(
        self,
        message: Union[DataLike, Iterable[DataLike]],
        text: Optional[bool] = None,
        *,
        compress: bool = True,
        timeout: Optional[float] = None,
    ) -> None:
        """
        Send a message; blocks until it is with the kernel.

        A string is sent as text, bytes are sent as binary. An iterable of either sends a
        fragmented message (RFC 6455 §5.4), one frame for each item.

        Args:
            message: what to send.
            text: ``True`` to send bytes, which must be UTF-8, as text; ``False`` to send a string
                as binary.
            compress: ``False`` to send this message uncompressed.
            timeout: seconds to wait at most, also if the peer is slow but not stopped.

        Raises:
            ConnectionClosed: the connection is closed, or the peer took nothing for
                ``send_timeout`` seconds.
            ConcurrencyError: another thread is sending a fragmented message.
            TimeoutError: after ``timeout`` seconds. What was queued by then will be sent in
                the background.
            TypeError: the message is of another type, or of mixed types. In the
                middle of a fragmented message the connection is closed with 1011.
        """
        if isinstance(message, str):
            opcode = Opcode.BINARY if text is False else Opcode.TEXT
            self._transmit(FIN | opcode, message.encode(), compress, timeout)
        elif isinstance(message, BytesLike):
            opcode = Opcode.TEXT if text else Opcode.BINARY
            self._transmit(FIN | opcode, bytes(message), compress, timeout)
        elif isinstance(message, Mapping):
            raise TypeError("data is a dict-like object")
        elif isinstance(message, Iterable):
            self._send_fragments(iter(message), text, compress, timeout)
        else:
            raise TypeError("data must be str, bytes, or iterable")

    def _send_fragments(
        self,
        fragments: Iterator[DataLike],
        text: Optional[bool],
        compress: bool,
        timeout: Optional[float],
    ) -> None:
        """Send one frame for each item, and an empty one at the end."""
        token = object()
        try:
            kind, head = None, 0
            for fragment in fragments:
                if kind is None:
                    kind = str if isinstance(fragment, str) else BytesLike
                    head = self._first_head(fragment, text)
                elif not isinstance(fragment, kind):
                    raise TypeError("iterable must contain uniform types")
                data = fragment.encode() if isinstance(fragment, str) else bytes(fragment)
                self._transmit(head, data, compress, timeout, token)
                head = Opcode.CONT
            if kind is not None:
                self._transmit(FIN | Opcode.CONT, b"", compress, timeout, token)
        except BaseException:
            self._break_fragments(token)
            raise

    def _first_head(self, fragment: Any, text: Optional[bool]) -> int:
        if isinstance(fragment, str):
            return Opcode.BINARY if text is False else Opcode.TEXT
        if isinstance(fragment, BytesLike):
            return Opcode.TEXT if text else Opcode.BINARY
        raise TypeError("iterable must contain bytes or str")

    def _break_fragments(self, token: object) -> None:
        """A fragmented message can't be completed: the connection is unusable."""
        if self._fragmenting is token:
            self._fail(Close(CloseCode.INTERNAL_ERROR, "error in fragmented message"), None)

    def _transmit(
        self,
        head: int,
        data: bytes,
        compress: bool,
        timeout: Optional[float],
        token: Optional[object] = None,
    ) -> None:
        """Send a data frame; ``token`` identifies the fragmented message that it is part of."""
        deadline = None if timeout is None else Deadline(timeout)
        self._make_room(deadline)
        codec = self._outbound.codec
        if codec is None or not compress or self._is_small(codec, data, token):
            frame = OutFrame(self._outbound.encode(head, data))
            self._queue_data(frame, head, token)
        else:
            frame = self._queue_deflated(codec, head, data, token)
        if not frame.done:
            self._wait_written(frame, deadline)

    @staticmethod
    def _is_small(codec: DeflateCodec, data: bytes, token: Optional[object]) -> bool:
        # The frames of a message are compressed all or none (RFC 7692 §6.1).
        return token is None and len(data) < codec.threshold

    def _queue_deflated(
        self, codec: DeflateCodec, head: int, data: bytes, token: Optional[object]
    ) -> OutFrame:
        with self._deflate_lock:
            try:
                frame = OutFrame(self._outbound.encode_deflated(head, data))
                self._queue_data(frame, head, token)
            except BaseException:
                # The peer won't see this message, so no later one may refer to it.
                codec.reset_deflater()
                raise
        return frame

    def _queue_data(self, frame: OutFrame, head: int, token: Optional[object]) -> None:
        """Queue a data frame and hand the kernel what it takes."""
        with self._outbound_lock:
            is_open = self._closing.phase is Phase.OPEN and self._broken is None
            if is_open:
                if self._fragmenting is not token:
                    self._begin_fragments(head, token)
                if head & FIN:
                    self._fragmenting = None
                    self._sent_messages += 1
                self._outbox.put(frame)
                self._flush()
        if not is_open or self._broken is not None:
            raise self._why_closed()

    def _begin_fragments(self, head: int, token: Optional[object]) -> None:
        if self._fragmenting is not None or head & ~FIN == Opcode.CONT:
            raise ConcurrencyError("cannot call send while another thread is already running send")
        self._fragmenting = token

    def _flush(self) -> bool:
        """Hand the kernel what it takes; true if nothing is left. Outbound lock."""
        try:
            flushed = self._outbox.flush()
        except OSError as exc:
            self.break_off(exc)
            self._outbox.clear()
            return True
        if flushed and self._closing.over and not self.is_client and not self._half_closed:
            # RFC 6455 §7.1.1: the server ends TCP first.
            self._half_closed = True
            self._transport.shutdown_write()
        return flushed

    def _push(self) -> None:
        """Hand the kernel what it takes, and leave the rest to the service thread."""
        with self._outbound_lock:
            flushed = self._flush()
        if not flushed:
            service.request(self)

    def _wait_written(self, frame: OutFrame, deadline: Optional[Deadline]) -> None:
        """Wait until a frame is with the kernel."""
        now, progress = time.monotonic(), self._transport.sends
        self._wait_until(lambda: frame.done, deadline, now, progress)

    def _make_room(self, deadline: Optional[Deadline] = None) -> None:
        """Wait until the outbox is within its limit."""
        limit = self.options.write_limit
        if self._outbox.waiting > limit:
            now, progress = time.monotonic(), self._transport.sends
            self._wait_until(lambda: self._outbox.waiting <= limit, deadline, now, progress)

    def _wait_until(
        self,
        done: Callable[[], bool],
        deadline: Optional[Deadline],
        progress_at: float,
        progress: int,
    ) -> None:
        """
        Write what waits until ``done()``.

        Args:
            progress_at, progress: when the transport's count of sends was seen last to change.

        Raises:
            TimeoutError: the deadline expired.
            ConnectionClosed: no progress within ``send_timeout``, or the connection ended.
        """
        limit = self.options.send_timeout
        with self._outbound_lock:
            self._pollers += 1
        # This thread does not read: the service thread must do it from here on.
        service.request(self)
        try:
            while not done():
                if self._broken is not None or self.is_gone:
                    raise self._why_closed()
                self._transport.wait_writable(self._slice(deadline))
                with self._outbound_lock:
                    self._flush()
                now = time.monotonic()
                if self._transport.sends != progress:
                    progress_at, progress = now, self._transport.sends
                elif limit is not None and now - progress_at >= limit:
                    self.break_off(TimeoutError(f"the peer took nothing for {limit:.1f}s"))
                if deadline is not None and deadline.expired() and not done():
                    raise TimeoutError("timed out while sending")
        finally:
            with self._outbound_lock:
                self._pollers -= 1
            if self.is_gone:
                self._release()

    def _slice(self, deadline: Optional[Deadline]) -> float:
        # Slices, since another thread may write this thread's frame.
        remaining = None if deadline is None else deadline.remaining()
        limits = (SLICE, self.options.send_timeout, remaining)
        return min(limit for limit in limits if limit is not None)

    # For broadcast

    @property
    def progress(self) -> int:
        """A number that changes when the kernel takes something."""
        return self._transport.sends

    def offer(self, shared: SharedMessage) -> Offer:
        """Send a message if there is room for it; never waits for the peer."""
        codec = self._outbound.codec
        if codec is None or len(shared.data) < codec.threshold:
            return self._offer(OutFrame(shared.encode(self._outbound, None)))
        with self._deflate_lock:
            offer = self._offer(OutFrame(shared.encode(self._outbound, codec)))
            if offer is Offer.SENT or offer is Offer.QUEUED:
                # The peer's window has moved by a message that our deflater doesn't know.
                codec.reset_deflater()
            return offer

    def _offer(self, frame: OutFrame) -> Offer:
        with self._outbound_lock:
            if self._closing.phase is not Phase.OPEN or self._broken is not None:
                return Offer.CLOSED
            if self._fragmenting is not None:
                return Offer.BUSY
            if not self._has_room(frame.size):
                return Offer.FULL
            self._outbox.put(frame)
            self._sent_messages += 1
            flushed = self._flush()
        if self._broken is not None:
            return Offer.CLOSED
        if flushed:
            return Offer.SENT
        service.request(self)
        return Offer.QUEUED

    def _has_room(self, size: int) -> bool:
        waiting = self._outbox.waiting
        return not waiting or waiting + size <= self.options.write_limit

    def wait_room(self, shared: SharedMessage, began: float, progress: int) -> None:
        """
        Wait until there may be room for a message.

        Args:
            began, progress: when ``progress`` was last seen to change, and its value then.

        Raises:
            ConnectionClosed: it is closed, or there was no progress for ``send_timeout``.
        """
        size = len(shared.data)
        self._wait_until(lambda: self._has_room(size), None, began, progress)

    def start_closing(self, close: Close) -> None:
        """Send a Close frame, and leave the rest to the service thread; never blocks."""
        self._begin_close(close)

    def ping(self, data: Optional[DataLike] = None, *, ack_on_close: bool = False) -> PongWaiter:
        """
        Send a ping (RFC 6455 §5.5.2); does not wait for the pong.

        Args:
            data: payload, at most 125 bytes; a string is encoded in UTF-8; default: four random bytes.
            ack_on_close: set the event also when the connection ends.

        Returns:
            An event to ``wait(timeout)`` for.

        Raises:
            ConnectionClosed: the connection is closed.
            ConcurrencyError: a ping with the same data has not been answered yet.
        """
        payload = None if data is None else _control_payload(data)
        waiter = PongWaiter(ack_on_close)
        self._send_control(Opcode.PING, payload, waiter)
        return waiter

    def pong(self, data: DataLike = b"") -> None:
        """
        Send a pong that nobody asked for (RFC 6455 §5.5.3): a one-way heartbeat.

        Args:
            data: payload, at most 125 bytes; a string is encoded in UTF-8.

        Raises:
            ConnectionClosed: the connection is closed.
        """
        self._send_control(Opcode.PONG, _control_payload(data), None)

    def _send_control(
        self, opcode: int, payload: Optional[bytes], waiter: Optional[PongWaiter]
    ) -> None:
        self._make_room()
        with self._outbound_lock:
            is_open = self._closing.phase is Phase.OPEN and self._broken is None
            if is_open:
                if payload in self._pings:
                    raise ConcurrencyError("already waiting for a pong with the same data")
                while payload is None or payload in self._pings:
                    payload = os.urandom(4)
                if waiter is not None:
                    self._pings[payload] = waiter
                self._outbox.put_control(OutFrame(self._outbound.encode(FIN | opcode, payload)))
                flushed = self._flush()
        if not is_open or self._broken is not None:
            raise self._why_closed()
        if not flushed:
            service.request(self)

    # Closing

    def close(self, code: int = CloseCode.NORMAL_CLOSURE, reason: str = "") -> None:
        """
        Do the closing handshake and end the TCP connection (RFC 6455 §7.1).

        Waits ``close_timeout`` seconds at most, then ends the connection without the peer. Idempotent. Wakes
        all threads that wait in ``recv()`` or ``send()``. Messages that arrived before
        can still be received.

        Args:
            code: 1000 to 1014 except 1004, 1005 and 1006, or 3000 to 4999.
            reason: at most 123 bytes in UTF-8.

        Raises:
            ProtocolError: the code or the reason is not allowed.
        """
        self._begin_close(Close(int(code), reason))
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

    def _begin_close(self, close: Close) -> None:
        """Send a Close frame if none was sent. Never blocks."""
        frame = OutFrame(self._outbound.encode_close(close))
        with self._outbound_lock:
            if self._fragmenting is not None:
                close = Close(CloseCode.INTERNAL_ERROR, "close during fragmented message")
                frame = OutFrame(self._outbound.encode_close(close))
            if self._closing.send(close):
                self._end_output(frame)
            flushed = self._flush()
        if not flushed:
            service.request(self)

    def _end_output(self, frame: Optional[OutFrame]) -> None:
        """Queue the Close frame and start the clock of the closing handshake. Outbound lock."""
        if frame is not None:
            self._outbox.put_close(frame)
        if self._close_by is None and self.options.close_timeout is not None:
            self._close_by = time.monotonic() + self.options.close_timeout

    def _answer_close(self, close: Close) -> None:
        """A Close frame was received (RFC 6455 §5.5.1, §7.1.5). Reader role."""
        with self._outbound_lock:
            answer = self._closing.receive(close)
            frame = None if answer is None else OutFrame(self._outbound.encode_close(answer))
            self._end_output(frame)
            flushed = self._flush()
        if not flushed:
            service.request(self)

    def _fail(self, close: Close, cause: Optional[BaseException]) -> None:
        """Fail the connection (RFC 6455 §7.1.7): say why, and ignore what comes. Never blocks."""
        frame = OutFrame(self._outbound.encode_close(close))
        with self._outbound_lock:
            if self._closing.over:
                return
            self._cause = self._cause or cause
            self._end_output(frame if self._closing.fail(close) else None)
            flushed = self._flush()
        if not flushed:
            service.request(self)

    def break_off(self, exc: BaseException) -> None:
        """
        End both directions of the transport; waiting threads wake up. Takes no lock.

        Input that arrived before, such as the Close frame of the peer, can still be read.
        """
        if self._broken is None:
            self._broken = exc
        self._transport.abort()

    def _eof(self, exc: Optional[BaseException]) -> None:
        """The TCP connection ended (RFC 6455 §7.1.4). Reader role, or nobody else inside."""
        with self._outbound_lock:
            if not self._closing.over:
                self._cause = self._cause or self._broken or exc
            self._closing.eof()
            self._outbox.clear()
            for waiter in self._pings.values():
                waiter.end()
            self._pings.clear()
            if self._gone is not None:
                self._gone.set()
        self._inbound.end()
        # Writers must not wait for a transport that nobody reads any more.
        self._transport.abort()

    def _finish_close(self) -> None:
        """Wait for the end of the connection until the deadline of the closing handshake."""
        self._read_until(lambda: self.is_gone)
        if not self.is_gone:
            self.break_off(TimeoutError("timed out while closing the connection"))
            self._collect()
            if not self.is_gone:
                self._eof(None)
        self._release()

    def _read_until(self, done: Any) -> None:
        """Read, dropping what the inbox can't take, until ``done()`` or the closing deadline."""
        deadline = _deadline_at(self._close_by)
        while not done():
            remaining = deadline.remaining()
            if remaining == 0 or not self._reader.acquire(
                timeout=-1 if remaining is None else remaining
            ):
                return
            try:
                self._read_to_end(deadline, done)
            finally:
                self._reader.release()

    def _read_to_end(self, deadline: Deadline, done: Any) -> None:
        """Advance the closing handshake. Reader role."""
        while not done():
            if not self._closing.over:
                message = self._decode()
                if message is not None:
                    # RFC 6455 §1.4: what comes after our Close frame may be discarded.
                    if self._inbox.has_room():
                        self._inbox.put(message)
                    continue
                if self._closing.over or self._read_now():
                    continue
            elif self._discard():
                continue
            if not self._transport.wait_readable(deadline.remaining()):
                return

    def _discard(self) -> bool:
        """Throw away what comes after the closing handshake. Reader role."""
        try:
            size = self._transport.discard(self.options.read_limit)
        except OSError:
            size = 0
        if size is None:
            return False
        self._discarded += size
        if not size or self._discarded > DRAIN_LIMIT:
            self._eof(None)
        return True

    def _collect(self) -> None:
        """Read what had arrived before the transport was broken off, such as a Close frame."""
        if not self._reader.acquire(timeout=LEAVE_TIMEOUT):
            return
        try:
            while not self.is_gone and self._inbox.has_room():
                if self._closing.over:
                    if not self._discard():
                        return
                    continue
                message = self._decode(busy=True)
                if message is not None:
                    self._inbox.put(message)
                elif self._peer_error is not None or not (self._closing.over or self._read_now()):
                    return
        finally:
            self._reader.release()

    def _why_closed(self) -> ConnectionClosed:
        """Find out how the connection ended, for a thread that can't send. Not in recv()."""
        if self._broken is not None:
            self._collect()
        elif not self._closing.over:
            self._read_until(lambda: self._closing.over)
        if self.is_gone:
            self._release()
        return self._closed()

    def _closed(self) -> ConnectionClosed:
        return self._closing.exception(self._cause or self._broken)

    def _release(self) -> None:
        """
        Give the descriptor back if the connection is gone and no thread is inside.

        Called by every thread that leaves, and by the service thread at each tick until done.
        """
        if self._released or not self._reader.acquire(blocking=False):
            return
        try:
            with self._outbound_lock:
                if self._released or self._pollers or self.watched:
                    return
                self._released = True
                self._transport.close()
        finally:
            self._reader.release()
        service.discard(self)

    # Opening, for subclasses

    def _open(self, extensions: Sequence[Any], leftover: bytes) -> None:
        """
        Start the life of the connection after the opening handshake.

        Args:
            extensions: the negotiated ones.
            leftover: input that came after the head.
        """
        options = self.options
        self._inbound = Inbound(
            masked=not self.is_client,
            max_size=options.max_size,
            max_fragment=options.max_fragment,
            extensions=extensions,
        )
        if leftover:
            self._inbound.feed(leftover)
        self._outbound = Outbound(masked=self.is_client, extensions=extensions, random=os.urandom)
        if options.ping_interval is not None:
            self._next_ping = self._keepalive_due = time.monotonic() + options.ping_interval
        self._transport.set_user_timeout(self._user_timeout())
        self._opened = True
        service.add(self)

    def _user_timeout(self) -> Optional[float]:
        """A backstop: the kernel gives up later than keepalive and send_timeout do."""
        interval, timeout = self.options.ping_interval, self.options.ping_timeout
        if interval is None or timeout is None or self.options.send_timeout is None:
            return None
        return max(interval + timeout, self.options.send_timeout) + 1

    # For the service thread

    def idle(self, now: float) -> bool:
        """Tell whether a tick of the service thread has nothing to do here."""
        return (
            self._reader.locked()
            and now < self._keepalive_due
            and not self.watched
            and not self._outbox.waiting
            and self._closing.phase is Phase.OPEN
        )

    def attend(self, now: float) -> int:
        """Do what can be done without waiting; return the events to watch."""
        if not self._outbound_lock.acquire(timeout=0.02):
            return self.watched  # its holder may be under a signal handler; look again later
        self._outbound_lock.release()
        if not self.is_gone:
            self._attend_closing(now)
            self._keepalive(now)
            wanted = self._write_ahead() | self._read_ahead()
            if not self.is_gone:
                return wanted
        if not self.watched:
            self._release()
        return 0

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
        if self._close_request is not None and self._closing.phase is Phase.OPEN:
            self._begin_close(self._close_request)
        if self._close_by is not None and now >= self._close_by:
            self.break_off(TimeoutError("timed out while closing the connection"))

    def _write_ahead(self) -> int:
        if not self._outbox.waiting and not self._outbox.pong and self._outbox.settled:
            return 0
        with self._outbound_lock:
            return 0 if self._flush() else WRITE

    def _read_ahead(self) -> int:
        """Read for an application that is busy with something else."""
        away = self._takes == self._takes_seen or self._pollers > 0
        self._takes_seen = self._takes
        if not away and not self._closing.over and self._broken is None:
            return 0
        if not self._reader.acquire(blocking=False):
            return 0
        try:
            for _ in range(READS_AHEAD):
                if not self._closing.over and not self._fill_inbox():
                    return 0
                if self.is_gone:
                    return 0
                if not (self._discard() if self._closing.over else self._read_now()):
                    break
            return READ
        finally:
            self._reader.release()

    def _fill_inbox(self) -> bool:
        """Decode what is buffered into the inbox; tell whether more input is wanted."""
        while self._inbox.has_room() or self._closing.phase is not Phase.OPEN:
            message = self._decode(busy=self._inbox.count > 0)
            if message is None:
                return self._peer_error is None or self._closing.over
            if self._inbox.has_room():
                self._inbox.put(message)
        return False

    def _keepalive(self, now: float) -> None:
        """Ping at intervals, and fail the connection when no life follows."""
        if now < self._keepalive_due or self._closing.phase is not Phase.OPEN:
            return
        timeout = self.options.ping_timeout
        if self._pinged_at is not None and timeout is not None:
            if self._reads != self._reads_at_ping or self._transport.has_input():
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

    def _send_keepalive(self, now: float) -> None:
        assert self.options.ping_interval is not None
        self._next_ping = now + self.options.ping_interval
        if self._pinged_at is None:
            self._pinged_at = now
            self._reads_at_ping = self._reads
        with self._outbound_lock:
            # Of pings that are never answered, one is remembered.
            self._pings.pop(self._keepalive_ping, None)
            self._keepalive_ping = os.urandom(8)
            self._pings[self._keepalive_ping] = PongWaiter()
            ping = self._outbound.encode(FIN | Opcode.PING, self._keepalive_ping)
            if not self._outbox.waiting:
                self._outbox.put_control(OutFrame(ping))
                self._flush()


class _OutOfTime(Exception):
    """A deadline expired while waiting for input."""


def _deadline_at(moment: Optional[float]) -> Deadline:
    deadline = Deadline(None)
    deadline.at = moment
    return deadline


def _control_payload(data: DataLike) -> bytes:
    if isinstance(data, str):
        payload = data.encode()
    elif isinstance(data, BytesLike):
        payload = bytes(data)
    else:
        raise TypeError("data must be str or bytes-like")
    if len(payload) > 125:
        raise ValueError(f"a ping or pong has at most 125 bytes, not {len(payload)}")
    return payload
