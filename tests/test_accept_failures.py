"""
Servers out of descriptors, memory or threads: it costs the newcomers, for as long as it lasts.

The accept loop by itself is in test_acceptor.py; here are whole servers, with those who are there
already and those who come when it is over.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest
from conftest import wait_until
from links import PATIENCE, echo, read_all
from peers import Task

from syncws import Server

ROOT = pathlib.Path(__file__).parent.parent

RELIEF = 1.0  # seconds
WATCHED = 0.6  # seconds
CPU = 0.1  # of a core

# What accept() may fail with for want of something (accept(2)).
EXHAUSTED = [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]


class Failing(Server):
    """A server whose accept() fails while ``failure`` is set; clients stay in the backlog."""

    failure = None

    def get_request(self):
        if self.failure is not None:
            raise OSError(self.failure, "a failure of the test")
        return super().get_request()


class Threadless(Server):
    """A server whose threads need more memory than there can be, while ``exhausted`` is set."""

    exhausted = False

    def process_request(self, request, client_address):
        threading.stack_size(2**46 if self.exhausted else 0)
        try:
            super().process_request(request, client_address)
        finally:
            threading.stack_size(0)


def serve(link, kind, **options):
    server = link.serve(echo, **options)
    server.__class__ = kind
    return server.start()


def says(connection):
    connection.send("hello")
    return connection.recv(PATIENCE) == "hello"


def errors(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


@pytest.mark.parametrize("code", EXHAUSTED)
def test_who_is_there_goes_on_and_who_waits_is_served_afterwards(slow_link, caplog, code):
    with serve(slow_link, Failing) as server, slow_link.connect(server) as friend:
        assert says(friend)
        server.failure = code
        waiting = Task(slow_link.connect, server)
        assert wait_until(lambda: server.stats()["accept_errors"] >= 2)
        assert says(friend)
        assert waiting.is_alive()

        server.failure = None
        began = time.monotonic()
        with waiting.result() as newcomer:
            waiting._value = None
            assert says(newcomer)
            assert time.monotonic() - began < RELIEF
        assert server.stats()["accepted"] == 2
    assert errors(caplog) == [
        f"accepting connections fails: [Errno {code}] a failure of the test; "
        "trying again until it works"
    ]


def test_failing_costs_next_to_no_cpu(plain):
    with serve(plain, Failing) as server:
        server.failure = errno.EMFILE
        with plain.socket(server):
            assert wait_until(lambda: server.stats()["accept_errors"])
            used = time.process_time()
            threading.Event().wait(WATCHED)
            assert time.process_time() - used < WATCHED * CPU
            assert server.stats()["accept_errors"] < 10


def test_a_client_that_left_the_backlog_is_no_error(plain, caplog):
    with serve(plain, Failing) as server:
        server.failure = errno.ECONNABORTED
        waiting = Task(plain.connect, server)
        server.failure = None
        with waiting.result() as connection:
            waiting._value = None
            assert says(connection)
        assert server.stats()["accept_errors"] == 0
    assert errors(caplog) == []


def test_each_row_of_failures_is_told_once(plain, caplog):
    with serve(plain, Failing) as server:
        for row in (1, 2):
            server.failure = errno.EMFILE
            with plain.socket(server):
                failed = server.stats()["accept_errors"]
                assert wait_until(lambda failed=failed: server.stats()["accept_errors"] > failed)
                server.failure = None
                assert wait_until(lambda row=row: server.stats()["accepted"] == row)
    assert len(errors(caplog)) == 2


def test_shutdown_does_not_wait_for_what_is_missing(plain):
    with serve(plain, Failing) as server, plain.connect(server) as connection:
        reader = Task(list, connection)
        server.failure = errno.ENOMEM
        with plain.socket(server):
            assert wait_until(lambda: server.stats()["accept_errors"])
            began = time.monotonic()
            report = server.shutdown()
            assert time.monotonic() - began < 2
        assert (report.closed, report.aborted, report.running) == (1, 0, [])
        assert reader.result() == []


# Threads


def test_without_threads_who_is_there_goes_on(slow_link, plain, caplog):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serve(slow_link, Threadless, reuse_threads=False))
        friend = stack.enter_context(slow_link.connect(server))
        assert says(friend)
        server.exhausted = True
        for number in range(3):
            with plain.socket(server) as sock:
                assert read_all(sock) == b""
            assert wait_until(lambda n=number: server.stats()["thread_errors"] == n + 1)
        assert says(friend)
        server.exhausted = False
        with slow_link.connect(server) as newcomer:
            assert says(newcomer)
        server.exhausted = True
        with plain.socket(server) as sock:
            assert read_all(sock) == b""
    # A row of three, and one of one.
    assert len(errors(caplog)) == 2


# The real limit. It is not for root, who becomes a user with no other process; a connection comes
# and goes before, for that user may not be allowed to read what Python imports when first needed.
LIMITED = """
import logging, os, resource, socket, sys, threading, time
from syncws import connect, serve

logging.basicConfig(stream=sys.stdout, level=logging.WARNING, format="%(message)s")

def echo(connection):
    for message in connection:
        connection.send(message)

with serve(echo, "127.0.0.1", 0, reuse_threads=False).start() as server:
    address = server.server_address
    uri = f"ws://127.0.0.1:{address[1]}"
    connect(uri).close()
    friend = connect(uri)
    friend.send("alive")
    assert friend.recv(10) == "alive"
    if os.geteuid() == 0:
        os.setresuid(54321, 54321, 54321)
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    resource.setrlimit(resource.RLIMIT_NPROC, (1, hard))
    cpu = time.process_time()
    for _ in range(20):
        with socket.create_connection(address) as sock:
            sock.settimeout(10)
            assert sock.recv(1) == b""
        threading.Event().wait(0.03)
    assert time.process_time() - cpu < 0.1, "too much work for nothing"
    assert server.stats()["thread_errors"] == 20, server.stats()
    friend.send("still alive")
    assert friend.recv(10) == "still alive"
    resource.setrlimit(resource.RLIMIT_NPROC, (hard, hard))
    began = time.monotonic()
    with connect(uri) as connection:
        connection.send("back")
        assert connection.recv(10) == "back"
        assert time.monotonic() - began < 1
    friend.close()
print("done")
"""


def test_a_server_at_its_limit_of_threads_lives_and_recovers_within_a_second():
    # It may become another user, who can't write what coverage collects.
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    result = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.stderr, result.returncode) == ("", 0)
    assert result.stdout == "connection dropped: can't start new thread\ndone\n"
