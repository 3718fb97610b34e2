"""The examples: each runs as a program of its own, does what it says, and ends cleanly."""

from __future__ import annotations

import ast
import contextlib
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from conftest import wait_until
from links import echo
from peers import Task
from ports import held_port
from supervisor import launch

from syncws import ConnectionClosedOK, connect, serve

ROOT = pathlib.Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))

PATIENCE = 20  # seconds; a process takes a while to start

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send the signals")


def command(name, *arguments):
    """How to run an example, with all warnings as errors."""
    path = str(ROOT / "examples" / name)
    return [sys.executable, "-X", "dev", "-W", "error", path, *map(str, arguments)]


def environment():
    """What the examples are run with: this package, wherever it comes from."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(name, *arguments):
    """Run an example that ends by itself; returns the lines that it printed."""
    result = subprocess.run(
        command(name, *arguments),
        env=environment(),
        capture_output=True,
        encoding="utf-8",
        timeout=PATIENCE,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout.splitlines()


class Running:
    """An example that serves until it gets a signal."""

    def __init__(self, process):
        self._process = process
        self.uri = process.stdout.readline().strip()

    def end(self, number):
        """Send a signal; returns the lines printed after the address."""
        self._process.send_signal(number)
        out, err = self._process.communicate(timeout=PATIENCE)
        assert (self._process.returncode, err) == (0, "")
        return out.splitlines()

    def interrupt(self):
        """Send what Ctrl-C does, and see that it ends well, whatever it prints."""
        self._process.send_signal(signal.SIGINT)
        assert self._process.wait(PATIENCE) == 0


@contextlib.contextmanager
def running(name, *arguments, sockets=()):
    """
    Run an example that serves; yields it once it has printed its address.

    It takes care of signals when it has accepted a connection, so tests connect first.
    """
    with launch(command(name, *arguments), *sockets) as process:
        try:
            yield Running(process)
        finally:
            process.kill()


def exchange(connection, message):
    connection.send(message)
    return connection.recv(timeout=PATIENCE)


both_signals = pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])


# --- What they look like --------------------------------------------------------------------------


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 40


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_says_how_to_run_it(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert re.search(rf"^    python examples/{path.name}\b", docstring, re.MULTILINE)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_run_by_a_test(path):
    source = pathlib.Path(__file__).read_text(encoding="utf-8")
    assert re.search(rf'\b(run|running)\("{path.name}"', source)


# --- What they do ---------------------------------------------------------------------------------


@both_signals
def test_echo_server(number):
    with running("echo_server.py", 0) as server:
        with connect(server.uri) as client:
            assert exchange(client, "hello") == "hello"
            assert exchange(client, b"\x00\xff") == b"\x00\xff"
        assert server.end(number) == []


def test_echo_client():
    with serve(echo, "127.0.0.1", 0).start() as server:
        uri = f"ws://127.0.0.1:{server.server_address[1]}"
        assert run("echo_client.py", uri) == ["Hello!", "Goodbye!"]
        assert run("echo_client.py", uri, "a", "ü") == ["a", "ü"]


@both_signals
def test_chat(number):
    with running("chat.py", 0) as server:
        with connect(server.uri + "/Ada") as ada:
            assert ada.recv(timeout=PATIENCE) == "Ada came in"
            with connect(server.uri) as other:
                assert other.recv(timeout=PATIENCE) == "somebody came in"
                assert ada.recv(timeout=PATIENCE) == "somebody came in"
                ada.send("hi")
                assert other.recv(timeout=PATIENCE) == "Ada: hi"
                assert ada.recv(timeout=PATIENCE) == "Ada: hi"
            assert ada.recv(timeout=PATIENCE) == "somebody left"
        assert server.end(number) == []


def test_health_check():
    with running("health_check.py", 0) as server:
        url = server.uri.replace("ws://", "http://")[: -len("/ws")]
        with connect(server.uri) as client:
            assert exchange(client, "hello") == "hello"
            with urllib.request.urlopen(url + "/healthz", timeout=PATIENCE) as response:
                assert (response.status, response.read()) == (200, b"OK\n")
            with urllib.request.urlopen(url + "/", timeout=PATIENCE) as response:
                assert (response.status, response.read()) == (200, b"1 connected\n")
            with pytest.raises(urllib.error.HTTPError, match="404") as raised:
                urllib.request.urlopen(url + "/elsewhere", timeout=PATIENCE)
            raised.value.close()
        assert server.end(signal.SIGTERM) == []


@both_signals
def test_graceful_shutdown(number):
    with running("graceful_shutdown.py", 0) as server, connect(server.uri) as client:
        assert exchange(client, "some words") == "2"
        assert server.end(number) == ["saved: 2 words", "1 closed, 0 cut off"]
        with pytest.raises(ConnectionClosedOK, match="received 1001") as raised:
            client.recv(timeout=PATIENCE)
        assert raised.value.rcvd_then_sent


@pytest.fixture
def pem_files(authority, tmp_path):
    """Paths of a certificate with its chain, of its key, and of its authority."""
    certificate = authority.issue_cert("localhost")
    chain, key, root = tmp_path / "chain.pem", tmp_path / "key.pem", tmp_path / "root.pem"
    for blob in certificate.cert_chain_pems:
        blob.write_to_path(chain, append=True)
    certificate.private_key_pem.write_to_path(key)
    authority.cert_pem.write_to_path(root)
    return chain, key, root


def test_tls_server(pem_files, client_context):
    chain, key, _ = pem_files
    with running("tls_server.py", chain, key, 0) as server:
        with connect(server.uri, ssl=client_context) as client:
            assert exchange(client, "hello") == "hello"
        assert server.end(signal.SIGTERM) == []


def test_tls_client(pem_files, server_context):
    with serve(echo, "localhost", 0, ssl=server_context).start() as server:
        uri = f"wss://localhost:{server.server_address[1]}"
        assert run("tls_client.py", pem_files[2], uri) == ["Hello!"]


@both_signals
def test_own_main_loop(number):
    with running("own_main_loop.py", 0) as server:
        with connect(server.uri) as client:
            first = int(client.recv(timeout=PATIENCE))
            assert int(client.recv(timeout=PATIENCE)) == first + 1
            client.send("no number")
            client.send("1000000")
            while (last := int(client.recv(timeout=PATIENCE))) < 1000000:
                pass
            assert last == 1000000
        (line,) = server.end(number)
        assert int(line[len("ended at ") :]) >= 1000000


def test_many_senders():
    with serve(echo, "127.0.0.1", 0).start() as server:
        lines = run("many_senders.py", f"ws://127.0.0.1:{server.server_address[1]}")
    assert len(lines) == 15
    for sensor in ("temperature", "pressure", "humidity"):
        of_one = [line for line in lines if line.startswith(sensor)]
        assert of_one == [f"{sensor} {reading}" for reading in range(5)]


def test_metrics():
    with running("metrics.py", 0) as server:
        with connect(server.uri) as client:
            assert exchange(client, "three words here") == "three words here"
            url = server.uri.replace("ws://", "http://") + "/metrics"
            with urllib.request.urlopen(url, timeout=PATIENCE) as response:
                lines = response.read().decode().splitlines()
        assert "echo_words_total 3.0" in lines
        assert "syncws_received_messages_total 1.0" in lines
        assert server.end(signal.SIGTERM) == []


def test_gunicorn_app_without_gunicorn():
    with running("gunicorn_app.py", 0) as server:
        with connect(server.uri) as client:
            assert exchange(client, "hello") == "hello"
        assert server.end(signal.SIGTERM) == []


@both_signals
def test_systemd_socket(number):
    with socket.create_server(("localhost", 0)) as listener:
        with running("systemd_socket.py", sockets=[listener]) as server:
            assert server.uri == f"ws://localhost:{listener.getsockname()[1]}"
            with connect(server.uri) as client:
                assert exchange(client, "hello") == "hello"
                ending = Task(server.end, number)
                assert exchange(client, "still here") == "still here"
            assert ending.result() == []


@both_signals
def test_reconnecting_client(number):
    connected = []
    printed, again = threading.Event(), threading.Event()

    def greet(connection):
        connected.append(True)
        connection.send(f"hello {len(connected)}")
        if len(connected) == 1:
            printed.wait(PATIENCE)  # else the first read might take two lines, and drop one
            return
        again.set()
        for _ in connection:
            pass

    with serve(greet, "127.0.0.1", 0).start() as server:
        uri = f"ws://127.0.0.1:{server.server_address[1]}/"
        with running("reconnecting_client.py", uri) as client:
            assert client.uri == "hello 1"
            printed.set()
            assert again.wait(PATIENCE)
            first, *rest = client.end(number)
    assert first.startswith(f"connection ended to {uri}: received 1000 (OK)")
    assert rest in ([], ["hello 2"])


def test_systemd_socket_without_systemd():
    with running("systemd_socket.py", 0) as server:
        with connect(server.uri) as client:
            assert exchange(client, "hello") == "hello"
        assert server.end(signal.SIGTERM) == []


# --- Inside of other programs ---------------------------------------------------------------------


@pytest.fixture
def free_ports():
    """Two free ports."""
    with held_port() as one, held_port() as other:
        yield one, other


def listens(port):
    with socket.socket() as sock:
        return sock.connect_ex(("localhost", port)) == 0


def check_views(server, port):
    """A view tells all connections, and says how many."""
    assert wait_until(lambda: listens(port))
    origin = f"http://localhost:{port}"
    with connect(server.uri, origin=origin) as client:
        assert exchange(client, "hi") == "You said: hi"
        with urllib.request.urlopen(f"{origin}/notify/hello", timeout=PATIENCE) as response:
            assert response.read() == b"1 told\n"
        assert client.recv(timeout=PATIENCE) == "hello"


def check_signal(server):
    """Ctrl-C ends it; the web server has its own lines on standard output and error."""
    with connect(server.uri) as client:
        server.interrupt()
        assert list(client) == []
        assert client.close_code == 1001


def test_flask_app(free_ports):
    pytest.importorskip("flask")
    with running("flask_app.py", *free_ports) as server:
        check_views(server, free_ports[1])
        with urllib.request.urlopen(f"http://localhost:{free_ports[1]}/", timeout=PATIENCE) as page:
            assert server.uri.encode() in page.read()
        check_signal(server)


def test_django_app(free_ports):
    pytest.importorskip("django")
    with running("django_app.py", *free_ports) as server:
        check_views(server, free_ports[1])
        check_signal(server)


@pytest.fixture
def display(monkeypatch):
    """A screen: the one that there is, or one that nobody sees."""
    if "DISPLAY" in os.environ:
        yield
        return
    if shutil.which("Xvfb") is None:
        pytest.skip("there is no display, and no Xvfb to make one")
    command = ["Xvfb", "-displayfd", "1", "-nolisten", "tcp", "-screen", "0", "640x480x24"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="ascii"
    ) as process:
        try:
            monkeypatch.setenv("DISPLAY", f":{process.stdout.readline().strip()}")
            yield
        finally:
            process.terminate()


def test_tk_window(display):
    pytest.importorskip("tkinter")
    with running("tk_window.py", 0) as server:
        with connect(server.uri) as client:
            client.send("measured 1")
            client.send("measured 2")
            client.ping().wait(PATIENCE)
        assert server.end(signal.SIGTERM) == ["shown: ('measured 1', 'measured 2')"]


def test_qt_window(monkeypatch):
    pytest.importorskip("PySide6")
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setenv("QT_LOGGING_RULES", "default.warning=false")  # of what that can't do
    with running("qt_window.py", 0) as server:
        with connect(server.uri) as client:
            client.send("measured")
        assert server.end(signal.SIGTERM) == []
