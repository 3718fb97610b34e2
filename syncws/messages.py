"""Messages from frames (RFC 6455 §5.4, §5.6, §8.1): assembly, limits, UTF-8, inflation."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING, Optional, Union

from .exceptions import PayloadTooBig, PolicyViolation, ProtocolError
from .frames import FIN, OPCODE_BITS, RSV1
from .opcodes import Opcode
from .speedups import Collector, PythonCollector

if TYPE_CHECKING:
    from .permessage_deflate import DeflateCodec

__all__ = ["WHOLE_BINARY", "WHOLE_TEXT", "Message", "MessageAssembler", "compressed_limit"]

# First byte of a frame that is a message.
WHOLE_TEXT = FIN | Opcode.TEXT
WHOLE_BINARY = FIN | Opcode.BINARY

_Utf8Decoder = codecs.getincrementaldecoder("utf-8")
# How surrogates begin. No third byte makes them valid (RFC 3629 §3), but Python waits for it.
_SURROGATES = frozenset(bytes((0xED, second)) for second in range(0xA0, 0xC0))


def compressed_limit(max_size: int) -> int:
    """
    How long the compressed data of a message may be, in bytes.

    Valid deflate data may be longer than what it stands for (by an eighth with fixed Huffman
    codes); beyond that it is empty blocks that only cost time.
    """
    return max_size + (max_size >> 3) + 1024


class Message:
    """
    A received message, or with ``final`` false a fragment handed out before its end.

    ``payload`` is bytes or, of text that is ASCII, possibly a string, which takes no more memory.
    ``string`` is set where validating the UTF-8 gave it for free; ``decode()`` makes it anew. It
    is not kept in queues: a string may take four times the memory of the bytes it was made of.
    """

    __slots__ = ("final", "payload", "string", "text")

    def __init__(
        self,
        text: bool,
        payload: Union[bytes, str],
        string: Optional[str] = None,
        final: bool = True,
    ) -> None:
        self.text = text
        self.payload = payload
        self.string = string
        self.final = final

    @property
    def size(self) -> int:
        """Bytes that it had on the wire, uncompressed."""
        return len(self.payload)

    @property
    def data(self) -> bytes:
        """The payload as bytes; text in UTF-8."""
        payload = self.payload
        return payload if isinstance(payload, bytes) else payload.encode()

    def decode(self) -> str:
        """The payload as a string; raises ``UnicodeDecodeError`` if it is binary and not UTF-8."""
        payload = self.payload
        return payload.decode() if isinstance(payload, bytes) else payload


class MessageAssembler:
    """
    Puts pieces of data frames together to messages.

    Sizes are checked against the limits when a frame is announced, before any of its
    payload is kept; inflated data is checked step by step. UTF-8 is validated as it
    arrives, inside a frame too.

    Args:
        max_size: largest message, in bytes after inflation; ``None`` for no limit.
        max_fragment: largest frame, in bytes on the wire; ``None`` for no limit.
        codec: the agreed permessage-deflate, if any.
        max_empty: most frames without payload in a message; ``None`` for no limit. The
            other limits don't end a message that never grows.
    """

    __slots__ = (
        "_collector",
        "_compressed",
        "_empty",
        "_size",
        "_utf8",
        "_wire_size",
        "codec",
        "max_empty",
        "max_fragment",
        "max_size",
        "opcode",
        "streaming",
    )

    def __init__(
        self,
        max_size: Optional[int],
        max_fragment: Optional[int] = None,
        codec: Optional[DeflateCodec] = None,
        max_empty: Optional[int] = None,
    ) -> None:
        self.max_size = max_size
        self.max_fragment = max_fragment
        self.max_empty = max_empty
        self.codec = codec
        # Whether fragments are handed out at the end of each frame.
        self.streaming = False
        # Of the message being assembled; 0 between messages.
        self.opcode = 0
        self._compressed = False
        self._size = 0
        self._wire_size = 0
        self._empty = 0
        self._collector: Optional[PythonCollector] = None
        self._utf8: Optional[codecs.IncrementalDecoder] = None

    @property
    def in_message(self) -> bool:
        """Whether a message has begun and not ended."""
        return bool(self.opcode)

    def add(self, head: int, payload: bytes, length: int, end: bool) -> Optional[Message]:
        """
        Take a piece as :meth:`FrameDecoder.next` returns it; return a message that it completes.

        Raises:
            ProtocolError: wrong order of fragments (RFC 6455 §5.4), or broken compression.
            PayloadTooBig: over a limit of size.
            PolicyViolation: too many frames without payload.
            UnicodeDecodeError: not UTF-8 in a text message; positions count from its start.
        """
        if end and length >= 0 and not self.opcode:
            if head == WHOLE_TEXT:
                self._check_frame(length)
                return Message(True, payload, payload.decode())
            if head == WHOLE_BINARY:
                self._check_frame(length)
                return Message(False, payload)
        if length >= 0:
            self._begin_frame(head, length)
        fin = bool(end and head & FIN)
        self._keep(payload, fin)
        if fin:
            return self._finish()
        if end and self.streaming:
            return self._take(final=False)
        return None

    def _begin_frame(self, head: int, length: int) -> None:
        if head & OPCODE_BITS == Opcode.CONT:
            if not self.opcode:
                raise ProtocolError("unexpected continuation frame")
        else:
            if self.opcode:
                raise ProtocolError("expected a continuation frame")
            self._begin_message(head)
        if length:
            self._check_frame(length)
            if not self._compressed:
                assert self._collector is not None
                self._collector.expect(length)
        else:
            self._count_empty()

    def _begin_message(self, head: int) -> None:
        self.opcode = head & OPCODE_BITS
        self._compressed = self.codec is not None and bool(head & RSV1)
        self._size = 0
        self._wire_size = 0
        self._empty = 0
        text = self.opcode == Opcode.TEXT
        self._utf8 = _Utf8Decoder() if text else None
        self._collector = Collector(text)

    def _check_frame(self, length: int) -> None:
        """Check the announced length of a frame before any of its payload is kept."""
        if self.max_fragment is not None and length > self.max_fragment:
            raise PayloadTooBig(length, self.max_fragment)
        if self.max_size is None:
            return
        if self.opcode and self._compressed:
            # What counts is the inflated size, checked while inflating.
            self._wire_size += length
            if self._wire_size > compressed_limit(self.max_size):
                raise PayloadTooBig(length, self.max_size, self._wire_size - length or None)
        elif self._size_before() + length > self.max_size:
            raise PayloadTooBig(length, self.max_size, self._size_before() or None)

    def _count_empty(self) -> None:
        self._empty += 1
        if self.max_empty is not None and self._empty > self.max_empty:
            raise PolicyViolation(f"over {self.max_empty} empty fragments in a message")

    def _size_before(self) -> int:
        return self._size if self.opcode else 0

    def _keep(self, payload: bytes, fin: bool) -> None:
        assert self._collector is not None
        if self._compressed:
            payload = self._inflate(payload, fin)
        ascii = self._collector.add(payload)
        if self._utf8 is not None:
            self._validate(self._utf8, payload, ascii, fin)
        self._size += len(payload)

    def _inflate(self, payload: bytes, fin: bool) -> bytes:
        assert self.codec is not None
        limit = None if self.max_size is None else self.max_size - self._size
        try:
            return self.codec.inflate(payload, fin, limit)
        except PayloadTooBig:
            assert self.max_size is not None
            raise PayloadTooBig(None, self.max_size, self._size or None) from None

    def _validate(
        self, utf8: codecs.IncrementalDecoder, payload: bytes, ascii: bool, fin: bool
    ) -> None:
        pending = len(utf8.getstate()[0])
        if ascii and not pending:
            return  # nothing for the decoder to remember
        before = self._size - pending
        try:
            utf8.decode(payload, fin)
            if utf8.getstate()[0] in _SURROGATES:
                before = self._size + len(payload) - 2
                utf8.decode(b"", True)
        except UnicodeDecodeError as exc:
            # Without the object: positions in the message would tell a wrong byte of the piece.
            raise UnicodeDecodeError(
                exc.encoding, b"", before + exc.start, before + exc.end, exc.reason
            ) from None

    def _take(self, final: bool = True) -> Message:
        assert self._collector is not None
        return Message(self.opcode == Opcode.TEXT, self._collector.take(), final=final)

    def _finish(self) -> Message:
        message = self._take()
        self.streaming = False
        self.opcode = 0
        self._compressed = False
        self._utf8 = None
        self._collector = None
        return message
