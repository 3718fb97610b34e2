"""One attempt to connect: its deadline, its waits, and how another thread ends it."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any, Callable, Optional

from .deadline import Deadline
from .transport import PORTABLE_IO, SLICE, wait_for

__all__ = ["Address", "Attempt", "connect_tcp"]

Address = tuple[str, int]

_IN_PROGRESS = {errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 10035)}


class Attempt:
    """
    Everything that may take time until a connection is open, under one deadline.

    Thread safety: ``cancel()`` may be called from any thread and from a signal handler; the rest
    belongs to the thread that connects.

    Args:
        timeout: seconds for all of it; ``None`` for no limit.

    Raises:
        TypeError: the timeout is no number.
    """

    def __init__(self, timeout: Optional[float]) -> None:
        try:
            self.deadline = Deadline(timeout)
        except TypeError:
            raise TypeError(f"open_timeout must be a number or None, not {timeout!r}") from None
        self.cancelled = False
        # Guards _interrupt, so that no socket is shut down after it was closed. Reentrant: a
        # signal handler may come while its own thread holds it.
        self._guard = threading.RLock()
        self._interrupt: Optional[Callable[[], Any]] = None

    def cancel(self) -> None:
        """Have the attempt fail at once with :exc:`ConnectionAbortedError`; never blocks."""
        with self._guard:
            self.cancelled = True
            if self._interrupt is not None:
                # The socket may not be connected any more, the lock may be released already.
                with contextlib.suppress(OSError, RuntimeError):
                    self._interrupt()

    def check(self) -> None:
        """Raise :exc:`ConnectionAbortedError` if the attempt was cancelled."""
        if self.cancelled:
            raise ConnectionAbortedError("connecting was cancelled")

    @contextlib.contextmanager
    def interrupting(self, interrupt: Callable[[], Any]) -> Iterator[None]:
        """Have ``cancel()`` call a function, within the ``with`` block."""
        with self._guard:
            self._interrupt = interrupt
        try:
            self.check()
            yield
            self.check()
        finally:
            with self._guard:
                self._interrupt = None

    def watching(self, sock: socket.socket) -> contextlib.AbstractContextManager[None]:
        """Have ``cancel()`` end the waits for a socket, within the ``with`` block."""
        return self.interrupting(lambda: sock.shutdown(socket.SHUT_RDWR))

    def resolve(self, host: str, port: int, role: str = "host ") -> list[tuple[Any, ...]]:
        """
        Find the addresses of a host, as :func:`socket.getaddrinfo` does, but within the deadline.

        Raises:
            TimeoutError: there was no answer in time.
            socket.gaierror: there is no such host, or nobody to ask.
        """
        try:
            with contextlib.suppress(socket.gaierror):
                return _look_up(host, port, socket.AI_NUMERICHOST)
            return self._look_up_aside(host, port)
        except UnicodeError:  # a label that is empty or too long
            raise socket.gaierror(socket.EAI_NONAME, f"{host} cannot be a host name") from None
        except socket.gaierror as exc:
            text = f"cannot find the {role}{host}: {exc.strerror}; is the name right?"
            raise socket.gaierror(exc.errno, text) from None

    def _look_up_aside(self, host: str, port: int) -> list[tuple[Any, ...]]:
        # Nothing bounds getaddrinfo(): it takes as long as the name servers are slow. So it
        # has a thread of its own, which is left alone when time is up.
        results: list[Any] = []
        done = threading.Lock()
        done.acquire()

        def look_up() -> None:
            try:
                results.append(_look_up(host, port, 0))
            except Exception as exc:
                results.append(exc)
            finally:
                with contextlib.suppress(RuntimeError):  # cancel() was first
                    done.release()

        thread = threading.Thread(target=look_up, name=f"look up {host}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no thread left to have
            return _look_up(host, port, 0)
        with self.interrupting(done.release):
            remaining = self.deadline.remaining()
            limit = threading.TIMEOUT_MAX
            done.acquire(timeout=limit if remaining is None else min(remaining, limit))
        if not results:
            raise TimeoutError(f"timed out while looking up the host {host}")
        thread.join()
        if isinstance(results[0], Exception):
            raise results[0]
        found: list[tuple[Any, ...]] = results[0]
        return found

    def connect(self, sock: socket.socket, address: Any, deadline: Deadline) -> None:
        """Connect a socket, and leave it non-blocking; raises :exc:`OSError`."""
        sock.setblocking(False)
        error = sock.connect_ex(address)
        if error in _IN_PROGRESS:
            # Only a socket that is connecting can be shut down, so this comes after it began.
            with self.watching(sock):
                self._wait_writable(sock, deadline)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))

    def _wait_writable(self, sock: socket.socket, deadline: Deadline) -> None:
        while True:
            remaining = deadline.remaining()
            # Not every platform lets a socket that is connecting be shut down.
            slices = [SLICE] if PORTABLE_IO else []
            limits = slices if remaining is None else [*slices, remaining]
            if wait_for(sock, True, min(limits, default=None)):
                return
            self.check()
            if deadline.expired():
                raise TimeoutError("timed out")


def _look_up(host: str, port: int, flags: int) -> list[tuple[Any, ...]]:
    return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=flags))


def connect_tcp(
    attempt: Attempt,
    host: str,
    port: int,
    *,
    timeout: Optional[float] = None,
    source_address: Optional[Address] = None,
    role: str = "",
) -> socket.socket:
    """
    Connect to the first address of a host that answers.

    Each address gets its share of the time that is left, so that one that is dead leaves some for
    the others.

    Args:
        timeout: seconds for each address at most; ``None`` for its share.
        source_address: host and port to connect from.
        role: what the host is, for messages; ends with a space.

    Raises:
        TimeoutError: no address answered in time.
        OSError: none took the connection; the message tells host, port and addresses.
    """
    addresses = attempt.resolve(host, port, role or "host ")
    failures: list[tuple[Any, OSError]] = []
    for index, info in enumerate(addresses):
        remaining = attempt.deadline.remaining()
        share = None if remaining is None else remaining / (len(addresses) - index)
        if timeout is not None:
            share = timeout if share is None else min(share, timeout)
        attempt.check()
        try:
            return _connect_one(attempt, info, source_address, Deadline(share))
        except OSError as exc:
            attempt.check()
            failures.append((info[4], exc))
    raise _explain(f"{role}{host} port {port}", failures)


def _connect_one(
    attempt: Attempt,
    info: tuple[Any, ...],
    source_address: Optional[Address],
    deadline: Deadline,
) -> socket.socket:
    family, kind, protocol, _, address = info
    sock = socket.socket(family, kind, protocol)
    try:
        if source_address is not None:
            sock.bind(source_address)
        attempt.connect(sock, address, deadline)
    except BaseException:
        sock.close()
        raise
    return sock


def _explain(target: str, failures: list[tuple[Any, OSError]]) -> OSError:
    """One error for all addresses of a host; of the kind of the last one."""
    if not failures:
        return OSError(f"no address found for {target}")
    last = failures[-1][1]
    tried = "; ".join(f"{address[0]}: {exc.strerror or exc}" for address, exc in failures)
    text = f"cannot connect to {target} ({tried})"
    if isinstance(last, TimeoutError):
        return TimeoutError(f"timed out while connecting to {target} ({tried})")
    if isinstance(last, ConnectionRefusedError):
        text += "; nothing listens there: is the server running, and the port right?"
    # Called with a number, OSError makes an instance of the fitting subclass.
    return OSError(last.errno, text)
