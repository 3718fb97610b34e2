"""
The eight promises, each shown end to end over plain TCP and over TLS.

What is shown here in seconds is shown by the stress battery (tests/stress/) at length, with
many more clients, and with clients and server in processes of their own.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import itertools
import logging
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib

import pytest
from conftest import open_descriptors, wait_until
from links import PATIENCE, counts, handshake
from peers import (
    BINARY,
    CLOSE,
    CONT,
    FIN,
    PING,
    PONG,
    RSV1,
    TEXT,
    Task,
    Wire,
    bare_client,
    bare_server,
    close_payload,
    frame,
)

import syncws.transport
from syncws import (
    ConnectionClosed,
    ConnectionClosedError,
    ServerConnection,
    broadcast,
)

# On a busy machine a thread may get its turn late; a hang would take much longer.
GRACE = 2.0  # seconds

SMALL_BUFFER = 4096  # bytes that the kernel keeps for those who do not read, or about so
TOO_MUCH = 2**20  # bytes, more than fit such buffers

DEFLATE = {"Sec_WebSocket_Extensions": "permessage-deflate"}


class Guests:
    """A handler that keeps its connections by their paths until the test lets them go."""

    def __init__(self):
        self.connections = {}
        self._done = threading.Event()

    def __call__(self, connection):
        path = connection.request.path
        self.connections[path] = connection
        self._done.wait(PATIENCE)
        self.connections.pop(path, None)

    def wait(self, count):
        """Wait until there are so many."""
        assert wait_until(lambda: len(self.connections) == count), self.connections

    def release(self):
        """Let the handlers return."""
        self._done.set()


def open_wire(stack, link, server, path="/", **headers):
    """A client that the test plays, with a small buffer for what it does not read."""
    sock = stack.enter_context(link.socket(server))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER)
    handshake(sock, path, **headers)
    return Wire(sock, masks=True)


def in_background(stack, wire, chunks):
    """Send until there is no more, or the other end has had enough."""

    def send():
        with contextlib.suppress(OSError):  # TLS errors, too
            for chunk in chunks:
                wire.sock.sendall(chunk)

    sending = Task(send)
    stack.callback(sending.result)
    stack.callback(wire.hang_up)


def errors(caplog):
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# 1


def be_silent(stack, link, server, paths):
    """Open connections and do nothing."""
    for path in paths:
        open_wire(stack, link, server, path)


def be_stopped(stack, link, server, paths):
    """Open connections from a process, and stop that."""
    arguments = [str(server.server_address[1]), str(int(link.secure)), *paths]
    program = subprocess.Popen([sys.executable, "-c", STOPPED, *arguments], stdout=subprocess.PIPE)
    stack.callback(program.wait)
    stack.callback(program.kill)
    stack.enter_context(program.stdout)
    assert program.stdout.readline() == b"open\n"
    program.send_signal(signal.SIGSTOP)


STOPPED = """
import socket, ssl, sys
port, secure, paths = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
socks = []
for path in paths:
    sock = socket.create_connection(("127.0.0.1", port))
    if secure:
        sock = ssl._create_unverified_context().wrap_socket(sock)
    sock.sendall((
        f"GET {path} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nUpgrade: websocket\\r\\n"
        "Connection: Upgrade\\r\\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\\r\\n"
        "Sec-WebSocket-Version: 13\\r\\n\\r\\n"
    ).encode())
    assert sock.recv(12) == b"HTTP/1.1 101"
    socks.append(sock)
print("open", flush=True)
sys.stdin.read()
"""


def trickle(stack, link, server, paths):
    """Send a message a byte at a time."""
    for path in paths:
        wire = open_wire(stack, link, server, path)
        over = threading.Event()
        head = struct.pack("!BBQ", FIN | BINARY, 0xFF, 10_000) + bytes(4)
        chunks = (b"\0" for _ in iter(lambda over=over: over.wait(0.01), True))
        wire.sock.sendall(head)
        in_background(stack, wire, chunks)
        stack.callback(over.set)


def flood(stack, link, server, paths):
    """Send messages without end, and read nothing."""
    for path in paths:
        wire = open_wire(stack, link, server, path)
        in_background(stack, wire, iter(lambda: frame(FIN | BINARY, b"x", masked=True) * 100, b""))


BEHAVIOURS = [be_silent, be_stopped, trickle, flood]


def timed(function, *args, **kwargs):
    """Seconds until a call returned, or raised what it may."""
    began = time.monotonic()
    with contextlib.suppress(TimeoutError, ConnectionClosed):
        function(*args, **kwargs)
    return time.monotonic() - began


def calls_with_timeouts(connection):
    """All calls that block, at the same time; each is to end within 0.6 seconds."""
    return [
        Task(timed, connection.recv, 0.2),
        Task(timed, connection.send, bytes(TOO_MUCH), timeout=0.2),
        Task(timed, connection.send, bytes(TOO_MUCH)),  # send_timeout
        Task(timed, lambda: connection.ping().wait(0.2)),
        Task(timed, connection.wait_closed, 0.2),
    ]


def test_promise_1_every_blocking_call_is_bounded(slow_link):
    guests = Guests()
    options = {"send_timeout": 0.4, "close_timeout": 0.4, "compression": None}
    with slow_link.serve(guests, **options).start() as server, contextlib.ExitStack() as stack:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        paths = [(f"/{b.__name__}/calls", f"/{b.__name__}/shutdown") for b in BEHAVIOURS]
        for behave, both in zip(BEHAVIOURS, paths):
            behave(stack, slow_link, server, both)
        guests.wait(2 * len(paths))
        calling = [guests.connections[one] for one, _ in paths]

        calls = {conn.request.path: calls_with_timeouts(conn) for conn in calling}
        for path, tasks in calls.items():
            assert max(task.result() for task in tasks) < 0.6 + GRACE, path
        closes = {conn.request.path: Task(timed, conn.close) for conn in calling}
        for path, task in closes.items():
            assert task.result() < 0.4 + GRACE, path

        # Calls without any timeout that others wait in are ended by a shutdown.
        others = [guests.connections[other] for _, other in paths]
        waiting = [Task(timed, conn.send, bytes(TOO_MUCH)) for conn in others]
        waiting += [Task(timed, lambda conn=conn: list(conn)) for conn in others]
        assert timed(server.shutdown, timeout=0.4) < 0.4 + GRACE
        for task in waiting:
            task.result()
        guests.release()


# 2


def make_bomb():
    """16 MiB of zeros, compressed to 16 KiB (RFC 7692 §7.2.1)."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(bytes(2**24)) + deflater.flush(zlib.Z_SYNC_FLUSH)
    return frame(FIN | RSV1 | BINARY, data[:-4], masked=True)


def let_loose(stack, link, server):
    """Bad peers of several kinds."""
    for _ in range(20):  # silent, before TLS too
        stack.enter_context(socket.create_connection(server.server_address[:2]))
    for _ in range(5):
        slow = stack.enter_context(link.socket(server))
        slow.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ")
        open_wire(stack, link, server)  # reads nothing
    message = frame(FIN | BINARY, bytes(60_000), masked=True)
    pings = frame(FIN | PING, bytes(125), masked=True) * 500
    empty = frame(CONT, b"", masked=True) * 1000
    for path, chunks in (
        ("/", itertools.repeat(message)),  # echoes unread
        ("/", itertools.repeat(pings)),  # pongs unread
        ("/listen", itertools.repeat(pings)),  # whose handler is busy
        ("/", [frame(TEXT, b"", masked=True), *[empty] * 100]),
        ("/", [frame(FIN | 3, b"", masked=True)]),
        ("/", [make_bomb()]),
    ):
        in_background(stack, open_wire(stack, link, server, path, **DEFLATE), chunks)


def visit(link, server):
    """Connect, have a message echoed, close."""
    with link.connect(server) as connection:
        connection.send("hello")
        assert connection.recv(PATIENCE) == "hello"


def test_promise_2_one_bad_peer_cannot_harm_the_others(slow_link):
    def echo_or_listen(connection):
        if connection.request.path == "/listen":
            connection.wait_closed()
        for message in connection:
            connection.send(message)

    options = {"send_timeout": 1, "close_timeout": 1}
    with slow_link.serve(echo_or_listen, **options).start() as server:
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        with contextlib.ExitStack() as stack:
            friend = stack.enter_context(slow_link.connect(server, "/listen"))
            let_loose(stack, slow_link, server)
            for number in range(20):
                assert timed(visit, slow_link, server) < GRACE
                assert timed(broadcast, server.connections, str(number) * 3000) < GRACE
                assert friend.recv(GRACE) == str(number) * 3000
                assert friend.ping().wait(GRACE)
            inboxes = [conn.stats()["inbox_bytes"] for conn in server.connections]
            assert max(inboxes) <= 2**22 + 2**20  # max_queue_bytes, and max_size
            friend.close()


# 3

READ_LIMIT = 16_384  # bytes
LIMITS = {
    "max_size": 65_536,
    "max_queue": 1000,
    "max_queue_bytes": 131_072,
    "read_limit": READ_LIMIT,
    "write_limit": 65_536,
    "send_timeout": 1,
    "close_timeout": 1,
}
# The formula of docs/reliability.rst: what waits, what is assembled, what is not decoded.
UNDECODED = READ_LIMIT + 65_536  # the latter is ciphertext of TLS
INPUT_BOUND = 131_072 + 2 * 65_536 + UNDECODED
OUTPUT_BOUND = 65_536 + 10_000 + 65_536  # write_limit, one message, and ciphertext of TLS
FIXED = 40_960 + 32_768  # bytes: objects, and what it takes to inflate


def make_zeros():
    """64 KiB of zeros, compressed, so that one read has hundreds of them."""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = deflater.compress(bytes(65_536)) + deflater.flush(zlib.Z_FULL_FLUSH)
    return frame(FIN | RSV1 | BINARY, data[:-4], masked=True)


def sends(chunk, begin=b""):
    """A peer that sends until it is held back or closed, and reads nothing."""

    def send(wire, connection):
        wire.sock.sendall(begin)
        wire.sock.settimeout(0.3)
        with contextlib.suppress(OSError):
            while True:
                wire.sock.sendall(chunk)

    return send


NOISE = random.Random(3).randbytes(10_000)


def is_broadcast_to(wire, connection):
    messages = (NOISE + number.to_bytes(2, "big") for number in range(500))
    assert sum(broadcast([connection], message).dropped for message in messages) > 400


# What peers do, and what that may cost.
FLOODS = {
    "messages": (sends(frame(FIN | BINARY, bytes(65_536), masked=True)), INPUT_BOUND),
    "small messages": (sends(frame(FIN | BINARY, bytes(1000), masked=True) * 100), INPUT_BOUND),
    "zeros": (sends(make_zeros() * 100), INPUT_BOUND),
    "fragments": (
        sends(frame(CONT, bytes(100), masked=True) * 100, frame(BINARY, b"", masked=True)),
        INPUT_BOUND,
    ),
    "pings": (sends(frame(FIN | PING, bytes(125), masked=True) * 1000), UNDECODED),
    "broadcasts": (is_broadcast_to, OUTPUT_BOUND),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_promise_3_memory_is_bounded_by_a_stated_formula(slow_link, flood):
    misbehave, bound = FLOODS[flood]
    guests = Guests()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(slow_link.serve(guests, **LIMITS).start())
        server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SMALL_BUFFER)
        stack.callback(guests.release)
        wire = open_wire(stack, slow_link, server, **(DEFLATE if flood == "zeros" else {}))
        guests.wait(1)
        with traced() as grown:
            misbehave(wire, guests.connections["/"])
        wire.reset()
    assert grown() < bound + FIXED


@contextlib.contextmanager
def traced():
    """Yields a function that tells how much the memory of Python grew at its highest."""
    tracemalloc.start()
    try:
        yield lambda: peak
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


# 4


def test_promise_4_shutdown_ends_within_its_timeout(slow_link):
    guests = Guests()

    def handler(connection):
        if connection.request.path == "/stuck":
            guests(connection)
        elif connection.request.path == "/flooded":
            while True:
                connection.send(bytes(TOO_MUCH), compress=False)
        else:
            list(connection)

    with slow_link.serve(handler).start() as server, contextlib.ExitStack() as stack:
        stack.callback(guests.release)
        good = [stack.enter_context(slow_link.connect(server)) for _ in range(5)]
        readers = [Task(list, client) for client in good]
        silent = [open_wire(stack, slow_link, server) for _ in range(20)]
        for path in ("/stuck", "/flooded"):
            open_wire(stack, slow_link, server, path)
        for _ in range(3):  # opening
            stack.enter_context(socket.create_connection(server.server_address[:2]))
        guests.wait(1)
        assert wait_until(lambda: counts(server) == (27, 30))

        began = time.monotonic()
        report = server.shutdown(timeout=0.8)
        assert time.monotonic() - began < 0.8 + GRACE
        assert (report.closed, report.aborted) == (5, 22)
        (running,) = report.running
        assert running.connection is guests.connections["/stuck"]
        assert "self._done.wait(PATIENCE)" in running.stack
        del running, report
        for wire in silent:
            # Nobody waited for anybody: the Close frame was sent to each before the end.
            assert wire.receive() == (FIN | CLOSE, close_payload(1001))
        for reader in readers:
            assert reader.result() == []
        assert [client.close_code for client in good] == [1001] * 5


# 5


def end_by_client(link, server):
    with link.connect(server) as connection:
        connection.close()


def end_by_server(link, server):
    with link.connect(server, "/leave") as connection:
        assert list(connection) == []


def end_by_abort(link, server):
    with link.connect(server) as connection:
        connection.abort()


def end_by_reset(link, server):
    with link.socket(server) as sock:
        handshake(sock)
        Wire(sock, masks=True).reset()


def end_by_violation(link, server):
    with link.socket(server) as sock:
        handshake(sock)
        wire = Wire(sock, masks=True)
        wire.send(3)
        assert wire.receive()[0] == FIN | CLOSE


def end_without_answer(link, server):
    with link.socket(server) as sock:
        handshake(sock, "/leave")
        with contextlib.suppress(OSError):
            Wire(sock, masks=True).receive_all()


def end_of_what_never_opened(link, server):
    with socket.create_connection(server.server_address[:2]) as sock:
        sock.sendall(b"nonsense\r\n\r\n")
        with contextlib.suppress(OSError):
            while sock.recv(1000):
                pass


def end_by_keepalive(link, server):
    with link.socket(server) as sock:
        handshake(sock)
        with contextlib.suppress(OSError):
            while sock.recv(1000):
                pass


ENDS = [
    end_by_client,
    end_by_server,
    end_by_abort,
    end_by_reset,
    end_by_violation,
    end_without_answer,
    end_of_what_never_opened,
    end_by_keepalive,
]


def test_promise_5_nothing_outlives_its_connection(slow_link):
    def handler(connection):
        if connection.request.path != "/leave":
            for message in connection:
                connection.send(message)

    options = {"ping_interval": 0.3, "ping_timeout": 0.3, "close_timeout": 0.3, "open_timeout": 0.5}
    with slow_link.serve(handler, **options).start() as server:
        threads, descriptors = threading.active_count(), open_descriptors()
        gc.collect()
        gc.disable()  # counting references is enough
        try:
            for end in ENDS:
                end(slow_link, server)
            assert wait_until(lambda: counts(server) == (0, 0))
            assert wait_until(lambda: threading.active_count() <= threads), threading.enumerate()
            left = [thing for thing in gc.get_objects() if isinstance(thing, ServerConnection)]
            assert left == []
        finally:
            gc.enable()
        assert wait_until(lambda: len(open_descriptors()) <= len(descriptors))


# 6

REQUEST = (
    b"GET /chat HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10\r\n\r\n"
)
SEEDS = 60


def mutate(rng, data):
    """Change, cut, double or insert some bytes."""
    data = bytearray(data)
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(data) + 1)
        change = rng.choice(("set", "cut", "double", "insert"))
        if change == "set" and at < len(data):
            data[at] = rng.randrange(256)
        elif change == "cut":
            del data[at : at + rng.randrange(20)]
        elif change == "double":
            data[at:at] = data[max(0, at - 30) : at]
        else:
            data[at:at] = rng.choice((b"\r\n", b"\0", b"\xff" * 9, b": ", b"x" * 9000))
    return bytes(data)


def make_input(rng):
    """What a peer may send: not a request, a broken one, or broken frames after a good one."""
    kind = rng.randrange(3)
    if kind == 0:
        return rng.randbytes(rng.randrange(2000))
    if kind == 1:
        return mutate(rng, REQUEST)
    heads = [rng.randrange(256) for _ in range(5)] + [FIN | TEXT, FIN | PING, FIN | RSV1 | BINARY]
    frames = [frame(rng.choice(heads), rng.randbytes(rng.randrange(200)), True) for _ in range(9)]
    return REQUEST + mutate(rng, b"".join(frames))


def test_promise_6_nothing_a_peer_sends_makes_a_traceback(slow_link, caplog):
    def handler(connection):
        if connection.request.path == "/fail":
            raise RuntimeError("a mistake of the handler")
        for message in connection:
            connection.send(message)

    def send(seed, bare):
        with contextlib.ExitStack() as stack:
            if bare:  # what comes in place of TLS
                sock = stack.enter_context(socket.create_connection(server.server_address[:2]))
                sock.settimeout(PATIENCE)
            else:
                sock = stack.enter_context(slow_link.socket(server))
            with contextlib.suppress(OSError):
                sock.sendall(make_input(random.Random(seed)))
                socket.socket.shutdown(sock, socket.SHUT_WR)
                while sock.recv(65_536):
                    pass

    with slow_link.serve(handler, close_timeout=0.5).start() as server:
        for seed in range(SEEDS):
            send(seed, bare=slow_link.secure and seed % 5 == 0)
        assert wait_until(lambda: counts(server) == (0, 0))
        assert errors(caplog) == []
        assert [record for record in caplog.records if record.exc_info] == []
        with slow_link.connect(server, "/fail") as connection:
            with pytest.raises(ConnectionClosedError, match="1011"):
                connection.recv(PATIENCE)
        assert errors(caplog) == ["connection handler failed"]
    assert len([record for record in caplog.records if record.exc_info]) == 1


# 7

# What must be refused, by the close code (RFC 6455 §7.4.1): heads and payloads of frames.
REFUSED = [
    (1002, [(FIN | 0x3, b"")]),  # §5.2: opcodes
    (1002, [(FIN | 0xB, b"")]),
    (1002, [(FIN | 0x20 | TEXT, b"x")]),  # §5.2: reserved bits
    (1002, [(FIN | RSV1 | PING, b"x")]),
    (1002, [(FIN | CONT, b"x")]),  # §5.4: fragmentation
    (1002, [(TEXT, b"x"), (FIN | TEXT, b"x")]),
    (1002, [(PING, b"")]),  # §5.5: control frames
    (1002, [(FIN | PING, bytes(126))]),
    (1002, [(FIN | CLOSE, b"\x03")]),  # §5.5.1
    (1002, [(FIN | CLOSE, close_payload(1005))]),  # §7.4
    (1002, [(FIN | CLOSE, close_payload(2999))]),
    (1007, [(FIN | CLOSE, close_payload(1000) + b"\xff")]),
    (1007, [(FIN | TEXT, b"\xed\xa0\x80")]),  # §8.1: UTF-8
    (1007, [(TEXT, "ä".encode()[:1]), (FIN | CONT, b"x")]),
    (1002, [(FIN | RSV1 | TEXT, b"\xff\xff\xff")]),  # RFC 7692 §7.2.2
    (1002, [(RSV1 | TEXT, b""), (FIN | RSV1 | CONT, b"")]),  # RFC 7692 §6.1
    (1009, [(FIN | BINARY, bytes(5000))]),
]

# What must be understood, and the message that it is.
UNDERSTOOD = [
    ("", [(FIN | TEXT, b"")]),
    ("äö", [(TEXT, b"\xc3"), (FIN | PING, b"x"), (CONT, b""), (FIN | CONT, b"\xa4\xc3\xb6")]),
    (bytes(126), [(FIN | BINARY, bytes(126))]),
    ("Hello", [(FIN | RSV1 | TEXT, bytes.fromhex("f248cdc9c90700"))]),  # RFC 7692 §7.2.3.1
    ("Hello", [(RSV1 | TEXT, bytes.fromhex("f248cd")), (FIN | CONT, bytes.fromhex("c9c90700"))]),
    ("Hello", [(FIN | RSV1 | TEXT, bytes.fromhex("000500faff48656c6c6f00"))]),  # §7.2.3.3
]


@pytest.fixture(params=["server", "client"])
def end(request, slow_link, server_context, client_context):
    """Makes pairs of a wire and the connection of ours at its other end, be it either."""
    contexts = (server_context, client_context) if slow_link.secure else None

    def make():
        if request.param == "server":
            return bare_client(slow_link, max_size=4096, headers=DEFLATE)
        return bare_server(max_size=4096, contexts=contexts, extensions="permessage-deflate")

    return make


def test_promise_7_strict_rfc_6455_and_rfc_7692(end):
    """All of it is for the Autobahn suite (tests/autobahn/); these are the rules of each kind."""
    for code, frames in REFUSED:
        with end() as (wire, connection):
            for head, payload in frames:
                wire.send(head & ~FIN, payload, fin=head & FIN)
            with pytest.raises(ConnectionClosed) as caught:
                connection.recv(PATIENCE)
            assert caught.value.sent.code == code, frames
            head, payload = wire.receive()
            assert head == FIN | CLOSE
            assert int.from_bytes(payload[:2], "big") == code
            wire.sock.close()
    with end() as (wire, connection):
        for message, frames in UNDERSTOOD:
            for head, payload in frames:
                wire.send(head & ~FIN, payload, fin=head & FIN)
            assert connection.recv(PATIENCE) == message
        assert wire.receive() == (FIN | PONG, b"x")
        closing = Task(connection.close)
        assert wire.receive() == (FIN | CLOSE, close_payload(1000))
        wire.send_close(1000)
        wire.sock.close()
        closing.result()


# 8

SENDERS = 3
EACH = 25
TRANSPORT = syncws.transport.__file__


def make_message(sender, number):
    """A message that tells its sender, its number, and whether it is whole."""
    rng = random.Random(sender * 1000 + number)
    body = struct.pack("!II", sender, number) + rng.randbytes(rng.choice((10, 1000, 100_000)))
    return body + hashlib.sha256(body).digest()


def read_message(message):
    """Its sender and number, if it is whole."""
    body, digest = message[:-32], message[-32:]
    assert hashlib.sha256(body).digest() == digest, "torn"
    return struct.unpack_from("!II", body)


def check_all(received):
    """Each sender's messages are there, in order."""
    for sender in range(SENDERS):
        numbers = [number for who, number in received if who == sender]
        assert numbers == list(range(EACH))


def exchange(connection):
    """Send from several threads and receive at the same time; what was received."""
    senders = [
        Task(lambda who=who: [connection.send(make_message(who, n)) for n in range(EACH)])
        for who in range(SENDERS)
    ]
    received = [read_message(connection.recv(PATIENCE)) for _ in range(SENDERS * EACH)]
    for sender in senders:
        sender.result()
    return received


def receive_in_threads(connection):
    """Several threads receive until the end; what each of them got."""

    def receive():
        return [read_message(message) for message in connection]

    return [Task(receive) for _ in range(3)]


@pytest.fixture
def interrupts():
    """Has Ctrl-C come all along while the main thread is in the transport; counts them."""
    times = []

    def on_signal(signum, stack_frame):
        # Where all versions of Python let a library be safe from it.
        if stack_frame.f_code.co_filename == TRANSPORT:
            times.append(time.monotonic())
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, on_signal)
    yield times
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, previous)


def insist(function, *args):
    """Call a function, again after each interrupt."""
    while True:
        try:
            return function(*args)
        except KeyboardInterrupt:
            continue


# This test needs the alarm that would else end it when it takes too long.
@pytest.mark.timeout(60, method="thread")
def test_promise_8_no_message_is_lost_doubled_reordered_or_torn(slow_link, interrupts):
    with slow_link.pair() as (client, server):
        other = Task(exchange, server)
        check_all(exchange(client))
        check_all(other.result())

        # With several threads in recv(), each has its share in order, and nobody another's.
        receivers = receive_in_threads(server)
        for number in range(EACH):
            for sender in range(SENDERS):
                client.send(make_message(sender, number))
        client.close()
        shares = [receiver.result() for receiver in receivers]
        for share in shares:
            assert share == sorted(share, key=lambda each: each[1])
        check_all(sorted(itertools.chain.from_iterable(shares)))

    with slow_link.pair() as (client, server):
        sending = Task(lambda: [server.send(make_message(0, number)) for number in range(EACH)])
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        received = [insist(client.recv, PATIENCE) for _ in range(EACH)]
        assert [read_message(message) for message in received] == [(0, n) for n in range(EACH)]
        signal.setitimer(signal.ITIMER_REAL, 0)
        sending.result()

        # What a call of send() that was interrupted did with its message, nobody knows; but it
        # is not torn, nor out of order, and what other calls sent is there.
        receiving = Task(lambda: [read_message(message) for message in server])
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        returned = set()
        for number in range(EACH):
            with contextlib.suppress(KeyboardInterrupt):
                client.send(make_message(0, number))
                returned.add(number)
        signal.setitimer(signal.ITIMER_REAL, 0)
        client.close()
        numbers = [number for _, number in receiving.result()]
        assert numbers == sorted(set(numbers))
        assert returned <= set(numbers)
    assert interrupts
