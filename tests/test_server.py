"""The server: where it listens, how it serves, and what becomes of its handlers."""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import pathlib
import signal
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import threading

import pytest
from conftest import open_descriptors, wait_until
from links import PATIENCE, Held, counts, echo, handshake, masked, read_all
from peers import Task

from syncws import (
    ConnectionClosed,
    ConnectionClosedError,
    ConnectionClosedOK,
    Server,
    ServerConnection,
    connect,
    serve,
    unix_connect,
    unix_serve,
)

ROOT = pathlib.Path(__file__).parent.parent


def says(connection, message="hello"):
    connection.send(message)
    return connection.recv(PATIENCE) == message


def errors(caplog):
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@contextlib.contextmanager
def run(script, *arguments):
    """A Python program of its own; killed at the end."""
    with subprocess.Popen(
        [sys.executable, "-X", "dev", "-W", "error", "-c", script, *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process):
    """Wait for the end; returns the exit status and what was printed."""
    out, err = process.communicate(timeout=PATIENCE)
    return process.returncode, out, err


# Where it listens


def test_it_is_a_threading_tcp_server():
    with serve(echo, "127.0.0.1", 0) as server:
        assert isinstance(server, Server)
        assert isinstance(server, socketserver.ThreadingTCPServer)


def test_it_tells_its_address_and_descriptor():
    with serve(echo, "127.0.0.1", 0) as server:
        assert server.server_address == server.socket.getsockname()
        assert server.server_address[0] == "127.0.0.1"
        assert server.fileno() == server.socket.fileno()
        assert server.fileno() > 0


def test_clients_may_connect_before_it_serves():
    with serve(echo, "127.0.0.1", 0) as server:
        with socket.create_connection(server.server_address) as sock:
            sock.settimeout(PATIENCE)
            server.start()
            assert handshake(sock).startswith("HTTP/1.1 101 ")


def test_start_returns_the_server():
    server = serve(echo, "127.0.0.1", 0)
    assert server.start() is server
    with connect(f"ws://127.0.0.1:{server.server_address[1]}") as connection:
        assert says(connection)
    server.shutdown()


@pytest.mark.parametrize("host", [None, "", "localhost"])
def test_hosts_that_are_no_addresses(host):
    with serve(echo, host, 0).start() as server:
        with connect(f"ws://localhost:{server.server_address[1]}") as connection:
            assert says(connection)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_all_interfaces_are_those_of_both_versions_of_ip(host):
    with serve(echo).start() as server:
        with connect(f"ws://{host}:{server.server_address[1]}") as connection:
            assert says(connection)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_it_listens_on_an_address_of_ipv6(caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with serve(echo, "::1", 0).start() as server:
        port = server.server_address[1]
        with connect(f"ws://[::1]:{port}") as connection:
            assert says(connection)
            assert connection.request.headers["Host"] == f"[::1]:{port}"
    assert f"server listening on [::1]:{port}" in [r.getMessage() for r in caplog.records]


def test_the_family_can_be_chosen():
    with serve(echo, port=0, family=socket.AF_INET).start() as server:
        assert server.address_family == socket.AF_INET
        with connect(f"ws://127.0.0.1:{server.server_address[1]}") as connection:
            assert says(connection)


def test_an_existing_socket_is_taken_over():
    sock = socket.create_server(("127.0.0.1", 0))
    with serve(echo, sock=sock).start() as server:
        assert server.socket is sock
        with connect(f"ws://127.0.0.1:{server.server_address[1]}") as connection:
            assert says(connection)
    assert sock.fileno() == -1


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="this platform has no SO_REUSEPORT")
@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="an option of Linux")
@pytest.mark.parametrize("own", [True, False])
def test_sockets_of_connections_send_at_once_and_give_up_late(own):
    # The options are inherited from a listening socket of ours, and set on each where it isn't.
    sock = None if own else socket.create_server(("127.0.0.1", 0))
    seen = []

    def handler(connection):
        for option in (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT):
            value = connection._transport.sock.getsockopt(socket.IPPROTO_TCP, option)
            seen.append((option, value))

    options = {"host": "127.0.0.1", "port": 0} if own else {"sock": sock}
    with serve(handler, ping_interval=30, **options).start() as server:
        port = server.server_address[1]
        for _ in range(2):
            with connect(f"ws://127.0.0.1:{port}") as client:
                assert list(client) == []
        listening = server.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert bool(listening) is own
    assert seen == [(socket.TCP_NODELAY, 1), (socket.TCP_USER_TIMEOUT, 51_000)] * 2


def test_two_servers_may_share_a_port():
    with serve(echo, "127.0.0.1", 0, reuse_port=True) as one:
        with serve(echo, *one.server_address, reuse_port=True) as other:
            assert other.server_address == one.server_address


def test_a_port_in_use_raises():
    with serve(echo, "127.0.0.1", 0) as server, pytest.raises(OSError, match="in use"):
        serve(echo, *server.server_address)


@pytest.mark.parametrize("argument", ["host", "port", "unix_path"])
def test_a_socket_goes_with_no_address(argument):
    values = {"host": "127.0.0.1", "port": 0, "unix_path": "socket"}
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with pytest.raises(ValueError, match="is incompatible with sock"):
            serve(echo, sock=sock, **{argument: values[argument]})


def test_a_unix_server_needs_a_path():
    with pytest.raises(ValueError, match="missing path argument"):
        unix_serve(echo)


def test_a_unix_server_removes_its_file(tmp_path, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    path = tmp_path / "socket"
    with unix_serve(echo, path).start() as server:
        assert server.server_address == str(path)
        with unix_connect(path) as connection:
            assert says(connection)
    assert not path.exists()
    assert f"server listening on {path}" in [r.getMessage() for r in caplog.records]


def test_a_unix_server_does_not_mind_that_its_file_is_gone(tmp_path):
    with unix_serve(echo, tmp_path / "socket"):
        (tmp_path / "socket").unlink()


def test_a_unix_server_leaves_the_file_of_a_socket_that_it_was_given(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        with unix_serve(echo, sock=sock).start(), unix_connect(path) as connection:
            assert says(connection)
    assert path.exists()


# How it serves


def test_a_context_manager_closes_what_is_open(slow_link):
    held = Held()
    with slow_link.serve(held).start() as server:
        connection = slow_link.connect(server)
        held.wait()
        held.release()
    with pytest.raises(ConnectionClosedOK):
        connection.recv()
    assert connection.close_code in (1000, 1001)
    connection.close()
    assert server.is_closing


def test_serve_forever_returns_when_another_thread_closes(plain):
    server = plain.serve(echo)
    serving = Task(server.serve_forever)
    with plain.connect(server) as connection:
        assert says(connection)
        server.close()
        serving.result()
        with pytest.raises(ConnectionClosedOK, match="1001"):
            connection.recv()
    server.wait_closed()


def test_serve_forever_in_the_main_thread_returns_when_another_thread_closes(plain):
    server = plain.serve(echo)

    def client():
        with plain.connect(server) as connection:
            assert says(connection)
        server.shutdown()

    task = Task(client)
    server.serve_forever()
    task.result()


def test_serve_forever_returns_at_once_when_it_is_closed_already(plain):
    server = plain.serve(echo)
    server.close()
    server.serve_forever()
    server.shutdown()


@pytest.mark.parametrize("method", ["start", "serve_forever"])
def test_serving_twice_at_once_raises(plain, method):
    with plain.serve(echo).start() as server:
        with pytest.raises(RuntimeError, match="the server is serving already"):
            getattr(server, method)()
        with plain.connect(server) as connection:
            assert says(connection)


def test_start_may_be_tried_again_when_no_thread_could_be_started(plain):
    with plain.serve(echo) as server:
        threading.stack_size(2**46)  # more than there can be
        try:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                server.start()
        finally:
            threading.stack_size(0)
        server.start()
        with plain.connect(server) as connection:
            assert says(connection)


def test_no_signal_handlers_are_installed_outside_the_main_thread(plain):
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with plain.serve(echo).start() as server, plain.connect(server) as connection:
        assert says(connection)
        assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_main_thread_shuts_down_and_handlers_are_restored(plain, signum):
    before = [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)]
    server = plain.serve(echo)

    def client():
        with plain.connect(server) as connection:
            assert says(connection)
            os.kill(os.getpid(), signum)
            with pytest.raises(ConnectionClosedOK, match=r"received 1001 \(going away\)"):
                connection.recv(PATIENCE)

    task = Task(client)
    server.serve_forever()
    assert counts(server) == (0, 0)
    assert [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)] == before
    task.result()


def test_without_signals_ctrl_c_is_an_exception(plain):
    server = plain.serve(echo)

    def client():
        with plain.connect(server) as connection:
            assert says(connection)
            os.kill(os.getpid(), signal.SIGINT)
            connection.recv(PATIENCE)

    task = Task(client)
    with pytest.raises(KeyboardInterrupt), server:
        server.serve_forever(signals=False)
    assert isinstance(task.error(), ConnectionClosedOK)


def test_a_second_signal_interrupts_the_shutdown(plain):
    held = Held()
    server = plain.serve(held)

    def client():
        with plain.connect(server) as connection:
            held.wait()
            os.kill(os.getpid(), signal.SIGINT)
            with contextlib.suppress(ConnectionClosed):
                connection.recv(PATIENCE)
            # The handlers of signals are restored before anything else.
            assert wait_until(lambda: server._serving is None)
            os.kill(os.getpid(), signal.SIGINT)

    task = Task(client)
    with pytest.raises(KeyboardInterrupt):
        server.serve_forever()
    held.release()
    task.result()
    # It may have come while the server was giving back its descriptors.
    server.shutdown()
    assert counts(server) == (0, 0)


SIGNALLED = """
import sys
from syncws import serve

def handler(connection):
    for message in connection:
        connection.send(message)
    print("handler returned", connection.close_code, flush=True)

with serve(handler, "127.0.0.1", 0) as server:
    print(server.server_address[1], flush=True)
    server.serve_forever()
print("ended", flush=True)
"""


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_program_ends_cleanly_when_it_is_signalled(signum):
    with run(SIGNALLED) as process:
        with connect(f"ws://127.0.0.1:{process.stdout.readline().strip()}") as connection:
            assert says(connection)
            process.send_signal(signum)
            with pytest.raises(ConnectionClosedOK, match=r"received 1001 \(going away\)"):
                connection.recv(PATIENCE)
        assert finish(process) == (0, "handler returned 1001\nended\n", "")


class Choosy(Server):
    """A server that uses the hooks of socketserver."""

    def verify_request(self, request, client_address):
        if self.verdict is None:
            raise RuntimeError("a bug of verify_request")
        return self.verdict


def test_hooks_of_socketserver_may_turn_clients_away(plain):
    with plain.serve(echo) as server:
        server.__class__ = Choosy
        server.verdict = False
        server.start()
        with plain.socket(server) as sock:
            assert read_all(sock) == b""
        server.verdict = True
        with plain.connect(server) as connection:
            assert says(connection)


def test_a_hook_of_socketserver_that_fails_costs_its_connection_only(plain, caplog):
    with plain.serve(echo) as server:
        server.__class__ = Choosy
        server.verdict = None
        server.start()
        with plain.socket(server) as sock:
            assert read_all(sock) == b""
        server.verdict = True
        with plain.connect(server) as connection:
            assert says(connection)
    (record,) = errors(caplog)
    assert record.getMessage() == "unexpected internal error"


class Failing(ServerConnection):
    """A connection class with a bug."""

    def __init__(self, *args):
        raise RuntimeError("a bug of the connection class")


def test_unexpected_errors_are_logged_and_cost_their_connection_only(plain, caplog):
    with plain.serve(echo, create_connection=Failing).start() as server:
        for _ in range(2):
            with plain.socket(server) as sock:
                assert read_all(sock) == b""
    assert [record.getMessage() for record in errors(caplog)] == ["unexpected internal error"] * 2
    assert all(record.exc_info for record in errors(caplog))


def test_connections_are_of_the_class_that_was_asked_for(plain):
    class Mine(ServerConnection):
        pass

    held = Held()
    with plain.serve(held, create_connection=Mine).start() as server, plain.connect(server):
        assert type(held.wait()) is Mine
        assert held.wait().server is server
        held.release()
    del Mine
    gc.collect()


def test_it_knows_its_connections(plain):
    held = Held()
    with plain.serve(held).start() as server:
        assert server.connections == set()
        with plain.socket(server), plain.connect(server):
            connection = held.wait()
            assert server.connections == {connection}
            del connection
            assert wait_until(lambda: counts(server) == (1, 2))
            held.release()
        assert wait_until(lambda: counts(server) == (0, 0))


def test_a_logger_of_the_user_is_used(plain, caplog):
    caplog.set_level(logging.INFO, "mine")
    with plain.serve(lambda connection: 1 / 0, logger=logging.getLogger("mine")).start() as server:
        with plain.connect(server) as connection:
            with pytest.raises(ConnectionClosedError):
                connection.recv()
    assert {record.name for record in caplog.records if record.levelno > logging.DEBUG} == {"mine"}


# Handlers


def test_a_handler_that_returns_closes_with_1000(link):
    with link.serve(lambda connection: None).start() as server:
        with link.connect(server) as connection:
            with pytest.raises(ConnectionClosedOK, match=r"received 1000 \(OK\)"):
                connection.recv()


def test_a_handler_that_raises_closes_with_1011_and_leaves_a_traceback(link, caplog):
    def handler(connection):
        raise RuntimeError("a bug of the handler")

    with link.serve(handler).start() as server, link.connect(server) as connection:
        with pytest.raises(ConnectionClosedError, match=r"received 1011 \(internal error\);"):
            connection.recv()
    (record,) = errors(caplog)
    assert record.getMessage() == "connection handler failed"
    assert "a bug of the handler" in str(record.exc_info[1])


def test_that_its_client_left_is_no_error_of_a_handler(link, caplog):
    def handler(connection):
        while True:
            connection.recv()

    with link.serve(handler).start() as server:
        with link.connect(server):
            pass
        with link.connect(server) as connection:
            connection.abort()
    assert errors(caplog) == []


def test_that_another_connection_is_closed_is_an_error_of_the_handler(plain, caplog):
    first = Held()

    def handler(connection):
        if connection.request.path == "/first":
            first(connection)
        else:
            first.connection.recv()

    with plain.serve(handler).start() as server:
        with plain.connect(server, "/first") as connection:
            first.wait()
            connection.close()
            with plain.connect(server, "/second") as other:
                with pytest.raises(ConnectionClosedError, match="received 1011"):
                    other.recv()
        first.release()
    (record,) = errors(caplog)
    assert record.getMessage() == "connection handler failed"
    assert record.exc_info[0] is ConnectionClosedOK


def test_a_handler_may_close_its_connection(plain):
    def handler(connection):
        connection.close(4000, "bye")

    with plain.serve(handler).start() as server, plain.connect(server) as connection:
        with pytest.raises(ConnectionClosedError, match=r"received 4000 \(private use\) bye"):
            connection.recv()


# Peers that break the rules


def reset(sock):
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def frames(*parts):
    def misbehave(sock):
        handshake(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(b"".join(parts))
            read_all(sock)

    return misbehave


def raw(data):
    def misbehave(sock):
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            read_all(sock)

    return misbehave


def go_away_during_handshake(sock):
    sock.sendall(b"GET / HTTP/1.1\r\n")
    reset(sock)


def go_away_after_handshake(sock):
    handshake(sock)
    reset(sock)


def go_away_within_a_frame(sock):
    handshake(sock)
    sock.sendall(b"\x81\xff")
    sock.shutdown(socket.SHUT_WR)


def half_close(sock):
    handshake(sock)
    sock.shutdown(socket.SHUT_WR)
    read_all(sock)


BAD_PEERS = {
    "nothing": lambda sock: None,
    "reset at once": reset,
    "reset within the request": go_away_during_handshake,
    "reset after the handshake": go_away_after_handshake,
    "end within a frame": go_away_within_a_frame,
    "half-close": half_close,
    "garbage": raw(b"\x00\xff\xfe" * 100),
    "another protocol": raw(b"SSH-2.0-OpenSSH_9.0\r\n"),
    "TLS": raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "HTTP/2": raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "endless line": raw(b"GET /" + b"a" * 100_000),
    "endless header": raw(b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 10_000),
    "not masked": frames(b"\x81\x02hi"),
    "reserved bit": frames(masked(0xF1, b"hi")),
    "reserved opcode": frames(masked(0x83, b"hi")),
    "fragmented ping": frames(masked(0x09, b"hi")),
    "long ping": frames(b"\x89\xfe\x01\x00" + bytes(260)),
    "lone continuation": frames(masked(0x80, b"hi")),
    "message within a message": frames(masked(0x01, b"hi"), masked(0x81, b"hi")),
    "not UTF-8": frames(masked(0x81, b"\xff\xff")),
    "too big": frames(b"\x82\xff" + (2**40).to_bytes(8, "big") + bytes(4)),
    "negative length": frames(b"\x82\xff" + b"\xff" * 8),
    "close code 1005": frames(masked(0x88, b"\x03\xed")),
    "close frame of one byte": frames(masked(0x88, b"\x03")),
    "data after close": frames(masked(0x88, b""), masked(0x81, b"hi") * 10),
}


@pytest.mark.parametrize("name", BAD_PEERS)
def test_nothing_that_a_peer_does_makes_a_traceback(plain, caplog, name):
    with plain.serve(echo).start() as server:
        with plain.socket(server) as sock:
            BAD_PEERS[name](sock)
        with plain.connect(server) as connection:
            assert says(connection)
        assert wait_until(lambda: server.stats()["total"] == 0)
    assert errors(caplog) == []


@pytest.mark.parametrize("name", ["nothing", "reset at once", "garbage", "another protocol"])
def test_nothing_that_a_peer_does_before_tls_makes_a_traceback(tls, plain, caplog, name):
    with tls.serve(echo).start() as server:
        with plain.socket(server) as sock:
            BAD_PEERS[name](sock)
        with tls.connect(server) as connection:
            assert says(connection)
        assert wait_until(lambda: server.stats()["total"] == 0)
    assert errors(caplog) == []


def test_a_tls_client_that_goes_without_a_word_makes_no_traceback(tls, caplog):
    with tls.serve(echo).start() as server:
        with tls.socket(server) as sock:
            handshake(sock)
            reset(sock)
        with tls.socket(server) as sock:
            handshake(sock)
            with contextlib.suppress(ssl.SSLError):
                sock.unwrap()
        assert wait_until(lambda: server.stats()["total"] == 0)
    assert errors(caplog) == []


# Nothing is left behind


def test_a_thousand_connections_leave_nothing_behind(plain):
    with plain.serve(echo).start() as server:
        with plain.connect(server) as connection:
            assert says(connection)
        assert wait_until(lambda: server.stats()["total"] == 0)
        threads, descriptors = threading.active_count(), len(open_descriptors())
        for _ in range(1000):
            with plain.connect(server) as connection:
                connection.send("hello")
                assert connection.recv() == "hello"
        del connection
        assert wait_until(lambda: server.stats()["total"] == 0)
        assert wait_until(lambda: threading.active_count() <= threads)
        assert len(open_descriptors()) <= descriptors
        # Reference counting is enough: nothing waits for the garbage collector.
        gc.disable()
        try:
            assert wait_until(lambda: not live_connections())
        finally:
            gc.enable()


def live_connections():
    return [obj for obj in gc.get_objects() if isinstance(obj, ServerConnection)]


def test_arguments_for_making_a_socket_go_with_no_socket():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with pytest.raises(ValueError, match="backlog is incompatible with sock"):
            serve(print, sock=listener, backlog=5)


def test_socket_that_shares_its_port_may_be_handed_in():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with serve(print, sock=listener, reuse_port=True) as server:
            assert server._shared == "port"


def test_client_that_is_connected_is_among_the_connections_at_once(link):
    with link.serve(echo).start() as server:
        for number in range(20):
            with link.connect(server) as client:
                assert len(server.connections) == 1, number
            assert client.is_gone
            assert wait_until(lambda: not server.connections)


@pytest.mark.parametrize("make", [lambda **options: serve(print, **options), connect])
def test_what_is_no_logger_is_refused(make):
    arguments = {} if make is not connect else {"uri": "ws://localhost"}
    with pytest.raises(TypeError, match=r"^logger must be a logger, not 5$"):
        make(**arguments, logger=5)
