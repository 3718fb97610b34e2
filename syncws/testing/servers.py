"""Servers and pairs of connections that check what is left when a test is over."""

from __future__ import annotations

import contextlib
import functools
import socket
import threading
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any, Optional, Union

from ..client import ClientConnection, connect
from ..exceptions import ConnectionClosed
from ..reports import format_address
from ..server import Server
from ..server_connection import ServerConnection
from ..serving import Handler, serve

__all__ = ["TestServer", "pair"]

PATIENCE = 5.0  # seconds for what is done in an instant if all is well

Handlers = Union[Handler, Mapping[str, Handler]]


class TestServer:
    """
    A server for a test, at a port of its own on 127.0.0.1; a context manager.

    ::

        with TestServer(handler) as server, server.connect() as connection:
            connection.send("Hello")
            assert connection.recv(timeout=1) == "Hello"

    At the end of the block it closes the connections that :meth:`connect` made, shuts the server
    down, and raises :exc:`AssertionError` if a handler is still running then, with its
    stack, or if one has raised, with its exception as the cause. If the block itself raises, that
    exception goes on.

    Thread safety: all methods may be called from any thread.

    Args:
        handler: as for :func:`serve`: a function, or a dictionary of functions by path.
        timeout: seconds that handlers have to end.
        options: as for :func:`serve`; with ``ssl``, ``uri`` is a ``wss://`` one.

    Attributes:
        server: the :class:`Server`.
        errors: what handlers raised, besides the :exc:`ConnectionClosed` of their own
            connection. Remove those that the test expects.
    """

    __test__ = False  # pytest looks for classes with such names

    def __init__(self, handler: Handlers, *, timeout: float = PATIENCE, **options: Any) -> None:
        self.errors: list[Exception] = []
        self._timeout = timeout
        self._clients: list[ClientConnection] = []
        if options.get("sock") is None:
            options = {"host": "127.0.0.1", "port": 0, **options}
        self.server: Server = serve(self._watch(handler), **options)

    @property
    def uri(self) -> str:
        """Where clients find the server: ``"ws://127.0.0.1:40001"``, for example."""
        scheme = "ws" if self.server.ssl is None else "wss"
        return f"{scheme}://{format_address(self.server.server_address)}"

    def connect(self, path: str = "/", **options: Any) -> ClientConnection:
        """
        Connect to the server; the connection is closed at the end of the block, if not before.

        Args:
            path: and query; appended to ``uri``.
            options: as for :func:`connect`, which also says what is raised.
        """
        connection = connect(self.uri + path, **options)
        self._clients.append(connection)
        return connection

    def __enter__(self) -> TestServer:
        self.server.start()
        return self

    def __exit__(
        self,
        exc_type: Optional[type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close(check=exc_type is None)

    def close(self, check: bool = True) -> None:
        """
        End it, as at the end of a ``with`` block.

        Args:
            check: whether to raise for handlers that are running or have raised.

        Raises:
            AssertionError: see above.
        """
        try:
            for client in self._clients:
                client.close()
        finally:
            report = self.server.shutdown(timeout=self._timeout)
        self._clients.clear()
        errors = self.errors[:]
        self.errors.clear()  # their tracebacks refer to connections
        if check and report.running:
            stacks = "\n".join(handler.stack for handler in report.running)
            raise AssertionError(
                f"{len(report.running)} handlers still running {self._timeout} s after the end "
                f"of their connections:\n{stacks}"
            )
        if check and errors:
            raise AssertionError(
                f"{len(errors)} handlers raised, the first: {errors[0]!r}"
            ) from errors[0]

    def _watch(self, handler: Handlers) -> Handlers:
        if isinstance(handler, Mapping):
            return {
                path: functools.partial(self._run, function) for path, function in handler.items()
            }
        return functools.partial(self._run, handler)

    def _run(self, handler: Handler, connection: ServerConnection) -> None:
        try:
            handler(connection)
        except ConnectionClosed as exc:
            if connection.is_open:  # it is another connection that has ended
                self.errors.append(exc)
            raise
        except Exception as exc:
            self.errors.append(exc)
            raise


@contextlib.contextmanager
def pair(
    handler: Optional[Handler] = None,
    *,
    uri: str = "ws://localhost/",
    client: Optional[Mapping[str, Any]] = None,
    timeout: float = PATIENCE,
    **options: Any,
) -> Iterator[tuple[ClientConnection, ServerConnection]]:
    """
    Two connections with each other, over a pair of sockets instead of the network.

    ::

        with pair() as (client, server):
            client.send("Hello")
            assert server.recv(timeout=1) == "Hello"

    All else is real: opening handshake, compression, limits, threads. At the end of the block
    both are closed, and what :class:`TestServer` checks is checked.

    Args:
        handler: called with the server's end, in a thread of its own; ``None`` leaves that
            end to the test alone.
        uri: what the client asks for; its path is ``server.request.path``.
        client: options of the client's end, as for :func:`connect`.
        timeout: seconds that the handler has to end.
        options: of the server's end, as for :func:`serve`.

    Raises:
        AssertionError: at the end, if the handler is still running or has raised.
        InvalidHandshake: the server's end refused, as a ``process_request`` hook may do.
    """
    held = _Held(handler)
    test_server, ours = _make_ends(held, timeout, options)
    try:
        connection = connect(uri, sock=ours, **(client or {}))
        try:
            yield connection, held.wait(timeout)
        finally:
            held.release()
            connection.close()
    except BaseException:
        held.release()
        test_server.close(check=False)
        raise
    test_server.close()


def _make_ends(
    handler: Handler, timeout: float, options: dict[str, Any]
) -> tuple[TestServer, socket.socket]:
    """Make a server that has one client already, and the socket of that."""
    # Stands for the socket on which a server listens; nobody can reach it.
    idle, other = socket.socketpair()
    other.close()
    try:
        test_server = TestServer(handler, timeout=timeout, sock=idle, **options)
    except BaseException:
        idle.close()
        raise
    ours, theirs = socket.socketpair()
    test_server.server.process_request(theirs, theirs.getpeername())
    return test_server, ours


class _Held:
    """A handler that hands its connection to the test, which tells it when to return."""

    def __init__(self, handler: Optional[Handler]) -> None:
        self._handler = handler
        self._connection: Optional[ServerConnection] = None
        self._entered = threading.Event()
        self._done = threading.Event()

    def __call__(self, connection: ServerConnection) -> None:
        self._connection = connection
        self._entered.set()
        if self._handler is None:
            self._done.wait()
        else:
            self._handler(connection)

    def wait(self, timeout: float) -> ServerConnection:
        """The connection, once it is open."""
        connection = self._connection if self._entered.wait(timeout) else None
        assert connection is not None, "the server's end did not open"
        return connection

    def release(self) -> None:
        self._done.set()
        self._connection = None
