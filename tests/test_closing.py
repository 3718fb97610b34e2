"""Closing: by either end, by any thread, gracefully or not, and what is told about it."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import (
    BINARY,
    CLOSE,
    FIN,
    PING,
    TEXT,
    Task,
    bare_client,
    bare_server,
    close_payload,
    frame,
    repeat,
)

from syncws import ConnectionClosedError, ConnectionClosedOK, ProtocolError

# More than the kernel buffers of both ends of a connection hold.
TOO_MUCH = 16 * 1024 * 1024  # bytes


@pytest.mark.parametrize("closes", ["client", "server"])
def test_both_ends_tell_who_closed_and_why(link, closes):
    with link.pair() as (client, server):
        first, second = (client, server) if closes == "client" else (server, client)
        receiving = Task(second.recv)
        first.close(1001, "lunch")
        text = r"^sent 1001 \(going away\) lunch; then received 1001 \(going away\) lunch$"
        with pytest.raises(ConnectionClosedOK, match=text):
            first.recv()
        text = r"^received 1001 \(going away\) lunch; then sent 1001 \(going away\) lunch$"
        with pytest.raises(ConnectionClosedOK, match=text):
            receiving.result()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("bye",), r"^a close code is an int, not 'bye'; write close\(1000, 'reason'\)$"),
        ((1000.0, "bye"), r"^a close code is an int, not 1000.0; "),
        ((1000, b"bye"), r"^a close reason is a str, not b'bye'$"),
    ],
)
def test_what_is_no_code_or_no_reason_is_refused(plain, arguments, text):
    with plain.pair() as (client, server):
        for end in (client, server, server.server):
            with pytest.raises(TypeError, match=text):
                end.close(**dict(zip(("code", "reason"), arguments)))
        assert client.is_open


@pytest.mark.parametrize("head", [FIN | PING, FIN | BINARY, BINARY], ids=["pings", "empty", "odd"])
@pytest.mark.parametrize("calls", ["close", "close, recv"])
def test_close_ends_in_time_although_the_peer_never_stops_sending(plain, head, calls):
    """What it sends is read faster than it is decoded, so that there is always more."""
    options = {"close_timeout": 0.1, "ping_interval": None, "compression": None}
    with bare_client(plain, **options) as (wire, connection):
        data = frame(head, b"", masked=True) * 200_000
        sending = Task(lambda: repeat(lambda: wire.sock.sendall(data)))
        receiving = Task(list, connection) if calls == "close, recv" else None
        assert wait_until(lambda: connection.stats()["bytes_received"])
        began = time.monotonic()
        connection.close()
        assert time.monotonic() - began < 0.1 + 1
        assert connection.is_gone
        with contextlib.suppress(OSError):
            wire.sock.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            sending.result()
        if receiving is not None:
            with contextlib.suppress(ConnectionClosedError):
                receiving.result()


def test_close_may_be_called_again(plain):
    with plain.pair() as (client, server):
        client.close(4000)
        client.close(4001)
        server.close(4002)
        client.close()
        assert (client.close_code, server.close_code) == (4000, 4000)


def test_close_may_be_called_by_many_threads_at_once(link):
    with link.pair() as (client, server):
        tasks = [Task(end.close, 4000 + number) for number in range(4) for end in (client, server)]
        for task in tasks:
            task.result()
        assert client.is_gone
        assert server.is_gone


@pytest.mark.parametrize("code", [999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 70_000, -1])
def test_code_that_must_not_be_sent_is_refused(plain, code):
    with plain.pair() as (client, server):
        with pytest.raises(ProtocolError):
            client.close(code)
        client.send("still open")
        assert server.recv(PATIENCE) == "still open"


def test_reason_that_is_too_long_is_refused(plain):
    with plain.pair() as (client, server):
        with pytest.raises(ProtocolError):
            client.close(1000, "é" * 62)
        assert client.is_open
        client.close(1000, "é" * 61)
        assert wait_until(lambda: server.close_reason == "é" * 61)


@pytest.mark.parametrize("ends", ["closes", "aborts"])
def test_end_by_this_end_wakes_its_threads(slow_link, ends):
    with bare_client(slow_link, close_timeout=0.3, compression=None) as (_, connection):
        pong = connection.ping()
        receiving = [Task(connection.recv), Task(connection.recv, 30), Task(list, connection)]
        sending = [Task(connection.send, bytes(TOO_MUCH)), Task(connection.send, ["a", "b"])]
        waiting = [Task(connection.wait_closed, PATIENCE), Task(pong.wait, PATIENCE)]
        assert wait_until(
            lambda: connection._reader.locked() and connection.stats()["outbox_bytes"]
        )
        if ends == "closes":
            connection.close()
        else:
            connection.abort()
        for task in receiving:
            assert isinstance(task.error(2), ConnectionClosedError)
        assert isinstance(sending[0].error(2), ConnectionClosedError)
        sending[1].error(2)
        assert waiting[0].result(2)
        assert not waiting[1].result(2)


def test_wait_closed_is_bounded(plain):
    with plain.pair() as (client, server):
        assert not server.wait_closed(0)
        assert not server.wait_closed(0.05)
        client.close()
        assert server.wait_closed(PATIENCE)
        assert server.wait_closed()
        assert client.wait_closed(0)


def test_abort_ends_both_ends_at_once(link):
    with link.pair() as (client, server):
        receiving = Task(server.recv)
        began = time.monotonic()
        client.abort()
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            receiving.result()
        with pytest.raises(
            ConnectionClosedError, match=r"^no close frame received or sent$"
        ) as caught:
            client.recv()
        assert isinstance(caught.value.__cause__, ConnectionAbortedError)
        assert client.wait_closed(PATIENCE)
        client.abort()
        client.close()
        assert time.monotonic() - began < 2


def test_peer_that_floods_cannot_keep_close_from_returning(slow_link):
    with bare_client(slow_link, close_timeout=0.3, ping_interval=None) as (wire, connection):
        stop = threading.Event()

        def flood():
            data = frame(FIN | BINARY, bytes(1000), masked=True) * 64
            try:
                while not stop.is_set():
                    wire.sock.sendall(data)
            except OSError:
                return

        flooding = Task(flood)
        began = time.monotonic()
        connection.close()
        assert time.monotonic() - began < 2
        assert connection.is_gone
        stop.set()
        # A kernel that waits for room tells of the end only when it tries again.
        wire.hang_up()
        flooding.result()


def test_peer_that_floods_after_the_closing_handshake_is_cut_off(plain):
    with bare_client(plain, close_timeout=0.3) as (wire, connection):
        wire.send_close(1000)
        assert wire.receive_all() == [(FIN | CLOSE, close_payload(1000))]

        def flood():
            with pytest.raises(OSError):  # noqa: PT011 # reset or broken pipe, as it happens
                repeat(lambda: wire.sock.sendall(bytes(65536)))

        flooding = Task(flood)
        assert connection.wait_closed(3)
        wire.hang_up()
        flooding.result()


def test_peer_that_only_half_closes_is_gone(link):
    with bare_client(link) as (wire, connection):
        receiving = Task(connection.recv)
        if link.secure:
            wire.sock._sslobj = None  # the socket underneath, without close_notify
        wire.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            receiving.result()


@pytest.mark.parametrize("reading", [True, False], ids=["reading", "away"])
def test_reset_ends_the_connection(plain, reading):
    with bare_client(plain) as (wire, connection):
        receiving = Task(connection.recv) if reading else None
        wire.reset()
        assert connection.wait_closed(PATIENCE)
        with pytest.raises(
            ConnectionClosedError, match=r"^no close frame received or sent$"
        ) as caught:
            receiving.result() if receiving else connection.recv()
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert connection.close_code == 1006


@pytest.mark.parametrize("kind", ["tls", "portable-tls"])
def test_end_of_tls_without_close_notify_ends_the_connection(tls, kind):
    tls.portable = kind == "portable-tls"
    with bare_client(tls) as (wire, connection):
        receiving = Task(connection.recv)
        with socket.socket(fileno=wire.sock.detach()) as sock:
            sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            receiving.result()


def test_garbage_instead_of_tls_ends_the_connection(tls):
    with bare_client(tls) as (wire, connection):
        receiving = Task(connection.recv)
        with socket.socket(fileno=wire.sock.detach()) as sock:
            sock.sendall(b"this is not a TLS record at all")
            with pytest.raises(
                ConnectionClosedError, match=r"^no close frame received or sent$"
            ) as e:
                receiving.result()
        assert isinstance(e.value.__cause__, ssl.SSLError)


def test_send_that_fails_tells_who_closed_and_why(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        # The peer closes, and resets without waiting for an answer: the Close frame is there.
        wire.send_close(4000, "so long")
        wire.sock.shutdown(socket.SHUT_WR)
        with pytest.raises(
            ConnectionClosedError, match=r"^received 4000 \(private use\) so long; "
        ):
            repeat(lambda: connection.send(bytes(65536)))


def test_close_frame_that_came_before_abort_is_told(plain):
    with bare_client(plain) as (wire, connection):
        wire.send_close(4000, "so long")
        assert wire.receive() == (FIN | CLOSE, close_payload(4000, "so long"))
        connection.abort()
        with pytest.raises(
            ConnectionClosedError, match=r"^received 4000 \(private use\) so long; "
        ):
            connection.send("late")


@pytest.mark.parametrize("call", ["recv", "send", "close"])
def test_client_gives_up_waiting_for_the_server_to_end_tcp(call):
    with bare_server(close_timeout=0.3) as (wire, connection):
        began = time.monotonic()  # before the Close frame that starts the clock
        wire.send_close(1000)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        if call == "close":
            connection.close()
        else:
            with pytest.raises(ConnectionClosedOK):
                connection.recv() if call == "recv" else connection.send("late")
        assert connection.wait_closed(PATIENCE)
        assert 0.2 < time.monotonic() - began < 2
        assert connection.close_code == 1000


def test_close_without_a_time_limit_waits_for_the_peer(plain):
    with bare_client(plain, close_timeout=None) as (wire, connection):
        closing = Task(connection.close)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        assert wire.is_silent()
        assert closing.is_alive()
        wire.send_close(1000)
        assert wire.end() == []
        closing.result()


def test_close_with_messages_waiting_sends_them_first(plain):
    with bare_client(plain, compression=None) as (wire, connection):
        sending = Task(connection.send, bytes(TOO_MUCH))
        assert wait_until(lambda: connection.stats()["outbox_bytes"])
        closing = Task(connection.close)
        assert wire.receive() == (FIN | BINARY, bytes(TOO_MUCH))
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        wire.send_close(1000)
        assert wire.end() == []
        closing.result()
        sending.result()


def test_close_while_the_inbox_is_full(slow_link):
    with slow_link.pair(max_queue=2) as (client, server):
        for number in range(20):
            client.send(str(number))
        assert wait_until(lambda: server.stats()["inbox_messages"] == 2)
        server.close()
        assert server.close_code == 1000
        # What was in the inbox is still there; the rest came after our Close frame.
        assert list(server)[:2] == ["0", "1"]


def test_close_of_the_peer_behind_a_full_inbox_is_answered_once_there_is_room(plain):
    with bare_client(plain, max_queue=2) as (wire, connection):
        for number in range(5):
            wire.send(TEXT, b"%d" % number)
        wire.send_close(1000)
        assert wait_until(lambda: connection.stats()["inbox_messages"] == 2)
        assert wire.is_silent()
        assert list(connection) == ["0", "1", "2", "3", "4"]
        assert wire.end() == [(FIN | CLOSE, close_payload(1000))]
