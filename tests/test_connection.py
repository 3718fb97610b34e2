"""Connections as RFC 6455 has them: control frames, the closing handshake, violations."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import select
import socket
import threading
import weakref

import pytest
from conftest import wait_until
from links import PATIENCE, Held, handshake
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
    Wire,
    bare_client,
    bare_server,
    close_payload,
    frame,
    repeat,
)

from syncws import ConcurrencyError, ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from syncws.opcodes import State
from syncws.permessage_deflate import DeflateCodec

# More than the kernel buffers of both ends of a connection hold.
TOO_MUCH = 16 * 1024 * 1024  # bytes


# Sending (RFC 6455 §5.1, §5.3, §5.4, §6.1)


@pytest.mark.parametrize(
    "call",
    [
        lambda connection: connection.send("early"),
        lambda connection: connection.send(["early"]),
        lambda connection: connection.ping(),
        lambda connection: connection.recv(),
        lambda connection: connection.recv(0),
        lambda connection: next(connection.recv_streaming()),
        lambda connection: connection.close(),
    ],
    ids=["send", "send fragments", "ping", "recv", "recv(0)", "recv_streaming", "close"],
)
def test_send_before_the_handshake_is_refused(plain, call):
    errors = []

    def process_request(connection, request):
        assert connection.state is State.CONNECTING
        with pytest.raises(RuntimeError) as caught:
            call(connection)
        errors.append(str(caught.value))

    with bare_client(plain, process_request=process_request) as (wire, connection):
        assert errors == ["the opening handshake is not complete"]
        connection.send("in time")
        assert wire.receive() == (FIN | TEXT, b"in time")


def test_nothing_but_pongs_is_sent_after_a_close_frame(plain):
    with bare_client(plain) as (wire, connection):
        closing = Task(connection.close)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        sending = [Task(connection.send, "late"), Task(connection.ping), Task(connection.pong)]
        wire.send(PING, b"late")
        wire.send_close(1000)
        # RFC 6455 §5.5.2: pings are answered until a Close frame is received.
        assert wire.end() == [(FIN | PONG, b"late")]
        closing.result()
        for task in sending:
            assert isinstance(task.error(), ConnectionClosedOK)


def test_client_masks_with_random_keys():
    with bare_server() as (wire, connection):
        keys = set()
        for _ in range(8):
            connection.send("same")
            assert wire.receive() == (FIN | TEXT, b"same")
            keys.add(wire.key)
        assert len(keys) == 8


def test_iterable_is_sent_as_one_fragmented_message(plain):
    with bare_client(plain) as (wire, connection):
        connection.send(["one", "", "two"])
        assert [wire.receive() for _ in range(4)] == [
            (TEXT, b"one"),
            (CONT, b""),
            (CONT, b"two"),
            (FIN | CONT, b""),
        ]


def test_message_of_another_thread_is_refused_within_a_fragmented_message(plain):
    with bare_client(plain) as (wire, connection):
        middle, go_on = threading.Event(), threading.Event()

        def fragments():
            yield "one"
            middle.set()
            assert go_on.wait(PATIENCE)
            yield "two"

        sending = Task(connection.send, fragments())
        assert middle.wait(PATIENCE)
        text = r"^cannot call send while another thread is already running send$"
        with pytest.raises(ConcurrencyError, match=text):
            connection.send("mixed in")
        with pytest.raises(ConcurrencyError, match=text):
            connection.send(["mixed in"])
        connection.ping("between")
        go_on.set()
        sending.result()
        assert [wire.receive() for _ in range(4)] == [
            (TEXT, b"one"),
            (FIN | PING, b"between"),
            (CONT, b"two"),
            (FIN | CONT, b""),
        ]
        connection.send("after")
        assert wire.receive() == (FIN | TEXT, b"after")


def test_messages_of_many_threads_are_neither_torn_nor_mixed(link):
    senders, count = 8, 25
    with link.pair() as (client, server):

        def send(sender):
            for number in range(count):
                body = os.urandom((sender + number) * 613 % 20_000)
                head = f"{sender} {number} {hashlib.sha256(body).hexdigest()} ".encode()
                server.send(head + body)

        tasks = [Task(send, sender) for sender in range(senders)]
        numbers = {sender: [] for sender in range(senders)}
        for _ in range(senders * count):
            sender, number, digest, body = client.recv(PATIENCE).split(b" ", 3)
            assert hashlib.sha256(body).hexdigest().encode() == digest
            numbers[int(sender)].append(int(number))
        for task in tasks:
            task.result()
        assert numbers == {sender: list(range(count)) for sender in range(senders)}


def test_send_on_a_closed_connection_raises(plain):
    with plain.pair() as (client, server):
        client.close(4000, "enough")
        text = r"sent 4000 \(private use\) enough; then received 4000 \(private use\) enough"
        for call in (client.send, client.ping, client.pong):
            with pytest.raises(ConnectionClosedError, match=f"^{text}$"):
                call("late")
        text = r"received 4000 \(private use\) enough; then sent 4000 \(private use\) enough"
        for call in (server.send, server.ping, server.pong):
            with pytest.raises(ConnectionClosedError, match=f"^{text}$"):
                call("late")


def test_send_that_waits_is_woken_by_close(slow_link):
    with bare_client(slow_link, close_timeout=0.3, compression=None) as (_, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        assert wait_until(lambda: connection.stats()["outbox_bytes"])
        connection.close()
        with pytest.raises(ConnectionClosedError, match=r"^sent 1000 \(OK\); no close frame rec"):
            sending.result()


# Control frames (RFC 6455 §5.4, §5.5.2, §5.5.3)


def test_ping_between_fragments_is_answered_at_once(plain):
    with bare_client(plain) as (wire, connection):
        receiving = Task(connection.recv)
        wire.send(TEXT, b"one ", fin=0)
        wire.send(PING, b"between")
        assert wire.receive() == (FIN | PONG, b"between")
        wire.send(CONT, b"two")
        assert receiving.result() == "one two"


def test_ping_over_125_bytes_is_refused(plain):
    with plain.pair() as (client, _):
        for call in (client.ping, client.pong):
            with pytest.raises(
                ValueError, match=r"^a ping or pong has at most 125 bytes, not 126$"
            ):
                call(b"x" * 126)
            with pytest.raises(
                ValueError, match=r"^a ping or pong has at most 125 bytes, not 126$"
            ):
                call("é" * 63)
        assert client.ping(b"x" * 125).wait(PATIENCE)


@pytest.mark.parametrize("payload", [b"", b"Hello", bytes(125)], ids=["empty", "short", "longest"])
def test_ping_is_answered_with_pong(link, payload):
    with bare_client(link) as (wire, connection):
        receiving = Task(connection.recv)
        wire.send(PING, payload)
        assert wire.receive() == (FIN | PONG, payload)
        wire.send(TEXT, b"done")
        assert receiving.result() == "done"


def test_ping_is_answered_while_the_application_is_away(slow_link):
    with bare_client(slow_link) as (wire, _):
        wire.send(PING, b"anybody?")
        assert wire.receive() == (FIN | PONG, b"anybody?")


def test_ping_after_a_close_frame_is_not_answered(plain):
    with bare_client(plain) as (wire, _):
        wire.sock.sendall(
            frame(FIN | CLOSE, close_payload(1000), masked=True)
            + frame(FIN | PING, b"late", masked=True)
        )
        assert wire.receive_all() == [(FIN | CLOSE, close_payload(1000))]


def test_newest_pong_replaces_one_that_waits(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        assert wait_until(lambda: connection.stats()["outbox_bytes"])
        pings = b"".join(frame(FIN | PING, b"%d" % number, masked=True) for number in range(100))
        wire.sock.sendall(pings)

        def last_is_decoded():
            pong = connection._outbox.pong
            return pong is not None and pong.buffers[-1] == b"99"

        assert wait_until(last_is_decoded)
        assert wire.receive() == (FIN | BINARY, bytes(TOO_MUCH))
        assert wire.receive() == (FIN | PONG, b"99")
        sending.result()
        connection.send("next")
        assert wire.receive() == (FIN | TEXT, b"next")


def test_pong_to_the_latest_ping_acknowledges_those_before_it(plain):
    with bare_client(plain) as (wire, connection):
        waiters = [connection.ping(str(number)) for number in range(3)]
        wire.send(PONG, b"1")
        assert waiters[0].wait(PATIENCE)
        assert waiters[1].wait(PATIENCE)
        assert not waiters[2].is_set()
        wire.send(PONG, b"2")
        assert waiters[2].wait(PATIENCE)


def test_pong_that_was_not_asked_for_is_ignored(plain):
    with bare_client(plain) as (wire, connection):
        waiter = connection.ping("asked")
        assert wire.receive() == (FIN | PING, b"asked")
        wire.send(PONG, b"unasked")
        wire.send(TEXT, b"next")
        assert connection.recv(PATIENCE) == "next"
        assert not waiter.is_set()
        assert connection.latency == 0.0
        connection.send("nothing before this")
        assert wire.receive() == (FIN | TEXT, b"nothing before this")


# The closing handshake (RFC 6455 §5.5.1, §7.1)


def test_close_frame_is_answered(link):
    with bare_client(link) as (wire, connection):
        receiving = Task(connection.recv)
        wire.send_close(4001, "bye")
        assert wire.receive() == (FIN | CLOSE, close_payload(4001, "bye"))
        text = r"^received 4001 \(private use\) bye; then sent 4001 \(private use\) bye$"
        with pytest.raises(ConnectionClosedError, match=text):
            receiving.result()


def test_close_frame_is_answered_while_the_application_is_away(slow_link):
    with bare_client(slow_link) as (wire, _):
        wire.send_close(1001)
        assert wire.receive_all() == [(FIN | CLOSE, close_payload(1001))]


def test_close_frame_without_a_code_is_answered_without_one(plain):
    with bare_client(plain) as (wire, connection):
        wire.send(CLOSE)
        assert wire.receive_all() == [(FIN | CLOSE, b"")]
        with pytest.raises(ConnectionClosedOK, match=r"^received 1005 \(no status received \["):
            connection.recv(PATIENCE)


def test_close_sends_code_and_reason(link):
    with bare_client(link) as (wire, connection):
        closing = Task(connection.close, 4002, "naïve")
        assert wire.receive() == (FIN | CLOSE, close_payload(4002, "naïve"))
        wire.send_close(4002)
        assert wire.end() == []
        closing.result()


def test_both_ends_may_close_at_the_same_time(plain):
    with bare_client(plain) as (wire, connection):
        closing = Task(connection.close, 4000)
        wire.send_close(4001)
        assert wire.end() in ([(FIN | CLOSE, close_payload(code))] for code in (4000, 4001))
        closing.result()
        assert connection.close_code == 4001


def test_close_frames_that_cross_are_told_apart(plain):
    with bare_client(plain) as (wire, connection):
        closing = Task(connection.close, 4000)
        assert wire.receive() == (FIN | CLOSE, close_payload(4000))
        wire.send_close(4001)
        assert wire.end() == []
        closing.result()
        text = r"^sent 4000 \(private use\); then received 4001 \(private use\)$"
        with pytest.raises(ConnectionClosedError, match=text):
            connection.recv()


def test_tcp_connection_ends_after_the_closing_handshake(slow_link):
    with slow_link.pair() as (client, server):
        client.close()
        assert server.wait_closed(PATIENCE)
        assert client.wait_closed(PATIENCE)
        assert wait_until(lambda: client.fileno() == server.fileno() == -1)


def test_server_ends_the_tcp_connection_first(slow_link):
    with bare_client(slow_link) as (wire, _):
        wire.send_close(1000)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        assert wire.receive() is None


def test_client_waits_for_the_server_to_end_the_tcp_connection():
    with bare_server() as (wire, connection):
        closing = Task(connection.close)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        wire.send_close(1000)
        assert wire.is_silent()
        assert closing.is_alive()
        wire.sock.shutdown(socket.SHUT_WR)
        closing.result()
        assert wire.receive() is None


def test_tcp_connection_is_half_closed_and_drained(plain):
    with bare_client(plain) as (wire, connection):
        wire.send_close(1000)
        assert wire.receive_all() == [(FIN | CLOSE, close_payload(1000))]
        # Only half of it has ended: a reset would make one of these fail.
        for _ in range(64):
            wire.sock.sendall(bytes(65536))
        assert not connection.is_gone
        wire.sock.shutdown(socket.SHUT_WR)
        assert connection.wait_closed(PATIENCE)


@pytest.mark.parametrize("kind", ["tls", "portable-tls"])
@pytest.mark.parametrize("closes_first", ["server", "client"])
def test_tls_is_closed_cleanly(tls, kind, closes_first):
    tls.portable = kind == "portable-tls"
    with bare_client(tls) as (wire, connection):
        wire.sock.suppress_ragged_eofs = False
        closing = Task(connection.close) if closes_first == "server" else None
        if closing is not None:
            assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        wire.send_close(1000)
        if closing is None:
            assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        assert wire.receive() is None  # ssl.SSLEOFError without close_notify
        wire.sock.unwrap()
        wire.sock.close()
        assert connection.wait_closed(PATIENCE)


def test_close_returns_within_its_timeout_though_the_peer_is_silent(slow_link):
    with bare_client(slow_link, close_timeout=0.3) as (wire, connection):
        closing = Task(connection.close, 4000)
        assert wire.receive() == (FIN | CLOSE, close_payload(4000))
        closing.result(2)
        assert connection.is_gone
        with pytest.raises(ConnectionClosedError, match=r"; no close frame received$") as caught:
            connection.recv()
        assert isinstance(caught.value.__cause__, TimeoutError)


def test_close_code_is_the_one_received(plain):
    with plain.pair() as (client, server):
        assert client.close_code is None
        server.close(4003)
        assert client.wait_closed(PATIENCE)
        assert (client.close_code, server.close_code) == (4003, 4003)


def test_close_reason_is_the_one_received(plain):
    with bare_client(plain) as (wire, connection):
        assert connection.close_reason is None
        closing = Task(connection.close, 1000, "ours")
        assert wire.receive() == (FIN | CLOSE, close_payload(1000, "ours"))
        wire.send_close(1000, "theirs")
        assert wire.end() == []
        closing.result()
        assert connection.close_reason == "theirs"


def test_close_code_is_1005_without_a_code(plain):
    with bare_client(plain) as (wire, connection):
        wire.send(CLOSE)
        assert wire.end() == [(FIN | CLOSE, b"")]
        assert connection.wait_closed(PATIENCE)
        assert connection.close_code == 1005
        assert connection.close_reason == ""


def test_close_code_is_1006_without_a_close_frame(link):
    with bare_client(link) as (wire, connection):
        receiving = Task(connection.recv)
        wire.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            receiving.result()
        assert connection.close_code == 1006
        assert connection.close_reason == ""


# Violations (RFC 6455 §7.1.7, §7.4.1)

VIOLATIONS = {
    "reserved opcode": (frame(FIN | 0x3, b"", masked=True), 1002),
    "reserved bit": (frame(FIN | 0x20 | TEXT, b"", masked=True), 1002),
    "not masked": (frame(FIN | TEXT, b""), 1002),
    "continuation": (frame(FIN | CONT, b"", masked=True), 1002),
    "not UTF-8": (frame(FIN | TEXT, b"\xff", masked=True), 1007),
    "too big": (frame(FIN | BINARY, bytes(1001), masked=True), 1009),
}


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("reading", [True, False], ids=["reading", "away"])
def test_violation_is_answered_with_its_close_code(plain, name, reading):
    data, code = VIOLATIONS[name]
    with bare_client(plain, max_size=1000) as (wire, connection):
        receiving = Task(connection.recv) if reading else None
        wire.sock.sendall(data)
        head, payload = wire.receive()
        assert head == FIN | CLOSE
        assert int.from_bytes(payload[:2], "big") == code
        assert wire.receive() is None
        if receiving is not None:
            assert isinstance(receiving.error(), ConnectionClosedError)
        with pytest.raises(ConnectionClosedError) as caught:
            connection.recv(PATIENCE)
        assert caught.value.sent.code == code
        assert caught.value.rcvd is None
        assert caught.value.__cause__ is not None


def test_tcp_connection_ends_after_a_violation(slow_link):
    with bare_client(slow_link, close_timeout=0.3) as (wire, connection):
        wire.sock.sendall(frame(FIN | 0x3, b"", masked=True))
        head, _ = wire.receive()
        assert head == FIN | CLOSE
        assert wire.receive() is None
        # The peer neither answers nor ends its half.
        assert connection.wait_closed(PATIENCE)


def test_message_over_max_size_closes_with_1009(plain):
    with bare_client(plain, max_size=1000) as (wire, connection):
        wire.send(BINARY, bytes(1000))
        assert connection.recv(PATIENCE) == bytes(1000)
        wire.send(BINARY, bytes(600), fin=0)
        wire.send(CONT, bytes(401))
        text = "frame with 401 bytes after reading 600 bytes exceeds limit of 1000 bytes (max_size)"
        with pytest.raises(ConnectionClosedError, match=f"^sent 1009 .*{re.escape(text)};"):
            connection.recv(PATIENCE)
        assert wire.receive_all() == [(FIN | CLOSE, close_payload(1009, text))]


@pytest.mark.parametrize("name", VIOLATIONS)
@pytest.mark.parametrize("reading", [True, False], ids=["reading", "read ahead"])
def test_messages_before_a_violation_are_delivered_and_answered_first(plain, name, reading):
    data, code = VIOLATIONS[name]
    with bare_client(plain, max_size=1000) as (wire, connection):
        messages = b"".join(frame(FIN | TEXT, b"%d" % number, masked=True) for number in range(3))
        wire.sock.sendall(messages + data)
        if not reading:
            assert wait_until(lambda: connection.stats()["inbox_messages"] == 3)
        with pytest.raises(ConnectionClosed):
            repeat(lambda: connection.send(connection.recv(PATIENCE)))
        received = wire.receive_all()
        assert received[:3] == [(FIN | TEXT, b"%d" % number) for number in range(3)]
        assert received[3][0] == FIN | CLOSE
        assert int.from_bytes(received[3][1][:2], "big") == code
        assert len(received) == 4


def test_peer_that_misbehaves_after_our_close_frame_is_cut_off(plain):
    with bare_client(plain) as (wire, connection):
        closing = Task(connection.close, 4000)
        assert wire.receive() == (FIN | CLOSE, close_payload(4000))
        wire.sock.sendall(frame(FIN | 0x3, b"", masked=True))
        assert wire.end() == []
        closing.result()
        text = r"^sent 4000 \(private use\); no close frame received$"
        with pytest.raises(ConnectionClosedError, match=text):
            connection.recv()


# What a connection tells about itself


def test_state_follows_the_connection(plain):
    states = []

    def process_request(connection, request):
        states.append(connection.state)

    with bare_client(plain, process_request=process_request) as (wire, connection):
        states.append(connection.state)
        closing = Task(connection.close)
        wire.receive()
        states.append(connection.state)
        wire.send_close(1000)
        assert wire.end() == []
        closing.result()
        states.append(connection.state)
    assert states == [State.CONNECTING, State.OPEN, State.CLOSING, State.CLOSED]


def test_addresses_are_those_of_the_socket(plain):
    with plain.pair() as (client, server):
        assert client.local_address == server.remote_address
        assert server.local_address == client.remote_address
        client.close()
        assert client.local_address is None
        assert client.remote_address[0] == "127.0.0.1"


def test_connections_have_unique_identifiers(plain):
    with plain.pair() as (client, server):
        assert client.id != server.id
        assert repr(client) == f"<ClientConnection {client.id} OPEN>"
        assert repr(server) == f"<ServerConnection {server.id} OPEN>"


def test_threads_that_ask_at_once_see_the_same_identifier(plain):
    with plain.pair() as (_, server):
        start = threading.Barrier(4)

        def ask():
            start.wait(PATIENCE)
            return server.id

        tasks = [Task(ask) for _ in range(4)]
        assert len({task.result() for task in tasks}) == 1


def test_stats_count_messages_and_bytes(plain):
    with bare_client(plain) as (wire, connection):
        before = connection.stats()
        connection.send(b"four")
        connection.send([b"one", b"two"])
        wire.send(TEXT, b"five!")
        assert connection.recv(PATIENCE) == "five!"
        after = connection.stats()
    changes = {name: after[name] - before[name] for name in after if after[name] != before[name]}
    assert changes == {
        "messages_sent": 2,
        "bytes_sent": 2 + 4 + 2 + 3 + 2 + 3 + 2,
        "messages_received": 1,
        "bytes_received": 2 + 4 + 5,
    }


def test_context_manager_closes_with_1000(plain):
    held = Held()
    with plain.serve(held).start() as server:
        with plain.connect(server) as client:
            held.wait()
            held.release()
        assert client.is_gone
        assert client.close_code == 1000


def test_context_manager_closes_with_1011_when_the_block_raises(plain):
    closed = []

    def handler(connection):
        with pytest.raises(ConnectionClosedError) as caught:
            connection.recv(PATIENCE)
        closed.append(caught.value.rcvd.code)

    with plain.serve(handler).start() as server:
        with pytest.raises(ZeroDivisionError), plain.connect(server) as client:
            1 / 0  # noqa: B018 # what an application might do
        assert client.is_gone
    assert closed == [1011]


def test_frames_that_come_with_the_handshake_are_not_lost(plain):
    held = Held()
    with plain.serve(held).start() as server, plain.socket(server) as sock:
        request = (
            "GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        sock.sendall(request.encode() + frame(FIN | TEXT, b"at once", masked=True))
        assert held.wait().recv(PATIENCE) == "at once"
        sock.close()
        held.release()


def test_ready_descriptor_is_that_of_the_connection(plain):
    held = Held()
    with plain.serve(held).start() as server, plain.socket(server) as sock:
        handshake(sock)
        wire, connection = Wire(sock, masks=True), held.wait()
        receiving = Task(connection.recv)
        wire.send(TEXT, b"x")
        assert receiving.result() == "x"
        assert select.select([], [connection], [], 0)[1] == [connection]
        sock.close()
        held.release()


def test_a_connection_that_was_failed_needs_no_garbage_collector(plain):
    bomb = DeflateCodec().deflate(bytes(1_000_000), True)
    offer = {"Sec_WebSocket_Extensions": "permessage-deflate"}
    gc.disable()
    try:
        with bare_client(plain, headers=offer, max_size=1000) as (wire, connection):
            reference = weakref.ref(connection)
            wire.send(BINARY, bomb, fin=FIN | RSV1)
            with pytest.raises(ConnectionClosedError, match="1009"):
                connection.recv(PATIENCE)
            del connection
            wire.end()
        assert wait_until(lambda: reference() is None)
    finally:
        gc.enable()
