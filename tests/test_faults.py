"""Each system call of a connection's life fails, one after the other, in each way that it may."""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest
from conftest import wait_until
from links import (
    PATIENCE,
    ClientConnection,
    PortableClientConnection,
    PortableServerConnection,
    ServerConnection,
)
from peers import Task

from syncws import ConnectionClosed, InvalidHandshake
from syncws.transport import TLSTransport, Transport

MOVING = ("recv", "send", "sendmsg")

# More than the kernel takes of a faulty socket whose peer does not read: a sender has to wait.
LARGE = os.urandom(200_000)

# How long a life may take at most; an undisturbed one takes some milliseconds.
LIFE = 5  # seconds
AT_ONCE = 8  # lives at the same time: some wait for timeouts
TIMEOUTS = {"close_timeout": 0.3, "send_timeout": 1, "open_timeout": 1}


class Fault:
    """
    What fails: the n-th call of some, once or from there on.

    Args:
        calls: names of the calls that count.
        nth: how many of them succeed before.
        make: makes the exception; ``None`` to spoil the data instead.
        lasting: whether all later calls fail too.
    """

    def __init__(self, calls, nth, make, lasting=False):
        self._calls = calls
        self._left = nth
        self._make = make
        self.lasting = lasting
        self._lock = threading.Lock()
        self.called = False
        self.struck = False
        self.sockets = []  # all that it was given to

    def counts(self, name):
        """Tell whether a call may be one that fails."""
        return name in self._calls

    def due(self, name):
        """Count a call; tell whether it is to fail."""
        if name not in self._calls:
            return False
        with self._lock:
            self.called = True
            self._left -= 1
            due = self._left == -1 or (self.lasting and self._left < 0)
            self.struck = self.struck or due
        return due

    def check(self, name):
        """Count a call, and fail if it is its turn."""
        if self._make is not None and self.due(name):
            raise self._make()

    def spoil(self, data):
        """Count a call that returned data, and change that if it is its turn."""
        if self._make is None and data and self.due("recv"):
            return bytes(byte ^ 0x55 for byte in data)
        return data


class FaultySocket(socket.socket):
    """A socket whose system calls fail as a fault says; it takes over another one."""

    def __init__(self, sock, fault):
        super().__init__(sock.family, sock.type, sock.proto, fileno=sock.detach())
        self.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.fault = fault
        fault.sockets.append(self)

    def check(self, name):
        """Fail if it is the turn of this call; a dead connection also ends calls that wait."""
        try:
            self.fault.check(name)
        except OSError:
            if self.fault.lasting:
                with contextlib.suppress(OSError):
                    super().shutdown(socket.SHUT_RDWR)
            raise

    def recv(self, size, flags=0):
        self.check("recv")
        return self.fault.spoil(super().recv(size, flags))

    def send(self, data, flags=0):
        self.check("send")
        return super().send(data, flags)

    def sendmsg(self, *args):
        self.check("sendmsg")
        return super().sendmsg(*args)

    def shutdown(self, how):
        self.check("shutdown")
        super().shutdown(how)


class FaultyWaits:
    """What makes a transport fail while it waits."""

    def wait_readable(self, timeout):
        self.sock.fault.check("wait_readable")
        return super().wait_readable(timeout)

    def wait_writable(self, timeout):
        self.sock.fault.check("wait_writable")
        return super().wait_writable(timeout)


class FaultyTransport(FaultyWaits, Transport):
    """A transport over a faulty socket."""


class FaultyTLSTransport(FaultyWaits, TLSTransport):
    """A transport with TLS over a faulty socket."""


def faulty(base, fault):
    """A class of connections over faulty sockets."""

    class Faulty(base):
        def __init__(self, transport, *args):
            sock = FaultySocket(transport.sock, fault)
            if transport.secure:
                tls = transport.tls
                transport = FaultyTLSTransport(
                    sock,
                    tls.context,
                    server_side=tls.server_side,
                    server_hostname=tls.server_hostname,
                    portable=transport.portable,
                )
            else:
                transport = FaultyTransport(sock, portable=transport.portable)
            super().__init__(transport, *args)

    return Faulty


class Life:
    """
    A connection from its opening to its end, of which one side is struck by a fault.

    Args:
        side: ``"client"`` or ``"server"``.
    """

    def __init__(self, link, side, fault):
        self._link = link
        self._side = side
        self._fault = fault
        self.complete = False  # whether all was done, with the right results
        self._classes = {
            "client": PortableClientConnection if link.portable else ClientConnection,
            "server": PortableServerConnection if link.portable else ServerConnection,
        }
        self._classes[side] = faulty(self._classes[side], fault)
        self._handler_errors = []

    def live(self):
        """Live it; raises what is not documented."""
        server = self._link.serve(
            self._handle, create_connection=self._classes["server"], **TIMEOUTS
        )
        with server.start():
            client = Task(self._be_client, server)
            client.result(LIFE)
        assert self._handler_errors == []
        assert wait_until(lambda: all(sock.fileno() == -1 for sock in self._fault.sockets))

    def _handle(self, connection):
        try:
            for message in connection:
                connection.send(message)
        except ConnectionClosed:
            raise
        except BaseException as exc:
            self._handler_errors.append(exc)

    def _be_client(self, server):
        try:
            connection = self._link.connect(
                server, create_connection=self._classes["client"], **TIMEOUTS
            )
        except (OSError, InvalidHandshake):  # those that connect() tells of
            for sock in self._fault.sockets:
                sock.close()  # taken over from the one that connect() has closed
            return
        with contextlib.suppress(ConnectionClosed):
            self._exchange(connection)
        connection.close()
        assert connection.is_gone

    def _exchange(self, connection):
        connection.send("one")
        assert connection.recv() == "one"
        connection.send("compressed " * 200)
        connection.send(["two", " ", "three"])
        assert connection.recv(PATIENCE) == "compressed " * 200
        pong = connection.ping()
        assert connection.recv() == "two three"
        connection.send(LARGE)
        if self._side == "server" and self._fault.counts("wait_writable"):
            # Until the server waits for room, or what came of it.
            wait_until(
                lambda: (
                    self._fault.called
                    or connection.stats()["inbox_messages"]
                    or not connection.is_open
                )
            )
        assert connection.recv() == LARGE
        assert pong.wait(LIFE)  # it was read before
        connection.close()
        self.complete = connection.close_code == 1000


class Way(NamedTuple):
    """A way to fail, and which calls do so."""

    calls: tuple[str, ...]
    code: int
    lasting: bool = False

    def make(self):
        return OSError(self.code, os.strerror(self.code))


WAYS = {
    "reset": Way(MOVING, errno.ECONNRESET),
    "dead": Way((*MOVING, "shutdown"), errno.ETIMEDOUT, lasting=True),
    "pipe": Way(("send", "sendmsg"), errno.EPIPE),
    "no buffers": Way(("send", "sendmsg"), errno.ENOBUFS),
    "interrupted": Way(("recv",), errno.EINTR),
    "no shutdown": Way(("shutdown",), errno.ENOTCONN),
    "no wait": Way(("wait_readable", "wait_writable"), errno.ENOMEM),
}


def strike_everywhere(link, side, calls, make, lasting=False):
    """Live lives in which the first call fails, the second, and so on; returns the lives."""
    lives = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for first in itertools.count(0, AT_ONCE):
            faults = [Fault(calls, first + n, make, lasting) for n in range(AT_ONCE)]
            batch = [Life(link, side, fault) for fault in faults]
            list(pool.map(Life.live, batch))
            lives += (life for life, fault in zip(batch, faults) if fault.struck)
            if not faults[-1].struck:
                assert batch[-1].complete
                return lives


@pytest.fixture(autouse=True)
def no_errors_in_the_log(caplog):
    """What the network does is no error of ours: nothing of it in the log but a line."""
    caplog.set_level(logging.INFO)
    yield
    for phase in ("setup", "call"):
        for record in caplog.get_records(phase):
            assert record.levelno < logging.ERROR, record.getMessage()
            assert record.exc_info is None


# Portable transports and TLS call the kernel at other moments, but fail in the same ways.
CASES = [("plain", way) for way in WAYS]
CASES += [("tls", "reset"), ("tls", "dead"), ("portable", "reset")]


@pytest.mark.parametrize(("kind", "way"), CASES)
@pytest.mark.parametrize("side", ["client", "server"])
def test_both_ends_end_whichever_system_call_fails(plain, tls, kind, way, side):
    link = tls if kind == "tls" else plain
    link.portable = kind == "portable"
    calls, _, lasting = WAYS[way]
    assert strike_everywhere(link, side, calls, WAYS[way].make, lasting)


@pytest.mark.parametrize("side", ["client", "server"])
def test_nothing_is_lost_when_any_call_that_does_not_wait_finds_the_kernel_busy(plain, side):
    plain.portable = True  # where each call is one that does not wait
    lives = strike_everywhere(plain, side, MOVING, BlockingIOError)
    assert lives
    assert all(life.complete for life in lives)


@pytest.mark.parametrize("side", ["client", "server"])
def test_both_ends_end_whichever_input_tls_cannot_decrypt(tls, side):
    assert strike_everywhere(tls, side, ("recv",), None)
