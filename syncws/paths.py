"""Handlers by the path of the request: routing without patterns, from a dictionary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, Optional
from urllib.parse import unquote

from .handshake import reject
from .headers import excerpt
from .http11 import Request, Response

__all__ = ["Handler", "Paths", "ProcessRequest", "after", "path_of"]

Handler = Callable[[Any], None]
ProcessRequest = Callable[[Any, Request], Optional[Response]]


class Paths:
    """
    A server's handlers by exact path.

    Thread safety: any thread; the dictionary is copied.

    Args:
        handlers: by paths such as ``"/chat"``, without a query, percent-encoded or not.

    Raises:
        TypeError: a path is not a string, or a handler not callable.
        ValueError: a path does not start with a slash, or has a query; or there is none.
    """

    def __init__(self, handlers: Mapping[str, Handler]) -> None:
        if not handlers:
            raise ValueError("a server needs at least one path with a handler")
        for path, handler in handlers.items():
            _check_entry(path, handler)
        self._handlers = {unquote(path): handler for path, handler in handlers.items()}

    def __call__(self, connection: Any) -> None:
        """Run the handler that was chosen."""
        connection.handler(connection)

    def choose(self, connection: Any, request: Request) -> Optional[Response]:
        """Choose the handler for a request, or answer with 404; a ``process_request`` hook."""
        handler = self._handlers.get(path_of(request))
        if handler is None:
            path = excerpt(request.path.partition("?")[0])
            known = ", ".join(sorted(self._handlers))
            connection.logger.info("no handler for the path %s; there are %s", path, known)
            return reject(404, f"There is no WebSocket at {path} on this server.\n")
        connection.handler = handler
        return None


def _check_entry(path: Any, handler: Any) -> None:
    if not isinstance(path, str) or not callable(handler):
        raise TypeError(f"expected a path and a function, not {path!r}: {handler!r}")
    if not path.startswith("/"):
        raise ValueError(f"a path must start with a slash: {path!r}")
    if "?" in path or "#" in path:
        raise ValueError(f"a path has neither a query nor a fragment: {path!r}")


def path_of(request: Request) -> str:
    """The path of a request without its query, and decoded from percent-encoding."""
    return unquote(request.path.partition("?")[0])


def after(first: Optional[ProcessRequest], second: ProcessRequest) -> ProcessRequest:
    """Return a hook that calls ``second`` if ``first`` has no answer."""
    if first is None:
        return second
    hook = first

    def process_request(connection: Any, request: Request) -> Optional[Response]:
        response = hook(connection, request)
        return second(connection, request) if response is None else response

    return process_request
