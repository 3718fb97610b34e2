"""Many messages at a time: recv_many() and cork()."""

from __future__ import annotations

import contextlib
import gc
import sys
import threading

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import (
    BINARY,
    FIN,
    PING,
    PONG,
    TEXT,
    Task,
    bare_client,
    close_payload,
    frame,
)

import syncws.receiving
from syncws import ConnectionClosedError, ConnectionClosedOK, RateLimit, broadcast
from syncws.receiving import Receiving
from syncws.speedups import python_receive_whole

CLOSE = 0x8


def send_together(wire, *frames):
    wire.sock.sendall(b"".join(frame(FIN | op, data, wire.masks) for op, data in frames))


# recv_many()


def test_all_that_arrived_together_is_returned_at_once(link):
    with bare_client(link, compression=None) as (wire, connection):
        send_together(wire, *[(TEXT, b"%d" % number) for number in range(100)], (BINARY, b"end"))
        received = []
        while len(received) < 101:
            received += connection.recv_many(PATIENCE)
        assert received == [*map(str, range(100)), b"end"]


def test_messages_that_waited_come_first(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        send_together(wire, (TEXT, b"one"), (TEXT, b"two"))
        assert wait_until(lambda: connection.stats()["inbox_messages"] == 2)
        assert connection.recv_many() == ["one", "two"]


def test_it_waits_for_the_first_message(plain):
    with bare_client(plain) as (wire, connection):
        with pytest.raises(TimeoutError):
            connection.recv_many(0.01)
        receiving = Task(connection.recv_many)
        wire.send(TEXT, b"late")
        assert receiving.result() == ["late"]


def test_no_more_than_the_limit_is_returned(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        send_together(wire, *[(BINARY, bytes([number])) for number in range(10)])
        assert wait_until(lambda: connection.stats()["inbox_messages"] == 10)
        assert connection.recv_many(limit=3) == [b"\0", b"\1", b"\2"]
        assert connection.recv() == b"\3"
        assert connection.recv_many(limit=1) == [b"\4"]
        assert len(connection.recv_many(limit=100)) == 5


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_is_at_least_one(plain, limit):
    with bare_client(plain) as (_, connection):
        with pytest.raises(ValueError, match=r"^limit must be at least 1$"):
            connection.recv_many(limit=limit)


def test_what_is_returned_at_once_is_bounded_in_bytes(plain):
    with bare_client(plain, compression=None, max_queue_bytes=1000) as (wire, connection):
        first = connection.recv_many
        receiving = Task(first)
        send_together(wire, *[(BINARY, bytes(400)) for _ in range(9)])
        sizes = [len(receiving.result())]
        while sum(sizes) < 9:
            sizes.append(len(connection.recv_many(PATIENCE)))
        assert max(sizes) <= 3


def test_messages_may_be_wanted_as_bytes_or_as_strings(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        send_together(wire, (TEXT, b"one"), (BINARY, b"two"))
        assert wait_until(lambda: connection.stats()["inbox_messages"] == 2)
        assert connection.recv_many(decode=False) == [b"one", b"two"]
        send_together(wire, (TEXT, b"one"), (BINARY, b"two"))
        assert wait_until(lambda: connection.stats()["inbox_messages"] == 2)
        assert connection.recv_many(decode=True) == ["one", "two"]


def test_pings_in_between_are_answered_and_fragments_put_together(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        receiving = Task(connection.recv_many, limit=1)
        wire.send(TEXT, b"first")
        assert receiving.result() == ["first"]
        part = frame(TEXT, b"frag", wire.masks), frame(FIN, b"ment", wire.masks)
        ping = frame(FIN | PING, b"?", wire.masks)
        wire.sock.sendall(part[0] + ping + part[1] + frame(FIN | TEXT, b"next", wire.masks))
        received = []
        while len(received) < 2:
            received += connection.recv_many(PATIENCE)
        assert received == ["fragment", "next"]
        assert wire.receive() == (FIN | PONG, b"?")


def test_messages_before_an_error_of_the_peer_are_returned_before_it_is_answered(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        receiving = Task(connection.recv_many)
        wire.sock.sendall(
            frame(FIN | TEXT, b"good", wire.masks) + frame(FIN | 0x3, b"bad", wire.masks)
        )
        assert receiving.result() == ["good"]
        closed = Task(connection.recv_many)
        assert wire.receive()[0] == FIN | CLOSE
        wire.sock.close()
        assert isinstance(closed.error(), ConnectionClosedError)


def test_messages_before_a_close_frame_are_returned_before_the_end(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        send_together(wire, (TEXT, b"last"), (CLOSE, close_payload(1000)))
        assert connection.recv_many(PATIENCE) == ["last"]
        closed = Task(connection.recv_many)
        wire.end()
        assert isinstance(closed.error(), ConnectionClosedOK)


def test_rate_limit_holds_for_messages_that_arrived_together(plain):
    limit = RateLimit(messages=20, burst=0.5)
    with bare_client(plain, compression=None, rate_limit=limit) as (wire, connection):
        receiving = Task(connection.recv_many, limit=1)
        wire.send(TEXT, b"first")
        assert receiving.result() == ["first"]
        send_together(wire, *[(TEXT, b"x")] * 60)
        assert len(connection.recv_many(PATIENCE)) < 30


def test_messages_before_one_that_is_no_text_are_returned(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        send_together(wire, (TEXT, b"good"), (TEXT, b"too"), (BINARY, b"\xff"), (TEXT, b"last"))
        assert wait_until(lambda: connection.stats()["inbox_messages"] == 4)
        assert connection.recv_many(decode=True) == ["good", "too"]
        failing = Task(connection.recv_many, decode=True)
        assert wire.receive() == (
            FIN | CLOSE,
            close_payload(1007, "invalid start byte at position 0"),
        )
        wire.end()
        assert isinstance(failing.error(), ConnectionClosedError)
        assert connection.recv_many() == ["last"]


def test_messages_that_came_with_one_that_is_no_text_are_kept(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        receiving = Task(connection.recv_many, decode=True)
        send_together(wire, (TEXT, b"a"), (BINARY, b"b"), (BINARY, b"\xff"), (TEXT, b"\xc3\xbc"))
        assert receiving.result() == ["a", "b"]
        failing = Task(connection.recv_many, decode=True)
        assert wire.receive()[0] == FIN | CLOSE
        wire.end()
        assert isinstance(failing.error(), ConnectionClosedError)
        assert connection.recv_many() == ["\u00fc"]


@pytest.mark.parametrize("line", range(1, 16))
def test_interrupted_messages_are_kept(plain, line):
    """Whichever line of recv_many() is interrupted, as by Ctrl-C."""
    with bare_client(plain, compression=None) as (wire, connection):
        expected = ["a", b"b", "\u00fc"]
        send_together(wire, (TEXT, b"a"), (BINARY, b"b"), (TEXT, b"\xc3\xbc"))
        received = []
        with Interrupt(Receiving.recv_many.__code__, line):
            while len(received) < 3:
                with contextlib.suppress(KeyboardInterrupt):
                    received += connection.recv_many()
        assert received == expected


@pytest.mark.parametrize("line", range(1, 34))
def test_interrupted_message_is_neither_lost_nor_repeated_while_the_connection_lives(
    plain, line, monkeypatch
):
    """Whichever line of the short way is interrupted, as by Ctrl-C."""
    monkeypatch.setattr(syncws.receiving, "receive_whole", python_receive_whole)
    with bare_client(plain, compression=None) as (wire, connection):
        for text in (b"first", b"second"):
            receiving = Task(connection.recv)
            wire.send(TEXT, text)
            receiving.result()
        interrupt = Interrupt(Receiving._take_first.__code__, line)
        send_together(wire, (TEXT, b"A"), (TEXT, b"B"), (TEXT, b"C"))
        received = []
        with contextlib.suppress(ConnectionClosedError):
            with interrupt:
                while len(received) < 3:
                    try:
                        received.append(connection.recv(PATIENCE if received else None))
                    except KeyboardInterrupt:
                        continue
        assert received == ["A", "B", "C"][: len(received)]
        assert len(received) == 3 or connection.end_code == 1011
        wire.sock.close()


@pytest.mark.parametrize("line", range(1, 4))
def test_what_was_read_before_an_interrupt_comes_first(plain, line):
    with bare_client(plain, compression=None) as (wire, connection):
        for text in (b"first", b"second"):  # from here on recv() goes the short way
            receiving = Task(connection.recv)
            wire.send(TEXT, text)
            receiving.result()
        wire.send(TEXT, b"A")
        with pytest.raises(KeyboardInterrupt):
            with Interrupt(Receiving._feed.__code__, line):
                connection.recv(PATIENCE)
        receiving = Task(connection.recv)
        assert receiving.result() == "A"
        wire.send(TEXT, b"B")
        assert connection.recv() == "B"


class Interrupt:
    """Raises KeyboardInterrupt as a function is about to make its n-th line, in this thread."""

    def __init__(self, code, lines):
        self._code = code
        self._lines = lines

    def __enter__(self):
        self._previous = sys.gettrace()
        sys.settrace(self._on_call)

    def __exit__(self, *args):
        sys.settrace(self._previous)

    def _on_call(self, frame, event, argument):
        return self._on_line if frame.f_code is self._code else None

    def _on_line(self, frame, event, argument):
        if event == "line":
            self._lines -= 1
            if not self._lines:
                raise KeyboardInterrupt
        return self._on_line


# cork()


def test_messages_are_sent_together_at_the_end(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        before = connection.progress
        with connection.cork():
            for number in range(50):
                connection.send(str(number))
            assert connection.stats()["outbox_bytes"] > 0
        assert connection.progress == before + 1
        assert connection.stats()["outbox_bytes"] == 0
        for number in range(50):
            assert wire.receive() == (FIN | TEXT, b"%d" % number)
        connection.send("alone")
        assert wire.receive() == (FIN | TEXT, b"alone")


def test_whatever_is_sent_keeps_its_order(link):
    messages = ["short", b"\0" * 70_000, "x" * 5000, ["in ", "parts"], "", b"end"]
    with bare_client(link) as (wire, connection):
        sending = Task(send_corked, connection, messages)
        expected = [(FIN | BINARY if isinstance(m, bytes) else FIN | TEXT) for m in messages]
        heads = [wire.receive()[0] & ~0x40 for _ in range(8)]
        assert heads[:3] == expected[:3]
        assert heads[3:6] == [TEXT, 0, FIN]
        assert heads[6:] == expected[4:]
        sending.result()


def send_corked(connection, messages):
    with connection.cork():
        for message in messages:
            connection.send(message)


def test_more_than_write_limit_is_not_held_back(plain):
    with bare_client(plain, compression=None, write_limit=1000) as (wire, connection):
        with connection.cork():
            for _ in range(30):
                connection.send(bytes(100))
            assert wire.receive() == (FIN | BINARY, bytes(100))
        for _ in range(29):
            assert wire.receive() == (FIN | BINARY, bytes(100))


def test_what_is_collected_leaves_soon_though_the_block_goes_on(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        with connection.cork():
            connection.send("soon")
            assert wire.receive() == (FIN | TEXT, b"soon")


def test_pings_take_along_what_was_collected(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        with connection.cork():
            connection.send("first")
            connection.ping(b"?")
            assert {wire.receive(), wire.receive()} == {(FIN | TEXT, b"first"), (FIN | PING, b"?")}


def test_corks_may_be_nested_and_count_for_all_threads(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        with connection.cork():
            with connection.cork():
                connection.send("one")
            before = connection.progress
            Task(connection.send, "two").result()
            assert connection.progress == before
        assert [wire.receive()[1] for _ in range(2)] == [b"one", b"two"]


def test_what_was_collected_is_sent_when_the_block_raises(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        sending = Task(send_corked, connection, ["collected", None])
        assert isinstance(sending.error(), TypeError)
        assert wire.receive() == (FIN | TEXT, b"collected")
        connection.send("next")
        assert wire.receive() == (FIN | TEXT, b"next")


def test_cork_that_was_forgotten_holds_nothing_back(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        cork = connection.cork()
        cork.__enter__()
        del cork
        gc.collect()
        before = connection.progress
        connection.send("at once")
        assert connection.progress == before + 1
        assert wire.receive() == (FIN | TEXT, b"at once")


def test_end_of_the_block_tells_that_the_connection_is_closed(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        cork = connection.cork()
        cork.__enter__()
        connection.send("lost")
        connection.abort()
        with pytest.raises(ConnectionClosedError):
            cork.__exit__(None, None, None)
        wire.sock.close()


def test_end_of_the_block_waits_for_the_kernel(slow_link):
    with bare_client(slow_link, compression=None, write_limit=2**30) as (wire, connection):
        sending = Task(send_corked, connection, [bytes(1000)] * 8000)
        assert wait_until(lambda: connection.stats()["outbox_bytes"] > 1000)
        assert sending.is_alive()
        for _ in range(8000):
            assert wire.receive() == (FIN | BINARY, bytes(1000))
        sending.result()


def test_many_threads_may_cork_at_once(plain):
    with plain.pair() as (client, server):
        barrier = threading.Barrier(4)

        def send(name):
            barrier.wait(PATIENCE)
            for number in range(20):
                with client.cork():
                    for part in range(5):
                        client.send(f"{name} {number * 5 + part}")

        threads = [Task(send, name) for name in "abcd"]
        received = {name: [] for name in "abcd"}
        for _ in range(400):
            name, number = server.recv(PATIENCE).split()
            received[name].append(int(number))
        for thread in threads:
            thread.result()
        assert received == {name: list(range(100)) for name in "abcd"}


def test_each_of_two_corks_waits_for_what_was_collected(slow_link):
    with bare_client(slow_link, compression=None, write_limit=2**30) as (wire, connection):
        first, second = connection.cork(), connection.cork()
        first.__enter__()
        second.__enter__()
        for _ in range(8000):
            connection.send(bytes(1000))
        ends = [Task(first.__exit__, None, None, None), Task(second.__exit__, None, None, None)]
        assert wait_until(lambda: connection.stats()["outbox_bytes"] > 1000)
        assert all(end.is_alive() for end in ends)
        for _ in range(8000):
            wire.receive()
        for end in ends:
            end.result()


def test_nothing_of_what_was_collected_is_kept(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        send_corked(connection, ["x" * 100] * 100)
        assert not connection._outbox._blocks
        for _ in range(100):
            wire.receive()


def test_broadcast_does_not_wait_for_the_end_of_a_cork(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        with connection.cork():
            assert broadcast([connection], "now") == (1, 0, 0, 0)
            assert wire.receive() == (FIN | TEXT, b"now")


@pytest.mark.parametrize("text", [1, "yes", True])
def test_bytes_are_text_by_truth(plain, text):
    with bare_client(plain, compression=None) as (wire, connection):
        connection.send(b"a", text)
        with connection.cork():
            connection.send(b"b", text)
        assert [wire.receive(), wire.receive()] == [(FIN | TEXT, b"a"), (FIN | TEXT, b"b")]


def test_reads_are_never_larger_than_their_limit(plain):
    with bare_client(plain, compression=None, read_limit=1000) as (wire, connection):
        for _ in range(60):
            wire.send(BINARY, b"small")
            connection.recv(PATIENCE)
        assert connection._read_size <= 1000
