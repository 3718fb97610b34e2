"""
What a connection does, without doing it: events in, frames out, and the closing state.

The inbound half (:class:`Inbound`) and the outbound half (:class:`Outbound`) share nothing,
so that each may be used by one thread at a time, independently of the other.
:class:`Closing` belongs to the outbound half; it alone changes the closing state.
"""

from __future__ import annotations

import enum
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Optional, Union

from .exceptions import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    PolicyViolation,
    ProtocolError,
)
from .frames import (
    CONTROL,
    FIN,
    OPCODE_BITS,
    RSV1,
    RSV2,
    RSV3,
    Frame,
    FrameDecoder,
    encode_close,
    encode_frame,
    frame_header,
    parse_close,
)
from .messages import Message, MessageAssembler, compressed_limit
from .opcodes import OK_CLOSE_CODES, Close, CloseCode, Opcode, State
from .permessage_deflate import DeflateCodec

__all__ = [
    "MASKED_OUTBOUND",
    "NO_INPUT",
    "OUTBOUND",
    "UNFINISHED",
    "Closing",
    "Control",
    "Event",
    "Inbound",
    "Outbound",
    "Phase",
    "explain_failure",
    "own_close",
]


class Control(NamedTuple):
    """A received control frame (RFC 6455 §5.5); ``close`` is set for a Close frame."""

    opcode: int
    data: bytes
    close: Optional[Close] = None


Event = Union[Message, Control]

# Stands for an event that did not come within the steps allowed; there is more to decode.
UNFINISHED = Control(-1, b"")

# What a peer may do wrong: found while decoding, answered with a Close frame.
PeerError = (ProtocolError, PayloadTooBig, PolicyViolation, UnicodeDecodeError)


def explain_failure(exc: BaseException) -> Close:
    """Code and reason of the Close frame that answers an error of the peer (RFC 6455 §7.4.1)."""
    if isinstance(exc, ProtocolError):
        return Close(CloseCode.PROTOCOL_ERROR, _short(str(exc)))
    if isinstance(exc, UnicodeDecodeError):
        return Close(CloseCode.INVALID_DATA, f"{exc.reason} at position {exc.start}")
    if isinstance(exc, PayloadTooBig):
        return Close(CloseCode.MESSAGE_TOO_BIG, _short(str(exc)))
    if isinstance(exc, PolicyViolation):
        return Close(CloseCode.POLICY_VIOLATION, _short(str(exc)))
    return Close(CloseCode.INTERNAL_ERROR)


_NORMAL = Close(int(CloseCode.NORMAL_CLOSURE))


def own_close(code: int, reason: str) -> Close:
    """
    What a Close frame of ours is to say.

    Raises ``ProtocolError`` for what it must not, and ``TypeError`` for what is no code or reason.

    1005 stands for a Close frame without a code, which only answers its like (RFC 6455 §7.4.1).
    """
    if code == _NORMAL.code and not reason:
        return _NORMAL
    if not isinstance(code, int):
        raise TypeError(f"a close code is an int, not {code!r}; write close(1000, 'reason')")
    if not isinstance(reason, str):
        raise TypeError(f"a close reason is a str, not {reason!r}")
    close = Close(int(code), reason)
    if code == CloseCode.NO_STATUS_RCVD:
        raise ProtocolError("invalid status code: 1005; write 1000 or 3000 to 4999")
    encode_close(close)
    return close


def _short(reason: str) -> str:
    """Cut a reason to what fits a Close frame: 123 bytes (RFC 6455 §5.5)."""
    return reason.encode()[:123].decode(errors="ignore")


def find_deflate(extensions: Sequence[Any]) -> Optional[DeflateCodec]:
    """Pick permessage-deflate from what was negotiated."""
    if not extensions:
        return None
    return next((ext for ext in extensions if isinstance(ext, DeflateCodec)), None)


def _rsv_bits(extension: Any) -> int:
    return (
        (RSV1 if getattr(extension, "rsv1", False) else 0)
        | (RSV2 if getattr(extension, "rsv2", False) else 0)
        | (RSV3 if getattr(extension, "rsv3", False) else 0)
    )


class Inbound:
    """
    The inbound half: decodes frames, one event at a time.

    Pull-based: input can hold thousands of messages or inflate a thousandfold, so
    nothing is decoded before it is asked for.

    Extensions other than permessage-deflate see whole frames, undone in reverse order of
    negotiation, before a message is inflated.

    Args:
        masked: whether the peer is a client and masks.
        max_size: largest message in bytes, ``None`` for no limit.
        max_fragment: largest frame in bytes, ``None`` for no limit.
        max_empty: most frames without payload in a message, ``None`` for no limit.
        extensions: the negotiated ones.
    """

    __slots__ = (
        "_frame_length",
        "_max_size",
        "_others",
        "_pieces",
        "assembler",
        "decoder",
        "ended",
        "whole_limit",
    )

    def __init__(
        self,
        *,
        masked: bool,
        max_size: Optional[int],
        max_fragment: Optional[int] = None,
        max_empty: Optional[int] = None,
        extensions: Sequence[Any] = (),
    ) -> None:
        codec = find_deflate(extensions)
        self._others: Sequence[Any] = ()
        rsv_cont = 0
        if extensions:
            self._others = [ext for ext in extensions if ext is not codec][::-1]
            for extension in self._others:
                rsv_cont |= _rsv_bits(extension)
        self.decoder = FrameDecoder(masked, rsv_cont | (RSV1 if codec else 0), rsv_cont)
        self.assembler = MessageAssembler(max_size, max_fragment, codec, max_empty)
        self._max_size = max_size
        # Longest message in a single frame.
        self.whole_limit = sys.maxsize if max_size is None else max_size
        if max_fragment is not None:
            self.whole_limit = min(self.whole_limit, max_fragment)
        # Pieces of a frame that other extensions must see whole.
        self._pieces: list[bytes] = []
        self._frame_length = 0
        # No event follows a Close frame or an error of the peer.
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take input; to be called when ``next()`` returned ``None``."""
        if not self.ended:
            self.decoder.feed(data)

    @property
    def is_simple(self) -> bool:
        """Whether the next message may be decoded by ``whole_message()`` with ``whole_limit``."""
        return not (self.ended or self._others or self.assembler.opcode)

    def is_used_up(self) -> bool:
        """Tell whether all input was decoded; lets go of it then."""
        decoder = self.decoder
        if decoder.pos < len(decoder.buffer):
            return False
        decoder.release()
        return True

    def next(self, steps: int = sys.maxsize) -> Optional[Event]:
        """
        Return the next event; ``None`` when more input is needed, or after the last one.

        Args:
            steps: pieces of a message to decode at most before returning ``UNFINISHED``.

        Raises:
            ProtocolError, PayloadTooBig, PolicyViolation, UnicodeDecodeError: the peer broke
                the rules; there are no further events.
        """
        while not self.ended:
            try:
                piece = self.decoder.next()
                if piece is None:
                    return None
                head, payload, length, end = piece
                if head & CONTROL:
                    return self._control(head, payload)
                if self._others:
                    event = self._extended(head, payload, length, end)
                else:
                    event = self.assembler.add(head, payload, length, end)
            except PeerError:
                self.end()
                raise
            if event is not None:
                return event
            steps -= 1
            if not steps:
                return UNFINISHED
        return None

    def end(self) -> None:
        """Forget what is buffered: nothing further will be decoded."""
        if not self.ended:
            self.ended = True
            # Nothing is fed to these, so that all who have ended can share them.
            self.decoder, self.assembler = _ENDED_DECODER, _ENDED_ASSEMBLER
            self._pieces.clear()

    def _control(self, head: int, payload: bytes) -> Control:
        opcode = head & OPCODE_BITS
        if opcode != Opcode.CLOSE:
            return Control(opcode, payload)
        close = parse_close(payload)
        # RFC 6455 §5.5.1: no frame follows a Close frame; what comes is ignored.
        self.end()
        return Control(opcode, payload, close)

    def _frame_limit(self, max_size: int) -> int:
        # Whether the frame is compressed is known when other extensions have seen it.
        return max_size if self.assembler.codec is None else compressed_limit(max_size)

    def _extended(self, head: int, payload: bytes, length: int, end: bool) -> Optional[Message]:
        """Collect a whole frame and show it to the extensions before assembling it."""
        if length >= 0:
            self._frame_length = length
            if self._max_size is not None and length > self._frame_limit(self._max_size):
                raise PayloadTooBig(length, self._max_size)
        self._pieces.append(payload)
        if not end:
            return None
        data = b"".join(self._pieces)
        self._pieces.clear()
        frame = Frame.from_head(head, data)
        for extension in self._others:
            frame = extension.decode(frame, max_size=self._max_size)
        left_over = (RSV2 | RSV3) | (0 if self.assembler.codec else RSV1)
        if frame.head & left_over:
            raise ProtocolError("reserved bits must be 0")
        data = bytes(frame.data)  # extensions may return what is only like it
        return self.assembler.add(frame.head, data, len(data), True)


_ENDED_DECODER = FrameDecoder(False)
_ENDED_ASSEMBLER = MessageAssembler(0)

# The inbound half of a connection that is not open.
NO_INPUT = Inbound(masked=False, max_size=0)
NO_INPUT.end()


class Outbound:
    """
    The outbound half: encodes frames.

    Args:
        masked: whether this end is a client and masks (RFC 6455 §5.3).
        extensions: the negotiated ones.
        random: source of masking keys: called with 4, returns that many bytes.
    """

    __slots__ = (
        "_is_plain",
        "_others",
        "_random",
        "codec",
        "masked",
    )

    def __init__(
        self, *, masked: bool, extensions: Sequence[Any], random: Callable[[int], bytes]
    ) -> None:
        self.codec = find_deflate(extensions)
        self._others: Sequence[Any] = ()
        if extensions:
            self._others = [ext for ext in extensions if ext is not self.codec]
        self.masked = masked
        self._random = random
        self._is_plain = not masked and not self._others

    @property
    def shareable(self) -> bool:
        """Whether a frame encoded here is as good for other connections of this kind."""
        return self._is_plain

    def encode(self, head: int, payload: bytes) -> tuple[bytes, bytes]:
        """Encode a frame as header and payload. Touches no state: any thread may call it."""
        if self._is_plain:
            size = len(payload)
            return bytes((head, size)) if size < 126 else frame_header(head, size), payload
        if self._others and not head & CONTROL:
            frame = Frame.from_head(head, payload)
            for extension in self._others:
                frame = extension.encode(frame)
            head, payload = frame.head, frame.data
        return encode_frame(head, payload, self._random(4) if self.masked else None)

    def encode_deflated(self, head: int, payload: bytes) -> tuple[bytes, bytes]:
        """
        Compress and encode a frame.

        One thread at a time, and frames must be sent in the order in which they were made
        (RFC 7692 §7.2.1): the deflater refers to what it has seen before.
        """
        assert self.codec is not None
        compressed = self.codec.deflate(payload, bool(head & FIN))
        # RFC 7692 §6.1: RSV1 is set on the first frame of a message only.
        first = RSV1 if head & OPCODE_BITS else 0
        return self.encode(head | first, compressed)

    def encode_close(self, close: Close) -> tuple[bytes, bytes]:
        """Encode a Close frame; raises ``ProtocolError`` for what must not be sent."""
        return self.encode(FIN | Opcode.CLOSE, encode_close(close))


# Those without extensions have no state: two of them are enough for all connections.
OUTBOUND = Outbound(masked=False, extensions=(), random=os.urandom)
MASKED_OUTBOUND = Outbound(masked=True, extensions=(), random=os.urandom)


class Phase(enum.Enum):
    """How far the connection is on its way from open to closed (RFC 6455 §7.1)."""

    __hash__ = object.__hash__  # that of Enum is written in Python

    OPEN = "open"
    SENT = "Close frame sent, the peer's not received"
    EXCHANGED = "Close frames sent and received"
    FAILED = "failed: an error Close frame sent, input ignored"
    GONE = "TCP connection ended"


class Step(enum.Enum):
    """What changes the phase."""

    __hash__ = object.__hash__

    SEND = "we send a Close frame"
    RECEIVE = "a Close frame is received, and answered if none was sent"
    FAIL = "we fail the connection"
    EOF = "the TCP connection ends"


# RFC 6455 §7.1.2 to §7.1.7. What is not in the table changes nothing.
TRANSITIONS = {
    (Phase.OPEN, Step.SEND): Phase.SENT,
    (Phase.OPEN, Step.RECEIVE): Phase.EXCHANGED,
    (Phase.OPEN, Step.FAIL): Phase.FAILED,
    (Phase.OPEN, Step.EOF): Phase.GONE,
    (Phase.SENT, Step.RECEIVE): Phase.EXCHANGED,
    (Phase.SENT, Step.FAIL): Phase.FAILED,
    (Phase.SENT, Step.EOF): Phase.GONE,
    (Phase.EXCHANGED, Step.EOF): Phase.GONE,
    (Phase.FAILED, Step.EOF): Phase.GONE,
}

# After these, no message can be received and none sent.
OVER = frozenset({Phase.EXCHANGED, Phase.FAILED, Phase.GONE})

_STATES = {
    Phase.OPEN: State.OPEN,
    Phase.SENT: State.CLOSING,
    Phase.EXCHANGED: State.CLOSED,
    Phase.FAILED: State.CLOSED,
    Phase.GONE: State.CLOSED,
}


class Closing:
    """
    The closing state: the phase, the Close frames of both ends, and their order.

    Written under the outbound lock. ``phase`` and what it means (``open``, ``over``, ``gone``)
    may be read without it: they only move forward.
    """

    __slots__ = ("gone", "open", "over", "phase", "rcvd", "rcvd_then_sent", "sent")

    def __init__(self) -> None:
        self.phase = Phase.OPEN
        # What the phase means, for those who ask often.
        self.open = True
        self.over = False
        self.gone = False
        self.rcvd: Optional[Close] = None
        self.sent: Optional[Close] = None
        self.rcvd_then_sent: Optional[bool] = None

    @property
    def state(self) -> State:
        """The phase in the terms of RFC 6455; CLOSED once no message can pass."""
        return _STATES[self.phase]

    @property
    def first_code(self) -> int:
        """The code of the Close frame that came first, from either end; 1006 if none did."""
        first = self.rcvd if self.rcvd_then_sent or self.sent is None else self.sent
        return int(CloseCode.ABNORMAL_CLOSURE) if first is None else first.code

    def send(self, close: Close) -> bool:
        """We start the closing handshake; tell whether a Close frame is to be sent."""
        if not self._advance(Step.SEND):
            return False
        self.sent = close
        return True

    def receive(self, close: Close) -> Optional[Close]:
        """A Close frame was received; return the Close to answer with, if one is due."""
        unanswered = self.sent is None
        if not self._advance(Step.RECEIVE):
            return None
        self.rcvd = close
        self.rcvd_then_sent = unanswered
        if not unanswered:
            return None
        # RFC 6455 §5.5.1: an endpoint typically echoes the status code it received.
        self.sent = close
        return close

    def fail(self, close: Close) -> bool:
        """We fail the connection (§7.1.7); tell whether a Close frame is to be sent."""
        unsent = self.sent is None
        if not self._advance(Step.FAIL) or not unsent:
            return False
        self.sent = close
        return True

    def eof(self) -> None:
        """The TCP connection ended (§7.1.4)."""
        self._advance(Step.EOF)

    def _advance(self, step: Step) -> bool:
        phase = TRANSITIONS.get((self.phase, step))
        if phase is None:
            return False
        self.phase = phase
        self.open = False
        self.over = phase in OVER
        self.gone = phase is Phase.GONE
        return True

    def exception(self, cause: Optional[BaseException]) -> ConnectionClosed:
        """Build the exception for calls on the closed connection."""
        rcvd, sent = self.rcvd, self.sent
        kind: type[ConnectionClosed] = ConnectionClosedError
        if rcvd is not None and sent is not None and {rcvd.code, sent.code} <= OK_CLOSE_CODES:
            kind = ConnectionClosedOK
        exc = kind(rcvd, sent, self.rcvd_then_sent)
        exc.__cause__ = cause
        return exc
