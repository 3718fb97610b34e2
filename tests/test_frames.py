"""Frames on the wire (RFC 6455 §5.2, §5.5), in both roles and however the input is cut."""

from __future__ import annotations

import itertools
import random
import tracemalloc

import pytest
from cutting import byte_by_byte, cuttings

from syncws.exceptions import ProtocolError
from syncws.frames import (
    FIN,
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
from syncws.opcodes import Close, Opcode

MIB = 1024 * 1024
KEY = b"\x37\xfa\x21\x3d"

TEXT = FIN | Opcode.TEXT
BINARY = FIN | Opcode.BINARY
CLOSE = FIN | Opcode.CLOSE
PING = FIN | Opcode.PING
PONG = FIN | Opcode.PONG

# The largest control frame lacks its last byte, or a header does: more never waits.
MOST_LEFT_OVER = 2 + 4 + 125 - 1

# The examples of RFC 6455 §5.7: on the wire, masking, first byte, payload.
EXAMPLES = [
    ("81 05 48 65 6c 6c 6f", None, TEXT, b"Hello"),
    ("81 85 37 fa 21 3d 7f 9f 4d 51 58", KEY, TEXT, b"Hello"),
    ("01 03 48 65 6c", None, Opcode.TEXT, b"Hel"),
    ("80 02 6c 6f", None, FIN, b"lo"),
    ("89 05 48 65 6c 6c 6f", None, PING, b"Hello"),
    ("8a 85 37 fa 21 3d 7f 9f 4d 51 58", KEY, PONG, b"Hello"),
    ("82 7e 01 00" + " 5a" * 256, None, BINARY, b"Z" * 256),
    ("82 7f 00 00 00 00 00 01 00 00" + " 5a" * 65536, None, BINARY, b"Z" * 65536),
]


def wire(head, payload=b"", key=None):
    """Put a frame together as the figure of RFC 6455 §5.2 has it, byte by byte."""
    size = len(payload)
    mask = 0 if key is None else 0x80
    if size <= 125:
        header = bytes([head, mask | size])
    elif size <= 0xFFFF:
        header = bytes([head, mask | 126, *divmod(size, 256)])
    else:
        header = bytes([head, mask | 127]) + bytes(
            (size >> shift) & 0xFF for shift in range(56, -8, -8)
        )
    if key is None:
        return header + payload
    return header + key + bytes(byte ^ key[i % 4] for i, byte in enumerate(payload))


def pieces(decoder, data):
    """What the decoder makes of one piece of input."""
    decoder.feed(data)
    return list(iter(decoder.next, None))


def frames(decoder, chunks):
    """First byte and payload of each complete frame in the input."""
    found = []
    payload = []
    for chunk in chunks:
        for head, piece, length, end in pieces(decoder, chunk):
            assert (length >= 0) == (not payload)
            payload.append(piece)
            if end:
                found.append((head, b"".join(payload)))
                payload = []
    return found


def error(decoder, chunks):
    """The text of the error that the input ends with."""
    with pytest.raises(ProtocolError) as caught:
        frames(decoder, chunks)
    return str(caught.value)


# Encoding


@pytest.mark.parametrize(("encoded", "key", "head", "payload"), EXAMPLES)
def test_examples_of_the_rfc_are_encoded(encoded, key, head, payload):
    assert b"".join(encode_frame(head, payload, key)) == bytes.fromhex(encoded)


@pytest.mark.parametrize("key", [None, KEY], ids=["server", "client"])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 255, 256, 65535, 65536, 65537])
def test_encoded_length_is_minimal(size, key):
    header, payload = encode_frame(BINARY, bytes(size), key)
    assert header + payload == wire(BINARY, bytes(size), key)


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, "82 00"),
        (125, "82 7d"),
        (126, "82 7e 00 7e"),
        (65535, "82 7e ff ff"),
        (65536, "82 7f 00 00 00 00 00 01 00 00"),
        (2**63 - 1, "82 7f 7f ff ff ff ff ff ff ff"),
    ],
)
def test_header_of_an_unmasked_frame(length, encoded):
    assert frame_header(BINARY, length) == bytes.fromhex(encoded)


@pytest.mark.parametrize(
    ("length", "encoded"),
    [
        (0, "82 80"),
        (125, "82 fd"),
        (126, "82 fe 00 7e"),
        (65535, "82 fe ff ff"),
        (65536, "82 ff 00 00 00 00 00 01 00 00"),
    ],
)
def test_header_of_a_masked_frame(length, encoded):
    assert frame_header(BINARY, length, masked=True) == bytes.fromhex(encoded)


def test_payload_of_a_server_is_sent_without_a_copy():
    payload = bytes(100_000)
    assert encode_frame(BINARY, payload)[1] is payload


@pytest.mark.parametrize("head", range(256))
def test_frame_for_extensions_keeps_all_bits_of_the_first_byte(head):
    frame = Frame.from_head(head, b"data")
    assert frame.head == head
    assert frame.data == b"data"


def test_frame_for_extensions_has_the_bits_by_name():
    frame = Frame.from_head(FIN | RSV2 | Opcode.TEXT, b"data")
    assert frame == Frame(Opcode.TEXT, b"data", True, False, True, False)


def test_frame_for_extensions_is_final_and_without_rsv_bits_unless_told():
    assert Frame(Opcode.BINARY, b"").head == BINARY
    assert Frame(Opcode.BINARY, b"") == (Opcode.BINARY, b"", True, False, False, False)


# Decoding


@pytest.mark.parametrize(("encoded", "key", "head", "payload"), EXAMPLES[:7])
def test_examples_of_the_rfc_are_decoded_however_they_are_cut(encoded, key, head, payload):
    for chunks in cuttings(bytes.fromhex(encoded)):
        assert frames(FrameDecoder(key is not None), chunks) == [(head, payload)]


def test_longest_example_of_the_rfc_is_decoded_whole_and_byte_by_byte():
    encoded, _, head, payload = EXAMPLES[7]
    data = bytes.fromhex(encoded)
    assert frames(FrameDecoder(False), [data]) == [(head, payload)]
    assert frames(FrameDecoder(False), byte_by_byte(data)) == [(head, payload)]


@pytest.mark.parametrize("masked", [False, True], ids=["from-server", "from-client"])
@pytest.mark.parametrize("size", [*range(10), 124, 125, 126, 127, 128, 300])
def test_data_frames_are_decoded_however_they_are_cut(size, masked):
    payload = random.Random(size).randbytes(size)
    data = wire(BINARY, payload, KEY if masked else None)
    for chunks in cuttings(data):
        assert frames(FrameDecoder(masked), chunks) == [(BINARY, payload)]


@pytest.mark.parametrize("masked", [False, True], ids=["from-server", "from-client"])
@pytest.mark.parametrize("size", [0, 1, 124, 125])
@pytest.mark.parametrize("head", [CLOSE, PING, PONG])
def test_control_frames_come_whole_however_they_are_cut(head, size, masked):
    payload = random.Random(size).randbytes(size)
    data = wire(head, payload, KEY if masked else None)
    for chunks in cuttings(data):
        decoder = FrameDecoder(masked)
        found = [piece for chunk in chunks for piece in pieces(decoder, chunk)]
        assert found == [(head, payload, size, True)]


@pytest.mark.parametrize("masked", [False, True], ids=["from-server", "from-client"])
def test_frames_in_a_row_are_decoded_however_they_are_cut(masked):
    expected = [
        (Opcode.TEXT, b"Hello "),
        (PING, b"?"),
        (Opcode.CONT, b""),
        (FIN, b"world" * 30),
        (PONG, b""),
        (BINARY, b""),
        (CLOSE, b"\x03\xe8"),
    ]
    data = b"".join(wire(head, payload, KEY if masked else None) for head, payload in expected)
    for chunks in cuttings(data):
        assert frames(FrameDecoder(masked), chunks) == expected


@pytest.mark.parametrize("size", [65535, 65536, 65537])
def test_long_frames_are_decoded_in_chunks_of_odd_sizes(size):
    payload = random.Random(size).randbytes(size)
    data = wire(BINARY, payload, KEY)
    for step in (977, 4097, 16384, 65536):
        chunks = [data[place : place + step] for place in range(0, len(data), step)]
        assert frames(FrameDecoder(True), chunks) == [(BINARY, payload)]


def test_every_frame_has_its_own_masking_key():
    keys = [bytes(key) for key in itertools.product((0, 255), repeat=4)]
    data = b"".join(wire(TEXT, b"Hello", key) for key in keys)
    assert frames(FrameDecoder(True), [data]) == [(TEXT, b"Hello")] * 16


def test_decoder_stops_after_each_step():
    decoder = FrameDecoder(False)
    decoder.feed(wire(TEXT, b"one") + wire(TEXT, b"two"))
    assert decoder.next() == (TEXT, b"one", 3, True)
    assert decoder.next() == (TEXT, b"two", 3, True)
    assert decoder.next() is None


def test_frame_is_announced_with_its_length_as_soon_as_its_header_is_there():
    decoder = FrameDecoder(False)
    assert pieces(decoder, frame_header(BINARY, 70000)) == [(BINARY, b"", 70000, False)]
    assert pieces(decoder, b"abc") == [(BINARY, b"abc", -1, False)]
    assert pieces(decoder, bytes(69997)) == [(BINARY, bytes(69997), -1, True)]


def test_masked_frame_is_announced_only_with_its_masking_key():
    decoder = FrameDecoder(True)
    assert pieces(decoder, frame_header(BINARY, 5, masked=True) + KEY[:3]) == []
    assert pieces(decoder, KEY[3:]) == [(BINARY, b"", 5, False)]


def test_no_input_makes_no_frame():
    decoder = FrameDecoder(False)
    assert decoder.next() is None
    assert pieces(decoder, b"") == []


def test_empty_input_inside_a_payload_makes_no_piece():
    decoder = FrameDecoder(False)
    assert pieces(decoder, b"\x82\x02a") == [(BINARY, b"a", 2, False)]
    assert pieces(decoder, b"") == []
    assert pieces(decoder, b"b") == [(BINARY, b"b", -1, True)]


# Violations


def expected_error(head, is_masked, expect_masked, rsv, rsv_cont):
    """What RFC 6455 §5.1, §5.2 and §5.5 say about the first two bytes of a frame."""
    opcode = head & 0x0F
    if opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15):
        return "invalid opcode"
    if opcode >= 8 and head < 0x80:
        return "fragmented control frame"
    allowed = rsv if opcode in (1, 2) else rsv_cont if opcode == 0 else 0
    if head & 0x70 & ~allowed:
        return "reserved bits must be 0"
    if is_masked != expect_masked:
        return "incorrect masking"
    return None


@pytest.mark.parametrize(
    ("rsv", "rsv_cont"), [(0, 0), (RSV1, 0), (RSV1 | RSV2, RSV2), (RSV3, RSV3)]
)
@pytest.mark.parametrize("is_masked", [False, True], ids=["masked", "unmasked"])
@pytest.mark.parametrize("expect_masked", [False, True], ids=["client", "server"])
def test_every_first_byte_is_accepted_or_refused_as_the_rfc_says(
    expect_masked, is_masked, rsv, rsv_cont
):
    for head in range(256):
        data = wire(head, b"Hi", KEY if is_masked else None)
        decoder = FrameDecoder(expect_masked, rsv, rsv_cont)
        reason = expected_error(head, is_masked, expect_masked, rsv, rsv_cont)
        if reason is None:
            assert frames(decoder, [data]) == [(head, b"Hi")]
        else:
            assert error(decoder, [data]) == reason


VIOLATIONS = [
    ("c1 00", "reserved bits must be 0"),
    ("a1 00", "reserved bits must be 0"),
    ("91 00", "reserved bits must be 0"),
    ("c9 00", "reserved bits must be 0"),
    ("83 00", "invalid opcode"),
    ("87 00", "invalid opcode"),
    ("8b 00", "invalid opcode"),
    ("8f 00", "invalid opcode"),
    ("81 80 00 00 00 00", "incorrect masking"),
    ("88 80 00 00 00 00", "incorrect masking"),
    ("08 00", "fragmented control frame"),
    ("09 00", "fragmented control frame"),
    ("0a 00", "fragmented control frame"),
    ("88 7e", "control frame too long"),
    ("89 7e 00 7e", "control frame too long"),
    ("8a 7f 00 00 00 00 00 00 00 05", "control frame too long"),
    ("82 7e 00 00", "frame length not minimally encoded"),
    ("82 7e 00 7d", "frame length not minimally encoded"),
    ("82 7f 00 00 00 00 00 00 00 7e", "frame length not minimally encoded"),
    ("82 7f 00 00 00 00 00 00 ff ff", "frame length not minimally encoded"),
    ("82 7f 80 00 00 00 00 00 00 00", "frame length of more than 63 bits"),
    ("82 7f ff ff ff ff ff ff ff ff", "frame length of more than 63 bits"),
]


@pytest.mark.parametrize(("encoded", "text"), VIOLATIONS)
def test_violation_is_refused_however_it_is_cut(encoded, text):
    for chunks in cuttings(bytes.fromhex(encoded)):
        assert error(FrameDecoder(False), chunks) == text


@pytest.mark.parametrize(("encoded", "text"), VIOLATIONS)
def test_good_frames_before_a_violation_are_decoded(encoded, text):
    decoder = FrameDecoder(False)
    decoder.feed(wire(TEXT, b"good") + wire(PING, b"?") + bytes.fromhex(encoded))
    assert decoder.next() == (TEXT, b"good", 4, True)
    assert decoder.next() == (PING, b"?", 1, True)
    with pytest.raises(ProtocolError, match=f"^{text}$"):
        decoder.next()


@pytest.mark.parametrize(
    ("encoded", "text"),
    [
        ("81 05", "incorrect masking"),
        ("89 00", "incorrect masking"),
        ("89 fe", "control frame too long"),
        ("82 fe 00 7d", "frame length not minimally encoded"),
        ("82 ff 80 00 00 00 00 00 00 00", "frame length of more than 63 bits"),
    ],
)
def test_violation_of_a_client_is_refused_before_its_masking_key(encoded, text):
    for chunks in cuttings(bytes.fromhex(encoded)):
        assert error(FrameDecoder(True), chunks) == text


# Memory and time


@pytest.mark.parametrize("length", [2**31, 2**32, 2**63 - 1])
def test_declared_length_allocates_nothing(length):
    header = frame_header(BINARY, length, masked=True) + KEY
    decoder = FrameDecoder(True)
    tracemalloc.start()
    try:
        assert pieces(decoder, header) == [(BINARY, b"", length, False)]
        assert pieces(decoder, bytes(10))[0][2:] == (-1, False)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


class Meter(bytes):
    """Input that notes how much was left over of the input before it."""

    left_over = 0

    def __radd__(self, before):
        Meter.left_over = max(Meter.left_over, len(before))
        return before + bytes(self)


@pytest.mark.parametrize("masked", [False, True], ids=["from-server", "from-client"])
def test_no_more_than_a_control_frame_is_left_over_between_two_inputs(masked):
    key = KEY if masked else None
    data = b"".join(
        wire(head, bytes(size), key)
        for head in (BINARY, PING)
        for size in (0, 1, 125, 126, 1000, 65536)
        if head == BINARY or size <= 125
    )
    Meter.left_over = 0
    for step in (1, 2, 3, 7, 131, 1000, 70000):
        decoder = FrameDecoder(masked)
        for place in range(0, len(data), step):
            pieces(decoder, Meter(data[place : place + step]))
    assert 0 < Meter.left_over <= MOST_LEFT_OVER


def test_a_long_frame_byte_by_byte_is_never_put_together():
    size = MIB // 4
    decoder = FrameDecoder(True)
    Meter.left_over = 0
    header = frame_header(BINARY, size, masked=True) + KEY
    announced = [piece for byte in byte_by_byte(header) for piece in pieces(decoder, Meter(byte))]
    assert announced == [(BINARY, b"", size, False)]
    assert Meter.left_over == len(header) - 1
    Meter.left_over = 0
    octet = Meter(b"\0")
    for index in range(size):
        decoder.feed(octet)
        _, piece, _, end = decoder.next()
        assert piece == KEY[index & 3 : (index & 3) + 1]
        assert decoder.next() is None
    assert end
    assert Meter.left_over == 0


@pytest.mark.parametrize("size", [100_000, MIB])
def test_used_up_input_is_let_go_of(size):
    data = wire(BINARY, bytes(size)) * (MIB // size)
    decoder = FrameDecoder(False)
    tracemalloc.start()
    try:
        decoder.feed(bytes(bytearray(data)))
        while decoder.next() is not None:
            pass
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


# Close frames


@pytest.mark.parametrize(
    ("close", "payload"),
    [
        (Close(1005), b""),
        (Close(1000), b"\x03\xe8"),
        (Close(1001, "bye"), b"\x03\xe9bye"),
        (Close(3000, "é"), b"\x0b\xb8\xc3\xa9"),
        (Close(4999, "x" * 123), b"\x13\x87" + b"x" * 123),
    ],
)
def test_close_is_encoded_and_parsed(close, payload):
    assert encode_close(close) == payload
    assert parse_close(payload) == close


@pytest.mark.parametrize("code", [0, 999, 1004, 1006, 1015, 1016, 2999, 5000, 70000, -1])
def test_close_code_that_must_not_be_sent_is_refused(code):
    with pytest.raises(
        ProtocolError, match=f"^invalid status code: {code}; write 1000 or 3000 to 4999$"
    ):
        encode_close(Close(code))


def test_reason_without_a_code_is_refused():
    with pytest.raises(ProtocolError, match=r"^invalid status code: 1005; write 1000 or"):
        encode_close(Close(1005, "because"))


@pytest.mark.parametrize("reason", ["x" * 124, "é" * 62])
def test_reason_over_123_bytes_is_refused(reason):
    with pytest.raises(
        ProtocolError,
        match=r"^control frame too long: a close reason has at most 123 bytes$",
    ):
        encode_close(Close(1000, reason))


def test_close_with_one_byte_is_too_short():
    with pytest.raises(ProtocolError, match=r"^close frame too short$"):
        parse_close(b"\x03")


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535])
def test_close_code_that_must_not_be_received_is_refused(code):
    with pytest.raises(ProtocolError, match=r"^invalid status code$"):
        parse_close(code.to_bytes(2, "big") + b"reason")


def test_every_close_code_that_may_be_received_is_parsed():
    for code in (1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)):
        assert parse_close(code.to_bytes(2, "big")) == Close(code)


@pytest.mark.parametrize("reason", [b"\xff", b"ok\xc3", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"])
def test_reason_that_is_not_utf8_is_refused(reason):
    with pytest.raises(UnicodeDecodeError):
        parse_close(b"\x03\xe8" + reason)
