"""Sending: types, fragments, compression, waiting for slow peers, pings."""

from __future__ import annotations

import socket
import threading
import time
import zlib

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Task,
    bare_client,
    bare_server,
    close_payload,
    repeat,
)

from syncws import ConcurrencyError, ConnectionClosedError, ConnectionClosedOK, PerMessageDeflate

# More than the kernel buffers of both ends of a connection hold.
TOO_MUCH = 16 * 1024 * 1024  # bytes

DEFLATE = {"headers": {"Sec_WebSocket_Extensions": "permessage-deflate"}}


def inflate(payload):
    return zlib.decompressobj(-15).decompress(payload + b"\x00\x00\xff\xff")


# Types


@pytest.mark.parametrize(
    ("message", "text", "expected"),
    [
        ("naïve", None, (FIN | TEXT, "naïve".encode())),
        ("naïve", True, (FIN | TEXT, "naïve".encode())),
        ("naïve", False, (FIN | BINARY, "naïve".encode())),
        (b"ab", None, (FIN | BINARY, b"ab")),
        (b"ab", True, (FIN | TEXT, b"ab")),
        (b"ab", False, (FIN | BINARY, b"ab")),
        (bytearray(b"ab"), None, (FIN | BINARY, b"ab")),
        (memoryview(b"abcd")[::2], None, (FIN | BINARY, b"ac")),
        ("", None, (FIN | TEXT, b"")),
        (b"", None, (FIN | BINARY, b"")),
    ],
)
def test_type_of_the_message_chooses_the_opcode(plain, message, text, expected):
    with bare_client(plain) as (wire, connection):
        connection.send(message, text)
        assert wire.receive() == expected


@pytest.mark.parametrize(
    ("fragments", "text", "opcode"),
    [
        (["a", "b"], None, TEXT),
        (["a", "b"], False, BINARY),
        ([b"a", b"b"], None, BINARY),
        ([b"a", bytearray(b"b")], None, BINARY),
        ([b"a", memoryview(b"b")], True, TEXT),
    ],
)
def test_type_of_the_first_fragment_chooses_the_opcode(plain, fragments, text, opcode):
    with bare_client(plain) as (wire, connection):
        connection.send(iter(fragments), text=text)
        assert [wire.receive() for _ in range(3)] == [
            (opcode, b"a"),
            (CONT, b"b"),
            (FIN | CONT, b""),
        ]


@pytest.mark.parametrize("message", [None, 1, 1.5, object()])
def test_message_of_a_wrong_type_is_refused(plain, message):
    with plain.pair() as (client, server):
        with pytest.raises(TypeError, match=r"^data must be str, bytes, or iterable, not \w+$"):
            client.send(message)
        client.send("still open")
        assert server.recv(PATIENCE) == "still open"


def test_dict_is_refused(plain):
    with plain.pair() as (client, _):
        with pytest.raises(
            TypeError, match=r"^data is a dict-like object; send json.dumps\(data\)$"
        ):
            client.send({"a": "dict"})


@pytest.mark.parametrize("message", [[1], [None], [["a"]]])
def test_fragment_of_a_wrong_type_is_refused(plain, message):
    with plain.pair() as (client, server):
        with pytest.raises(TypeError, match=r"^iterable must contain bytes or str, not \w+$"):
            client.send(message)
        client.send("still open")
        assert server.recv(PATIENCE) == "still open"


@pytest.mark.parametrize("payload", [None, 1, ["a"]])
def test_ping_payload_of_a_wrong_type_is_refused(plain, payload):
    with plain.pair() as (client, _):
        with pytest.raises(TypeError, match=r"^data must be str or bytes-like, not \w+$"):
            client.pong(payload)


def test_empty_iterable_sends_nothing(plain):
    with bare_client(plain) as (wire, connection):
        connection.send([])
        connection.send("next")
        assert wire.receive() == (FIN | TEXT, b"next")


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 1_000_000])
def test_message_of_any_size_arrives(link, size):
    with link.pair() as (client, server):
        for message in ("x" * size, b"x" * size):
            client.send(message)
            assert server.recv(PATIENCE) == message
            server.send(message)
            assert client.recv(PATIENCE) == message


# Fragmented messages


def test_fragments_of_mixed_types_close_with_1011(plain):
    with bare_client(plain) as (wire, connection):
        with pytest.raises(
            TypeError, match=r"^iterable must contain uniform types, all str or all bytes$"
        ):
            connection.send(["text", b"bytes"])
        assert wire.end() == [
            (TEXT, b"text"),
            (FIN | CLOSE, close_payload(1011, "error in fragmented message")),
        ]
        text = (
            r"^sent 1011 \(internal error\) error in fragmented message; no close frame received$"
        )
        with pytest.raises(ConnectionClosedError, match=text):
            connection.send("late")


def test_error_in_an_iterator_closes_with_1011(plain):
    def broken():
        yield "text"
        raise ZeroDivisionError

    with bare_client(plain) as (wire, connection):
        with pytest.raises(ZeroDivisionError):
            connection.send(broken())
        assert wire.end() == [
            (TEXT, b"text"),
            (FIN | CLOSE, close_payload(1011, "error in fragmented message")),
        ]


def test_error_in_an_iterator_before_its_first_item_does_not_close(plain):
    def broken():
        raise ZeroDivisionError
        yield

    with plain.pair() as (client, server):
        with pytest.raises(ZeroDivisionError):
            client.send(broken())
        client.send("still open")
        assert server.recv(PATIENCE) == "still open"


def test_close_during_a_fragmented_message_closes_with_1011(plain):
    with bare_client(plain) as (wire, connection):
        middle, go_on = threading.Event(), threading.Event()

        def fragments():
            yield "one"
            middle.set()
            assert go_on.wait(PATIENCE)
            yield "two"

        sending = Task(connection.send, fragments())
        assert middle.wait(PATIENCE)
        closing = Task(connection.close)
        assert wire.receive() == (TEXT, b"one")
        close = close_payload(1011, "close during fragmented message")
        assert wire.receive() == (FIN | CLOSE, close)
        go_on.set()
        wire.send_close(1011)
        assert wire.end() == []
        closing.result()
        assert isinstance(sending.error(), ConnectionClosedError)


def test_iterator_may_use_the_connection(plain):
    with plain.pair() as (client, server):

        def fragments():
            for _ in range(3):
                yield client.recv(PATIENCE)

        for number in range(3):
            server.send(str(number))
        client.send(fragments())
        assert server.recv(PATIENCE) == "012"


# Compression


def test_messages_over_the_threshold_are_compressed(plain):
    with bare_client(plain, **DEFLATE, compression=PerMessageDeflate(threshold=100)) as (
        wire,
        conn,
    ):
        conn.send("a" * 99)
        assert wire.receive() == (FIN | TEXT, b"a" * 99)
        conn.send("b" * 100)
        head, payload = wire.receive()
        assert head == FIN | RSV1 | TEXT
        assert inflate(payload) == b"b" * 100


def test_message_is_sent_uncompressed_if_so_wished(plain):
    with bare_client(plain, **DEFLATE) as (wire, connection):
        connection.send("a" * 5000, compress=False)
        assert wire.receive() == (FIN | TEXT, b"a" * 5000)
        connection.send(["a" * 5000, "b" * 5000], compress=False)
        assert [wire.receive() for _ in range(3)] == [
            (TEXT, b"a" * 5000),
            (CONT, b"b" * 5000),
            (FIN | CONT, b""),
        ]


def test_fragments_are_compressed_all_or_none(plain):
    with bare_client(plain, **DEFLATE) as (wire, connection):
        connection.send(["a", "b" * 5000])
        heads, payloads = zip(*(wire.receive() for _ in range(3)))
        assert heads == (RSV1 | TEXT, CONT, FIN | CONT)
        assert inflate(b"".join(payloads)) == b"a" + b"b" * 5000


def test_message_that_could_not_be_sent_does_not_spoil_the_compression_of_later_ones(plain):
    with plain.pair() as (client, server):
        text = "the same words again and again, " * 100
        client.send(text)

        def fragments():
            yield ""
            with pytest.raises(ConcurrencyError):
                client.send(text)
            yield text

        client.send(fragments())
        client.send(text)
        assert [server.recv(PATIENCE) for _ in range(3)] == [text] * 3


def test_compressed_messages_of_many_threads_arrive_whole(plain):
    with plain.pair() as (client, server):

        def send(sender):
            for number in range(50):
                client.send(f"{sender} {number} " * 200, compress=number % 3 > 0)

        tasks = [Task(send, sender) for sender in range(4)]
        received = [server.recv(PATIENCE) for _ in range(200)]
        for task in tasks:
            task.result()
        expected = {f"{sender} {number} " * 200 for sender in range(4) for number in range(50)}
        assert set(received) == expected


# Slow peers


@pytest.mark.parametrize("size", [TOO_MUCH, 60_000])
def test_peer_that_takes_nothing_is_given_up_after_send_timeout(slow_link, size):
    options = {"send_timeout": 0.3, "compression": None, "ping_interval": None}
    with bare_client(slow_link, **options) as (_, connection):
        began = time.monotonic()
        with pytest.raises(
            ConnectionClosedError, match=r"^no close frame received or sent$"
        ) as caught:
            repeat(lambda: connection.send(bytes(size)))
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert str(caught.value.__cause__) == "the peer took nothing for 0.3s"
        assert time.monotonic() - began < 3
        with pytest.raises(ConnectionClosedError):
            connection.recv(0)
        assert wait_until(lambda: connection.is_gone)


def test_peer_that_takes_nothing_cannot_hold_several_senders(plain):
    options = {"send_timeout": 0.3, "compression": None}
    with bare_client(plain, **options) as (_, connection):
        tasks = [Task(connection.send, bytes(TOO_MUCH)) for _ in range(3)]
        errors = [task.error(3) for task in tasks]
        assert [type(error) for error in errors] == [ConnectionClosedError] * 3


def test_slow_peer_that_makes_progress_survives_send_timeout(plain):
    options = {"send_timeout": 0.4, "compression": None}
    with bare_client(plain, receive_buffer=65536, **options) as (wire, connection):
        sending = Task(connection.send, bytes(8 * 1024 * 1024))
        began, pause = time.monotonic(), threading.Event()
        # It takes its time: far more than send_timeout in all.
        while time.monotonic() - began < 1.0:
            wire.sock.recv(256 * 1024)
            pause.wait(0.05)
        assert sending.is_alive()
        wire.sock.settimeout(PATIENCE)
        reading = Task(lambda: [None for _ in iter(lambda: wire.sock.recv(65536), b"")])
        sending.result()
        closing = Task(connection.close)
        socket.socket.shutdown(wire.sock, socket.SHUT_WR)
        reading.result()
        closing.result()


def test_send_gives_up_after_its_own_timeout_and_the_message_is_sent_later(slow_link):
    with bare_client(slow_link, compression=None) as (wire, connection):
        with pytest.raises(TimeoutError, match=r"^timed out while sending$"):
            connection.send(bytes(TOO_MUCH), timeout=0.1)
        with pytest.raises(TimeoutError, match=r"^timed out while sending$"):
            connection.send("no room", timeout=0.1)
        assert connection.is_open
        assert wire.receive() == (FIN | BINARY, bytes(TOO_MUCH))
        connection.send("next")
        assert wire.receive() == (FIN | TEXT, b"next")


def test_send_within_its_timeout_succeeds(plain):
    with plain.pair() as (client, server):
        client.send("in time", timeout=0)
        assert server.recv(PATIENCE) == "in time"


def test_pong_and_ping_pass_messages_that_wait(plain):
    with bare_client(plain, compression=None, write_limit=TOO_MUCH * 4) as (wire, connection):
        tasks = [Task(connection.send, bytes(TOO_MUCH))]
        assert wait_until(lambda: connection.stats()["outbox_bytes"])
        tasks.append(Task(connection.send, b"second"))
        before = connection.stats()["outbox_bytes"]
        assert wait_until(lambda: connection.stats()["messages_sent"] == 2)
        connection.ping("in front")
        connection.pong("behind it")
        assert connection.stats()["outbox_bytes"] > before
        assert [wire.receive() for _ in range(4)] == [
            (FIN | BINARY, bytes(TOO_MUCH)),
            (FIN | PING, b"in front"),
            (FIN | PONG, b"behind it"),
            (FIN | BINARY, b"second"),
        ]
        for task in tasks:
            task.result()


def test_reset_wakes_a_thread_that_waits_in_send(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        assert wait_until(lambda: connection.stats()["outbox_bytes"])
        wire.reset()
        error = sending.error()
        assert isinstance(error, ConnectionClosedError)
        assert isinstance(error.__cause__, OSError)


# Pings


def test_pong_sets_the_event_and_the_latency(slow_link):
    with slow_link.pair() as (client, _):
        assert client.latency == 0.0
        waiter = client.ping()
        assert waiter.wait(PATIENCE)
        assert waiter.is_set()
        assert 0 < client.latency < PATIENCE


def test_waiting_for_a_pong_is_bounded(plain):
    with bare_client(plain) as (_, connection):
        waiter = connection.ping()
        assert not waiter.wait(0.05)
        assert not waiter.is_set()


def test_ping_with_data_that_waits_for_its_pong_is_refused(plain):
    with bare_client(plain) as (wire, connection):
        connection.ping("same")
        with pytest.raises(
            ConcurrencyError, match=r"^already waiting for a pong with the same data$"
        ):
            connection.ping(b"same")
        assert wire.receive() == (FIN | PING, b"same")
        wire.send(PONG, b"same")
        wire.send(TEXT, b"behind it")
        connection.recv(PATIENCE)
        connection.ping("same")
        assert wire.receive() == (FIN | PING, b"same")


def test_pong_with_data_of_a_ping_that_waits_may_be_sent(plain):
    with bare_client(plain) as (wire, connection):
        connection.ping("same")
        connection.pong("same")
        assert [wire.receive(), wire.receive()] == [(FIN | PING, b"same"), (FIN | PONG, b"same")]


def test_pings_have_random_data_by_default(plain):
    with bare_client(plain) as (wire, connection):
        for _ in range(4):
            connection.ping()
        payloads = {wire.receive() for _ in range(4)}
        assert len(payloads) == 4
        assert all(head == FIN | PING and len(payload) == 4 for head, payload in payloads)


@pytest.mark.parametrize("ack_on_close", [False, True])
def test_waiting_for_a_pong_ends_with_the_connection(plain, ack_on_close):
    with bare_client(plain) as (wire, connection):
        waiter = connection.ping(ack_on_close=ack_on_close)
        waiting = Task(waiter.wait, PATIENCE)
        wire.sock.shutdown(socket.SHUT_RDWR)
        assert waiting.result() is ack_on_close
        assert waiter.is_set() is ack_on_close
        assert waiter.wait(0) is ack_on_close


def test_heartbeat_of_the_peer_is_not_answered():
    with bare_server() as (wire, connection):
        connection.pong("alive")
        assert wire.receive() == (FIN | PONG, b"alive")
        wire.send(PONG, b"alive too")
        wire.send_close(1000)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        with pytest.raises(ConnectionClosedOK):
            connection.recv(PATIENCE)
