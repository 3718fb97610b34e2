"""
Two endpoints without sockets, and all that can happen to them in any order, held against a model.

The endpoints are the halves of ``syncws.protocol``, put together as a connection does it. What
they write goes into pipes, which deliver it in pieces of any size, or lose the rest of it. The
model is what each end was asked to send, and a reader of frames of its own.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from peers import BINARY, CLOSE, CONT, FIN, PING, PONG, TEXT, frame, unmask
from profiles import LONG, examples, patience
from strategies import cut, noise, texts

from syncws.exceptions import ConnectionClosedError, ConnectionClosedOK
from syncws.messages import Message
from syncws.opcodes import Close, State
from syncws.permessage_deflate import DeflateCodec
from syncws.protocol import Closing, Inbound, Outbound, PeerError, Phase, explain_failure

pytestmark = patience

# Of both ends. Messages are kept within them, but for those that are to be refused.
MAX_SIZE = 600
MAX_FRAGMENT = 500
MAX_EMPTY = 3

# Noise becomes larger when it is compressed, and max_fragment is about what is on the wire.
LARGEST_PART = 400

# How far on the way to the end each phase is. Of those with the same rank there is only one.
RANKS = {Phase.OPEN: 0, Phase.SENT: 1, Phase.EXCHANGED: 2, Phase.FAILED: 2, Phase.GONE: 3}


class End:
    """An endpoint: what a connection does with both halves, in one thread."""

    def __init__(self, is_client, codec):
        self.is_client = is_client
        extensions = [] if codec is None else [codec]
        self.inbound = Inbound(
            masked=not is_client,
            max_size=MAX_SIZE,
            max_fragment=MAX_FRAGMENT,
            max_empty=MAX_EMPTY,
            extensions=extensions,
        )
        self.outbound = Outbound(masked=is_client, extensions=extensions, random=self._key)
        self.closing = Closing()
        self.cause = None
        self.phases = [Phase.OPEN]
        self.received = []  # messages: whether they are text, and their data
        self.pings = []  # received
        self.pongs = []  # received
        self.written = bytearray()  # all that went into the pipe
        self.pipe = bytearray()  # what the peer has not got yet

    def _key(self, size):
        return noise(size, len(self.written))

    def send(self, head, payload, compress=False):
        """Send a frame."""
        encode = self.outbound.encode_deflated if compress else self.outbound.encode
        self._write(encode(head, payload))

    def close(self, code, reason):
        """Start the closing handshake; 1005 stands for a Close frame without a code."""
        close = Close(code, reason)
        if self.closing.send(close):
            self._write(self.outbound.encode_close(close))
        self._note_phase()

    def fail(self, close, cause=None):
        """Fail the connection."""
        if self.closing.over:
            return
        self.cause = cause
        if self.closing.fail(close):
            self._write(self.outbound.encode_close(close))
        self._note_phase()

    def take(self, data):
        """Take what the pipe delivers; once the connection is over, it is read for nothing."""
        if self.closing.over:
            return
        self.inbound.feed(data)
        try:
            while (event := self.inbound.next()) is not None:
                self._handle(event)
        except PeerError as exc:
            self.fail(explain_failure(exc), exc)

    def end(self):
        """The TCP connection ended."""
        self.closing.eof()
        self.inbound.end()
        self._note_phase()

    def _handle(self, event):
        if isinstance(event, Message):
            assert event.final
            self.received.append((event.text, event.data))
        elif event.opcode == CLOSE:
            answer = self.closing.receive(event.close)
            if answer is not None:
                self._write(self.outbound.encode_close(answer))
            self._note_phase()
        elif event.opcode == PONG:
            self.pongs.append(event.data)
        else:
            self.pings.append(event.data)
            self.send(FIN | PONG, event.data)

    def _write(self, buffers):
        for buffer in buffers:
            self.written += buffer
            self.pipe += buffer

    def _note_phase(self):
        if self.closing.phase is not self.phases[-1]:
            self.phases.append(self.closing.phase)


def read_frames(data, masked):
    """A reader of frames that knows nothing of ours; returns heads and payloads."""
    frames = []
    while data:
        head, length = data[0], data[1] & 0x7F
        assert bool(data[1] & 0x80) is masked
        size = {126: 2, 127: 8}.get(length, 0)
        start = 2 + size
        length = int.from_bytes(data[2:start], "big") if size else length
        key = bytes(data[start : start + 4]) if masked else bytes(4)
        start += 4 if masked else 0
        frames.append((head, unmask(bytes(data[start : start + length]), key)))
        data = data[start + length :]
    return frames


def make_codecs(client_takeover, server_takeover, client_bits, server_bits):
    """What both ends agreed on, each from its side."""
    client = DeflateCodec(
        own_window_bits=client_bits,
        own_no_context_takeover=not client_takeover,
        peer_window_bits=server_bits,
        peer_no_context_takeover=not server_takeover,
    )
    server = DeflateCodec(
        own_window_bits=server_bits,
        own_no_context_takeover=not server_takeover,
        peer_window_bits=client_bits,
        peer_no_context_takeover=not client_takeover,
    )
    return [client, server]


# What a bad peer may send instead of a message, and the code that it is told.
WRONG = {
    "reserved opcode": ([(FIN | 0x3, b"")], 1002),
    "reserved bit": ([(FIN | 0x20 | TEXT, b"")], 1002),
    "continuation of nothing": ([(FIN | CONT, b"")], 1002),
    "message in a message": ([(TEXT, b""), (FIN | TEXT, b"")], 1002),
    "long ping": ([(FIN | PING, bytes(126))], 1002),
    "bad close code": ([(FIN | CLOSE, b"\x03\xed")], 1002),
    "bad close reason": ([(FIN | CLOSE, b"\x03\xe8\xff")], 1007),
    "not UTF-8": ([(TEXT, b"ok"), (FIN | CONT, b"\xff")], 1007),
    "large frame": ([(BINARY, bytes(MAX_FRAGMENT + 1))], 1009),
    "large message": ([(BINARY, bytes(400)), (CONT, bytes(MAX_SIZE - 399))], 1009),
    "empty fragments": ([(BINARY, b""), *[(CONT, b"")] * MAX_EMPTY], 1008),
}

EVERYTHING = 10**6
UNASKED = b"nobody asked for this"

ends = st.integers(0, 1)
data = st.one_of(
    st.binary(max_size=12),
    st.builds(bytes, st.sampled_from([125, 126, LARGEST_PART])),
    st.builds(noise, st.sampled_from([300, LARGEST_PART]), st.integers(0, 1)),
)
control_data = st.binary(max_size=4) | st.just(bytes(125))
pieces = st.integers(1, 40) | st.integers(100, 600)
closes = st.sampled_from(
    [Close(1000), Close(1001, "bye"), Close(1005), Close(1011, "oops"), Close(4999, "ä" * 61)]
)


class TwoEndpoints(RuleBasedStateMachine):
    """What may happen, and what must hold whatever happened."""

    def __init__(self):
        super().__init__()
        self.ends = []
        # Of each end: messages it was asked to send, the fragmented one it is in, its pings.
        self.sent = ([], [])
        self.fragmented = [None, None]
        self.pinged = ([], [])
        # The Close frame that it was asked to send, if that came before the peer's.
        self.initiated = [None, None]
        # Where it sent what is wrong, the code that it is to be told.
        self.wrong = [None, None]
        # Whether the end of TCP took bytes with it.
        self.is_lost = False

    @initialize(
        compressed=st.booleans(),
        takeovers=st.tuples(st.booleans(), st.booleans()),
        bits=st.tuples(st.integers(8, 15), st.integers(8, 15)),
    )
    def open(self, compressed, takeovers, bits):
        codecs = make_codecs(*takeovers, *bits) if compressed else [None, None]
        self.ends = [End(True, codecs[0]), End(False, codecs[1])]

    def _may_send(self, index):
        return self.ends[index].closing.phase is Phase.OPEN and self.wrong[index] is None

    def _begin_message(self, index, text, compress):
        compress = compress and self.ends[index].outbound.codec is not None
        self.fragmented[index] = (text, [], compress)

    def _write_fragment(self, index, payload, fin):
        """Write a fragment of the message that an end is in."""
        text, parts, compress = self.fragmented[index]
        first = BINARY if not text else TEXT
        head = (CONT if parts else first) | (FIN if fin else 0)
        parts.append(payload)
        self.ends[index].send(head, payload, compress)
        if fin:
            self.sent[index].append((text, b"".join(parts)))
            self.fragmented[index] = None

    def _deliver(self, index, size):
        """Deliver what an end wrote, as far as ``size`` goes."""
        end, peer = self.ends[index], self.ends[1 - index]
        piece = bytes(end.pipe[:size])
        del end.pipe[:size]
        if piece:
            peer.take(piece)

    # Few rules that do much: Hypothesis leaves out some of them in each run. A rule does nothing
    # where an end may not send.

    @rule(
        index=ends,
        text=st.none() | texts(8),
        payload=data,
        sizes=st.lists(st.integers(1, 9), max_size=2),
        compress=st.booleans(),
    )
    def send_message(self, index, text, payload, sizes, compress):
        """Send a message, in one frame or more."""
        if self._may_send(index) and self.fragmented[index] is None:
            self._begin_message(index, text is not None, compress)
            payload = payload if text is None else text.encode()
            parts = cut(payload, [*sizes, LARGEST_PART]) or [b""]
            for place, part in enumerate(parts):
                self._write_fragment(index, part, place == len(parts) - 1)

    @rule(
        index=ends,
        text=st.booleans(),
        compress=st.booleans(),
        part=st.sampled_from([b"", b"bc", b"\x7f" * 30]),
        fin=st.booleans(),
    )
    def send_fragment(self, index, text, compress, part, fin):
        """Begin a message, or go on with the one that was begun."""
        if self._may_send(index):
            if self.fragmented[index] is None:
                self._begin_message(index, text, compress)
            _, parts, _ = self.fragmented[index]
            if parts.count(b"") + (not part) <= MAX_EMPTY:
                fin = fin or len(b"".join(parts)) > MAX_SIZE - 100
                self._write_fragment(index, part, fin)

    # Control frames

    @rule(index=ends, payload=control_data, is_ping=st.booleans())
    def ping_or_pong(self, index, payload, is_ping):
        """A pong that nobody asked for is one-way, and answers nothing (RFC 6455 §5.5.3)."""
        if self._may_send(index):
            if is_ping:
                self.ends[index].send(FIN | PING, payload)
                self.pinged[index].append(payload)
            else:
                self.ends[index].send(FIN | PONG, UNASKED)

    @rule(
        indexes=st.sampled_from([(0,), (1,), (0, 1)]),
        close=closes,
        fails=st.sampled_from([False, False, True]),
    )
    def close_or_fail(self, indexes, close, fails):
        """Begin to close, or give up, at one end or at both at once."""
        for index in indexes:
            end = self.ends[index]
            if self.wrong[index] is None:
                if end.closing.phase is Phase.OPEN:
                    self.initiated[index] = close
                if fails:
                    end.fail(close, TimeoutError())
                else:
                    end.close(*close)

    # The wire

    @rule(index=ends, size=pieces)
    def deliver(self, index, size):
        self._deliver(index, size)

    @rule()
    def deliver_everything(self):
        while any(end.pipe for end in self.ends):
            for index in (0, 1):
                self._deliver(index, EVERYTHING)

    @rule(index=ends, kind=st.sampled_from(sorted(WRONG)))
    def misbehave(self, index, kind):
        """What comes after this from the same end counts for nothing."""
        if self._may_send(index) and self.fragmented[index] is None:
            frames, self.wrong[index] = WRONG[kind]
            for head, payload in frames:
                self.ends[index].pipe += frame(head, payload, masked=index == 0)

    @rule(kept=st.tuples(st.integers(0, 30), st.integers(0, 30)), luck=st.integers(0, 20))
    def lose_the_connection(self, kept, luck):
        """TCP ends, with the last bytes or without; seldom before both ends are done."""
        if luck != 7 and not all(end.closing.over for end in self.ends):
            return
        for index, size in enumerate(kept):
            self._deliver(index, size)
        self.is_lost = self.is_lost or any(end.pipe for end in self.ends)
        for end in self.ends:
            end.pipe.clear()
            end.end()

    # What must hold

    @invariant()
    def messages_arrive_once_in_order_and_unchanged(self):
        for index, end in enumerate(self.ends):
            assert end.received == self.sent[1 - index][: len(end.received)]

    @invariant()
    def pings_arrive_and_are_answered(self):
        for index, end in enumerate(self.ends):
            peer = self.ends[1 - index]
            assert end.pings == self.pinged[1 - index][: len(end.pings)]
            answers = [payload for payload in end.pongs if payload != UNASKED]
            assert answers == peer.pings[: len(answers)]

    @invariant()
    def phases_only_move_forward(self):
        for end in self.ends:
            ranks = [RANKS[phase] for phase in end.phases]
            assert ranks == sorted(set(ranks))
            assert end.closing.over == (ranks[-1] >= 2)
            states = [State.OPEN, State.CLOSING, State.CLOSED, State.CLOSED]
            assert end.closing.state is states[ranks[-1]]

    @invariant()
    def nothing_but_pongs_follows_a_close_frame(self):
        for end in self.ends:
            frames = read_frames(end.written, end.is_client)
            heads = [head for head, _ in frames]
            if FIN | CLOSE not in heads:
                assert end.closing.sent is None
                continue
            place = heads.index(FIN | CLOSE)
            # RFC 6455 §5.5.2: pings are answered until the peer's Close frame is received.
            assert set(heads[place + 1 :]) <= {FIN | PONG}
            payload = frames[place][1]
            code = int.from_bytes(payload[:2], "big") if payload else 1005
            assert end.closing.sent == (code, payload[2:].decode())

    @invariant()
    def close_frames_are_those_of_the_model(self):
        for index, end in enumerate(self.ends):
            closing, peer = end.closing, self.ends[1 - index]
            initiated = self.initiated[index]
            if isinstance(end.cause, PeerError):
                # Only what is wrong is refused, with its code.
                assert explain_failure(end.cause).code == self.wrong[1 - index]
                initiated = initiated or explain_failure(end.cause)
            assert closing.rcvd is None or closing.rcvd == peer.closing.sent
            # RFC 6455 §5.5.1: a Close frame is answered with its code, unless one was sent.
            assert closing.sent == (closing.rcvd if initiated is None else initiated)
            expected = None if closing.rcvd is None else initiated is None
            assert closing.rcvd_then_sent is expected
            # Without one of our own, the first Close frame was the peer's.
            first = initiated or closing.rcvd or Close(1006)
            assert closing.first_code == first.code

    @invariant()
    def exceptions_say_how_it_ended(self):
        for end in self.ends:
            closing = end.closing
            exc = closing.exception(end.cause)
            is_ok = all(
                close is not None and close.code in (1000, 1001, 1005)
                for close in (closing.rcvd, closing.sent)
            )
            assert type(exc) is (ConnectionClosedOK if is_ok else ConnectionClosedError)
            assert (exc.rcvd, exc.sent) == (closing.rcvd, closing.sent)
            assert exc.rcvd_then_sent is closing.rcvd_then_sent
            assert exc.__cause__ is end.cause

    def teardown(self):
        """Deliver all that is left and end TCP; then both ends know the same."""
        if not self.ends:
            return
        self.deliver_everything()
        if not self.is_lost:
            self._check_all_was_delivered()
        for end in self.ends:
            end.end()
            assert end.phases[-1] is Phase.GONE
        self.phases_only_move_forward()
        self.close_frames_are_those_of_the_model()
        self.exceptions_say_how_it_ended()

    def _check_all_was_delivered(self):
        passed = [set(end.phases) for end in self.ends]
        for index, end in enumerate(self.ends):
            peer = self.ends[1 - index]
            if peer.closing.sent is not None:
                assert passed[index] & {Phase.EXCHANGED, Phase.FAILED}
            if self.wrong[index] is not None:
                assert Phase.FAILED in passed[1 - index]
            if Phase.FAILED not in passed[1 - index]:
                assert peer.received == self.sent[index]
                assert peer.pings == self.pinged[index]
                assert peer.closing.rcvd == end.closing.sent
        if all(Phase.EXCHANGED in phases for phases in passed):
            kinds = {type(end.closing.exception(None)) for end in self.ends}
            assert len(kinds) == 1
            assert not all(end.closing.rcvd_then_sent for end in self.ends)


def test_two_endpoints_keep_to_the_model():
    steps = 50 if LONG else 35
    run_state_machine_as_test(
        TwoEndpoints, settings=settings(examples(60), stateful_step_count=steps)
    )
