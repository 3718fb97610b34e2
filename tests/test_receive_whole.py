"""The shortest way of a message from the socket, in C and in Python."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import random
import select
import socket
import struct
import sysconfig
import threading
import tracemalloc

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import BINARY, CONT, FIN, PING, TEXT, Task, frame

from syncws import ConnectionClosed, RateLimit
from syncws.connection import Connection
from syncws.messages import Message
from syncws.options import Options
from syncws.protocol import Inbound
from syncws.receiving import READ_SIZE, Receiving
from syncws.speedups import python_know_slots, python_receive_whole
from syncws.testing import pair
from syncws.transport import Transport

# Looked for even where SYNCWS_PURE_PYTHON has the library do without it.
BUILT = importlib.util.find_spec("syncws._speedups") is not None
needs_c = pytest.mark.skipif(not BUILT, reason="the C module was not built")
if BUILT:
    from syncws import _speedups

WAYS = {"python": python_receive_whole}
if BUILT:
    WAYS["c"] = _speedups.receive_whole

NAMES = (
    "_given_back",
    "_hungry",
    "_is_simple",
    "_read_size",
    "_received",
    "_received_bytes",
    "_received_messages",
    "_small_reads",
    "_torn",
    "_was_full",
    "_whole_messages",
)


class Derived(Connection):
    """What an application derives from a connection's class."""


class Computing(Connection):
    """Its attributes are not what they seem: they are asked for by name."""

    def __getattr__(self, name):
        raise AttributeError(name)


class End:
    """A receiving end as after the opening handshake, and the socket that feeds it."""

    def __init__(self, receive, masked=True, max_size=100_000, base=Connection):
        sock, self.wire = socket.socketpair()
        options = Options(max_size=max_size)
        self.connection = base(Transport(sock), options, logging.getLogger("test"))
        self.connection._inbound = Inbound(masked=masked, max_size=max_size)
        self.connection._opened = True
        self.connection._hungry = True
        self.connection._is_simple = True
        self._receive = receive
        self._sock = sock

    def __enter__(self):
        return self

    def __exit__(self, *args):
        self.connection._transport.abort()
        self.connection._transport.close()
        self.wire.close()

    def try_receive(self, decode=None):
        """The message, if it could be received in the shortest way, else ``None``."""
        whole = [None, False]
        before = self.connection._reader.locked()
        received = self._receive(self.connection, whole, decode, READ_SIZE)
        assert received is (whole[0] is not None)
        assert self.connection._reader.locked() is before
        return tuple(whole) if received else None

    def may_block(self):
        """Whether a read would wait."""
        return self.connection._hungry and not select.select([self._sock], [], [], 0)[0]

    def state(self):
        decoder = self.connection._inbound.decoder
        known = {name: getattr(self.connection, name) for name in NAMES}
        return {**known, "buffer": decoder.buffer, "pos": decoder.pos}


@pytest.fixture(params=[*WAYS])
def way(request):
    return WAYS[request.param]


@pytest.fixture(params=[Connection, Derived, Computing])
def make(way, request):
    """What makes an end, of each way and kind."""
    return functools.partial(End, way, base=request.param)


TEXTS = ["hello", "x", "", "gr\u00fc\u00dfe", "\U0001f600", "y" * 126, "z" * 3000, "\u00e9" * 1000]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("masked", [True, False])
def test_text(way, text, masked):
    data = text.encode()
    with End(way, masked) as end:
        for decode, expected in [(None, text), (True, text), (False, data)]:
            end.wire.sendall(frame(FIN | TEXT, data, masked))
            assert end.try_receive(decode) == (expected, True)
            assert end.state()["_hungry"]
        assert end.state()["_whole_messages"] == 3


@pytest.mark.parametrize("data", [b"", b"\xff", b"hello", bytes(range(256)) * 5])
def test_binary(make, data):
    with make() as end:
        end.wire.sendall(frame(FIN | BINARY, data, True) * 3)
        assert end.try_receive() == (data, False)
        assert end.try_receive(decode=False) == (data, False)
        # Whether it is text must be found out with more care.
        assert end.try_receive(decode=True) is None
        assert end.connection._receive_one(None, False) == data


def test_what_arrived_together_is_decoded_one_by_one(make):
    with make() as end:
        frames = [frame(FIN | TEXT, b"%d" % number, True) for number in range(50)]
        end.wire.sendall(b"".join(frames))
        for number, encoded in enumerate(frames[:-1]):
            before = end.state()["pos"]
            assert end.try_receive() == (str(number), True)
            assert end.state()["pos"] == before + len(encoded)
            assert not end.state()["_hungry"]
        assert end.try_receive() == ("49", True)
        assert end.state()["_hungry"]
        assert (end.state()["buffer"], end.state()["pos"]) == (b"", 0)
        assert end.state()["_received_bytes"] == sum(map(len, frames))


OTHERS = {
    "fragment": frame(TEXT, b"frag", True) + frame(FIN | CONT, b"ment", True),
    "ping": frame(FIN | PING, b"", True) + frame(FIN | TEXT, b"fragment", True),
    "not all of it": frame(FIN | TEXT, b"fragment", True),
}


@pytest.mark.parametrize("what", OTHERS)
def test_all_else_is_left_to_others_and_nothing_is_lost(make, what):
    with make() as end:
        at = 9 if what == "not all of it" else len(OTHERS[what])
        end.wire.sendall(OTHERS[what][:at])
        assert end.try_receive() is None
        assert not end.state()["_is_simple"]
        assert end.state()["_received"] == [OTHERS[what][:at]]
        end.wire.sendall(OTHERS[what][at:])
        assert end.connection._receive_one(None, None) == "fragment"
        assert end.state()["_is_simple"]
        assert end.state()["_received"] == []


BAD = {
    "no UTF-8": (1007, frame(FIN | TEXT, b"\xff", True)),
    "no UTF-8, not masked": (1002, frame(FIN | TEXT, b"\xff")),
    "too big": (1009, frame(FIN | BINARY, bytes(100_001), True)),
    "reserved bit": (1002, frame(FIN | 0x40 | TEXT, b"", True)),
    "unknown opcode": (1002, frame(FIN | 0x3, b"", True)),
}


@pytest.mark.parametrize("what", BAD)
def test_what_the_peer_does_wrong_is_left_to_others(make, what):
    with make() as end:
        code, data = BAD[what]
        sending = Task(end.wire.sendall, data)
        assert end.try_receive() is None
        with pytest.raises(ConnectionClosed) as caught:
            end.connection._receive_one(None, None)
        assert caught.value.sent.code == code
        end.wire.close()
        with contextlib.suppress(OSError):
            sending.result()


def test_the_end_of_input_is_left_to_others(make):
    with make() as end:
        end.wire.sendall(frame(FIN | TEXT, b"last", True))
        end.wire.shutdown(socket.SHUT_WR)
        assert end.try_receive() == ("last", True)
        assert end.try_receive() is None
        with pytest.raises(ConnectionClosed):
            end.connection._receive_one(None, None)


@pytest.mark.parametrize("size", [READ_SIZE, 4 * READ_SIZE])
def test_an_error_of_the_socket_is_the_one_that_the_kernel_told_first(way, size):
    """Whether it is found on reading or on waiting for much."""
    listener = socket.create_server(("localhost", 0))
    with listener, socket.create_connection(listener.getsockname()) as peer, End(way) as end:
        sock, _ = listener.accept()
        with sock:
            end.connection._transport.recv = sock.recv
            end.connection._read_size = size
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            peer.close()
            end.wire.close()  # what is waited for, if it is
            assert end.try_receive() is None
        assert end.connection._closing.gone
        assert isinstance(end.connection._cause, ConnectionResetError)


def test_an_error_while_waiting_for_much_ends_the_connection(way):
    with End(way) as end:

        def fail(seconds):
            raise OSError("no memory for it")

        class Waiting(Transport):
            __slots__ = ()
            wait_readable = staticmethod(fail)

        end.connection._transport = Waiting(end._sock)
        end.connection._read_size = 2 * READ_SIZE
        assert end.try_receive() is None
        assert str(end.connection._cause) == "no memory for it"


def test_other_errors_are_raised_and_the_role_is_given_back(make):
    with make() as end:

        def fail(size):
            raise ZeroDivisionError

        end.connection._transport.recv = fail
        with pytest.raises(ZeroDivisionError):
            end.try_receive()
        assert not end.connection._reader.locked()
        assert not end.state()["_is_simple"]


IN_THE_WAY = {
    "_is_simple": False,
    "_given_back": [Message(True, b"before")],
    "_streaming": True,
}


@pytest.mark.parametrize("name", [*IN_THE_WAY, "over"])
def test_nothing_is_read_when_something_is_in_the_way(make, name):
    with make() as end:
        if name == "over":
            end.connection._closing.over = True
        else:
            setattr(end.connection, name, IN_THE_WAY[name])
        before = end.state()
        end.wire.sendall(frame(FIN | TEXT, b"hello", True))
        assert end.try_receive() is None
        assert end.state() == before


@needs_c
def test_a_role_that_another_thread_has_is_not_waited_for():
    with End(_speedups.receive_whole) as end:
        end.wire.sendall(frame(FIN | TEXT, b"hello", True))
        with end.connection._reader:
            assert end.try_receive() is None
        assert end.try_receive() == ("hello", True)


@needs_c
def test_what_is_not_bytes_is_left_to_others():
    with End(_speedups.receive_whole) as end:
        end.connection._transport.recv = bytearray
        assert end.try_receive() is None
        assert end.state()["_received"] == [bytearray(READ_SIZE)]


def random_input(rng):
    """Frames, nearly all of which are whole messages, in pieces."""
    frames = []
    for _ in range(rng.randrange(1, 40)):
        kind = rng.random()
        size = rng.choice([0, 1, 5, 125, 126, 1000, 5000, 20_000])
        if kind < 0.5:
            text = rng.choice("az\u00e9\U0001f600") * (size // 4)
            frames.append(frame(FIN | TEXT, text.encode(), True))
        elif kind < 0.9:
            frames.append(frame(FIN | BINARY, rng.choice([b"a", b"\xff"]) * size, True))
        else:
            frames.append(frame(TEXT, b"a" * size, True) + frame(FIN | CONT, b"b", True))
    data = b"".join(frames)
    cuts = {*range(0, len(data), 50_000), *(rng.randrange(len(data)) for _ in range(20)), len(data)}
    edges = sorted(cuts)
    return [data[start:stop] for start, stop in zip(edges, edges[1:])]


def receive_all(end, chunks, rng):
    """Feed a connection; what became of each call, and the state after it."""
    seen = []
    for chunk in chunks:
        end.wire.sendall(chunk)
        while not end.may_block():
            decode = rng.choice([None, None, None, True, False, 0])
            if end.connection._is_simple:
                seen.append(end.try_receive(decode))
            else:
                try:
                    seen.append(end.connection.recv(0, decode))
                except TimeoutError:
                    pass
                except ConnectionClosed:  # no UTF-8, but text was asked for
                    return [*seen, end.state()]
            seen.append(end.state())
    return seen


@needs_c
@pytest.mark.parametrize("seed", range(150))
def test_both_do_the_same(seed):
    chunks = random_input(random.Random(seed))
    seen = []
    for way in WAYS.values():
        with End(way) as end:
            seen.append(receive_all(end, chunks, random.Random(seed)))
    assert seen[0] == seen[1]


def test_it_waits_for_input(way):
    with End(way) as end:
        waiting = Task(end.try_receive)
        assert wait_until(end.connection._reader.locked)
        end.wire.sendall(frame(FIN | TEXT, b"hello", True))
        assert waiting.result() == ("hello", True)


def test_a_message_that_an_interrupt_kept_is_the_next_one(way, monkeypatch):
    def interrupted(connection, whole, decode, read_size):
        way(connection, whole, decode, read_size)
        raise KeyboardInterrupt

    for data, expected in [(b"\xff", b"\xff"), ("gr\u00fc\u00dfe".encode(), "gr\u00fc\u00dfe")]:
        with End(way) as end, monkeypatch.context() as patch:
            opcode = BINARY if isinstance(expected, bytes) else TEXT
            end.wire.sendall(frame(FIN | opcode, data, True))
            patch.setattr("syncws.receiving.receive_whole", interrupted)
            with pytest.raises(KeyboardInterrupt):
                end.connection.recv()
            patch.undo()
            assert end.connection.recv() == expected


@needs_c
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (1, [None, False], None),
        (1, [None, False], None, READ_SIZE, 1),
        (1, [None], None, READ_SIZE),
        (1, (None, False), None, READ_SIZE),
        (1, [None, False], None, "4096"),
    ],
)
def test_arguments_are_checked(arguments):
    with pytest.raises(TypeError):
        _speedups.receive_whole(*arguments)


@needs_c
@pytest.mark.parametrize("name", ["_reader", "_is_simple", "_streaming", "_given_back", "_closing"])
@pytest.mark.parametrize("base", [Connection, Computing])
def test_what_is_no_connection_is_an_error(name, base):
    with End(_speedups.receive_whole, base=base) as end:
        kept = getattr(end.connection, name)
        delattr(end.connection, name)
        with pytest.raises(AttributeError, match=name):
            _speedups.receive_whole(end.connection, [None, False], None, READ_SIZE)
        setattr(end.connection, name, kept)
        assert not end.connection._reader.locked()


@needs_c
@pytest.mark.parametrize(
    "name",
    ["_hungry", "_inbound", "_read_size", "_transport", "_received_bytes", "_whole_messages"],
)
def test_an_error_gives_the_role_back(name):
    with End(_speedups.receive_whole) as end:
        kept = getattr(end.connection, name)
        delattr(end.connection, name)
        end.wire.sendall(frame(FIN | TEXT, b"hello", True))
        whole = [None, False]
        with pytest.raises(AttributeError, match=name):
            _speedups.receive_whole(end.connection, whole, None, READ_SIZE)
        setattr(end.connection, name, kept)
        assert not end.connection._reader.locked()
        # It was received, or it is still to be received.
        assert whole[0] == "hello" or end.connection.recv() == "hello"


@needs_c
def test_input_that_can_not_be_kept_ends_the_connection():
    with End(_speedups.receive_whole) as end:
        del end.connection._received
        end.wire.sendall(frame(FIN | PING, b"", True))
        with pytest.raises(AttributeError, match="_received"):
            end.try_receive()
        end.connection._received = []
        with pytest.raises(ConnectionClosed) as caught:
            end.connection.recv()
        assert str(caught.value.sent) == "1011 (internal error) interrupted"


@needs_c
def test_nothing_leaks():
    data = frame(FIN | TEXT, b"hello", True) + frame(FIN | TEXT, "\u00e9".encode(), True)
    with End(_speedups.receive_whole) as end, End(_speedups.receive_whole, base=Computing) as other:

        def many(count):
            for _ in range(count):
                for each in (end, other):
                    each.wire.sendall(data)
                    assert each.try_receive() == ("hello", True)
                    assert each.try_receive(decode=False) == ("\u00e9".encode(), True)
                    with contextlib.suppress(AttributeError):
                        _speedups.receive_whole(object(), [None, False], None, READ_SIZE)

        many(50)
        tracemalloc.start()
        try:
            many(50)
            before = tracemalloc.get_traced_memory()[0]
            many(1000)
            assert tracemalloc.get_traced_memory()[0] - before < 20_000
        finally:
            tracemalloc.stop()


# know_slots()


@needs_c
@pytest.mark.parametrize("arguments", [(1,), (Receiving, "Receiving")])
def test_only_classes_have_slots(arguments):
    with pytest.raises(TypeError, match=r"^know_slots\(\) takes classes$"):
        _speedups.know_slots(*arguments)


@needs_c
def test_classes_may_be_told_again():
    _speedups.know_slots(Receiving, Receiving, Computing, Transport)


class Replaced(Connection):
    """Has something else in place of a slot."""

    __slots__ = ()
    _read_size = property(lambda self: 1 // 0, Receiving._read_size.__set__)


@needs_c
@pytest.mark.skipif(
    bool(sysconfig.get_config_var("Py_GIL_DISABLED")), reason="all are looked up without a GIL"
)
def test_slots_of_connections_are_not_looked_up():
    _speedups.know_slots(Receiving)
    with End(_speedups.receive_whole, base=Replaced) as end:
        end.wire.sendall(frame(FIN | TEXT, b"hello", True))
        assert end.try_receive() == ("hello", True)


def test_without_the_c_module_there_is_nothing_to_find_out():
    assert python_know_slots(Receiving, Transport) is None


# On a real connection


def test_several_threads_receive_all_messages_once():
    with pair(compression=None) as (client, server):
        readers = [Task(list, server) for _ in range(3)]
        for number in range(2000):
            client.send(str(number))
        client.close()
        received = []
        for reader in readers:
            numbers = list(map(int, reader.result()))
            assert numbers == sorted(numbers)
            received += numbers
        assert sorted(received) == list(range(2000))


def test_a_rate_limit_is_kept():
    limit = RateLimit(messages=1000)
    with pair(compression=None, rate_limit=limit) as (client, server):
        ready = threading.Event()
        reading = Task(lambda: (ready.set(), [server.recv() for _ in range(5)])[1])
        ready.wait(PATIENCE)
        for _ in range(5):
            client.send("x")
        assert reading.result() == ["x"] * 5
        assert not server._is_simple
