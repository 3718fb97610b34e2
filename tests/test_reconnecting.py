"""reconnect(): what it repeats, how long it waits, and how it ends."""

from __future__ import annotations

import contextlib
import itertools
import logging
import signal
import socket
import ssl
import threading

import pytest
from links import PATIENCE, Held, echo
from peers import Task

import syncws.exceptions
from syncws import (
    ConcurrencyError,
    ConnectionClosed,
    ConnectionClosedOK,
    Headers,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
    InvalidURI,
    ProxyError,
    Response,
    SecurityError,
    process_exception,
    reconnect,
    serve,
    unix_reconnect,
    unix_serve,
)

AT_ONCE = {"reconnect_delays": lambda: itertools.repeat(0.0)}
NEVER = {"reconnect_delays": lambda: itertools.repeat(1e9)}


@pytest.fixture
def server():
    with serve(echo, "127.0.0.1", 0).start() as server:
        yield server


def uri(server, path="/"):
    return f"ws://127.0.0.1:{server.server_address[1]}{path}"


@pytest.fixture
def refused():
    """A URI where connections are refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{sock.getsockname()[1]}/"


class Log(logging.Handler):
    """The lines that a client logs; does something after so many of them."""

    def __init__(self):
        super().__init__()
        self.lines = []
        self.levels = []
        self.count = 0
        self.action = None

    def emit(self, record):
        self.lines.append(record.getMessage())
        self.levels.append(record.levelno)
        if len(self.lines) == self.count:
            self.action()

    def after(self, count, action):
        self.count, self.action = count, action


@pytest.fixture
def log():
    logger = logging.getLogger("syncws.client")
    handler = Log()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield handler
    logger.setLevel(logging.NOTSET)
    logger.removeHandler(handler)


@contextlib.contextmanager
def answering(*answers):
    """A server that refuses with each of some statuses and headers in turn, then accepts."""
    left = list(answers)

    def process_request(connection, request):
        if not left:
            return None
        status, headers = left.pop(0)
        response = connection.respond(status, "no\n")
        response.headers.update(headers)
        return response

    with serve(echo, "127.0.0.1", 0, process_request=process_request).start() as server:
        yield server


# Connections, one after the other


def test_each_round_has_a_new_open_connection():
    with serve(lambda c: c.send("hello"), "127.0.0.1", 0).start() as server:
        seen = []
        for connection in reconnect(uri(server), **AT_ONCE):
            seen.append((connection.id, list(connection)))
            if len(seen) == 3:
                break
    assert len({number for number, _ in seen}) == 3
    assert [messages for _, messages in seen] == [["hello"]] * 3


def test_what_is_left_open_is_closed_before_the_next_round(server):
    previous = None
    for connection in reconnect(uri(server), **AT_ONCE):
        if previous is not None:
            assert previous.close_code == 1000
            break
        previous = connection


def test_break_closes_the_connection():
    held = Held()
    with serve(held, "127.0.0.1", 0).start() as server:
        for _ in reconnect(uri(server)):
            break
        with pytest.raises(ConnectionClosedOK, match="received 1000"):
            held.wait().recv(PATIENCE)
        held.release()


def test_an_exception_of_the_loop_closes_the_connection(server):
    kept = []

    def loop():
        for connection in reconnect(uri(server)):
            kept.append(connection)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        loop()
    assert kept.pop().wait_closed(PATIENCE)


def test_with_closes_the_connection(server):
    with reconnect(uri(server)) as connections:
        rounds = iter(connections)
        connection = next(rounds)
        assert connection.close_code is None
    assert connection.close_code == 1000
    assert list(rounds) == []


def test_with_without_a_connection(refused):
    with reconnect(refused):
        pass


def test_two_loops_at_once_raise(server):
    connections = reconnect(uri(server))
    first = iter(connections)
    next(first)
    with pytest.raises(ConcurrencyError, match="in two places"):
        next(iter(connections))
    first.close()
    for _ in connections:
        break


def test_a_unix_socket(tmp_path):
    with unix_serve(echo, tmp_path / "socket").start():
        for connection in unix_reconnect(tmp_path / "socket"):
            assert connection.request.headers["Host"] == "localhost"
            break


def test_a_unix_socket_needs_a_path():
    with pytest.raises(ValueError, match="missing path argument"):
        unix_reconnect(None)


# What is repeated


def test_a_refused_connection_is_repeated(refused, log):
    connections = reconnect(refused, **AT_ONCE)
    log.after(3, connections.stop)
    assert list(connections) == []
    assert len(log.lines) == 3


def test_a_server_that_recovers_is_connected_to(log):
    with answering((503, {}), (502, {}), (429, {})) as server:
        for connection in reconnect(uri(server), **AT_ONCE):
            connection.send("hello")
            assert connection.recv(PATIENCE) == "hello"
            break
    assert len(log.lines) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501])
def test_another_status_raises_at_once(status):
    with answering((status, {})) as server:
        with pytest.raises(InvalidStatus, match=f"HTTP {status}"):
            next(iter(reconnect(uri(server))))


def test_what_is_no_uri_raises_before_the_loop():
    with pytest.raises(InvalidURI):
        reconnect("http://localhost/")


def test_a_socket_of_the_user_does_not_do():
    with socket.socket() as sock, pytest.raises(ValueError, match="cannot use sock"):
        reconnect("ws://localhost/", sock=sock)


def response(status):
    return Response(status, "", Headers())


def message(kind, cause):
    error = kind("text")
    error.__cause__ = cause
    return error


PASSING = [
    ConnectionRefusedError(),
    ConnectionResetError(),
    TimeoutError(),
    socket.timeout(),
    socket.gaierror(),
    FileNotFoundError(),
    ssl.SSLEOFError(),
    ConnectionError("SOCKS proxy did not reach the host"),
    *(InvalidStatus(response(status)) for status in (408, 425, 429, 500, 502, 503, 504, 599)),
    InvalidProxyStatus(response(502)),
    message(InvalidMessage, EOFError()),
    message(InvalidProxyMessage, EOFError()),
]
LASTING = [
    ssl.SSLCertVerificationError(),
    ssl.SSLError(),
    PermissionError(),
    InvalidURI("a", "b"),
    *(InvalidStatus(response(status)) for status in (200, 301, 400, 401, 403, 404, 501, 505)),
    InvalidProxyStatus(response(407)),
    message(InvalidMessage, None),
    message(InvalidProxyMessage, None),
    ProxyError("not allowed"),
    SecurityError("more than 10 redirects"),
    syncws.exceptions.NegotiationError("subprotocol"),
    ValueError(),
    ImportError(),
]


@pytest.mark.parametrize("exc", PASSING, ids=repr)
def test_what_may_pass_is_repeated(exc):
    assert process_exception(exc) is None


@pytest.mark.parametrize("exc", LASTING, ids=repr)
def test_what_will_last_is_raised(exc):
    assert process_exception(exc) is exc


def test_a_certificate_that_is_not_trusted_raises_at_once(tls):
    with tls.serve(echo).start() as server:
        with pytest.raises(ssl.SSLCertVerificationError, match="certificate of your own"):
            next(iter(reconnect(tls.uri(server))))


def test_the_user_may_decide(refused, log):
    seen = []

    def once(exc):
        seen.append(exc)
        return None if len(seen) == 1 else RuntimeError("enough")

    with pytest.raises(RuntimeError, match="enough") as raised:
        next(iter(reconnect(refused, process_exception=once, **AT_ONCE)))
    assert isinstance(raised.value.__cause__, ConnectionRefusedError)
    seen.clear()


def test_delays_that_end_limit_the_attempts(refused, log):
    delays = {"reconnect_delays": lambda: iter([0, 0])}
    with pytest.raises(ConnectionRefusedError):
        next(iter(reconnect(refused, **delays)))
    assert len(log.lines) == 2


def test_delays_that_end_limit_the_connections(server, log):
    seen = []
    connections = reconnect(uri(server), reconnect_delays=lambda: iter([0]))
    with pytest.raises(ConnectionClosed):
        seen.extend(connection.id for connection in connections)
    assert len(seen) == 2


# How long it waits


def test_the_delays_are_logged_without_secrets(refused, log):
    secret = refused.replace("ws://", "ws://user:secret@") + "path?token=secret"
    connections = reconnect(secret, reconnect_delays=lambda: iter([0.04, 0.06]))
    with pytest.raises(ConnectionRefusedError):
        list(connections)
    assert log.lines[0].startswith(f"cannot connect to {refused}path: [Errno")
    assert log.lines[0].endswith("; next attempt in 0.0 seconds")
    assert log.lines[1].endswith("; next attempt in 0.1 seconds")
    assert log.levels == [logging.WARNING] * 2
    assert "secret" not in "".join(log.lines)


@pytest.mark.parametrize(
    ("value", "options", "seconds"),
    [("7", {}, "7.0"), ("9999", {}, "300.0"), ("9999", {"max_retry_after": 20}, "20.0")],
)
def test_retry_after_is_honoured(value, options, seconds, log):
    with answering((503, {"Retry-After": value})) as server:
        connections = reconnect(uri(server), **options, **AT_ONCE)
        log.after(1, connections.stop)
        assert list(connections) == []
    assert log.lines[0].endswith(f"HTTP 503: no; next attempt in {seconds} seconds")


def test_retry_after_does_not_shorten_a_wait(log):
    with answering((503, {"Retry-After": "1"})) as server:
        connections = reconnect(uri(server), reconnect_delays=lambda: iter([60]))
        log.after(1, connections.stop)
        assert list(connections) == []
    assert log.lines[0].endswith("next attempt in 60.0 seconds")


@pytest.mark.parametrize(("reset_after", "starts"), [(3600, 1), (0, 3)])
def test_the_delays_start_anew_after_a_connection_that_lived(server, reset_after, starts, log):
    started = []

    def delays():
        started.append(True)
        return itertools.repeat(0.0)

    for number, _ in enumerate(
        reconnect(uri(server), reconnect_delays=delays, reset_after=reset_after)
    ):
        if number == 3:
            break
    assert len(started) == starts
    assert log.levels == [logging.INFO] * 3
    assert log.lines[0].startswith("connection ended to ws://127.0.0.1:")


# stop()


def test_stop_ends_the_wait(refused, log):
    waiting = threading.Event()
    connections = reconnect(refused, **NEVER)
    log.after(1, waiting.set)
    task = Task(list, connections)
    assert waiting.wait(PATIENCE)
    connections.stop()
    connections.stop()
    assert task.result() == []


def test_stop_ends_an_attempt():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connections = reconnect(f"ws://127.0.0.1:{listener.getsockname()[1]}/", open_timeout=None)
        task = Task(list, connections)
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(3) == b"GET"
            connections.stop()
            assert task.result() == []


def test_stop_ends_the_connection():
    codes = []

    def greet(connection):
        connection.send("hello")
        with pytest.raises(ConnectionClosedOK):
            connection.recv(PATIENCE)
        codes.append(connection.close_code)

    with serve(greet, "127.0.0.1", 0).start() as server:
        connections = reconnect(uri(server))
        received = threading.Event()

        def receive():
            for connection in connections:
                for _ in connection:
                    received.set()

        task = Task(receive)
        assert received.wait(PATIENCE)
        connections.stop()
        task.result()
    assert codes == [1000]


def test_stop_before_the_loop(server):
    connections = reconnect(uri(server))
    connections.stop()
    assert list(connections) == []


def test_stop_at_any_moment_leaves_nothing_open(server):
    for _ in range(30):
        connections = reconnect(uri(server), **AT_ONCE)
        started = threading.Event()

        def run(connections=connections, started=started):
            started.set()
            return [list(connection) for connection in connections]

        task = Task(run)
        assert started.wait(PATIENCE)
        connections.stop()
        assert task.result() in ([], [[]])


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs signals for threads")
def test_stop_from_a_signal_handler(refused, log):
    connections = reconnect(refused, **NEVER)
    main = threading.get_ident()
    before = signal.signal(signal.SIGUSR1, lambda *_: connections.stop())
    waiting = threading.Event()
    log.after(1, waiting.set)
    try:
        task = Task(lambda: waiting.wait(PATIENCE) and signal.pthread_kill(main, signal.SIGUSR1))
        assert list(connections) == []
        task.result()
    finally:
        signal.signal(signal.SIGUSR1, before)
