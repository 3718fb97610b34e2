"""Connections through networks that split, trickle, stall, cut and reset."""

from __future__ import annotations

import contextlib
import logging
import random
import socket
import time

import pytest
from chaos_proxy import ChaosProxy, Plan, Route
from conftest import wait_until
from links import PATIENCE, Held, echo
from peers import Task

from syncws import ConnectionClosedError, InvalidHandshake

# Around each boundary of the length field of frames (RFC 6455 §5.2).
SMALL = [0, 1, 2, 124, 125, 126, 127, 128, 300]
SIZES = [*SMALL, 4096, 16383, 16384, 16385, 65535, 65536, 100_000]

# Timeouts here are of 0.4 s at most, defaults of 10 s at least; the stress battery measures better.
SOON = 5.0  # seconds

# More than the kernel's buffers on one side of a proxy that took nothing.
TOO_MUCH = 8 * 1024 * 1024  # bytes

KEEPALIVE = {"ping_interval": 0.1, "ping_timeout": 0.3}


@pytest.fixture(params=["plain", "tls"])
def chaotic(request, plain, tls):
    """The two kinds of link that go over TCP."""
    return {"plain": plain, "tls": tls}[request.param]


@contextlib.contextmanager
def pair_through(link, route, *, client=None, seed=1, buffer=None, **options):
    """A client's connection, the server's, and the proxy between them."""
    held = Held()
    with link.serve(held, **options).start() as server:
        try:
            with ChaosProxy(server.server_address, route, seed=seed, buffer=buffer) as proxy:
                connection = link.connect(proxy, **(client or {}))
                try:
                    yield connection, held.wait(), proxy
                finally:
                    connection.abort()
        finally:
            held.release()


def make_messages(sizes, seed):
    """Text and binary messages of the sizes given, in random order; half of them compress."""
    rng = random.Random(seed)
    messages = []
    for size in rng.sample(sizes, len(sizes)):
        messages.append(bytes(rng.getrandbits(8) for _ in range(size)))
        messages.append("".join(rng.choices("abcdefgh", k=size)))
    return messages


def send_all(connection, messages):
    for message in messages:
        connection.send(message)


def exchange(client, server, sizes):
    """Send messages both ways at once, and check what arrives."""
    up, down = make_messages(sizes, 1), make_messages(sizes, 2)
    sending = [Task(send_all, client, up), Task(send_all, server, down)]
    receiving = Task(lambda: [client.recv(PATIENCE) for _ in down])
    assert [server.recv(PATIENCE) for _ in up] == up
    assert receiving.result() == down
    for task in sending:
        task.result()


def assert_nothing_alarming(caplog):
    """Nothing that a network does is an error of this side, or worth a traceback."""
    bad = [r.getMessage() for r in caplog.records if r.exc_info or r.levelno >= logging.ERROR]
    assert bad == []


@pytest.fixture(autouse=True)
def log(caplog):
    caplog.set_level(logging.DEBUG, "syncws")
    yield
    assert_nothing_alarming(caplog)


# The proxy itself


@contextlib.contextmanager
def bare_sockets(plan, seed=1):
    """Both ends of a TCP connection through a proxy, and its tunnel; ``plan`` is for up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with ChaosProxy(listener.getsockname(), Route(up=plan), seed=seed) as proxy:
            with socket.create_connection(proxy.server_address, PATIENCE) as client:
                server, _ = listener.accept()
                server.settimeout(PATIENCE)
                with server:
                    assert wait_until(lambda: proxy.tunnels)
                    yield client, server, proxy.tunnels[0]


def receive_all(sock):
    data = b""
    while chunk := sock.recv(65536):
        data += chunk
    return data


def test_proxy_forwards_parts_of_the_sizes_asked_for():
    with bare_sockets(Plan(sizes=(1, 5))) as (client, server, tunnel):
        client.sendall(bytes(range(256)))
        client.shutdown(socket.SHUT_WR)
        assert receive_all(server) == bytes(range(256))
        assert 52 <= tunnel.up.parts <= 256


def test_proxy_makes_the_same_parts_with_the_same_seed():
    def count_parts(seed):
        with bare_sockets(Plan(sizes=(1, 50)), seed) as (client, server, tunnel):
            client.sendall(bytes(10_000))
            client.shutdown(socket.SHUT_WR)
            receive_all(server)
            return tunnel.up.parts

    assert count_parts(1) == count_parts(1)
    assert len({count_parts(seed) for seed in range(5)}) > 1


def test_proxy_stops_after_the_byte_asked_for():
    with bare_sockets(Plan(stall_after=10)) as (client, server, tunnel):
        client.sendall(bytes(100))
        assert len(server.recv(100, 0)) <= 10
        server.settimeout(0.1)
        with pytest.raises(socket.timeout):  # the TimeoutError of Python 3.9 is another
            server.recv(100)
        assert tunnel.up.carried == 10


def test_proxy_ends_a_direction_after_the_byte_asked_for():
    with bare_sockets(Plan(end_after=10)) as (client, server, _):
        client.sendall(bytes(100))
        assert receive_all(server) == bytes(10)
        server.sendall(b"the other direction goes on")
        assert client.recv(100) == b"the other direction goes on"


def test_proxy_resets_after_the_byte_asked_for():
    with bare_sockets(Plan(reset_after=10)) as (client, server, _):
        client.sendall(bytes(100))
        assert server.recv(100) == bytes(10)
        for sock in (server, client):
            with pytest.raises(ConnectionResetError):
                sock.recv(100)


# Whole messages, whatever the parts


@pytest.mark.parametrize(
    ("plan", "sizes", "compression"),
    [
        (Plan(sizes=(1, 1)), SMALL, None),
        (Plan(sizes=(1, 1)), SMALL, "deflate"),
        (Plan(sizes=(1, 30), delay=0.0005), SMALL, None),
        (Plan(sizes=(1, 3000)), SIZES, "deflate"),
        (Plan(sizes=(500, 65536), pause=0.01, pause_chance=0.1), SIZES, None),
    ],
    ids=["bytes", "bytes-deflate", "trickle", "parts", "pauses"],
)
def test_messages_arrive_exactly_and_in_order(chaotic, plan, sizes, compression):
    options = {"compression": compression}
    with pair_through(chaotic, Route(plan, plan), client=options, **options) as ends:
        client, server, _ = ends
        exchange(client, server, sizes)
        closing = Task(server.close, 3000, "done")
        with pytest.raises(ConnectionClosedError, match=r"received 3000 .* done; then sent 3000"):
            client.recv(PATIENCE)
        closing.result()
        assert (client.close_code, server.close_code) == (3000, 3000)


# Cut anywhere

# Signatures in TLS handshakes vary in length.
SIGNATURE = 8  # bytes, more than by which two of them differ


@contextlib.contextmanager
def recording_server(link):
    """An echo server, and the close codes of its connections."""
    codes = []

    def echo_and_tell(connection):
        try:
            echo(connection)
        finally:
            connection.wait_closed(PATIENCE)
            codes.append(connection.close_code)

    with link.serve(echo_and_tell, compression=None).start() as server:
        yield server, codes


def talk(connection):
    for message in ("text", bytes(200), "the last"):
        connection.send(message)
        assert connection.recv(PATIENCE) == message


def count_bytes(link, server, direction):
    """Bytes that one direction carries in the opening, and with the messages of talk()."""
    with ChaosProxy(server.server_address) as proxy:
        with link.connect(proxy, compression=None) as client:
            opening = proxy.count(direction)
            talk(client)
            total = proxy.count(direction)
        assert client.close_code == 1000
        return opening, total


def cut_while_talking(link, proxy):
    """Talk through a proxy that cuts the connection; tells whether it was opened before."""
    try:
        client = link.connect(proxy, compression=None)
    except (InvalidHandshake, OSError):  # as connect() documents
        return False
    with client, pytest.raises(ConnectionClosedError, match=r"no close frame received"):
        talk(client)
    assert client.close_code == 1006
    return True


def choose_offsets(opening, total):
    """Bytes to cut after: some of the opening, and each of the frames but those of payloads."""
    few = [0, 1, opening // 2, opening - SIGNATURE, opening - 1]
    return [*few, *range(opening, opening + 18), total - 2 * SIGNATURE, total - SIGNATURE]


@pytest.mark.parametrize("fault", ["reset_after", "end_after"])
@pytest.mark.parametrize("direction", ["up", "down"])
def test_cut_at_any_byte_is_1006_for_both_ends(chaotic, direction, fault):
    with recording_server(chaotic) as (server, codes):
        opening, total = count_bytes(chaotic, server, direction)
        for offset in choose_offsets(opening, total):
            route = Route(**{direction: Plan(**{fault: offset})})
            with ChaosProxy(server.server_address, route) as proxy:
                opened = cut_while_talking(chaotic, proxy)
                assert opened or offset <= opening + SIGNATURE
                assert proxy.count(direction) == offset
        assert wait_until(lambda: server.stats()["total"] == 0)
        assert codes.count(1000) == 1  # of the one that was not cut
        assert set(codes) == {1000, 1006}


# Stopped


@pytest.mark.parametrize("direction", ["up", "down"])
def test_stall_during_the_opening_is_ended_by_open_timeout_of_the_client(chaotic, direction):
    route = Route(**{direction: Plan(stall_after=20)})
    with chaotic.serve(echo).start() as server:
        with ChaosProxy(server.server_address, route) as proxy:
            began = time.monotonic()
            with pytest.raises(TimeoutError, match="timed out during the"):
                chaotic.connect(proxy, open_timeout=0.3)
            assert time.monotonic() - began < SOON


def test_stall_during_the_opening_is_ended_by_open_timeout_of_the_server(chaotic):
    with chaotic.serve(echo, open_timeout=0.3).start() as server:
        with ChaosProxy(server.server_address, Route(up=Plan(stall_after=20))) as proxy:
            began = time.monotonic()
            with pytest.raises((InvalidHandshake, OSError)):  # which end of TCP it sees depends
                chaotic.connect(proxy, open_timeout=PATIENCE)
            assert time.monotonic() - began < SOON
            assert wait_until(lambda: server.stats()["total"] == 0)


def test_stall_is_ended_by_keepalive_on_both_ends(chaotic):
    with pair_through(chaotic, Route(), client=KEEPALIVE, **KEEPALIVE) as (client, server, proxy):
        proxy.stop()
        began = time.monotonic()
        receiving = Task(client.recv)
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            server.recv(PATIENCE)
        with pytest.raises(ConnectionClosedError, match="keepalive ping timeout"):
            receiving.result()
        assert time.monotonic() - began < SOON
        assert (client.close_code, server.close_code) == (1006, 1006)


def test_stall_while_sending_is_ended_by_send_timeout(chaotic):
    options = {"send_timeout": 0.3, "compression": None}
    with pair_through(chaotic, Route(), client=options, buffer=65536, **options) as ends:
        client, server, proxy = ends
        proxy.stop()
        began = time.monotonic()
        sending = [Task(end.send, bytes(TOO_MUCH)) for end in (client, server)]
        for task in sending:
            with pytest.raises(ConnectionClosedError) as caught:
                task.result()
            assert isinstance(caught.value.__cause__, TimeoutError)
        assert time.monotonic() - began < SOON
        assert (client.close_code, server.close_code) == (1006, 1006)


def test_stall_while_closing_is_ended_by_close_timeout(chaotic):
    options = {"close_timeout": 0.3}
    with pair_through(chaotic, Route(), client=options, **options) as (client, server, proxy):
        proxy.stop()
        began = time.monotonic()
        closing = Task(client.close)
        server.close()
        closing.result()
        assert time.monotonic() - began < SOON
        assert (client.close_code, server.close_code) == (1006, 1006)


def test_stall_that_ends_in_time_loses_nothing(chaotic):
    messages = [str(number) for number in range(1000)]
    with pair_through(chaotic, Route()) as (client, server, proxy):
        sending = Task(send_all, client, messages)
        assert server.recv(PATIENCE) == messages[0]
        proxy.stop()
        receiving = Task(lambda: [server.recv(PATIENCE) for _ in messages[1:]])
        with pytest.raises(TimeoutError):
            client.recv(0.1)
        proxy.go_on()
        sending.result()
        assert receiving.result() == messages[1:]
