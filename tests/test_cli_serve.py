"""``syncws serve``, ``listen`` and ``broadcast``: servers from the command line."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

import pytest
from commandline import PATIENCE, ROOT, address_of, feed, program

from syncws import ConnectionClosed, connect, unix_connect
from syncws.cli import main
from syncws.commands.failures import Failure
from syncws.commands.handlers import load_handler
from syncws.commands.reloading import FileWatch, own_files

ECHO = """\
def handler(connection):
    for message in connection:
        connection.send({answer})
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, from which modules can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    modules = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(folder, name, text):
    (folder / name).write_text(text)


# --- serve ----------------------------------------------------------------------------------------


@contextlib.contextmanager
def serving(folder, *arguments, answer="message", **options):
    """The command in a process; yields it and the address that it tells."""
    write(folder, "app.py", ECHO.format(answer=answer))
    with program("serve", *arguments, cwd=folder, **options) as process:
        yield process, address_of(process.stdout.readline())


def stop(process, number=signal.SIGTERM):
    process.send_signal(number)
    _, err = process.communicate(timeout=PATIENCE)
    return process.returncode, err


def exchange(uri, message="hello", **options):
    with connect(uri, **options) as connection:
        connection.send(message)
        return connection.recv(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_function_is_served_until_a_signal(number, tmp_path):
    with serving(tmp_path, "app:handler", "--port=0", "--quiet") as (process, uri):
        with connect(uri) as connection:
            connection.send("hello")
            assert connection.recv(timeout=PATIENCE) == "hello"
            assert stop(process, number) == (0, "")
            with pytest.raises(ConnectionClosed, match="received 1001"):
                connection.recv(timeout=PATIENCE)


def test_options_reach_the_server(tmp_path):
    arguments = ["--health=/healthz", "--subprotocol=chat", "--no-compression", "--origin=http://a"]
    with serving(tmp_path, "app", "--port=0", *arguments) as (process, uri):
        with urllib.request.urlopen(f"{uri.replace('ws', 'http', 1)}healthz") as response:
            assert response.status == 200
        with connect(uri, subprotocols=["chat"], origin="http://a") as connection:
            assert connection.subprotocol == "chat"
            assert "Sec-WebSocket-Extensions" not in connection.response.headers
        code, err = stop(process)
    assert code == 0
    assert "INFO syncws.server: server listening on " in err


def test_tls_is_served(tmp_path, authority, client_context):
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        tmp_path / "both.pem"
    )
    with serving(tmp_path, "app", "--port=0", "--cert=both.pem", "-q") as (process, uri):
        assert uri.startswith("wss://")
        assert exchange(uri, ssl=client_context) == "hello"
        assert stop(process) == (0, "")


def test_a_unix_socket_is_served_and_removed(tmp_path):
    write(tmp_path, "app.py", ECHO.format(answer="message"))
    with program("serve", "app", "--unix=socket", "-q", cwd=tmp_path) as process:
        assert process.stdout.readline().startswith("serving at Unix socket socket ")
        with unix_connect(tmp_path / "socket") as connection:
            connection.send("hello")
            assert connection.recv(timeout=PATIENCE) == "hello"
        assert stop(process) == (0, "")
    assert not (tmp_path / "socket").exists()


def test_a_socket_of_the_supervisor_is_served(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        script = 'exec 3<&"$0"; LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"'
        write(tmp_path, "app.py", ECHO.format(answer="message"))
        command = [sys.executable, "-m", "syncws", "serve", "app", "-q"]
        with subprocess.Popen(
            ["bash", "-c", script, str(sock.fileno()), *command],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            pass_fds=[sock.fileno()],
            stdout=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                uri = address_of(process.stdout.readline())
                assert uri == f"ws://127.0.0.1:{sock.getsockname()[1]}/"
                assert exchange(uri) == "hello"
                process.terminate()
                assert process.wait(PATIENCE) == 0
            finally:
                process.kill()


def test_a_change_starts_the_server_again_on_the_same_port(tmp_path):
    with serving(tmp_path, "app", "--port=0", "--reload", "-q", answer="'one'") as (process, uri):
        with connect(uri) as connection:
            connection.send("which?")
            assert connection.recv(timeout=PATIENCE) == "one"
            write(tmp_path, "app.py", ECHO.format(answer="'two'"))
            with pytest.raises(ConnectionClosed, match="received 1012"):
                connection.recv(timeout=PATIENCE)
        assert process.stdout.readline() == "app.py has changed, starting again\n"
        # Nobody is refused meanwhile.
        assert exchange(uri) == "two"
        assert address_of(process.stdout.readline()) == uri
        write(tmp_path, "app.py", "a mistake")
        assert process.stdout.readline() == "app.py has changed, starting again\n"
        assert "importing app failed: SyntaxError: " in process.stderr.readline()
        write(tmp_path, "app.py", ECHO.format(answer="'three'"))
        assert address_of(process.stdout.readline()) == uri
        assert exchange(uri) == "three"
        assert stop(process) == (0, "")


def test_own_files_are_watched_but_not_those_of_python():
    files = set(own_files())
    assert main.__code__.co_filename in files
    assert threading.__file__ not in files


def test_a_file_that_changes_or_goes_is_noticed(tmp_path):
    write(tmp_path, "a.txt", "text")
    path = str(tmp_path / "a.txt")
    watch = FileWatch(time.time_ns(), (path,))
    assert watch.changed() is None
    os.utime(path, ns=(1, 1))
    assert watch.changed() == path
    watch = FileWatch(time.time_ns(), (path,))
    assert watch.changed() is None
    os.unlink(path)
    assert watch.wait(threading.Event()) == path


def test_a_change_before_the_watch_begins_is_noticed(tmp_path):
    write(tmp_path, "a.txt", "text")
    path = str(tmp_path / "a.txt")
    began = os.stat(path).st_mtime_ns - 1
    assert FileWatch(began, (path,)).changed() == path
    in_future = time.time_ns() + 10**12
    os.utime(path, ns=(in_future, in_future))
    assert FileWatch(began, (path,)).changed() is None


# --- Handlers -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "source", "complaint"),
    [
        ("missing:handler", "", "there is no module missing here or in Python's path"),
        ("app:missing", "", "app has no missing"),
        ("app", "def chat(c): pass", "app has no handler; its functions are chat"),
        (":handler", "", "the module is missing; expected module:function"),
        ("app:x", "x = 1", "app:x is no function, but int"),
        ("app:x", "async def x(c): pass", "app:x is an async function; handlers are ordinary"),
        ("app:x", "def x(): pass", r"app:x\(\) can't be called with one argument, the connection"),
        ("app:x", "def x(a, b): pass", r"app:x\(a, b\) can't be called with one argument"),
        ("app:x", "def x(c): yield", "app:x has a yield, so that calling it does nothing"),
        (
            "app:x",
            "import nothing_at_all",
            r"failed: ModuleNotFoundError: No .*line 1",
        ),
        ("app:x", "\n1 / 0", r"importing app failed: ZeroDivisionError: .*app\.py, line 2\)"),
        ("app:x", "def x(", "importing app failed: SyntaxError: "),
    ],
)
def test_a_handler_that_is_none_is_explained(spec, source, complaint, folder):
    write(folder, "app.py", source)
    with pytest.raises(Failure, match=complaint):
        load_handler(spec)


@pytest.mark.parametrize("spec", ["app:one.handle", "app.py:one.handle", "./app.py:one.handle"])
def test_a_method_may_be_the_handler(spec, folder):
    write(folder, "app.py", "class One:\n    def handle(self, c): pass\none = One()\n")
    assert load_handler(spec).__name__ == "handle"


def test_a_missing_handler_is_one_line(folder, capsys):
    assert main(["serve", "missing"]) == 1
    assert capsys.readouterr().err == (
        "syncws: there is no module missing here or in Python's path; expected module:function\n"
    )


# --- listen ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def listening(*arguments):
    with program("listen", "--port=0", *arguments) as process:
        line = process.stderr.readline()
        assert line.startswith("listening at ws://127.0.0.1:")
        yield process, address_of(line)


def test_what_is_sent_is_written(capfd):
    with listening() as (process, uri):
        with connect(uri) as first, connect(uri) as second:
            first.send("one")
            assert process.stdout.readline() == "one\n"
            second.send(b"\x00\xff")
            assert process.stdout.readline() == "00ff\n"
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


def test_it_ends_after_so_many_messages():
    with listening("--messages=2", "--binary=base64") as (process, uri):
        with connect(uri) as connection:
            for message in ("one", b"\x00", "three"):
                connection.send(message)
            out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (0, "one\nAA==\n", "")


def test_raw_messages_are_written_as_they_are():
    with listening("--messages=2", "--binary=raw") as (process, uri):
        with connect(uri) as connection:
            connection.send(b"no line ")
            connection.send(b"end")
            assert process.communicate(timeout=PATIENCE) == ("no line end", "")


def test_verbose_tells_who_comes_and_goes():
    with listening("--verbose") as (process, uri):
        with connect(uri) as connection:
            name = ":".join(map(str, connection.local_address))
        assert process.stderr.readline() == f"* {name} came\n"
        assert process.stderr.readline().startswith(f"* {name} went: received 1000 (OK); ")


def test_it_ends_when_nobody_reads_the_output():
    with listening() as (process, uri), connect(uri) as connection:
        process.stdout.close()
        connection.send("one")
        assert process.stderr.read() == "syncws: nobody reads the output any more\n"
        assert process.wait(PATIENCE) == 1


# --- broadcast ------------------------------------------------------------------------------------


@contextlib.contextmanager
def broadcasting(*arguments):
    with program("broadcast", "--port=0", *arguments, stdin=subprocess.PIPE) as process:
        line = process.stderr.readline()
        assert line.startswith("broadcasting at ws://127.0.0.1:")
        yield process, address_of(line)


def tell(process, text):
    process.stdin.write(text)
    process.stdin.flush()


def test_each_line_goes_to_all_clients_and_the_end_closes():
    with broadcasting("--clients=2") as (process, uri):
        tell(process, "one\nGrüße\n")
        process.stdin.close()
        with connect(uri) as first, connect(uri) as second:
            for client in (first, second):
                assert list(client) == ["one", "Grüße"]
                assert client.close_code == 1001
        assert (process.wait(PATIENCE), process.stderr.read()) == (0, "")


def test_the_last_line_goes_to_those_that_come_later():
    with broadcasting("--last", "--binary=hex", "--clients=1") as (process, uri):
        tell(process, "00\n01\n")
        with connect(uri) as first:
            assert [first.recv(timeout=PATIENCE), first.recv(timeout=PATIENCE)] == [b"\0", b"\1"]
            with connect(uri) as second:
                assert second.recv(timeout=PATIENCE) == b"\1"


def test_a_client_that_does_not_keep_up_holds_up_the_input_if_wanted():
    lines = [str(number).rjust(100_000, "0") for number in range(100)]
    with broadcasting("--on-full=wait", "--clients=1") as (process, uri):
        with connect(uri, max_queue=1) as client:
            writer = threading.Thread(target=tell, args=(process, "\n".join(lines)))
            writer.start()
            assert [client.recv(timeout=PATIENCE) for _ in lines[:-1]] == lines[:-1]
            writer.join()
            process.stdin.close()
            assert client.recv(timeout=PATIENCE) == lines[-1]
        assert process.wait(PATIENCE) == 0


def test_messages_that_were_left_out_are_told():
    with broadcasting("--clients=1") as (process, uri):
        with connect(uri, max_queue=1, compression=None) as client:
            tell(process, f"{'x' * 1_000_000}\n" * 50)
            process.stdin.close()
            received = sum(1 for _ in client)
        err = process.stderr.read()
    assert received < 50
    assert err.endswith(f"\nsyncws: {50 - received} messages were left out\n")
    assert [line.partition(":")[0] for line in err.splitlines()] == ["syncws", "syncws"]


def test_ctrl_c_ends_it_gracefully_with_130():
    with broadcasting("--clients=1") as (process, uri), connect(uri) as client:
        tell(process, "one\n")
        assert client.recv(timeout=PATIENCE) == "one"
        process.send_signal(signal.SIGINT)
        with pytest.raises(ConnectionClosed, match="received 1001"):
            client.recv(timeout=PATIENCE)
        assert (process.wait(PATIENCE), process.stderr.read()) == (130, "")


def test_input_that_is_no_text_ends_it(monkeypatch, capsys):
    feed(monkeypatch, b"\xff\n")
    assert main(["broadcast", "--port=0"]) == 1
    assert capsys.readouterr().err.endswith("syncws: the input is no utf-8; see --binary\n")
