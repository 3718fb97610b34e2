"""
The receiving half of a connection: the reader role, and what is done under it.

Who holds what: see :mod:`syncws.connection`.
"""

from __future__ import annotations

import codecs
import itertools
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, Literal, Optional, Union, overload

from .deadline import Deadline
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedOK,
    PolicyViolation,
)
from .frames import FIN, MAX_HEADER, FrameDecoder
from .locks import Hold
from .messages import Message
from .opcodes import Close, CloseCode, Opcode
from .options import Options
from .protocol import NO_INPUT, UNFINISHED, Closing, Control, Inbound, PeerError, explain_failure
from .queues import Inbox, Outbox, OutFrame
from .rates import Meter
from .sending import BREATH, Data, LoggerLike, Sending, without_traceback
from .speedups import append_result, know_slots, receive_whole, whole_message
from .transport import SLICE, Transport

__all__ = ["Receiving"]

# What receive_whole() fills: the message as recv() returns it, if there is one; whether it is text.
Whole = list[Any]
# What recv_many() takes: it makes no object of what whole_message() returns.
Taken = Union[Message, tuple[bytes, Optional[str], int]]

# Input thrown away after the closing handshake, until the peer stops sending (RFC 6455 §7.1.1).
DRAIN_LIMIT = 64 * 1024 * 1024  # bytes
# Beyond so much it is done in no haste, for a peer that goes on sending takes time from others.
DRAIN_EAGERLY = 1024 * 1024  # bytes
DRAIN_PAUSE = 0.005  # seconds after each read

# Bytes of one read, unless the peer sends more. A buffer is allocated before each; large ones
# cost more than the read itself, when the allocator gets them from the kernel each time.
READ_SIZE = 4096  # bytes
# So many reads of less than a quarter of the size make it smaller again.
PATIENT_READS = 16

# How long a thread waits for another to leave a transport that was aborted.
LEAVE_TIMEOUT = 1.0  # seconds

# How long a call searches what is left after that for a message and a Close frame.
COLLECT_TIMEOUT = 0.25  # seconds


# A recv() whose time is up waits so long for the role: the service thread may have it for a
# moment, with a message for this call. It also covers a thread that is about to leave.
ROLE_GRACE = 0.05  # seconds


# What a peer may have decoded at a time that is no message: other threads get the interpreter
# in between. A thread that holds it is asked for it only every 5 ms, so that a few peers that send
# tiny frames without end could make all others wait.
MAX_STEPS = 64  # fragments, or control frames


class Receiving(Sending):
    """
    What a connection is made of as far as receiving goes. Not for use by itself.

    Thread safety: as for :class:`Connection`.
    """

    __slots__ = (
        "_control",
        "_discarded",
        "_given_back",
        "_gone",
        "_held_back",
        "_hungry",
        "_inbound",
        "_inbox",
        "_is_simple",
        "_meter",
        "_peer_error",
        "_peer_error_at",
        "_read_size",
        "_reader",
        "_received",
        "_received_bytes",
        "_received_messages",
        "_small_reads",
        "_streaming",
        "_takes",
        "_torn",
        "_unfinished",
        "_was_full",
        "_whole_messages",
    )

    def __init__(self, transport: Transport, options: Options, logger: LoggerLike) -> None:
        super().__init__(transport, options, logger)
        # Guarded by _reader, the reader role.
        self._reader = threading.Lock()
        self._inbound = NO_INPUT
        self._inbox = Inbox(options.max_queue, options.max_queue_bytes)
        self._received: list[bytes] = []  # read, not yet fed to the decoder
        self._read_size = min(READ_SIZE, options.read_limit)
        self._small_reads = 0  # in a row
        self._was_full = False  # whether the last read filled its buffer
        self._torn = False  # an exception hit the decoder half-way
        self._peer_error: Optional[Exception] = None  # found, not yet answered
        self._peer_error_at = 0.0
        self._hungry = False  # all input was decoded
        self._is_simple = False  # whether recv() may go the shortest way
        self._unfinished = False  # the service thread turned to others before that
        self._control: Optional[Control] = None  # received, not yet handled
        # What an exception such as that of Ctrl-C kept from being delivered. Appended to by any
        # thread; changed by single, atomic operations.
        self._given_back: list[Message] = []
        self._discarded = 0
        self._meter: Optional[Meter] = None
        self._held_back = False  # whether the rate limit ever made it wait
        self._streaming = False
        # Written under the role, read by the service thread.
        self._takes = 0
        self._received_messages = 0  # but those of receive_whole()
        self._whole_messages = 0
        self._received_bytes = 0
        # Guarded by _outbound_lock.
        self._gone: Optional[threading.Event] = None

    def __iter__(self) -> Iterator[Data]:
        try:
            while True:
                yield self.recv()
        except ConnectionClosedOK:
            return

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
        whole: Whole = [None, False]
        try:
            # The last step is the return: an exception before it gives the message back.
            if (
                timeout is None
                and self._is_simple
                and receive_whole(self, whole, decode, READ_SIZE)
            ):
                return whole[0]  # type: ignore[no-any-return]  # a list that C fills
        except BaseException:
            if whole[0] is not None:
                data = whole[0] if isinstance(whole[0], bytes) else whole[0].encode()
                self._given_back.append(Message(whole[1], data))
            raise
        return self._receive_one(timeout, decode)

    def _receive_one(self, timeout: Optional[float], decode: Optional[bool]) -> Data:
        box: list[Message] = []
        try:
            self._receive_any(timeout, box)
            return _data_of(box[0], decode)
        except UnicodeDecodeError as exc:
            raise self._refuse_text(exc) from exc
        except BaseException:
            self._given_back.extend(box)
            raise

    def recv_many(
        self,
        timeout: Optional[float] = None,
        decode: Optional[bool] = None,
        *,
        limit: Optional[int] = None,
    ) -> list[Data]:
        """
        Receive all messages that are there, and wait for the first if there is none.

        What has arrived together is decoded without further system calls: with a peer that sends
        many small messages this is several times as fast as calling ``recv()`` for each.
        What is returned at once has about ``max_queue_bytes`` at most.

        Args:
            timeout, decode: as for :meth:`recv`.
            limit: messages at most; ``None`` for no limit.

        Returns:
            At least one message.

        Raises:
            ConnectionClosed, TimeoutError, ConcurrencyError: as for :meth:`recv`.
            ValueError: the limit is less than 1.
        """
        if limit is not None and limit < 1:
            raise ValueError("limit must be at least 1")
        box: list[Taken] = []
        received: list[Data] = []
        try:
            self._receive_any(timeout, box, limit)
            for taken in box:
                if decode is None and type(taken) is tuple:
                    data, string, _ = taken
                    received.append(data if string is None else string)
                else:
                    received.append(_data_of(_message_of(taken), decode))
            return received
        except UnicodeDecodeError as exc:
            # The messages before it are good; the next call starts with it.
            first = 0 if received else 1
            self._given_back[0:0] = map(_message_of, box[len(received) + first :])
            if received:
                return received
            raise self._refuse_text(exc) from exc
        except BaseException:
            self._given_back.extend(map(_message_of, box))
            raise

    def _receive_any(
        self, timeout: Optional[float], box: list[Any], limit: Optional[int] = 1
    ) -> None:
        """Receive messages into ``box``, where no exception can lose them."""
        try:
            if timeout is None:
                with self._reader:
                    self._receive(None, box)
                    if limit != 1:
                        self._receive_ready(box, limit)
            else:
                self._receive_within(timeout, box, limit)
        finally:
            self._takes += 1
            if self._closing.gone:
                self._release()

    def _receive_ready(self, box: list[Any], limit: Optional[int]) -> None:
        """Put further messages into ``box`` that are there already. Reader role."""
        count = sys.maxsize if limit is None else limit
        most = self.options.max_queue_bytes
        room = (sys.maxsize if most is None else most) - box[0].size
        while len(box) < count and room > 0:
            size = len(box)
            if self._given_back:
                box.extend(itertools.starmap(self._given_back.pop, ((0,),)))
            elif self._inbox.messages:
                self._inbox.move_to(box)
            elif self._is_simple and not self._hungry:
                room -= self._take_whole(box, count, room)
                continue
            elif (
                self._hungry
                or (self._meter is not None and self._is_held_back(self._meter))
                or self._decode(busy=True, box=box) is None
            ):
                return
            room -= sum(message.size for message in box[size:])

    def _take_whole(self, box: list[Any], count: int, room: int) -> int:
        """
        Decode messages by the shortest way, as ``receive_whole()``; returns their size.

        Reader role.
        """
        inbound = self._inbound
        decoder = inbound.decoder
        buffer, pos, size = decoder.buffer, decoder.pos, 0
        masked, limit, before = decoder.masked, inbound.whole_limit, len(box)
        self._is_simple = False
        self._torn = True
        while len(box) < count and size < room:
            whole = whole_message(buffer, pos, masked, limit)
            if whole is None:
                break
            box.append(whole)
            pos = whole[2]
            size += len(whole[0])
        else:
            self._is_simple = True
        self._whole_messages += len(box) - before
        decoder.pos = pos
        self._hungry = inbound.is_used_up()
        self._is_simple = self._is_simple or self._hungry
        self._torn = False
        return size

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
        box: list[Message] = []
        try:
            with self._reader:
                if not self._inbox.count:
                    self._inbound.assembler.streaming = True
                self._receive(None, box, streaming=True)
                if box[0].final:
                    self._inbound.assembler.streaming = False
                return box[0]
        except ConnectionClosed:
            self._streaming = False
            raise
        finally:
            self._takes += 1
            if self.is_gone:
                self._release()

    def _receive_within(self, timeout: float, box: list[Any], limit: Optional[int] = 1) -> None:
        """Receive a message into ``box``, where no exception can lose it."""
        deadline = Deadline(max(0.0, timeout))
        hold = Hold(self._reader)
        try:
            try:
                if not hold.take(max(ROLE_GRACE, timeout)):
                    raise _OutOfTime
                self._receive(deadline, box)
                if limit != 1:
                    self._receive_ready(box, limit)
            finally:
                if hold.taken:
                    self._reader.release()
        except _OutOfTime:
            raise TimeoutError(f"timed out in {timeout:.1f}s") from None

    def _check_streaming(self, caller: str) -> None:
        if self._streaming:
            raise ConcurrencyError(
                f"cannot call {caller} while another thread is already running recv_streaming"
            )

    def _receive(
        self, deadline: Optional[Deadline], box: list[Message], streaming: bool = False
    ) -> None:
        """
        Put the next message into ``box``, reading as needed. Reader role.

        It goes there in single steps of C code: wherever an exception hits, it is in the box or
        still where it came from.
        """
        if not self._opened:
            self._check_opened()
        if self._streaming is not streaming:
            self._check_streaming("recv")
        tried = False
        rest: Optional[Deadline] = None
        while True:
            if self._given_back:
                box.extend(itertools.starmap(self._given_back.pop, ((0,),)))
                return
            if self._inbox.messages:
                self._inbox.move_to(box)
                return
            if self._meter is not None:
                self._wait_for_meter(self._meter, deadline)
            undecoded = not self._hungry or self._peer_error is not None
            if undecoded and self._decode(box=box) is not None:
                self._hungry = self._inbound.is_used_up()
                self._is_simple = self._seems_simple()
                return
            if self._closing.over:
                raise self._closed()
            if self._unfinished:
                self._unfinished = False
                continue
            if self._broken is not None:
                rest = rest or Deadline(COLLECT_TIMEOUT)
                if rest.expired():
                    self._eof(None)
                    continue
            if tried and deadline is not None and deadline.expired():
                raise _OutOfTime
            self._read(deadline)
            tried = True

    def _refuse_text(self, exc: UnicodeDecodeError) -> ConnectionClosed:
        """The application wanted text and got something else."""
        self._fail(explain_failure(exc), exc)
        return self._closed()

    # Reading and decoding, under the reader role

    def _seems_simple(self) -> bool:
        """Tell whether ``receive_whole()`` is worth a try. Reader role."""
        return (
            self._transport.direct
            and self._inbound.is_simple
            and self._meter is None
            and self._peer_error is None
            and not self._inbox.messages
            and self._control is None
            and not self._received
        )

    def _receive_whole(self, whole: Whole, decode: Optional[bool], read_size: int) -> bool:
        """``receive_whole()`` of syncws/speedups.py without the C module."""
        with self._reader:
            if self._is_simple and not (self._given_back or self._closing.over or self._streaming):
                self._take_first(whole, decode, read_size)
        return whole[0] is not None

    def _take_first(self, whole: Whole, decode: Optional[bool], read_size: int) -> None:
        """The same, under the reader role."""
        self._is_simple = False  # until all has gone well
        inbound, received, hungry = self._inbound, self._received, self._hungry
        decoder = inbound.decoder
        if hungry:
            try:
                if self._read_size > read_size:
                    self._wait_for_much()
                append_result(received, self._transport.recv, self._read_size)
            except OSError as exc:
                self._eof(exc)
                return
            buffer, pos = received[0], 0
        else:
            buffer, pos = decoder.buffer, decoder.pos
        message = whole_message(buffer, pos, decoder.masked, inbound.whole_limit)
        if message is None or (decode and message[1] is None):
            return
        data, string, pos = message
        text = string is not None
        self._torn = True
        self._hungry = False  # else nobody would see that it is torn
        whole[:] = (string if text and (decode is None or decode) else data, text)
        size = len(buffer)
        if hungry:
            received.clear()
            self._received_bytes += size
            if size >= self._read_size or self._read_size > read_size:
                self._adapt(size)
        if pos < size:
            decoder.buffer = buffer
            decoder.pos = pos
        else:
            decoder.release()
            self._hungry = True
        self._whole_messages += 1
        self._is_simple = True
        self._torn = False

    def _read(self, deadline: Optional[Deadline]) -> None:
        """Wait for input and feed it to the decoder. Reader role."""
        transport = self._transport
        self._is_simple = False  # as long as something may be left in _received
        try:
            if not self._received:
                if deadline is None:
                    if self._read_size > READ_SIZE:
                        self._wait_for_much()
                    transport.read(self._received, self._read_size)
                elif not transport.read_nowait(self._received, self._read_size):
                    if not transport.wait_readable(deadline.remaining()):
                        raise _OutOfTime
                    return
        except OSError as exc:
            self._eof(exc)
            return
        self._feed()

    def _read_now(self) -> bool:
        """Feed what has arrived to the decoder; false if nothing has. Reader role."""
        self._is_simple = False
        try:
            if not self._received and not self._transport.read_nowait(
                self._received, self._read_size
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
        self._torn = True
        self._is_simple = self._hungry = False
        self._inbound.feed(data)
        if received[-1]:
            received.clear()
        else:
            # The end of input is for the next time: what came before must be decoded first.
            received[:] = [b""]
        self._torn = False
        self._received_bytes += len(data)
        self._adapt(len(data))
        if self._meter is not None:
            self._measure(self._meter, 0, len(data))

    def _wait_for_much(self) -> None:
        """Wait before a large buffer is made, which would be kept while waiting."""
        if not self._was_full and self._transport.direct:
            self._transport.wait_readable(None)

    def _adapt(self, size: int) -> None:
        """Read more at a time from a peer that sends much, and less again later."""
        self._was_full = size >= self._read_size
        if size >= self._read_size:
            self._read_size = min(4 * self._read_size, self.options.read_limit + MAX_HEADER)
        if 4 * size >= self._read_size:
            self._small_reads = 0
            return
        self._small_reads += 1
        if self._small_reads > PATIENT_READS:
            self._small_reads = 0
            least = min(READ_SIZE, self.options.read_limit)
            self._read_size = max(self._read_size // 4, least)

    def _decode(
        self,
        busy: bool = False,
        box: Optional[list[Message]] = None,
        deadline: Optional[Deadline] = None,
    ) -> Optional[Message]:
        """
        Decode up to the next message, handling control frames. Reader role.

        Args:
            busy: messages before this one still wait for the application; an error of the
                peer is then kept until they have been delivered and answered.
            box: where to put the message too, before anything can come in between.
            deadline: of the caller, for what is no message.

        Returns:
            ``None`` when all input is decoded (``_hungry``), after an error, at the deadline, or
            if ``busy`` when it is the turn of others.
        """
        controls = 0
        self._is_simple = False
        while self._peer_error is None:
            event = self._control
            if event is None:
                if self._hungry:
                    return None
                if self._torn:
                    self._fail(Close(CloseCode.INTERNAL_ERROR, "interrupted"), None)
                    return None
                self._torn = True
                try:
                    decoded = self._inbound.next(MAX_STEPS)
                except Exception as exc:
                    self._note_error(exc)
                    break
                if box is not None and isinstance(decoded, Message):
                    box.append(decoded)
                self._torn = False
                if decoded is None:
                    self._hungry = True
                    return None
                if decoded is UNFINISHED:
                    if self._yield_to_others(busy, deadline):
                        return None
                    continue
                if isinstance(decoded, Message):
                    self._received_messages += decoded.final
                    if self._meter is not None:
                        self._measure(self._meter, int(decoded.final), 0)
                    return decoded
                if self._meter is not None:
                    self._measure(self._meter, 1, 0)
                self._control = event = decoded
            self._handle(event)
            self._control = None
            if self._meter is not None and self._is_held_back(self._meter):
                self._unfinished = not busy
                return None
            controls += 1
            if not controls % MAX_STEPS and self._yield_to_others(busy, deadline):
                return None
        error = self._peer_error
        if error is not None and not busy and not self._closing.over:
            self._fail(explain_failure(error), error)
        return None

    def _yield_to_others(self, busy: bool, deadline: Optional[Deadline] = None) -> bool:
        """Let other threads run; true if the caller should turn to something else."""
        if deadline is not None and deadline.expired():
            return True
        if self._broken is not None:
            return False
        self._unfinished = busy
        if not busy:
            time.sleep(BREATH)
        return busy

    def _measure(self, meter: Meter, messages: int, size: int) -> None:
        """Hold what was received against the rate limit. Reader role."""
        now = time.monotonic()
        meter.take(messages, size, now)
        if meter.limit.on_excess == "close" and meter.delay(now) and self._peer_error is None:
            self._inbound.end()
            self._note_error(PolicyViolation("over the rate limit"))

    def _is_held_back(self, meter: Meter) -> float:
        """Seconds until the rate limit lets the next message in. Reader role."""
        if not self._closing.open or self._broken is not None:
            return 0.0
        delay = meter.delay(time.monotonic())
        if delay and not self._held_back:
            self._held_back = True
            self.logger.warning("over the rate limit: reading no faster than that")
        return delay

    def _wait_for_meter(self, meter: Meter, deadline: Optional[Deadline]) -> None:
        """Wait as long as the rate limit asks; in slices, for the connection may be closed."""
        while delay := self._is_held_back(meter):
            remaining = None if deadline is None else deadline.remaining()
            if remaining == 0:
                raise _OutOfTime
            time.sleep(min(delay, SLICE, delay if remaining is None else remaining))

    def _note_error(self, exc: Exception) -> None:
        """Remember what decoding failed with, to be answered after what came before."""
        self._peer_error_at = time.monotonic()
        if not isinstance(exc, PeerError):
            self.logger.error("an extension failed", exc_info=True)
            self._inbound.end()
        self._peer_error = without_traceback(exc)
        self._torn = False

    def _handle(self, control: Control) -> None:
        """Answer a control frame (RFC 6455 §5.5). Reader role."""
        if control.close is not None:
            self._answer_close(control.close)
        elif control.opcode == Opcode.PONG:
            self._acknowledge(control.data)
        elif control.opcode == Opcode.PING and not self._closing.over:
            # RFC 6455 §5.5.2: also after our Close frame, until the peer's is received.
            self._push_pong(OutFrame(self._outbound.encode(FIN | Opcode.PONG, control.data)))

    # The end, under the reader role

    def _eof(self, exc: Optional[BaseException]) -> None:
        """The TCP connection ended (RFC 6455 §7.1.4). Reader role, or nobody else inside."""
        with self._outbound_lock:
            if not self._closing.over:
                self._cause = self._cause or self._broken or without_traceback(exc)
            self._at_rest = False
            self._closing.eof()
            self._outbox.clear()
            for waiter in self._pings.values():
                waiter.end()
            self._pings.clear()
            if self._gone is not None:
                self._gone.set()
        self._inbound.end()
        # Writers must not wait for a transport that nobody reads any more.
        if self._half_closed and self._transport.direct and not self.is_client:
            self._transport.aborted = True  # the kernel knows that both directions have ended
        else:
            self._transport.abort()

    def _read_to_end(self, deadline: Deadline, done: Any) -> None:
        """Advance the closing handshake. Reader role."""
        ignored = 0
        late = False  # but what is there already is read once
        while not done():
            if not self._closing.over:
                message = self._decode(deadline=deadline)
                if message is not None:
                    # RFC 6455 §1.4: what comes after our Close frame may be discarded.
                    if self._inbox.has_room():
                        self._inbox.put(message)
                        continue
                    ignored += 1
                    if not ignored % MAX_STEPS and self._yield_to_others(False, deadline):
                        return
                    continue
                # A peer may send all the time, and have us busy with that.
                if late or not (self._hungry or self._closing.over):
                    return
                late = deadline.expired()
                if self._closing.over or self._read_now():
                    continue
            elif self._discard():
                if deadline.expired():
                    return
                if self._discarded > DRAIN_EAGERLY:
                    time.sleep(DRAIN_PAUSE)
                continue
            try:
                if not self._transport.wait_readable(deadline.remaining()):
                    return
            except OSError as exc:  # the kernel has no memory for it
                self._eof(exc)

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

    # Reading by threads that are not in recv()

    def _read_until(self, done: Any, deadline: Deadline) -> None:
        """Read, dropping what the inbox can't take, until ``done()`` or the deadline."""
        while not done():
            hold = Hold(self._reader)
            try:
                if not hold.take(deadline.remaining()):
                    return
                self._read_to_end(deadline, done)
            finally:
                if hold.taken:
                    self._reader.release()
            if deadline.expired():
                return

    def _collect(self) -> None:
        """Read what had arrived before the transport was broken off, such as a Close frame."""
        hold = Hold(self._reader)
        try:
            if hold.take(LEAVE_TIMEOUT):
                self._collect_messages()
        finally:
            if hold.taken:
                self._reader.release()

    def _collect_messages(self) -> None:
        deadline = Deadline(COLLECT_TIMEOUT)
        while not self.is_gone and self._inbox.has_room() and not deadline.expired():
            if self._closing.over:
                if not self._discard():
                    return
                continue
            message = self._decode(busy=True, deadline=deadline)
            if message is not None:
                self._inbox.put(message)
            elif self._peer_error is not None or not (self._closing.over or self._read_now()):
                return

    def _why_closed(self, deadline: Optional[Deadline]) -> ConnectionClosed:
        if self._broken is not None:
            self._collect()
        elif not self._closing.over:
            limits = [self._closing_deadline().at, Deadline(self.options.send_timeout).at]
            if deadline is not None:
                limits.append(deadline.at)
            until = _deadline_at(min((at for at in limits if at is not None), default=None))
            self._read_until(lambda: self._closing.over, until)
        if self.is_gone:
            self._release()
        return self._closed()

    def _closing_deadline(self) -> Deadline:
        """When the closing handshake must have ended."""
        return _deadline_at(self._close_by)


class _OutOfTime(Exception):
    """A deadline expired while waiting for input."""


def _message_of(taken: Taken) -> Message:
    """What is kept for later."""
    if isinstance(taken, Message):
        return taken
    return Message(taken[1] is not None, taken[0], taken[1])


def _data_of(message: Message, decode: Optional[bool]) -> Data:
    """What the application gets."""
    if message.text if decode is None else decode:
        string = message.string
        return message.decode() if string is None else string
    payload = message.payload
    return payload if isinstance(payload, bytes) else message.data


def _deadline_at(moment: Optional[float]) -> Deadline:
    deadline = Deadline(None)
    deadline.at = moment
    return deadline


know_slots(Receiving, Outbox, Transport, Closing, Inbound, FrameDecoder)
