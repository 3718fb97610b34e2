"""Limits that hold before a connection is open: who is let in, and what the others are told."""

from __future__ import annotations

import contextlib
import logging
import threading

import pytest
from conftest import wait_until
from links import PATIENCE, Held, Link, counts, echo, handshake, read_all
from peers import Task

from syncws import ConnectionClosed, serve
from syncws.admission import REPORT_INTERVAL, Admission, Limits, Slot, host_of
from syncws.ledger import Ledger

LOG = logging.getLogger("test")


def says(connection):
    connection.send("hello")
    return connection.recv(PATIENCE) == "hello"


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("address", "host"),
    [
        (("127.0.0.1", 5000), "127.0.0.1"),
        (("::ffff:10.1.2.3", 5000, 0, 0), "10.1.2.3"),
        (("2001:db8:1:2:3:4:5:6", 5000, 0, 0), "2001:db8:1:2::/64"),
        (("2001:db8:1:2::", 5000, 0, 0), "2001:db8:1:2::/64"),
        (("::1", 5000, 0, 0), "::/64"),
        (("fe80::1%eth0", 5000, 0, 2), "fe80::/64"),
        ("", ""),
        (b"\0abstract", ""),
    ],
)
def test_what_counts_as_one_client(address, host):
    assert host_of(address) == host


def test_over_max_connections_per_ip_clients_get_503(plain, caplog):
    with plain.serve(echo, max_connections_per_ip=2).start() as server:
        with plain.connect(server) as one, plain.connect(server):
            with plain.socket(server) as sock:
                answer = read_all(sock)
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"\r\nRetry-After: 5\r\n" in answer
            assert answer.endswith(b"\r\n\r\nToo many connections from your address.\n")
            assert says(one)
            assert server.stats()["refused"] == {"max_connections_per_ip": 1}
        assert wait_until(lambda: counts(server) == (0, 0))
        with plain.connect(server) as again:
            assert says(again)
    text = "connections refused: there are 2 from 127.0.0.1, max_connections_per_ip"
    assert warnings(caplog) == [text]


def test_another_address_gets_in(plain):
    with plain.serve(echo, max_connections_per_ip=1).start() as server, plain.connect(server):
        source = ("127.0.0.2", 0)
        with plain.connect(server, source_address=source) as other:
            assert says(other)
            assert other.local_address[0] == "127.0.0.2"


def test_clients_of_a_unix_socket_have_no_address(tmp_path, server_context, client_context):
    link = Link("unix", server_context, client_context, tmp_path)
    with link.serve(echo, max_connections_per_ip=1).start() as server:
        with link.connect(server) as one, link.connect(server) as other:
            assert says(one)
            assert says(other)


def test_over_max_handshakes_the_oldest_is_dropped_with_503(plain, caplog):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(plain.serve(echo, max_handshakes=2).start())
        socks = [stack.enter_context(plain.socket(server)) for _ in range(2)]
        for sock in socks:
            sock.sendall(b"GET / HTTP/1.1\r\n")
        assert wait_until(lambda: server.stats()["opening"] == 2)
        with plain.connect(server) as connection:
            assert says(connection)
        answer = read_all(socks[0])
        assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
        assert b"\r\nRetry-After: 5\r\n" in answer
        assert answer.endswith(b"Too many opening handshakes.\n")
        assert wait_until(lambda: server.stats()["refused"] == {"max_handshakes": 1})
        assert "\r\n\r\n" in handshake(socks[1])[-4:]
    text = "opening handshakes dropped: the client is too slow, max_handshakes"
    assert warnings(caplog) == [text]


def test_silent_tls_clients_are_dropped_too(tls, plain):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(tls.serve(echo, max_handshakes=2).start())
        socks = [stack.enter_context(plain.socket(server)) for _ in range(2)]
        assert wait_until(lambda: server.stats()["opening"] == 2)
        with tls.connect(server) as connection:
            assert says(connection)
        assert read_all(socks[0])[:1] in (b"", b"\x15")  # perhaps a TLS alert
        assert wait_until(lambda: server.stats()["refused"] == {"max_handshakes": 1})


def test_many_silent_clients_do_not_keep_a_good_one_out(plain):
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(plain.serve(echo, max_handshakes=10).start())
        for _ in range(100):
            stack.enter_context(plain.socket(server))
        with plain.connect(server, open_timeout=PATIENCE) as connection:
            assert says(connection)
        assert wait_until(lambda: server.stats()["total"] <= 10)


def test_slow_handshakes_make_room_over_max_connections():
    # A clock would be needed to wait for less than a second; so this asks without a server.
    class Stub:
        reason = None
        request = None

        def cut_handshake(self, reason):
            self.reason = reason

    admission = Admission(Limits(2, None, None), Ledger(), LOG)
    slots = []
    for _ in range(2):
        thread = threading.Thread()
        slot = Slot(None, ("127.0.0.1", 1), late=False)
        slot.connection = Stub()
        admission.enter(thread, slot)
        slots.append((thread, slot))
    assert admission.refusal(("127.0.0.1", 1)) == "max_connections"
    slots[0][1].since -= 2
    assert admission.refusal(("127.0.0.1", 1)) is None
    assert slots[0][1].dropped
    assert slots[0][1].connection.reason == "max_handshakes"
    admission.leave(slots[0][0])
    slots[1][1].since -= 2
    admission.requested(slots[1][0])
    admission.enter(threading.Thread(), Slot(None, ("127.0.0.1", 1), late=False))
    assert admission.refusal(("127.0.0.1", 1)) == "max_connections"


def test_a_limit_that_is_reached_again_and_again_is_reported_with_a_count(caplog):
    admission = Admission(Limits(0, None, None), Ledger(), LOG)
    for _ in range(5):
        assert admission.refusal(("127.0.0.1", 1)) == "max_connections"
    text = "connections refused: there are 0, max_connections"
    assert warnings(caplog) == [text]
    admission._reports["max_connections"].next_at -= REPORT_INTERVAL
    admission.refusal(("127.0.0.1", 1))
    assert warnings(caplog) == [text, f"{text}; 4 more since it was last said"]


@pytest.mark.parametrize("name", ["max_connections_per_ip", "max_handshakes"])
def test_limits_must_let_somebody_in(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, not 0"):
        serve(echo, "127.0.0.1", 0, **{name: 0})


def test_max_connections_must_not_be_negative():
    with pytest.raises(ValueError, match="max_connections must be at least 0, not -1"):
        serve(echo, "127.0.0.1", 0, max_connections=-1)


def test_there_may_be_no_limits(plain):
    with plain.serve(echo, max_connections=None, max_handshakes=None).start() as server:
        with plain.connect(server) as connection:
            assert says(connection)


def test_hooks_may_take_their_time(plain):
    entered, done = threading.Semaphore(0), threading.Event()

    def wait(connection, request):
        entered.release()
        done.wait(PATIENCE)

    with plain.serve(echo, process_request=wait, max_handshakes=1).start() as server:
        opening = []
        for _ in range(3):
            opening.append(Task(plain.connect, server))
            assert entered.acquire(timeout=PATIENCE)
        done.set()
        for task in opening:
            with task.result() as connection:
                assert says(connection)


def test_a_handler_that_waits_still_counts(plain):
    held = Held()
    with plain.serve(held, max_connections=1).start() as server:
        with plain.connect(server) as client:
            held.wait()
            with plain.socket(server) as sock:
                assert read_all(sock).startswith(b"HTTP/1.1 503 ")
            held.release()
            with pytest.raises(ConnectionClosed):
                client.recv(PATIENCE)


def test_who_has_too_many_connections_drops_nobody():
    admission = Admission(Limits(1, 1, None), Ledger(), LOG)
    slot = Slot(None, ("127.0.0.1", 1), late=False)
    slot.since -= 2
    admission.enter(threading.Thread(), slot)
    assert admission.refusal(("127.0.0.1", 2)) == "max_connections_per_ip"
    assert not slot.dropped
