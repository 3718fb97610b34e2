"""Frames on the wire (RFC 6455 §5): encoding, and a pull-based decoder."""

from __future__ import annotations

import functools
from typing import NamedTuple, NoReturn, Optional

from .exceptions import ProtocolError
from .opcodes import Close, Opcode, is_sendable_close_code
from .speedups import apply_mask, whole_frame

__all__ = [
    "Frame",
    "FrameDecoder",
    "Piece",
    "encode_close",
    "encode_frame",
    "frame_header",
    "parse_close",
]

FIN = 0x80
RSV1 = 0x40
RSV2 = 0x20
RSV3 = 0x10
RSV_BITS = RSV1 | RSV2 | RSV3
OPCODE_BITS = 0x0F
MASK = 0x80
LENGTH_BITS = 0x7F
CONTROL = 0x08

# RFC 6455 §5.5: control frames have at most 125 bytes, and are never fragmented.
MAX_CONTROL_PAYLOAD = 125

# RFC 6455 §5.2: with a length of 64 bits and a masking key.
MAX_HEADER = 14  # bytes

_OPCODES = frozenset(int(opcode) for opcode in Opcode)


class Frame(NamedTuple):
    """
    A frame as extensions see it.

    ``opcode`` is an :class:`Opcode`, ``data`` the unmasked payload.
    """

    opcode: int
    data: bytes
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    @property
    def head(self) -> int:
        """First byte of the frame on the wire."""
        return (
            (FIN if self.fin else 0)
            | (RSV1 if self.rsv1 else 0)
            | (RSV2 if self.rsv2 else 0)
            | (RSV3 if self.rsv3 else 0)
            | self.opcode
        )

    @classmethod
    def from_head(cls, head: int, data: bytes) -> Frame:
        """Make a frame from its first byte on the wire and its payload."""
        return cls(
            head & OPCODE_BITS,
            data,
            bool(head & FIN),
            bool(head & RSV1),
            bool(head & RSV2),
            bool(head & RSV3),
        )


def frame_header(head: int, length: int, masked: bool = False) -> bytes:
    """
    Encode what precedes masking key and payload (RFC 6455 §5.2).

    Args:
        head: first byte: FIN, RSV bits and opcode.
        length: payload length, in bytes.
        masked: whether a masking key follows.
    """
    mask = MASK if masked else 0
    if length < 126:
        return bytes((head, mask | length))
    if length < 65536:
        return bytes((head, mask | 126, length >> 8, length & 0xFF))
    return bytes((head, mask | 127)) + length.to_bytes(8, "big")


def encode_frame(head: int, payload: bytes, key: Optional[bytes] = None) -> tuple[bytes, bytes]:
    """
    Encode a frame as header (with its masking key) and payload, to be sent one after the other.

    Args:
        head: first byte: FIN, RSV bits and opcode.
        payload: unmasked payload.
        key: masking key, 4 bytes; ``None`` for a server, which does not mask
            (RFC 6455 §5.1).
    """
    if key is None:
        return frame_header(head, len(payload)), payload
    return frame_header(head, len(payload), True) + key, apply_mask(payload, key)


def encode_close(close: Close) -> bytes:
    """
    Encode the payload of a Close frame (RFC 6455 §5.5.1).

    Raises:
        ProtocolError: the code is not one that an endpoint may send, there is a
            reason without a code, or the reason has more than 123 bytes in UTF-8.
    """
    code, reason = close
    if code == 1005 and not reason:
        return b""
    if not is_sendable_close_code(code):
        raise ProtocolError(f"invalid status code: {code}; write 1000 or 3000 to 4999")
    payload = int(code).to_bytes(2, "big") + reason.encode()
    if len(payload) > MAX_CONTROL_PAYLOAD:
        raise ProtocolError("control frame too long: a close reason has at most 123 bytes")
    return payload


def parse_close(payload: bytes) -> Close:
    """
    Decode the payload of a Close frame (RFC 6455 §5.5.1, §7.4).

    Raises:
        ProtocolError: the payload has one byte, or a code that must not be sent.
        UnicodeDecodeError: the reason is not UTF-8; positions count from its start.
    """
    if not payload:
        return Close(1005)
    if len(payload) == 1:
        raise ProtocolError("close frame too short")
    code = int.from_bytes(payload[:2], "big")
    if not is_sendable_close_code(code):
        raise ProtocolError("invalid status code")
    return Close(code, payload[2:].decode())


# What FrameDecoder.next() returns: first byte of the frame, unmasked piece of its payload,
# payload length of the frame (-1 from the second piece on), whether the payload ends here.
Piece = tuple[int, bytes, int, bool]


class FrameDecoder:
    """
    Pull-based decoder: ``next()`` decodes one step and stops.

    A control frame comes whole. The payload of a data frame comes in the pieces in which
    it arrives, the first one as soon as the header is there, so that limits can be
    enforced before anything is kept. What is left over between two calls of ``feed()``
    is never more than a header and a control frame's payload: decoding is linear in the
    input, however it is cut.

    Args:
        masked: whether frames must be masked (sent by a client) or must not be
            (sent by a server); RFC 6455 §5.1.
        rsv: RSV bits that negotiated extensions use on the first frame of a message.
        rsv_cont: the same for continuation frames; none for RFC 7692 §6.1.
    """

    __slots__ = ("_head", "_heads", "_key", "_remaining", "buffer", "masked", "pos")

    def __init__(self, masked: bool, rsv: int = 0, rsv_cont: int = 0) -> None:
        # The mask bit of all frames.
        self.masked = MASK if masked else 0
        self._heads = _valid_heads(rsv, rsv_cont)
        # Input, and how much of it has been decoded; empty when that is all.
        self.buffer = b""
        self.pos = 0
        # Of the data frame whose payload is being read:
        self._remaining = 0
        self._head = 0
        self._key = b""

    def feed(self, data: bytes) -> None:
        """Take input; to be called when ``next()`` returned ``None``."""
        if self.pos < len(self.buffer):
            data = self.buffer[self.pos :] + data
        self.buffer = data
        self.pos = 0

    def next(self) -> Optional[Piece]:
        """
        Decode the next step; ``None`` when more input is needed.

        Raises:
            ProtocolError: the input breaks RFC 6455 §5.2 or §5.5.
        """
        if self._remaining:
            return self._next_piece()
        frame = whole_frame(self.buffer, self.pos, self.masked, self._heads)
        if frame is None:
            return self._next_in_parts()
        head, payload, self.pos = frame
        return head, payload, len(payload), True

    def _next_in_parts(self) -> Optional[Piece]:
        """Decode the header of a frame that is not whole, or not allowed."""
        buffer = self.buffer
        pos = self.pos
        available = len(buffer) - pos
        if available < 2:
            if not available:
                self.release()
            return None
        head = buffer[pos]
        second = buffer[pos + 1]
        length = second & LENGTH_BITS
        if not self._heads[head] or (second ^ self.masked) & MASK:
            self._refuse(head)
        start = pos + 2
        if length > MAX_CONTROL_PAYLOAD:
            if head & CONTROL:
                raise ProtocolError("control frame too long")
            start += 2 if length == 126 else 8
            if len(buffer) < start:
                return None
            length = _extended_length(length, buffer[pos + 2 : start])
        key = b""
        if self.masked:
            key = buffer[start : start + 4]
            start += 4
        if len(buffer) < start or head & CONTROL:
            return None
        return self._first_piece(head, key, start, length)

    def release(self) -> None:
        """Let go of a buffer that has been used up: idle connections keep nothing."""
        self.buffer = b""
        self.pos = 0

    def _first_piece(self, head: int, key: bytes, start: int, length: int) -> Piece:
        """Begin a data frame that is not whole in the buffer."""
        payload = self.buffer[start:]
        self.release()
        self._head = head
        self._key = key
        self._remaining = length
        return self._piece(payload, length)

    def _next_piece(self) -> Optional[Piece]:
        """Continue the payload of a data frame."""
        buffer = self.buffer
        payload = buffer[self.pos : self.pos + self._remaining]
        if not payload:
            self.release()
            return None
        self.pos += len(payload)
        return self._piece(payload, -1)

    def _piece(self, payload: bytes, length: int) -> Piece:
        size = len(payload)
        self._remaining -= size
        if self.masked:
            key = self._key
            payload = apply_mask(payload, key)
            shift = size & 3
            self._key = key[shift:] + key[:shift]
        return self._head, payload, length, not self._remaining

    def _refuse(self, head: int) -> NoReturn:
        """Say which rule of RFC 6455 §5.2 the first two bytes break."""
        opcode = head & OPCODE_BITS
        if opcode not in _OPCODES:
            raise ProtocolError("invalid opcode")
        if self._heads[head]:
            raise ProtocolError("incorrect masking")
        if opcode & CONTROL and not head & FIN:
            raise ProtocolError("fragmented control frame")
        raise ProtocolError("reserved bits must be 0")


@functools.cache
def _valid_heads(rsv: int, rsv_cont: int) -> bytes:
    """Table that tells for each value of the first byte whether it is allowed."""
    allowed = {
        Opcode.CONT: rsv_cont,
        Opcode.TEXT: rsv,
        Opcode.BINARY: rsv,
        Opcode.CLOSE: 0,
        Opcode.PING: 0,
        Opcode.PONG: 0,
    }
    return bytes(
        (opcode := head & OPCODE_BITS) in _OPCODES
        and not (head & RSV_BITS) & ~allowed[Opcode(opcode)]
        and bool(head & FIN or not opcode & CONTROL)
        for head in range(256)
    )


def _extended_length(marker: int, encoded: bytes) -> int:
    """
    Decode a 16-bit or 64-bit length.

    RFC 6455 §5.2: the minimal number of bytes must be used, and the most significant bit
    of the 64-bit form must be 0.
    """
    length = int.from_bytes(encoded, "big")
    if length < (126 if marker == 126 else 65536):
        raise ProtocolError("frame length not minimally encoded")
    if length >> 63:
        raise ProtocolError("frame length of more than 63 bits")
    return length
