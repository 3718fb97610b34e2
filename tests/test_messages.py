"""Messages from frames (RFC 6455 §5.4, §5.6, §8.1): assembly, limits, UTF-8, inflation."""

from __future__ import annotations

import tracemalloc

import pytest
from cutting import byte_by_byte, cuttings

from syncws.exceptions import PayloadTooBig, PolicyViolation, ProtocolError
from syncws.frames import FIN, RSV1, FrameDecoder, encode_frame, frame_header
from syncws.messages import MessageAssembler
from syncws.opcodes import Opcode
from syncws.permessage_deflate import DeflateCodec

MIB = 1024 * 1024

CONT = Opcode.CONT
TEXT = Opcode.TEXT
BINARY = Opcode.BINARY

# Characters of one, two, three and four bytes, the first and the last of each length.
ALL_LENGTHS = "\x00\x7f\x80\u07ff\u0800\ud7ff\ue000\uffff\U00010000\U0010ffff"

# Bytes that are not UTF-8, the position of the error, and the reason.
NOT_UTF8 = [
    (b"\x80", 0, "invalid start byte"),
    (b"ab\xff", 2, "invalid start byte"),
    (b"a\xc0\xaf", 1, "invalid start byte"),
    (b"a\xe0\x80\xaf", 1, "invalid continuation byte"),
    (b"\xc3\xa9\xed\xa0\x80", 2, "invalid continuation byte"),
    (b"\xf0\x8f\xbf\xbf", 0, "invalid continuation byte"),
    (b"xyz\xf4\x90\x80\x80", 3, "invalid continuation byte"),
    (b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited", 11,
     "invalid continuation byte"),
    (b"abc\xe2\x82", 3, "unexpected end of data"),
    (b"\xf0\x9f\x98", 0, "unexpected end of data"),
]  # fmt: skip


def frame(head, payload=b""):
    return b"".join(encode_frame(head, payload))


def fragments(opcode, parts, rsv=0):
    """A message as one frame for each part."""
    last = len(parts) - 1
    return b"".join(
        frame(
            (FIN if index == last else 0) | (CONT if index else opcode | rsv),
            part,
        )
        for index, part in enumerate(parts)
    )


def messages(assembler, chunks, decoder=None):
    """All messages in the input."""
    decoder = decoder or FrameDecoder(False, RSV1)
    found = []
    for chunk in chunks:
        decoder.feed(chunk)
        for piece in iter(decoder.next, None):
            message = assembler.add(*piece)
            if message is not None:
                found.append(message)
    return found


def contents(found):
    return [message.data.decode() if message.text else message.data for message in found]


def refusal(assembler, chunks, exception):
    """The exception that the input ends with."""
    with pytest.raises(exception) as caught:
        messages(assembler, chunks)
    return caught.value


def compressed(*parts):
    """A compressed text message as one frame for each part."""
    codec = DeflateCodec()
    last = len(parts) - 1
    deflated = [codec.deflate(part, index == last) for index, part in enumerate(parts)]
    return fragments(TEXT, deflated, RSV1)


# Assembly


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (frame(FIN | TEXT, b"Hello"), ["Hello"]),
        (frame(FIN | BINARY, b"Hello"), [b"Hello"]),
        (frame(FIN | TEXT), [""]),
        (frame(FIN | BINARY), [b""]),
        (fragments(TEXT, [b"Hel", b"lo"]), ["Hello"]),
        (fragments(BINARY, [b"H", b"e", b"", b"llo"]), [b"Hello"]),
        (fragments(TEXT, [b"", b"", b""]), [""]),
        (fragments(BINARY, [b"", b"Hello", b""]), [b"Hello"]),
        (fragments(TEXT, [b"a", b"b"]) + frame(FIN | BINARY, b"c"), ["ab", b"c"]),
        (frame(FIN | BINARY, b"a") + fragments(TEXT, [b"b", b"c"]), [b"a", "bc"]),
        (frame(FIN | TEXT, b"a") * 3, ["a", "a", "a"]),
    ],
)
def test_messages_are_assembled_however_the_input_is_cut(data, expected):
    for chunks in cuttings(data):
        assert contents(messages(MessageAssembler(None), chunks)) == expected


def test_complete_messages_are_final():
    data = frame(FIN | TEXT, b"a") + fragments(TEXT, [b"b", b"c"])
    assert [message.final for message in messages(MessageAssembler(None), [data])] == [True, True]


def test_string_of_a_text_in_one_piece_is_at_hand():
    (message,) = messages(MessageAssembler(None), [frame(FIN | TEXT, b"Hello")])
    assert message.string == "Hello"


@pytest.mark.parametrize("data", [frame(FIN | BINARY, b"Hi"), fragments(TEXT, [b"H", b"i"])])
def test_string_is_made_later_for_all_others(data):
    (message,) = messages(MessageAssembler(None), [data])
    assert message.string is None


def test_assembler_knows_whether_it_is_inside_a_message():
    assembler = MessageAssembler(None)
    assert not assembler.in_message
    assert messages(assembler, [frame(TEXT, b"Hel")]) == []
    assert assembler.in_message
    assert contents(messages(assembler, [frame(FIN, b"lo")])) == ["Hello"]
    assert not assembler.in_message


VIOLATIONS = [
    (frame(FIN, b"x"), "unexpected continuation frame"),
    (frame(CONT, b"x"), "unexpected continuation frame"),
    (frame(FIN), "unexpected continuation frame"),
    (frame(FIN | TEXT, b"x") + frame(FIN, b"y"), "unexpected continuation frame"),
    (fragments(TEXT, [b"a", b"b"]) + frame(CONT, b"y"), "unexpected continuation frame"),
    (frame(TEXT, b"x") + frame(FIN | TEXT, b"y"), "expected a continuation frame"),
    (frame(TEXT, b"x") + frame(TEXT, b"y"), "expected a continuation frame"),
    (frame(TEXT) + frame(FIN | BINARY), "expected a continuation frame"),
    (frame(BINARY, b"x") + frame(FIN | BINARY, b"y"), "expected a continuation frame"),
    (frame(TEXT, b"x") + frame(CONT, b"y") + frame(BINARY), "expected a continuation frame"),
    (frame(TEXT, b"x") + frame(FIN | RSV1 | TEXT, b"y"), "expected a continuation frame"),
]


@pytest.mark.parametrize(("data", "text"), VIOLATIONS)
def test_wrong_order_of_fragments_is_refused_however_the_input_is_cut(data, text):
    for chunks in cuttings(data):
        assert str(refusal(MessageAssembler(None), chunks, ProtocolError)) == text


def test_wrong_order_is_refused_before_the_payload_arrives():
    header = frame_header(FIN, 1000)
    exc = refusal(MessageAssembler(None), [header], ProtocolError)
    assert str(exc) == "unexpected continuation frame"


def test_many_tiny_fragments_take_linear_memory_and_one_buffer():
    count = 100_000
    data = frame(BINARY, b"x") + frame(CONT, b"x") * (count - 2) + frame(FIN, b"x")
    assembler = MessageAssembler(MIB)
    decoder = FrameDecoder(False)
    tracemalloc.start()
    try:
        (message,) = messages(assembler, [data], decoder)
        assert tracemalloc.get_traced_memory()[1] < 3 * count + 20_000
    finally:
        tracemalloc.stop()
    assert message.data == b"x" * count


def test_many_empty_fragments_make_one_empty_message():
    count = 100_000
    data = frame(BINARY) + frame(CONT) * (count - 2) + frame(FIN)
    (message,) = messages(MessageAssembler(MIB), [data])
    assert message.data == b""


# UTF-8


@pytest.mark.parametrize("text", [ALL_LENGTHS, "κόσμε", "😀" * 3, "\ufeffbom", "a\x00b"])
def test_text_is_validated_wherever_it_is_cut(text):
    data = text.encode()
    for parts in cuttings(data):
        for chunks in ([fragments(TEXT, parts)], byte_by_byte(fragments(TEXT, parts))):
            assert contents(messages(MessageAssembler(None), chunks)) == [text]


@pytest.mark.parametrize(("data", "position", "reason"), NOT_UTF8)
def test_position_of_an_error_counts_from_the_start_of_the_message(data, position, reason):
    for parts in cuttings(data):
        for chunks in ([fragments(TEXT, parts)], byte_by_byte(fragments(TEXT, parts))):
            exc = refusal(MessageAssembler(None), chunks, UnicodeDecodeError)
            assert (exc.start, exc.reason) == (position, reason)


def test_end_of_an_error_counts_from_the_start_of_the_message_too():
    exc = refusal(
        MessageAssembler(None), [fragments(TEXT, [b"0123456789", b"ab\xffcd"])], UnicodeDecodeError
    )
    assert (exc.start, exc.end) == (12, 13)
    assert (exc.encoding, exc.object) == ("utf-8", b"")
    assert str(exc).endswith("position 12-12: invalid start byte")


def test_error_inside_a_frame_is_found_before_its_end():
    chunks = [frame_header(FIN | TEXT, 1000), b"Hello", b"\xff"]
    exc = refusal(MessageAssembler(None), chunks, UnicodeDecodeError)
    assert exc.start == 5


def test_error_in_a_fragment_is_found_before_the_message_ends():
    chunks = [frame(TEXT, b"Hello"), frame(CONT, b"\xff")]
    exc = refusal(MessageAssembler(None), chunks, UnicodeDecodeError)
    assert exc.start == 5


@pytest.mark.parametrize(
    "start", [b"\xed\xa0", b"\xed\xbf", b"\xf4\x90", b"\xe0\x80", b"\xc0", b"\xf8"]
)
def test_error_inside_a_character_is_found_before_the_next_one(start):
    chunks = [frame_header(FIN | TEXT, 1000), b"Hello", *byte_by_byte(start)]
    exc = refusal(MessageAssembler(None), chunks, UnicodeDecodeError)
    assert exc.start == 5


def test_binary_is_not_validated():
    data = b"\xff\xfe\xed\xa0\x80"
    for parts in cuttings(data):
        found = messages(MessageAssembler(None), [fragments(BINARY, parts)])
        assert contents(found) == [data]


def test_text_starts_anew_after_a_binary_message_that_ends_like_half_a_character():
    data = fragments(BINARY, [b"\xe2", b"\x82"]) + fragments(TEXT, [b"\xe2\x82", b"\xac"])
    assert contents(messages(MessageAssembler(None), [data])) == [b"\xe2\x82", "€"]


@pytest.mark.parametrize(("data", "position", "reason"), NOT_UTF8)
def test_compressed_text_is_validated_after_inflation(data, position, reason):
    for parts in cuttings(data):
        for chunks in ([compressed(*parts)], byte_by_byte(compressed(*parts))):
            assembler = MessageAssembler(None, codec=DeflateCodec())
            exc = refusal(assembler, chunks, UnicodeDecodeError)
            assert (exc.start, exc.reason) == (position, reason)


# Limits


@pytest.mark.parametrize("size", [0, 1, 9, 10])
def test_message_up_to_max_size_is_accepted_however_the_input_is_cut(size):
    payload = b"x" * size
    for parts in ([payload], [payload[:3], payload[3:]], byte_by_byte(payload) or [b""]):
        for chunks in cuttings(fragments(BINARY, parts)):
            assert contents(messages(MessageAssembler(10), chunks)) == [payload]


TOO_BIG = [
    ([11], 11, None, "frame with 11 bytes exceeds limit of 10 bytes (max_size)"),
    (
        [2**63 - 1],
        2**63 - 1,
        None,
        "frame with 9223372036854775807 bytes exceeds limit of 10 bytes (max_size)",
    ),
    (
        [10, 1],
        1,
        10,
        "frame with 1 bytes after reading 10 bytes exceeds limit of 10 bytes (max_size)",
    ),
    (
        [4, 5, 2],
        2,
        9,
        "frame with 2 bytes after reading 9 bytes exceeds limit of 10 bytes (max_size)",
    ),
    ([0, 11], 11, None, "frame with 11 bytes exceeds limit of 10 bytes (max_size)"),
]


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize(("sizes", "size", "current_size", "text"), TOO_BIG)
def test_message_over_max_size_is_refused_when_announced(sizes, size, current_size, text, opcode):
    data = b"".join(
        frame(CONT if index else opcode, b"x" * length) for index, length in enumerate(sizes[:-1])
    )
    data += frame_header(FIN | (CONT if len(sizes) > 1 else opcode), sizes[-1])
    for chunks in cuttings(data):
        exc = refusal(MessageAssembler(10), chunks, PayloadTooBig)
        assert (exc.size, exc.max_size, exc.current_size) == (size, 10, current_size)
        assert str(exc) == text


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_message_over_max_size_in_one_piece_is_refused(opcode):
    exc = refusal(MessageAssembler(10), [frame(FIN | opcode, b"x" * 11)], PayloadTooBig)
    assert str(exc) == "frame with 11 bytes exceeds limit of 10 bytes (max_size)"


def test_limit_holds_for_each_message_by_itself():
    data = fragments(BINARY, [b"x" * 5, b"x" * 5]) + frame(FIN | BINARY, b"x" * 10)
    assert len(messages(MessageAssembler(10), [data * 2])) == 4


def test_nothing_is_kept_of_a_frame_over_the_limit():
    assembler = MessageAssembler(1000)
    decoder = FrameDecoder(False)
    decoder.feed(frame(BINARY, bytes(1_000_000)))
    piece = decoder.next()
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            assembler.add(*piece)
        assert tracemalloc.get_traced_memory()[1] < 10_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "data",
    [
        frame(FIN | TEXT, b"x" * 5),
        frame(FIN | BINARY, b"x" * 5),
        frame(BINARY, b"x" * 5),
        frame(BINARY, b"x") + frame(FIN, b"x" * 5),
        frame(FIN | RSV1 | TEXT, b"x" * 5),
    ],
)
def test_frame_over_max_fragment_is_refused(data):
    for max_size in (None, 1000):
        assembler = MessageAssembler(max_size, max_fragment=4, codec=DeflateCodec())
        exc = refusal(assembler, [data], PayloadTooBig)
        assert (exc.size, exc.max_size, exc.current_size) == (5, 4, None)
        assert str(exc) == "frame with 5 bytes exceeds limit of 4 bytes (max_size)"


def test_frames_up_to_max_fragment_make_a_larger_message():
    found = messages(MessageAssembler(None, 4), [fragments(BINARY, [b"abcd", b"efgh"])])
    assert contents(found) == [b"abcdefgh"]


# Compression


@pytest.mark.parametrize("parts", [[b"Hello"], [b"Hel", b"lo"], [b"", b"Hello", b""], [b""]])
def test_compressed_message_is_inflated_however_the_input_is_cut(parts):
    for chunks in cuttings(compressed(*parts)):
        found = messages(MessageAssembler(5, codec=DeflateCodec()), chunks)
        assert contents(found) == [b"".join(parts).decode()]


def test_compressed_and_plain_messages_may_alternate():
    data = compressed(b"one") + frame(FIN | TEXT, b"two") + fragments(TEXT, [b"th", b"ree"])
    data += compressed(b"four")
    for chunks in cuttings(data):
        found = messages(MessageAssembler(100, codec=DeflateCodec()), chunks)
        assert contents(found) == ["one", "two", "three", "four"]


def test_inflated_size_has_no_limit_with_max_size_none():
    found = messages(MessageAssembler(None, codec=DeflateCodec()), [compressed(bytes(MIB))])
    assert len(found[0].data) == MIB


@pytest.mark.parametrize(
    ("parts", "current_size", "text"),
    [
        ([b"x" * 1001], None, "frame exceeds limit of 1000 bytes (max_size)"),
        (
            [b"x" * 900, b"x" * 101],
            900,
            "frame after reading 900 bytes exceeds limit of 1000 bytes (max_size)",
        ),
    ],
)
def test_message_that_inflates_over_max_size_is_refused(parts, current_size, text):
    assembler = MessageAssembler(1000, codec=DeflateCodec())
    exc = refusal(assembler, [compressed(*parts)], PayloadTooBig)
    assert (exc.size, exc.max_size, exc.current_size) == (None, 1000, current_size)
    assert str(exc) == text


def test_message_that_inflates_over_max_size_is_refused_byte_by_byte():
    assembler = MessageAssembler(1000, codec=DeflateCodec())
    data = byte_by_byte(compressed(b"x" * 1001))
    assert refusal(assembler, data, PayloadTooBig).size is None


def test_message_that_inflates_to_max_size_is_accepted():
    data = compressed(b"x" * 900, b"y" * 100)
    for chunks in ([data], byte_by_byte(data)):
        found = messages(MessageAssembler(1000, codec=DeflateCodec()), chunks)
        assert contents(found) == ["x" * 900 + "y" * 100]


# With max_size 1000: an eighth, and 1024 bytes, more than that.
WIRE_LIMIT = 1000 + 125 + 1024


def test_compressed_frame_up_to_the_wire_limit_is_read():
    header = frame_header(FIN | RSV1 | BINARY, WIRE_LIMIT)
    assert messages(MessageAssembler(1000, codec=DeflateCodec()), [header]) == []


def test_compressed_frame_over_the_wire_limit_is_refused_when_announced():
    header = frame_header(FIN | RSV1 | BINARY, WIRE_LIMIT + 1)
    for chunks in cuttings(header):
        assembler = MessageAssembler(1000, codec=DeflateCodec())
        exc = refusal(assembler, chunks, PayloadTooBig)
        assert (exc.size, exc.max_size, exc.current_size) == (WIRE_LIMIT + 1, 1000, None)


def test_wire_limit_holds_for_all_fragments_together():
    empty_blocks = b"\x00\x00\x00\xff\xff" * 400
    data = frame(RSV1 | BINARY, empty_blocks) + frame_header(FIN, 150)
    exc = refusal(MessageAssembler(1000, codec=DeflateCodec()), [data], PayloadTooBig)
    assert (exc.size, exc.max_size, exc.current_size) == (150, 1000, 2000)


def test_incompressible_message_of_max_size_is_under_the_wire_limit():
    # Blocks of the fixed Huffman code with the longest literals, nine bits each.
    bits = "110" + "".join(f"{0b110010000 + value - 144:09b}" for value in [255] * 5000) + "0" * 7
    deflated = bytes(
        int(bits[place : place + 8].ljust(8, "0")[::-1], 2) for place in range(0, len(bits), 8)
    )
    data = frame(FIN | RSV1 | BINARY, deflated + b"\x00")
    (message,) = messages(MessageAssembler(5000, codec=DeflateCodec()), [data])
    assert message.data == b"\xff" * 5000


def test_data_that_is_not_deflate_is_refused():
    data = frame(FIN | RSV1 | TEXT, b"\xff\xff\xff")
    refusal(MessageAssembler(None, codec=DeflateCodec()), [data], ProtocolError)


# Streaming


def streaming(*args, **kwargs):
    assembler = MessageAssembler(*args, **kwargs)
    assembler.streaming = True
    return assembler


def parts_of(found):
    return [(message.text, message.data, message.final) for message in found]


def test_fragments_are_handed_out_one_by_one_however_the_input_is_cut():
    data = fragments(BINARY, [b"ab", b"", b"cd", b"e"])
    for chunks in cuttings(data):
        assert parts_of(messages(streaming(None), chunks)) == [
            (False, b"ab", False),
            (False, b"", False),
            (False, b"cd", False),
            (False, b"e", True),
        ]


def test_whole_message_is_handed_out_as_one_final_part():
    data = frame(FIN | TEXT, b"a") + frame(FIN | BINARY, b"b")
    for chunks in cuttings(data):
        assert parts_of(messages(streaming(None), chunks)) == [
            (True, b"a", True),
            (False, b"b", True),
        ]


def test_streaming_has_to_be_asked_for_and_ends_with_the_message():
    assembler = MessageAssembler(None)
    assert assembler.streaming is False
    assembler.streaming = True
    assert len(messages(assembler, [fragments(BINARY, [b"a", b"b"])])) == 2
    assert assembler.streaming is False


def test_parts_of_a_text_may_end_inside_a_character():
    data = fragments(TEXT, [b"\xe2\x82", b"\xac"])
    assert parts_of(messages(streaming(None), [data])) == [
        (True, b"\xe2\x82", False),
        (True, b"\xac", True),
    ]


def test_compressed_fragments_are_handed_out_inflated():
    data = compressed(b"Hello ", b"world")
    found = messages(streaming(None, codec=DeflateCodec()), [data])
    assert b"".join(message.data for message in found) == b"Hello world"
    assert [message.final for message in found] == [False, True]


def test_error_in_a_later_part_counts_from_the_start_of_the_message():
    data = fragments(TEXT, [b"0123456789", b"a\xff"])
    exc = refusal(streaming(None), [data], UnicodeDecodeError)
    assert exc.start == 11


def test_max_size_holds_for_all_parts_together():
    data = fragments(BINARY, [b"x" * 6, b"x" * 5])
    exc = refusal(streaming(10), [data], PayloadTooBig)
    assert (exc.size, exc.max_size, exc.current_size) == (5, 10, 6)


def test_streaming_that_begins_inside_a_message_hands_out_what_there_is_first():
    assembler = MessageAssembler(None)
    assert messages(assembler, [frame(BINARY, b"ab"), frame(CONT, b"cd")]) == []
    assembler.streaming = True
    found = messages(assembler, [frame(CONT, b"ef") + frame(FIN, b"g")])
    assert parts_of(found) == [(False, b"abcdef", False), (False, b"g", True)]


# Frames without payload


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_empty_fragments_over_the_limit_are_refused(opcode):
    data = frame(opcode) + frame(CONT) * 3 + frame(FIN | CONT)
    for chunks in cuttings(data):
        assert len(messages(MessageAssembler(10, max_empty=5), chunks)) == 1
        exc = refusal(MessageAssembler(10, max_empty=4), chunks, PolicyViolation)
        assert str(exc) == "over 4 empty fragments in a message"


def test_empty_fragments_are_counted_for_each_message_by_itself():
    data = fragments(BINARY, [b"", b"a", b""])
    assert len(messages(MessageAssembler(10, max_empty=2), [data * 3])) == 3


def test_empty_messages_are_not_counted():
    assert len(messages(MessageAssembler(10, max_empty=0), [frame(FIN | BINARY) * 3])) == 3


def test_there_may_be_no_limit_for_empty_fragments():
    data = frame(BINARY) + frame(CONT) * 5000 + frame(FIN | CONT)
    assert contents(messages(MessageAssembler(10), [data])) == [b""]
