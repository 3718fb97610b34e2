"""The shortest way of a message to the socket, in one step of C code."""

from __future__ import annotations

import contextlib
import importlib.util
import socket
import struct
import threading
import time
import tracemalloc

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import Task

from syncws import ConnectionClosed, Opcode, serve
from syncws.speedups import python_message_block, python_try_send
from syncws.testing import pair, raw_client

# Looked for even where SYNCWS_PURE_PYTHON has the library do without it.
if importlib.util.find_spec("syncws._speedups") is None:
    pytest.skip("the C module was not built", allow_module_level=True)

from syncws._speedups import try_send

HELLO = python_message_block("hello", None, 100)


def is_at_rest(connection):
    """Whether it would send at once, and the service thread leaves it alone."""
    return connection._at_rest and connection.idle(time.monotonic()) and not connection.awaited


def is_free(connection):
    """Whether nobody keeps the lock: the service thread may have it for a moment."""
    return wait_until(lambda: not connection._outbound_lock.locked())


@contextlib.contextmanager
def at_rest():
    """
    A server's connection and its client, at rest.

    Somebody waits for messages, so that the service thread has nothing to do for it.
    """
    with pair(compression=None) as (client, server):
        reader = Task(list, server)
        client.ping().wait(PATIENCE)  # the opening handshake is out of the way
        assert wait_until(lambda: is_at_rest(server))
        yield server, client
    assert reader.result(PATIENCE) == []


def counts(connection):
    stats = connection.stats()
    return stats["messages_sent"], stats["bytes_sent"], connection._transport.sends


def test_a_message_is_sent_and_counted():
    with at_rest() as (server, client):
        messages, size, sends = counts(server)
        assert try_send(server, HELLO) is True
        assert client.recv(PATIENCE) == "hello"
        assert counts(server) == (messages + 1, size + len(HELLO), sends + 1)
        assert server._at_rest
        assert is_free(server)


def test_without_the_c_module_it_is_left_to_others():
    with at_rest() as (server, _):
        before = counts(server)
        assert python_try_send(server, HELLO) is False
        assert counts(server) == before


@pytest.mark.parametrize("what", ["lock", "awaited", "cork"])
def test_nothing_is_sent_when_something_is_in_the_way(what):
    with at_rest() as (server, client):
        before = counts(server)
        if what == "lock":
            with server._outbound_lock:
                assert try_send(server, HELLO) is False
        elif what == "awaited":
            server.awaited = True
            assert try_send(server, HELLO) is False
            server.awaited = False
        else:
            with server.cork():
                assert try_send(server, HELLO) is False
        assert counts(server) == before
        server.send("after")
        assert client.recv(PATIENCE) == "after"


def test_a_client_is_never_at_rest_for_its_frames_are_masked():
    with at_rest() as (_, client):
        assert try_send(client, HELLO) is False


def test_what_the_kernel_does_not_take_waits_in_the_outbox():
    with at_rest() as (server, client):
        server._transport.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        block = python_message_block(b"x" * 16000, None, 16000)
        sent, waits = 0, True
        while waits is True:
            waits = try_send(server, block)
            sent += 1
        if waits is False:  # the kernel took nothing of it
            sent -= 1
        else:
            assert not waits.done
            assert server.stats()["outbox_bytes"] > 0
            assert not server._at_rest
        assert is_free(server)
        assert server.stats()["messages_sent"] == sent
        last = Task(server.send, "the last one")
        for _ in range(sent):
            assert client.recv(PATIENCE) == b"x" * 16000
        assert client.recv(PATIENCE) == "the last one"
        last.result(PATIENCE)


def test_an_error_of_the_socket_is_the_one_that_the_kernel_told_first():
    def answer(connection):
        connection.recv(PATIENCE)
        reset.wait(PATIENCE)
        try:
            connection.send("hello")
        except ConnectionClosed as exc:
            causes.append(exc.__cause__)
        assert is_free(connection)

    causes, reset = [], threading.Event()
    with serve(answer, "localhost", 0).start() as server:
        with raw_client(f"ws://localhost:{server.server_address[1]}") as peer:
            peer.send(Opcode.TEXT, "hello")
            peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        reset.set()
    assert [type(cause) for cause in causes] == [ConnectionResetError]


@pytest.mark.parametrize("arguments", [(), (1,), (1, b"", 2)])
def test_the_number_of_arguments_is_checked(arguments):
    with pytest.raises(TypeError, match=r"^try_send\(\) takes 2 arguments"):
        try_send(*arguments)


def test_a_frame_is_bytes():
    with at_rest() as (server, _):
        with pytest.raises(TypeError, match=r"^the frame must be bytes$"):
            try_send(server, "hello")


def test_what_is_no_connection_is_an_error():
    with pytest.raises(AttributeError, match="awaited"):
        try_send(object(), HELLO)


class Odd:
    """What has some of a connection's attributes."""

    awaited = False
    _at_rest = True

    def __init__(self):
        self._outbound_lock = threading.Lock()


def test_the_lock_is_released_after_an_error():
    odd = Odd()
    with pytest.raises(AttributeError, match="_outbox"):
        try_send(odd, HELLO)
    assert not odd._outbound_lock.locked()


def test_nothing_leaks():
    with at_rest() as (server, client):

        def many(count):
            for _ in range(count):
                assert try_send(server, HELLO) is True
                assert client.recv(PATIENCE) == "hello"
                with contextlib.suppress(AttributeError):
                    try_send(Odd(), HELLO)

        many(50)
        tracemalloc.start()
        try:
            many(50)
            before = tracemalloc.get_traced_memory()[0]
            many(1000)
            assert tracemalloc.get_traced_memory()[0] - before < 20_000
        finally:
            tracemalloc.stop()


def test_many_threads_send_whole_frames():
    with at_rest() as (server, client):
        blocks = [python_message_block(f"{n}" * 50, None, 1000) for n in range(4)]
        start = threading.Barrier(len(blocks))

        def hammer(block):
            start.wait()
            return sum(try_send(server, block) is True for _ in range(300))

        tasks = [Task(hammer, block) for block in blocks]
        received = Task(list, client)
        sent = sum(task.result(PATIENCE) for task in tasks)
        server.close()
        messages = received.result(PATIENCE)
        assert len(messages) == sent
        assert {message[:50] for message in messages} <= {f"{n}" * 50 for n in range(4)}
