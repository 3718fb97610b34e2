"""Connections that are held to a rate limit, and to one for empty fragments."""

from __future__ import annotations

import socket
import time

import pytest
from links import echo
from peers import BINARY, CONT, PING, TEXT, Task, bare_client, repeat

from syncws import ConnectionClosedError, PolicyViolation, RateLimit


def test_a_peer_over_its_rate_is_read_more_slowly(link):
    limit = RateLimit(messages=100, burst=0.1)
    with link.serve(echo, rate_limit=limit).start() as server, link.connect(server) as client:
        began = time.monotonic()
        sending = Task(lambda: [client.send(str(number)) for number in range(50)])
        assert [client.recv(10) for _ in range(50)] == [str(number) for number in range(50)]
        sending.result()
        assert 0.3 < time.monotonic() - began < 5


def test_bytes_count_as_well(plain):
    with plain.serve(echo, rate_limit=RateLimit(bytes=100_000, burst=0.1)).start() as server:
        with plain.connect(server, compression=None) as client:
            began = time.monotonic()
            for _ in range(5):
                client.send(bytes(10_000))
                assert client.recv(10) == bytes(10_000)
            assert time.monotonic() - began > 0.2


def test_an_application_that_is_away_does_not_let_more_in(plain):
    with bare_client(plain, rate_limit=RateLimit(messages=1)) as (wire, connection):
        for _ in range(100):
            wire.send(BINARY, b"x")
        wire.send(PING, b"last")
        assert wire.is_silent(0.3)
        assert connection.stats()["inbox_messages"] <= 2


def test_recv_keeps_its_timeout_while_a_peer_is_held_back(plain):
    with bare_client(plain, rate_limit=RateLimit(messages=0.1)) as (wire, connection):
        for _ in range(3):
            wire.send(BINARY, b"x")
        assert connection.recv(5) == b"x"
        assert connection.recv(5) == b"x"
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            connection.recv(0.1)
        assert time.monotonic() - began < 1


def test_a_connection_that_is_held_back_closes_at_once(plain):
    with bare_client(plain, rate_limit=RateLimit(messages=0.01)) as (wire, connection):
        for _ in range(3):
            wire.send(BINARY, b"x")
        assert [connection.recv(5) for _ in range(2)] == [b"x", b"x"]
        receiving = Task(connection.recv)
        closing = Task(connection.close)
        assert wire.receive() == (0x88, b"\x03\xe8")
        wire.send_close(1000)
        assert wire.end() == []
        closing.result(2)
        receiving.result(2)


def test_it_is_said_once(plain, caplog):
    with plain.serve(echo, rate_limit=RateLimit(messages=100, burst=0.01)).start() as server:
        with plain.connect(server) as client:
            for _ in range(10):
                client.send("x")
            for _ in range(10):
                client.recv(10)
    assert caplog.text.count("over the rate limit: reading no faster than that") == 1


@pytest.mark.parametrize("opcode", [BINARY, PING])
def test_a_peer_over_its_rate_may_be_closed_with_1008(link, opcode):
    limit = RateLimit(messages=5, on_excess="close")
    with bare_client(link, rate_limit=limit) as (wire, connection):
        for _ in range(10):
            wire.send(opcode, b"x")
        with pytest.raises(ConnectionClosedError) as caught:
            repeat(lambda: connection.recv(10))
        assert (caught.value.sent.code, caught.value.sent.reason) == (1008, "over the rate limit")
        assert type(caught.value.__cause__) is PolicyViolation
        assert wire.end()[-1] == (0x88, b"\x03\xf0over the rate limit")


def test_what_came_before_is_delivered(plain):
    limit = RateLimit(messages=5, on_excess="close")
    with bare_client(plain, rate_limit=limit) as (wire, connection):
        wire.sock.sendall(b"\x82\x81\x00\x00\x00\x00x" * 10)
        assert [connection.recv(10) for _ in range(6)] == [b"x"] * 6
        with pytest.raises(ConnectionClosedError):
            connection.recv(10)


def test_messages_of_empty_fragments_are_closed_with_1008(link):
    with bare_client(link, max_empty_fragments=10) as (wire, connection):
        wire.send(TEXT, fin=0)
        for _ in range(10):
            wire.send(CONT, fin=0)
        with pytest.raises(ConnectionClosedError) as caught:
            connection.recv(10)
        assert caught.value.sent.code == 1008
        assert caught.value.sent.reason == "over 10 empty fragments in a message"
        wire.end()


def test_pings_are_answered_no_faster_than_the_rate(plain):
    with bare_client(plain, rate_limit=RateLimit(messages=50)) as (wire, connection):
        receiving = Task(connection.recv, 1)
        wire.sock.sendall(b"\x89\x80\x00\x00\x00\x00" * 1000)
        assert type(receiving.error()) is TimeoutError
        wire.sock.settimeout(0.1)
        pongs = len(read_all_now(wire.sock)) / 2
        assert 50 <= pongs <= 150


def read_all_now(sock):
    """What has arrived."""
    data = b""
    try:
        while chunk := sock.recv(65536):
            data += chunk
    except socket.timeout:  # the TimeoutError of Python 3.9 is another
        pass
    return data


def test_a_message_that_fills_the_inbox_is_no_excuse(plain):
    limit = RateLimit(messages=3, on_excess="close")
    with bare_client(plain, rate_limit=limit, max_queue=4) as (wire, connection):
        for _ in range(5):
            wire.send(BINARY, b"x")
        connection.answer_time = 0.1
        assert wire.end()[-1] == (0x88, b"\x03\xf0over the rate limit")
