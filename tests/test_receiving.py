"""Receiving: recv(), iteration, recv_streaming(), and the inbox with its bounds."""

from __future__ import annotations

import socket
import threading

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
    TEXT,
    Task,
    bare_client,
    close_payload,
    frame,
)

from syncws import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    ServerConnection,
)

# More than the kernel buffers of both ends of a connection hold.
TOO_MUCH = 16 * 1024 * 1024  # bytes


def messages_waiting(connection, count):
    return wait_until(lambda: connection.stats()["inbox_messages"] == count)


# recv()


def test_text_is_received_as_str_and_binary_as_bytes(link):
    with link.pair() as (client, server):
        client.send("naïve")
        client.send(b"\xff")
        assert server.recv(PATIENCE) == "naïve"
        assert server.recv(PATIENCE) == b"\xff"


@pytest.mark.parametrize("read_ahead", [False, True])
def test_decode_chooses_the_type(plain, read_ahead):
    with plain.pair() as (client, server):
        for _ in range(2):
            client.send("naïve")
            client.send("naïve".encode())
        assert not read_ahead or messages_waiting(server, 4)
        assert server.recv(PATIENCE, decode=False) == "naïve".encode()
        assert server.recv(PATIENCE, decode=False) == "naïve".encode()
        assert server.recv(PATIENCE, decode=True) == "naïve"
        assert server.recv(PATIENCE, decode=True) == "naïve"


def test_binary_that_is_not_utf_8_cannot_be_decoded(plain):
    with bare_client(plain) as (wire, connection):
        wire.send(BINARY, b"ab\xffc")
        text = (
            r"^sent 1007 \(invalid frame payload data\) invalid start byte at position 2; no close"
        )
        with pytest.raises(ConnectionClosedError, match=text) as caught:
            connection.recv(PATIENCE, decode=True)
        assert isinstance(caught.value.__cause__, UnicodeDecodeError)
        assert wire.end() == [
            (FIN | CLOSE, close_payload(1007, "invalid start byte at position 2"))
        ]


@pytest.mark.parametrize("timeout", [0, -1, 0.05])
def test_recv_gives_up_after_its_timeout(link, timeout):
    with link.pair() as (_, server):
        text = f"^timed out in {timeout:.1f}s$"
        with pytest.raises(TimeoutError, match=text):
            server.recv(timeout)
        with pytest.raises(TimeoutError, match=text):
            server.recv(timeout=timeout)


def test_recv_gives_up_after_its_timeout_while_another_thread_is_in_recv(plain):
    with plain.pair() as (client, server):
        receiving = Task(server.recv)
        assert wait_until(server._reader.locked)
        with pytest.raises(TimeoutError, match=r"^timed out in 0\.0s$"):
            server.recv(0)
        with pytest.raises(TimeoutError, match=r"^timed out in 0\.1s$"):
            server.recv(0.05)
        client.send("for the other")
        assert receiving.result() == "for the other"


def test_recv_without_patience_returns_what_is_there(plain):
    with plain.pair() as (client, server):
        client.send("one")
        client.send("two")
        assert messages_waiting(server, 2)
        assert [server.recv(0), server.recv(0)] == ["one", "two"]


def test_recv_gives_up_in_the_middle_of_a_message_and_goes_on_later(link):
    with bare_client(link) as (wire, connection):
        whole = frame(FIN | TEXT, b"in two parts", masked=True)
        wire.sock.sendall(whole[:9])
        with pytest.raises(TimeoutError):
            connection.recv(0.05)
        wire.sock.sendall(whole[9:])
        assert connection.recv(PATIENCE) == "in two parts"


def test_messages_that_arrived_before_the_close_are_received_after_it(slow_link):
    with slow_link.pair() as (client, server):
        for number in range(3):
            client.send(str(number))
        client.close()
        assert server.wait_closed(PATIENCE)
        assert [server.recv() for _ in range(3)] == ["0", "1", "2"]
        for _ in range(2):
            with pytest.raises(ConnectionClosedOK, match=r"^received 1000 \(OK\); then sent 1000"):
                server.recv()
        with pytest.raises(ConnectionClosedOK):
            server.recv(0)


def test_messages_that_arrived_before_a_reset_are_received_after_it(plain):
    with bare_client(plain) as (wire, connection):
        for number in range(3):
            wire.send(TEXT, str(number).encode())
        assert messages_waiting(connection, 3)
        wire.reset()
        assert connection.wait_closed(PATIENCE)
        assert [connection.recv() for _ in range(3)] == ["0", "1", "2"]
        with pytest.raises(
            ConnectionClosedError, match=r"^no close frame received or sent$"
        ) as caught:
            connection.recv()
        assert isinstance(caught.value.__cause__, ConnectionResetError)


def test_messages_that_crossed_our_close_frame_are_received_after_it(plain):
    with bare_client(plain) as (wire, connection):
        closing = Task(connection.close)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        wire.send(TEXT, b"on its way")
        wire.send_close(1000)
        assert wire.end() == []
        closing.result()
        assert connection.recv() == "on its way"


def test_message_cut_short_by_the_end_is_not_received(link):
    with bare_client(link) as (wire, connection):
        wire.sock.sendall(
            frame(FIN | TEXT, b"whole", masked=True) + frame(TEXT, b"half", True)[:-1]
        )
        wire.sock.shutdown(socket.SHUT_RDWR)
        assert connection.recv(PATIENCE) == "whole"
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            connection.recv(PATIENCE)


def test_each_message_goes_to_exactly_one_of_many_receiving_threads(link):
    threads, count = 8, 400
    with link.pair(max_queue=4) as (client, server):

        def receive():
            return list(server)

        tasks = [Task(receive) for _ in range(threads)]
        for number in range(count):
            client.send(str(number))
        client.close()
        received = [task.result() for task in tasks]
        assert sorted(int(n) for part in received for n in part) == list(range(count))
        # Each thread got its own in the order in which they were sent.
        for part in received:
            assert [int(n) for n in part] == sorted(int(n) for n in part)


def test_receiving_threads_all_wake_when_the_connection_ends(link):
    with link.pair() as (client, server):
        tasks = [Task(server.recv), Task(server.recv, 30), Task(list, server)]
        assert wait_until(server._reader.locked)
        client.close(4000)
        assert isinstance(tasks[0].error(), ConnectionClosedError)
        assert isinstance(tasks[1].error(), ConnectionClosedError)
        assert isinstance(tasks[2].error(), ConnectionClosedError)


# Iteration


@pytest.mark.parametrize("code", [1000, 1001])
def test_iteration_ends_when_the_connection_is_closed_normally(plain, code):
    with plain.pair() as (client, server):
        client.send("one")
        client.send("two")
        client.close(code)
        assert list(server) == ["one", "two"]


def test_iteration_raises_when_the_connection_is_closed_with_an_error(plain):
    with plain.pair() as (client, server):
        client.send("one")
        client.close(1011, "oops")
        messages = iter(server)
        assert next(messages) == "one"
        with pytest.raises(ConnectionClosedError, match=r"^received 1011 \(internal error\) oops"):
            next(messages)


# recv_streaming()


def test_fragments_are_streamed_as_they_arrive(link):
    with bare_client(link) as (wire, connection):
        fragments = connection.recv_streaming()
        wire.send(TEXT, b"one", fin=0)
        assert next(fragments) == "one"
        wire.send(CONT, b"two", fin=0)
        assert next(fragments) == "two"
        wire.send(PING, b"between")
        wire.send(CONT, b"three")
        assert next(fragments) == "three"
        assert wire.receive() == (FIN | PONG, b"between")
        assert list(fragments) == []
        wire.send(TEXT, b"next")
        assert connection.recv(PATIENCE) == "next"


def test_fragments_that_arrived_before_are_joined(plain):
    with bare_client(plain) as (wire, connection):
        wire.send(BINARY, b"one", fin=0)
        wire.send(CONT, b"two", fin=0)
        wire.send(CONT, b"three")
        assert messages_waiting(connection, 1)
        assert list(connection.recv_streaming()) == [b"onetwothree"]


def test_fragments_that_were_decoded_before_are_joined(plain):
    with bare_client(plain) as (wire, connection):
        wire.send(BINARY, b"one", fin=0)
        wire.send(CONT, b"two", fin=0)
        received = connection.stats()["bytes_received"]
        assert wait_until(lambda: connection.stats()["bytes_received"] == received + 2 * 6 + 6)
        fragments = connection.recv_streaming()
        wire.send(CONT, b"three")
        assert b"".join(fragments) == b"onetwothree"


def test_streamed_text_may_be_cut_inside_a_character(plain):
    euro = "€".encode()
    with bare_client(plain) as (wire, connection):
        fragments = connection.recv_streaming()
        wire.send(TEXT, b"1 " + euro[:1], fin=0)
        assert next(fragments) == "1 "
        wire.send(CONT, euro[1:2], fin=0)
        assert next(fragments) == ""
        wire.send(CONT, euro[2:])
        assert list(fragments) == ["€"]


def test_streamed_text_may_be_had_as_bytes(plain):
    with plain.pair() as (client, server):
        client.send(["na", "ïve"])
        assert b"".join(server.recv_streaming(decode=False)) == "naïve".encode()
        client.send([b"na", "ïve".encode()])
        assert "".join(server.recv_streaming(decode=True)) == "naïve"


def test_streamed_binary_that_is_not_utf_8_cannot_be_decoded(plain):
    with bare_client(plain) as (wire, connection):
        fragments = connection.recv_streaming(decode=True)
        wire.send(BINARY, b"fine", fin=0)
        assert next(fragments) == "fine"
        wire.send(CONT, b"\xff")
        with pytest.raises(
            ConnectionClosedError, match=r"^sent 1007 \(invalid frame payload data\)"
        ):
            next(fragments)
        (received,) = wire.end()
        assert received[0] == FIN | CLOSE


@pytest.mark.parametrize("fragments", [0, 1])
def test_stream_must_be_consumed_to_its_end(plain, fragments):
    with plain.pair() as (client, server):
        client.send(["one", "two"])
        stream = server.recv_streaming()
        assert [next(stream)]
        text = r"^cannot call recv while another thread is already running recv_streaming$"
        with pytest.raises(ConcurrencyError, match=text):
            server.recv()
        with pytest.raises(ConcurrencyError, match=text):
            server.recv(0)
        text = (
            r"^cannot call recv_streaming while another thread is already running recv_streaming$"
        )
        with pytest.raises(ConcurrencyError, match=text):
            next(server.recv_streaming())
        client.send("next")
        assert "".join(stream) in ("", "two")
        assert server.recv(PATIENCE) == "next"


def test_stream_that_is_dropped_half_way_blocks_later_calls(plain):
    with bare_client(plain) as (wire, connection):
        stream = connection.recv_streaming()
        wire.send(TEXT, b"one", fin=0)
        assert next(stream) == "one"
        stream.close()
        wire.send(CONT, b"two")
        with pytest.raises(ConcurrencyError):
            connection.recv(PATIENCE)


def test_stream_ends_with_the_connection(plain):
    with bare_client(plain) as (wire, connection):
        stream = connection.recv_streaming()
        wire.send(TEXT, b"one", fin=0)
        assert next(stream) == "one"
        wire.send_close(1000)
        with pytest.raises(ConnectionClosedOK):
            next(stream)
        with pytest.raises(ConnectionClosedOK):
            connection.recv()


def test_stream_of_a_closed_connection_raises(plain):
    with plain.pair() as (client, server):
        client.close()
        with pytest.raises(ConnectionClosedOK):
            next(server.recv_streaming())


def test_messages_before_a_stream_are_not_streamed(plain):
    with plain.pair() as (client, server):
        client.send(["o", "n", "e"])
        client.send(["t", "w", "o"])
        assert messages_waiting(server, 2)
        assert list(server.recv_streaming()) == ["one"]
        assert server.recv(PATIENCE) == "two"


def test_compressed_message_is_streamed(plain):
    with plain.pair() as (client, server):
        parts = ["a" * 5000, "b" * 5000, "c" * 5000]
        client.send(parts)
        assert "".join(server.recv_streaming()) == "".join(parts)


# The inbox, while the application is away


def test_inbox_holds_max_queue_messages(plain):
    with bare_client(plain, max_queue=3) as (wire, connection):
        for number in range(10):
            wire.send(TEXT, b"%d" % number)
        assert messages_waiting(connection, 3)
        # A control frame behind the fourth message waits with it.
        wire.send(PING, b"behind")
        assert wire.is_silent(0.3)
        assert connection.stats()["inbox_messages"] == 3
        assert [connection.recv(PATIENCE) for _ in range(10)] == [str(n) for n in range(10)]
        with pytest.raises(TimeoutError):
            connection.recv(0.05)
        assert wire.receive() == (FIN | PONG, b"behind")


def test_inbox_holds_max_queue_bytes(plain):
    with bare_client(plain, max_queue=None, max_queue_bytes=1000) as (wire, connection):
        for _ in range(10):
            wire.send(BINARY, bytes(400))
        assert messages_waiting(connection, 3)
        wire.send(PING, b"behind")
        assert wire.is_silent(0.3)
        assert connection.stats()["inbox_bytes"] == 1200
        assert [connection.recv(PATIENCE) for _ in range(10)] == [bytes(400)] * 10


def test_inbox_without_limits_holds_everything(plain):
    with bare_client(plain, max_queue=None, max_queue_bytes=None) as (wire, connection):
        for number in range(1000):
            wire.send(TEXT, b"%d" % number)
        wire.send(PING, b"behind")
        assert wire.receive() == (FIN | PONG, b"behind")
        assert connection.stats()["inbox_messages"] == 1000
        assert [connection.recv(0) for _ in range(1000)] == [str(n) for n in range(1000)]


def test_one_message_always_fits_the_inbox(plain):
    with bare_client(plain, max_queue_bytes=0) as (wire, connection):
        wire.send(BINARY, bytes(1000))
        wire.send(BINARY, b"second")
        assert messages_waiting(connection, 1)
        assert connection.stats()["inbox_bytes"] == 1000
        assert connection.recv(PATIENCE) == bytes(1000)
        assert connection.recv(PATIENCE) == b"second"


def test_full_inbox_holds_the_peer_back_and_loses_nothing(slow_link):
    count, size = 512, 64 * 1024
    with slow_link.pair(max_queue=2, compression=None) as (client, server):
        sending = Task(
            lambda: [client.send(number.to_bytes(size, "big")) for number in range(count)]
        )
        assert messages_waiting(server, 2)
        assert wait_until(lambda: client.stats()["outbox_bytes"])
        assert sending.is_alive()
        assert server.stats()["bytes_received"] < 8 * size
        for number in range(count):
            assert server.recv(PATIENCE) == number.to_bytes(size, "big")
        sending.result()


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_application_that_only_sends_lives_with_a_peer_that_sends_1000_messages(plain, tls, kind):
    link = {"plain": plain, "tls": tls}[kind]
    options = {"ping_interval": 0.1, "ping_timeout": 0.3}
    with link.pair(max_queue=4, **options) as (client, server):

        def answer():
            for number in range(1000):
                client.send(f"from the client {number}")
            return [client.recv(PATIENCE) for _ in range(100)]

        answering = Task(answer)
        pause = threading.Event()
        for number in range(100):
            server.send(f"from the server {number}")
            pause.wait(0.01)  # the life that is tested here is one of about a second
        assert server.is_open
        for number in range(1000):
            assert server.recv(PATIENCE) == f"from the client {number}"
        assert answering.result() == [f"from the server {number}" for number in range(100)]


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_both_ends_send_64_mib_at_once(plain, tls, kind):
    link = {"plain": plain, "tls": tls}[kind]
    with link.pair(max_size=None, compression=None, client={"max_size": None}) as (client, server):
        size = 64 * 1024 * 1024
        to_server, to_client = b"\x01" * size, b"\x02" * size

        def exchange():
            server.send(to_client)
            return server.recv(30)

        exchanging = Task(exchange)
        client.send(to_server)
        assert client.recv(30) == to_client
        assert exchanging.result(30) == to_server


def test_ping_is_answered_while_the_application_is_blocked_in_send(link):
    with bare_client(link, compression=None) as (wire, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        assert wait_until(lambda: connection.stats()["outbox_bytes"])
        wire.send(PING, b"still there?")
        assert wire.receive() == (FIN | BINARY, bytes(TOO_MUCH))
        assert wire.receive() == (FIN | PONG, b"still there?")
        sending.result()


def test_many_messages_in_one_read_are_received_one_by_one(link):
    with bare_client(link) as (wire, connection):
        data = b"".join(frame(FIN | TEXT, b"%d" % number, masked=True) for number in range(5000))
        sending = Task(wire.sock.sendall, data)
        assert [connection.recv(PATIENCE) for _ in range(5000)] == [str(n) for n in range(5000)]
        sending.result()


def test_closed_connection_says_the_same_to_every_caller(plain):
    with plain.pair() as (client, server):
        client.close(4000, "x")
        errors = []
        for call in (server.recv, lambda: server.recv(0), lambda: server.send("x"), server.ping):
            with pytest.raises(ConnectionClosed) as caught:
                call()
            errors.append((type(caught.value), str(caught.value)))
        assert len(set(errors)) == 1


class HastyServerConnection(ServerConnection):
    """A connection that does not wait long for answers to what came before a violation."""

    answer_time = 0.3


def test_violation_is_answered_when_the_application_never_comes_back(plain):
    with bare_client(plain, create_connection=HastyServerConnection) as (wire, connection):
        wire.send(TEXT, b"good")
        wire.sock.sendall(b"\x83\x80\0\0\0\0")  # a reserved opcode
        assert wire.receive() == (FIN | CLOSE, close_payload(1002, "invalid opcode"))
        wire.sock.close()
        assert connection.wait_closed(PATIENCE)
        assert connection.recv(0) == "good"
        with pytest.raises(ConnectionClosedError, match="invalid opcode"):
            connection.recv(0)


@pytest.mark.parametrize("away", [False, True])
def test_many_frames_that_are_no_messages_are_decoded_in_turns(link, away):
    with bare_client(link) as (wire, connection):
        fragments = b"".join(frame(CONT, b"x", masked=True) for _ in range(1000))
        pongs = b"".join(frame(FIN | PONG, b"x", masked=True) for _ in range(1000))
        start, end = frame(BINARY, masked=True), frame(FIN | CONT, b"y", masked=True)
        data = pongs + start + fragments + end + pongs
        received = None if away else Task(connection.recv)
        wire.sock.sendall(data)
        wire.send(PING, b"last")
        assert wire.receive() == (FIN | PONG, b"last")
        assert (connection.recv(PATIENCE) if away else received.result()) == b"x" * 1000 + b"y"
