"""Workers of the real Gunicorn: they serve, restart, reload and end without losing a client."""

from __future__ import annotations

import collections
import contextlib
import http.client
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading

import pytest
from conftest import wait_until
from links import PATIENCE
from peers import Task

from syncws import (
    ConnectionClosed,
    ConnectionClosedOK,
    InvalidHandshake,
    InvalidStatus,
    connect,
    unix_connect,
)

if sys.platform == "win32":
    pytest.skip("Gunicorn runs on Unix only", allow_module_level=True)

from syncws.gunicorn import App

ROOT = pathlib.Path(__file__).parent.parent

# What the console script of Gunicorn does; as a file, so that Gunicorn can start itself again.
SCRIPT = """
from gunicorn.app.wsgiapp import run
run(prog="gunicorn")
"""

# It answers with its process and its version. The other messages are for single tests.
APP = """
import os, threading
from syncws.gunicorn import App

VERSION = 1

def handler(connection):
    for message in connection:
        if message == "block":
            threading.Event().wait()
        elif message == "close":
            connection.server.close()
        elif message == "cores":
            connection.send(str(sorted(os.sched_getaffinity(0))))
        else:
            connection.send(f"{os.getpid()} {VERSION}")

app = App(handler, drain=0)
patient = App(handler)
draining = App(handler, drain=0.5)
healthy = App(handler, drain=0, health="/healthz")
alone = App(handler, drain=0, core_per_worker=True)

def wsgi(environ, start_response):
    pass
"""


class Gunicorn:
    """Gunicorn in processes of its own, and what they log."""

    def __init__(self, process):
        self.process = process
        self._lines = []
        self._changed = threading.Condition()
        self._reader = Task(self._read)

    def _read(self):
        for line in self.process.stderr:
            with self._changed:
                self._lines.append(line.rstrip())
                self._changed.notify_all()

    def log(self):
        with self._changed:
            return "\n".join(self._lines)

    def wait_for(self, pattern, count=1):
        """Wait until a pattern is in the log so often; returns the groups of the last match."""

        def found():
            return len(re.findall(pattern, "\n".join(self._lines))) >= count

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), "\n".join(self._lines)
        return list(re.finditer(pattern, self.log()))[count - 1].groups()

    def wait_for_workers(self, count):
        """Wait until so many workers serve, or did; returns the process ids."""
        self.wait_for("server listening on", count)
        return list(map(int, re.findall(r"Booting worker with pid: (\d+)", self.log())))

    @property
    def port(self):
        return int(self.wait_for(r"Listening at: https?://127\.0\.0\.1:(\d+)")[0])

    def connect(self, **options):
        return connect(f"ws://127.0.0.1:{self.port}", open_timeout=PATIENCE, **options)

    def send_signal(self, number):
        self.process.send_signal(number)

    def end(self, number=signal.SIGTERM):
        """Have it end without killing any process of its own; returns the log."""
        self.send_signal(number)
        assert self.process.wait(PATIENCE) == 0, self.log()
        self._reader.result()  # workers have the pipe, too
        assert "SIGKILL" not in self.log()
        assert "Traceback" not in self.log()
        return self.log()

    def kill(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.result()
        self.process.stderr.close()


@pytest.fixture
def gunicorn(tmp_path):
    """A function that starts Gunicorn: an application of ``APP``, or any other, and settings."""
    with contextlib.ExitStack() as stack:

        def start(application="app", *, workers=1, ready=True, **settings):
            settings = {
                "bind": "127.0.0.1:0",
                "workers": workers,
                "worker_class": "syncws.gunicorn.Worker",
                "control_socket_disable": True,  # ignored by releases that have none
                **settings,
            }
            lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
            (tmp_path / "gunicorn.conf.py").write_text("".join(lines), encoding="utf-8")
            (tmp_path / "run.py").write_text(SCRIPT, encoding="utf-8")
            if not (tmp_path / "served.py").exists():
                (tmp_path / "served.py").write_text(APP, encoding="utf-8")
            uri = application if ":" in application else f"served:{application}"
            process = subprocess.Popen(
                [sys.executable, "run.py", uri],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                stderr=subprocess.PIPE,
                encoding="utf-8",
                start_new_session=True,
            )
            started = Gunicorn(process)
            stack.callback(started.kill)
            if ready:
                started.wait_for_workers(workers)
            return started

        yield start


def ask(client, message="?"):
    client.send(message)
    return client.recv(timeout=PATIENCE)


def pid_of(client):
    return int(ask(client).split()[0])


def connect_to(server, pid):
    """Connect until a certain process has accepted; which one does is chance."""
    while True:
        client = server.connect()
        if pid_of(client) == pid:
            return client
        client.close()


def see_going_away(client):
    with pytest.raises(ConnectionClosedOK, match="received 1001"):
        client.recv(timeout=PATIENCE)


# Serving


def test_each_worker_serves(gunicorn):
    server = gunicorn(workers=2)
    for pid in server.wait_for_workers(2):
        with connect_to(server, pid) as client:
            assert pid_of(client) == pid


def test_an_ordinary_handler_needs_no_app(gunicorn):
    server = gunicorn("handler")
    with server.connect() as client:
        assert [pid_of(client)] == server.wait_for_workers(1)


def test_the_example_serves(gunicorn):
    server = gunicorn("gunicorn_app:app", workers=2, pythonpath=str(ROOT / "examples"))
    with server.connect() as client:
        assert ask(client, "hello") == "hello"


def test_an_application_that_is_loaded_before_the_fork_serves(gunicorn):
    server = gunicorn(workers=2, preload_app=True)
    with server.connect() as client:
        assert pid_of(client) in server.wait_for_workers(2)
        server.send_signal(signal.SIGTERM)
        see_going_away(client)
    server.end()


def test_a_worker_serves_several_addresses(gunicorn, tmp_path):
    path = str(tmp_path / "socket")
    server = gunicorn(bind=["127.0.0.1:0", f"unix:{path}"], ready=False)
    server.wait_for_workers(2)
    with server.connect() as one, unix_connect(path) as other:
        assert pid_of(one) == pid_of(other)


def test_certificates_are_those_of_gunicorns_settings(
    gunicorn, tmp_path, authority, client_context
):
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    server = gunicorn(certfile="server.pem", ciphers="ECDHE+AESGCM")
    uri = f"wss://127.0.0.1:{server.port}"
    with connect(uri, ssl=client_context, open_timeout=PATIENCE) as client:
        assert [pid_of(client)] == server.wait_for_workers(1)


def test_options_of_the_app_hold(gunicorn):
    server = gunicorn("healthy")
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", server.port)) as client:
        client.request("GET", "/healthz")
        assert client.getresponse().status == 200


def test_worker_connections_limit_the_connections(gunicorn):
    server = gunicorn(worker_connections=1)
    with server.connect():
        with pytest.raises(InvalidStatus, match="503"):
            server.connect()
    server.end()


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="there is no choice of cores",
)
def test_each_worker_has_a_core_of_its_own_even_after_one_was_replaced(gunicorn):
    server = gunicorn("alone", workers=2)
    first, second = server.wait_for_workers(2)
    os.kill(second, signal.SIGKILL)
    third = server.wait_for_workers(3)[2]
    with connect_to(server, first) as one, connect_to(server, third) as other:
        assert ask(one, "cores") != ask(other, "cores")


def test_connections_are_in_gunicorns_log(gunicorn):
    server = gunicorn()
    with server.connect() as client:
        client.send("hello")
    server.wait_for(r"\[INFO\] connection closed: 127.* received 1 messages")


def test_a_wsgi_application_is_told_apart(gunicorn):
    server = gunicorn("wsgi", ready=False)
    assert server.process.wait(PATIENCE) == 4
    server.wait_for(r"served:wsgi: wsgi\(environ, start_response\) can't be called")
    assert server.log().count("Booting worker") == 1


# Ending


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGINT])
def test_the_end_closes_connections_with_1001(gunicorn, number):
    server = gunicorn(workers=2)
    pids = server.wait_for_workers(2)
    with connect_to(server, pids[0]) as one, connect_to(server, pids[1]) as other:
        server.send_signal(number)
        see_going_away(one)
        see_going_away(other)
        server.end(number)


def test_connections_go_on_for_the_drain_time(gunicorn):
    server = gunicorn("draining")
    with server.connect() as client:
        server.send_signal(signal.SIGTERM)
        server.wait_for("server draining")
        assert pid_of(client)
        see_going_away(client)
    server.end()


def test_handlers_that_do_not_end_are_given_up_and_shown(gunicorn):
    server = gunicorn(graceful_timeout=1)
    with server.connect() as client:
        client.send("block")
        log = server.end()
    assert "A handler did not end in time" in log
    assert "threading.Event().wait()" in log


def test_sigquit_does_not_wait_for_handlers(gunicorn):
    server = gunicorn(graceful_timeout=1000)
    with server.connect() as client:
        client.send("block")
        server.end(signal.SIGQUIT)


def test_sigquit_hurries_a_worker_that_ends_gracefully(gunicorn):
    server = gunicorn(graceful_timeout=1000)
    (pid,) = server.wait_for_workers(1)
    with server.connect() as client:
        client.send("block")
        see_going_away_then = Task(see_going_away, client)
        os.kill(pid, signal.SIGTERM)
        see_going_away_then.result()
        os.kill(pid, signal.SIGQUIT)
        server.wait_for(rf"Worker exiting \(pid: {pid}\)")


def test_workers_end_when_their_parent_is_gone(gunicorn):
    server = gunicorn(workers=2)
    with server.connect() as client:
        server.process.kill()
        see_going_away(client)
    server.wait_for("Worker exiting", 2)


# Replacing


def test_a_killed_worker_is_replaced(gunicorn):
    server = gunicorn()
    (pid,) = server.wait_for_workers(1)
    os.kill(pid, signal.SIGKILL)
    other = server.wait_for_workers(2)[1]
    with server.connect() as client:
        assert pid_of(client) == other


def test_a_worker_that_accepts_no_more_is_replaced(gunicorn):
    server = gunicorn()
    with server.connect() as client:
        client.send("close")
        see_going_away(client)
    server.wait_for_workers(2)
    server.end()


def test_a_stuck_worker_is_replaced_but_not_one_whose_handler_blocks(gunicorn):
    server = gunicorn(workers=2, timeout=1)
    blocked, stuck = server.wait_for_workers(2)
    with connect_to(server, blocked) as client:
        client.send("block")
        os.kill(stuck, signal.SIGSTOP)
        server.wait_for_workers(3)
        assert re.findall(r"WORKER TIMEOUT \(pid:(\d+)\)", server.log()) == [str(stuck)]
        assert client.ping().wait(PATIENCE)


def test_a_worker_is_replaced_after_max_requests_connections(gunicorn):
    server = gunicorn(max_requests=2)
    with server.connect():
        pass
    with server.connect() as client:
        first = pid_of(client)
    second = server.wait_for_workers(2)[1]
    with server.connect() as client:
        assert pid_of(client) == second != first


def repeat_until(done, server):
    """Connect and ask, again and again; returns how often each version answered."""
    answers = collections.Counter()
    while not done.is_set():
        with server.connect() as client:
            # A connection that is open may be closed any time; an attempt must not fail.
            with contextlib.suppress(ConnectionClosedOK):
                answers[ask(client).split()[1]] += 1
    return answers


def test_a_reload_refuses_nobody(gunicorn, tmp_path):
    server = gunicorn("patient", workers=2)
    pids = server.wait_for_workers(2)
    done = threading.Event()
    with server.connect() as client:
        load = [Task(repeat_until, done, server) for _ in range(3)]
        try:
            changed = APP.replace("VERSION = 1", "VERSION = 2")
            (tmp_path / "served.py").write_text(changed, encoding="utf-8")
            server.send_signal(signal.SIGHUP)
            see_going_away(client)
            for pid in pids:
                server.wait_for(rf"Worker exiting \(pid: {pid}\)")
        finally:
            done.set()
        assert sum((task.result() for task in load), collections.Counter())["2"]
    with server.connect() as client:
        assert ask(client).split()[1] == "2"
    server.end()


def test_gunicorn_itself_is_replaced(gunicorn):
    server = gunicorn()
    with server.connect() as client:
        old = pid_of(client)
        server.send_signal(signal.SIGUSR2)
        new = server.wait_for_workers(2)[1]
        (master,) = server.wait_for(r"Listening at: \S+ \((\d+)\)", 2)
        server.send_signal(signal.SIGTERM)
        see_going_away(client)
    assert server.process.wait(PATIENCE) == 0
    with server.connect() as client:
        assert pid_of(client) == new != old
        os.kill(int(master), signal.SIGTERM)
        see_going_away(client)
    server.wait_for("Shutting down", 2)


def test_workers_come_and_go_by_signals(gunicorn):
    server = gunicorn()
    (first,) = server.wait_for_workers(1)
    server.send_signal(signal.SIGTTIN)
    second = server.wait_for_workers(2)[1]
    with connect_to(server, first) as one, connect_to(server, second) as other:
        server.send_signal(signal.SIGTTOU)
        see_going_away(one)
        assert pid_of(other) == second


def test_an_application_with_a_syntax_error_is_served_once_it_is_mended(gunicorn, tmp_path):
    (tmp_path / "served.py").write_text("def handler(:\n", encoding="utf-8")
    server = gunicorn(reload=True)
    with pytest.raises(InvalidStatus, match="500") as caught:
        server.connect()
    assert b"can't be loaded" in caught.value.response.body
    (tmp_path / "served.py").write_text(APP, encoding="utf-8")

    def is_noticed():
        # Gunicorn notices what changes after its first look at all files, whenever that is.
        os.utime(tmp_path / "served.py")
        return "Worker reloading" in server.log()

    def is_mended():
        with contextlib.suppress(InvalidHandshake, ConnectionClosed), server.connect() as client:
            return bool(pid_of(client))

    assert wait_until(is_noticed)
    assert wait_until(is_mended)


# Making an App


class HandlerObject:
    def __call__(self, connection):
        pass


class CoroutineObject:
    async def __call__(self, connection):
        pass


async def coroutine(connection):
    pass


async def asgi(scope, receive, send):
    pass


@pytest.mark.parametrize("handler", [lambda connection: None, HandlerObject(), print])
def test_an_app_takes_what_can_be_called_with_a_connection(handler):
    assert App(handler).handler is handler


@pytest.mark.parametrize("handler", [coroutine, CoroutineObject(), asgi])
def test_an_app_refuses_coroutine_functions(handler):
    with pytest.raises(TypeError, match=r"is an async function.*ASGI applications need"):
        App(handler)


@pytest.mark.parametrize("handler", [lambda: None, lambda environ, start_response: None])
def test_an_app_refuses_other_signatures(handler):
    with pytest.raises(TypeError, match=r"can't be called with one argument.*WSGI and ASGI appl"):
        App(handler)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("sock", "sock is not for App.*bind"),
        ("ssl", "ssl is not for App.*certfile"),
        ("kwargs", "no option kwargs"),
        ("max_sice", "no option max_sice"),
    ],
)
def test_an_app_refuses_options_that_it_does_not_know(option, message):
    with pytest.raises(TypeError, match=message):
        App(print, **{option: None})


def test_an_app_calls_its_handler():
    called = []
    App(called.append)("connection")
    assert called == ["connection"]
