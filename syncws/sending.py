"""
The sending half of a connection: messages, pings, Close frames, and who writes them to the socket.

Who holds what: see :mod:`syncws.connection`.
"""

from __future__ import annotations

import enum
import logging
import os
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar, Union

from .deadline import Deadline
from .exceptions import ConcurrencyError, ConnectionClosed
from .frames import FIN, RSV1
from .messages import WHOLE_BINARY, WHOLE_TEXT
from .opcodes import Close, CloseCode, Opcode
from .options import Options
from .permessage_deflate import DeflateCodec
from .protocol import MASKED_OUTBOUND, OUTBOUND, Closing, Outbound
from .queues import Outbox, OutFrame
from .service import service
from .speedups import message_block, try_send
from .transport import JOIN_LIMIT, SLICE, Transport

__all__ = ["Data", "DataLike", "LoggerLike", "Offer", "PongWaiter", "Sending", "SharedMessage"]

# A pause in which another thread gets to run, or to take a lock.
BREATH = 0.0005  # seconds

Data = Union[str, bytes]
BytesLike = (bytes, bytearray, memoryview)
DataLike = Union[str, bytes, bytearray, memoryview]
LoggerLike = Union[logging.Logger, "logging.LoggerAdapter[Any]"]


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
        self.is_text = opcode == Opcode.TEXT
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


class Sending:
    """
    What a connection is made of as far as sending goes. Not for use by itself.

    Thread safety: as for :class:`Connection`.
    """

    __slots__ = (
        "_at_rest",
        "_broken",
        "_cause",
        "_close_by",
        "_closing",
        "_corked",
        "_corks",
        "_deflate_lock",
        "_dropped_messages",
        "_fragmenting",
        "_half_closed",
        "_ids",
        "_is_simple_sender",
        "_logger",
        "_opened",
        "_outbound",
        "_outbound_lock",
        "_outbox",
        "_pings",
        "_pollers",
        "_said_slow",
        "_sent_messages",
        "_transport",
        "awaited",
        "latency",
        "options",
    )

    # Whether this end is the client: it masks, and leaves it to the server to end TCP.
    is_client = False

    def __init__(self, transport: Transport, options: Options, logger: LoggerLike) -> None:
        self._ids: list[uuid.UUID] = []  # the first one counts
        self.latency: float = 0.0
        """Seconds between the last answered ping and its pong; 0.0 before the first."""
        self.options = options
        self._logger = logger
        self._transport = transport
        self._opened = False

        # Keeps compressed frames in the order in which the deflater made them.
        self._deflate_lock = threading.Lock()
        self._outbound = MASKED_OUTBOUND if self.is_client else OUTBOUND
        self._is_simple_sender = False  # whether frames are the same bytes for each receiver

        # Whether the service thread is about to take the outbound lock; written by it alone.
        self.awaited = False

        # Guarded by _outbound_lock.
        self._outbound_lock = threading.Lock()
        self._at_rest = False  # whether nothing is in the way of try_block()
        self._closing = Closing()
        self._outbox = Outbox(transport)
        self._fragmenting: Optional[object] = None  # who is sending a fragmented message
        self._pings: dict[bytes, PongWaiter] = {}
        self._pollers: list[weakref.ref[_Poller]] = []  # threads waiting for writability
        self._corks: list[weakref.ref[Any]] = []  # threads that collect what they send
        self._corked: Optional[OutFrame] = None  # the last that was collected
        self._half_closed = False
        self._sent_messages = 0
        self._dropped_messages = 0
        self._said_slow = False  # whether it was logged that broadcasts are dropped

        # Set once, by single atomic stores.
        self._broken: Optional[BaseException] = None  # why the transport was aborted
        self._cause: Optional[BaseException] = None  # what ConnectionClosed is chained to
        self._close_by: Optional[float] = None  # monotonic time; None: not closing, or no limit

    # What it is

    @property
    def id(self) -> uuid.UUID:
        """Unique identifier, for logs."""
        # Made when needed, and without a lock: a signal handler may ask for it too. Of two threads
        # that ask at once each appends one, and both get the first.
        if not self._ids:
            self._ids.append(uuid.uuid4())
        return self._ids[0]

    @property
    def logger(self) -> LoggerLike:
        """Logger of this connection; its records have the attribute ``websocket``."""
        # Made when needed: kept here, it would make a cycle, and the connection outlive its use.
        return logging.LoggerAdapter(self._logger, {"websocket": self})

    @property
    def is_open(self) -> bool:
        """Whether messages can be sent, as far as is known."""
        return self._opened and self._closing.open and self._broken is None

    @property
    def is_gone(self) -> bool:
        """Whether the TCP connection has ended."""
        return self._closing.gone

    # Messages

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
        if self._at_rest or self._corks:
            block = message_block(message, text, JOIN_LIMIT)
            sent = block is not None and (
                (self._at_rest and try_send(self, block)) or self.try_block(block)
            )
            if sent is True:
                return
            if sent is not False:
                self._wait_written(sent, None if timeout is None else Deadline(timeout))
                return
        deadline = None if timeout is None else Deadline(timeout)
        if isinstance(message, str):
            head = WHOLE_BINARY if text is False else WHOLE_TEXT
            self._transmit(head, message.encode(), compress, deadline)
        elif isinstance(message, BytesLike):
            head = WHOLE_TEXT if text else WHOLE_BINARY
            self._transmit(head, bytes(message), compress, deadline)
        elif isinstance(message, Mapping):
            raise TypeError("data is a dict-like object; send json.dumps(data)")
        elif isinstance(message, Iterable):
            self._send_fragments(iter(message), text, compress, deadline)
        else:
            raise TypeError(f"data must be str, bytes, or iterable, not {type(message).__name__}")

    def _send_fragments(
        self,
        fragments: Iterator[DataLike],
        text: Optional[bool],
        compress: bool,
        deadline: Optional[Deadline],
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
                    raise TypeError("iterable must contain uniform types, all str or all bytes")
                data = fragment.encode() if isinstance(fragment, str) else bytes(fragment)
                self._transmit(head, data, compress, deadline, token)
                head = Opcode.CONT
            if kind is not None:
                self._transmit(FIN | Opcode.CONT, b"", compress, deadline, token)
        except BaseException:
            self._break_fragments(token)
            raise

    def _first_head(self, fragment: Any, text: Optional[bool]) -> int:
        if isinstance(fragment, str):
            return Opcode.BINARY if text is False else Opcode.TEXT
        if isinstance(fragment, BytesLike):
            return Opcode.TEXT if text else Opcode.BINARY
        raise TypeError(f"iterable must contain bytes or str, not {type(fragment).__name__}")

    def _break_fragments(self, token: object) -> None:
        """A fragmented message can't be completed: the connection is unusable."""
        if self._fragmenting is token:
            self._fail(Close(CloseCode.INTERNAL_ERROR, "error in fragmented message"), None)

    def try_block(self, block: bytes, *, collect: bool = True) -> Union[OutFrame, bool]:
        """
        Send a message by the shortest way, if nothing stands in its way.

        Args:
            block: an uncompressed and unmasked frame, not larger than ``JOIN_LIMIT``.
            collect: whether it may be kept for the end of a cork.

        Returns:
            Whether it was sent; or what waits of it.
        """
        if self.awaited:
            return False
        outbox = self._outbox
        with self._outbound_lock:
            if not self._at_rest:
                return collect and self._collect_block(block)
            self._at_rest = False  # until all has gone well
            try:
                waits = outbox.send_block(block)
            except OSError as exc:
                self._break_output(exc)
                return False
            self._sent_messages += 1
            if waits is None:
                self._at_rest = True
                return True
            return waits

    def _look_at_rest(self) -> None:
        """Note whether ``try_block()`` may go its way. Outbound lock."""
        outbox = self._outbox
        self._at_rest = (
            self._is_simple_sender
            and outbox.settled
            and not outbox.waiting
            and outbox.pong is None
            and self._closing.open
            and self._broken is None
            and self._fragmenting is None
            and not self._corks
        )

    def _collect_block(self, block: bytes) -> bool:
        """Queue a message for the end of a cork; false if that can't be. Outbound lock."""
        if (
            not self._is_simple_sender
            or not self._closing.open
            or self._fragmenting is not None
            or self._outbox.waiting > self.options.write_limit
        ):
            return False
        for cork in self._corks:
            if cork() is not None:
                self._corked = self._outbox.put_block(block)
                self._sent_messages += 1
                return True
        return False

    def _transmit(
        self,
        head: int,
        data: bytes,
        compress: bool,
        deadline: Optional[Deadline],
        token: Optional[object] = None,
    ) -> None:
        """Send a data frame; ``token`` identifies the fragmented message that it is part of."""
        if self._outbox.waiting > self.options.write_limit or not self._opened:
            self._make_room(deadline)
        codec = self._outbound.codec
        if codec is None or not compress or self._is_small(codec, data, token):
            sent = self._queue_data(self._outbound.encode(head, data), head, token)
        else:
            sent = self._queue_deflated(codec, head, data, token)
        if sent is True:
            if not self._outbox.settled:
                service.request(self)  # TLS has the end of it, and the kernel does not
        elif sent is False:
            raise self._why_closed(deadline)
        else:
            self._wait_written(sent, deadline)

    @staticmethod
    def _is_small(codec: DeflateCodec, data: bytes, token: Optional[object]) -> bool:
        # The frames of a message are compressed all or none (RFC 7692 §6.1).
        return token is None and len(data) < codec.threshold

    def _queue_deflated(
        self, codec: DeflateCodec, head: int, data: bytes, token: Optional[object]
    ) -> Union[OutFrame, bool]:
        with self._deflate_lock:
            try:
                return self._queue_data(self._outbound.encode_deflated(head, data), head, token)
            except BaseException:
                # The peer won't see this message, so no later one may refer to it.
                codec.reset_deflater()
                raise

    def _queue_data(
        self, buffers: tuple[bytes, bytes], head: int, token: Optional[object]
    ) -> Union[OutFrame, bool]:
        """
        Queue a data frame and hand the kernel what it takes.

        Returns:
            ``True`` if that is all, or this is for later; false if closed or broken; else what
            waits.
        """
        if self.awaited:
            time.sleep(BREATH)
        with self._outbound_lock:
            if not self._closing.open or self._broken is not None:
                return False
            self._at_rest = False
            if self._fragmenting is not token:
                self._begin_fragments(head, token)
            waits = None
            try:
                if any(map(is_alive, self._corks)):
                    self._corked = self._outbox.put(buffers)
                else:
                    if self._corks:  # of threads that never came to the end of the block
                        self._corks = []
                        self._corked = None
                    waits = self._outbox.send(buffers)
            except OSError as exc:
                self._break_output(exc)
                return False
            if head & FIN:
                self._fragmenting = None
                self._sent_messages += 1
            self._look_at_rest()
            return True if waits is None else waits

    def _begin_fragments(self, head: int, token: Optional[object]) -> None:
        if self._fragmenting is not None or head & ~FIN == Opcode.CONT:
            raise ConcurrencyError("cannot call send while another thread is already running send")
        self._fragmenting = token

    # Messages that are sent together

    def cork(self) -> Cork:
        """
        Collect messages, and send them in as few system calls as possible::

            with connection.cork():
                for message in messages:
                    connection.send(message)

        Until the end of the block ``send()`` returns at once, from any thread, unless more than
        ``write_limit`` bytes wait; the end of the block waits as ``send()`` does without it.
        What was collected is not held back for long: pings, pongs and the Close frame take it
        along, and so does the service thread after about 0.1 s.

        Raises:
            ConnectionClosed: at the end of the block, the connection is closed.
        """
        return Cork(self)

    def _uncork(self, cork: Cork, wait: bool) -> None:
        """Send what was collected; ``wait`` until the kernel has it."""
        with self._outbound_lock:
            self._corks = [ref for ref in self._corks if ref() not in (None, cork)]
            frame = self._corked
            if not self._corks:
                self._corked = None
            flushed = self._flush()
        if wait and frame is not None and not frame.done:
            self._wait_written(frame, None)
        elif not flushed:
            service.request(self)

    def _add_cork(self, cork: Cork) -> None:
        self._check_opened()
        with self._outbound_lock:
            self._at_rest = False
            self._corks = [*filter(is_alive, self._corks), weakref.ref(cork)]

    # Messages for many connections

    @property
    def progress(self) -> int:
        """A number that changes when the kernel takes something."""
        return self._transport.sends

    def offer(self, shared: SharedMessage) -> Offer:
        """Send a message if there is room for it; never waits for the peer."""
        codec = self._outbound.codec
        if codec is None or len(shared.data) < codec.threshold:
            return self._offer(shared.encode(self._outbound, None))
        with self._deflate_lock:
            offer = self._offer(shared.encode(self._outbound, codec))
            if offer is Offer.SENT or offer is Offer.QUEUED:
                # The peer's window has moved by a message that our deflater doesn't know.
                codec.reset_deflater()
            return offer

    def note_dropped(self, offer: Offer) -> None:
        """Count a message that could not be sent; say why, of a slow peer once."""
        with self._outbound_lock:
            self._dropped_messages += 1
            said, self._said_slow = self._said_slow, self._said_slow or offer is Offer.FULL
        if offer is Offer.BUSY:
            self.logger.warning("skipped broadcast: sending a fragmented message")
        elif not said:
            self.logger.warning(
                "broadcasts are dropped: over %d bytes, write_limit, wait for this peer",
                self.options.write_limit,
            )

    def _offer(self, buffers: tuple[bytes, bytes]) -> Offer:
        with self._outbound_lock:
            if not self._closing.open or self._broken is not None:
                return Offer.CLOSED
            if self._fragmenting is not None:
                return Offer.BUSY
            if self._outbox.waiting and not self._has_room(len(buffers[0]) + len(buffers[1])):
                return Offer.FULL
            self._at_rest = False
            try:
                waits = self._outbox.send(buffers)
            except OSError as exc:
                self._break_output(exc)
                return Offer.CLOSED
            self._sent_messages += 1
            self._look_at_rest()
        if waits is None and self._outbox.settled:
            return Offer.SENT
        return self.leave_to_service()

    def leave_to_service(self) -> Offer:
        """Have the service thread send what waits."""
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
        codec = self._outbound.codec
        if codec is not None and len(shared.data) < codec.threshold:
            codec = None
        # With its header and compressed, as offer() will count it: after a wait for less,
        # offer() would refuse it again at once, for ever if the peer takes no more.
        size = sum(map(len, shared.encode(self._outbound, codec)))
        self._wait_until(lambda: self._has_room(size), None, began, progress)

    # Pings and pongs (RFC 6455 §5.5.2, §5.5.3)

    def ping(self, data: Optional[DataLike] = None, *, ack_on_close: bool = False) -> PongWaiter:
        """
        Send a ping (RFC 6455 §5.5.2); does not wait for the pong.

        It waits, like ``send()``, while more than ``write_limit`` bytes wait for the peer.

        Args:
            data: payload, at most 125 bytes; a string is encoded in UTF-8; default: four
                random bytes.
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
            is_open = self._closing.open and self._broken is None
            if is_open:
                self._at_rest = False
                if waiter is not None:
                    payload = self._expect_pong(payload, waiter)
                frame = OutFrame(self._outbound.encode(FIN | opcode, payload or b""))
                self._outbox.put_control(frame)
                flushed = self._flush()
        if not is_open or self._broken is not None:
            raise self._why_closed(None)
        if not flushed:
            service.request(self)

    def _expect_pong(self, payload: Optional[bytes], waiter: PongWaiter) -> bytes:
        """Remember a ping that is about to be sent; returns its payload. Outbound lock."""
        if payload in self._pings:
            raise ConcurrencyError("already waiting for a pong with the same data")
        while payload is None or payload in self._pings:
            payload = os.urandom(4)
        self._pings[payload] = waiter
        return payload

    def _acknowledge(self, data: bytes) -> None:
        with self._outbound_lock:
            if data not in self._pings:
                return  # RFC 6455 §5.5.3: a pong may come unasked
            self.latency = time.monotonic() - self._pings[data].sent_at
            # §5.5.3: it may answer only the latest of several pings.
            payloads = list(self._pings)
            for payload in payloads[: payloads.index(data) + 1]:
                self._pings.pop(payload).set()

    # Close frames (RFC 6455 §5.5.1)

    def start_closing(self, close: Close) -> None:
        """Send a Close frame, and leave the rest to the service thread; never blocks."""
        self._begin_close(close)

    def _begin_close(self, close: Close) -> None:
        """Send a Close frame if none was sent. Never blocks."""
        if self._half_closed:
            return  # all is said
        # Once it is not open, it never is again.
        frame = OutFrame(self._encode_close(close)) if self._closing.open else None
        with self._outbound_lock:
            if self._broken is not None:
                return  # nothing would reach the peer, and nothing is to be said to have been sent
            if self._fragmenting is not None:
                close = Close(CloseCode.INTERNAL_ERROR, "close during fragmented message")
                frame = OutFrame(self._encode_close(close))
            self._at_rest = False
            if self._closing.send(close):
                self._end_output(frame)
            flushed = self._flush()
        if not flushed:
            service.request(self)

    def _encode_close(self, close: Close) -> tuple[bytes]:
        header, payload = self._outbound.encode_close(close)
        return (header + payload,)

    def _end_output(self, frame: Optional[OutFrame]) -> None:
        """Queue the Close frame and start the clock of the closing handshake. Outbound lock."""
        if frame is not None:
            self._outbox.put_close(frame)
        if self._close_by is None and self.options.close_timeout is not None:
            self._close_by = time.monotonic() + self.options.close_timeout

    def _answer_close(self, close: Close) -> None:
        """A Close frame was received (RFC 6455 §5.5.1, §7.1.5). Reader role."""
        with self._outbound_lock:
            self._at_rest = False
            answer = self._closing.receive(close)
            frame = None if answer is None else OutFrame(self._encode_close(answer))
            self._end_output(frame)
            flushed = self._flush()
        if not flushed:
            service.request(self)

    def _fail(self, close: Close, cause: Optional[BaseException]) -> None:
        """Fail the connection (RFC 6455 §7.1.7): say why, and ignore what comes. Never blocks."""
        frame = OutFrame(self._encode_close(close))
        with self._outbound_lock:
            if self._closing.over:
                return
            self._at_rest = False
            self._cause = self._cause or without_traceback(cause)
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
            self._broken = without_traceback(exc)
        self._transport.abort()

    def _closed(self) -> ConnectionClosed:
        return self._closing.exception(self._cause or self._broken)

    # Writing

    def _flush(self) -> bool:
        """Hand the kernel what it takes; true if nothing is left. Outbound lock."""
        self._at_rest = False
        flushed = self._flush_outbox()
        self._look_at_rest()
        return flushed

    def _flush_outbox(self) -> bool:
        if self._half_closed:
            self._outbox.clear()  # a pong that came too late
            return True
        try:
            flushed = self._outbox.flush()
        except OSError as exc:
            self._break_output(exc)
            return True
        if flushed and self._closing.over and not self._half_closed:
            # RFC 6455 §7.1.1: the server ends TCP first.
            flushed = self._half_closed = self._transport.shutdown_write(not self.is_client)
        return flushed

    def _break_output(self, exc: OSError) -> None:
        """The kernel takes nothing any more. Outbound lock."""
        self.break_off(exc)
        self._outbox.clear()

    def _push_pong(self, frame: OutFrame) -> None:
        """Send a pong, the latest only; never waits."""
        with self._outbound_lock:
            self._at_rest = False
            self._outbox.pong = frame
        self._push()

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

    def _check_opened(self) -> None:
        if not self._opened:
            raise RuntimeError("the opening handshake is not complete")

    def _make_room(self, deadline: Optional[Deadline] = None) -> None:
        """Wait until the outbox is within its limit."""
        self._check_opened()
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
        poller = _Poller()
        try:
            with self._outbound_lock:
                self._pollers = [*filter(is_alive, self._pollers), weakref.ref(poller)]
            # This thread does not read: the service thread must do it from here on.
            service.request(self)
            self._write_until(done, deadline, progress_at, progress)
        finally:
            del poller
            if self.is_gone:
                self._release()

    def _write_until(
        self,
        done: Callable[[], bool],
        deadline: Optional[Deadline],
        progress_at: float,
        progress: int,
    ) -> None:
        limit = self.options.send_timeout
        while not done():
            if self._broken is not None or self.is_gone:
                raise self._why_closed(deadline)
            give_up_at = None if limit is None else progress_at + limit
            try:
                self._transport.wait_writable(self._slice(deadline, give_up_at))
            except OSError as exc:  # the kernel has no memory for it
                self.break_off(exc)
            with self._outbound_lock:
                self._flush()
            now = time.monotonic()
            if self._transport.sends != progress:
                progress_at, progress = now, self._transport.sends
            elif give_up_at is not None and now >= give_up_at:
                self.break_off(TimeoutError(f"the peer took nothing for {limit:.1f}s"))
            if deadline is not None and deadline.expired() and not done():
                raise TimeoutError("timed out while sending")

    def _slice(self, deadline: Optional[Deadline], give_up_at: Optional[float]) -> float:
        """How long to wait for writability: in slices, as another thread may write our frame."""
        limits = [SLICE]
        if give_up_at is not None:
            limits.append(max(0.0, give_up_at - time.monotonic()))
        if deadline is not None and (remaining := deadline.remaining()) is not None:
            limits.append(remaining)
        return min(limits)

    # What the other parts of a connection provide

    def _why_closed(self, deadline: Optional[Deadline]) -> ConnectionClosed:
        """Find out by the deadline how the connection ended, for a thread that can't send."""
        raise NotImplementedError

    def _release(self, force: bool = False) -> None:
        """Give the descriptor back if the connection is gone and no thread is inside."""
        raise NotImplementedError


class Cork:
    """
    What :meth:`Connection.cork` returns: a block in which messages are collected.

    It counts as long as it lives, whatever exception ends the block, and wherever.
    """

    __slots__ = ("__weakref__", "_connection")

    def __init__(self, connection: Sending) -> None:
        self._connection = connection

    def __enter__(self) -> None:
        self._connection._add_cork(self)

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self._connection._uncork(self, wait=exc_type is None)


class _Poller:
    """
    A thread that waits for writability, as long as this object lives.

    It dies with the call that made it, whatever exception ends that, and wherever.
    """

    __slots__ = ("__weakref__",)


def is_alive(ref: weakref.ref[Any]) -> bool:
    return ref() is not None


Exc = TypeVar("Exc", bound=Optional[BaseException])


def without_traceback(exc: Exc) -> Exc:
    """Its frames refer to the connection: kept there, they would keep it alive."""
    link: Optional[BaseException] = exc
    while link is not None:
        link.__traceback__ = None
        link = link.__cause__ or link.__context__
    return exc


def _control_payload(data: DataLike) -> bytes:
    if isinstance(data, str):
        payload = data.encode()
    elif isinstance(data, BytesLike):
        payload = bytes(data)
    else:
        raise TypeError(f"data must be str or bytes-like, not {type(data).__name__}")
    if len(payload) > 125:
        raise ValueError(f"a ping or pong has at most 125 bytes, not {len(payload)}")
    return payload
