"""TLS under threads, with other certificates, with those of clients, and cut off."""

from __future__ import annotations

import contextlib
import hashlib
import queue
import random
import shutil
import socket
import ssl
import subprocess
import threading

import pytest
from conftest import wait_until
from links import PATIENCE, Link, echo, handshake, masked
from peers import CLOSE, FIN, TEXT, Task, Wire, bare_client, bare_server, close_payload

from syncws import ConnectionClosed, ConnectionClosedError, connect, serve

VERSIONS = ["TLSv1_2", "TLSv1_3"]

SENDERS = RECEIVERS = 4  # threads at each end
MESSAGES = 60  # of each sender


def make_server_context(authority, *names, version=None):
    """A context with a certificate of its own for ``names``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*(names or ("127.0.0.1",))).configure_cert(context)
    if version is not None:
        context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    return context


def make_client_context(authority, *, certificate=None):
    """A context that trusts the authority, perhaps with a certificate for itself."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if certificate is not None:
        certificate.configure_cert(context)
    return context


def names_of(certificate):
    """The names that a certificate is for."""
    return [name for _, name in certificate["subjectAltName"]]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


# Full duplex from many threads


def sign(label, body):
    return f"{label} {hashlib.sha256(body).hexdigest()} ".encode() + body


def check(message):
    """The sender and the number of a message that arrived as it was sent."""
    sender, number, digest, body = message.split(b" ", 3)
    assert hashlib.sha256(body).hexdigest().encode() == digest
    return sender.decode(), int(number)


def send_signed(connection, sender):
    rng = random.Random(sender)
    for number in range(MESSAGES):
        body = bytes(rng.getrandbits(8) for _ in range(200)) * rng.choice((1, 1, 1, 20, 120))
        connection.send(sign(f"{sender} {number}", body))


def receive_signed(connection, received):
    """Receive until the connection is closed; the messages of this thread, in order."""
    mine = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            mine.append(check(connection.recv(PATIENCE)))
            received.release()
    return mine


@pytest.mark.parametrize("kind", ["tls", "portable-tls"])
def test_many_threads_use_one_connection_in_both_directions(
    kind, version, authority, client_context, tmp_path
):
    context = make_server_context(authority, version=version)
    link = Link(kind, context, client_context, tmp_path)
    total = SENDERS * MESSAGES
    with link.pair(compression=None, client={"compression": None}) as ends:
        counts = [threading.Semaphore(0) for _ in ends]
        receiving = [
            [Task(receive_signed, end, count) for _ in range(RECEIVERS)]
            for end, count in zip(ends, counts)
        ]
        sending = [
            Task(send_signed, end, f"{side}-{number}")
            for side, end in enumerate(ends)
            for number in range(SENDERS)
        ]
        for task in sending:
            task.result()
        for count in counts:
            assert all(count.acquire(timeout=PATIENCE) for _ in range(total))
        ends[0].close()
        for sender_side, tasks in zip((1, 0), receiving):
            shares = [task.result() for task in tasks]
            expected = {
                (f"{sender_side}-{sender}", number)
                for sender in range(SENDERS)
                for number in range(MESSAGES)
            }
            assert sum(map(len, shares)) == total
            assert set().union(*shares) == expected
            for share in shares:  # what one thread gets of one sender is in order
                assert all(in_order(share, sender) for sender, _ in expected)


def in_order(share, sender):
    numbers = [number for name, number in share if name == sender]
    return numbers == sorted(numbers)


# Cut off


def end_raggedly(wire):
    """End TCP without close_notify."""
    with socket.socket(fileno=wire.sock.detach()) as sock:
        sock.shutdown(socket.SHUT_WR)


def end_with_close_notify(wire):
    """End TLS properly, but without a Close frame."""
    with contextlib.suppress(OSError):  # not all versions of Python like the answer
        wire.sock.unwrap().close()


def end_within_a_record(wire):
    """End TCP in the middle of a record of TLS, which says that there is more of it."""
    with socket.socket(fileno=wire.sock.detach()) as sock:
        sock.sendall(b"\x17\x03\x03\x01\x00only some of it")


def end_within_a_frame(wire):
    """End TCP raggedly in the middle of a frame."""
    wire.sock.sendall(masked(FIN | TEXT, bytes(100))[:50] if wire.masks else b"\x81\x20half")
    end_raggedly(wire)


@pytest.mark.parametrize(
    "end", [end_raggedly, end_with_close_notify, end_within_a_record, end_within_a_frame]
)
@pytest.mark.parametrize("ours", ["client", "server"])
def test_end_of_tls_without_a_close_frame_is_1006(
    ours, end, tls, server_context, client_context, caplog
):
    contexts = (server_context, client_context)
    opened = bare_server(contexts=contexts) if ours == "client" else bare_client(tls)
    with opened as (wire, connection):
        wire.send(TEXT, b"before the end")
        end(wire)
        assert connection.recv(PATIENCE) == "before the end"
        with pytest.raises(ConnectionClosedError, match=r"^no close frame received or sent$"):
            connection.recv(PATIENCE)
        assert connection.close_code == 1006
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.parametrize("ours", ["client", "server"])
def test_ragged_end_after_the_closing_handshake_is_fine(ours, tls, server_context, client_context):
    contexts = (server_context, client_context)
    opened = bare_server(contexts=contexts) if ours == "client" else bare_client(tls)
    with opened as (wire, connection):
        closing = Task(connection.close, 1000)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        wire.send_close(1000)
        end_raggedly(wire)
        closing.result(PATIENCE / 2)  # before close_timeout
        assert connection.close_code == 1000


# Server names (RFC 6066 §3)


def test_sni_callback_chooses_the_certificate(authority, client_context):
    context = make_server_context(authority, "one.example")
    other = make_server_context(authority, "two.example")
    asked = queue.Queue()

    def choose(tls, name, initial_context):
        asked.put(name)
        if name == "two.example":
            tls.context = other

    context.sni_callback = choose
    with serve(echo, "127.0.0.1", 0, ssl=context).start() as server:
        for name in ("one.example", "two.example"):
            with connect(
                f"wss://{name}/", address=server.server_address, ssl=client_context
            ) as client:
                client.send(name)
                assert client.recv(PATIENCE) == name
                assert names_of(client.peer_certificate) == [name]
            assert asked.get_nowait() == name


def test_sni_callback_may_refuse_a_name(tls, authority, client_context, caplog):
    context = make_server_context(authority, "127.0.0.1", "one.example")
    context.sni_callback = lambda tls, name, initial_context: (
        None if name == "one.example" else ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
    )
    with serve(echo, "127.0.0.1", 0, ssl=context).start() as server:
        options = {"address": server.server_address, "ssl": client_context}
        with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized.name"):
            connect("wss://two.example/", **options)
        with connect("wss://one.example/", **options) as client:
            client.send("the server lives")
            assert client.recv(PATIENCE) == "the server lives"
    assert [record for record in caplog.records if record.exc_info] == []


# Certificates of clients


@contextlib.contextmanager
def asking_server(authority, mode, version=None):
    """A server that asks for certificates: it and a queue of those that handlers see."""
    context = make_server_context(authority, version=version)
    context.verify_mode = mode
    authority.configure_trust(context)
    seen = queue.Queue()

    def tell(connection):
        seen.put(connection.peer_certificate)
        echo(connection)

    with serve(tell, "127.0.0.1", 0, ssl=context).start() as server:
        yield server, seen


def uri_of(server):
    return f"wss://127.0.0.1:{server.server_address[1]}/"


@pytest.mark.parametrize("mode", [ssl.CERT_REQUIRED, ssl.CERT_OPTIONAL])
def test_handlers_see_the_certificate_of_the_client(mode, version, authority):
    context = make_client_context(authority, certificate=authority.issue_cert("me@example.com"))
    with asking_server(authority, mode, version) as (server, seen):
        with connect(uri_of(server), ssl=context) as client:
            assert names_of(seen.get(timeout=PATIENCE)) == ["me@example.com"]
            assert names_of(client.peer_certificate) == ["127.0.0.1"]


def test_client_without_a_certificate_is_welcome_where_it_is_optional(authority, version):
    with asking_server(authority, ssl.CERT_OPTIONAL, version) as (server, seen):
        with connect(uri_of(server), ssl=make_client_context(authority)):
            assert seen.get(timeout=PATIENCE) is None


def test_certificate_that_was_not_asked_for_is_not_seen(authority, version):
    context = make_client_context(authority, certificate=authority.issue_cert("me@example.com"))
    with asking_server(authority, ssl.CERT_NONE, version) as (server, seen):
        with connect(uri_of(server), ssl=context):
            assert seen.get(timeout=PATIENCE) is None


def test_plain_connections_have_no_certificates(plain):
    with plain.pair() as (client, server):
        assert client.peer_certificate is None
        assert server.peer_certificate is None


@pytest.mark.parametrize("has", ["none", "one of a stranger"])
def test_client_without_the_certificate_required_is_refused(has, authority, version, caplog):
    stranger = type(authority)()
    certificate = None if has == "none" else stranger.issue_cert("me@example.com")
    context = make_client_context(authority, certificate=certificate)
    with asking_server(authority, ssl.CERT_REQUIRED, version) as (server, seen):
        # With TLS 1.3 the client learns it when it has sent its request, and perhaps by a reset.
        with pytest.raises(OSError, match=r"(?i)alert|reset|broken pipe"):
            connect(uri_of(server), ssl=context)
        assert wait_until(lambda: server.stats()["total"] == 0)
        assert seen.empty()
    assert [record for record in caplog.records if record.exc_info] == []


# Certificates that change


def test_reloading_the_certificate_drops_no_connection(authority, client_context):
    with serve(echo, "127.0.0.1", 0, ssl=make_server_context(authority)).start() as server:
        with connect(uri_of(server), ssl=client_context) as before:
            server.ssl = make_server_context(authority)
            with connect(uri_of(server), ssl=client_context) as after:
                for client in (before, after):
                    client.send("hello")
                    assert client.recv(PATIENCE) == "hello"
                old, new = before.peer_certificate, after.peer_certificate
                assert old["serialNumber"] != new["serialNumber"]


def test_reloading_while_clients_connect_refuses_none(authority, client_context):
    contexts = [make_server_context(authority) for _ in range(3)]

    def visit():
        for _ in range(10):
            with connect(uri_of(server), ssl=client_context) as client:
                client.send("hello")
                assert client.recv(PATIENCE) == "hello"

    with serve(echo, "127.0.0.1", 0, ssl=contexts[0]).start() as server:
        visiting = [Task(visit) for _ in range(2)]
        while any(task.is_alive() for task in visiting):
            for context in contexts:
                server.ssl = context
            visiting[0].join(0.002)
        for task in visiting:
            task.result()


# Resumption of sessions (RFC 8446 §2.2, RFC 5077)


def visit_with_session(server, context, session):
    """Have a message echoed; whether the session was resumed, and one for the next time."""
    sock = socket.create_connection(server.server_address[:2], PATIENCE)
    with context.wrap_socket(sock, server_hostname="127.0.0.1", session=session) as secure:
        handshake(secure)
        wire = Wire(secure, masks=True)
        wire.send(TEXT, b"hello")
        assert wire.receive() == (FIN | TEXT, b"hello")
        found = secure.session_reused, secure.session
        wire.send_close(1000)
        assert wire.receive_all() == [(FIN | CLOSE, close_payload(1000))]
    return found


def test_sessions_are_resumed(authority, client_context, version):
    context = make_server_context(authority, version=version)
    with serve(echo, "127.0.0.1", 0, ssl=context).start() as server:
        resumed, session = visit_with_session(server, client_context, None)
        assert not resumed
        resumed, _ = visit_with_session(server, client_context, session)
        assert resumed


def test_resumed_session_of_a_client_still_has_its_certificate(authority, version):
    context = make_client_context(authority, certificate=authority.issue_cert("me@example.com"))
    with asking_server(authority, ssl.CERT_REQUIRED, version) as (server, seen):
        _, session = visit_with_session(server, context, None)
        resumed, _ = visit_with_session(server, context, session)
        assert resumed
        for _ in range(2):
            assert names_of(seen.get(timeout=PATIENCE)) == ["me@example.com"]


def test_session_of_a_context_that_was_replaced_is_not_resumed(authority, client_context, version):
    context = make_server_context(authority, version=version)
    with serve(echo, "127.0.0.1", 0, ssl=context).start() as server:
        _, session = visit_with_session(server, client_context, None)
        server.ssl = make_server_context(authority, version=version)
        resumed, _ = visit_with_session(server, client_context, session)
        assert not resumed


# Key updates (RFC 8446 §4.6.3), which the ssl module has no call for


class CommandLineClient:
    """``openssl s_client``, in which a line that begins with K asks for a key update."""

    def __init__(self, server):
        host, port = server.server_address[:2]
        self._process = subprocess.Popen(
            ["openssl", "s_client", "-connect", f"{host}:{port}", "-tls1_3", "-brief"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        self._output = b""

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        with self._process:  # closes the pipes
            self._process.kill()

    def send(self, data):
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def wait_for(self, data):
        """Read its output, and what the server sent, until some bytes of it."""
        while data not in self._output:
            chunk = self._process.stdout.read1(65536)
            assert chunk, f"it ended: {self._output!r}"
            self._output += chunk
        self._output = self._output.partition(data)[2]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command")
@pytest.mark.parametrize("command", [b"K\n", b"k\n"], ids=["both", "one-direction"])
def test_key_updates_go_unnoticed(command, tls):
    request = (
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with tls.serve(echo).start() as server, CommandLineClient(server) as client:
        client.send(request)
        client.wait_for(b"\r\n\r\n")
        for number in range(5):
            text = b"message %d" % number
            client.send(masked(FIN | TEXT, text))
            client.wait_for(bytes((FIN | TEXT, len(text))) + text)
            client.send(command)
            client.wait_for(b"KEYUPDATE")
        client.send(masked(FIN | CLOSE, close_payload(1000)))
        client.wait_for(bytes((FIN | CLOSE, 2)) + close_payload(1000))
