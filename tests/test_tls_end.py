"""The end of connections over TLS, where close_notify comes before the end of TCP."""

from __future__ import annotations

import contextlib
import socket
import ssl

import pytest
from links import PATIENCE
from peers import CLOSE, FIN, Task, bare_client, bare_server, close_payload

from syncws.deadline import Deadline
from syncws.transport import TLSTransport

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


@contextlib.contextmanager
def tls_pair(contexts):
    """The transports of two ends, a server's and a client's."""
    server_context, client_context = contexts
    ends = socket.socketpair()
    server = TLSTransport(ends[0], server_context, server_side=True)
    client = TLSTransport(ends[1], client_context, server_side=False, server_hostname="localhost")
    shaking = Task(client.handshake, Deadline(PATIENCE))
    server.handshake(Deadline(PATIENCE))
    shaking.result()
    try:
        yield server, client
    finally:
        server.close()
        client.close()


@pytest.mark.parametrize("version", ["TLSv1_2", "TLSv1_3"])
def test_input_that_was_not_read_does_not_end_the_draining(version, server_context, authority):
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)
    client_context.maximum_version = ssl.TLSVersion[version]
    with tls_pair((server_context, client_context)) as (server, client):
        client.send((b"y" * 50_000,), 0, [])
        server.read([], 4096)
        assert server.shutdown_write()
        assert server.discard(4096) is None
        client.send((b"y" * 50_000,), 0, [])
        assert server.discard(4096)
