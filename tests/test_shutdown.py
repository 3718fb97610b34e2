"""Shutdown: it ends within its timeout from wherever it is called, and tells how it went."""

from __future__ import annotations

import contextlib
import gc
import itertools
import logging
import os
import signal
import socket
import ssl
import struct
import threading
import time
import weakref

import pytest
from conftest import wait_until
from links import PATIENCE, Held, counts, echo, handshake, masked, read_all
from peers import Task

from syncws import (
    ConnectionClosedError,
    ConnectionClosedOK,
    ProtocolError,
    ServerConnection,
    ShutdownReport,
    broadcast,
    serve,
)
from syncws.server import LOGGED_STACKS

# On a busy machine a thread may get its turn late; a hang would take much longer.
GRACE = 2.0  # seconds


class Timed:
    """Measures a block."""

    def __enter__(self):
        self.began = time.monotonic()
        return self

    def __exit__(self, *exc_info):
        self.seconds = time.monotonic() - self.began


@contextlib.contextmanager
def silent_clients(link, server, count):
    """Clients that open a connection and then neither read nor write."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            handshake(stack.enter_context(link.socket(server)))
        assert wait_until(lambda: len(server.connections) == count)
        yield


def reads(connection):
    with contextlib.suppress(ConnectionClosedOK):
        connection.recv()


# The report


def test_connections_that_close_in_time_are_reported(link):
    with link.serve(reads) as server, contextlib.ExitStack() as stack:
        server.start()
        clients = [stack.enter_context(link.connect(server)) for _ in range(3)]
        readers = [Task(client.recv) for client in clients]
        assert wait_until(lambda: len(server.connections) == 3)
        assert server.shutdown() == ShutdownReport(closed=3, aborted=0, running=[])
        for reader in readers:
            assert isinstance(reader.error(), ConnectionClosedOK)


@pytest.mark.parametrize(
    ("code", "reason", "message"),
    [
        (1001, "", r"received 1001 \(going away\);"),
        (1012, "update", r"received 1012 \(service restart\) update;"),
        (4000, "", r"received 4000 \(private use\);"),
    ],
)
def test_code_and_reason_are_those_asked_for(plain, code, reason, message):
    with plain.serve(reads).start() as server, plain.connect(server) as client:
        reader = Task(client.recv)
        assert wait_until(lambda: len(server.connections) == 1)
        server.shutdown(code=code, reason=reason)
        error = reader.error()
    with pytest.raises((ConnectionClosedOK, ConnectionClosedError), match=message):
        raise error


@pytest.mark.parametrize(("code", "reason"), [(1006, ""), (0, ""), (1001, "x" * 124)])
def test_codes_and_reasons_that_cannot_be_sent_raise_and_change_nothing(plain, code, reason):
    with plain.serve(echo).start() as server:
        with pytest.raises(ProtocolError):
            server.shutdown(code=code, reason=reason)
        assert not server.is_closing
        with plain.connect(server) as client:
            client.send("hello")
            assert client.recv() == "hello"


def test_silent_clients_are_aborted_in_time(slow_link):
    with slow_link.serve(reads) as server:
        server.start()
        with silent_clients(slow_link, server, 50), Timed() as shutdown:
            report = server.shutdown(timeout=0.5)
        assert report == ShutdownReport(closed=0, aborted=50, running=[])
        assert shutdown.seconds < 0.5 + GRACE


def test_good_clients_close_while_silent_ones_are_aborted(plain):
    with plain.serve(reads).start() as server:
        with silent_clients(plain, server, 3), plain.connect(server) as client:
            reader = Task(client.recv)
            assert wait_until(lambda: len(server.connections) == 4)
            report = server.shutdown(timeout=0.5)
            assert isinstance(reader.error(), ConnectionClosedOK)
        assert report == ShutdownReport(closed=1, aborted=3, running=[])


def test_later_reports_tell_the_same(plain):
    with plain.serve(reads).start() as server:
        with silent_clients(plain, server, 2):
            report = server.shutdown(timeout=0.3)
        assert report == ShutdownReport(closed=0, aborted=2, running=[])
        assert server.shutdown() == report
        assert server.wait_closed() == report


def test_handshakes_that_are_cut_do_not_take_from_the_closed(plain):
    class Slow(ServerConnection):
        def cut_handshake(self, reason):
            """Leave it to the deadline."""

    with plain.serve(reads, create_connection=Slow).start() as server:
        with plain.socket(server), plain.connect(server) as client:
            reader = Task(client.recv)
            assert wait_until(lambda: counts(server) == (1, 2))
            report = server.shutdown(timeout=2)
            assert isinstance(reader.error(), ConnectionClosedOK)
    assert report == ShutdownReport(closed=1, aborted=1, running=[])
    del Slow


def test_handlers_that_do_not_end_are_reported_with_their_stacks(slow_link):
    held = Held()
    with slow_link.serve(held) as server:
        server.start()
        with slow_link.connect(server) as client:
            connection = held.wait()
            reader = Task(client.recv)
            with Timed() as shutdown:
                report = server.shutdown(timeout=0.3)
            assert shutdown.seconds < 0.3 + GRACE
            (running,) = report.running
            assert running.connection is connection
            assert running.thread.is_alive()
            assert "self._done.wait(PATIENCE)" in running.stack
            reader.error()
        held.release()
        assert server.wait_closed().running == []


def test_the_log_has_the_stacks_of_a_few_handlers_that_do_not_end(plain, caplog):
    goes_on = threading.Event()
    with contextlib.ExitStack() as stack:
        stack.callback(goes_on.set)
        with plain.serve(lambda connection: goes_on.wait(PATIENCE), close_timeout=0.1) as server:
            server.start()
            for _ in range(LOGGED_STACKS + 2):
                handshake(stack.enter_context(plain.socket(server)))
            assert wait_until(lambda: len(server.connections) == LOGGED_STACKS + 2)
    assert server.wait_closed().running == []
    *stacks, more = caplog.messages
    assert len(stacks) == LOGGED_STACKS
    for message in stacks:
        assert "goes_on.wait(PATIENCE)" in message
    assert more == "more handlers still run after the shutdown: 2"


def test_a_handler_that_sends_to_a_stopped_client_is_freed(slow_link):
    def flood(connection):
        while True:
            connection.send(b"x" * 65536)

    with slow_link.serve(flood, compression=None).start() as server:
        with silent_clients(slow_link, server, 1), Timed() as shutdown:
            report = server.shutdown(timeout=0.5)
        assert report == ShutdownReport(closed=0, aborted=1, running=[])
        assert shutdown.seconds < 0.5 + GRACE


def test_connections_may_be_left_to_end_by_themselves(link):
    with link.serve(echo).start() as server, link.connect(server) as client:
        client.send("before")
        assert client.recv() == "before"
        task = Task(server.shutdown, close_connections=False)
        assert wait_until(lambda: server.fileno() == -1)
        client.send("after")
        assert client.recv() == "after"
        client.close()
        report = task.result()
        assert (report.aborted, report.running) == (0, [])


def test_connections_left_to_themselves_are_reported_as_running(plain):
    with plain.serve(echo).start() as server, plain.connect(server) as client:
        report = server.shutdown(close_connections=False, timeout=0.1)
        assert len(report.running) == 1
        assert report.aborted == 0
        client.send("still here")
        assert client.recv() == "still here"
        reader = Task(client.recv)
        assert server.shutdown() == ShutdownReport(closed=1, aborted=0, running=[])
        reader.error()


def test_close_does_not_wait(plain):
    held = Held()
    with plain.serve(held).start() as server, plain.connect(server) as client:
        held.wait()
        with Timed() as close:
            server.close()
        assert close.seconds < GRACE
        assert server.is_closing
        with pytest.raises(ConnectionClosedOK, match="received 1001"):
            client.recv()
        held.release()
        assert server.wait_closed() == ShutdownReport(closed=1, aborted=0, running=[])


def test_without_a_timeout_it_waits_for_the_handlers(plain):
    held = Held()
    with plain.serve(held).start() as server, plain.connect(server) as client:
        held.wait()
        reader = Task(client.recv)
        task = Task(server.shutdown, timeout=None)
        reader.error()
        assert task.is_alive()
        held.release()
        assert task.result() == ShutdownReport(closed=1, aborted=0, running=[])


def test_it_keeps_neither_the_server_nor_what_other_threads_had_at_hand():
    gc.collect()
    gc.disable()
    try:
        server = weakref.ref(served_and_shut_down())
        assert wait_until(lambda: server() is None)
    finally:
        gc.enable()


def served_and_shut_down():
    server = serve(echo, "127.0.0.1", 0).start()
    server.shutdown()
    return server


# Handshakes under way


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"], ids=["silent", "begun"])
def test_handshakes_under_way_do_not_hold_it_up(link, start):
    with link.serve(echo).start() as server, link.socket(server) as sock:
        sock.sendall(start)
        assert wait_until(lambda: server.stats()["total"] == 1)
        with Timed() as shutdown:
            task = Task(server.shutdown)
            answer = b""
            with contextlib.suppress(ssl.SSLError):  # TLS itself may have been cut
                answer = read_all(sock)
            sock.close()
            report = task.result()
        assert shutdown.seconds < GRACE
        assert report == ShutdownReport(closed=0, aborted=0, running=[])
        # Of a part of a request that the server has not looked at yet, it knows nothing.
        assert not answer or answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")


def test_a_handshake_that_was_begun_gets_503(plain):
    class Reading(ServerConnection):
        def _read_request(self, parser, deadline):
            begun.set()
            return super()._read_request(parser, deadline)

    begun = threading.Event()
    with plain.serve(echo, create_connection=Reading).start() as server:
        with plain.socket(server) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n")
            assert begun.wait(PATIENCE)
            server.close()
            assert read_all(sock).startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    del Reading


def test_tls_handshakes_under_way_do_not_hold_it_up(tls, plain):
    with tls.serve(echo).start() as server, plain.socket(server) as sock:
        sock.sendall(b"\x16\x03\x01")
        assert wait_until(lambda: server.stats()["total"] == 1)
        with Timed() as shutdown:
            server.shutdown()
        assert shutdown.seconds < GRACE


def test_a_handshake_whose_hook_is_running_gets_503(plain):
    entered, leave = threading.Event(), threading.Event()

    def process_request(connection, request):
        entered.set()
        assert leave.wait(PATIENCE)

    with plain.serve(echo, process_request=process_request).start() as server:
        with plain.socket(server) as sock:
            client = Task(handshake, sock)
            assert entered.wait(PATIENCE)
            server.close()
            leave.set()
            response = client.result()
        assert response.startswith("HTTP/1.1 503 Service Unavailable\r\n")
        assert server.wait_closed() == ShutdownReport(closed=0, aborted=0, running=[])


def test_a_connection_that_opens_while_the_server_closes_is_closed(plain):
    answered, leave = threading.Event(), threading.Event()

    class Opening(ServerConnection):
        def _open(self, *args):
            answered.set()
            assert leave.wait(PATIENCE)
            super()._open(*args)

    with plain.serve(reads, create_connection=Opening).start() as server:
        client = Task(plain.connect, server)
        assert answered.wait(PATIENCE)
        server.close()
        leave.set()
        with client.result() as connection:
            client._value = None
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                connection.recv()
        assert server.wait_closed().closed == 1
    del Opening


def test_a_connection_that_was_accepted_last_does_not_hold_it_up(plain):
    made, leave = threading.Event(), threading.Event()

    class Late(ServerConnection):
        def __init__(self, *args):
            super().__init__(*args)
            made.set()
            assert leave.wait(PATIENCE)

    with plain.serve(echo, create_connection=Late).start() as server, plain.socket(server):
        assert made.wait(PATIENCE)
        server.close()
        leave.set()
        with Timed() as wait:
            report = server.wait_closed()
        assert wait.seconds < GRACE
        assert report == ShutdownReport(closed=0, aborted=0, running=[])
    del Late


# From wherever it is called


def from_another_thread(server, timeout):
    server.start()
    return [lambda: server.shutdown(timeout=timeout)]


def twice(server, timeout):
    server.start()
    return [lambda: (server.shutdown(timeout=timeout), server.shutdown(timeout=timeout))]


def from_two_threads(server, timeout):
    server.start()
    return [lambda: server.shutdown(timeout=timeout)] * 2


def before_serving(server, timeout):
    def shut_down():
        server.shutdown(timeout=timeout)
        server.serve_forever()

    return [shut_down]


def while_it_starts(server, timeout):
    def shut_down():
        server.start()
        server.shutdown(timeout=timeout)

    return [shut_down]


def close_only(server, timeout):
    server.start()
    return [lambda: (server.close(), server.close(), server.wait_closed(timeout))]


PLACES = [
    from_another_thread,
    twice,
    from_two_threads,
    before_serving,
    while_it_starts,
    close_only,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("clients", [0, 2])
def test_it_returns_in_time_from(plain, place, clients):
    server = plain.serve(reads)
    calls = place(server, PATIENCE)
    with contextlib.ExitStack() as stack:
        tasks = []
        if place not in (before_serving, while_it_starts):
            connected = [stack.enter_context(plain.connect(server)) for _ in range(clients)]
            tasks = [Task(client.recv) for client in connected]
        with Timed() as shutdown:
            for task in [Task(call) for call in calls]:
                task.result()
        assert shutdown.seconds < GRACE
        for task in tasks:
            assert isinstance(task.error(), ConnectionClosedOK)
    assert counts(server) == (0, 0)
    assert server.fileno() == -1


def test_it_may_be_called_from_a_handler(link):
    reports = []

    def handler(connection):
        if connection.recv() == "stop":
            reports.append(connection.server.shutdown())

    with link.serve(handler) as server:
        server.start()
        with link.connect(server) as one, link.connect(server) as other:
            reader = Task(other.recv)
            assert wait_until(lambda: len(server.connections) == 2)
            one.send("stop")
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                one.recv()
            assert isinstance(reader.error(), ConnectionClosedOK)
            assert server.wait_closed().running == []
    # That handler itself counts neither as running nor against the time.
    assert reports == [ShutdownReport(closed=2, aborted=0, running=[])]


@pytest.mark.parametrize("timeout", [PATIENCE, None])
def test_several_handlers_may_call_it_at_once(plain, timeout):
    together = threading.Barrier(3)

    def handler(connection):
        together.wait(PATIENCE)
        connection.server.shutdown(timeout=timeout)

    with plain.serve(handler).start() as server, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(plain.connect(server)) for _ in range(3)]
        tasks = [Task(client.recv) for client in clients]
        with Timed() as shutdown:
            for task in tasks:
                assert isinstance(task.error(), ConnectionClosedOK)
            report = server.wait_closed()
        assert shutdown.seconds < GRACE
        assert report == ShutdownReport(closed=3, aborted=0, running=[])


def test_a_handler_that_serves_is_not_waited_for_by_itself(plain):
    """A server may serve in any thread, also in one that waits for its end."""
    server = plain.serve(echo)

    def client():
        with plain.connect(server) as connection:
            connection.send("hello")
            assert connection.recv() == "hello"
            server.shutdown()

    task = Task(client)
    server.serve_forever(signals=False)
    task.result()


@contextlib.contextmanager
def signal_handler(function):
    previous = signal.signal(signal.SIGUSR1, function)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_it_may_be_called_from_a_signal_handler_of_the_serving_thread(plain):
    reports = []
    server = plain.serve(reads)

    def client():
        with plain.connect(server) as connection:
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                connection.recv()

    with signal_handler(lambda *args: reports.append(server.shutdown())):
        task = Task(client)
        with Timed() as serving:
            server.serve_forever()
    task.result()
    assert serving.seconds < GRACE
    assert reports == [ShutdownReport(closed=1, aborted=0, running=[])]
    assert server.fileno() == -1


def test_a_signal_handler_and_a_handler_may_call_it_at_once(plain):
    together = threading.Barrier(2)
    server = plain.serve(lambda connection: shut_down())

    def shut_down(*args):
        together.wait(PATIENCE)
        server.shutdown(timeout=None)

    def client():
        with plain.connect(server) as connection:
            os.kill(os.getpid(), signal.SIGUSR1)
            with pytest.raises(ConnectionClosedOK, match="received 1001"):
                connection.recv()

    with signal_handler(shut_down):
        task = Task(client)
        server.serve_forever()
    task.result()
    assert server.wait_closed().running == []


def test_it_may_be_called_from_a_signal_handler_over_another_wait(plain):
    held = Held()
    server = plain.serve(held).start()
    reports = []

    def on_signal(*args):
        held.release()
        reports.append(server.shutdown())

    with plain.connect(server) as client, signal_handler(on_signal):
        held.wait()

        def read():
            with contextlib.suppress(ConnectionClosedOK):
                client.recv()
            os.kill(os.getpid(), signal.SIGUSR1)

        task = Task(read)
        # Closed by the client's thread only after it has begun.
        report = server.shutdown(timeout=None)
        task.result()
    assert reports == [report] == [ShutdownReport(closed=1, aborted=0, running=[])]


def test_it_may_be_called_while_broadcasting_and_accepting(plain):
    stop = threading.Event()
    with plain.serve(reads).start() as server:

        def connects():
            while not stop.is_set():
                with contextlib.suppress(OSError, Exception), plain.connect(server) as client:
                    client.recv()

        def broadcasts():
            while not stop.is_set():
                broadcast(server.connections, "hello")

        tasks = [Task(connects), Task(connects), Task(broadcasts)]
        assert wait_until(lambda: server.connections)
        with Timed() as shutdown:
            report = server.shutdown()
        stop.set()
        for task in tasks:
            task.result()
        assert report.running == []
        assert shutdown.seconds < GRACE


# Many times

ROUNDS = 200


def quiet(link, server, stack):
    stack.enter_context(link.socket(server))


def closes(link, server, stack):
    client = stack.enter_context(link.connect(server))
    stack.callback(Task(client.recv).error)


def deaf(link, server, stack):
    handshake(stack.enter_context(link.socket(server)))


def resets(link, server, stack):
    with link.socket(server) as sock:
        handshake(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def floods(link, server, stack):
    sock = stack.enter_context(link.socket(server))
    handshake(sock)
    sock.sendall(masked(0x82, b"x" * 100) * 100)


def shut_down_by_signal(server, timeout):
    """Serves and is shut down in this, the main thread, as soon as it serves."""

    def kill():
        wait_until(lambda: server._serving is not None)
        os.kill(os.getpid(), signal.SIGUSR1)

    def serve():
        task = Task(kill)
        with signal_handler(lambda *args: server.shutdown(timeout=timeout)):
            server.serve_forever()
        task.result()

    return [serve]


CLIENTS = [(), (closes,), (closes, closes), (quiet,), (resets,), (floods,), (closes, deaf)]


def test_it_never_hangs(plain, caplog):
    caplog.set_level(logging.ERROR)
    places = [*PLACES, shut_down_by_signal]
    table = itertools.cycle(itertools.product(places, CLIENTS))
    for place, clients in itertools.islice(table, ROUNDS):
        # Those who do not close cost the whole timeout each time.
        timeout = 0.1 if {deaf, floods} & set(clients) else 1.0
        server = plain.serve(reads)
        calls = place(server, timeout)
        with contextlib.ExitStack() as stack:
            # Those who come before it serves wait in the backlog and are not answered.
            if place not in (before_serving, while_it_starts, shut_down_by_signal):
                for client in clients:
                    client(plain, server, stack)
            with Timed() as shutdown:
                if place is shut_down_by_signal:
                    calls.pop()()
                for task in [Task(call) for call in calls]:
                    task.result()
            assert shutdown.seconds < 2 * timeout + GRACE, (place, clients)
        # A thread may be at its last steps when the time is up.
        assert wait_until(lambda server=server: counts(server) == (0, 0)), (place, clients)
    assert caplog.records == []
