"""Attempts to connect: names, several addresses, timeouts, and ending one from outside."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time

import pytest
from links import PATIENCE, echo
from peers import Task

from syncws import connect, serve
from syncws.attempt import Attempt, connect_tcp
from syncws.deadline import Deadline


@contextlib.contextmanager
def dead_address():
    """An address where nobody answers: its backlog is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield listener.getsockname()


@pytest.fixture
def names(monkeypatch):
    """A name service: tests put addresses, or a function, under the name of a host."""
    known = {}
    original = socket.getaddrinfo

    def look_up(host, port, *args, **kwargs):
        if host not in known or kwargs.get("flags"):
            return original(host, port, *args, **kwargs)
        if callable(known[host]):
            return known[host]()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in known[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.fixture
def refused():
    """An address that refuses connections."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock.getsockname()


@pytest.fixture
def server():
    with serve(echo, "127.0.0.1", 0).start() as server:
        yield server


def test_the_next_address_is_tried(names, server, refused):
    names["two.example"] = [refused, server.server_address]
    with connect("ws://two.example/") as connection:
        assert connection.remote_address == server.server_address


def test_a_dead_address_leaves_time_for_the_next(names, server):
    with dead_address() as dead:
        names["two.example"] = [dead, server.server_address]
        with connect("ws://two.example/", open_timeout=1) as connection:
            assert connection.remote_address == server.server_address


def test_the_time_for_one_address_can_be_chosen(names, server):
    with dead_address() as dead:
        names["two.example"] = [dead, server.server_address]
        began = time.monotonic()
        with connect("ws://two.example/", timeout=0.1, open_timeout=None) as connection:
            assert connection.remote_address == server.server_address
        assert time.monotonic() - began < 5


def test_an_address_of_a_missing_family_is_passed_over(names, server, monkeypatch):
    missing = (987, socket.SOCK_STREAM, 6, "", ("nowhere", 1))
    good = (socket.AF_INET, socket.SOCK_STREAM, 6, "", server.server_address)
    names["two.example"] = lambda: [missing, good]
    with connect("ws://two.example/") as connection:
        assert connection.remote_address == server.server_address


def test_the_message_tells_all_addresses_and_what_to_do(names, refused):
    names["two.example"] = [refused, refused]
    expected = (
        r"cannot connect to two.example port 80 \(127.0.0.1: Connection refused; "
        r"127.0.0.1: Connection refused\); nothing listens there: is the server running"
    )
    with pytest.raises(ConnectionRefusedError, match=expected) as raised:
        connect("ws://two.example/")
    assert raised.value.errno == errno.ECONNREFUSED


def test_no_answer_in_time(names):
    with dead_address() as dead:
        names["dead.example"] = [dead]
        expected = r"timed out while connecting to dead.example port 80 \(127.0.0.1: timed out\)"
        with pytest.raises(TimeoutError, match=expected):
            connect("ws://dead.example/", open_timeout=0.2)


def test_a_name_without_addresses(names):
    names["empty.example"] = []
    with pytest.raises(OSError, match=r"no address found for empty.example port 80"):
        connect("ws://empty.example/")


def test_a_name_that_does_not_exist(names):
    def fail():
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    names["no.example"] = fail
    with pytest.raises(socket.gaierror, match=r"cannot find the host no.example: Name or") as info:
        connect("ws://no.example/")
    assert info.value.errno == socket.EAI_NONAME


def test_a_label_that_is_too_long():
    with pytest.raises(socket.gaierror, match="cannot be a host name"):
        connect(f"ws://{'a' * 64}.example/")


def test_a_slow_name_service_is_left_in_time(names):
    answer = threading.Event()

    def slow():
        answer.wait(PATIENCE)
        return []

    names["slow.example"] = slow
    with pytest.raises(TimeoutError, match=r"timed out while looking up the host slow.example"):
        connect("ws://slow.example/", open_timeout=0.1)
    answer.set()  # the thread that asked ends, which the watch for leaks waits for


def test_without_a_thread_names_are_looked_up_all_the_same(names, server, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    names["one.example"] = [server.server_address]
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        sock = connect_tcp(Attempt(PATIENCE), "one.example", 80)
    assert sock.getpeername() == server.server_address
    sock.close()


def test_unknown_options_raise():
    with pytest.raises(TypeError, match="unexpected keyword argument 'nodelay'"):
        connect("ws://localhost/", nodelay=True)


# Cancelling


def test_a_cancelled_attempt_does_not_begin(server):
    attempt = Attempt(PATIENCE)
    attempt.cancel()
    with pytest.raises(ConnectionAbortedError, match="connecting was cancelled"):
        connect_tcp(attempt, *server.server_address)


def test_cancelling_ends_the_search_for_a_name(names):
    asked, answer = threading.Event(), threading.Event()

    def slow():
        asked.set()
        answer.wait(PATIENCE)
        return []

    names["slow.example"] = slow
    attempt = Attempt(PATIENCE)
    task = Task(connect_tcp, attempt, "slow.example", 80)
    assert asked.wait(PATIENCE)
    attempt.cancel()
    attempt.cancel()
    assert isinstance(task.error(), ConnectionAbortedError)
    answer.set()


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_cancelling_ends_the_wait_for_a_dead_address(timeout):
    # Whenever it comes: before, while and after the connection begins.
    with dead_address() as dead:
        for _ in range(20):
            attempt = Attempt(timeout)
            task = Task(connect_tcp, attempt, *dead)
            attempt.cancel()
            assert isinstance(task.error(), ConnectionAbortedError)


def test_cancelling_while_it_waits():
    waiting = threading.Event()

    class Watched(Attempt):
        def watching(self, sock):
            context = super().watching(sock)
            waiting.set()
            return context

    with dead_address() as dead:
        attempt = Watched(PATIENCE)
        task = Task(connect_tcp, attempt, *dead)
        assert waiting.wait(PATIENCE)
        attempt.cancel()
        assert isinstance(task.error(), ConnectionAbortedError)


def test_a_socket_is_not_touched_after_its_wait(server):
    attempt = Attempt(PATIENCE)
    sock = connect_tcp(attempt, *server.server_address)
    attempt.cancel()
    assert sock.send(b"G") == 1
    sock.close()


def test_an_expired_deadline_is_a_timeout():
    attempt = Attempt(PATIENCE)
    with dead_address() as dead, socket.socket() as sock:
        with pytest.raises(TimeoutError, match="timed out"):
            attempt.connect(sock, dead, Deadline(0))
