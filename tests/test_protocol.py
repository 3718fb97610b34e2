"""Both halves of a connection, without one: events in, frames out, and the closing state."""

from __future__ import annotations

import tracemalloc

import pytest
from cutting import cuttings

from syncws.exceptions import (
    ConnectionClosedError,
    ConnectionClosedOK,
    PayloadTooBig,
    PolicyViolation,
    ProtocolError,
)
from syncws.frames import CONTROL, FIN, RSV1, RSV2, RSV3, encode_frame, frame_header
from syncws.messages import Message
from syncws.opcodes import Close, Opcode, State
from syncws.permessage_deflate import DeflateCodec
from syncws.protocol import (
    TRANSITIONS,
    UNFINISHED,
    Closing,
    Control,
    Inbound,
    Outbound,
    Phase,
    Step,
    explain_failure,
)

MIB = 1024 * 1024

CONT = Opcode.CONT
TEXT = Opcode.TEXT
BINARY = Opcode.BINARY
CLOSE = FIN | Opcode.CLOSE
PING = FIN | Opcode.PING
PONG = FIN | Opcode.PONG


class Shift:
    """An extension of our own: adds a number to each byte, and marks its frames with one bit."""

    name = "x-shift"

    def __init__(self, number=13, bit="rsv2"):
        self.number = number
        self.bit = bit
        setattr(self, bit, True)

    def encode(self, frame):
        return self._shift(frame, self.number, True)

    def decode(self, frame, *, max_size=None):
        if not getattr(frame, self.bit):
            return frame
        return self._shift(frame, -self.number, False)

    def _shift(self, frame, number, marked):
        data = bytes((byte + number) & 0xFF for byte in frame.data)
        return frame._replace(**{"data": data, self.bit: marked})


class Double:
    """An extension without a bit of its own that halves frames when decoding."""

    name = "x-double"

    def encode(self, frame):
        return frame._replace(data=frame.data * 2)

    def decode(self, frame, *, max_size=None):
        half = len(frame.data) // 2
        if frame.data[:half] != frame.data[half:]:
            raise ProtocolError("halves differ")
        return frame._replace(data=frame.data[:half])


def frame(head, payload=b"", key=None):
    return b"".join(encode_frame(head, payload, key))


def inbound(max_size=MIB, *, masked=False, **kwargs):
    return Inbound(masked=masked, max_size=max_size, **kwargs)


def outbound(*extensions, masked=False):
    return Outbound(masked=masked, extensions=extensions, random=bytes)


def events(half, chunks):
    """All events in the input; messages as text flag and data."""
    found = []
    for chunk in chunks:
        half.feed(chunk)
        found += iter(half.next, None)
    return [(e.text, e.data) if isinstance(e, Message) else e for e in found]


def error(half, chunks, exception=ProtocolError):
    """The text of the error that the input ends with."""
    with pytest.raises(exception) as caught:
        events(half, chunks)
    return str(caught.value)


# Inbound


def test_control_frames_between_fragments_come_at_once():
    data = (
        frame(TEXT, b"Hel")
        + frame(PING, b"?")
        + frame(CONT, b"l")
        + frame(PONG, b"!")
        + frame(PING)
        + frame(FIN, b"o")
    )
    for chunks in cuttings(data):
        assert events(inbound(), chunks) == [
            Control(Opcode.PING, b"?"),
            Control(Opcode.PONG, b"!"),
            Control(Opcode.PING, b""),
            (True, b"Hello"),
        ]


def test_close_between_fragments_is_an_event():
    data = frame(TEXT, b"Hel") + frame(CLOSE, b"\x03\xe8")
    for chunks in cuttings(data):
        assert events(inbound(), chunks) == [
            Control(Opcode.CLOSE, b"\x03\xe8", Close(1000)),
        ]


def test_frames_of_a_client_are_unmasked():
    data = frame(FIN | TEXT, b"Hello", b"abcd") + frame(PING, b"Hello", b"efgh")
    for chunks in cuttings(data):
        assert events(inbound(masked=True), chunks) == [
            (True, b"Hello"),
            Control(Opcode.PING, b"Hello"),
        ]


@pytest.mark.parametrize("masked", [False, True], ids=["from-server", "from-client"])
def test_masking_must_fit_the_role(masked):
    data = frame(FIN | TEXT, b"Hello", None if masked else b"abcd")
    for chunks in cuttings(data):
        assert error(inbound(masked=masked), chunks) == "incorrect masking"


@pytest.mark.parametrize(
    ("payload", "close"),
    [
        (b"", Close(1005)),
        (b"\x03\xe8", Close(1000)),
        (b"\x03\xe9bye", Close(1001, "bye")),
        (b"\x0f\xa0" + b"x" * 123, Close(4000, "x" * 123)),
    ],
)
def test_close_frame_tells_code_and_reason(payload, close):
    for chunks in cuttings(frame(CLOSE, payload)):
        assert events(inbound(), chunks) == [Control(Opcode.CLOSE, payload, close)]


def test_nothing_follows_a_close_frame():
    data = frame(FIN | TEXT, b"one") + frame(CLOSE) + frame(FIN | TEXT, b"two") + b"\xff\xff"
    for chunks in cuttings(data):
        half = inbound()
        assert events(half, chunks) == [
            (True, b"one"),
            Control(Opcode.CLOSE, b"", Close(1005)),
        ]
        assert half.ended


@pytest.mark.parametrize(
    ("payload", "exception", "text"),
    [
        (b"\x03", ProtocolError, "close frame too short"),
        (b"\x03\xed", ProtocolError, "invalid status code"),
        (
            b"\x03\xe8a\xff",
            UnicodeDecodeError,
            "'utf-8' codec can't decode byte 0xff in position 1: invalid start byte",
        ),
    ],
)
def test_bad_close_frame_is_an_error(payload, exception, text):
    for chunks in cuttings(frame(CLOSE, payload)):
        half = inbound()
        assert error(half, chunks, exception) == text
        assert half.ended


@pytest.mark.parametrize(
    ("data", "exception"),
    [
        (frame(FIN | 3), ProtocolError),
        (frame(FIN), ProtocolError),
        (frame(FIN | TEXT, b"\xff"), UnicodeDecodeError),
        (frame_header(FIN | TEXT, 11), PayloadTooBig),
        (frame(CLOSE, b"\x03\xe8\xff"), UnicodeDecodeError),
        (frame(CLOSE, b"\x03"), ProtocolError),
    ],
)
def test_good_messages_before_an_error_are_delivered_and_none_after_it(data, exception):
    half = inbound(10)
    half.feed(frame(FIN | TEXT, b"good") + frame(PING) + data + frame(FIN | TEXT, b"late"))
    assert half.next().data == b"good"
    assert half.next() == Control(Opcode.PING, b"")
    with pytest.raises(exception):
        half.next()
    assert half.ended
    assert half.next() is None
    assert events(half, [frame(FIN | TEXT, b"late")]) == []


@pytest.mark.parametrize("extensions", [(), (Shift(),)], ids=["plain", "extension"])
def test_what_is_buffered_is_let_go_of_at_the_end(extensions):
    half = inbound(extensions=extensions)
    tracemalloc.start()
    try:
        assert events(half, [frame_header(BINARY, MIB), bytes(bytearray(MIB // 2))]) == []
        assert tracemalloc.get_traced_memory()[0] > MIB // 2
        half.end()
        assert tracemalloc.get_traced_memory()[0] < 10_000
    finally:
        tracemalloc.stop()


def test_limits_are_those_given():
    assert "limit of 10 bytes" in error(inbound(10), [frame_header(FIN | TEXT, 11)], PayloadTooBig)
    half = inbound(None, max_fragment=10)
    assert "limit of 10 bytes" in error(half, [frame_header(FIN | TEXT, 11)], PayloadTooBig)


def test_streaming_can_be_switched_on():
    half = inbound()
    half.assembler.streaming = True
    assert events(half, [frame(TEXT, b"a") + frame(FIN, b"b")]) == [(True, b"a"), (True, b"b")]


# Inbound, with extensions


def test_compressed_messages_are_inflated():
    data = frame(FIN | RSV1 | TEXT, bytes.fromhex("f248cdc9c90700"))
    for chunks in cuttings(data):
        assert events(inbound(extensions=[DeflateCodec()]), chunks) == [(True, b"Hello")]


@pytest.mark.parametrize(
    ("extensions", "head"),
    [
        ([], FIN | RSV1 | TEXT),
        ([], FIN | RSV2 | TEXT),
        ([], FIN | RSV3 | TEXT),
        ([DeflateCodec()], FIN | RSV2 | TEXT),
        ([DeflateCodec()], FIN | RSV3 | TEXT),
        ([DeflateCodec()], PING | RSV1),
        ([Shift()], FIN | RSV1 | TEXT),
        ([Shift()], FIN | RSV3 | TEXT),
        ([Shift()], PING | RSV2),
        ([Shift(bit="rsv3")], FIN | RSV2 | TEXT),
        ([Shift(bit="rsv1")], FIN | RSV2 | TEXT),
        ([Double()], FIN | RSV2 | TEXT),
    ],
)
def test_rsv_bits_without_an_extension_that_uses_them_are_refused(extensions, head):
    for chunks in cuttings(frame(head, b"aa")):
        assert error(inbound(extensions=extensions), chunks) == "reserved bits must be 0"


def test_rsv1_on_a_continuation_frame_is_refused():
    data = frame(RSV1 | TEXT, b"\x00") + frame(FIN | RSV1)
    for chunks in cuttings(data):
        half = inbound(extensions=[DeflateCodec()])
        assert error(half, chunks) == "reserved bits must be 0"


class Forgetful(Shift):
    """An extension that leaves its bit set."""

    def decode(self, frame, *, max_size=None):
        return frame


@pytest.mark.parametrize("bit", ["rsv1", "rsv2", "rsv3"])
def test_rsv_bit_that_no_extension_has_undone_is_refused(bit):
    half = inbound(extensions=[Forgetful(bit=bit)])
    head = {"rsv1": RSV1, "rsv2": RSV2, "rsv3": RSV3}[bit]
    assert error(half, [frame(FIN | TEXT | head, b"x")]) == "reserved bits must be 0"


@pytest.mark.parametrize("bit", ["rsv1", "rsv2", "rsv3"])
def test_another_extension_sees_whole_frames_however_they_are_cut(bit):
    send = outbound(Shift(bit=bit))
    data = b"".join(
        frame(PING, b"?") + b"".join(send.encode(head, payload))
        for head, payload in [(TEXT, b"Hel"), (CONT, b""), (FIN, b"lo"), (FIN | BINARY, b"\xff")]
    )
    for chunks in cuttings(data):
        found = events(inbound(extensions=[Shift(bit=bit)]), chunks)
        assert [event for event in found if not isinstance(event, Control)] == [
            (True, b"Hello"),
            (False, b"\xff"),
        ]


def test_other_extensions_are_undone_in_reverse_order():
    extensions = [Shift(1), Double()]
    data = b"".join(outbound(*extensions).encode(FIN | TEXT, b"Hello"))
    assert data == frame(FIN | RSV2 | TEXT, b"IfmmpIfmmp")
    for chunks in cuttings(data):
        assert events(inbound(extensions=extensions), chunks) == [(True, b"Hello")]


class Loose(Double):
    """An extension that returns what is like bytes."""

    def __init__(self, kind):
        self.kind = kind

    def decode(self, frame, *, max_size=None):
        frame = super().decode(frame, max_size=max_size)
        return frame._replace(data=self.kind(frame.data))


class Octets(bytes):
    pass


@pytest.mark.parametrize("kind", [bytearray, memoryview, Octets])
def test_other_extensions_may_return_what_is_like_bytes(kind):
    data = frame(FIN | TEXT, b"OneOne") + frame(TEXT, b"TwoTwo") + frame(FIN, b"ThreeThree")
    found = events(inbound(extensions=[Loose(kind)]), [data])
    assert found == [(True, b"One"), (True, b"TwoThree")]
    assert [type(payload) for _, payload in found] == [bytes, bytes]


def test_error_of_another_extension_ends_the_half():
    half = inbound(extensions=[Double()])
    assert error(half, [frame(FIN | TEXT, b"ab") + frame(FIN | TEXT, b"aa")]) == "halves differ"
    assert half.ended


def test_frame_for_another_extension_is_held_to_the_limit_when_announced():
    for chunks in cuttings(frame_header(FIN | RSV2 | TEXT, 11)):
        half = inbound(10, extensions=[Shift()])
        text = error(half, chunks, PayloadTooBig)
        assert text == "frame with 11 bytes exceeds limit of 10 bytes (max_size)"


def test_message_of_another_extension_is_held_to_the_limit():
    send = outbound(Shift())
    data = b"".join(send.encode(TEXT, b"x" * 6) + send.encode(FIN, b"x" * 5))
    text = error(inbound(10, extensions=[Shift()]), [data], PayloadTooBig)
    assert text == "frame with 5 bytes after reading 6 bytes exceeds limit of 10 bytes (max_size)"


def test_compressed_frame_for_another_extension_may_be_longer_than_its_message():
    payload = bytes((i * i * 31 + i * 7 + (i >> 3)) & 0xFF for i in range(1000))
    codec = DeflateCodec(level=0)
    data = b"".join(outbound(Shift(), codec).encode_deflated(FIN | BINARY, payload))
    assert len(data) > 1004
    found = events(inbound(1000, extensions=[Shift(), DeflateCodec()]), [data])
    assert found == [(False, payload)]


def test_another_extension_without_a_limit():
    data = b"".join(outbound(Shift()).encode(FIN | BINARY, bytes(MIB)))
    assert events(inbound(None, extensions=[Shift()]), [data]) == [(False, bytes(MIB))]


@pytest.mark.parametrize("masked", [False, True], ids=["server", "client"])
def test_compression_and_another_extension_work_together(masked):
    def extensions():
        return [DeflateCodec(), Shift()]

    send = outbound(*extensions(), masked=masked)
    data = b"".join(
        send.encode_deflated(TEXT, b"Hello, ")
        + send.encode(PING, b"?")
        + send.encode_deflated(CONT, b"Hello, ")
        + send.encode_deflated(FIN, b"Hello")
        + send.encode(FIN | BINARY, b"plain")
        + send.encode_deflated(FIN | BINARY, b"Hello again")
    )
    for chunks in cuttings(data):
        assert events(inbound(masked=masked, extensions=extensions()), chunks) == [
            Control(Opcode.PING, b"?"),
            (True, b"Hello, Hello, Hello"),
            (False, b"plain"),
            (False, b"Hello again"),
        ]


# Outbound


def test_server_does_not_mask():
    header, payload = outbound().encode(FIN | TEXT, b"Hello")
    assert header + payload == bytes.fromhex("81 05 48 65 6c 6c 6f")


def test_client_masks_every_frame_with_a_key_of_its_own():
    keys = iter([b"\x37\xfa\x21\x3d", b"abcd", b"efgh"])
    asked = []

    def random(size):
        asked.append(size)
        return next(keys)

    half = Outbound(masked=True, extensions=(), random=random)
    assert b"".join(half.encode(FIN | TEXT, b"Hello")) == bytes.fromhex(
        "81 85 37 fa 21 3d 7f 9f 4d 51 58"
    )
    assert b"".join(half.encode(PING, b"Hello")) == frame(PING, b"Hello", b"abcd")
    assert b"".join(half.encode_close(Close(1000))) == frame(CLOSE, b"\x03\xe8", b"efgh")
    assert asked == [4, 4, 4]


def test_role_can_be_told():
    assert outbound(masked=True).masked
    assert not outbound().masked


def test_rsv1_is_set_on_the_first_frame_of_a_compressed_message_alone():
    half = outbound(DeflateCodec())
    heads = [half.encode_deflated(head, b"Hello")[0][0] for head in (TEXT, CONT, FIN)]
    assert heads == [RSV1 | TEXT, CONT, FIN]
    assert half.encode_deflated(FIN | BINARY, b"Hello")[0][0] == FIN | RSV1 | BINARY


def test_example_of_rfc_7692():
    header, payload = outbound(DeflateCodec()).encode_deflated(FIN | TEXT, b"Hello")
    assert header + payload == bytes.fromhex("c1 07 f2 48 cd c9 c9 07 00")


def test_uncompressed_message_has_no_rsv1_though_compression_was_agreed():
    assert b"".join(outbound(DeflateCodec()).encode(FIN | TEXT, b"Hi")) == frame(FIN | TEXT, b"Hi")


def test_control_frames_are_not_extended():
    half = outbound(DeflateCodec(), Shift())
    for head in (PING, PONG):
        assert head & CONTROL
        assert b"".join(half.encode(head, b"Hi")) == frame(head, b"Hi")
    assert b"".join(half.encode_close(Close(1001))) == frame(CLOSE, b"\x03\xe9")


def test_outbound_finds_the_codec_among_the_extensions():
    codec = DeflateCodec()
    assert outbound(Shift(), codec).codec is codec
    assert outbound(Shift()).codec is None


@pytest.mark.parametrize(
    ("close", "text"),
    [
        (Close(1006), "invalid status code: 1006; write 1000 or 3000 to 4999"),
        (Close(1000, "x" * 124), "control frame too long: a close reason has at most 123 bytes"),
    ],
)
def test_close_frame_that_must_not_be_sent_is_refused(close, text):
    with pytest.raises(ProtocolError, match=f"^{text}$"):
        outbound().encode_close(close)


@pytest.mark.parametrize(
    ("half", "shareable"),
    [
        (outbound(), True),
        (outbound(DeflateCodec()), True),
        (outbound(Shift()), False),
        (outbound(masked=True), False),
    ],
)
def test_frames_can_be_shared_by_servers_without_other_extensions(half, shareable):
    assert half.shareable is shareable


# What answers an error of the peer


@pytest.mark.parametrize(
    ("exc", "close"),
    [
        (ProtocolError("incorrect masking"), Close(1002, "incorrect masking")),
        (
            UnicodeDecodeError("utf-8", b"", 12, 13, "invalid start byte"),
            Close(1007, "invalid start byte at position 12"),
        ),
        (
            PayloadTooBig(8, 4, 2),
            Close(
                1009, "frame with 8 bytes after reading 2 bytes exceeds limit of 4 bytes (max_size)"
            ),
        ),
        (PolicyViolation("over a limit"), Close(1008, "over a limit")),
        (ValueError("something of ours"), Close(1011)),
        (ProtocolError("é" * 100), Close(1002, "é" * 61)),
    ],
)
def test_error_is_explained_by_code_and_reason(exc, close):
    assert explain_failure(exc) == close
    assert b"".join(outbound().encode_close(close))


VIOLATIONS = [
    (frame(FIN | RSV1 | TEXT), Close(1002, "reserved bits must be 0")),
    (frame(FIN | 3), Close(1002, "invalid opcode")),
    (frame(FIN | TEXT, b"", b"abcd"), Close(1002, "incorrect masking")),
    (frame(Opcode.PING), Close(1002, "fragmented control frame")),
    (frame_header(PING, 126), Close(1002, "control frame too long")),
    (b"\x82\x7e\x00\x7d", Close(1002, "frame length not minimally encoded")),
    (b"\x82\x7f" + b"\xff" * 8, Close(1002, "frame length of more than 63 bits")),
    (frame(FIN), Close(1002, "unexpected continuation frame")),
    (frame(TEXT) * 2, Close(1002, "expected a continuation frame")),
    (frame(CLOSE, b"\x03"), Close(1002, "close frame too short")),
    (frame(CLOSE, b"\x03\xee"), Close(1002, "invalid status code")),
    (frame(CLOSE, b"\x03\xe8\xff"), Close(1007, "invalid start byte at position 0")),
    (frame(FIN | TEXT, b"ab\xff"), Close(1007, "invalid start byte at position 2")),
    (
        frame_header(BINARY, 2 * MIB),
        Close(1009, "frame with 2097152 bytes exceeds limit of 1048576 bytes (max_size)"),
    ),
]


@pytest.mark.parametrize(("data", "close"), VIOLATIONS)
def test_violation_has_its_close_code_however_the_input_is_cut(data, close):
    for chunks in cuttings(data):
        with pytest.raises((ProtocolError, UnicodeDecodeError, PayloadTooBig)) as caught:
            events(inbound(), chunks)
        assert explain_failure(caught.value) == close


# Closing

OURS = Close(1001, "ours")
THEIRS = Close(4000, "theirs")
FAILURE = Close(1002, "failure")

# How to get to each phase.
PATHS = [
    (Phase.OPEN, []),
    (Phase.SENT, [Step.SEND]),
    (Phase.EXCHANGED, [Step.SEND, Step.RECEIVE]),
    (Phase.EXCHANGED, [Step.RECEIVE]),
    (Phase.FAILED, [Step.FAIL]),
    (Phase.FAILED, [Step.SEND, Step.FAIL]),
    (Phase.GONE, [Step.EOF]),
    (Phase.GONE, [Step.SEND, Step.EOF]),
    (Phase.GONE, [Step.RECEIVE, Step.EOF]),
    (Phase.GONE, [Step.FAIL, Step.EOF]),
]

# What each step leads to, and what it returns: whether, or which, Close frame is to be sent.
OUTCOMES = {
    (Phase.OPEN, Step.SEND): (Phase.SENT, True),
    (Phase.OPEN, Step.RECEIVE): (Phase.EXCHANGED, THEIRS),
    (Phase.OPEN, Step.FAIL): (Phase.FAILED, True),
    (Phase.OPEN, Step.EOF): (Phase.GONE, None),
    (Phase.SENT, Step.SEND): (Phase.SENT, False),
    (Phase.SENT, Step.RECEIVE): (Phase.EXCHANGED, None),
    (Phase.SENT, Step.FAIL): (Phase.FAILED, False),
    (Phase.SENT, Step.EOF): (Phase.GONE, None),
    (Phase.EXCHANGED, Step.SEND): (Phase.EXCHANGED, False),
    (Phase.EXCHANGED, Step.RECEIVE): (Phase.EXCHANGED, None),
    (Phase.EXCHANGED, Step.FAIL): (Phase.EXCHANGED, False),
    (Phase.EXCHANGED, Step.EOF): (Phase.GONE, None),
    (Phase.FAILED, Step.SEND): (Phase.FAILED, False),
    (Phase.FAILED, Step.RECEIVE): (Phase.FAILED, None),
    (Phase.FAILED, Step.FAIL): (Phase.FAILED, False),
    (Phase.FAILED, Step.EOF): (Phase.GONE, None),
    (Phase.GONE, Step.SEND): (Phase.GONE, False),
    (Phase.GONE, Step.RECEIVE): (Phase.GONE, None),
    (Phase.GONE, Step.FAIL): (Phase.GONE, False),
    (Phase.GONE, Step.EOF): (Phase.GONE, None),
}


def take(closing, step):
    if step is Step.SEND:
        return closing.send(OURS)
    if step is Step.RECEIVE:
        return closing.receive(THEIRS)
    if step is Step.FAIL:
        return closing.fail(FAILURE)
    return closing.eof()


def closing_after(steps):
    closing = Closing()
    for step in steps:
        take(closing, step)
    return closing


def frames_of(closing):
    return closing.rcvd, closing.sent, closing.rcvd_then_sent


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize(("phase", "path"), PATHS)
def test_every_step_in_every_phase(phase, path, step):
    closing = closing_after(path)
    assert closing.phase is phase
    before = frames_of(closing)
    expected_phase, expected_result = OUTCOMES[phase, step]
    assert take(closing, step) == expected_result
    assert closing.phase is expected_phase
    if phase is expected_phase:
        assert frames_of(closing) == before


@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize(("phase", "path"), PATHS)
def test_table_of_transitions_says_the_same(phase, path, step):
    expected_phase, _ = OUTCOMES[phase, step]
    assert TRANSITIONS.get((phase, step), phase) is expected_phase


@pytest.mark.parametrize(
    ("phase", "state", "over"),
    [
        (Phase.OPEN, State.OPEN, False),
        (Phase.SENT, State.CLOSING, False),
        (Phase.EXCHANGED, State.CLOSED, True),
        (Phase.FAILED, State.CLOSED, True),
        (Phase.GONE, State.CLOSED, True),
    ],
)
def test_state_of_every_phase(phase, state, over):
    for reached, path in PATHS:
        if reached is phase:
            closing = closing_after(path)
            assert (closing.state, closing.over) == (state, over)


@pytest.mark.parametrize(
    ("steps", "rcvd", "sent", "rcvd_then_sent"),
    [
        ([], None, None, None),
        ([Step.SEND], None, OURS, None),
        ([Step.SEND, Step.SEND], None, OURS, None),
        ([Step.SEND, Step.RECEIVE], THEIRS, OURS, False),
        ([Step.RECEIVE], THEIRS, THEIRS, True),
        ([Step.RECEIVE, Step.SEND], THEIRS, THEIRS, True),
        ([Step.FAIL], None, FAILURE, None),
        ([Step.FAIL, Step.RECEIVE], None, FAILURE, None),
        ([Step.SEND, Step.FAIL], None, OURS, None),
        ([Step.EOF], None, None, None),
        ([Step.EOF, Step.RECEIVE], None, None, None),
        ([Step.SEND, Step.EOF], None, OURS, None),
    ],
)
def test_close_frames_and_their_order_are_remembered(steps, rcvd, sent, rcvd_then_sent):
    assert frames_of(closing_after(steps)) == (rcvd, sent, rcvd_then_sent)


def test_close_frame_is_answered_with_the_same_code():
    assert Closing().receive(Close(1001, "bye")) == Close(1001, "bye")


def test_close_frame_without_a_code_is_answered_without_one():
    answer = Closing().receive(Close(1005))
    assert b"".join(outbound().encode_close(answer)) == b"\x88\x00"


def closed(sent=None, rcvd=None, rcvd_first=False):
    """A closing state after these Close frames, at the end of the TCP connection."""
    closing = Closing()
    if rcvd is not None and rcvd_first:
        closing.receive(rcvd)
    if sent is not None:
        closing.send(sent)
    if rcvd is not None and not rcvd_first:
        closing.receive(rcvd)
    closing.eof()
    return closing


@pytest.mark.parametrize(
    ("closing", "kind", "text"),
    [
        (closed(), ConnectionClosedError, "no close frame received or sent"),
        (
            closed(sent=Close(1000)),
            ConnectionClosedError,
            "sent 1000 (OK); no close frame received",
        ),
        (
            closed(sent=Close(1000), rcvd=Close(1000)),
            ConnectionClosedOK,
            "sent 1000 (OK); then received 1000 (OK)",
        ),
        (
            closed(rcvd=Close(1001, "bye"), rcvd_first=True),
            ConnectionClosedOK,
            "received 1001 (going away) bye; then sent 1001 (going away) bye",
        ),
        (
            closed(rcvd=Close(1005), rcvd_first=True),
            ConnectionClosedOK,
            "received 1005 (no status received [internal]); "
            "then sent 1005 (no status received [internal])",
        ),
        (
            closed(sent=Close(1000), rcvd=Close(1011, "oops")),
            ConnectionClosedError,
            "sent 1000 (OK); then received 1011 (internal error) oops",
        ),
        (
            closed(sent=Close(1011), rcvd=Close(1000)),
            ConnectionClosedError,
            "sent 1011 (internal error); then received 1000 (OK)",
        ),
        (
            closed(rcvd=Close(3000), rcvd_first=True),
            ConnectionClosedError,
            "received 3000 (registered); then sent 3000 (registered)",
        ),
        (
            closing_after([Step.FAIL, Step.EOF]),
            ConnectionClosedError,
            "sent 1002 (protocol error) failure; no close frame received",
        ),
    ],
)
def test_exception_of_a_closed_connection(closing, kind, text):
    exc = closing.exception(None)
    assert type(exc) is kind
    assert str(exc) == text
    assert (exc.rcvd, exc.sent, exc.rcvd_then_sent) == frames_of(closing)
    assert exc.__cause__ is None


def test_exception_of_a_closed_connection_has_its_cause():
    cause = TimeoutError("timed out")
    assert closed().exception(cause).__cause__ is cause


def test_steps_that_are_not_events_can_be_limited():
    half = inbound()
    half.feed(frame(TEXT, b"a") + frame(CONT, b"b") * 5 + frame(FIN | CONT, b"c"))
    found = [half.next(3) for _ in range(3)]
    assert found[:2] == [UNFINISHED, UNFINISHED]
    assert found[2].data == b"abbbbbc"
    assert half.next(3) is None


def test_the_code_is_that_of_the_close_frame_that_came_first():
    closing = Closing()
    assert closing.first_code == 1006
    closing.receive(Close(4000))
    assert closing.first_code == 4000
    other = Closing()
    other.send(Close(4001))
    other.receive(Close(4002))
    assert other.first_code == 4001
