"""Listening sockets from a supervisor: real processes that inherit them, and wrong variables."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys

import pytest
from peers import Task
from supervisor import launch

from syncws import connect, inherited_sockets

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows hands on no descriptors")

PATIENCE = 20  # seconds; a process takes a while to start

# What children print about the sockets that they find, and about themselves.
PREAMBLE = """
import json, os, subprocess, sys
from syncws import inherited_sockets, serve

def describe(sockets):
    return [[sock.fileno(), sock.family.name, sock.type.name] for sock in sockets]

def error(*arguments):
    try:
        inherited_sockets(*arguments)
    except ValueError as exc:
        return str(exc)

def variables():
    return sorted(name for name in os.environ if name.startswith("LISTEN_"))

"""


def run(source, *files, **variables):
    """Run a program with inherited files; returns what it prints, which is JSON."""
    # No developer mode: it would warn of the sockets that the program leaves to its end.
    with launch([sys.executable, "-c", PREAMBLE + source], *files, **variables) as process:
        try:
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, err) == (0, "")
    return json.loads(out)


@pytest.fixture
def listener():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


# --- What is inherited ----------------------------------------------------------------------------


def test_sockets_without_names_are_called_unknown_and_come_in_order(listener, tmp_path):
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(socket.socket(socket.AF_UNIX))
        unix.bind(str(tmp_path / "socket"))
        unix.listen()
        six = stack.enter_context(socket.create_server(("::1", 0), family=socket.AF_INET6))
        found = run(
            "print(json.dumps(describe(inherited_sockets('unknown'))))", listener, unix, six
        )
    assert found == [
        [3, "AF_INET", "SOCK_STREAM"],
        [4, "AF_UNIX", "SOCK_STREAM"],
        [5, "AF_INET6", "SOCK_STREAM"],
    ]


def test_nothing_is_left_for_child_processes(listener):
    source = """
sockets = inherited_sockets()
child = "import os, sys; print([n for n in os.environ if 'LISTEN' in n]); os.fstat(3)"
result = subprocess.run(
    [sys.executable, "-c", child], close_fds=False, capture_output=True, encoding="utf-8"
)
print(json.dumps([variables(), result.stdout, result.stderr.splitlines()[-1]]))
"""
    mine, childs, error = run(source, listener, LISTEN_PIDFDID="1", LISTEN_FDNAMES="web")
    assert (mine, childs) == ([], "[]\n")
    assert "Bad file descriptor" in error


def test_sockets_are_found_by_name_and_each_is_returned_once(listener):
    source = """
calls = [inherited_sockets(name) for name in ("web", "web", "none", None, None)]
print(json.dumps([[sock.fileno() for sock in sockets] for sockets in calls]))
"""
    found = run(source, listener, listener, listener, LISTEN_FDNAMES="web:api:web")
    assert found == [[3, 5], [], [], [4], []]


def test_clients_that_come_before_the_server_wait_for_it(listener):
    source = """
def once(connection):
    connection.send(connection.recv())
    connection.server.close()

with serve(once, sock=inherited_sockets()[0]) as server:
    server.serve_forever()
print(json.dumps(server.server_address))
"""

    def ask():
        with connect(f"ws://127.0.0.1:{listener.getsockname()[1]}") as client:
            client.send("hello")
            return client.recv(timeout=PATIENCE)

    asking = Task(ask)
    assert run(source, listener) == list(listener.getsockname())
    assert asking.result() == "hello"


# --- What is not ----------------------------------------------------------------------------------


def test_without_variables_there_are_no_sockets(monkeypatch):
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        monkeypatch.delenv(name, raising=False)
    assert inherited_sockets() == []


@pytest.mark.parametrize(
    "variables",
    [
        {"LISTEN_PID": str(os.getppid()), "LISTEN_FDS": "1"},
        {"LISTEN_PID": str(os.getpid())},
        {"LISTEN_FDS": "1"},
    ],
    ids=["another process", "no number", "no process"],
)
def test_variables_for_nobody_or_another_process_are_removed(variables, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert inherited_sockets() == []
    assert not variables.keys() & os.environ.keys()


@pytest.mark.parametrize("value", ["", "0", "-1", "1.0", " 1", "1_0", "²", "one"])
@pytest.mark.parametrize("name", ["LISTEN_PID", "LISTEN_FDS"])
def test_a_malformed_number_is_an_error(name, value, monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"^{name} must be a positive number, not '"):
        inherited_sockets()
    assert name not in os.environ


def test_names_must_be_as_many_as_sockets(monkeypatch):
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_FDNAMES", "web:api")
    with pytest.raises(ValueError, match=r"^LISTEN_FDS is 1, but LISTEN_FDNAMES has 2: 'web:api'"):
        inherited_sockets()
    assert "LISTEN_FDNAMES" not in os.environ


def test_a_descriptor_that_is_not_open_is_an_error(listener):
    source = "print(json.dumps(error()))"
    assert run(source, listener, LISTEN_FDS="2") == "LISTEN_FDS is 2, but 4 is not open"


def test_what_does_not_listen_is_an_error_and_left_where_it_is(listener):
    source = """
found = [error("file"), error("datagram"), error("accepted"), error()]
print(json.dumps([found, describe(inherited_sockets("web"))]))
"""
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(open(os.devnull, "rb"))
        datagram = stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        accepted, other = socket.socketpair()
        stack.enter_context(accepted)
        stack.enter_context(other)
        files = [listener, file, datagram, accepted]
        errors, sockets = run(source, *files, LISTEN_FDNAMES="web:file:datagram:accepted")
    assert errors[0].startswith("inherited descriptor 4 is no socket: ")
    assert errors[1].startswith("inherited descriptor 5 is no stream socket that listens; ")
    assert errors[2].startswith("inherited descriptor 6 is no stream socket that listens; ")
    assert errors[3] == errors[0]
    assert sockets == [[3, "AF_INET", "SOCK_STREAM"]]
