"""The accept loop: what it survives, and what it refuses."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import pathlib
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest
from conftest import open_descriptors, wait_until
from links import PATIENCE, echo, read_all
from peers import Task

from syncws import Server, ServerConnection
from syncws.acceptor import MAX_REFUSALS, Acceptor

ROOT = pathlib.Path(__file__).parent.parent
LOG = logging.getLogger("syncws.test")
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


class Listener:
    """An acceptor that runs; it fails with the errors that it is given, then accepts."""

    def __init__(self, *failures):
        self.failures = list(failures)
        self.accepted = threading.Semaphore(0)
        self.attempts = 0
        self.refusal = None
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.failed = 0
        self.tick_at = None
        self.acceptor = Acceptor(
            self.sock,
            self.accept,
            failed=self.count_failure,
            tick=lambda: self.tick(),
            log=LOG,
        )

    def count_failure(self):
        self.failed += 1

    def tick(self):
        return self.tick_at

    def accept(self):
        self.attempts += 1
        if self.failures:
            # The connection stays in the backlog, as with EMFILE.
            raise OSError(self.failures.pop(0), "a failure of the test")
        sock, _ = self.sock.accept()
        if self.refusal is not None:
            self.acceptor.refuse(sock, self.refusal)
        else:
            sock.close()
        self.accepted.release()

    def connect(self):
        sock = socket.create_connection(self.sock.getsockname())
        sock.settimeout(PATIENCE)
        return sock

    @contextlib.contextmanager
    def running(self):
        task = Task(self.acceptor.run)
        try:
            yield self
        finally:
            self.acceptor.stop()
            try:
                task.result()
            finally:
                self.acceptor.close()
                self.sock.close()


def errors(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]


def test_it_stops_at_once():
    listener = Listener()
    with listener.running():
        began = time.monotonic()
    assert time.monotonic() - began < 1


def test_it_does_not_run_when_it_was_stopped_before():
    listener = Listener()
    listener.acceptor.stop()
    with listener.running(), listener.connect():
        pass
    assert listener.attempts == 0


def test_it_may_be_closed_without_having_run_and_stopped_afterwards():
    listener = Listener()
    before = len(open_descriptors())
    listener.acceptor.close()
    listener.acceptor.stop()
    listener.sock.close()
    assert before == 0 or len(open_descriptors()) < before


def test_it_runs_again_after_each_interrupt():
    listener = Listener()

    def interrupt():
        raise KeyboardInterrupt

    listener.tick = interrupt
    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            listener.acceptor.run()
    listener.tick = lambda: None
    with listener.running(), listener.connect():
        assert listener.accepted.acquire(timeout=PATIENCE)


def test_stopping_often_does_not_block():
    listener = Listener()
    with listener.running():
        for _ in range(10_000):
            listener.acceptor.stop()


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.EPROTO, errno.EPERM, errno.ENETDOWN])
def test_clients_that_left_the_backlog_are_passed_over(caplog, code):
    listener = Listener(code, code)
    with listener.running(), listener.connect():
        began = time.monotonic()
        assert listener.accepted.acquire(timeout=PATIENCE)
        assert time.monotonic() - began < 0.45  # two pauses would take half a second
    assert errors(caplog) == []


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_it_backs_off_from_failures_and_comes_back(caplog, code):
    listener = Listener(code, code)
    with listener.running(), listener.connect():
        began = time.monotonic()
        assert listener.accepted.acquire(timeout=PATIENCE)
        assert 0.3 < time.monotonic() - began < 2
    # No spinning: one attempt each, the third successful, and a look at the empty backlog.
    assert listener.attempts <= 4
    assert errors(caplog) == [
        f"accepting connections fails: [Errno {code}] a failure of the test; "
        "trying again until it works"
    ]


def test_it_stops_also_while_it_backs_off():
    listener = Listener(*[errno.EMFILE] * 100)
    with listener.running(), listener.connect():
        while not listener.attempts:
            pass
        began = time.monotonic()
    assert time.monotonic() - began < 2


def test_it_tells_a_failure_again_after_a_success(caplog):
    listener = Listener(errno.EMFILE)
    with listener.running():
        with listener.connect():
            assert listener.accepted.acquire(timeout=PATIENCE)
        listener.failures.append(errno.EMFILE)
        with listener.connect():
            assert listener.accepted.acquire(timeout=PATIENCE)
    assert len(errors(caplog)) == 2


def test_stopping_within_a_row_of_connections_leaves_the_rest(caplog):
    listener = Listener()

    class Stopping(Listener):
        def accept(self):
            super().accept()
            self.acceptor.stop()
            self.sock.close()

    listener.sock.close()
    listener.acceptor.close()
    listener = Stopping()
    with listener.connect(), listener.connect(), listener.running():
        assert listener.accepted.acquire(timeout=PATIENCE)
    assert listener.attempts == 1
    assert errors(caplog) == []


# Refusals


def test_a_refused_client_gets_the_answer_whatever_it_sends():
    listener = Listener()
    listener.refusal = b"HTTP/1.1 503 Service Unavailable\r\n\r\n"
    with listener.running(), listener.connect() as sock:
        sock.sendall(b"x" * 100_000)
        assert read_all(sock) == listener.refusal


def test_a_refused_client_that_is_gone_does_no_harm(caplog):
    listener = Listener()
    listener.refusal = b"no"
    with listener.running():
        for _ in range(10):
            listener.connect().close()
        for _ in range(10):
            assert listener.accepted.acquire(timeout=PATIENCE)
    assert errors(caplog) == []


def test_of_many_refused_clients_the_oldest_are_closed():
    listener = Listener()
    listener.refusal = b"no"
    with listener.running(), contextlib.ExitStack() as stack:
        socks = []
        for _ in range(MAX_REFUSALS + 1):
            socks.append(stack.enter_context(listener.connect()))
            assert listener.accepted.acquire(timeout=PATIENCE)
        # Closed for both directions, unlike the others, which are only half-closed.
        assert read_all(socks[0]) == b"no"
        with pytest.raises(ConnectionError):
            send_until_reset(socks[0])


def send_until_reset(sock):
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        sock.sendall(b"x")


def test_a_refused_client_without_an_answer_is_closed_after_a_while():
    listener = Listener()
    listener.refusal = b""
    with listener.running(), listener.connect() as sock:
        assert read_all(sock) == b""
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            send_until_reset(sock)
        assert time.monotonic() - began < 3


class Closed:
    """A socket whose peer reset the connection."""

    def __init__(self):
        self.closed = False

    def setblocking(self, flag):
        raise OSError(errno.ECONNRESET, "reset")

    def close(self):
        self.closed = True


def test_a_client_that_cannot_be_refused_is_closed():
    listener = Listener()
    sock = Closed()
    listener.acceptor.refuse(sock, b"no")
    assert sock.closed
    listener.acceptor.close()
    listener.sock.close()


# For want of descriptors and threads

EXHAUSTED = """
import contextlib, logging, resource, socket, sys, threading, time
from syncws import connect, serve

logging.basicConfig(stream=sys.stdout, level=logging.ERROR, format="%(message)s")

def echo(connection):
    for message in connection:
        connection.send(message)

with serve(echo, "127.0.0.1", 0).start() as server:
    address = server.server_address
    first = connect(f"ws://127.0.0.1:{address[1]}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    held, waiting = [], None
    with contextlib.suppress(OSError):
        while True:
            held.append(socket.socket())
    # One descriptor for the client, none for the server.
    held.pop().close()
    waiting = socket.create_connection(address)
    waiting.settimeout(10)
    cpu = time.process_time()
    threading.Event().wait(0.6)
    assert time.process_time() - cpu < 0.3, "the accept loop spins"
    first.send("alive")
    assert first.recv(10) == "alive"
    for sock in held:
        sock.close()
    began = time.monotonic()
    waiting.sendall(b"nonsense\\r\\n\\r\\n")
    assert waiting.recv(4) == b"HTTP"
    assert time.monotonic() - began < 1
    waiting.close()
    with connect(f"ws://127.0.0.1:{address[1]}") as connection:
        connection.send("back")
        print(connection.recv(10))
    first.close()
"""


def test_a_server_without_descriptors_lives_and_recovers_within_a_second():
    result = subprocess.run(
        [sys.executable, "-c", EXHAUSTED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout == (
        "accepting connections fails: [Errno 24] Too many open files; trying again until it works\n"
        "back\n"
    )


class NoThreads(Server):
    """A server whose threads need more memory than there can be."""

    def process_request(self, request, client_address):
        threading.stack_size(2**46 if self.exhausted else 0)
        try:
            super().process_request(request, client_address)
        finally:
            threading.stack_size(0)


def test_a_thread_that_cannot_be_started_costs_that_connection(plain, caplog):
    with plain.serve(echo) as server:
        server.__class__ = NoThreads
        server.exhausted = True
        server.start()
        for _ in range(3):
            with plain.socket(server) as sock:
                assert read_all(sock) == b""
        stats = server.stats()
        assert (stats["open"], stats["total"]) == (0, 0)
        assert stats["refused"] == {"thread": 3}
        assert (stats["accepted"], stats["thread_errors"]) == (3, 3)
        server.exhausted = False
        with plain.connect(server) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
    # Once for a row of them.
    (message,) = errors(caplog)
    assert message.startswith("connection dropped: ")


def test_clients_that_hung_up_in_the_backlog_cost_no_thread(plain):
    threads = []

    class Counting(ServerConnection):
        def __init__(self, *args):
            threads.append(threading.current_thread())
            super().__init__(*args)

    with plain.serve(echo, create_connection=Counting) as server:
        for linger in (False, True) * 5:
            sock = plain.socket(server)
            if linger:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            sock.close()
        server.start()
        with plain.connect(server) as connection:
            connection.send("hello")
            assert connection.recv(PATIENCE) == "hello"
        assert len(threads) == 1
        stats = server.stats()
        assert stats["accepted"] == 1 + sum(stats["refused"].values())
        threads.clear()
    del Counting
    gc.collect()


def test_a_connection_without_the_service_thread_gets_503(plain, caplog):
    def starve(connection, request):
        threading.stack_size(2**46)

    class Starving(Server):
        def process_request(self, request, client_address):
            threading.stack_size(0)
            super().process_request(request, client_address)

    try:
        with plain.serve(echo, process_request=starve) as server:
            server.__class__ = Starving
            server.start()
            for _ in range(3):
                with plain.socket(server) as sock:
                    sock.sendall(REQUEST)
                    answer = read_all(sock)
                assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
                assert answer.endswith(b"The server is out of resources.\n")
            assert wait_until(lambda: server.stats()["refused"] == {"thread": 3})
            assert server.stats()["thread_errors"] == 3
    finally:
        threading.stack_size(0)
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == ["connections refused: can't start new thread, thread"]
