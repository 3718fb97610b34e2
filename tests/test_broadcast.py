"""Broadcasts: what becomes of a message for many, fast and slow."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import socket
import threading
import time

import pytest
from conftest import wait_until
from links import PATIENCE, Held, handshake, masked
from peers import Task, Wire, bare_server

from syncws import (
    BroadcastResult,
    Close,
    ConnectionClosed,
    PerMessageDeflate,
    State,
    broadcast,
)

BUFFER = 4096  # bytes that the kernel keeps for those who do not read, or about so


class Room:
    """A handler that keeps its connections open until they are closed."""

    def __init__(self, connections):
        self._left = connections
        self._full = threading.Event()
        self._lock = threading.Lock()
        self._done = threading.Event()

    def __call__(self, connection):
        with self._lock:
            self._left -= 1
            if not self._left:
                self._full.set()
        self._done.wait(PATIENCE)

    def wait(self):
        assert self._full.wait(PATIENCE)

    def empty(self):
        self._done.set()


@contextlib.contextmanager
def room(link, clients, **options):
    """Yields the server's connections, in the order of the options given for their clients."""
    handler = Room(len(clients))
    with link.serve(handler, **options).start() as server, contextlib.ExitStack() as stack:
        stack.callback(handler.empty)
        connected = []
        for client in clients:
            before = server.connections
            connected.append(stack.enter_context(link.connect(server, **client)))
            assert wait_until(lambda before=before: server.connections - before)
        handler.wait()
        yield connected, server


@contextlib.contextmanager
def stuck(link, **options):
    """A server's connection to a client that does not read, its outbox not empty; and its wire."""
    held = Held()
    options = {"compression": None, "close_timeout": 0.5, **options}
    with link.serve(held, **options).start() as server, contextlib.ExitStack() as stack:
        stack.callback(held.release)
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER)
        with link.socket(server) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            handshake(sock)
            connection = held.wait()
            while broadcast([connection], b"\0" * BUFFER).queued == 0:
                pass
            yield connection, Wire(sock, masks=True)


# Results


@pytest.mark.parametrize(
    ("message", "text", "received"),
    [
        ("hällo", None, "hällo"),
        ("hällo", False, "hällo".encode()),
        (b"bytes", None, b"bytes"),
        (b"bytes", True, "bytes"),
        (bytearray(b"bytes"), None, b"bytes"),
        (memoryview(b"bytes"), False, b"bytes"),
        ("", None, ""),
    ],
)
def test_all_connections_receive_the_message(plain, message, text, received):
    with room(plain, [{}, {}, {}]) as (clients, server):
        assert broadcast(server.connections, message, text) == BroadcastResult(3, 0, 0, 0)
        assert [client.recv(PATIENCE) for client in clients] == [received] * 3


def test_every_transport_carries_it(slow_link):
    with room(slow_link, [{}, {}]) as (clients, server):
        for message in ("short", "long " * 10_000):
            result = broadcast(server.connections, message)
            assert result.sent + result.queued == 2
            assert [client.recv(PATIENCE) for client in clients] == [message] * 2


def test_nobody_is_a_fine_audience():
    assert broadcast([], "hello") == BroadcastResult(0, 0, 0, 0)
    assert broadcast(iter(()), b"hello") == (0, 0, 0, 0)


@pytest.mark.parametrize("message", [None, 1, ["hello"], {"a": "b"}, object()])
def test_other_types_raise(message):
    with pytest.raises(TypeError, match="data must be str or bytes"):
        broadcast([], message)


def test_a_policy_that_there_is_not_raises():
    expected = "on_full must be 'drop', 'close' or 'wait', not 'forget'"
    with pytest.raises(ValueError, match=f"^{expected}$"):
        broadcast([], "hello", on_full="forget")


def test_connections_are_iterated_over_once(plain):
    with room(plain, [{}, {}]) as (clients, server):
        assert broadcast((c for c in server.connections), "hello").sent == 2
        assert [client.recv(PATIENCE) for client in clients] == ["hello"] * 2


def test_closed_connections_are_counted(plain):
    with plain.pair() as (client, connection):
        client.close()
        assert broadcast([connection, client], "hello") == BroadcastResult(0, 0, 0, 2)


def test_connections_that_are_closing_are_counted_as_closed(plain):
    with plain.pair() as (client, connection):
        connection.request_close(Close(1000))
        assert wait_until(lambda: connection.state is not State.OPEN)
        assert broadcast([connection], "hello").closed == 1
        with pytest.raises(ConnectionClosed):
            client.recv()


def test_a_connection_that_breaks_is_counted_as_closed(plain):
    with plain.pair() as (client, connection):
        client.abort()
        assert wait_until(lambda: broadcast([connection], b"x" * 1000).closed == 1)


def test_messages_arrive_in_the_order_of_the_calls(plain):
    with room(plain, [{}, {}], compression=None) as (clients, server):
        for number in range(500):
            broadcast(server.connections, str(number), on_full="wait")
        for client in clients:
            assert [client.recv(PATIENCE) for _ in range(500)] == [str(n) for n in range(500)]


def test_clients_broadcast_with_a_mask_of_their_own(plain):
    with contextlib.ExitStack() as stack:
        one, first = stack.enter_context(bare_server(compression=None))
        other, second = stack.enter_context(bare_server(compression=None))
        assert broadcast([first, second], "hello").sent == 2
        assert one.receive() == other.receive() == (0x81, b"hello")
        # RFC 6455 §5.3: unpredictable; four bytes are equal by chance once in 2**32.
        assert one.key != other.key
        for wire in (one, other):
            wire.send_close(1000)


def test_a_connection_that_sends_fragments_is_left_out(plain, caplog):
    begun, leave = threading.Event(), threading.Event()

    def fragments():
        yield "one"
        begun.set()
        assert leave.wait(PATIENCE)
        yield "two"

    with plain.pair() as (client, connection):
        sender = Task(connection.send, fragments())
        assert begun.wait(PATIENCE)
        for policy in ("drop", "close", "wait"):
            result = broadcast([connection], "hello", on_full=policy)
            assert result == BroadcastResult(0, 0, 1, 0)
        leave.set()
        sender.result()
        assert broadcast([connection], "hello").sent == 1
        assert client.recv(PATIENCE) == "onetwo"
        assert client.recv(PATIENCE) == "hello"
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == ["skipped broadcast: sending a fragmented message"] * 3


# Compression

TEXT = "the quick brown fox jumps over the lazy dog, " * 20


@pytest.mark.parametrize("takeover", [True, False])
def test_compressed_connections_understand_broadcasts_and_what_follows(slow_link, takeover):
    options = {"compression": PerMessageDeflate(server_no_context_takeover=not takeover)}
    with room(slow_link, [{}, {}, {"compression": None}], **options) as (clients, server):
        connections = server.connections
        for number in range(3):
            for connection in connections:
                connection.send(f"{number} {TEXT}")
            assert broadcast(connections, f"to all: {number} {TEXT}").sent == 3
            for client in clients:
                assert client.recv(PATIENCE) == f"{number} {TEXT}"
                assert client.recv(PATIENCE) == f"to all: {number} {TEXT}"


def test_a_broadcast_is_compressed_alike_for_all(plain):
    with plain.serve(room_handler := Room(2)).start() as server, contextlib.ExitStack() as stack:
        stack.callback(room_handler.empty)
        wires = []
        for _ in range(2):
            sock = stack.enter_context(plain.socket(server))
            head = handshake(sock, Sec_WebSocket_Extensions="permessage-deflate")
            assert "permessage-deflate" in head
            wires.append(Wire(sock, masks=True))
        room_handler.wait()
        assert broadcast(server.connections, TEXT).sent == 2
        (one, other) = [wire.receive() for wire in wires]
        assert one == other
        assert one[0] == 0xC1
        assert len(one[1]) < len(TEXT) / 5


def test_short_broadcasts_are_not_compressed(plain):
    held = Held()
    with plain.serve(held).start() as server, plain.socket(server) as sock:
        handshake(sock, Sec_WebSocket_Extensions="permessage-deflate")
        assert broadcast([held.wait()], "hello").sent == 1
        assert Wire(sock, masks=True).receive() == (0x81, b"hello")
        held.release()


def test_a_dropped_broadcast_leaves_the_compression_context_alone(plain):
    with room(plain, [{}], write_limit=0) as (clients, server):
        (connection,) = server.connections
        (client,) = clients
        connection.send(TEXT)
        # Without room for it; then the context of both ends is as it was.
        results = set()
        while "dropped" not in results:
            result = broadcast([connection], os.urandom(65536).hex())
            results |= {name for name, count in result._asdict().items() if count}
        receiver = Task(receive_until, client, "end")
        connection.send(TEXT)
        connection.send("end")
        received = receiver.result()
        assert received[0] == TEXT
        assert received[-1] == TEXT


def receive_until(connection, last):
    received = []
    while (message := connection.recv(PATIENCE)) != last:
        received.append(message)
    return received


# Slow consumers


@pytest.mark.parametrize("kind", ["plain", "tls", "portable", "portable-tls"])
def test_what_the_kernel_does_not_take_is_sent_later_and_whole(plain, tls, kind):
    link = tls if kind.endswith("tls") else plain
    link.portable = kind.startswith("portable")
    with stuck(link) as (connection, wire):
        sent = connection.stats()["messages_sent"]
        assert broadcast([connection], "the last").queued == 1
        for _ in range(sent):
            assert wire.receive() == (0x82, b"\0" * BUFFER)
        assert wire.receive() == (0x81, b"the last")
        assert wait_until(lambda: connection.stats()["outbox_bytes"] == 0)
        assert broadcast([connection], "after").sent == 1
        assert wire.receive() == (0x81, b"after")


def test_it_is_sent_later_and_whole_over_unix_sockets(tmp_path, plain):
    plain.kind = "unix"
    with plain.pair(compression=None, write_limit=2**20) as (client, connection):
        messages = [bytes([number]) * 65536 for number in range(16)]
        results = [broadcast([connection], message) for message in messages]
        assert sum(result.queued for result in results) > 0
        assert [client.recv(PATIENCE) for _ in messages] == messages


@pytest.mark.parametrize("policy", ["drop", "close"])
def test_it_never_blocks_for_clients_that_do_not_read(plain, policy):
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(stuck(plain))[0] for _ in range(3)]
        client, fast = stack.enter_context(plain.pair(compression=None))
        connections = [*slow[:2], fast, slow[2]]
        began = time.monotonic()
        for number in range(50):
            broadcast(connections, b"%06d" % number + bytes(1000), on_full=policy)
            assert client.recv(PATIENCE)[:6] == b"%06d" % number
        assert time.monotonic() - began < 2


def test_over_write_limit_messages_are_dropped(plain):
    with stuck(plain, write_limit=20_000) as (connection, wire):
        results = [broadcast([connection], b"x" * 1000) for _ in range(30)]
        dropped = sum(result.dropped for result in results)
        assert 0 < dropped < 30
        assert all(sum(result) == 1 for result in results)
        assert connection.stats()["outbox_bytes"] <= 20_000
        sent = connection.stats()["messages_sent"]
        frames = [wire.receive() for _ in range(sent)]
        assert sum(frame == (0x82, b"x" * 1000) for frame in frames) == 30 - dropped


def test_one_message_of_any_size_fits_an_empty_outbox(plain):
    with plain.pair(compression=None, write_limit=0) as (client, connection):
        result = broadcast([connection], b"x" * 10_000_00)
        assert result.sent + result.queued == 1
        assert len(client.recv(PATIENCE)) == 10_000_00


def test_the_policy_close_closes_slow_connections(plain):
    with stuck(plain, write_limit=BUFFER, close_timeout=PATIENCE) as (connection, wire):
        result = BroadcastResult(0, 1, 0, 0)
        while result.queued:
            result = broadcast([connection], b"x" * 1000, on_full="close")
        assert result == BroadcastResult(0, 0, 0, 1)
        assert not connection.is_open
        frames = []
        while not frames or frames[-1][0] != 0x88:
            frames.append(wire.receive())
        assert frames[-1] == (0x88, b"\x03\xf0too slow")
        wire.send_close(1008)
        wire.sock.shutdown(socket.SHUT_WR)
        assert connection.wait_closed(PATIENCE)


def test_the_policy_close_ends_connections_that_stay_stuck(plain):
    with stuck(plain, write_limit=BUFFER, close_timeout=0.3) as (connection, _):
        while broadcast([connection], b"x" * 1000, on_full="close").queued:
            pass
        assert connection.wait_closed(PATIENCE)


def test_the_policy_wait_waits_for_room(plain):
    with stuck(plain, write_limit=BUFFER) as (connection, wire):
        while broadcast([connection], b"x" * 1000).queued:
            pass
        waiting = Task(broadcast, [connection], b"awaited", on_full="wait")
        frames = []
        while not frames or frames[-1] != (0x82, b"awaited"):
            frames.append(wire.receive())
        result = waiting.result()
        assert result.sent + result.queued == 1


@pytest.mark.parametrize("compression", [None, PerMessageDeflate(threshold=0)])
def test_the_policy_wait_fails_those_without_progress_after_send_timeout(plain, compression):
    options = {"write_limit": BUFFER, "send_timeout": 0.3}
    with contextlib.ExitStack() as stack:
        slow = [stack.enter_context(stuck(plain, **options))[0] for _ in range(2)]
        client, fast = stack.enter_context(plain.pair())
        # The limit is met to the byte: room for the message, but not for its header too.
        message = bytes(BUFFER - max(c.stats()["outbox_bytes"] for c in slow) % BUFFER)
        cpu, began = time.thread_time(), time.monotonic()
        results = [broadcast([*slow, fast], message, on_full="wait") for _ in range(3)]
        # One timeout for all that are slow, not one each, and not spent in a loop.
        assert time.monotonic() - began < 2
        assert time.thread_time() - cpu < 0.2
        assert [result.sent + result.queued for result in results][-1] == 1
        assert results[-1].closed == 2
        assert [client.recv(PATIENCE) for _ in results] == [message] * 3
        for connection in slow:
            with pytest.raises(ConnectionClosed) as raised:
                connection.send("hello")
            assert "the peer took nothing for 0.3s" in str(raised.value.__cause__)


def test_waiting_for_room_does_not_spin_where_only_the_header_is_in_excess(plain):
    size = 1000
    with stuck(plain, write_limit=0, send_timeout=0.2) as (connection, _):
        # With the outbox at a limit that only this message's header exceeds.
        waiting = int(connection.stats()["outbox_bytes"])
        connection.options = connection.options._replace(write_limit=waiting + size)
        cpu = time.thread_time()
        assert broadcast([connection], bytes(size - 2), on_full="wait").closed == 1
        assert time.thread_time() - cpu < 0.1


def test_the_policy_wait_gives_up_those_that_close(plain):
    with stuck(plain, write_limit=BUFFER) as (connection, _):
        while broadcast([connection], b"x" * 1000).queued:
            pass
        waiting = Task(broadcast, [connection], b"x" * 1000, on_full="wait")
        assert wait_until(lambda: connection._pollers)
        connection.abort()
        assert waiting.result() == BroadcastResult(0, 0, 0, 1)


def test_a_slow_connection_still_answers_and_closes(plain):
    with stuck(plain, close_timeout=PATIENCE) as (connection, wire):
        wire.sock.sendall(masked(0x89, b"ping") + masked(0x88, b"\x03\xe8"))
        assert wait_until(lambda: connection.state is State.CLOSED)
        assert broadcast([connection], "too late").closed == 1
        opcodes = [head for head, _ in wire.receive_all()]
        # The pong goes before what has not begun, the Close frame last.
        assert opcodes[-1] == 0x88
        assert 0x8A in opcodes[:-1]


def receive_many(connection, count):
    return [connection.recv(PATIENCE) for _ in range(count)]


def test_several_threads_may_broadcast(plain):
    with room(plain, [{}, {}], write_limit=2**20) as (clients, server):
        connections = server.connections
        readers = [Task(receive_many, client, 200) for client in clients]
        senders = [
            Task(lambda n=number: [broadcast(connections, f"{n} {i}") for i in range(50)])
            for number in range(4)
        ]
        for sender in senders:
            sender.result()
        for reader in readers:
            received = reader.result()
            for number in range(4):
                mine = [m for m in received if re.match(f"{number} ", m)]
                assert mine == [f"{number} {i}" for i in range(50)]
