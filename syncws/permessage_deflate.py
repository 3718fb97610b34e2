"""
The permessage-deflate extension (RFC 7692).

``PerMessageDeflate`` is what the user asks for and the factory for both roles;
``DeflateCodec`` is what one connection agreed on, with its two DEFLATE streams.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Optional, Union

from .exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from .headers import ExtensionParameter

__all__ = ["DeflateCodec", "DeflateKey", "PerMessageDeflate"]

BytesLike = Union[bytes, bytearray, memoryview]

SERVER_NO_CONTEXT_TAKEOVER = "server_no_context_takeover"
CLIENT_NO_CONTEXT_TAKEOVER = "client_no_context_takeover"
SERVER_MAX_WINDOW_BITS = "server_max_window_bits"
CLIENT_MAX_WINDOW_BITS = "client_max_window_bits"

# RFC 7692 §7.1.2: a decimal integer from 8 to 15 without leading zeros.
WINDOW_BITS_VALUES = {str(bits): bits for bits in range(8, 16)}
MAX_WINDOW_BITS = 15

# RFC 7692 §7.2.1: the end of an empty block without compression, which senders
# leave out at the end of a message and receivers put back.
TAIL = b"\x00\x00\xff\xff"

# RFC 7692 §7.2.3.6: such a block without its tail.
EMPTY_BLOCK = b"\x00"

# Bytes that a window of 8 bits holds. zlib's raw deflate cannot be limited to it.
SMALLEST_WINDOW = 1 << 8

# Up to this size, one call of zlib with a copy of the payload is faster than two.
SMALL_PAYLOAD = 2048

# zlib returns what it has not consumed as a copy, so it gets large input in steps;
# and it collects its output in blocks before it joins them, so output comes in
# steps too, or a bomb could cost twice the limit before it is found out.
INPUT_STEP = 64 * 1024
OUTPUT_STEP = 256 * 1024

# After a block with BFINAL set, the rest of the step is copied. Thousands of such
# blocks fit into one step, hence the next one is short, for linear time in all.
INPUT_STEP_AFTER_BFINAL = 64


class DeflateKey(NamedTuple):
    """What determines the bytes that a fresh compressor makes of a message."""

    window_bits: int
    level: Optional[int]
    memory_level: int


class _Parameters(NamedTuple):
    """The parameters of one offer or response; ``None`` if not there."""

    server_no_context_takeover: bool
    client_no_context_takeover: bool
    server_max_window_bits: Optional[int]
    client_max_window_bits: Optional[int]


class DeflateCodec:
    """
    What one connection agreed on: how to deflate and inflate its messages.

    Connections get it from ``PerMessageDeflate``. Compressor and decompressor
    come into being when first used.

    *Thread safety*: ``deflate()`` and ``reset_deflater()`` belong to the outbound
    half of a connection, ``inflate()`` to its inbound half. The halves share no
    state; each must be used by one thread at a time. All the rest is constant.

    Args:
        own_window_bits: size of our LZ77 window, as its base-2 logarithm, 8 to 15.
        own_no_context_takeover: each of our messages starts from an empty window.
        peer_window_bits: the largest window that the peer may use, likewise.
        peer_no_context_takeover: each of the peer's messages starts from an empty
            window.
        level: compression level of zlib, 0 to 9; ``None`` for zlib's default.
        memory_level: memory for the compressor's state, 1 to 9.
        threshold: bytes below which a message should go out uncompressed; left
            to the caller.
    """

    name = "permessage-deflate"
    rsv1 = True

    __slots__ = (
        "_deflater",
        "_inflater",
        "_stream_open",
        "level",
        "memory_level",
        "own_no_context_takeover",
        "own_window_bits",
        "peer_no_context_takeover",
        "peer_window_bits",
        "threshold",
    )

    def __init__(
        self,
        *,
        own_window_bits: int = MAX_WINDOW_BITS,
        own_no_context_takeover: bool = False,
        peer_window_bits: int = MAX_WINDOW_BITS,
        peer_no_context_takeover: bool = False,
        level: Optional[int] = None,
        memory_level: int = 8,
        threshold: int = 0,
    ) -> None:
        self.own_window_bits = own_window_bits
        self.own_no_context_takeover = own_no_context_takeover
        self.peer_window_bits = peer_window_bits
        self.peer_no_context_takeover = peer_no_context_takeover
        self.level = level
        self.memory_level = memory_level
        self.threshold = threshold
        # Outbound half. zlib's classes have no names that could stand here.
        self._deflater: Any = None
        # Inbound half.
        self._inflater: Any = None
        self._stream_open = False  # octets of this message came in since the last BFINAL

    def __repr__(self) -> str:
        return (
            f"DeflateCodec(own_window_bits={self.own_window_bits}, "
            f"own_no_context_takeover={self.own_no_context_takeover}, "
            f"peer_window_bits={self.peer_window_bits}, "
            f"peer_no_context_takeover={self.peer_no_context_takeover})"
        )

    # Outbound half: guarded by the lock of the caller.

    @property
    def deflate_key(self) -> DeflateKey:
        """
        Codecs with equal keys make the same bytes of a message in a fresh context.

        What ``deflate_alone()`` of one returns is good for all of them.
        """
        return DeflateKey(self.own_window_bits, self.level, self.memory_level)

    def deflate(self, payload: BytesLike, fin: bool = True) -> bytes:
        """
        Compress one fragment of a message (RFC 7692 §6.1, §7.2.1).

        The result must reach the peer, in this order, or the context of later
        messages is not the peer's; if it doesn't, call ``reset_deflater()``.

        Args:
            payload: application data of the fragment.
            fin: whether it is the last one of its message.

        Returns:
            The payload for a frame. Fragments before the last are flushed, so
            that the peer can inflate all that they hold when they arrive.
        """
        if not payload:
            # What was sent so far ends at the boundary of a byte and of a block.
            compressed = EMPTY_BLOCK if fin else b""
        else:
            if self._deflater is None:
                self._deflater = self._make_deflater()
            try:
                compressed = self._compress(self._deflater, payload, fin)
            except BaseException:
                # The compressor holds a part of what will never be sent.
                self.reset_deflater()
                raise
        if fin and self.own_no_context_takeover:
            self.reset_deflater()
        return compressed

    def deflate_alone(self, payload: BytesLike) -> bytes:
        """
        Compress a whole message in a context of its own.

        The result may go to any connection with an equal ``deflate_key``; each
        of them needs ``reset_deflater()`` then. Changes nothing here, hence it may
        be called by any thread at any time.
        """
        if not payload:
            return EMPTY_BLOCK
        return self._compress(self._make_deflater(), payload, True)

    def reset_deflater(self) -> None:
        """
        Let the next message, or fragment, start from an empty window.

        The peer notices nothing of it: its window may hold more than ours. Context
        takeover is allowed, never required (RFC 7692 §7.2.1).
        """
        self._deflater = None

    def _make_deflater(self) -> Any:
        level = zlib.Z_DEFAULT_COMPRESSION if self.level is None else self.level
        wbits = -max(self.own_window_bits, 9)
        return zlib.compressobj(level, zlib.DEFLATED, wbits, self.memory_level)

    def _compress(self, deflater: Any, payload: BytesLike, fin: bool) -> bytes:
        if self.own_window_bits == 8:
            chunks = list(_compress_for_smallest_window(deflater, payload))
        else:
            chunks = [deflater.compress(payload), deflater.flush(zlib.Z_SYNC_FLUSH)]
        if fin:
            # Each flush ends with an empty block without compression. The peer puts
            # it back at the end of a message only (RFC 7692 §7.2.1).
            chunks[-1] = chunks[-1][: -len(TAIL)]
        return b"".join(chunks)

    # Inbound half: guarded by the reader role.

    def inflate(self, payload: BytesLike, fin: bool, max_length: Optional[int] = None) -> bytes:
        """
        Decompress a piece of a message (RFC 7692 §6.2, §7.2.2).

        Pieces may be cut anywhere; they need not be frames. Blocks with BFINAL
        set may stand anywhere as well (RFC 7692 §7.2.3.4).

        Args:
            payload: the piece, unmasked.
            fin: whether the message ends with it.
            max_length: the most bytes that the result may have; ``None`` for no
                limit. Not more than one byte over it is ever produced.

        Raises:
            PayloadTooBig: if the result would be longer. The codec cannot go on.
            ProtocolError: if the data is not DEFLATE, or refers to what is no longer
                in the window agreed upon. The codec cannot go on.
        """
        limit = sys.maxsize if max_length is None else max_length
        chunks: list[bytes] = []
        tail = 0
        if fin and len(payload) <= SMALL_PAYLOAD:
            payload = b"".join((payload, TAIL))
            tail = len(TAIL)
        try:
            self._inflate_into(chunks, payload, tail, limit)
            if fin and not tail:
                self._inflate_into(chunks, TAIL, len(TAIL), limit)
        except zlib.error as exc:
            raise ProtocolError("decompression failed") from exc
        if fin:
            self._stream_open = False
            if self.peer_no_context_takeover:
                self._inflater = None
        return b"".join(chunks)

    def _inflate_into(
        self, chunks: list[bytes], data: BytesLike, tail: int, max_length: int
    ) -> None:
        """
        Inflate ``data``, whose last ``tail`` octets are not the peer's, in steps.

        A message that has no octet, or whose last block has BFINAL set, is complete
        without the tail, which would start a block that never ends.
        """
        view = memoryview(data)
        left = len(view)
        room = max_length - sum(map(len, chunks))
        step = INPUT_STEP
        more = False  # zlib may hold output back without holding input back
        while more or (left and (self._stream_open or left != tail)):
            limit = min(OUTPUT_STEP, room + 1)
            chunk, consumed = self._inflate_step(view[:step], limit)
            room -= len(chunk)
            if room < 0:
                raise PayloadTooBig(None, max_length)
            chunks.append(chunk)
            view = view[consumed:]
            left -= consumed
            more = len(chunk) == limit and self._stream_open
            step = min(2 * step, INPUT_STEP) if self._stream_open else INPUT_STEP_AFTER_BFINAL

    def _inflate_step(self, piece: memoryview, limit: int) -> tuple[bytes, int]:
        """Return at most ``limit`` bytes of output, and how much input was consumed."""
        inflater = self._inflater
        if inflater is None:
            inflater = self._inflater = zlib.decompressobj(-self.peer_window_bits)
        chunk = inflater.decompress(piece, limit)
        self._stream_open = not inflater.eof
        if self._stream_open:
            return chunk, len(piece) - len(inflater.unconsumed_tail)
        # BFINAL ends a DEFLATE stream, and with it its window. What follows begins with
        # the next byte (RFC 7692 §7.2.1) and comes from a compressor that started anew.
        self._inflater = None
        return chunk, len(piece) - len(inflater.unused_data)


@dataclass(frozen=True)
class PerMessageDeflate:
    """
    How to compress; offers the extension as a client, accepts it as a server.

    ``compression=PerMessageDeflate(...)`` configures a server or a client. A "window"
    here is the base-2 logarithm of the size in bytes of an LZ77 sliding window:
    12 means 4 KiB. A compressor needs about 2 ** (window + 2) + 2 ** (memory_level + 9)
    bytes per connection, a decompressor 2 ** window, once they have been used.

    *Thread safety*: immutable; any number of servers and clients may share it.

    Args:
        server_no_context_takeover: the server starts each message from an empty window,
            which costs compression and saves memory between messages. A client
            demands it, a server announces it (RFC 7692 §7.1.1.1).
        client_no_context_takeover: likewise for the client. A client announces it, a server
            demands it (RFC 7692 §7.1.1.2).
        server_max_window_bits: largest window of the server, 8 to 15; ``None``
            for no limit. A client demands it; to a server it is the same as
            ``window_bits``, and the smaller counts (RFC 7692 §7.1.2.1).
        client_max_window_bits: largest window of the client, 8 to 15, ``True``
            or ``None``. As a client: a number is a promise, ``True`` offers to accept
            any limit, and ``None`` offers nothing, so that the server must not limit it.
            As a server: a number, or ``window_bits`` for ``True``, is a wish that is
            put to clients whose offer allows it, while others may use 15; ``None`` wishes
            nothing (RFC 7692 §7.1.2.2).
        require_client_max_window_bits: a server declines offers that don't allow it
            to limit the client's window to ``client_max_window_bits``.
        window_bits: largest window of our own compressor, 8 to 15. Needs no
            permission. 8 compresses badly: zlib has no such window.
        memory_level: memory of our own compressor, 1 to 9 (zlib's ``memLevel``).
        level: compression level, 0 (none) to 9 (best); ``None`` for zlib's default.
        threshold: messages of fewer bytes go out uncompressed.

    Raises:
        ValueError: if an argument is out of its range.
    """

    name: ClassVar[str] = "permessage-deflate"

    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    server_max_window_bits: Optional[int] = None
    client_max_window_bits: Union[int, bool, None] = True
    require_client_max_window_bits: bool = False
    window_bits: int = 12
    memory_level: int = 5
    level: Optional[int] = None
    threshold: int = 64

    def __post_init__(self) -> None:
        if self.server_max_window_bits is not None:
            _check_range(SERVER_MAX_WINDOW_BITS, self.server_max_window_bits, 8, 15)
        if self.client_max_window_bits is not None and self.client_max_window_bits is not True:
            _check_range(CLIENT_MAX_WINDOW_BITS, self.client_max_window_bits, 8, 15)
        if self.client_max_window_bits is None and self.require_client_max_window_bits:
            raise ValueError("require_client_max_window_bits needs client_max_window_bits")
        _check_range("window_bits", self.window_bits, 8, 15)
        _check_range("memory_level", self.memory_level, 1, 9)
        if self.level is not None:
            _check_range("level", self.level, 0, 9)
        _check_range("threshold", self.threshold, 0, None)

    # Client role.

    def get_request_params(self) -> list[ExtensionParameter]:
        """Return the parameters of a client's offer (RFC 7692 §7.1)."""
        params: list[ExtensionParameter] = []
        if self.server_no_context_takeover:
            params.append((SERVER_NO_CONTEXT_TAKEOVER, None))
        if self.client_no_context_takeover:
            params.append((CLIENT_NO_CONTEXT_TAKEOVER, None))
        if self.server_max_window_bits is not None:
            params.append((SERVER_MAX_WINDOW_BITS, str(self.server_max_window_bits)))
        if self.client_max_window_bits is True:
            params.append((CLIENT_MAX_WINDOW_BITS, None))
        elif self.client_max_window_bits is not None:
            params.append((CLIENT_MAX_WINDOW_BITS, str(self.client_max_window_bits)))
        return params

    def process_response_params(
        self, params: Iterable[ExtensionParameter], accepted_extensions: Iterable[Any]
    ) -> DeflateCodec:
        """
        Check a server's response against our offer (RFC 7692 §5.1, §7.1).

        Args:
            params: names and values, unquoted, of the response.
            accepted_extensions: what was agreed on before; objects with ``name`` and
                perhaps ``rsv1``, which tells whether they use that bit.

        Raises:
            NegotiationError: if the response doesn't correspond to the offer. The
                client must fail the connection.
        """
        _check_conflicts(accepted_extensions, "received")
        response = _parse(params, is_offer=False)
        self._check_response(response)
        own_limit = response.client_max_window_bits or MAX_WINDOW_BITS
        if self.client_max_window_bits is not True:
            own_limit = min(own_limit, self.client_max_window_bits or MAX_WINDOW_BITS)
        return self._codec(
            own_window_bits=min(own_limit, self.window_bits),
            own_no_context_takeover=(
                self.client_no_context_takeover or response.client_no_context_takeover
            ),
            peer_window_bits=response.server_max_window_bits or MAX_WINDOW_BITS,
            peer_no_context_takeover=response.server_no_context_takeover,
        )

    def _check_response(self, response: _Parameters) -> None:
        # RFC 7692 §7.1.1.1 and §7.1.2.1: a server that cannot do what the offer says
        # declines it. Both may be there without having been asked for.
        if self.server_no_context_takeover and not response.server_no_context_takeover:
            raise NegotiationError("expected server_no_context_takeover")
        if self.server_max_window_bits is not None:
            if response.server_max_window_bits is None:
                raise NegotiationError("expected server_max_window_bits")
            if response.server_max_window_bits > self.server_max_window_bits:
                raise NegotiationError("unsupported server_max_window_bits")
        # RFC 7692 §7.1.2.2: only where it was offered, and no larger.
        if response.client_max_window_bits is not None:
            if self.client_max_window_bits is None:
                raise NegotiationError("unexpected client_max_window_bits")
            if self.client_max_window_bits is not True and (
                response.client_max_window_bits > self.client_max_window_bits
            ):
                raise NegotiationError("unsupported client_max_window_bits")

    # Server role.

    def process_request_params(
        self, params: Iterable[ExtensionParameter], accepted_extensions: Iterable[Any]
    ) -> tuple[list[ExtensionParameter], DeflateCodec]:
        """
        Accept one offer of a client (RFC 7692 §5.1, §7.1).

        Args:
            params: names and values, unquoted, of the offer.
            accepted_extensions: what was agreed on before; objects with ``name`` and
                perhaps ``rsv1``, which tells whether they use that bit.

        Returns:
            The parameters of the response, and the codec.

        Raises:
            NegotiationError: to decline this offer; the next one may do.
        """
        _check_conflicts(accepted_extensions, "skipped")
        offer = _parse(params, is_offer=True)
        own_limit = min(self.window_bits, self.server_max_window_bits or MAX_WINDOW_BITS)
        codec = self._codec(
            own_window_bits=min(own_limit, offer.server_max_window_bits or MAX_WINDOW_BITS),
            own_no_context_takeover=(
                self.server_no_context_takeover or offer.server_no_context_takeover
            ),
            peer_window_bits=self._limit_client_window(offer),
            # The offer has it where the client doesn't use takeover in any case;
            # the response makes it binding.
            peer_no_context_takeover=(
                self.client_no_context_takeover or offer.client_no_context_takeover
            ),
        )
        return _response_params(offer, codec), codec

    def _limit_client_window(self, offer: _Parameters) -> int:
        """Return the largest window that the client may use."""
        if offer.client_max_window_bits is None:
            # RFC 7692 §7.1.2.2: the response must not limit it then.
            if self.require_client_max_window_bits:
                raise NegotiationError("required client_max_window_bits")
            return MAX_WINDOW_BITS
        wish = self.client_max_window_bits
        if wish is None:
            wish = MAX_WINDOW_BITS
        elif wish is True:
            wish = self.window_bits
        return min(wish, offer.client_max_window_bits)

    def _codec(
        self,
        own_window_bits: int,
        own_no_context_takeover: bool,
        peer_window_bits: int,
        peer_no_context_takeover: bool,
    ) -> DeflateCodec:
        return DeflateCodec(
            own_window_bits=own_window_bits,
            own_no_context_takeover=own_no_context_takeover,
            peer_window_bits=peer_window_bits,
            peer_no_context_takeover=peer_no_context_takeover,
            level=self.level,
            memory_level=self.memory_level,
            threshold=self.threshold,
        )


def _response_params(offer: _Parameters, codec: DeflateCodec) -> list[ExtensionParameter]:
    """Tell a client what the server's ``codec`` does and expects (RFC 7692 §7.1)."""
    params: list[ExtensionParameter] = []
    if codec.own_no_context_takeover:
        params.append((SERVER_NO_CONTEXT_TAKEOVER, None))
    if codec.peer_no_context_takeover:
        params.append((CLIENT_NO_CONTEXT_TAKEOVER, None))
    # RFC 7692 §7.1.2.1 allows it in any response, but there are clients that don't.
    if offer.server_max_window_bits is not None:
        params.append((SERVER_MAX_WINDOW_BITS, str(codec.own_window_bits)))
    # Below 15 only if the offer allows it; 15 is what holds without saying.
    if codec.peer_window_bits < MAX_WINDOW_BITS:
        params.append((CLIENT_MAX_WINDOW_BITS, str(codec.peer_window_bits)))
    return params


def _parse(params: Iterable[ExtensionParameter], is_offer: bool) -> _Parameters:
    """
    Check names and values, each by itself (RFC 7692 §7.1).

    ``client_max_window_bits`` of an offer may lack its value: the client allows any limit.
    """
    found: dict[str, int] = {}
    for name, value in params:
        if name in found:
            raise DuplicateParameter(name)
        if name in (SERVER_NO_CONTEXT_TAKEOVER, CLIENT_NO_CONTEXT_TAKEOVER):
            if value is not None:
                raise InvalidParameterValue(name, value)
            found[name] = True
        elif name in (SERVER_MAX_WINDOW_BITS, CLIENT_MAX_WINDOW_BITS):
            found[name] = _parse_window_bits(name, value, is_offer)
        else:
            raise InvalidParameterName(name)
    return _Parameters(
        server_no_context_takeover=SERVER_NO_CONTEXT_TAKEOVER in found,
        client_no_context_takeover=CLIENT_NO_CONTEXT_TAKEOVER in found,
        server_max_window_bits=found.get(SERVER_MAX_WINDOW_BITS),
        client_max_window_bits=found.get(CLIENT_MAX_WINDOW_BITS),
    )


def _parse_window_bits(name: str, value: Optional[str], is_offer: bool) -> int:
    if value is None:
        if is_offer and name == CLIENT_MAX_WINDOW_BITS:
            return MAX_WINDOW_BITS
        raise InvalidParameterValue(name, value)
    if value not in WINDOW_BITS_VALUES:
        raise InvalidParameterValue(name, value)
    return WINDOW_BITS_VALUES[value]


def _check_conflicts(accepted_extensions: Iterable[Any], what_happened: str) -> None:
    """Make sure that no extension accepted before uses the RSV1 bit (RFC 7692 §5.1, §6)."""
    for extension in accepted_extensions:
        if extension.name == PerMessageDeflate.name:
            raise NegotiationError(f"{what_happened} duplicate {extension.name}")
        if getattr(extension, "rsv1", False):
            raise NegotiationError(f"{extension.name} uses the RSV1 bit as well")


def _compress_for_smallest_window(deflater: Any, payload: BytesLike) -> Iterator[bytes]:
    """
    Compress so that no reference reaches further back than 256 bytes.

    zlib refuses a raw deflate stream with a window of 8 bits, and doesn't say how far
    one of 9 bits reaches. No reference passes a full flush.
    """
    view = memoryview(payload)
    for start in range(0, len(view), SMALLEST_WINDOW):
        yield deflater.compress(view[start : start + SMALLEST_WINDOW])
        yield deflater.flush(zlib.Z_FULL_FLUSH)


def _check_range(name: str, value: Any, low: int, high: Optional[int]) -> None:
    allowed = f"at least {low}" if high is None else f"from {low} to {high}"
    is_integer = isinstance(value, int) and not isinstance(value, bool)
    if not is_integer or value < low or (high is not None and value > high):
        raise ValueError(f"{name} must be an integer {allowed}, not {value!r}")
