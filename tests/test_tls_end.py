"""The end of connections over TLS, where close_notify comes before the end of TCP."""

from __future__ import annotations

import socket

import pytest
from links import PATIENCE
from peers import CLOSE, FIN, Task, bare_client, bare_server, close_payload

CLOSE_FRAME = (FIN | CLOSE, close_payload(1000))


@pytest.fixture
def contexts(server_context, client_context):
    return server_context, client_context


def test_close_notify_ends_the_connection_of_a_client_though_tcp_stays_open(contexts):
    with bare_server(contexts=contexts) as (wire, connection):
        closing = Task(connection.close)
        assert wire.receive() == CLOSE_FRAME
        wire.send_close(1000)
        # It sends close_notify and, as asyncio does, keeps TCP open until an answer comes.
        ending = Task(wire.sock.unwrap)
        closing.result(PATIENCE / 2)  # before close_timeout
        ending.error()  # not all versions of Python want more for an answer than the end of TCP
        assert connection.close_code == 1000


@pytest.mark.parametrize("ours", ["client", "server"])
def test_garbage_instead_of_close_notify_is_dropped(ours, contexts, tls):
    opened = bare_server(contexts=contexts) if ours == "client" else bare_client(tls)
    with opened as (wire, connection):
        closing = Task(connection.close)
        assert wire.receive() == CLOSE_FRAME
        wire.send_close(1000)
        with socket.socket(fileno=wire.sock.detach()) as sock:
            sock.sendall(b"this is not a TLS record at all" * 1000)
        closing.result()
        assert connection.close_code == 1000
