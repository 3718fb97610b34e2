"""What a server tells about itself: statistics, access lines, dumps."""

from __future__ import annotations

import logging
import re
import threading

import pytest
from conftest import wait_until
from links import PATIENCE, Held, counts, echo, read_all
from peers import BINARY, bare_client

from syncws import broadcast, connect
from syncws.admission import Slot
from syncws.reports import format_address

STATS = {
    "open": 0,
    "opening": 0,
    "total": 0,
    "accepted": 0,
    "opened": 0,
    "refused": {},
    "closed": {},
    "messages_received": 0,
    "messages_sent": 0,
    "messages_dropped": 0,
    "bytes_received": 0,
    "bytes_sent": 0,
    "inbox_messages": 0,
    "inbox_bytes": 0,
    "outbox_bytes": 0,
    "accept_errors": 0,
    "thread_errors": 0,
}


def closed_lines(caplog):
    texts = [record.getMessage() for record in caplog.records]
    return [text for text in texts if text.startswith("connection closed: ")]


def test_a_server_that_did_nothing_has_all_counts(plain):
    with plain.serve(echo) as server:
        assert server.stats() == STATS


def test_counts_are_those_of_live_and_ended_connections(plain):
    with plain.serve(echo).start() as server:
        with plain.connect(server, compression=None) as one:
            one.send(b"12345")
            assert one.recv(PATIENCE) == b"12345"
            # A message is counted, after its bytes, when the call that sends it has returned.
            assert wait_until(lambda: server.stats()["messages_sent"])
            live = server.stats()
        assert wait_until(lambda: counts(server) == (0, 0))
        with plain.connect(server, compression=None) as other:
            other.send(b"1234567")
            assert other.recv(PATIENCE) == b"1234567"
        assert wait_until(lambda: counts(server) == (0, 0))
        ended = server.stats()
    expected = {"messages_received": 1, "messages_sent": 1, "bytes_received": 11, "bytes_sent": 7}
    assert live == {**STATS, "open": 1, "total": 1, "accepted": 1, "opened": 1, **expected}
    # With the Close frames: 8 bytes from a client, 4 from a server.
    sums = {"messages_received": 2, "messages_sent": 2, "bytes_received": 40, "bytes_sent": 24}
    closed = {1000: 2}
    assert ended == {**STATS, "accepted": 2, "opened": 2, "closed": closed, **sums}


def test_what_waits_is_told(plain):
    with bare_client(plain, write_limit=10) as (wire, connection):
        wire.send(BINARY, b"x" * 100)
        stats = connection.server.stats
        assert wait_until(lambda: stats()["inbox_messages"] == 1)
        assert stats()["inbox_bytes"] == 100
        assert connection.recv() == b"x" * 100
        while not broadcast([connection], bytes(1_000_000)).dropped:
            assert broadcast([connection], b"x")
        assert stats()["outbox_bytes"] > 0
        assert stats()["messages_dropped"] == connection.stats()["messages_dropped"] > 0


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x16\x03\x01\x00\x00", "handshake"),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "handshake"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "http"),
        (
            b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Origin: http://b\r\n\r\n",
            "origin",
        ),
    ],
)
def test_those_that_were_not_opened_are_counted_by_reason(plain, sent, reason):
    with plain.serve(echo, health="/healthz").start() as server:
        with plain.socket(server) as sock:
            sock.sendall(sent)
            read_all(sock)
        assert wait_until(lambda: server.stats()["refused"] == {reason: 1})
        assert server.stats()["opened"] == 0


def test_failures_of_the_network_are_counted(tls, plain):
    with tls.serve(echo, open_timeout=0.1).start() as server, plain.socket(server) as sock:
        assert read_all(sock) == b""
        assert wait_until(lambda: server.stats()["refused"] == {"network": 1})


def test_there_is_a_line_in_the_log_for_each_connection(plain, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with plain.serve(echo).start() as server:
        with plain.connect(server, "/chat?token=secret", compression=None) as connection:
            connection.send("hello")
            connection.recv(PATIENCE)
            port = connection.local_address[1]
    (line,) = closed_lines(caplog)
    pattern = (
        rf'connection closed: 127\.0\.0\.1:{port} "/chat" [0-9]+\.[0-9]{{3}} s, '
        r"received 1 messages, 19 bytes, sent 1 messages, 11 bytes, "
        r"1000: received 1000 \(OK\); then sent 1000 \(OK\)"
    )
    assert re.fullmatch(pattern, line)
    (record,) = [r for r in caplog.records if r.getMessage() == line]
    assert record.levelno == logging.INFO
    assert record.websocket.request.path == "/chat?token=secret"


def test_what_the_peer_sent_is_escaped(plain, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with plain.serve(echo).start() as server:
        with plain.connect(server) as connection:
            connection.close(4000, "first\nsecond \x1b[31m ü")
    (line,) = closed_lines(caplog)
    assert line.endswith(
        "4000: received 4000 (private use) first\\nsecond \\x1b[31m \\xfc; "
        "then sent 4000 (private use) first\\nsecond \\x1b[31m \\xfc"
    )


def test_the_code_is_that_of_whoever_closed_first(plain, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with plain.serve(lambda connection: connection.close(4001)).start() as server:
        with plain.connect(server):
            pass
        with plain.connect(server) as aborted:
            aborted.abort()
        assert wait_until(lambda: counts(server) == (0, 0))
        assert 4001 in server.stats()["closed"]
    assert ", 4001: sent 4001 (private use)" in closed_lines(caplog)[0]


def test_connections_that_end_without_a_close_frame_have_1006(plain, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with plain.serve(echo).start() as server:
        with plain.connect(server) as connection:
            connection.abort()
        assert wait_until(lambda: server.stats()["closed"] == {1006: 1})
    assert closed_lines(caplog)[0].endswith(" 1006: no close frame received or sent")


def test_a_dump_shows_connections_and_stacks(link):
    held = Held()
    with link.serve(held).start() as server, link.connect(server, "/chat?secret") as client:
        connection = held.wait()
        text = server.dump()
        assert re.match(r"server .*: open, 1 connections, 0 opening\n", text)
        assert f"connection {connection.id} from " in text
        assert '"/chat", OPEN, accepted ' in text
        assert "secret" not in text
        assert "messages_received 0" in text
        assert "in __call__\n    self._done.wait(PATIENCE)" in text
        assert "  thread syncws-service:\n" in text
        assert "  thread syncws-server:\n" in text
        held.release()
        del connection, client


def test_a_dump_may_come_from_a_handler_and_at_any_stage(plain):
    texts = []

    def handler(connection):
        texts.append(connection.server.dump())

    with plain.serve(handler).start() as server, plain.socket(server):
        assert wait_until(lambda: server.stats()["opening"] == 1)
        with plain.connect(server) as client:
            client.close()
        server.close()
        texts.append(server.dump())
    assert ", CONNECTING, accepted " in texts[0]
    assert ": this one, or not running\n" in texts[0]
    assert ": closing, " in texts[1]


def test_a_connection_that_has_no_thread_yet_is_shown(plain):
    with plain.serve(echo) as server:
        thread = threading.Thread(name="waiting")
        server._admission.enter(thread, Slot(None, ("192.0.2.1", 5000), late=False))
        text = server.dump()
        server._admission.leave(thread)
    assert "\nconnection from 192.0.2.1:5000, accepted 0.0 s ago\n" in text


def test_addresses_of_ipv6_and_unix_are_formatted():
    assert format_address(("::1", 80, 0, 0)) == "[::1]:80"
    assert format_address("") == "unix socket"
    assert format_address("/run/socket") == "/run/socket"


def test_certificates_can_be_replaced_by_ones_only(plain, tls):
    with plain.serve(echo) as server:
        assert server.ssl is None
        with pytest.raises(ValueError, match="can't change between TLS and plain"):
            server.ssl = tls._server_context
    with tls.serve(echo) as server:
        with pytest.raises(ValueError, match="can't change between TLS and plain"):
            server.ssl = None


def test_a_plain_connection_has_no_certificate(plain):
    with plain.serve(echo).start() as server, connect(plain.uri(server)) as connection:
        assert connection.peer_certificate is None
