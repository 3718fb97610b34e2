"""The code that ended a connection is read by the client, while one of both floods the other."""

from __future__ import annotations

import contextlib
import functools
import itertools
import pathlib
import socket
import ssl
import struct
import tempfile
import threading
import time
from typing import NamedTuple

import trustme
from links import handshake
from peers import BINARY, CLOSE, CONT, FIN, TEXT, Task, frame
from programs import Program, wait_until
from scenario import Scenario
from script_peer import FrameStream

CLIENTS = 1000
BATCH = 40  # clients of one server
PATIENCE = 60  # seconds
FILLING = 0.2  # seconds in which the kernel's buffers get full

# Small, so that the flood stands still: what the server has not sent comes before the code.
RECEIVE_BUFFER = 32_768  # bytes

FLOOD = frame(FIN | BINARY, b"flood " * 2000, masked=True) * 5
# A client goes on for a while, so that the server does not have all of it when it finds the end;
# but for less than what a server reads after that.
AFTERWARDS = 0.5  # seconds
AT_MOST = 32 * 1024 * 1024  # bytes

# What ends connections, and with which code.
SERVER_CAUSES = {"shutdown": 1001, "close": 4001, "handler": 4000, "return": 1000, "raise": 1011}
CLIENT_CAUSES = {
    1002: frame(FIN | 0x3, masked=True),  # no such opcode
    1007: frame(FIN | TEXT, b"no \xff UTF-8", masked=True),
    1008: frame(TEXT, masked=True) + frame(CONT, masked=True) * 1200,  # over max_empty_fragments
    1009: struct.pack("!BBQ", FIN | BINARY, 0x80 | 127, 2**40) + bytes(4),
}
CAUSES = [*SERVER_CAUSES, *CLIENT_CAUSES]


class End(NamedTuple):
    """How a connection ended for a client."""

    code: int  # 0 without a Close frame
    how: str  # "fin" or "reset"
    rest: int  # bytes of a frame that was not ended

    @property
    def torn(self):
        return bool(self.rest) or self.how != "fin"


class Client:
    """
    A bare socket that looks for the Close frame only when all is over.

    Args:
        cause: what ends the connection.
        floods: whether it floods the server, rather than being flooded.
        triggered: set when the server has been told to end the connection.
    """

    def __init__(self, port, context, cause, floods, triggered):
        self._cause = CLIENT_CAUSES.get(cause)
        self._floods = floods
        self._triggered = triggered
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", port))
        self._sock = sock
        if context is not None:
            self._sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
        assert " 101 " in handshake(self._sock)

    def run(self):
        """Flood, or wait to be flooded; then read to the end. Returns how that was."""
        with contextlib.closing(self._sock):
            try:
                self._send()
            except ConnectionError:
                return self._drain()._replace(how="reset")
            return self._drain()

    def _send(self):
        while self._floods and not self._triggered.is_set():
            self._sock.sendall(FLOOD)
        self._triggered.wait(PATIENCE)
        if self._cause is not None:
            self._sock.sendall(self._cause)
        until = time.monotonic() + AFTERWARDS
        sent = 0
        while self._floods and sent < AT_MOST and time.monotonic() < until:
            self._sock.sendall(FLOOD)
            sent += len(FLOOD)

    def _drain(self):
        stream, code = FrameStream(masked=False), 0
        while True:
            try:
                data = self._sock.recv(65536)
            except ConnectionResetError:
                return End(code, "reset", stream.rest)
            if not data:
                return End(code, "fin", stream.rest)
            stream.feed(data)
            for head, payload in stream.parse():
                assert code == 0, "a frame after the Close frame"
                if head == FIN | CLOSE:
                    (code,) = struct.unpack("!H", payload[:2])
                    with contextlib.suppress(ConnectionError):  # the end is still to be read
                        self._sock.sendall(frame(FIN | CLOSE, payload, masked=True))
            stream.frames.clear()


def play_batch(program, context, direction, cause, count):
    """Have a cause end so many connections; returns how they ended, and how many were aborted."""
    port = program.ask("open", direction, cause, context is not None)
    triggered = threading.Event()
    floods = direction != "floods"
    clients = [Client(port, context, cause, floods, triggered) for _ in range(count)]
    assert wait_until(lambda: program.ask("count_open") == count, PATIENCE)
    running = [Task(client.run) for client in clients]
    threading.Event().wait(FILLING)
    if cause in SERVER_CAUSES:
        program.ask("trigger")
    triggered.set()
    try:
        ends = [task.result(PATIENCE) for task in running]
    except AssertionError as exc:
        raise AssertionError(f"{direction}, {cause}: no end within {PATIENCE} s") from exc
    return ends, program.ask("end")


def choose_directions(floods, cause):
    """What the server does meanwhile; one that does not receive finds no error of the client."""
    if floods:
        return ["floods"]
    return ["flooded", "deaf"] if cause in SERVER_CAUSES else ["flooded"]


def read_codes(floods, secure, figures):
    kinds = [(way, cause) for cause in CAUSES for way in choose_directions(floods, cause)]
    played = wrong = ended_badly = aborted = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        authority = trustme.CA()
        context = ssl.create_default_context()
        authority.configure_trust(context)
        path = pathlib.Path(name) / "certificate"
        authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(path)
        program = stack.enter_context(Program("servers/closing.py", {"certificate": str(path)}))
        for direction, cause in itertools.cycle(kinds):
            count = min(BATCH, CLIENTS - played)
            if not count:
                break
            batch = (context if secure else None, direction, cause, count)
            ends, cut = play_batch(program, *batch)
            expected = SERVER_CAUSES.get(cause, cause)
            bad = [end for end in ends if end.code != expected or end.torn]
            if bad:
                print(f"{direction}, {cause}: {bad}, of {count}; {cut} aborted", flush=True)
            played += count
            wrong += sum(end.code != expected for end in ends)
            ended_badly += sum(end.torn for end in ends)
            aborted += cut
            figures.progress(f"{played} of {CLIENTS} clients, {wrong} without their code")
    figures.note("clients", played)
    figures.note("rate", played / (time.monotonic() - began), "/s")
    figures.note("without the right code", wrong, limit=0)
    figures.note("torn or reset", ended_badly, limit=0)
    figures.note("aborted by the server", aborted, limit=0)


SCENARIOS = [
    Scenario(
        f"close-codes-{mode}-{kind}",
        f"1,000 of 1,000 clients read their close code while the server {about}, {kind}",
        functools.partial(read_codes, mode == "floods", kind == "tls"),
    )
    for mode, about in (("floods", "floods them"), ("flooded", "is flooded by them"))
    for kind in ("plain", "tls")
]
