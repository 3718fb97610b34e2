"""permessage-deflate (RFC 7692): negotiation in both roles, deflating, inflating."""

from __future__ import annotations

import itertools
import random
import tracemalloc
import zlib

import pytest

from syncws.exceptions import (
    DuplicateParameter,
    InvalidParameterName,
    InvalidParameterValue,
    NegotiationError,
    PayloadTooBig,
    ProtocolError,
)
from syncws.frames import FIN, RSV1, encode_frame
from syncws.opcodes import Opcode
from syncws.permessage_deflate import (
    INPUT_STEP,
    OUTPUT_STEP,
    SMALL_PAYLOAD,
    DeflateCodec,
    PerMessageDeflate,
)
from syncws.protocol import Inbound, Outbound

TAIL = b"\x00\x00\xff\xff"
MIB = 1024 * 1024

HELLO = bytes.fromhex("f2 48 cd c9 c9 07 00")
HELLO_AGAIN = bytes.fromhex("f2 00 11 00 00")
HELLO_STORED = bytes.fromhex("00 05 00 fa ff 48 65 6c 6c 6f 00")
HELLO_BFINAL = bytes.fromhex("f3 48 cd c9 c9 07 00 00")
HELLO_TWO_BLOCKS = bytes.fromhex("f2 48 05 00 00 00 ff ff ca c9 c9 07 00")


class OtherExtension:
    name = "x-other"


class OtherCompression:
    name = "permessage-other"
    rsv1 = True


def parse(text):
    """Split parameters as a header has them; values come unquoted."""
    pairs = [item.strip().partition("=") for item in text.split(";") if item.strip()]
    return [(name, value if equals else None) for name, equals, value in pairs]


def unparse(params):
    return "; ".join(name if value is None else f"{name}={value}" for name, value in params)


def respond(config, offer):
    """Process an offer as the server; return the response and the codec."""
    params, codec = config.process_request_params(parse(offer), [])
    return unparse(params), codec


def accept(config, response):
    """Process a response as the client."""
    return config.process_response_params(parse(response), [])


def make_pair(client=None, server=None):
    """Let both roles agree; return the codecs of the client and of the server."""
    client = client or PerMessageDeflate()
    server = server or PerMessageDeflate()
    params, server_codec = server.process_request_params(client.get_request_params(), [])
    return client.process_response_params(params, []), server_codec


def make_data(size, seed=7):
    """Data that compresses a little: words that return near and far, and noise."""
    source = random.Random(seed)
    words = [bytes(source.choices(b"etaoin shrdlu", k=source.randint(2, 9))) for _ in range(200)]
    words += [bytes(source.getrandbits(8) for _ in range(11)) for _ in range(20)]
    data = b"".join(source.choices(words, k=size // 4 + 1))
    return data[:size]


def deflate_raw(data, flush=zlib.Z_FINISH):
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(data) + compressor.flush(flush)


def inflate_within_window(stream, window_bits):
    """
    Inflate with a window of this size and nothing else to refer to.

    zlib also looks up what the same call put out; one byte a call leaves the window alone.
    """
    inflater = zlib.decompressobj(-window_bits)
    output = bytearray(inflater.decompress(stream, 1))
    while True:
        byte = inflater.decompress(inflater.unconsumed_tail, 1)
        if not byte:
            return bytes(output)
        output += byte


# Configuration


def test_defaults_are_a_window_of_12_bits_memory_level_5_and_a_threshold_of_64_bytes():
    config = PerMessageDeflate()
    assert (config.window_bits, config.memory_level, config.threshold) == (12, 5, 64)


@pytest.mark.parametrize(
    ("argument", "value", "allowed"),
    [
        (name, value, allowed)
        for name, values, allowed in [
            ("server_max_window_bits", (7, 16, 0, True, "12", 9.0), "from 8 to 15"),
            ("client_max_window_bits", (7, 16, 0, 1, False, "12", 9.0), "from 8 to 15"),
            ("window_bits", (7, 16, None, True), "from 8 to 15"),
            ("memory_level", (0, 10, None, True), "from 1 to 9"),
            ("level", (-1, 10, True, "9"), "from 0 to 9"),
            ("threshold", (-1, None, 1.5), "at least 0"),
        ]
        for value in values
    ],
)
def test_argument_out_of_range_is_refused_with_value_and_range(argument, value, allowed):
    with pytest.raises(ValueError, match="must be an integer") as caught:
        PerMessageDeflate(**{argument: value})
    assert str(caught.value) == f"{argument} must be an integer {allowed}, not {value!r}"


@pytest.mark.parametrize(
    ("argument", "values"),
    [
        ("server_max_window_bits", (None, *range(8, 16))),
        ("client_max_window_bits", (None, True, *range(8, 16))),
        ("window_bits", range(8, 16)),
        ("memory_level", range(1, 10)),
        ("level", (None, *range(10))),
        ("threshold", (0, 1, MIB)),
    ],
)
def test_argument_in_range_is_accepted(argument, values):
    for value in values:
        assert getattr(PerMessageDeflate(**{argument: value}), argument) == value


def test_required_limit_of_the_client_window_needs_a_limit():
    with pytest.raises(ValueError, match="needs client_max_window_bits"):
        PerMessageDeflate(client_max_window_bits=None, require_client_max_window_bits=True)


def test_configuration_is_immutable():
    config = PerMessageDeflate()
    with pytest.raises(AttributeError):
        config.threshold = 0


# Client role: the offer


def test_client_offers_client_max_window_bits_by_default():
    assert PerMessageDeflate().get_request_params() == [("client_max_window_bits", None)]


def test_client_offer_has_all_that_is_configured_and_nothing_else():
    for server_takeover, client_takeover, server_bits, client_bits in itertools.product(
        (False, True), (False, True), (None, 8, 15), (None, True, 8, 15)
    ):
        config = PerMessageDeflate(
            server_no_context_takeover=server_takeover,
            client_no_context_takeover=client_takeover,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        )
        expected = [
            "server_no_context_takeover" if server_takeover else "",
            "client_no_context_takeover" if client_takeover else "",
            f"server_max_window_bits={server_bits}" if server_bits else "",
            {None: "", True: "client_max_window_bits"}.get(
                client_bits, f"client_max_window_bits={client_bits}"
            ),
        ]
        assert unparse(config.get_request_params()) == "; ".join(filter(None, expected))


# Client role: the response. Each table holds, for one parameter: what is configured, what
# the response says ("" for a name without a value, None if the name is not there), and what
# is agreed, or the error. The client's own window is 15 bits, unless limited.

SERVER_NO_CONTEXT_TAKEOVER_AS_CLIENT = [
    (False, None, False),
    (False, "", True),
    (True, None, "expected server_no_context_takeover"),
    (True, "", True),
]
CLIENT_NO_CONTEXT_TAKEOVER_AS_CLIENT = [
    (False, None, False),
    (False, "", True),
    (True, None, True),
    (True, "", True),
]
SERVER_MAX_WINDOW_BITS_AS_CLIENT = [
    (None, None, 15),
    (None, 8, 8),
    (None, 15, 15),
    (10, None, "expected server_max_window_bits"),
    (10, 8, 8),
    (10, 10, 10),
    (10, 11, "unsupported server_max_window_bits"),
    (None, "", "missing value for parameter server_max_window_bits"),
]
CLIENT_MAX_WINDOW_BITS_AS_CLIENT = [
    (None, None, 15),
    (None, 8, "unexpected client_max_window_bits"),
    (None, 15, "unexpected client_max_window_bits"),
    (True, None, 15),
    (True, 8, 8),
    (True, 15, 15),
    (10, None, 10),
    (10, 8, 8),
    (10, 10, 10),
    (10, 11, "unsupported client_max_window_bits"),
    (True, "", "missing value for parameter client_max_window_bits"),
]

NAMES = (
    "server_no_context_takeover",
    "client_no_context_takeover",
    "server_max_window_bits",
    "client_max_window_bits",
)


def make_params(values):
    """Make parameters of values as the tables have them, in the order of ``NAMES``."""
    return [
        (name, None if value == "" else str(value))
        for name, value in zip(NAMES, values)
        if value is not None
    ]


def agreed_by_client(codec):
    return (
        codec.peer_no_context_takeover,
        codec.own_no_context_takeover,
        codec.peer_window_bits,
        codec.own_window_bits,
    )


def test_client_agrees_to_exactly_the_responses_that_correspond_to_its_offer():
    for rows in itertools.product(
        SERVER_NO_CONTEXT_TAKEOVER_AS_CLIENT,
        CLIENT_NO_CONTEXT_TAKEOVER_AS_CLIENT,
        SERVER_MAX_WINDOW_BITS_AS_CLIENT,
        CLIENT_MAX_WINDOW_BITS_AS_CLIENT,
    ):
        configured, received, agreed = zip(*rows)
        config = PerMessageDeflate(window_bits=15, **dict(zip(NAMES, configured)))
        errors = [outcome for outcome in agreed if isinstance(outcome, str)]
        try:
            codec = config.process_response_params(make_params(received), [])
        except NegotiationError as exc:
            assert str(exc) in errors  # noqa: PT017 # whether it is raised depends on the row
        else:
            assert not errors
            assert agreed_by_client(codec) == agreed


def test_client_uses_its_own_window_where_the_response_allows_more():
    assert accept(PerMessageDeflate(window_bits=11), "").own_window_bits == 11
    assert (
        accept(PerMessageDeflate(window_bits=11), "client_max_window_bits=9").own_window_bits == 9
    )


def test_client_accepts_server_parameters_that_it_did_not_ask_for():
    codec = accept(PerMessageDeflate(), "server_no_context_takeover; server_max_window_bits=10")
    assert codec.peer_no_context_takeover
    assert codec.peer_window_bits == 10


def test_client_refuses_a_client_window_that_it_did_not_offer():
    with pytest.raises(NegotiationError, match="unexpected client_max_window_bits"):
        accept(PerMessageDeflate(client_max_window_bits=None), "client_max_window_bits=15")


# Server role. Likewise: configured, offered, in the response, agreed. A string in place of
# the response is the reason for declining. The server's own window is 12 bits.

SERVER_NO_CONTEXT_TAKEOVER_AS_SERVER = [
    (False, None, None, False),
    (False, "", "", True),
    (True, None, "", True),
    (True, "", "", True),
]
CLIENT_NO_CONTEXT_TAKEOVER_AS_SERVER = SERVER_NO_CONTEXT_TAKEOVER_AS_SERVER
SERVER_MAX_WINDOW_BITS_AS_SERVER = [
    (None, None, None, 12),
    (None, 8, 8, 8),
    (None, 12, 12, 12),
    (None, 15, 12, 12),
    (10, None, None, 10),
    (10, 8, 8, 8),
    (10, 15, 10, 10),
    (15, None, None, 12),
    (15, 15, 12, 12),
    (None, "", "missing value for parameter server_max_window_bits", None),
]
CLIENT_MAX_WINDOW_BITS_AS_SERVER = [
    (None, None, None, 15),
    (None, "", None, 15),
    (None, 8, 8, 8),
    (None, 15, None, 15),
    (True, None, None, 15),
    (True, "", 12, 12),
    (True, 8, 8, 8),
    (True, 15, 12, 12),
    (10, None, None, 15),
    (10, "", 10, 10),
    (10, 8, 8, 8),
    (10, 15, 10, 10),
    (15, "", None, 15),
]


def agreed_by_server(codec):
    return (
        codec.own_no_context_takeover,
        codec.peer_no_context_takeover,
        codec.own_window_bits,
        codec.peer_window_bits,
    )


def is_reason(outcome):
    return isinstance(outcome, str) and outcome != ""


def test_server_responds_to_every_combination_of_configuration_and_offer():
    for rows in itertools.product(
        SERVER_NO_CONTEXT_TAKEOVER_AS_SERVER,
        CLIENT_NO_CONTEXT_TAKEOVER_AS_SERVER,
        SERVER_MAX_WINDOW_BITS_AS_SERVER,
        CLIENT_MAX_WINDOW_BITS_AS_SERVER,
    ):
        configured, offered, response, agreed = zip(*rows)
        config = PerMessageDeflate(**dict(zip(NAMES, configured)))
        reasons = [outcome for outcome in response if is_reason(outcome)]
        try:
            params, codec = config.process_request_params(make_params(offered), [])
        except NegotiationError as exc:
            assert str(exc) in reasons  # noqa: PT017 # whether it is raised depends on the row
        else:
            assert not reasons
            assert params == make_params(response)
            assert agreed_by_server(codec) == agreed


def test_server_answers_server_max_window_bits_only_if_offered():
    config = PerMessageDeflate(server_max_window_bits=9)
    assert "server_max_window_bits" not in respond(config, "client_max_window_bits")[0]
    assert "server_max_window_bits=9" in respond(config, "server_max_window_bits=15")[0]


def test_server_answers_client_max_window_bits_only_if_offered():
    config = PerMessageDeflate(client_max_window_bits=9)
    assert respond(config, "server_max_window_bits=9")[0] == "server_max_window_bits=9"
    assert respond(config, "client_max_window_bits")[0] == "client_max_window_bits=9"


def test_server_that_wishes_a_smaller_client_window_can_do_with_15_bits():
    response, codec = respond(PerMessageDeflate(client_max_window_bits=9), "")
    assert response == ""
    assert codec.peer_window_bits == 15


def test_server_that_requires_a_smaller_client_window_declines_offers_that_do_not_allow_it():
    config = PerMessageDeflate(client_max_window_bits=9, require_client_max_window_bits=True)
    with pytest.raises(NegotiationError, match="required client_max_window_bits"):
        respond(config, "server_max_window_bits=10")
    assert respond(config, "client_max_window_bits=10")[1].peer_window_bits == 9


def test_codec_has_the_settings_of_its_configuration():
    config = PerMessageDeflate(level=9, memory_level=7, threshold=5)
    for codec in make_pair(config, config):
        assert (codec.level, codec.memory_level, codec.threshold) == (9, 7, 5)
        assert codec.name == config.name == "permessage-deflate"
        assert codec.rsv1
        assert "own_window_bits=12" in repr(codec)


def test_what_both_roles_agree_on_is_the_same_seen_from_both_ends():
    configs = [
        PerMessageDeflate(
            server_no_context_takeover=server_takeover,
            client_no_context_takeover=client_takeover,
            server_max_window_bits=server_bits,
            client_max_window_bits=client_bits,
        )
        for server_takeover, client_takeover, server_bits, client_bits in itertools.product(
            (False, True), (False, True), (None, 8, 15), (None, True, 8, 15)
        )
    ]
    for client, server in itertools.product(configs, configs):
        client_codec, server_codec = make_pair(client, server)
        for sender, receiver in [(client_codec, server_codec), (server_codec, client_codec)]:
            assert sender.own_window_bits <= receiver.peer_window_bits
            # A receiver that keeps its context can do with a sender that doesn't.
            assert sender.own_no_context_takeover >= receiver.peer_no_context_takeover


# RFC 7692 §7.1: each parameter by itself, in both roles


BOTH_ROLES = pytest.mark.parametrize("process", [respond, accept], ids=["server", "client"])


@BOTH_ROLES
def test_unknown_parameter_is_refused(process):
    with pytest.raises(InvalidParameterName) as caught:
        process(PerMessageDeflate(), "client_max_window_bits=10; foo=bar")
    assert str(caught.value) == "invalid parameter name: foo"


@BOTH_ROLES
@pytest.mark.parametrize(
    "params",
    [
        "server_no_context_takeover; server_no_context_takeover",
        "client_no_context_takeover; client_no_context_takeover",
        "server_max_window_bits=10; server_max_window_bits=10",
        "client_max_window_bits=10; client_max_window_bits=11",
    ],
)
def test_duplicate_parameter_is_refused(process, params):
    with pytest.raises(DuplicateParameter):
        process(PerMessageDeflate(), params)


@BOTH_ROLES
@pytest.mark.parametrize("name", ["server_no_context_takeover", "client_no_context_takeover"])
@pytest.mark.parametrize("value", ["", "true", "1", "15"])
def test_no_context_takeover_with_a_value_is_refused(process, name, value):
    with pytest.raises(InvalidParameterValue) as caught:
        process(PerMessageDeflate(), f"{name}={value}")
    assert (caught.value.name, caught.value.value) == (name, value)


@BOTH_ROLES
@pytest.mark.parametrize("name", ["server_max_window_bits", "client_max_window_bits"])
@pytest.mark.parametrize(
    "value", ["", "0", "7", "16", "08", "010", "+9", "-9", " 9", "9.0", "1_0", "x", "\u0669", "150"]
)
def test_window_bits_that_are_not_8_to_15_in_plain_decimal_are_refused(process, name, value):
    with pytest.raises(InvalidParameterValue) as caught:
        process(PerMessageDeflate(), f"{name}={value}")
    assert (caught.value.name, caught.value.value) == (name, value)


@BOTH_ROLES
def test_every_number_of_window_bits_from_8_to_15_is_accepted(process):
    for bits in range(8, 16):
        process(PerMessageDeflate(), f"server_max_window_bits={bits}")
        process(PerMessageDeflate(), f"client_max_window_bits={bits}")


def test_server_declines_a_second_compression():
    with pytest.raises(NegotiationError, match="skipped duplicate permessage-deflate"):
        PerMessageDeflate().process_request_params([], [OtherExtension(), DeflateCodec()])


def test_client_refuses_a_second_compression():
    with pytest.raises(NegotiationError, match="received duplicate permessage-deflate"):
        PerMessageDeflate().process_response_params([], [OtherExtension(), DeflateCodec()])


def test_another_extension_that_uses_rsv1_is_refused():
    config = PerMessageDeflate()
    with pytest.raises(NegotiationError, match="permessage-other uses the RSV1 bit as well"):
        config.process_request_params([], [OtherCompression()])
    with pytest.raises(NegotiationError, match="permessage-other uses the RSV1 bit as well"):
        config.process_response_params([], [OtherCompression()])


def test_another_extension_that_uses_no_rsv_bit_is_no_obstacle():
    config = PerMessageDeflate()
    assert config.process_request_params([], [OtherExtension()])[0] == []
    assert config.process_response_params([], [OtherExtension()]).peer_window_bits == 15


# RFC 7692 §7.1.3


def test_example_simplest_offer_and_response():
    assert PerMessageDeflate(client_max_window_bits=None).get_request_params() == []
    assert respond(PerMessageDeflate(), "")[0] == ""
    assert accept(PerMessageDeflate(client_max_window_bits=None), "").peer_window_bits == 15


def test_example_offer_of_a_server_window_of_10_bits():
    client = PerMessageDeflate(server_max_window_bits=10)
    offer = unparse(client.get_request_params())
    assert offer == "server_max_window_bits=10; client_max_window_bits"
    response, codec = respond(PerMessageDeflate(client_max_window_bits=None), offer)
    assert response == "server_max_window_bits=10"
    assert codec.own_window_bits == 10
    assert accept(client, response).peer_window_bits == 10


def test_example_fallback_offer_without_a_server_window():
    # The first offer is declined for a parameter that the server doesn't know.
    with pytest.raises(NegotiationError):
        respond(PerMessageDeflate(), "server_max_window_bits=10; unknown")
    assert respond(PerMessageDeflate(), "client_max_window_bits")[0] == "client_max_window_bits=12"


# RFC 7692 §7.2.3

EXAMPLES = {
    "one block": (HELLO,),
    "sharing the window": (HELLO, HELLO_AGAIN),
    "no compression": (HELLO_STORED,),
    "BFINAL": (HELLO_BFINAL, HELLO_BFINAL, HELLO),
    "two blocks": (HELLO_TWO_BLOCKS, HELLO_AGAIN),
}


@pytest.mark.parametrize("messages", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples_inflate_however_they_are_cut(messages):
    for cut in range(max(map(len, messages)) + 1):
        codec = DeflateCodec()
        for message in messages:
            first = codec.inflate(message[:cut], False, 5)
            assert first + codec.inflate(message[cut:], True, 5 - len(first)) == b"Hello"


@pytest.mark.parametrize("messages", EXAMPLES.values(), ids=EXAMPLES.keys())
def test_examples_inflate_whole_and_byte_by_byte(messages):
    whole, bytewise = DeflateCodec(), DeflateCodec()
    for message in messages:
        assert whole.inflate(message, True, 5) == b"Hello"
        pieces = [bytewise.inflate(bytes([octet]), False, 5) for octet in message]
        assert b"".join([*pieces, bytewise.inflate(b"", True, 0)]) == b"Hello"


def test_example_one_block_is_what_hello_is_deflated_to():
    assert DeflateCodec().deflate(b"Hello") == HELLO


def test_example_sharing_the_window_is_what_a_second_hello_is_deflated_to():
    codec = DeflateCodec()
    codec.deflate(b"Hello")
    assert codec.deflate(b"Hello") == HELLO_AGAIN


def test_example_empty_message_is_one_zero_octet():
    codec = DeflateCodec()
    assert codec.deflate(b"") == b"\x00"
    assert codec.inflate(b"\x00", True, 0) == b""
    assert codec.deflate_alone(b"") == b"\x00"


# Deflating


def test_message_does_not_end_with_the_empty_block_that_the_peer_puts_back():
    codec = DeflateCodec()
    for size in (1, 100, 5000, 100_000):
        data = make_data(size)
        compressed = codec.deflate(data)
        assert not compressed.endswith(TAIL)
        codec.reset_deflater()
        assert zlib.decompressobj(-15).decompress(compressed + TAIL) == data


def test_fragment_can_be_inflated_when_it_arrives():
    sender, receiver = make_pair()
    for fragment in (b"first", b"", b"second", make_data(5000)):
        assert receiver.inflate(sender.deflate(fragment, False), False, 5000) == fragment
    assert receiver.inflate(sender.deflate(b"last", True), True, 5000) == b"last"


@pytest.mark.parametrize(
    "fragments", [[b""], [b"", b""], [b"", b"a"], [b"a", b""], [b"", b"", b"a"]]
)
def test_empty_fragments_may_stand_anywhere(fragments):
    sender, receiver = make_pair()
    for _ in range(3):
        fins = [False] * (len(fragments) - 1) + [True]
        payloads = [sender.deflate(data, fin) for data, fin in zip(fragments, fins)]
        assert receiver.inflate(b"".join(payloads), True, 10) == b"".join(fragments)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("bits", [8, 12])
def test_any_bytes_like_payload_is_deflated_and_inflated(make, bits):
    codec = DeflateCodec(own_window_bits=bits)
    data = make_data(3000)
    assert codec.inflate(make(codec.deflate(make(data))), True, 3000) == data


def test_context_takeover_makes_a_repeated_message_smaller():
    codec = make_pair()[0]
    data = make_data(1000)
    assert len(codec.deflate(data)) > 10 * len(codec.deflate(data))


def test_without_context_takeover_every_message_is_deflated_alike():
    codec = make_pair(PerMessageDeflate(client_no_context_takeover=True))[0]
    data = make_data(1000)
    assert codec.deflate(data) == codec.deflate(data)


def test_without_context_takeover_the_fragments_of_one_message_share_the_window():
    codec = make_pair(PerMessageDeflate(client_no_context_takeover=True))[0]
    data = make_data(1000)
    assert len(codec.deflate(data, False)) > 10 * len(codec.deflate(data, True))


def test_level_and_memory_level_make_a_difference():
    data = make_data(20_000)
    stored = DeflateCodec(level=0).deflate(data)
    assert len(stored) > len(data)
    assert len(DeflateCodec(level=9).deflate(data)) < len(DeflateCodec(level=1).deflate(data))
    small = DeflateCodec(memory_level=1).deflate(data)
    assert len(DeflateCodec(memory_level=9).deflate(data)) < len(small)


@pytest.mark.parametrize("bits", range(8, 16))
def test_no_reference_reaches_beyond_the_agreed_window(bits):
    data = make_data(600) * 2 + make_data(9000, seed=1) * 2 + bytes(2000) + make_data(250) * 3
    codec = DeflateCodec(own_window_bits=bits)
    messages = [data, data[:1000], data[:255], data[:256], data[:257], b"", data]
    stream = b"".join(codec.deflate(message) + TAIL for message in messages)
    assert inflate_within_window(stream, bits) == b"".join(messages)


def test_reference_beyond_the_window_would_have_been_noticed():
    data = make_data(600) * 2
    with pytest.raises(zlib.error, match="too far back"):
        inflate_within_window(DeflateCodec(own_window_bits=15).deflate(data) + TAIL, 8)


def test_fragments_of_a_message_with_the_smallest_window_inflate():
    codec = DeflateCodec(own_window_bits=8)
    fragments = [make_data(700), b"x", b"", make_data(256)]
    stream = b"".join(codec.deflate(fragment, False) for fragment in fragments)
    stream += codec.deflate(b"", True)
    assert inflate_within_window(stream + TAIL, 8) == b"".join(fragments)


def test_smallest_window_costs_at_most_an_eighth_for_data_that_does_not_compress():
    data = random.Random(3).getrandbits(8 * 10_000).to_bytes(10_000, "big")
    assert len(DeflateCodec(own_window_bits=8).deflate(data)) <= len(data) * 9 // 8


def test_message_deflated_alone_suits_every_codec_with_the_same_key():
    pairs = [make_pair(), make_pair(), make_pair(PerMessageDeflate(server_max_window_bits=10))]
    senders = [server for _, server in pairs]
    assert senders[0].deflate_key == senders[1].deflate_key
    assert senders[0].deflate_key != senders[2].deflate_key
    data = make_data(2000)
    for receiver, sender in pairs[:2]:
        assert receiver.inflate(sender.deflate(data), True, 2000) == data
    shared = senders[0].deflate_alone(data)
    for receiver, sender in pairs[:2]:
        assert receiver.inflate(shared, True, 2000) == data
        sender.reset_deflater()
        assert receiver.inflate(sender.deflate(data), True, 2000) == data


def test_deflate_key_tells_what_changes_the_result():
    keys = {
        codec.deflate_key
        for codec in (
            DeflateCodec(own_window_bits=15),
            DeflateCodec(own_window_bits=12),
            DeflateCodec(level=1),
            DeflateCodec(memory_level=1),
            DeflateCodec(peer_window_bits=9),
            DeflateCodec(own_no_context_takeover=True),
        )
    }
    assert len(keys) == 4


def test_deflate_alone_leaves_the_context_as_it_is():
    codec = DeflateCodec()
    codec.deflate(b"Hello")
    codec.deflate_alone(make_data(1000))
    assert codec.deflate(b"Hello") == HELLO_AGAIN


def test_reset_deflater_starts_from_an_empty_window():
    codec = DeflateCodec()
    codec.deflate(b"Hello")
    codec.reset_deflater()
    assert codec.deflate(b"Hello") == HELLO


def test_message_that_cannot_be_deflated_leaves_no_trace_in_the_next():
    codec = DeflateCodec()
    codec.deflate(b"Hello")
    with pytest.raises(TypeError):
        codec.deflate("not bytes")
    assert codec.deflate(b"Hello") == HELLO


def test_fragment_before_the_last_keeps_the_empty_block_at_its_end():
    codec = DeflateCodec()
    assert codec.deflate(b"Hello", False).endswith(TAIL)
    assert codec.deflate(b"Hello", False).endswith(TAIL)
    assert not codec.deflate(b"Hello", True).endswith(TAIL)


# Inflating


@pytest.mark.parametrize("size", [300, SMALL_PAYLOAD * 4])
def test_message_inflates_wherever_it_is_cut(size):
    data = make_data(size)
    compressed = deflate_raw(data, zlib.Z_SYNC_FLUSH)[:-4]
    for cut in range(len(compressed) + 1):
        codec = DeflateCodec()
        first = codec.inflate(compressed[:cut], False, size)
        assert first + codec.inflate(compressed[cut:], True, size - len(first)) == data


@pytest.mark.parametrize("size", [300, SMALL_PAYLOAD * 4, INPUT_STEP * 2])
def test_message_inflates_byte_by_byte(size):
    data = make_data(size)
    compressed = deflate_raw(data, zlib.Z_SYNC_FLUSH)[:-4]
    codec = DeflateCodec()
    pieces = [codec.inflate(bytes([octet]), False) for octet in compressed[:-1]]
    pieces.append(codec.inflate(compressed[-1:], True))
    assert b"".join(pieces) == data


@pytest.mark.parametrize("size", [OUTPUT_STEP - 1, OUTPUT_STEP, OUTPUT_STEP + 1, 4 * OUTPUT_STEP])
@pytest.mark.parametrize("make", [bytes, make_data], ids=["zeros", "data"])
def test_message_of_several_steps_inflates(size, make):
    data = make(size)
    compressed = deflate_raw(data, zlib.Z_SYNC_FLUSH)[:-4]
    for max_length in (None, size, size + 1):
        codec = DeflateCodec()
        assert codec.inflate(compressed, True, max_length) == data
        assert codec.inflate(HELLO, True, 5) == b"Hello"


@pytest.mark.parametrize("size", [1, 2, 1000, OUTPUT_STEP - 1, OUTPUT_STEP, OUTPUT_STEP + 1, MIB])
def test_result_of_exactly_max_length_is_returned_and_one_byte_more_is_refused(size):
    for data in (bytes(size), make_data(size)):
        compressed = deflate_raw(data, zlib.Z_SYNC_FLUSH)[:-4]
        assert DeflateCodec().inflate(compressed, True, size) == data
        with pytest.raises(PayloadTooBig) as caught:
            DeflateCodec().inflate(compressed, True, size - 1)
        assert (caught.value.size, caught.value.max_size) == (None, size - 1)


def test_limit_holds_for_what_the_tail_sets_free():
    # Without its last octet the message lacks the end of its only block.
    payload = deflate_raw(bytes(1000), zlib.Z_SYNC_FLUSH)[:-4]
    for cut in range(len(payload)):
        codec = DeflateCodec()
        with pytest.raises(PayloadTooBig):
            codec.inflate(payload[cut:], True, 999 - len(codec.inflate(payload[:cut], False, 999)))


def make_bomb(size):
    """Make a message of ``size`` zeros, a multiple of 1 MiB, without compressing them all."""
    compressor = zlib.compressobj(9, wbits=-15)
    block = compressor.compress(bytes(MIB)) + compressor.flush(zlib.Z_FULL_FLUSH)
    return block * (size // MIB)


@pytest.mark.parametrize("max_length", [0, 1, MIB, 8 * MIB])
def test_bomb_takes_no_more_memory_than_the_limit_and_one_mebibyte(max_length):
    bomb = make_bomb(1024 * MIB)
    assert len(bomb) < 1.1 * MIB
    codec = DeflateCodec()
    tracemalloc.start()
    try:
        with pytest.raises(PayloadTooBig):
            codec.inflate(bomb, True, max_length)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < max_length + MIB


@pytest.mark.parametrize(
    "payload",
    [b"\xff", b"\x06", b"\x00\x05\x00\x00\x00Hello", b"Hello, world", b"\x7f" * 3000],
    ids=["reserved type", "reserved type later", "stored length", "text", "long"],
)
def test_data_that_is_not_deflate_is_a_protocol_error(payload):
    with pytest.raises(ProtocolError, match=r"^decompression failed$"):
        DeflateCodec().inflate(payload, True, 1000)


def test_reference_to_before_the_first_message_is_a_protocol_error():
    with pytest.raises(ProtocolError, match=r"^decompression failed$"):
        DeflateCodec().inflate(HELLO_AGAIN, True, 5)


def test_without_context_takeover_a_reference_to_the_last_message_is_a_protocol_error():
    codec = DeflateCodec(peer_no_context_takeover=True)
    assert codec.inflate(HELLO, True, 5) == b"Hello"
    with pytest.raises(ProtocolError, match=r"^decompression failed$"):
        codec.inflate(HELLO_AGAIN, True, 5)


def test_reference_beyond_the_agreed_window_is_a_protocol_error():
    sender = DeflateCodec(own_window_bits=15)
    receiver = DeflateCodec(peer_window_bits=8)
    data = random.Random(1).getrandbits(8 * 600).to_bytes(600, "big")
    assert receiver.inflate(sender.deflate(data), True, 600) == data
    with pytest.raises(ProtocolError, match=r"^decompression failed$"):
        receiver.inflate(sender.deflate(data), True, 600)


# RFC 7692 §7.2.3.4: blocks with BFINAL set


def test_several_final_blocks_in_one_message_inflate_wherever_they_are_cut():
    parts = [make_data(200, seed) for seed in range(3)]
    payload = b"".join(map(deflate_raw, parts)) + b"\x00"
    expected = b"".join(parts)
    for cut in range(len(payload) + 1):
        codec = DeflateCodec()
        first = codec.inflate(payload[:cut], False, 600)
        assert first + codec.inflate(payload[cut:], True, 600 - len(first)) == expected
        assert codec.inflate(HELLO, True, 5) == b"Hello"


def test_final_blocks_and_others_may_alternate():
    payload = deflate_raw(b"one ") + deflate_raw(b"two ", zlib.Z_SYNC_FLUSH) + deflate_raw(b"three")
    codec = DeflateCodec()
    for _ in range(2):
        assert codec.inflate(payload + b"\x00", True, 20) == b"one two three"
    assert codec.inflate(HELLO, True, 5) == b"Hello"


def test_message_that_ends_with_a_final_block_and_nothing_after_it_inflates():
    payload = deflate_raw(b"Hello")
    codec = DeflateCodec()
    for _ in range(2):
        assert codec.inflate(payload, True, 5) == b"Hello"
    for cut in range(len(payload) + 1):
        first = codec.inflate(payload[:cut], False, 5)
        assert first + codec.inflate(payload[cut:], True, 5) == b"Hello"
    assert codec.inflate(HELLO, True, 5) == b"Hello"


def test_long_message_that_ends_with_a_final_block_and_nothing_after_it_inflates():
    data = make_data(8 * SMALL_PAYLOAD)
    codec = DeflateCodec()
    for _ in range(2):
        assert codec.inflate(deflate_raw(data), True, len(data)) == data


def test_thousands_of_empty_final_blocks_inflate_to_nothing():
    codec = DeflateCodec()
    assert codec.inflate(b"\x03\x00" * 10_000, True, 0) == b""
    assert codec.inflate(HELLO, True, 5) == b"Hello"


def test_limit_holds_over_several_final_blocks():
    payload = deflate_raw(bytes(1000)) * 3
    assert DeflateCodec().inflate(payload, True, 3000) == bytes(3000)
    with pytest.raises(PayloadTooBig):
        DeflateCodec().inflate(payload, True, 2999)


def test_compressed_message_without_any_octet_is_empty_and_does_no_harm():
    codec = DeflateCodec()
    for _ in range(2):
        assert codec.inflate(b"", True, 0) == b""
        assert codec.inflate(HELLO, True, 5) == b"Hello"
        assert codec.inflate(b"", False, 0) == b""
        assert codec.inflate(b"", True, 0) == b""
        assert codec.inflate(HELLO_AGAIN, True, 5) == b"Hello"


# Contexts


def traced_growth(function):
    """Return how many bytes more are in use after calling ``function``."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = function()
        del result
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_contexts_are_made_when_first_used():
    kept = []
    assert traced_growth(lambda: kept.append(make_pair())) < 8192
    client, server = kept[0]
    assert traced_growth(lambda: client.deflate(b"Hello")) > 16_384
    assert traced_growth(lambda: server.inflate(HELLO, True, 5)) > 4096


def test_without_context_takeover_no_context_stays_behind():
    config = PerMessageDeflate(server_no_context_takeover=True, client_no_context_takeover=True)
    client, server = make_pair(config)
    assert traced_growth(lambda: server.inflate(client.deflate(b"Hello"), True, 5)) < 2048


def test_smaller_window_and_memory_level_take_less_memory():
    codecs = [
        DeflateCodec(own_window_bits=9, memory_level=1),
        DeflateCodec(own_window_bits=12, memory_level=5),
        DeflateCodec(own_window_bits=15, memory_level=9),
    ]
    small, default, large = (traced_growth(lambda c=c: c.deflate(b"Hello")) for c in codecs)
    assert small < default < large


# Both ends

SIZES = [1, 2, 63, 64, 255, 256, 257, 2047, 2048, 2049, 65_535, 65_536, 65_537, 300_000]


@pytest.mark.parametrize("bits", [8, 9, 12, 15])
@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "no takeover"])
@pytest.mark.parametrize("sender_role", ["client", "server"])
def test_messages_of_all_sizes_go_through(bits, takeover, sender_role):
    config = PerMessageDeflate(
        server_no_context_takeover=not takeover,
        client_no_context_takeover=not takeover,
        server_max_window_bits=bits,
        client_max_window_bits=bits,
        window_bits=15,
    )
    sender, receiver = make_pair(config, config)
    if sender_role == "server":
        sender, receiver = receiver, sender
    assert sender.own_window_bits == receiver.peer_window_bits == bits
    for size in [0, *SIZES]:
        data = make_data(size, seed=size)
        assert receiver.inflate(sender.deflate(data), True, size) == data


@pytest.mark.parametrize("bits", [8, 12])
@pytest.mark.parametrize("takeover", [True, False], ids=["takeover", "no takeover"])
def test_fragments_of_all_sizes_go_through(bits, takeover):
    config = PerMessageDeflate(client_no_context_takeover=not takeover, window_bits=bits)
    sender, receiver = make_pair(config)
    source = random.Random(5)
    for size in SIZES:
        data = make_data(size, seed=size)
        cuts = sorted(source.choices(range(size + 1), k=3))
        fragments = [data[a:b] for a, b in zip([0, *cuts], [*cuts, size])]
        received = [
            receiver.inflate(sender.deflate(fragment, index == 3), index == 3, len(fragment))
            for index, fragment in enumerate(fragments)
        ]
        assert received == fragments


def test_plain_zlib_inflates_a_whole_conversation():
    codec = make_pair()[0]
    inflater = zlib.decompressobj(-15)
    for size in SIZES:
        data = make_data(size)
        assert inflater.decompress(codec.deflate(data) + TAIL) == data


@pytest.mark.parametrize("flush", [zlib.Z_SYNC_FLUSH, zlib.Z_FULL_FLUSH])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_conversation_of_plain_zlib_inflates(flush, bits):
    codec = DeflateCodec(peer_window_bits=bits)
    compressor = zlib.compressobj(wbits=-bits)
    for size in SIZES:
        data = make_data(size)
        payload = compressor.compress(data) + compressor.flush(flush)
        assert codec.inflate(payload[:-4], True, size) == data


# Framing, RFC 7692 §6: what the protocol makes of the codec


def make_outbound(codec):
    return Outbound(masked=False, extensions=[codec], random=None)


def make_inbound(*extensions):
    return Inbound(masked=False, max_size=1000, extensions=extensions)


def decode(inbound, *frames):
    """Feed frames of an unmasked peer; return all events."""
    inbound.feed(b"".join(part for frame in frames for part in frame))
    return list(iter(inbound.next, None))


def test_first_frame_of_a_compressed_message_has_rsv1_and_the_others_do_not():
    outbound = make_outbound(DeflateCodec())
    first = outbound.encode_deflated(Opcode.TEXT, b"one")
    second = outbound.encode_deflated(Opcode.CONT, b"two")
    last = outbound.encode_deflated(FIN | Opcode.CONT, b"three")
    heads = [header[0] for header, _ in (first, second, last)]
    assert heads == [RSV1 | Opcode.TEXT, Opcode.CONT, FIN | Opcode.CONT]
    (message,) = decode(make_inbound(DeflateCodec()), first, second, last)
    assert (message.text, message.data) == (True, b"onetwothree")


def test_uncompressed_messages_and_control_frames_have_no_rsv1():
    outbound = make_outbound(DeflateCodec())
    for opcode in (Opcode.TEXT, Opcode.BINARY, Opcode.PING, Opcode.PONG):
        header, payload = outbound.encode(FIN | opcode, b"Hello")
        assert header[0] == FIN | opcode
        assert payload == b"Hello"


@pytest.mark.parametrize("opcode", [Opcode.CLOSE, Opcode.PING, Opcode.PONG])
def test_control_frame_with_rsv1_is_a_protocol_error(opcode):
    frame = encode_frame(FIN | RSV1 | opcode, b"", None)
    with pytest.raises(ProtocolError, match="reserved bits must be 0"):
        decode(make_inbound(DeflateCodec()), frame)


def test_continuation_frame_with_rsv1_is_a_protocol_error():
    first = make_outbound(DeflateCodec()).encode_deflated(Opcode.TEXT, b"one")
    frame = encode_frame(FIN | RSV1 | Opcode.CONT, b"", None)
    with pytest.raises(ProtocolError, match="reserved bits must be 0"):
        decode(make_inbound(DeflateCodec()), first, frame)


def test_compressed_message_without_the_extension_is_a_protocol_error():
    frame = encode_frame(FIN | RSV1 | Opcode.TEXT, HELLO, None)
    with pytest.raises(ProtocolError, match="reserved bits must be 0"):
        decode(make_inbound(), frame)


def test_uncompressed_message_between_compressed_ones_leaves_the_context_alone():
    messages = decode(
        make_inbound(DeflateCodec()),
        encode_frame(FIN | RSV1 | Opcode.TEXT, HELLO, None),
        encode_frame(FIN | Opcode.TEXT, b"Hello, plain", None),
        encode_frame(FIN | RSV1 | Opcode.TEXT, HELLO_AGAIN, None),
    )
    assert [message.data for message in messages] == [b"Hello", b"Hello, plain", b"Hello"]


def test_control_frame_may_stand_between_the_fragments_of_a_compressed_message():
    ping, message = decode(
        make_inbound(DeflateCodec()),
        encode_frame(RSV1 | Opcode.TEXT, HELLO[:3], None),
        encode_frame(FIN | Opcode.PING, b"plain", None),
        encode_frame(FIN | Opcode.CONT, HELLO[3:], None),
    )
    assert (ping.opcode, ping.data) == (Opcode.PING, b"plain")
    assert message.data == b"Hello"


def test_text_must_be_utf8_after_inflation():
    frame = make_outbound(DeflateCodec()).encode_deflated(FIN | Opcode.TEXT, b"\xff\xfe")
    with pytest.raises(UnicodeDecodeError):
        decode(make_inbound(DeflateCodec()), frame)
