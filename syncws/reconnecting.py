"""A client that connects again whenever its connection has ended."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Callable, Optional

from .attempt import Attempt
from .backoff import backoff, parse_retry_after
from .client import ClientConnection, connect
from .exceptions import (
    ConcurrencyError,
    ConnectionClosed,
    InvalidMessage,
    InvalidProxyMessage,
    InvalidProxyStatus,
    InvalidStatus,
)
from .headers import build_host
from .opcodes import Close, CloseCode
from .routes import Path
from .uri import WebSocketURI, parse_uri

__all__ = ["Reconnector", "process_exception", "reconnect", "unix_reconnect"]

# RFC 9110 §15.5.9, RFC 8470 §5.2, RFC 6585 §4: request timeout, too early, too many requests.
_RETRIED_STATUSES = (408, 425, 429)
# RFC 9110 §15.6.2, §15.6.6: not implemented, HTTP version not supported. They will not pass.
_LASTING_STATUSES = (501, 505)

# Of TLS, only a connection that ended is worth another attempt.
_TLS_ENDED = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)


def process_exception(exc: Exception) -> Optional[Exception]:
    """
    Tell whether an attempt to connect is worth repeating: the default of :func:`reconnect`.

    Worth it are failures of the network, of the search for the host's addresses, and timeouts
    (:exc:`OSError`); a server or proxy that ends the connection without an answer; and
    the HTTP statuses 408, 425, 429 and 5xx, except 501 and 505. Everything else is likely
    to fail again: a wrong URI or option, another status, a certificate that is not trusted,
    another error of TLS, a lack of permission, a breach of the protocol.

    Returns:
        ``None`` to try again; otherwise the exception to raise.
    """
    if isinstance(exc, (InvalidStatus, InvalidProxyStatus)):
        return None if _is_passing(exc.response.status_code) else exc
    if isinstance(exc, (InvalidMessage, InvalidProxyMessage)):
        return None if isinstance(exc.__cause__, EOFError) else exc
    if isinstance(exc, ssl.SSLError):
        return None if isinstance(exc, _TLS_ENDED) else exc
    if isinstance(exc, OSError) and not isinstance(exc, PermissionError):
        return None
    return exc


def _is_passing(status: int) -> bool:
    return status in _RETRIED_STATUSES or (500 <= status < 600 and status not in _LASTING_STATUSES)


class Reconnector:
    """
    Yields open connections, one after the other; made by :func:`reconnect`.

    Leaving the loop, by ``break`` or by an exception, closes the connection of that round. With
    ``with``, the end of the block calls ``stop()`` and waits for the closing handshake.

    Thread safety: ``stop()`` may be called from any thread, from a signal handler, and several
    times. One thread at a time iterates; another one gets :exc:`ConcurrencyError`.
    """

    def __init__(
        self,
        open_connection: Callable[[Attempt], ClientConnection],
        name: str,
        *,
        open_timeout: Optional[float],
        process_exception: Callable[[Exception], Optional[Exception]],
        reconnect_delays: Callable[[], Iterator[float]],
        reset_after: float,
        max_retry_after: float,
        logger: Any,
    ) -> None:
        self._open_connection = open_connection
        self._name = name
        self._open_timeout = open_timeout
        self._process_exception = process_exception
        self._reconnect_delays = reconnect_delays
        self._reset_after = reset_after
        self._max_retry_after = max_retry_after
        self._logger = logger
        # Held by the loop that iterates.
        self._iteration = threading.Lock()
        # Set by single atomic stores. stop() sets the first and then looks at the others, the
        # loop sets one of the others and then looks at the first: one of them notices.
        self._stopped = False
        self._attempt: Optional[Attempt] = None
        self._connection: Optional[ClientConnection] = None
        # Open once stopped. A bare lock, since that of an Event must not be taken by a signal
        # handler, whose thread may hold it.
        self._gate = threading.Lock()
        self._gate.acquire()

    def stop(self) -> None:
        """
        End the loop; never blocks.

        Ends the wait between two attempts or an attempt at once. An open connection is closed
        (1000) by the service thread, so that who receives from it sees its end.
        """
        self._stopped = True
        with contextlib.suppress(RuntimeError):  # stopped before
            self._gate.release()
        attempt, connection = self._attempt, self._connection
        if attempt is not None:
            attempt.cancel()
        if connection is not None:
            connection.request_close(Close(CloseCode.NORMAL_CLOSURE, ""))

    def __enter__(self) -> Reconnector:
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        connection = self._connection
        self.stop()
        if connection is not None:
            connection.close()

    def __iter__(self) -> Iterator[ClientConnection]:
        if not self._iteration.acquire(blocking=False):
            raise ConcurrencyError("cannot iterate over the same reconnect() in two places")
        try:
            yield from self._connections()
        finally:
            self._iteration.release()

    def _connections(self) -> Iterator[ClientConnection]:
        delays: Optional[Iterator[float]] = None
        while not self._stopped:
            error: Optional[Exception] = None
            connection = None
            try:
                connection = self._open()
            except Exception as exc:
                if self._stopped:
                    return
                self._raise_if_fatal(exc)
                error = exc
            if connection is not None:
                try:
                    if not self._stopped:
                        yield connection
                finally:
                    self._connection = None
                    connection.close()
                error = connection.end
                if time.monotonic() - connection.opened_at >= self._reset_after:
                    delays = None
            if delays is None:
                delays = iter(self._reconnect_delays())
            assert error is not None
            self._wait(error, next(delays, None))
            del error, connection  # not to be kept until the next one ends

    def _open(self) -> ClientConnection:
        self._attempt = attempt = Attempt(self._open_timeout)
        try:
            if self._stopped:
                attempt.cancel()
            self._connection = connection = self._open_connection(attempt)
            return connection
        finally:
            self._attempt = None

    def _raise_if_fatal(self, exc: Exception) -> None:
        fatal = self._process_exception(exc)
        if fatal is exc:
            raise exc
        if fatal is not None:
            raise fatal from exc

    def _wait(self, error: Exception, delay: Optional[float]) -> None:
        if self._stopped:
            return
        if delay is None:  # given delays have an end
            raise error
        asked = None
        if isinstance(error, (InvalidStatus, InvalidProxyStatus)):
            asked = parse_retry_after(error.response.headers, time.time())
        delay = max(delay, min(asked or 0.0, self._max_retry_after))
        failed = not isinstance(error, ConnectionClosed)
        self._logger.log(
            logging.WARNING if failed else logging.INFO,
            "%s %s: %s; next attempt in %.1f seconds",
            "cannot connect to" if failed else "connection ended to",
            self._name,
            error or type(error).__name__,
            delay,
        )
        if self._gate.acquire(timeout=min(delay, threading.TIMEOUT_MAX)):
            self._gate.release()


def reconnect(
    uri: str,
    *,
    process_exception: Callable[[Exception], Optional[Exception]] = process_exception,
    reconnect_delays: Callable[[], Iterator[float]] = backoff,
    reset_after: float = 30,
    max_retry_after: float = 300,
    **options: Any,
) -> Reconnector:
    """
    Connect to a WebSocket server, again and again: returns something to iterate over.

    Each round of the loop gets a new open connection. When it ends, the next round connects
    again; what is left open is closed (1000)::

        for connection in reconnect("ws://localhost:8765"):
            try:
                for message in connection:
                    print(message)
            except ConnectionClosed:
                pass

    Before each further attempt there is a wait, that grows with every failure and is drawn
    by chance (:func:`backoff`). Where a server answers with ``Retry-After``, it is at least that
    long. Every failed attempt is logged with the level WARNING, every end with INFO.

    Args:
        uri: as for :func:`connect`.
        process_exception: is called with the exception of an attempt that failed, and
            returns ``None`` to try again, or what to raise.
        reconnect_delays: is called for an iterator of delays in seconds, when waiting
            starts anew; one that ends limits the number of attempts: the last error is
            raised. ``functools.partial(backoff, max_delay=10)`` is an example.
        reset_after: seconds after which a connection counts as one that worked; the delays
            start anew after it.
        max_retry_after: seconds that ``Retry-After`` may ask for at most.
        options: as for :func:`connect`; ``open_timeout`` holds for each attempt.

    Raises:
        InvalidURI: the URI is not a WebSocket URI.
        ValueError: ``sock`` was given: it would do for one connection only.

    While iterating: what ``process_exception`` returns, and so whatever :func:`connect` raises
    that is not worth repeating.
    """
    if options.get("sock") is not None:
        raise ValueError("reconnect() needs a socket for each connection; it cannot use sock")
    return Reconnector(
        lambda attempt: connect(uri, attempt=attempt, **options),
        _public_name(parse_uri(uri)),
        open_timeout=options.get("open_timeout", 10),
        process_exception=process_exception,
        reconnect_delays=reconnect_delays,
        reset_after=reset_after,
        max_retry_after=max_retry_after,
        logger=options.get("logger") or logging.getLogger("syncws.client"),
    )


def _public_name(uri: WebSocketURI) -> str:
    """A URI as logs may show it: credentials and tokens are in what is left out."""
    host = build_host(uri.host, uri.port, uri.secure)
    return f"{'wss' if uri.secure else 'ws'}://{host}{uri.path or '/'}"


def unix_reconnect(path: Path, uri: Optional[str] = None, **kwargs: Any) -> Reconnector:
    """
    Connect again and again to a server that listens on a Unix socket.

    Args:
        path: of the socket.
        uri: as for :func:`unix_connect`.
        kwargs: as for :func:`reconnect`.
    """
    if path is None:
        raise ValueError("missing path argument")
    secure = kwargs.get("ssl") is not None
    uri = uri or ("wss://localhost/" if secure else "ws://localhost/")
    return reconnect(uri, unix_path=path, **kwargs)
