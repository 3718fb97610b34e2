"""Keepalive: pings at intervals, and what counts as life."""

from __future__ import annotations

import threading
import time

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import CLOSE, FIN, PING, PONG, TEXT, Task, bare_client, bare_server, close_payload

from syncws import ConnectionClosedError

# More than the kernel buffers of both ends of a connection hold.
TOO_MUCH = 16 * 1024 * 1024  # bytes

SHORT = {"ping_interval": 0.1, "ping_timeout": 0.3}

TIMED_OUT = r"^sent 1011 \(internal error\) keepalive ping timeout; no close frame received$"


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "away"])
def test_silent_peer_is_failed_with_1011(slow_link, reading):
    with bare_client(slow_link, **SHORT) as (wire, connection):
        receiving = Task(connection.recv) if reading else None
        assert connection.wait_closed(3)
        with pytest.raises(ConnectionClosedError, match=TIMED_OUT) as caught:
            receiving.result() if reading else connection.recv()
        assert isinstance(caught.value.__cause__, TimeoutError)
        assert str(caught.value.__cause__) == "no sign of life for 0.3s after a ping"
        frames = wire.end()
        assert {head for head, _ in frames[:-1]} == {FIN | PING}
        assert frames[-1] == (FIN | CLOSE, close_payload(1011, "keepalive ping timeout"))


def test_silent_server_is_failed_with_1011():
    with bare_server(**SHORT) as (_, connection):
        with pytest.raises(ConnectionClosedError, match=TIMED_OUT):
            connection.recv(PATIENCE)


def test_silent_peer_that_does_not_read_is_given_up(plain):
    with bare_client(plain, compression=None, send_timeout=None, **SHORT) as (_, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        with pytest.raises(ConnectionClosedError, match=TIMED_OUT):
            sending.result(3)


def test_pings_come_at_intervals_each_with_its_own_data(plain):
    with bare_client(plain, **SHORT) as (wire, connection):
        began = time.monotonic()
        payloads = set()
        for _ in range(5):
            head, payload = wire.receive()
            assert head == FIN | PING
            payloads.add(payload)
            wire.send(PONG, payload)
        assert len(payloads) == 5
        assert 0.4 < time.monotonic() - began < 3
        assert connection.is_open


def test_keepalive_measures_the_latency(slow_link):
    with slow_link.pair(**SHORT) as (client, server):
        assert wait_until(lambda: server.latency > 0)
        assert server.latency < PATIENCE
        assert client.is_open


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "away"])
def test_anything_that_arrives_counts_as_life(plain, reading):
    with bare_client(plain, max_queue=None, **SHORT) as (wire, connection):
        receiving = Task(list, connection) if reading else None
        pause = threading.Event()
        for number in range(25):  # for a second, without a single pong
            wire.send(TEXT, b"%d" % number)
            pause.wait(0.04)
        assert connection.is_open
        wire.send_close(1000)
        received = receiving.result() if reading else list(connection)
        assert received == [str(number) for number in range(25)]


def test_peer_that_takes_a_long_message_slowly_counts_as_alive(plain):
    options = {"compression": None, "ping_interval": 0.1, "ping_timeout": 1}
    with bare_client(plain, **options) as (wire, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        pause = threading.Event()
        began = time.monotonic()
        taken = 0
        while time.monotonic() - began < 1.4:
            taken += len(wire.sock.recv(2**17))
            pause.wait(0.02)  # 6 MB/s: longer than ping_timeout, and never stopped
        assert taken < TOO_MUCH
        assert connection.is_open
        while taken < TOO_MUCH + 10:
            taken += len(wire.sock.recv(TOO_MUCH + 10 - taken))
        sending.result()
        assert connection.is_open


@pytest.mark.parametrize("kind", ["plain", "tls"])
def test_peer_held_back_by_a_full_inbox_counts_as_alive(plain, tls, kind):
    link = {"plain": plain, "tls": tls}[kind]
    with bare_client(link, max_queue=1, **SHORT) as (wire, connection):
        for number in range(10):
            wire.send(TEXT, b"%d" % number)
        # Its pongs wait with the messages: nobody reads them for a second.
        for _ in range(10):
            head, payload = wire.receive()
            assert head == FIN | PING
            wire.send(PONG, payload)
        assert connection.is_open
        assert [connection.recv(PATIENCE) for _ in range(10)] == [str(n) for n in range(10)]


def test_without_a_ping_timeout_a_silent_peer_lives(plain):
    with bare_client(plain, ping_interval=0.05, ping_timeout=None) as (wire, connection):
        for _ in range(10):
            assert wire.receive()[0] == FIN | PING
        assert connection.is_open


def test_without_a_ping_interval_there_are_no_pings(plain):
    with bare_client(plain, ping_interval=None, ping_timeout=0.1) as (wire, connection):
        assert wire.is_silent(0.4)
        assert connection.is_open


def test_keepalive_ends_with_the_closing_handshake(plain):
    with bare_client(plain, **SHORT) as (wire, connection):
        closing = Task(connection.close)
        frames = [wire.receive()]
        while frames[-1][0] != FIN | CLOSE:
            frames.append(wire.receive())
        assert wire.is_silent(0.5)
        wire.send_close(1000)
        assert wire.end() == []
        closing.result()
        assert connection.close_code == 1000


def test_compression_that_is_not_used_for_an_interval_gives_its_memory_back(plain):
    with plain.pair(ping_interval=0.1) as (client, server):
        codec = server._outbound.codec
        server.send("text that repeats " * 100)
        assert client.recv(PATIENCE) == "text that repeats " * 100
        assert wait_until(lambda: codec._deflater is None)
        for _ in range(2):
            server.send("text that repeats " * 100)
            assert client.recv(PATIENCE) == "text that repeats " * 100
