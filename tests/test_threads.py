"""What interrupts or breaks a connection at any moment: Ctrl-C, failing system calls, aborts."""

from __future__ import annotations

import contextlib
import itertools
import signal
import socket
import ssl
import sys
import threading

import pytest
from links import PATIENCE
from peers import BINARY, CLOSE, FIN, PONG, TEXT, Task, bare_client, close_payload

import syncws.transport
from syncws import ClientConnection, ConnectionClosed, ConnectionClosedError, ServerConnection
from syncws.queues import Outbox
from syncws.receiving import Receiving
from syncws.speedups import python_append_result

TRANSPORT = syncws.transport.__file__
# What calls the socket without the transport in between, in Python.
SHORT_WAYS = {
    function.__code__
    for function in (Receiving._take_first, Outbox.send_block, python_append_result)
}
PACKAGE = TRANSPORT[: -len("transport.py")]

# Python 3.9 runs signal handlers between any two instructions, also between returning a message
# and its arrival at the caller, and between the end of a "with" and the release of its lock: no
# code can be safe there. What moves bytes is, on all versions.
ANYWHERE = PACKAGE if sys.version_info >= (3, 10) else TRANSPORT

# More than the kernel buffers of both ends of a connection hold.
TOO_MUCH = 16 * 1024 * 1024  # bytes


# Failing system calls


class FailingTransport:
    """A transport whose n-th call that moves bytes or waits fails; it fails from there on."""

    FAIL = ("read", "recv", "read_nowait", "send", "send_some", "flush", "discard")

    def __init__(self, transport, countdown):
        self._transport = transport
        self._countdown = countdown
        self._lock = threading.Lock()

    def __getattr__(self, name):
        value = getattr(self._transport, name)
        if name not in self.FAIL:
            return value

        def call(*args):
            with self._lock:
                self._countdown -= 1
                failing = self._countdown < 0
            if failing:
                raise ConnectionResetError(104, "injected")
            return value(*args)

        return call

    def __setattr__(self, name, value):
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            setattr(self._transport, name, value)

    @property
    def failed(self):
        return self._countdown < 0


def failing(base, countdown, made):
    """A class of connections whose n-th call of the transport after the opening fails."""

    class Failing(base):
        def _open(self, *args):
            super()._open(*args)
            self._transport = self._outbox._transport = FailingTransport(self._transport, countdown)
            made.append(self._transport)

    return Failing


def exchange(connection, leads):
    """A short life: messages both ways, a ping, and the closing handshake."""
    try:
        if leads:
            connection.send("one")
            connection.send(["two", "three"])
            connection.recv(PATIENCE)
            connection.ping().wait(PATIENCE)
            connection.close()
        else:
            connection.recv(PATIENCE)
            connection.recv(PATIENCE)
            connection.send("four")
            connection.recv(PATIENCE)
    except ConnectionClosed:
        pass
    connection.close()


@pytest.mark.parametrize(
    ("kind", "leads"), [("plain", "client"), ("plain", "server"), ("tls", "client")]
)
@pytest.mark.parametrize("side", ["client", "server"])
def test_both_ends_end_whichever_call_of_the_transport_fails(plain, tls, kind, side, leads):
    link = {"plain": plain, "tls": tls}[kind]
    failures = 0
    for countdown in range(40):
        made = []
        classes = {"client": ClientConnection, "server": ServerConnection}
        classes[side] = failing(classes[side], countdown, made)
        ended = []

        def handler(connection, ended=ended):
            exchange(connection, leads == "server")
            ended.append(connection.is_gone)

        server = link.serve(handler, create_connection=classes["server"], close_timeout=2)
        with server.start():
            client = link.connect(server, create_connection=classes["client"], close_timeout=2)
            exchanging = Task(exchange, client, leads == "client")
            exchanging.result(5)
            assert client.is_gone
        assert ended == [True]
        failures += made[0].failed
        if not made[0].failed:
            break
    assert failures > 5


# Ctrl-C


class Interrupt(BaseException):
    """What the signal handler raises, as that of Ctrl-C raises KeyboardInterrupt."""


def is_short_way(frame):
    """Whether the socket is called, without the transport in between."""
    if frame.f_code is Receiving.recv.__code__:
        return frame.f_locals["self"]._reader.locked()  # taken by the C module
    return frame.f_code in SHORT_WAYS


class Alarm:
    """Calls functions, and raises ``Interrupt`` within the code of the package that they run."""

    def __init__(self):
        self._armed = False
        self._where = ANYWHERE

    def __call__(self, seconds, function, *args, where=ANYWHERE):
        """
        Call a function; raise ``Interrupt`` after some seconds.

        Args:
            where: how the path of the code begins in which that happens, as soon as it runs.
        """
        self._where = where
        done = threading.Event()
        ringing = Task(self._ring, seconds, done)
        try:
            return self.during(function, *args)
        finally:
            done.set()
            ringing.result()

    def during(self, function, *args):
        """Call a function; let signals that come raise ``Interrupt`` once."""
        self._armed = True
        try:
            return function(*args)
        finally:
            self._armed = False

    def aim(self, where):
        """Say how the path of the code begins that ``during()`` interrupts."""
        self._where = where

    def _ring(self, seconds, done):
        while not done.wait(seconds):
            signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
            seconds = 0.001

    def on_signal(self, signum, frame):
        short = self._where is TRANSPORT and is_short_way(frame)
        if self._armed and (short or frame.f_code.co_filename.startswith(self._where)):
            self._armed = False
            raise Interrupt


@pytest.fixture
def alarm():
    """A way to interrupt calls in the main thread."""
    alarm = Alarm()
    signals = signal.SIGUSR1, signal.SIGPROF
    previous = [signal.signal(signum, alarm.on_signal) for signum in signals]
    yield alarm
    signal.setitimer(signal.ITIMER_PROF, 0)
    for signum, handler in zip(signals, previous):
        signal.signal(signum, handler)


@pytest.mark.parametrize("kind", ["plain", "tls", "portable", "portable-tls"])
@pytest.mark.parametrize("timeout", [None, PATIENCE])
def test_connection_works_after_interrupts_while_waiting_in_recv(plain, tls, kind, timeout, alarm):
    link = tls if kind.endswith("tls") else plain
    link.portable = kind.startswith("portable")
    with link.pair() as (client, server):
        for number in range(20):
            with pytest.raises(Interrupt):
                alarm(0.002, client.recv, timeout, where=TRANSPORT)
            server.send(str(number))
            assert client.recv(PATIENCE) == str(number)


def test_connection_works_after_interrupts_while_waiting_in_send(plain, alarm):
    with bare_client(plain, compression=None) as (wire, connection):
        for number in range(10):
            message = bytes([number]) * TOO_MUCH
            with pytest.raises(Interrupt):
                alarm(0.002, connection.send, message, where=TRANSPORT)
            # What was queued when the interrupt came is sent all the same.
            assert wire.receive() == (FIN | BINARY, message)
        connection.send("next")
        assert wire.receive() == (FIN | TEXT, b"next")


def test_connection_works_after_interrupts_while_waiting_for_a_pong(plain, alarm):
    with bare_client(plain) as (wire, connection):
        waiter = connection.ping("ping")
        with pytest.raises(Interrupt):
            alarm(0.01, waiter.wait, PATIENCE, where="")
        wire.send(PONG, b"ping")
        assert waiter.wait(PATIENCE)


def test_close_can_be_interrupted_and_repeated(plain, alarm):
    with bare_client(plain) as (wire, connection):
        with pytest.raises(Interrupt):
            alarm(0.002, connection.close, 4000, where=TRANSPORT)
        assert wire.receive() == (FIN | CLOSE, close_payload(4000))
        wire.send_close(4000)
        wire.sock.shutdown(socket.SHUT_WR)
        connection.close()
        assert connection.is_gone
        assert connection.close_code == 4000


def test_interrupts_at_any_moment_in_recv_lose_no_message_silently(plain, alarm):
    signal.setitimer(signal.ITIMER_PROF, 0.002, 0.002)
    ends = []
    for _ in range(10):
        with plain.pair() as (client, server):
            received, sent = [], 0
            try:
                while sent < 500:
                    server.send(str(sent))
                    sent += 1
                    with contextlib.suppress(Interrupt):
                        received.append(int(alarm.during(client.recv, PATIENCE)))
                server.send("end")
                received += map(int, iter(client.recv, "end"))
                assert len(received) == sent
            except ConnectionClosedError as exc:
                # In the middle of decoding: the connection can't go on, and says so.
                ends.append(exc.sent or exc.rcvd)
            assert received == list(range(len(received)))
    assert set(ends) <= {(1011, "interrupted")}


def test_interrupts_at_any_moment_in_send_tear_nothing(plain, alarm):
    signal.setitimer(signal.ITIMER_PROF, 0.002, 0.002)
    with plain.pair(max_size=None, client={"compression": None}) as (client, server):
        receiving = Task(list, server)
        interrupts = 0
        returned = []
        for number in range(1000):
            message = number.to_bytes(4, "big") * (number % 7 * 20_000 + 1)
            try:
                alarm.during(client.send, message)
                returned.append(number)
            except Interrupt:
                interrupts += 1
        client.close()
        numbers = []
        for message in receiving.result():
            value = int.from_bytes(message[:4], "big")
            assert message == message[:4] * (value % 7 * 20_000 + 1)
            numbers.append(value)
        assert interrupts
        # In order, none twice, and none lost whose send() returned.
        assert numbers == sorted(set(numbers))
        assert set(returned) <= set(numbers)


def test_interrupts_within_openssl_send_nothing_twice(tls, alarm):
    # Its functions run signal handlers themselves, before they say what they have done.
    alarm.aim(ssl.__file__)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    with tls.pair(max_size=None, client={"compression": None}) as (client, server):
        receiving = Task(list, server)
        interrupts = number = 0
        returned = []
        while interrupts < 20:
            number += 1
            try:
                alarm.during(client.send, number.to_bytes(4, "big") * 25_000)
                returned.append(number)
            except Interrupt:
                interrupts += 1
        client.close()
        messages = receiving.result()
        numbers = [int.from_bytes(message[:4], "big") for message in messages]
        assert all(message == message[:4] * 25_000 for message in messages)
        assert numbers == sorted(set(numbers))
        assert set(returned) <= set(numbers)


def test_interrupts_within_openssl_lose_no_message_silently(tls, alarm):
    alarm.aim(ssl.__file__)
    signal.setitimer(signal.ITIMER_PROF, 0.001, 0.001)
    causes = []
    for _ in range(5):
        with tls.pair(max_size=None, compression=None) as (client, server):
            sending = Task(_send_until_closed, server)
            received, interrupts = [], 0
            try:
                while interrupts < 20:
                    try:
                        received.append(int.from_bytes(alarm.during(client.recv)[:4], "big"))
                    except Interrupt:
                        interrupts += 1
            except ConnectionClosedError as exc:
                causes.append(str(exc.__cause__))
            client.close()
            sending.result()
            assert received == list(range(len(received)))
    assert set(causes) <= {"input was lost in an interrupt"}


def _send_until_closed(connection):
    with contextlib.suppress(ConnectionClosed):
        for number in itertools.count():
            connection.send(number.to_bytes(4, "big") * 4000)
