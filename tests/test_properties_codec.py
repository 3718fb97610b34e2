"""The codec under any input: masking, frames, messages, UTF-8, limits, compression, closing."""

from __future__ import annotations

import zlib

import peers
import pytest
from hypothesis import given
from hypothesis import strategies as st
from peers import BINARY, CLOSE, CONT, FIN, PING, PONG, RSV1, TEXT
from profiles import examples, patience
from strategies import (
    BOUNDARIES,
    cut,
    cuts,
    masking_keys,
    mutations,
    noise,
    payloads,
    stretch,
    texts,
)

from syncws.exceptions import (
    NegotiationError,
    PayloadTooBig,
    PolicyViolation,
    ProtocolError,
)
from syncws.frames import FrameDecoder, encode_close, encode_frame, frame_header, parse_close
from syncws.headers import build_extension, parse_extension
from syncws.masking import apply_mask
from syncws.messages import Message, MessageAssembler
from syncws.opcodes import Close
from syncws.permessage_deflate import DeflateCodec, PerMessageDeflate
from syncws.protocol import Inbound, Outbound, PeerError, explain_failure, own_close

pytestmark = patience

DATA_HEADS = [fin | opcode for fin in (0, FIN) for opcode in (CONT, TEXT, BINARY)]
CONTROL_HEADS = [FIN | PING, FIN | PONG, FIN | CLOSE]

TAIL = b"\x00\x00\xff\xff"

frames = st.one_of(
    st.tuples(st.sampled_from(DATA_HEADS), payloads),
    st.tuples(st.sampled_from(CONTROL_HEADS), st.binary(max_size=125)),
)

# Text, and what is nearly text: overlong forms, surrogates, what no character begins with; and
# a character that has no end, most often where the text ends.
nearly_utf8 = st.builds(
    lambda parts, end: b"".join([*parts, end]),
    st.lists(
        st.one_of(
            texts(4).map(str.encode),
            st.sampled_from("ä€😀\U0010ffff").map(str.encode),
            st.sampled_from([b"\xed\xa0\x80", b"\xe0\x80\x80", b"\xf4\x90\x80\x80", b"\xff"]),
        ),
        max_size=3,
    ),
    st.sampled_from([b"", b"", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98"]),
)

# Chunks that come again, nearer and further than the windows reach.
chunks = st.one_of(
    st.binary(max_size=8),
    st.builds(noise, st.sampled_from([3, 200, 300, 600, 5000]), st.integers(0, 2)),
    st.builds(stretch, st.sampled_from([b"a", b"syncws "]), st.sampled_from(BOUNDARIES)),
)
compressible = st.lists(chunks, max_size=5).map(b"".join)

configs = st.builds(
    PerMessageDeflate,
    server_no_context_takeover=st.booleans(),
    client_no_context_takeover=st.booleans(),
    server_max_window_bits=st.none() | st.integers(8, 15),
    client_max_window_bits=st.sampled_from([None, True]) | st.integers(8, 15),
    window_bits=st.integers(8, 15),
    memory_level=st.integers(1, 9),
    level=st.none() | st.integers(0, 9),
    threshold=st.sampled_from([0, 64]),
)

codecs = st.builds(
    DeflateCodec,
    own_window_bits=st.integers(8, 15),
    own_no_context_takeover=st.booleans(),
    level=st.none() | st.integers(0, 9),
    memory_level=st.integers(1, 9),
)


def decode(decoder, pieces):
    """Feed pieces to a decoder of frames; yield its steps."""
    for piece in pieces:
        decoder.feed(piece)
        while (step := decoder.next()) is not None:
            yield step


def put_together(steps):
    """Frames from the steps of a decoder, which must be consistent."""
    whole = []
    remaining = None
    for head, payload, length, end in steps:
        if length >= 0:
            assert remaining is None, "a frame began inside another one"
            whole.append((head, b""))
            remaining = length
        assert head == whole[-1][0]
        whole[-1] = (head, whole[-1][1] + payload)
        remaining -= len(payload)
        assert end == (remaining == 0)
        remaining = None if end else remaining
    assert remaining is None, "a frame has no end"
    return whole


def receive(inbound, pieces):
    """Feed pieces to an inbound half; return its events and the error that ended them."""
    events = []
    try:
        for piece in pieces:
            inbound.feed(piece)
            while (event := inbound.next()) is not None:
                is_message = isinstance(event, Message)
                events.append((event.text, event.data) if is_message else tuple(event))
    except PeerError as exc:
        assert inbound.ended
        return events, exc
    return events, None


def fragment(opcode, data, sizes):
    """Heads and payloads of the frames of a message."""
    parts = cut(data, sizes) or [b""]
    heads = [opcode, *[CONT] * (len(parts) - 1)]
    heads[-1] |= FIN
    return list(zip(heads, parts))


def decoding_error(data):
    """What Python says of bytes that are not UTF-8; ``None`` if they are."""
    try:
        data.decode()
    except UnicodeDecodeError as exc:
        return exc
    return None


def join_frames(parts, masked=False):
    return b"".join(peers.frame(head, payload, masked) for head, payload in parts)


# Masking and frames (RFC 6455 §5.2, §5.3)


@given(payloads, masking_keys)
def test_masking_is_an_xor_with_the_key_again_and_again(data, key):
    assert apply_mask(data, key) == peers.unmask(data, key)


@given(frame=frames, masked=st.booleans())
def test_frames_are_encoded_as_by_another_encoder(frame, masked):
    key = b"\x01\x02\x03\x04" if masked else None
    assert b"".join(encode_frame(*frame, key)) == peers.frame(*frame, masked)


@given(st.lists(frames, max_size=4), st.none() | masking_keys, cuts)
def test_frames_come_out_as_they_went_in_however_they_are_cut(sent, key, sizes):
    data = b"".join(b"".join(encode_frame(head, payload, key)) for head, payload in sent)
    steps = decode(FrameDecoder(key is not None), cut(data, sizes))
    assert put_together(steps) == sent


@given(frames, masking_keys, st.booleans(), cuts)
def test_frames_that_are_masked_for_the_other_role_are_refused(frame, key, masked, sizes):
    data = b"".join(encode_frame(*frame, key if masked else None))
    with pytest.raises(ProtocolError, match="incorrect masking"):
        list(decode(FrameDecoder(not masked), cut(data, sizes)))


@given(st.integers(0, 2**63 - 1) | st.sampled_from(BOUNDARIES), st.booleans())
def test_announced_length_is_encoded_in_as_few_bytes_as_possible(length, masked):
    header = frame_header(FIN | BINARY, length, masked)
    assert len(header) == 2 + (0 if length < 126 else 2 if length < 65536 else 8)
    steps = list(decode(FrameDecoder(masked), [header + bytes(4 if masked else 0)]))
    assert steps == [(FIN | BINARY, b"", length, length == 0)]


@given(
    st.sampled_from([126, 127]),
    st.integers(0, 2**64 - 1)
    | st.sampled_from([0, 125, 126, 65535, 65536, 2**63 - 1, 2**63, 2**64 - 1]),
)
def test_length_that_is_not_minimal_or_over_63_bits_is_refused(marker, length):
    size = 2 if marker == 126 else 8
    length %= 256**size
    decoder = FrameDecoder(False)
    decoder.feed(bytes((FIN | BINARY, marker)) + length.to_bytes(size, "big"))
    if (126 if marker == 126 else 65536) <= length < 2**63:
        assert decoder.next() == (FIN | BINARY, b"", length, False)
    else:
        with pytest.raises(ProtocolError, match="length"):
            decoder.next()


@given(
    bits=st.sampled_from([0, FIN, FIN, FIN, RSV1, FIN | RSV1, FIN | 0x20, FIN | 0x10, 0x70]),
    opcode=st.sampled_from([CONT, TEXT, BINARY, CLOSE, PING, PONG]) | st.integers(0, 15),
    length=st.sampled_from([0, 125, 126]),
    compressed=st.booleans(),
    sizes=cuts,
)
def test_frames_pass_if_bits_opcode_and_length_are_allowed(bits, opcode, length, compressed, sizes):
    is_control = opcode in (CLOSE, PING, PONG)
    allowed = FIN | (RSV1 if compressed and opcode in (TEXT, BINARY) else 0)
    is_allowed = (
        (is_control or opcode in (CONT, TEXT, BINARY))
        and not bits & ~allowed
        and not (is_control and (length > 125 or not bits & FIN))
    )
    data = peers.frame(bits | opcode, bytes(length))
    steps = decode(FrameDecoder(False, RSV1 if compressed else 0), cut(data, sizes))
    if is_allowed:
        assert put_together(steps) == [(bits | opcode, bytes(length))]
    else:
        with pytest.raises(ProtocolError):
            list(steps)


# Any input (RFC 6455 §5, RFC 7692 §6)

HEADS = [
    *(DATA_HEADS * 2),
    FIN | RSV1 | TEXT,
    FIN | RSV1 | BINARY,
    RSV1 | TEXT,
    RSV1 | BINARY,
    *CONTROL_HEADS,
]
HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")


@st.composite
def streams(draw, masked):
    """Frames that are right, nearly right or wrong, or no frames at all."""
    contents = st.one_of(
        st.binary(max_size=12),
        nearly_utf8,
        st.sampled_from([b"", b"\x03\xe8", b"\x03\xe8bye", b"\x03\xed", HELLO, HELLO[:4]]),
        st.builds(bytes, st.sampled_from([125, 126, 300])),
    )
    parts = draw(st.lists(st.tuples(st.sampled_from(HEADS), contents), max_size=4))
    return draw(mutations(st.just(join_frames(parts, masked))))


@st.composite
def inputs(draw, compressed):
    """A stream, a function that makes inbound halves to read it, and the limit of messages."""
    masked = draw(st.booleans())
    max_size = draw(st.sampled_from([None, 0, 10, 200]))
    max_fragment = draw(st.sampled_from([None, 8, 150]))
    max_empty = draw(st.sampled_from([None, 0, 1]))
    takeover = draw(st.booleans())

    def make():
        codec = DeflateCodec(peer_no_context_takeover=not takeover)
        return Inbound(
            masked=masked,
            max_size=max_size,
            max_fragment=max_fragment,
            max_empty=max_empty,
            extensions=[codec] if compressed else [],
        )

    return draw(streams(masked)), make, max_size


@examples(60)
@given(inputs(compressed=False), cuts)
def test_any_bytes_mean_the_same_however_they_are_cut(case, sizes):
    data, make, _ = case
    events, error = receive(make(), [data])
    cut_events, cut_error = receive(make(), cut(data, sizes))
    assert cut_events == events
    assert type(cut_error) is type(error)
    assert error is None or explain_failure(cut_error) == explain_failure(error)


@examples(60)
@given(inputs(compressed=True), cuts)
def test_any_bytes_mean_the_same_with_compression_too(case, sizes):
    data, make, _ = case
    events, error = receive(make(), [data])
    cut_events, cut_error = receive(make(), cut(data, sizes))
    assert cut_events == events
    # A text that is wrong twice, before and after inflation, may be refused for either.
    kinds = {type(error), type(cut_error)}
    assert len(kinds) == 1 or kinds == {ProtocolError, UnicodeDecodeError}


@examples(60)
@given(inputs(compressed=True), cuts)
def test_any_bytes_give_small_messages_or_an_error_that_can_be_answered(case, sizes):
    data, make, max_size = case
    inbound = make()
    events, error = receive(inbound, cut(data, sizes))
    for place, event in enumerate(events):
        is_message = len(event) == 2
        assert not is_message or max_size is None or len(event[1]) <= max_size
        assert is_message or event[0] != CLOSE or place == len(events) - 1
    if error is not None:
        assert 2 <= len(encode_close(explain_failure(error))) <= 125
        inbound.feed(data)
        assert inbound.next() is None


# Messages and their limits (RFC 6455 §5.4, §8.1)


@given(
    st.lists(st.tuples(st.sampled_from([TEXT, TEXT, BINARY]), nearly_utf8, cuts), max_size=2),
    st.booleans(),
    cuts,
)
def test_text_is_what_bytes_decode_takes(messages, masked, sizes):
    data = b"".join(join_frames(fragment(*message), masked) for message in messages)
    events, error = receive(Inbound(masked=masked, max_size=None), cut(data, sizes))
    for opcode, payload, _ in messages:
        wrong = decoding_error(payload) if opcode == TEXT else None
        if wrong is not None:
            assert (error.start, error.end) == (wrong.start, wrong.end)
            assert error.reason == wrong.reason
            break
        assert events.pop(0) == (opcode == TEXT, payload)
    else:
        assert error is None
    assert events == []


@given(nearly_utf8)
def test_text_is_refused_at_its_first_wrong_byte(data):
    wrong = first_wrong_byte(data)
    assembler = MessageAssembler(None)
    assembler.add(TEXT, b"", len(data) + 1, False)
    for place in range(len(data)):
        if place == wrong:
            with pytest.raises(UnicodeDecodeError):
                assembler.add(TEXT, data[place : place + 1], -1, False)
            return
        assembler.add(TEXT, data[place : place + 1], -1, False)
    assert wrong is None


def first_wrong_byte(data):
    """The byte that no text can have there; ``None`` if there may be more to come."""
    for place in range(len(data)):
        error = decoding_error(data[: place + 1])
        if error is not None and error.reason != "unexpected end of data":
            return place
    return None


@given(nearly_utf8, cuts, cuts, st.booleans())
def test_parts_of_a_streamed_message_are_its_frames(payload, sizes, wire_sizes, compressed):
    opcode = BINARY if decoding_error(payload) else TEXT
    codec = DeflateCodec()
    outbound = Outbound(masked=False, extensions=[codec], random=bytes)
    encode = outbound.encode_deflated if compressed else outbound.encode
    parts = fragment(opcode, payload, sizes)
    inbound = Inbound(masked=False, max_size=None, extensions=[DeflateCodec()])
    inbound.assembler.streaming = True
    wire = b"".join(b"".join(encode(head, part)) for head, part in parts)
    events, error = receive(inbound, cut(wire, wire_sizes))
    assert error is None
    assert events == [(opcode == TEXT, part) for _, part in parts]


@given(st.lists(st.tuples(st.sampled_from(DATA_HEADS), st.binary(max_size=2)), max_size=4), cuts)
def test_fragments_make_messages_in_their_order_alone(parts, sizes):
    expected = []
    open_message = None
    is_right = True
    for head, payload in parts:
        is_right = (open_message is None) == (head & 0x0F != CONT)
        if not is_right:
            break
        open_message = (open_message or b"") + payload
        if head & FIN:
            expected.append((False, open_message))
            open_message = None
    # All as binary: what is no text is not the question here.
    wire = join_frames(
        (head & ~TEXT | BINARY if head & 0x0F else head, part) for head, part in parts
    )
    events, error = receive(Inbound(masked=False, max_size=None), cut(wire, sizes))
    assert events == expected
    assert (error is None) == is_right
    assert is_right or type(error) is ProtocolError


@given(st.sampled_from([b"", b"\x03\xe8bye"]), st.lists(frames, max_size=2), st.binary(), cuts)
def test_nothing_that_follows_a_close_frame_is_read(payload, parts, rest, sizes):
    wire = join_frames([(FIN | CLOSE, payload), *parts]) + rest
    events, error = receive(Inbound(masked=False, max_size=10), cut(wire, sizes))
    assert [event[0] for event in events] == [CLOSE]
    assert error is None


# Those of a message and of a frame meet often, and so do limits and sizes.
frame_sizes = st.lists(st.sampled_from([0, 0, 1, 7, 20, 21]), min_size=1, max_size=6)
limits = st.sampled_from([None, 7, 20, 21, 28, 40])


def expect(sizes, max_size, max_fragment, max_empty):
    """What the limits make of an uncompressed message with frames of these sizes."""
    if sizes == [0]:
        return None
    total = empty = 0
    for size in sizes:
        total += size
        empty += size == 0
        if max_fragment is not None and size > max_fragment:
            return PayloadTooBig
        if max_size is not None and total > max_size:
            return PayloadTooBig
        if max_empty is not None and empty > max_empty:
            return PolicyViolation
    return None


@examples(100)
@given(
    frame_sizes=frame_sizes,
    max_size=limits,
    max_fragment=limits,
    max_empty=st.sampled_from([None, 1, 2]),
    sizes=cuts,
)
def test_messages_pass_up_to_the_limits_and_not_beyond(frame_sizes, sizes, **limits):
    heads = [BINARY, *[CONT] * (len(frame_sizes) - 1)]
    heads[-1] |= FIN
    message = join_frames(zip(heads, map(bytes, frame_sizes)))
    # Twice, for what was counted must not be counted again.
    events, error = receive(Inbound(masked=False, **limits), cut(message * 2, sizes))
    expected = expect(frame_sizes, **limits)
    if expected is None:
        assert error is None
        assert events == [(False, bytes(sum(frame_sizes)))] * 2
    else:
        assert type(error) is expected
        assert explain_failure(error).code == {PayloadTooBig: 1009, PolicyViolation: 1008}[expected]
        assert events == []


@given(
    data=st.builds(stretch, st.just(b"syncws "), st.integers(1, 60) | st.sampled_from(BOUNDARIES)),
    over=st.integers(-2, 1),
    codec=codecs,
    sizes=st.lists(st.integers(30, 70000), max_size=3),
    wire_sizes=cuts,
)
def test_inflated_messages_pass_up_to_max_size_and_not_beyond(data, over, codec, sizes, wire_sizes):
    max_size = max(0, len(data) - over)
    outbound = Outbound(masked=False, extensions=[codec], random=bytes)
    parts = fragment(BINARY, data, [max(size, len(data) // 10) for size in sizes])
    wire = b"".join(b"".join(outbound.encode_deflated(*part)) for part in parts)
    inbound = Inbound(masked=False, max_size=max_size, extensions=[DeflateCodec()])
    events, error = receive(inbound, cut(wire, wire_sizes))
    if over <= 0:
        assert (events, error) == ([(False, data)], None)
    else:
        assert events == []
        assert type(error) is PayloadTooBig


# Compression (RFC 7692)


def agree(client, server):
    """Let both ends negotiate through headers; return the codecs of client and server."""
    offer = build_extension([(client.name, client.get_request_params())])
    [(_, params)] = parse_extension(offer)
    answer, server_codec = server.process_request_params(params, [])
    [(_, params)] = parse_extension(build_extension([(server.name, answer)]))
    return client.process_response_params(params, []), server_codec


def may_decline(client, server):
    return server.require_client_max_window_bits and client.client_max_window_bits is None


@examples(60)
@given(configs, configs, st.booleans())
def test_both_ends_agree_on_the_same_parameters(client, server, required):
    if required and server.client_max_window_bits is not None:
        server = PerMessageDeflate(**{**vars(server), "require_client_max_window_bits": True})
    if may_decline(client, server):
        with pytest.raises(NegotiationError):
            agree(client, server)
        return
    ours, theirs = agree(client, server)
    for sender, receiver in ((ours, theirs), (theirs, ours)):
        assert sender.own_window_bits <= receiver.peer_window_bits
        assert sender.own_no_context_takeover or not receiver.peer_no_context_takeover
    # What either end asked for holds.
    assert theirs.own_no_context_takeover >= client.server_no_context_takeover
    assert ours.own_no_context_takeover >= client.client_no_context_takeover
    assert ours.own_no_context_takeover >= server.client_no_context_takeover
    assert theirs.own_window_bits <= (client.server_max_window_bits or 15)
    assert ours.own_window_bits <= client.window_bits
    assert theirs.own_window_bits <= server.window_bits


NAMES = [
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
]
parameters = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(NAMES[:2]), st.none()),
        st.tuples(st.sampled_from(NAMES[2:]), st.sampled_from(["8", "11", "15"])),
        st.tuples(st.sampled_from(NAMES[2:]), st.sampled_from([None, "7", "16", "08"])),
        st.tuples(st.sampled_from([*NAMES, "x"]), st.sampled_from([None, "9", "x"])),
    ),
    max_size=4,
)


@examples(100)
@given(parameters, configs)
def test_server_answers_any_offer_or_declines_it(params, server):
    try:
        answer, codec = server.process_request_params(params, [])
    except NegotiationError:
        return
    offered = dict(params)
    answered = dict(answer)
    assert len(offered) == len(params)
    assert set(offered) <= set(NAMES)
    # RFC 7692 §7.1.1.1, §7.1.2.1 and §7.1.2.2: what the client demands, and may be asked for.
    assert len(answered) == len(answer)
    assert "server_no_context_takeover" in answered or "server_no_context_takeover" not in offered
    if "server_max_window_bits" in offered:
        assert (
            8 <= int(answered["server_max_window_bits"]) <= int(offered["server_max_window_bits"])
        )
    if "client_max_window_bits" in answered:
        assert int(answered["client_max_window_bits"]) <= int(
            offered["client_max_window_bits"] or 15
        )
    assert codec.peer_window_bits == int(answered.get("client_max_window_bits", 15))
    assert codec.peer_no_context_takeover == ("client_no_context_takeover" in answered)


@examples(100)
@given(parameters, configs)
def test_client_takes_no_answer_that_its_offer_does_not_allow(params, client):
    try:
        codec = client.process_response_params(params, [])
    except NegotiationError:
        return
    answered = dict(params)
    assert len(answered) == len(params)
    assert set(answered) <= set(NAMES)
    assert codec.peer_window_bits == int(answered.get("server_max_window_bits", 15))
    assert codec.peer_window_bits <= (client.server_max_window_bits or 15)
    assert codec.peer_no_context_takeover == ("server_no_context_takeover" in answered)
    assert codec.peer_no_context_takeover or not client.server_no_context_takeover
    assert codec.own_window_bits <= int(answered.get("client_max_window_bits", 15))
    assert codec.own_no_context_takeover or "client_no_context_takeover" not in answered


WAYS = ["plain", "deflated", "deflated", "threshold", "shared", "lost"]


def send(outbound, way, opcode, data, sizes):
    """Encode a message in one of the ways in which connections do."""
    codec = outbound.codec
    if way == "lost":
        # A message that could not be sent: no later one may refer to it.
        codec.deflate(data, False)
        codec.reset_deflater()
        return b""
    if way == "shared":
        # A message for many connections, compressed by none of them.
        shared = codec.deflate_alone(data)
        codec.reset_deflater()
        return b"".join(outbound.encode(FIN | RSV1 | opcode, shared))
    if way == "threshold":
        way = "plain" if len(data) < codec.threshold else "deflated"
        sizes = []
    encode = outbound.encode if way == "plain" else outbound.encode_deflated
    return b"".join(b"".join(encode(*part)) for part in fragment(opcode, data, sizes))


@given(
    configs,
    configs,
    st.booleans(),
    st.lists(st.tuples(st.sampled_from(WAYS), compressible, cuts), max_size=5),
    masking_keys,
    cuts,
)
def test_messages_arrive_unchanged_whatever_was_agreed(
    client, server, to_server, messages, key, sizes
):
    codecs = agree(client, server)
    sender, receiver = codecs if to_server else codecs[::-1]
    outbound = Outbound(masked=to_server, extensions=[sender], random=lambda size: key[:size])
    inbound = Inbound(masked=to_server, max_size=None, extensions=[receiver])
    wire = b"".join(send(outbound, way, BINARY, *message) for way, *message in messages)
    events, error = receive(inbound, cut(wire, sizes))
    assert error is None
    assert events == [(False, data) for way, data, _ in messages if way != "lost"]


@given(
    st.sampled_from([8, 8, 9, 10, 11, 15]),
    st.integers(1, 9),
    st.lists(st.builds(noise, st.sampled_from([100, 300, 600]), st.integers(0, 1)), max_size=5),
)
def test_no_reference_reaches_further_back_than_the_window(window_bits, memory_level, parts):
    codec = DeflateCodec(own_window_bits=window_bits, memory_level=memory_level)
    data = b"".join(parts)
    stream = codec.deflate(data, True) + TAIL
    # zlib also finds what the same call put out; a byte a call leaves it the window alone.
    inflater = zlib.decompressobj(-codec.own_window_bits)
    output = bytearray(inflater.decompress(stream, 1))
    while byte := inflater.decompress(inflater.unconsumed_tail, 1):
        output += byte
    assert output == data


FLUSHES = [zlib.Z_NO_FLUSH, zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH, zlib.Z_FINISH]
STRATEGIES = [zlib.Z_DEFAULT_STRATEGY, zlib.Z_HUFFMAN_ONLY, zlib.Z_FIXED]


@st.composite
def foreign_streams(draw):
    """A compressed message as another library may make it, and what it stands for."""
    data = b""
    stream = b""
    deflater = None
    for _ in range(draw(st.integers(0, 5))):
        if deflater is None:
            strategy = draw(st.sampled_from(STRATEGIES))
            deflater = zlib.compressobj(draw(st.integers(0, 9)), wbits=-15, strategy=strategy)
        chunk = draw(chunks)
        flush = draw(st.sampled_from(FLUSHES))
        data += chunk
        stream += deflater.compress(chunk)
        if flush != zlib.Z_NO_FLUSH:
            stream += deflater.flush(flush)
        if flush == zlib.Z_FINISH:
            deflater = None
    if deflater is not None:
        stream += deflater.flush(zlib.Z_SYNC_FLUSH)
    # RFC 7692 §7.2.1: what ends with an empty block without compression goes without its tail.
    if stream.endswith(TAIL):
        return stream[: -len(TAIL)], data
    # RFC 7692 §7.2.3.4: an empty block follows one with BFINAL set, if only in part.
    return stream + (b"\x00" if draw(st.booleans()) else b""), data


@given(st.lists(foreign_streams(), max_size=3), cuts)
def test_messages_of_other_compressors_are_inflated_however_they_are_cut(messages, sizes):
    codec = DeflateCodec()
    for stream, data in messages:
        *first, last = cut(stream, sizes) or [b""]
        inflated = [codec.inflate(piece, False) for piece in first]
        assert b"".join([*inflated, codec.inflate(last, True)]) == data


@examples(60)
@given(
    st.lists(mutations(foreign_streams().map(lambda made: made[0])), max_size=3),
    st.none() | st.integers(0, 400),
    cuts,
)
def test_any_bytes_inflate_up_to_the_limit_or_are_refused(messages, max_length, sizes):
    codec = DeflateCodec()
    try:
        for stream in messages:
            pieces = cut(stream, sizes) or [b""]
            for place, piece in enumerate(pieces):
                inflated = codec.inflate(piece, place == len(pieces) - 1, max_length)
                assert max_length is None or len(inflated) <= max_length
    except (ProtocolError, PayloadTooBig):
        pass  # the codec cannot go on, and nobody asks it to


# Close frames (RFC 6455 §5.5.1, §7.4)

SENDABLE = {*range(1000, 1015), *range(3000, 5000)} - {1004, 1005, 1006}

close_codes = st.one_of(
    st.just(1000),
    st.sampled_from([999, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016]),
    st.sampled_from([2999, 3000, 4999, 5000, 65535]),
)
close_reasons = st.one_of(
    st.just(""), texts(10), st.sampled_from(["a" * 123, "a" * 124, "ä" * 61, "ä" * 62, "😀" * 31])
)


@examples(60)
@given(close_codes | st.integers(), close_reasons)
def test_close_is_encoded_and_parsed_back_or_refused(code, reason):
    close = Close(code, reason)
    if close == (1005, "") or (code in SENDABLE and len(reason.encode()) <= 123):
        assert parse_close(encode_close(close)) == close
    else:
        with pytest.raises(ProtocolError):
            encode_close(close)
        with pytest.raises(ProtocolError):
            own_close(code, reason)


@examples(60)
@given(
    st.binary(max_size=3)
    | st.builds(lambda code, reason: code.to_bytes(2, "big") + reason, close_codes, nearly_utf8)
)
def test_close_payload_is_parsed_and_encoded_back_or_refused(payload):
    code = int.from_bytes(payload[:2], "big")
    if not payload or (
        len(payload) > 1 and code in SENDABLE and decoding_error(payload[2:]) is None
    ):
        assert encode_close(parse_close(payload)) == payload
    else:
        with pytest.raises((ProtocolError, UnicodeDecodeError)):
            parse_close(payload)


@given(
    st.builds(stretch, texts(4).map("é{}".format), st.sampled_from([1, 61, 62, 123, 124, 200])),
    st.integers(0, 2**63 - 1),
)
def test_every_error_of_a_peer_has_a_close_frame_to_answer_it_with(text, number):
    for error, code in (
        (ProtocolError(text), 1002),
        (PolicyViolation(text), 1008),
        (PayloadTooBig(number, number, number), 1009),
    ):
        close = explain_failure(error)
        assert close.code == code
        assert parse_close(encode_close(close)) == close
