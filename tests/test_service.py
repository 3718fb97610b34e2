"""The service thread: when it is there, and what it survives."""

from __future__ import annotations

import contextlib
import logging
import os
import pathlib
import socket
import subprocess
import sys
import threading

import pytest
from conftest import open_descriptors, wait_until
from links import PATIENCE

from syncws.service import READ, WRITE, Service, service

ROOT = pathlib.Path(__file__).parent.parent


def is_running():
    return any(thread.name == "syncws-service" for thread in threading.enumerate())


class Fake:
    """A connection that wants what a test says."""

    def __init__(self, wanted=0):
        self.near, self.far = socket.socketpair()
        self.wanted = wanted
        self.agreed = None  # what settle() answers with; None for what it was asked
        self.watched = 0
        self.requested = False
        self.quiet = False
        self.attended = threading.Semaphore(0)
        self.settled = []
        self.broken = threading.Event()
        self.error = None

    def fileno(self):
        return self.near.fileno()

    def idle(self, now):
        return self.quiet

    def attend(self, now):
        self.attended.release()
        if isinstance(self.wanted, Exception):
            raise self.wanted
        return self.wanted

    def settle(self, watch):
        self.watched = watch if self.agreed is None else self.agreed
        self.settled.append(self.watched)
        return self.watched

    def break_off(self, exc):
        self.error = exc
        self.broken.set()

    def was_attended(self, times=1):
        return all(self.attended.acquire(timeout=PATIENCE) for _ in range(times))

    def rest(self):
        """Have nothing more to do with it, until a further call of attend()."""
        self.wanted = 0
        assert wait_until(lambda: not self.watched)


@pytest.fixture
def own():
    """A service of its own."""
    private = Service()
    yield private
    for connection in private.snapshot():
        private.discard(connection)
    assert private.join(PATIENCE)


@pytest.fixture
def fake():
    connection = Fake()
    yield connection
    connection.near.close()
    connection.far.close()


# When it is there


def test_without_a_connection_there_is_no_thread(own):
    assert not is_running()
    assert own.join(0)
    own.request(object())
    assert not is_running()


def test_it_starts_with_the_first_connection_and_is_the_only_one(plain):
    with plain.pair(), plain.pair():
        names = [thread.name for thread in threading.enumerate()]
        assert names.count("syncws-service") == 1
        (thread,) = (t for t in threading.enumerate() if t.name == "syncws-service")
        assert thread.daemon


def test_it_ends_when_there_is_no_connection(plain):
    with plain.pair():
        assert is_running()
    # By itself, a few ticks later.
    assert wait_until(lambda: not is_running())


def test_it_starts_again(own, fake):
    for _ in range(3):
        own.add(fake)
        assert fake.was_attended()
        own.discard(fake)
        assert own.join(PATIENCE)
        assert not is_running()


def test_it_does_not_end_while_there_is_a_connection(own, fake):
    own.add(fake)
    assert not own.join(0.05)
    assert fake.was_attended(3)
    assert is_running()


def test_a_thread_that_does_not_start_leaves_nothing_open(own, fake):
    class Stubborn(Service):
        def _start(self):
            threading.stack_size(2**46)  # more than there can be
            try:
                super()._start()
            finally:
                threading.stack_size(0)

    stubborn = Stubborn()
    before = open_descriptors()
    with pytest.raises(RuntimeError, match="can't start new thread"):
        stubborn.add(fake)
    assert open_descriptors() == before
    assert stubborn.snapshot() == []
    assert stubborn.join(0)


# What it does


def test_every_connection_is_attended_to_at_ticks(own, fake):
    own.add(fake)
    assert fake.was_attended(3)


def test_idle_connections_are_left_alone(own, fake):
    fake.quiet = True
    other = Fake()
    with other.near, other.far:
        own.add(fake)
        own.add(other)
        assert other.was_attended(3)
        own.discard(other)
    assert not fake.attended.acquire(blocking=False)


def test_requests_are_served_at_once_also_of_idle_connections(own, fake):
    fake.quiet = True
    own.add(fake)
    own.request(fake)
    assert fake.was_attended()


def test_requests_of_connections_that_it_does_not_know_are_ignored(own, fake):
    other = Fake()
    with other.near, other.far:
        own.add(fake)
        own.request(other)
        own.request(fake)
        assert fake.was_attended()
        assert not other.attended.acquire(blocking=False)


def test_a_connection_that_is_gone_is_not_kept(plain):
    with plain.pair() as (client, _):
        pass
    client.abort()
    service.request(client)
    # The watch for leaks does the rest.


def test_many_requests_do_not_block(own, fake):
    own.add(fake)
    for _ in range(20_000):
        own.request(fake)
    assert fake.was_attended()


def test_sockets_that_are_ready_are_attended_to(own, fake):
    fake.wanted = READ
    own.add(fake)
    assert wait_until(lambda: fake.watched == READ)
    while fake.attended.acquire(blocking=False):
        pass
    fake.far.send(b"x")
    assert fake.was_attended(20)  # until it is read; ticks alone would take two seconds
    fake.near.recv(1)
    fake.wanted = READ | WRITE
    assert wait_until(lambda: fake.watched == READ | WRITE)
    fake.rest()


def test_a_connection_may_disagree_with_being_watched(own, fake):
    fake.wanted, fake.agreed = READ, 0
    own.add(fake)
    assert wait_until(lambda: fake.settled)
    fake.far.send(b"x")
    assert fake.was_attended(2)
    assert set(fake.settled) == {0}


# What it survives


@pytest.mark.parametrize("watched", [0, READ])
def test_errors_cost_the_connection_concerned_only(own, fake, caplog, watched):
    other = Fake()
    with other.near, other.far:
        fake.wanted = watched
        own.add(fake)
        own.add(other)
        assert wait_until(lambda: fake.watched == watched and fake.was_attended())
        fake.wanted = RuntimeError("a bug of ours")
        assert fake.broken.wait(PATIENCE)
        own.discard(fake)
        assert wait_until(lambda: fake.watched == 0)
        assert str(fake.error) == "a bug of ours"
        while other.attended.acquire(blocking=False):
            pass
        assert other.was_attended(2)
        own.discard(other)
    fake.error = fake.wanted = None
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert {record.getMessage() for record in records} == {"unexpected internal error"}
    assert {record.name for record in records} == {"syncws.service"}


def test_it_may_be_forgotten_without_having_run():
    private = Service()
    private.forget()
    assert private.snapshot() == []


FORKED = """
import contextlib, os, threading, warnings
from syncws import connect, serve

# Python 3.12 warns of what this is about: other threads are not there in the child.
warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)

def echo(connection):
    for message in connection:
        connection.send(message)

def talk():
    with serve(echo, "127.0.0.1", 0).start() as server:
        with connect(f"ws://127.0.0.1:{server.server_address[1]}") as connection:
            names = [thread.name for thread in threading.enumerate()]
            assert names.count("syncws-service") == 1, names
            connection.send("hello")
            assert connection.recv(5) == "hello"
            # A ping is answered by the service thread: nobody else reads here.
            assert connection.ping().wait(5)

with serve(echo, "127.0.0.1", 0).start() as server:
    with connect(f"ws://127.0.0.1:{server.server_address[1]}") as connection:
        child = os.fork()
        if not child:
            talk()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        connection.send("still here")
        assert connection.recv(5) == "still here"
print("status", status)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork()")
def test_a_forked_child_starts_its_own():
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", FORKED],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.stdout, result.stderr, result.returncode) == ("status 0\n", "", 0)


def test_a_connection_outlives_errors_elsewhere(plain, caplog):
    broken = Fake(RuntimeError("a bug of ours"))
    with plain.pair() as (client, connection), contextlib.ExitStack() as stack:
        stack.callback(service.discard, broken)
        stack.enter_context(broken.near)
        stack.enter_context(broken.far)
        service.add(broken)
        assert broken.broken.wait(PATIENCE)
        client.send("hello")
        assert connection.recv(PATIENCE) == "hello"
        assert client.ping().wait(PATIENCE)
    assert "a bug of ours" in caplog.text


def test_a_connection_that_asks_again_and_again_keeps_no_other_waiting(own, fake):
    class Asking(Fake):
        def attend(self, now):
            self.waiting.append(len(own._requests))
            for _ in range(100):
                own.request(self)
            return super().attend(now)

    asking = Asking()
    asking.waiting = []
    try:
        own.add(fake)
        own.add(asking)
        own.request(asking)
        assert asking.was_attended(100)
        fake.wanted = READ
        own.request(fake)
        fake.far.send(b"x")
        assert fake.was_attended(10)
        assert max(asking.waiting) <= 1
    finally:
        own.discard(asking)
        fake.rest()
        asking.near.close()
        asking.far.close()
