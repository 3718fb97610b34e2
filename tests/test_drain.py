"""Shutting down in two steps: no newcomers, and after a while no connections."""

from __future__ import annotations

import errno
import signal
import socket
import threading
import time

import pytest
from conftest import wait_until
from links import PATIENCE, counts, echo, handshake, read_all
from peers import Task

from syncws import ConnectionClosedOK, InvalidStatus, Server, connect, serve

LONG = 30.0  # seconds: longer than any test takes


def says(connection):
    connection.send("hello")
    return connection.recv(PATIENCE) == "hello"


def get(link, server, path):
    with link.socket(server) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return read_all(sock).decode()


def test_connections_go_on_while_newcomers_and_health_checks_get_503(slow_link):
    with slow_link.serve(echo, health="/healthz").start() as server:
        with slow_link.connect(server) as connection:
            assert get(slow_link, server, "/healthz").startswith("HTTP/1.1 200 ")
            server.close(drain=LONG)
            assert server.is_draining
            assert not server.is_closing
            answer = get(slow_link, server, "/healthz")
            assert answer.startswith("HTTP/1.1 503 ")
            assert "\r\nRetry-After: 5\r\n" in answer
            with pytest.raises(InvalidStatus) as caught:
                slow_link.connect(server)
            assert caught.value.response.status_code == 503
            assert says(connection)
        assert server.wait_closed() == (0, 0, [])
        assert not server.is_draining


def test_connections_are_closed_when_the_time_is_up(slow_link):
    with slow_link.serve(echo).start() as server, slow_link.connect(server) as connection:
        began = time.monotonic()
        closing = Task(server.shutdown, drain=0.3, reason="maintenance")
        with pytest.raises(ConnectionClosedOK) as caught:
            connection.recv(PATIENCE)
        assert 0.25 < time.monotonic() - began < 5
        assert caught.value.rcvd == (1001, "maintenance")
        assert closing.result() == (1, 0, [])


def test_it_ends_when_no_connection_is_left(plain):
    with plain.serve(echo).start() as server:
        with plain.connect(server) as connection:
            server.close(drain=LONG)
            assert says(connection)
        server.wait_closed()
    with pytest.raises(OSError, match="refused"):
        plain.connect(server)


def test_without_connections_it_ends_at_once(plain):
    with plain.serve(echo).start() as server:
        server.shutdown(drain=LONG)
        assert server.is_closing


def test_without_a_thread_that_serves_it_ends_at_once(plain):
    server = plain.serve(echo)
    server.close(drain=LONG)
    assert server.is_closing
    assert server.socket.fileno() == -1


def test_closing_again_ends_it(plain):
    with plain.serve(echo).start() as server, plain.connect(server) as connection:
        server.close(drain=LONG)
        server.close(code=4000)
        with pytest.raises(Exception, match="4000"):
            connection.recv(PATIENCE)
        assert server.is_closing


def test_a_handler_may_ask_for_it_and_wait(plain):
    reports = []

    def stop(connection):
        reports.append(connection.server.shutdown(drain=LONG))

    with plain.serve(stop).start() as server, plain.connect(server) as connection:
        with pytest.raises(ConnectionClosedOK):
            connection.recv(PATIENCE)
        server.wait_closed()
    assert reports == [(0, 0, [])] or reports == [(1, 0, [])]


def test_the_timeout_counts_from_its_end_on(plain):
    with plain.serve(echo).start() as server:
        with plain.socket(server) as sock:
            handshake(sock)
            assert wait_until(lambda: counts(server) == (1, 1))
            began = time.monotonic()
            assert server.shutdown(drain=0.3, timeout=0.4).aborted == 1
            assert 0.5 < time.monotonic() - began < 5


def test_handshakes_under_way_may_be_finished(plain):
    with plain.serve(echo).start() as server:
        with plain.socket(server) as sock, plain.connect(server):
            sock.sendall(b"GET / HTTP/1.1\r\n")
            assert wait_until(lambda: server.stats()["opening"] == 1)
            server.close(drain=LONG)
            fields = "Host: a", "Upgrade: websocket", "Connection: upgrade"
            keys = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"
            sock.sendall("".join(f"{line}\r\n" for line in (*fields, *keys, "")).encode())
            assert sock.recv(65536).startswith(b"HTTP/1.1 101 ")
            server.close()


def test_newcomers_of_a_socket_that_was_handed_in_are_left_to_others():
    sock = socket.create_server(("127.0.0.1", 0))
    other = sock.dup()
    uri = f"ws://127.0.0.1:{sock.getsockname()[1]}"
    with serve(echo, sock=sock).start() as server, connect(uri) as connection:
        server.close(drain=LONG)
        assert wait_until(lambda: server._acceptor._paused)
        opening = Task(connect, uri)
        assert says(connection)
        with serve(echo, sock=other).start() as successor:
            with opening.result() as newcomer:
                assert says(newcomer)
            assert successor.stats()["opened"] == 1


def test_closing_leaves_a_socket_that_was_handed_in_usable():
    sock = socket.create_server(("127.0.0.1", 0))
    other = sock.dup()
    uri = f"ws://127.0.0.1:{sock.getsockname()[1]}"
    with serve(echo, sock=sock) as server:
        threading.Timer(0.1, signal.raise_signal, (signal.SIGTERM,)).start()
        server.serve_forever()
    with serve(echo, sock=other).start(), connect(uri) as connection:
        assert says(connection)


def test_a_signal_may_start_it(plain):
    seen = []

    def on_open(connection):
        signal.raise_signal(signal.SIGTERM)
        seen.append(wait_until(lambda: connection.server.is_draining))
        seen.append(connection.recv(PATIENCE))

    with plain.serve(on_open) as server:
        task = Task(_client, plain, server)
        server.serve_forever(drain=LONG)
    assert task.result() == 1000
    assert seen == [True, "hello"]


def _client(link, server):
    with link.connect(server) as connection:
        connection.send("hello")
        with pytest.raises(ConnectionClosedOK):
            connection.recv(PATIENCE)
        return connection.close_code


def test_newcomers_of_a_port_that_others_share_are_left_to_them(plain):
    with plain.serve(echo, reuse_port=True).start() as server, plain.connect(server) as connection:
        address = server.server_address
        server.close(drain=LONG)
        assert wait_until(lambda: server.socket.fileno() == -1)
        with serve(echo, *address, reuse_port=True).start() as successor:
            for _ in range(5):
                with plain.connect(successor) as newcomer:
                    assert says(newcomer)
            assert says(connection)


def test_a_drain_may_begin_while_accepting_fails(plain):
    class Exhausted(Server):
        def get_request(self):
            raise OSError(errno.EMFILE, "a failure of the test")

    with plain.serve(echo, reuse_port=True) as server:
        server.start()
        with plain.connect(server) as connection:
            server.__class__ = Exhausted
            with plain.socket(server):
                assert wait_until(lambda: server.stats()["accept_errors"])
                server.close(drain=0.1)
                with pytest.raises(ConnectionClosedOK):
                    connection.recv(PATIENCE)
        assert server.is_closing
