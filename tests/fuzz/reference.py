"""
A second decoder, written from RFC 6455 and RFC 7692 to be compared with, not to be fast.

It has all of the input before it, and so none of what makes the real one difficult: input that
is cut anywhere, limits that hold while data arrives, and speed.
"""

from __future__ import annotations

import math
import zlib
from typing import NamedTuple, Optional

__all__ = ["Failure", "Reference", "Settings"]

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
RSV1, RSV2 = 4, 2
TAIL = b"\x00\x00\xff\xff"


class Settings(NamedTuple):
    """What was agreed upon, and the limits."""

    masked: bool
    deflate: bool
    inverting: bool
    streaming: bool
    no_context_takeover: bool
    window_bits: int
    max_size: Optional[int]
    max_fragment: Optional[int]
    max_empty: Optional[int]


class Failure(Exception):
    """
    The connection has to be failed with this close code.

    ``loose``: another rule is broken in the same frame, and which one is found first depends on
    how much of the frame is inflated at once.
    """

    def __init__(self, code, loose=False):
        super().__init__(code)
        self.code = code
        self.loose = loose


class Reference:
    """
    Decodes the whole input at once.

    Attributes:
        events: ``(kind, data)`` in order; kind is an opcode, data the code and reason of a Close.
        failure: why the connection has to be failed, or ``None``.
        partial: what there is of a message that is not complete.
    """

    def __init__(self, wire, settings):
        self.events = []
        self.failure = None
        self._wire = wire
        self._pos = 0
        self._settings = settings
        self._closed = False
        self._inflater = None
        self._stream_open = False
        self._opcode = None
        self._begin(None, False)
        try:
            while not self._closed and self._frame():
                pass
        except Failure as exc:
            self.failure = exc

    @property
    def partial(self):
        return bytes(self._data)

    def _begin(self, opcode, compressed):
        self._opcode = opcode
        self._compressed = compressed
        self._data = bytearray()
        self._valid = 0
        self._wire_size = 0
        self._empty = 0

    def _take(self, size):
        """The next bytes; fewer where the input ends."""
        data = self._wire[self._pos : self._pos + size]
        self._pos += len(data)
        return data

    def _frame(self):
        """Decode a frame; tell whether it was complete."""
        start = self._take(2)
        if len(start) < 2:
            return False
        fin, rsv, opcode = bool(start[0] & 0x80), start[0] >> 4 & 7, start[0] & 15
        self._check_start(fin, rsv, opcode, start[1])
        length = self._length(opcode, start[1] & 0x7F)
        if length is None:
            return False
        key = self._take(4) if self._settings.masked else b"\0\0\0\0"
        if len(key) < 4:
            return False
        payload = self._take(length)
        if any(key):
            payload = bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))
        complete = len(payload) == length
        if opcode < CLOSE:
            self._data_frame(fin, rsv, opcode, length, payload)
        elif complete:
            self._control_frame(opcode, payload)
        return complete

    def _check_start(self, fin, rsv, opcode, second):
        # RFC 6455 §5.2, §5.5 and RFC 7692 §6.1
        everywhere = RSV2 if self._settings.inverting else 0
        allowed = everywhere
        if opcode in (TEXT, BINARY) and self._settings.deflate:
            allowed |= RSV1
        if opcode >= CLOSE:
            allowed = 0
        if opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG) or rsv & ~allowed:
            raise Failure(1002)
        if opcode >= CLOSE and not fin:
            raise Failure(1002)
        if bool(second & 0x80) is not self._settings.masked:
            raise Failure(1002)

    def _length(self, opcode, length):
        """Read an extended length (RFC 6455 §5.2); ``None`` if it isn't complete."""
        if length < 126:
            return length
        if opcode >= CLOSE:
            raise Failure(1002)
        size, least = (2, 126) if length == 126 else (8, 65536)
        extended = self._take(size)
        if len(extended) < size:
            return None
        length = int.from_bytes(extended, "big")
        if not least <= length < 2**63:
            raise Failure(1002)
        return length

    def _control_frame(self, opcode, payload):
        if opcode != CLOSE:
            self.events.append((opcode, payload))
            return
        # RFC 6455 §5.5.1, §7.4
        code = int.from_bytes(payload[:2], "big")
        if len(payload) == 1:
            raise Failure(1002)
        if payload and not (
            3000 <= code < 5000 or (1000 <= code <= 1014 and code not in (1004, 1005, 1006))
        ):
            raise Failure(1002)
        try:
            reason = payload[2:].decode()
        except UnicodeDecodeError:
            raise Failure(1007) from None
        self.events.append((opcode, (code, reason) if payload else (1005, "")))
        self._closed = True

    def _data_frame(self, fin, rsv, opcode, length, payload):
        complete = len(payload) == length
        if self._settings.inverting:
            # An extension sees whole frames only, after their length was checked.
            if length > self._most(self._settings.deflate):
                raise Failure(1009)
            if not complete:
                return
            if rsv & RSV2:
                payload = bytes(255 - byte for byte in payload)
        # RFC 6455 §5.4
        if (opcode == CONT) is (self._opcode is None):
            raise Failure(1002)
        whole = fin and opcode != CONT and not rsv & RSV1
        if opcode != CONT:
            self._begin(opcode, bool(rsv & RSV1))
        self._check_limits(length, whole)
        self._append(payload, fin and complete)
        if fin and complete:
            self.events.append((self._opcode, bytes(self._data)))
            self._begin(None, False)

    def _check_limits(self, length, whole):
        settings = self._settings
        if not length and not whole:
            self._empty += 1
            if settings.max_empty is not None and self._empty > settings.max_empty:
                raise Failure(1008)
        if settings.max_fragment is not None and length > settings.max_fragment:
            raise Failure(1009)
        self._wire_size += length
        if self._wire_size > self._most(self._compressed):
            raise Failure(1009)

    def _most(self, compressed):
        """How many bytes may stand on the wire for a message."""
        max_size = self._settings.max_size
        if max_size is None:
            return math.inf
        return max_size + max_size // 8 + 1024 if compressed else max_size

    def _append(self, payload, last):
        self._data += self._inflate(payload, last) if self._compressed else payload
        max_size = self._settings.max_size
        if max_size is not None and len(self._data) > max_size:
            raise Failure(1009, loose=True)
        if self._opcode == TEXT:
            self._check_utf8(last)

    def _check_utf8(self, complete):
        """Make sure that the message is UTF-8 (RFC 3629), or could become so."""
        try:
            self._data[self._valid :].decode()
            self._valid = len(self._data)
        except UnicodeDecodeError as exc:
            if complete or exc.reason != "unexpected end of data":
                raise Failure(1007, loose=self._compressed) from None
            self._valid += exc.start

    def _inflate(self, payload, last):
        # RFC 7692 §7.2.2
        room = None
        if self._settings.max_size is not None:
            room = self._settings.max_size - len(self._data) + 1
        try:
            data = self._inflate_blocks(payload, room)
            # §7.2.3.4: after a block with BFINAL, nothing is left that the tail would end.
            if last and self._stream_open:
                data += self._inflate_blocks(TAIL, None if room is None else room - len(data))
        except zlib.error:
            raise Failure(1002, loose=True) from None
        if last:
            self._stream_open = False
            if self._settings.no_context_takeover:
                self._inflater = None
        return data

    def _inflate_blocks(self, data, room):
        inflated = b""
        while data:
            if self._inflater is None:
                self._inflater = zlib.decompressobj(-15)
            if room is None:
                inflated += self._inflater.decompress(data)
            else:
                inflated += self._inflater.decompress(data, max(1, room - len(inflated)))
                if len(inflated) >= room:
                    raise Failure(1009, loose=True)
            self._stream_open = not self._inflater.eof
            data = b""
            if not self._stream_open:
                data = self._inflater.unused_data
                self._inflater = None
        return inflated
