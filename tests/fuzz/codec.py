"""
Fuzz target: what a peer sends once the connection is open.

Covers syncws/frames.py, messages.py, permessage_deflate.py and both halves of protocol.py.
"""

from __future__ import annotations

import sys
import zlib
from typing import NamedTuple, Optional

from fuzz.bytecode import Source, cut
from fuzz.reference import Reference, Settings

from syncws.exceptions import PayloadTooBig, PolicyViolation, ProtocolError
from syncws.frames import FIN, Frame, FrameDecoder, encode_close, encode_frame, frame_header
from syncws.messages import Message
from syncws.opcodes import Close, Opcode
from syncws.permessage_deflate import DeflateCodec
from syncws.protocol import UNFINISHED, Inbound, Outbound, explain_failure
from syncws.speedups import python_whole_frame, whole_frame

__all__ = ["DICTIONARY", "check"]

DICTIONARY = [
    b"\x81\x05Hello",
    b"\x01\x03Hel",
    b"\x80\x02lo",
    b"\x82\x7e\x01\x00",
    b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00",
    b"\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00",
    b"\x88\x02\x03\xe8",
    b"\x89\x00",
    b"\x00\x00",
    b"\x00\x00\xff\xff",
    b"\x01\x04\x00\xfb\xff",
    b"\xce\xba\xe1\xbd\xb9",
    b"\xf4\x90\x80\x80",
    b"\xed\xa0\x80",
]

# All that a peer may make an endpoint raise.
PEER_ERRORS = (ProtocolError, PayloadTooBig, PolicyViolation, UnicodeDecodeError)

# Headers of up to 14 bytes and control frames of up to 125 are kept until they are complete.
MOST_LEFT_OVER = 14 + 125 - 1
# Enough for a frame with a length of 64 bits.
MOST_WIRE = 2**16 + 2**12
MOST_BYTE_BY_BYTE = 512
MOST_PIECES = 1000
MOST_REPEATED = 2**12
MOST_ENCODED = 100
# Without a limit, a bomb could take what the fuzzer allows for all.
MOST_WIRE_WITHOUT_LIMIT = 2**10

SIZES = (None, 2**18, 65536, 65535, 4096, 1000, 126, 125, 16, 5, 1, 0, 2**18, 2**18, 300, 2**17)
FRAGMENTS = (None, None, None, None, None, None, None, 65536, 1000, 126, 125, 16, 5, 2, 1, 0)
ALL_HEADS = b"\1" * 256
EMPTIES = (1000, None, 3, 0)
WINDOWS = (15, 15, 15, 15, 15, 12, 9, 8)
STEPS = (sys.maxsize, 1, 2, 7)


class Inverting:
    """An extension that inverts the payload of the frames that have RSV2 set."""

    name = "inverting"
    rsv2 = True

    def decode(self, frame, *, max_size=None):
        if not frame.rsv2:
            return frame
        return frame._replace(data=bytes(255 - byte for byte in frame.data), rsv2=False)

    def encode(self, frame):
        return frame._replace(data=bytes(255 - byte for byte in frame.data), rsv2=True)


def check(data):
    """
    Check everything for one input; raises ``AssertionError`` if something is wrong.

    The first bytes choose settings and cuts. What follows goes over the wire as it is,
    or is a program that writes frames.
    """
    source = Source(data)
    flags = source.byte()
    limits = source.byte()
    window = source.byte()
    settings = Settings(
        masked=bool(flags & 1),
        deflate=bool(flags & 2),
        inverting=bool(flags & 4),
        streaming=bool(flags & 8),
        no_context_takeover=bool(flags & 16),
        window_bits=WINDOWS[window & 7],
        max_size=SIZES[limits & 15],
        max_fragment=FRAGMENTS[limits >> 4],
        max_empty=EMPTIES[flags >> 6],
    )
    sizes = [source.byte() for _ in range(window >> 5)]
    wire = write_frames(source, settings.masked) if flags & 32 else source.rest()
    most = MOST_WIRE_WITHOUT_LIMIT if settings.max_size is None else MOST_WIRE
    wire = wire[:most]
    check_frames(wire, settings)
    whole = receive([wire], settings)
    reference = Reference(wire, settings)
    check_against_reference(whole, reference, settings)
    steps = STEPS[window >> 3 & 3]
    check_cuts(wire, sizes, steps, whole, reference, settings)
    check_encoding(whole.events, settings)


# Frames written by a program


def write_frames(source, masked):
    """Put a stream of frames together: longer, and more often valid, than a fuzzer finds it."""
    wire = bytearray()
    deflater = zlib.compressobj(wbits=-15)
    last = b""
    repeated = 0
    while source and len(wire) < MOST_WIRE:
        step = source.byte()
        if step < 8:
            last = source.take(step)
        elif step < 24:
            last *= min(step, 1 + MOST_REPEATED // (repeated + len(last) + 1))
            repeated += len(last)
        else:
            payload = write_payload(source, step, deflater)
            key = source.take(4).ljust(4, b"\0") if masked else None
            last = b"".join(encode_frame(source.byte(), payload, key))
        wire += last[:MOST_WIRE]
    return bytes(wire)


def write_payload(source, step, deflater):
    payload = source.take(step >> 3)
    if step & 1:
        payload *= 1 + source.byte() * 64
        payload = payload[:70000]
    if step & 2:
        payload = deflater.compress(payload) + deflater.flush(zlib.Z_SYNC_FLUSH)
        if step & 4:
            payload = payload[:-4]
    return payload


# Frames by themselves


def check_frames(wire, settings):
    """What is decoded encodes to the same bytes: there is one way to write a frame."""
    rsv_cont = 0x20 if settings.inverting else 0
    decoder = FrameDecoder(settings.masked, rsv_cont | (0x40 if settings.deflate else 0), rsv_cont)
    decoder.feed(wire)
    pos = 0
    while True:
        found = find_whole_frame(wire, pos, settings.masked)
        try:
            piece = decoder.next()
        except ProtocolError:
            return
        assert (found is not None) == (piece is not None and piece[3])
        if piece is None:
            assert len(decoder.buffer) - decoder.pos <= MOST_LEFT_OVER
            return
        head, payload, length, end = piece
        header = frame_header(head, length, settings.masked)
        assert wire.startswith(header, pos), "a header that would not be written like this"
        if end:
            key = wire[pos + len(header) :][:4] if settings.masked else None
            encoded = b"".join(encode_frame(head, payload, key))
            assert wire.startswith(encoded, pos), "a payload that would not be written like this"
            assert Frame.from_head(head, payload).head == head
            pos += len(encoded)
            assert found == (head, payload, pos)
        else:
            size = len(header) + 4 * settings.masked + length
            assert pos + size > len(wire), "only the last frame may be incomplete"


def find_whole_frame(wire, pos, masked):
    """What C and Python find at a position, which is the same."""
    found = python_whole_frame(wire, pos, 0x80 if masked else 0, ALL_HEADS)
    assert whole_frame(wire, pos, 0x80 if masked else 0, ALL_HEADS) == found
    return found


# Events


class Outcome(NamedTuple):
    """What became of an input; ``partial`` is what was handed out of the last message."""

    events: list
    error: Optional[BaseException]
    partial: bytes


def make_inbound(settings):
    extensions = []
    if settings.deflate:
        codec = DeflateCodec(
            peer_window_bits=settings.window_bits,
            peer_no_context_takeover=settings.no_context_takeover,
        )
        extensions.append(codec)
    if settings.inverting:
        extensions.append(Inverting())
    return Inbound(
        masked=settings.masked,
        max_size=settings.max_size,
        max_fragment=settings.max_fragment,
        max_empty=settings.max_empty,
        extensions=extensions,
    )


def receive(pieces, settings, steps=sys.maxsize):
    """Decode input that arrives in pieces, and check that the limits hold all along."""
    inbound = make_inbound(settings)
    events = []
    partial = bytearray()
    for piece in pieces:
        inbound.feed(piece)
        while True:
            inbound.assembler.streaming = settings.streaming
            try:
                event = inbound.next(steps)
            except PEER_ERRORS as exc:
                check_over(inbound)
                check_answer(exc)
                return Outcome(events, exc, bytes(partial))
            check_kept(inbound, settings, waiting=event is None, piece=len(piece))
            if event is None:
                break
            if event is UNFINISHED:
                continue
            if isinstance(event, Message):
                partial += check_message(event, settings)
                if event.final:
                    opcode = Opcode.TEXT if event.text else Opcode.BINARY
                    events.append((int(opcode), bytes(partial)))
                    partial.clear()
            else:
                events.append(check_control(event))
    if inbound.ended:
        check_over(inbound)
    return Outcome(events, None, bytes(partial))


def check_over(inbound):
    """After a Close frame or an error nothing is decoded, and nothing kept."""
    assert inbound.ended
    inbound.feed(b"\x81\x00")
    assert inbound.next() is None
    assert not inbound.decoder.buffer
    assert not inbound._pieces
    assert inbound.assembler._collector is None


def check_answer(exc):
    """The Close frame that answers an error can be sent, and says which limit or rule it was."""
    close = explain_failure(exc)
    assert close.code in (1002, 1007, 1008, 1009)
    assert close.reason.isprintable()
    assert len(encode_close(close)) <= 125


def check_kept(inbound, settings, waiting, piece):
    """Memory is bounded by the limits, and by one piece of input."""
    decoder = inbound.decoder
    assert len(decoder.buffer) <= MOST_LEFT_OVER + piece
    if waiting:
        assert len(decoder.buffer) - decoder.pos <= MOST_LEFT_OVER
    if settings.max_size is not None:
        assert inbound.assembler._size <= settings.max_size
        most = settings.max_size
        if settings.deflate:
            most += settings.max_size // 8 + 1024
        assert sum(map(len, inbound._pieces)) <= most


def check_message(message, settings):
    assert type(message.data) is bytes
    if settings.max_size is not None:
        assert len(message.data) <= settings.max_size
    if message.string is not None:
        assert message.text
        assert message.string.encode() == message.data
    assert message.final or settings.streaming
    return message.data


def check_control(control):
    if control.opcode != Opcode.CLOSE:
        assert control.close is None
        assert len(control.data) <= 125
        return control.opcode, control.data
    # An endpoint echoes what it received (RFC 6455 §5.5.1).
    assert encode_close(control.close) == control.data
    return control.opcode, tuple(control.close)


# Comparisons


def check_cuts(wire, sizes, steps, whole, reference, settings):
    """The result does not depend on how the input arrives, and how much is decoded at once."""
    cuttings = []
    if any(sizes):
        longer = 1 + len(wire) // MOST_PIECES
        cuttings.append(cut(wire, [size * longer for size in sizes]))
    if len(wire) <= MOST_BYTE_BY_BYTE:
        cuttings.append(cut(wire, []))
    for pieces in cuttings:
        outcome = receive(pieces, settings, steps)
        if left_window(outcome, settings) or left_window(whole, settings):
            shorter = min(len(outcome.events), len(whole.events))
            assert outcome.events[:shorter] == whole.events[:shorter]
            continue
        assert outcome.events == whole.events
        assert outcome.partial == whole.partial
        if reference.failure is not None and reference.failure.loose:
            assert code_of(outcome.error) in (1002, 1007, 1009)
        else:
            assert answer(outcome.error) == answer(whole.error)


def check_against_reference(whole, reference, settings):
    """The decoder that was written to be compared with finds the same."""
    if left_window(whole, settings):
        assert reference.events[: len(whole.events)] == whole.events
        return
    assert whole.events == reference.events
    assert reference.partial.startswith(whole.partial)
    failure = reference.failure
    if failure is None:
        assert whole.error is None, repr(whole.error)
    elif failure.loose:
        assert code_of(whole.error) in (1002, 1007, 1009)
    else:
        assert code_of(whole.error) == failure.code


def left_window(outcome, settings):
    """
    Whether the peer referred to what is no longer in the window that it agreed upon.

    That is refused if it is noticed: zlib may have more at hand than the window.
    """
    return (
        settings.window_bits < 15
        and isinstance(outcome.error, ProtocolError)
        and str(outcome.error) == "decompression failed"
    )


def answer(error):
    return None if error is None else explain_failure(error)


def code_of(error):
    return None if error is None else explain_failure(error).code


# Encoding


def check_encoding(events, settings):
    """What was received can be sent, and is received as the same again."""
    events = events[:MOST_ENCODED]
    if not events:
        return
    for masked in (False, True):
        plain = settings._replace(
            masked=masked, deflate=False, streaming=False, max_fragment=None, max_empty=None
        )
        assert receive([encode(events, plain)], plain).events == events
    # Extensions see frames before they are inflated, and those are held to max_size as well.
    deflated = plain._replace(deflate=True, inverting=False)
    assert receive([encode(events, deflated)], deflated).events == events


def encode(events, settings):
    codec = DeflateCodec(
        own_window_bits=settings.window_bits,
        own_no_context_takeover=settings.no_context_takeover,
        level=1,
    )
    extensions = [Inverting()] if settings.inverting else []
    outbound = Outbound(
        masked=settings.masked,
        extensions=[codec, *extensions] if settings.deflate else extensions,
        random=lambda size: b"\x37\xfa\x21\x3d"[:size],
    )
    frames = []
    for opcode, data in events:
        if opcode == Opcode.CLOSE:
            frames.append(outbound.encode_close(Close(*data)))
        elif opcode in (Opcode.TEXT, Opcode.BINARY):
            frames.extend(encode_message(outbound, opcode, data))
        else:
            frames.append(outbound.encode(FIN | opcode, data))
    return b"".join(b"".join(frame) for frame in frames)


def encode_message(outbound, opcode, data):
    """Encode a message in two fragments, the first of which may be empty."""
    encode_data = outbound.encode if outbound.codec is None else outbound.encode_deflated
    half = len(data) // 2
    yield encode_data(opcode, data[:half])
    yield encode_data(FIN | Opcode.CONT, data[half:])
