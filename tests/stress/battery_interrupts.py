"""Ctrl-C at random instants of programs that send and receive: clients and servers."""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import pathlib
import random
import signal
import socket
import struct
import tempfile
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Optional

import trustme
from links import handshake
from nursery import SIZES, load_contexts
from peers import BINARY, CLOSE, CONT, FIN, PING, PONG, RSV1, TEXT, Task, frame
from programs import Program
from scenario import Scenario
from script_peer import FrameStream, check_message, make_message, welcome

INSTANTS = 500
LATEST = 0.15  # seconds until the latest instant; the programs are at work after 0.02
EXIT_LIMIT = 8.0  # seconds, less than close_timeout: peers answer at once; the machine is busy
PATIENCE = 30  # seconds
CLIENTS = 3  # of a server

TIME_LIMIT = 900  # seconds

KEYBOARD_INTERRUPT = -signal.SIGINT  # exit code of Python programs that let it pass


class Peer:
    """What the peer of a program got: a stream of frames, and how it ended."""

    def __init__(self, sock, masked):
        sock.settimeout(PATIENCE)
        self._sock = sock
        self._masked = masked
        self._inflater = zlib.decompressobj(-15)
        self._stream = FrameStream(masked)
        self._seen = 0
        self._parts = []
        self._text = self._deflated = False
        self.messages = 0  # whole ones
        self.close = None  # code of the Close frame
        self.ended = None  # how input ended: "fin" or "reset"

    def __repr__(self):
        text = f"<{self.messages} messages, close {self.close}, {self.ended}"
        return f"{text}, rest {self._stream.rest}>"

    @property
    def torn(self):
        """Whether the stream ended within a frame."""
        return self._stream.rest > 0

    @property
    def frames(self):
        """How many frames there were."""
        return self._seen

    def send(self, head, payload):
        self._sock.sendall(frame(head, payload, not self._masked))

    def receive(self):
        """Wait for input; returns the messages in it."""
        try:
            data = self._sock.recv(65536)
        except OSError:
            self.ended = "reset"
            return []
        if not data:
            self.ended = "fin"
        self._stream.feed(data)
        frames = self._stream.parse()
        new, self._seen = frames[self._seen :], len(frames)
        messages = [message for head, payload in new for message in self._take(head, payload)]
        self.messages += len(messages)
        return messages

    def _take(self, head, payload):
        if head == FIN | CLOSE:
            assert self.close is None, "a second Close frame"
            (self.close,) = struct.unpack("!H", payload[:2])
            with contextlib.suppress(OSError):
                self.send(FIN | CLOSE, payload)
        elif head == FIN | PING:
            with contextlib.suppress(OSError):
                self.send(FIN | PONG, payload)
        elif not head & 0x8:
            if head & 0xF != CONT:
                assert not self._parts, "a message begins within another"
                self._text, self._deflated = head & 0xF == TEXT, bool(head & RSV1)
            self._parts.append(payload)
            if head & FIN:
                yield self._finish()

    def _finish(self):
        data = b"".join(self._parts)
        self._parts = []
        if self._deflated:
            data = self._inflater.decompress(data + b"\x00\x00\xff\xff")
        return data.decode() if self._text else data

    def answer_close(self):
        """Read to the end, of which a Close frame has told, as the role of this peer asks."""
        if self._masked:  # RFC 6455 §7.1.1: it is the server that ends TCP
            with contextlib.suppress(OSError):  # the client may have done so
                socket.socket.shutdown(self._sock, socket.SHUT_WR)
        while self.ended is None:
            assert not self.receive(), "a message after the Close frame"


def be_server(listener, context):
    """Accept a client and echo what it sends until it ends; returns the peer, or ``None``."""
    sock, _ = listener.accept()
    with contextlib.closing(sock):
        sock.settimeout(PATIENCE)
        try:
            if context is not None:
                sock = context.wrap_socket(sock, server_side=True)
            welcome(sock, True)
        except (OSError, AssertionError):
            return None  # interrupted before it was open
        with contextlib.closing(sock):
            peer, received = Peer(sock, masked=True), 0
            while peer.ended is None and peer.close is None:
                for number, message in enumerate(peer.receive(), received):
                    # Numbered from 0: none is lost, doubled or out of order.
                    assert check_message(message) == ("c", number), "out of order"
                    send_message(peer, message)
                received = peer.messages
            peer.answer_close()
            return peer


def be_client(port, context):
    """Send messages and check their echoes until the server closes; returns the peer."""
    try:
        sock = socket.create_connection(("127.0.0.1", port))
    except OSError:
        return None
    with contextlib.closing(sock):
        sock.settimeout(PATIENCE)
        try:
            if context is not None:
                sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
            assert " 101 " in handshake(sock), "it is shutting down"
        except (OSError, AssertionError):
            return None  # interrupted before it was open
        with contextlib.closing(sock):
            return hammer(Peer(sock, masked=False))


def hammer(peer):
    for number in itertools.count():
        message = make_message("c", number, SIZES[number % len(SIZES)], number % 2)
        send_message(peer, message)
        while not (echoes := peer.receive()):
            if peer.close is not None:
                peer.answer_close()
            if peer.ended is not None:
                return peer
        assert echoes == [message], "another message came back"


def send_message(peer, message):
    text = isinstance(message, str)
    with contextlib.suppress(OSError):  # its end will be noticed by reading
        peer.send(FIN | (TEXT if text else BINARY), message.encode() if text else message)


# Interrupting


IDNA_NOTE = "encoding with 'idna' codec failed"


class Outcome(NamedTuple):
    """How a program ended: its exit code, the seconds it took, what it said, and to whom."""

    code: int
    seconds: float
    text: str
    peers: list[Optional[Peer]]

    def __str__(self):
        return f"exit code {self.code} after {self.seconds:.2f} s, {self.peers}\n{self.text}"

    def check(self, forgetful):
        """Raise ``AssertionError`` unless it ended as it should."""
        assert self.seconds <= EXIT_LIMIT, f"it took {self.seconds:.2f} s to end"
        assert self.code in (0, KEYBOARD_INTERRUPT), f"exit code {self.code}"
        if self.code == 0:
            assert self.text == "", "it said something"
        else:
            assert self.text.startswith("Traceback (most recent call last):"), "no traceback"
            # CPython itself adds to it when it comes while a host name is encoded, or notes that.
            *_, last = (line for line in self.text.splitlines() if line != IDNA_NOTE)
            assert last.startswith("KeyboardInterrupt"), "something came after it"
            assert "ignored" not in self.text, "an exception was ignored"
        for peer in self.peers:
            if peer is not None and not forgetful:
                self._check_peer(peer)

    def _check_peer(self, peer):
        if self.code == KEYBOARD_INTERRUPT and not peer.frames:
            return  # before the program had its connection
        assert not peer.torn, "torn frame"
        assert peer.close in (1001, 1011), f"closed with {peer.close}"
        assert peer.ended == "fin", f"ended by {peer.ended}"


class Interrupter:
    """
    Starts programs and interrupts them, one after the other.

    Args:
        nursery: where they are started.
        contexts: TLS of servers and of clients.
        folder: for files.
    """

    def __init__(self, nursery, contexts, folder):
        self._nursery = nursery
        self._contexts = contexts
        self._stderr = folder / f"stderr-{nursery.pid}"

    def play(self, program, tls, delay):
        """Start a program, and interrupt it after ``delay`` seconds."""
        if program == "server":
            return self._play_server(tls, delay)
        return self._play_client(program, tls, delay)

    def _play_client(self, program, tls, delay):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            peer = Task(be_server, listener, self._contexts[0] if tls else None)
            pid = self._start(program, tls, port)["pid"]
            code, seconds = self._interrupt(pid, delay)
            socket.create_connection(("127.0.0.1", port)).close()  # it may never have connected
            peers = [peer.result(PATIENCE)]
        return Outcome(code, seconds, self._stderr.read_text(), peers)

    def _play_server(self, tls, delay):
        started = self._start("server", tls)
        context = self._contexts[1] if tls else None
        peers = [Task(be_client, started["port"], context) for _ in range(CLIENTS)]
        code, seconds = self._interrupt(started["pid"], delay)
        results = [peer.result(PATIENCE) for peer in peers]
        return Outcome(code, seconds, self._stderr.read_text(), results)

    def _start(self, program, tls, port=None):
        self._stderr.write_bytes(b"")
        job = {"program": program, "tls": tls, "port": port, "stderr": str(self._stderr)}
        return self._nursery.ask(job)

    def _interrupt(self, pid, delay):
        """Wait, interrupt, wait for the end; returns the exit code and how long that took."""
        threading.Event().wait(delay)
        began = time.monotonic()
        os.kill(pid, signal.SIGINT)
        try:
            code = self._nursery.answer(PATIENCE)
        except BaseException as exc:
            os.kill(pid, signal.SIGUSR1)  # writes the stacks of its threads
            threading.Event().wait(1)
            os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"it hangs in {self._stderr.read_text()}") from exc
        return code, time.monotonic() - began


def play_share(figures, program, delays, outcomes, folder):
    """Interrupt programs at instants, as long as there are any."""
    certificates = {name: str(folder / name) for name in ("certificate", "authority")}
    contexts = load_contexts(**certificates)
    with Program("nursery.py", certificates) as nursery:
        interrupter = Interrupter(nursery, contexts, folder)
        while delays:
            tls, delay = len(delays) % 3 == 0, delays.pop()
            outcome = interrupter.play(program, tls, delay)
            try:
                outcome.check(program == "forgetful client")
            except AssertionError as exc:
                secured = "with TLS" if tls else "plain"
                raise AssertionError(
                    f"{secured}, interrupted after {delay:.4f} s: {exc}; {outcome}"
                ) from exc
            outcomes.append(outcome)
            figures.progress(f"{len(outcomes)} programs interrupted")


def interrupt_programs(program, count, figures):
    rng = random.Random(figures.seed)
    delays, outcomes = [rng.random() * LATEST for _ in range(count)], []
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor() as pool:
        folder = pathlib.Path(name)
        authority = trustme.CA()
        authority.cert_pem.write_to_path(folder / "authority")
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_and_cert_chain_pem.write_to_path(folder / "certificate")
        share = functools.partial(play_share, figures, program, delays, outcomes, folder)
        began = time.monotonic()
        for running in [pool.submit(share) for _ in range(os.cpu_count() or 1)]:
            running.result()
    seconds = sorted(outcome.seconds for outcome in outcomes)
    peers = [peer for outcome in outcomes for peer in outcome.peers if peer is not None]
    figures.note("interrupted", len(outcomes))
    figures.note("while connected", len(peers))
    figures.note("rate", 60 * len(outcomes) / (time.monotonic() - began), "/min")
    figures.note("messages", sum(peer.messages for peer in peers))
    figures.note("median exit", seconds[len(seconds) // 2], "s")
    figures.note("longest exit", seconds[-1], "s", limit=EXIT_LIMIT)
    chained = sum(outcome.text.count("Traceback") > 1 for outcome in outcomes)
    figures.note("tracebacks with a context", chained)
    limit = None if program == "forgetful client" else 0
    figures.note("torn streams", sum(peer.torn for peer in peers), limit=limit)


SCENARIOS = [
    Scenario(
        "interrupt-client",
        "Ctrl-C at 500 random instants of a client: exit in time, no torn frame, no message lost",
        functools.partial(interrupt_programs, "client", INSTANTS),
    ),
    Scenario(
        "interrupt-busy-client",
        "the same of a client of which another thread receives",
        functools.partial(interrupt_programs, "busy client", INSTANTS),
    ),
    Scenario(
        "interrupt-forgetful-client",
        "Ctrl-C at random instants of a client that does not close: exit in time",
        functools.partial(interrupt_programs, "forgetful client", INSTANTS // 5),
    ),
    Scenario(
        "interrupt-server",
        "the same of a server: exit code 0, and 1001 to all clients",
        functools.partial(interrupt_programs, "server", INSTANTS),
    ),
]
