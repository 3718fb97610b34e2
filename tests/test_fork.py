"""Forked children, and programs that end without closing anything."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import textwrap
import threading
import time

import pytest
from conftest import wait_until
from links import PATIENCE, Held, echo
from peers import Task

ROOT = pathlib.Path(__file__).parent.parent

# A child must use nothing that other threads may have held at the fork; these functions use
# the connections alone.
pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning"),
]


def in_child(function):
    """Run a function in a forked child; returns what it says."""
    readable, writable = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writable, str(function()).encode())
        except BaseException as exc:
            os.write(writable, repr(exc).encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as file:
        said = file.read().decode()
    assert os.waitpid(pid, 0)[1] == 0
    return said


def says(connection, text="hello"):
    connection.send(text)
    return connection.recv(PATIENCE) == text


# Children


def test_connections_are_closed_in_the_child_and_go_on_in_the_parent(slow_link):
    def use():
        found = []
        for call in (lambda: client.send("x"), lambda: client.recv(1), lambda: client.ping()):
            try:
                call()
            except Exception as exc:
                found.append(f"{type(exc).__name__}: {exc.__cause__}")
        client.close()
        found.append(client.fileno())
        return sorted(set(map(str, found)))

    with slow_link.serve(echo).start() as server, slow_link.connect(server) as client:
        said = in_child(use)
        cause = "the connection belongs to the parent process"
        assert said == str(["-1", f"ConnectionClosedError: {cause}"])
        assert says(client)
        assert client.close_code is None


def test_a_child_that_lives_on_does_not_keep_connections_open(plain):
    readable, writable = os.pipe()
    with plain.serve(echo).start() as server:
        client = plain.connect(server)
        pid = os.fork()
        if not pid:
            os.read(readable, 1)
            os._exit(0)
        try:
            client.close()
            assert client.wait_closed(PATIENCE)
        finally:
            os.write(writable, b"x")
            os.waitpid(pid, 0)
            os.close(readable)
            os.close(writable)


def test_a_server_that_serves_is_closed_in_the_child(plain):
    with plain.serve(echo).start() as server:
        said = in_child(lambda: (server.is_closing, server.fileno(), server.shutdown()))
        assert said == "(True, -1, ShutdownReport(closed=0, aborted=0, running=[]))"
        with plain.connect(server) as client:
            assert says(client)


def test_a_server_whose_thread_has_not_begun_is_closed_in_the_child(plain, monkeypatch):
    go_on = threading.Event()
    with plain.serve(echo) as server:
        serve = server._serve
        monkeypatch.setattr(server, "_serve", lambda: go_on.wait(PATIENCE) and serve())
        server.start()
        assert in_child(lambda: (server.is_closing, server.fileno())) == "(True, -1)"
        go_on.set()
        with plain.connect(server) as client:
            assert says(client)


def test_a_child_does_not_keep_handshakes_open(plain):
    readable, writable = os.pipe()
    with plain.serve(echo, open_timeout=0.5).start() as server, plain.socket(server) as sock:
        assert wait_until(lambda: server.stats()["opening"] == 1)
        pid = os.fork()
        if not pid:
            os.read(readable, 1)
            os._exit(0)
        try:
            assert sock.recv(1) == b""
        finally:
            os.write(writable, b"x")
            os.waitpid(pid, 0)
            os.close(readable)
            os.close(writable)


def test_a_server_made_before_may_serve_in_the_child(plain):
    with plain.serve(lambda connection: connection.send(str(os.getpid()))) as server:
        pid = os.fork()
        if not pid:
            server.serve_forever()
            os._exit(0)
        try:
            with plain.connect(server) as client:
                assert client.recv(PATIENCE) == str(pid)
        finally:
            os.kill(pid, 15)
            assert os.waitpid(pid, 0)[1] == 0


def test_a_child_may_have_connections_of_its_own(plain):
    with plain.serve(echo).start() as server, plain.connect(server):

        def use():
            with plain.connect(server) as own:
                return says(own)

        assert in_child(use) == "True"


def test_masking_keys_of_parent_and_child_differ(plain):
    held = Held()
    with plain.serve(held).start() as server, plain.connect(server) as client:
        connection = held.wait()
        keys = [client._outbound.encode(0x81, bytes(8))[0][-4:].hex() for _ in range(2)]
        keys += in_child(lambda: client._outbound.encode(0x81, bytes(8))[0][-4:].hex()).split()
        keys.append(client._outbound.encode(0x81, bytes(8))[0][-4:].hex())
        assert len(set(keys)) == 4
        held.release()
        del connection


# Programs that end


def run(program):
    """Run a program that is expected to end by itself; how long it took, and its output."""
    began = time.monotonic()
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        timeout=PATIENCE * 3,
        text=True,
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr, time.monotonic() - began


def test_a_program_that_forgets_to_close_ends_and_says_1001(plain):
    codes = []

    def handler(connection):
        connection.send("hello")
        assert list(connection) == []
        codes.append(connection.close_code)

    with plain.serve(handler).start() as server:
        program = f"""
            from syncws import connect
            connection = connect({plain.uri(server)!r})
            print(connection.recv())
        """
        status, out, err, seconds = run(program)
        server.shutdown()
    assert (status, out, err) == (0, "hello\n", "")
    assert codes == [1001]
    assert seconds < 5


def test_a_program_whose_peers_are_silent_ends_within_two_seconds(plain):
    held = Held()
    with plain.serve(held, ping_interval=None).start() as server:
        program = f"""
            import time
            from syncws import connect
            connection = connect({plain.uri(server)!r}, max_queue=1)
            connection.send(b"x" * 1000)
            ready = time.monotonic()
            import atexit
            from syncws.service import service
            atexit.unregister(service.say_goodbye)
            atexit.register(lambda: print(time.monotonic() - ready < 2))
            atexit.register(service.say_goodbye)
        """
        task = Task(run, program)
        status, out, err, _ = task.result(PATIENCE * 3)
        held.release()
    assert (status, out, err) == (0, "True\n", "")


def test_a_server_that_is_forgotten_ends_with_its_program():
    program = """
        from syncws import connect, serve
        def handler(connection):
            for message in connection:
                connection.send(message)
        server = serve(handler, "127.0.0.1", 0).start()
        client = connect("ws://127.0.0.1:%d" % server.server_address[1])
        client.send("hello")
        print(client.recv())
    """
    status, out, err, seconds = run(program)
    assert (status, out, err) == (0, "hello\n", "")
    assert seconds < 5
