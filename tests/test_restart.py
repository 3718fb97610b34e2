"""Restarts of a server under load: by handing on its socket, and by sharing its port."""

from __future__ import annotations

import collections
import contextlib
import signal
import socket
import sys
import threading
from typing import NamedTuple

import pytest
from conftest import wait_until
from peers import Task
from supervisor import launch

from syncws import ConnectionClosedOK, connect

PATIENCE = 20  # seconds; a process takes a while to start

# A server on the socket that it inherits, or on a port. It prints its process id and its port
# when it serves and takes care of signals. It answers with its process id, whether it drains and so
# accepts no more, and how many connections it has; "end" ends a drain period that would last
# longer than any test. Before, an attempt could be accepted only to be told 1001.
SERVER = """
import logging, os, sys
from syncws import inherited_sockets, serve

class Ready(logging.Handler):
    def emit(self, record):
        if record.getMessage().startswith("server listening"):
            print(os.getpid(), server.server_address[1], flush=True)
        if record.getMessage().startswith("server draining"):
            self.draining = True

ready = Ready()
ready.draining = False

def answer(connection):
    for message in connection:
        if message == "end":
            server.close()
        else:
            connection.send(f"{os.getpid()} {ready.draining:d} {server.stats()['total']}")

logging.getLogger("syncws.server").setLevel(logging.INFO)
logging.getLogger("syncws.server").addHandler(ready)
if len(sys.argv) > 1:
    server = serve(answer, "127.0.0.1", int(sys.argv[1]), reuse_port=True)
else:
    server = serve(answer, sock=inherited_sockets()[0])
server.serve_forever(drain=1000)
"""


class Process:
    """A server in a process of its own, which serves already."""

    def __init__(self, process):
        self._process = process
        line = process.stdout.readline()
        assert line, process.stderr.read()
        self.pid, self.port = map(int, line.split())

    def terminate(self):
        self._process.send_signal(signal.SIGTERM)

    def end(self):
        """Wait for the end; it has nothing to complain about."""
        out, err = self._process.communicate(timeout=PATIENCE)
        assert (self._process.returncode, out, err) == (0, "", "")


@contextlib.contextmanager
def processes():
    """Yields a function that starts servers, with arguments, and inherited sockets."""
    with contextlib.ExitStack() as stack:

        def start(*arguments, sockets=()):
            command = [sys.executable, "-W", "error", "-c", SERVER, *arguments]
            process = stack.enter_context(launch(command, *sockets))
            stack.callback(process.kill)
            return Process(process)

        yield start


class Answer(NamedTuple):
    pid: int
    draining: int
    connections: int


def ask(client):
    client.send("?")
    return Answer(*map(int, client.recv(timeout=PATIENCE).split()))


def repeat_until(stopped, uri):
    """Connect, ask and close, again and again; returns how often each process answered."""
    answers = collections.Counter()
    while not stopped.is_set():
        with connect(uri, open_timeout=PATIENCE) as client:
            answers[ask(client).pid] += 1
    return answers


def connect_to(server, uri):
    """Connect until it is a certain process that has accepted; where several do, it is chance."""
    while True:
        client = connect(uri, open_timeout=PATIENCE)
        if ask(client).pid == server.pid:
            return client
        client.close()


def see_going_away(client, server):
    """A connection that was open before a restart goes on until the drain period ends."""
    assert wait_until(lambda: ask(client) == (server.pid, True, 1))
    client.send("end")
    with pytest.raises(ConnectionClosedOK, match="received 1001"):
        client.recv(timeout=PATIENCE)
    server.end()


@contextlib.contextmanager
def load_on(uri):
    """Four threads that connect all the time; yields their tasks, which end at the end."""
    stopped = threading.Event()
    tasks = [Task(repeat_until, stopped, uri) for _ in range(4)]
    try:
        yield tasks
    finally:
        stopped.set()
        for task in tasks:
            task.join(PATIENCE)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows hands on no descriptors")
def test_restarts_under_load_lose_no_connection_attempt():
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1024))
        uri = f"ws://127.0.0.1:{listener.getsockname()[1]}"
        start = stack.enter_context(processes())
        server = start(sockets=[listener])
        with load_on(uri) as load:
            for _ in range(5):
                before = server
                with connect_to(before, uri) as client:
                    server = start(sockets=[listener])
                    before.terminate()
                    see_going_away(client, before)
        answers = sum((task.result() for task in load), collections.Counter())
        assert server.pid in answers
        server.terminate()
        server.end()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares out the connections")
def test_two_processes_serve_one_port():
    with processes() as start:
        first = start(0)
        second = start(first.port)
        uri = f"ws://127.0.0.1:{first.port}"
        for server in (first, second):
            with connect_to(server, uri) as client:
                assert not ask(client).draining
        for server in (first, second):
            server.terminate()
            server.end()
