"""
Transports: a connected stream socket, plain or with TLS, as connections use it.

Whoever calls ``read()`` holds the reader role of the connection, whoever calls ``send()`` or
``flush()`` its outbound lock. Only ``read()`` and the ``wait_`` methods wait for the peer.

Results of system calls that move bytes are put into lists by C code alone
(``list.extend(map(recv, ...))``): a signal handler that raises, as that of Ctrl-C
does, runs before or after such a step, never between the system call and its bookkeeping. So no
byte is lost, sent twice or left out, whenever it comes.
"""

from __future__ import annotations

import collections
import contextlib
import itertools
import select
import socket
import ssl
import sys
import threading
from collections.abc import Sequence
from typing import Any, Optional, Union

from .deadline import Deadline

__all__ = ["TLSTransport", "Transport", "is_tcp", "is_tuned", "tune_listener", "wait_for"]

# Where a blocking recv() is woken by shutdown() from another thread, and a single call can be
# made not to block, reading takes one system call. Elsewhere (macOS, Windows) sockets are
# non-blocking, and waiting is done in slices.
PORTABLE_IO = not sys.platform.startswith("linux")
SLICE = 0.25  # seconds

# Longer waits are done in several: poll() counts milliseconds in 31 bits.
MAX_POLL = 86400.0  # seconds

# Above this, joining header and payload costs more than sendmsg() with two buffers.
JOIN_LIMIT = 16384  # bytes

# Plaintext given to OpenSSL before the ciphertext is handed to the kernel; so much may wait.
TLS_BATCH = 65536  # bytes
TLS_READ = 65536  # bytes of ciphertext in one read
TLS_RECORD = 16384  # bytes of plaintext in a record at most (RFC 8446 §5.1)

# Where input is put: its parts in order, at the end of input ``b""``.
Received = Union[list[bytes], "collections.deque[bytes]"]

# Plain numbers: what is done with members of enumerations runs in Python.
_DONTWAIT = int(getattr(socket, "MSG_DONTWAIT", 0))
_USER_TIMEOUT: Optional[int] = getattr(socket, "TCP_USER_TIMEOUT", None)
_NOSIGNAL = int(getattr(socket, "MSG_NOSIGNAL", 0))


def wait_for(sock: socket.socket, write: bool, timeout: Optional[float]) -> bool:
    """
    Wait until a socket is readable or writable, or has failed.

    Args:
        write: wait for room to write, else for input.
        timeout: seconds; ``None`` to wait for ever.
    """
    deadline = Deadline(timeout)
    while True:
        remaining = deadline.remaining()
        if _poll(sock, write, remaining if remaining is None else min(remaining, MAX_POLL)):
            return True
        if deadline.expired():
            return False


def _poll(sock: socket.socket, write: bool, timeout: Optional[float]) -> bool:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(sock, select.POLLOUT if write else select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    sockets: list[Any] = [sock]
    # Windows reports a failed connect() as an exceptional condition.
    ready = select.select([] if write else sockets, sockets if write else [], sockets, timeout)
    return any(ready)


class Transport:
    """
    A connected TCP or Unix socket.

    ``abort()`` and ``close()`` may be called from any thread and from a signal handler;
    ``close()`` only when no other thread is inside a call, since the number of a
    closed descriptor may be given to another file at once.

    Args:
        sock: connected; taken over.
        portable: use only what all platforms have; default: where it is needed.
        peer: the other end's address for a socket that was just accepted, and is as Python
            makes it; default: not known.
        tuned: whether it has its TCP options from the socket that it was accepted on.
    """

    __slots__ = (
        "_guard",
        "_read_flags",
        "_sendmsg",
        "_takes_options",
        "aborted",
        "closed",
        "direct",
        "flags",
        "portable",
        "recv",
        "remote_address",
        "send_some",
        "sends",
        "sock",
    )

    secure = False

    def __init__(
        self,
        sock: socket.socket,
        *,
        portable: bool = PORTABLE_IO,
        peer: Any = None,
        tuned: bool = False,
    ) -> None:
        self.sock = sock
        self.portable = portable
        # Python may know nothing of the mode of a socket that comes from elsewhere.
        if portable or peer is None or sock.gettimeout() is not None:
            sock.setblocking(not portable)
        # Whether there are options to set: Unix sockets don't have them.
        self._takes_options = not tuned and is_tcp(sock)
        if self._takes_options:
            _set_option(sock, socket.TCP_NODELAY, 1)
        self.flags = (0 if portable else _DONTWAIT) | _NOSIGNAL
        self._read_flags = 0 if portable else _DONTWAIT
        self._sendmsg = getattr(sock, "sendmsg", None)
        self.send_some = sock.send
        self.recv = sock.recv
        # Whether ``recv()``, which waits, is all that ``read()`` does, and ``send_some()`` with
        # these flags, which does not wait, all that ``send()`` does.
        self.direct = not portable and not self.secure
        # Reentrant: a signal handler may come while its own thread holds it.
        self._guard = threading.RLock()
        self.aborted = False
        self.closed = False
        # Calls in which the kernel took something: progress, for a sender that waits.
        self.sends = 0
        self.remote_address: Any = peer
        if peer is None:
            with contextlib.suppress(OSError):  # the peer may have gone already
                self.remote_address = sock.getpeername()

    @property
    def local_address(self) -> Any:
        """Address of this end; ``None`` once the socket is closed."""
        try:
            return self.sock.getsockname()
        except OSError:
            return None

    @property
    def peer_certificate(self) -> Optional[dict[str, Any]]:
        """Certificate of the peer, as ``SSLSocket.getpeercert()`` gives it; ``None`` for none."""
        return None

    def set_user_timeout(self, seconds: Optional[float]) -> None:
        """Have the kernel give up on a peer that acknowledges nothing (RFC 5482), on Linux."""
        if self._takes_options and seconds is not None and _USER_TIMEOUT is not None:
            _set_option(self.sock, _USER_TIMEOUT, int(seconds * 1000))

    def fileno(self) -> int:
        """The socket's descriptor, or -1 once it is closed."""
        return self.sock.fileno()

    # Reading: under the reader role.

    def read(self, received: Received, size: int) -> None:
        """
        Wait for input and append it to ``received``; ``b""`` stands for its end.

        Args:
            size: bytes to read at most.
        """
        self._read_socket(received, size)

    def read_nowait(self, received: Received, size: int) -> bool:
        """Like ``read()``, but return false instead of waiting."""
        return self._read_socket_nowait(received, size)

    def _read_socket(self, received: Received, size: int) -> None:
        if not self.portable:
            received.extend(map(self.recv, (size,)))
            return
        while not self._read_socket_nowait(received, size):
            if self.aborted:
                # Not every platform makes a pending shutdown() readable.
                received.append(b"")
                return
            self._wait(False, SLICE)

    def _read_socket_nowait(self, received: Received, size: int) -> bool:
        try:
            received.extend(map(self.recv, (size,), (self._read_flags,)))
        except BlockingIOError:
            return False
        return True

    def discard(self, size: int) -> Optional[int]:
        """Throw input away: bytes dropped, 0 at its end, ``None`` if there is none yet."""
        try:
            return len(self.sock.recv(size, self._read_flags))
        except BlockingIOError:
            return None

    def has_input(self) -> bool:
        """Tell whether bytes of the peer wait in the kernel."""
        try:
            return bool(self.sock.recv(1, self._read_flags | socket.MSG_PEEK))
        except OSError:
            return False

    def wait_readable(self, timeout: Optional[float]) -> bool:
        """Wait for input; ``timeout`` in seconds, ``None`` for ever."""
        return self._wait(False, timeout)

    # Writing: under the outbound lock.

    def send(self, buffers: Sequence[bytes], offset: int, counts: list[int]) -> None:
        """
        Hand bytes to the kernel without waiting; append to ``counts`` how many it took.

        Args:
            buffers: one after the other, what is to be sent.
            offset: bytes of it that were taken before.

        Raises:
            BlockingIOError: the kernel took nothing.
        """
        rest = _rest(buffers, offset) if offset or len(buffers) > 1 else buffers
        if len(rest) == 2 and len(rest[1]) <= JOIN_LIMIT:
            rest = [b"".join(rest)]
        if len(rest) == 2 and self._sendmsg is not None:
            counts.extend(map(self._sendmsg, (rest,), ((),), (self.flags,)))
        else:
            counts.extend(map(self.send_some, rest[:1], (self.flags,)))
        self.sends += 1

    def flush(self) -> bool:
        """Hand to the kernel what the transport itself holds; true when that is nothing."""
        return True

    def wait_writable(self, timeout: Optional[float]) -> bool:
        """Wait for room in the kernel; ``timeout`` in seconds, ``None`` for ever."""
        return self._wait(True, timeout)

    def shutdown_write(self, tcp: bool = True) -> bool:
        """
        Tell the peer that nothing more will come (RFC 6455 §7.1.1); false if it must be repeated.

        Args:
            tcp: close the sending half of TCP, too; otherwise that of TLS only.
        """
        if tcp:
            self._shutdown(socket.SHUT_WR)
        return True

    # Ending: any thread.

    def shutdown_read(self) -> None:
        """Let a thread that waits for input see its end."""
        self._shutdown(socket.SHUT_RD)

    def abort(self) -> None:
        """End both directions; threads that wait in ``read()`` or ``wait_*()`` wake up."""
        self.aborted = True
        self._shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Give the descriptor back; idempotent. Only when no other thread is inside."""
        with self._guard:
            self.closed = True
            self.sock.close()

    def forget(self) -> None:
        """Give the descriptor back in a forked child; the parent's connection goes on."""
        self._guard = threading.RLock()  # a thread of the parent may have had it
        self.aborted = True
        self.close()

    def _shutdown(self, how: int) -> None:
        with self._guard:
            if self.closed:
                return
            try:
                self.sock.shutdown(how)
            except OSError:
                return

    def _wait(self, write: bool, timeout: Optional[float]) -> bool:
        if not self.portable:
            return wait_for(self.sock, write, timeout)
        deadline = Deadline(timeout)
        while not self.aborted:
            remaining = deadline.remaining()
            if wait_for(self.sock, write, SLICE if remaining is None else min(SLICE, remaining)):
                return True
            if remaining == 0:
                return False
        return True

    # Opening handshake: one thread alone, under a deadline.

    def handshake(self, deadline: Deadline) -> None:
        """Do what the transport needs before bytes can pass: nothing for plain sockets."""

    def receive_before(self, deadline: Deadline, size: int) -> bytes:
        """Read, waiting until the deadline; ``b""`` at the end of input."""
        received: list[bytes] = []
        while not self.read_nowait(received, size):
            if not self.wait_readable(deadline.remaining()):
                raise TimeoutError("timed out during the opening handshake")
        if deadline.expired():  # a peer may send all the time without ever finishing
            raise TimeoutError("timed out during the opening handshake")
        return received[0] if len(received) == 1 else b"".join(received)

    def send_before(self, deadline: Deadline, data: bytes) -> None:
        """Send all of ``data``, waiting until the deadline."""
        counts: list[int] = []
        while True:
            try:
                if self.direct and not counts:
                    counts.append(self.send_some(data, self.flags))
                    if counts[0] == len(data):
                        return
                if sum(counts) < len(data):
                    self.send((data,), sum(counts), counts)
                elif self.flush():
                    return
                else:
                    raise BlockingIOError
            except BlockingIOError:
                if not self.wait_writable(deadline.remaining()):
                    raise TimeoutError("timed out during the opening handshake") from None


def is_tcp(sock: socket.socket) -> bool:
    """Whether this is a TCP socket, rather than a Unix socket."""
    return sock.family in (socket.AF_INET, socket.AF_INET6)


def _set_option(sock: socket.socket, option: int, value: int) -> None:
    try:
        sock.setsockopt(socket.IPPROTO_TCP, option, value)
    except OSError:  # the peer may have gone already
        return


def tune_listener(listener: socket.socket, user_timeout: Optional[float]) -> None:
    """Set the options of the TCP sockets that will be accepted, where these inherit them."""
    _set_option(listener, socket.TCP_NODELAY, 1)
    if user_timeout is not None and _USER_TIMEOUT is not None:
        _set_option(listener, _USER_TIMEOUT, int(user_timeout * 1000))


def is_tuned(sock: socket.socket, user_timeout: Optional[float]) -> bool:
    """Tell whether a socket has what ``tune_listener()`` set."""
    try:
        if not sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY):
            return False
        if user_timeout is None or _USER_TIMEOUT is None:
            return True
        return sock.getsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT) == int(user_timeout * 1000)
    except OSError:
        return False


def _rest(buffers: Sequence[bytes], offset: int) -> list[Any]:
    """What is left of ``buffers`` after ``offset`` bytes; empty ones left out."""
    rest: list[Any] = []
    for buffer in buffers:
        size = len(buffer)
        if offset >= size:
            offset -= size
        elif offset:
            rest.append(memoryview(buffer)[offset:])
            offset = 0
        else:
            rest.append(buffer)
    return rest


class TLSTransport(Transport):
    """
    TLS over a connected socket.

    An OpenSSL object must not be used by two threads at once, and a reader must not keep
    a writer waiting for the peer. So TLS runs in memory (``SSLObject`` over ``MemoryBIO``),
    under a lock that is never held while waiting; the socket is read outside it.

    Args:
        context: the user's ``SSLContext``.
        server_side: which side of the TLS handshake this is.
        server_hostname: name to check the certificate against, for a client.
    """

    __slots__ = (
        "_block_counts",
        "_blocks",
        "_discarding",
        "_incoming",
        "_input_lost",
        "_outgoing",
        "_raw",
        "_tls_lock",
        "tls",
    )

    secure = True

    def __init__(
        self,
        sock: socket.socket,
        context: ssl.SSLContext,
        *,
        server_side: bool,
        server_hostname: Optional[str] = None,
        portable: bool = PORTABLE_IO,
        peer: Any = None,
        tuned: bool = False,
    ) -> None:
        super().__init__(sock, portable=portable, peer=peer, tuned=tuned)
        # Guards the TLS object, both BIOs and the ciphertext on its way out. May be taken
        # under the reader role or the outbound lock; takes no other.
        self._tls_lock = threading.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_side, server_hostname=server_hostname
        )
        # At most one block of ciphertext, and how much of it each send() took.
        self._blocks: list[bytes] = []
        self._block_counts: list[int] = []
        self._discarding = False
        self._input_lost = False
        # Ciphertext read from the socket; reader role only, filled outside the lock.
        self._raw: collections.deque[bytes] = collections.deque()

    @property
    def peer_certificate(self) -> Optional[dict[str, Any]]:
        with self._tls_lock:
            try:
                return self.tls.getpeercert() or None
            except ValueError:  # before the TLS handshake
                return None

    def forget(self) -> None:
        self._tls_lock = threading.Lock()
        super().forget()

    def read(self, received: Received, size: int) -> None:
        while not self._decrypt(received, size):
            self._read_socket(self._raw, TLS_READ)

    def read_nowait(self, received: Received, size: int) -> bool:
        while not self._decrypt(received, size):
            if not self._read_socket_nowait(self._raw, TLS_READ):
                return False
        return True

    def _decrypt(self, received: Received, size: int) -> bool:
        """Decrypt what was read, at most ``size`` bytes and a record; false if there is nothing."""
        count = 0
        if self._input_lost:
            raise ConnectionAbortedError("input was lost in an interrupt")
        with self._tls_lock:
            self._feed()
            parts, waiting = len(received), self._input_left()
            try:
                while True:  # its end must be within the handlers, see tests/test_loops.py
                    if count >= size:
                        break
                    parts, waiting = len(received), self._input_left()
                    received.extend(map(self.tls.read, (size - count,)))
                    if not received[-1]:
                        break
                    count += len(received[-1])
            except ssl.SSLWantReadError:
                return count > 0
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                # With or without close_notify, no more will come; whether that was expected
                # is for the closing handshake to tell.
                received.append(b"")
            except ssl.SSLError:
                if not count:  # else what came before it is served first; it will be raised again
                    raise
            except BaseException:
                # read() itself runs signal handlers, when it has read, and then loses it.
                if len(received) == parts and self._input_left() != waiting:
                    self._input_lost = True
                raise
            finally:
                # Reading may produce answers, such as that to a key update.
                with contextlib.suppress(OSError):
                    self._flush_blocks()
        return True

    def _input_left(self) -> tuple[int, int]:
        """What there is to decrypt, and what is decrypted already. Under the TLS lock."""
        return self._incoming.pending, self.tls.pending()

    def _feed(self) -> None:
        """Move ciphertext that was read into the incoming BIO. Under the TLS lock."""
        raw = self._raw
        while raw and raw[0]:
            # One step of C code, as the head of this module explains.
            moved = map(self._incoming.write, itertools.starmap(raw.popleft, ((),)))
            collections.deque(moved, maxlen=0)
        if raw:
            self._incoming.write_eof()

    def has_input(self) -> bool:
        return bool(self._raw) or super().has_input()

    def discard(self, size: int) -> Optional[int]:
        # It is decrypted: a peer may keep TCP open until its close_notify was noticed.
        received: list[bytes] = []
        while not self._discarding:
            try:
                return sum(map(len, received)) if self.read_nowait(received, size) else None
            except ssl.SSLError:
                self._discarding = True
        return super().discard(size)

    def wait_readable(self, timeout: Optional[float]) -> bool:
        with self._tls_lock:
            buffered = self._incoming.pending or self.tls.pending()
        return bool(buffered and not self._discarding) or super().wait_readable(timeout)

    def send(self, buffers: Sequence[bytes], offset: int, counts: list[int]) -> None:
        with self._tls_lock:
            if not self._flush_blocks():
                raise BlockingIOError
            rest = _rest(buffers, offset)
            if len(rest) == 2 and len(rest[1]) <= JOIN_LIMIT:
                rest = [b"".join(rest)]
            if rest:  # nothing, when an exception kept its end from being noticed
                self._encrypt(memoryview(rest[0]), counts)
            self._flush_blocks()

    def _encrypt(self, data: memoryview, counts: list[int]) -> None:
        start = sum(counts)
        booked, waiting, record = len(counts), self._outgoing.pending, data[:0]
        try:
            while True:  # its end must be within the handlers, see tests/test_loops.py
                if not data or sum(counts) - start >= TLS_BATCH:
                    break
                booked, waiting, record = len(counts), self._outgoing.pending, data[:TLS_RECORD]
                counts.extend(map(self.tls.write, (record,)))
                data = data[counts[-1] :]
        except ssl.SSLWantReadError:
            # A renegotiation of TLS 1.2 must finish first; the reader does that.
            if sum(counts) == start:
                raise BlockingIOError from None
        except BaseException:
            # write() itself runs signal handlers, when it has written: a record or nothing.
            if len(counts) == booked and self._outgoing.pending > waiting:
                counts.append(len(record))
            raise

    def flush(self) -> bool:
        with self._tls_lock:
            return self._flush_blocks()

    def _flush_blocks(self) -> bool:
        """Hand ciphertext to the kernel; true when none is left. Under the TLS lock."""
        while True:
            if not self._blocks:
                if not self._outgoing.pending:
                    return True
                self._block_counts.clear()
                self._blocks.extend(map(self._outgoing.read, (self._outgoing.pending,)))
            counts = self._block_counts
            try:
                super().send(self._blocks, sum(counts), counts)
            except BlockingIOError:
                return False
            if sum(counts) == len(self._blocks[0]):
                self._blocks.clear()

    def shutdown_write(self, tcp: bool = True) -> bool:
        with self._tls_lock:
            try:
                # Input is of no interest any more, but OpenSSL 3 refuses to go on after
                # unwrap() has met application data.
                with contextlib.suppress(ssl.SSLError):
                    self._drop_input()
                with contextlib.suppress(ssl.SSLError):
                    self.tls.unwrap()  # puts close_notify into the outgoing BIO
                if not self._flush_blocks():
                    return False
            except OSError:
                return True
        return super().shutdown_write(tcp)

    def _drop_input(self) -> None:
        while self.tls.read(TLS_READ):
            pass

    def handshake(self, deadline: Deadline) -> None:
        """Do the TLS handshake; raises ``ssl.SSLError``, ``TimeoutError`` or ``OSError``."""
        while True:
            try:
                with self._tls_lock:
                    self._feed()
                    self.tls.do_handshake()
                self.send_before(deadline, b"")
                return
            except ssl.SSLWantReadError:
                self.send_before(deadline, b"")
            except ssl.SSLError:
                with contextlib.suppress(OSError):
                    self.flush()  # the alert that tells the peer why
                raise
            while not self._read_socket_nowait(self._raw, TLS_READ):
                if not self._wait(False, deadline.remaining()):
                    raise TimeoutError("timed out during the TLS handshake")
