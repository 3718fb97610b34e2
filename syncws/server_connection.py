"""A connection of a server, from the accepted socket to the open connection."""

from __future__ import annotations

import http
import ssl as ssl_module
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from .connection import Connection
from .deadline import Deadline
from .exceptions import InvalidHandshake, InvalidOrigin
from .handshake import Origins, ServerHandshake, error_response, origin_advice, reject
from .http11 import Request, RequestParser, Response
from .options import Options
from .sending import LoggerLike
from .transport import PORTABLE_IO, Transport

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ServerConnection", "Settings"]

# How long a client that was refused may take to read the answer.
REFUSAL_LINGER = 2.0  # seconds

ProcessRequest = Callable[[Any, Request], Optional[Response]]
ProcessResponse = Callable[[Any, Request, Response], Optional[Response]]
SelectSubprotocol = Callable[[Any, Sequence[str]], Optional[str]]


class Settings(NamedTuple):
    """What a server does before a connection is open."""

    ssl: Optional[ssl_module.SSLContext]
    origins: Origins
    extensions: tuple[Any, ...]
    subprotocols: Optional[Sequence[str]]
    select_subprotocol: Optional[SelectSubprotocol]
    process_request: Optional[ProcessRequest]
    process_response: Optional[ProcessResponse]
    server_header: Optional[str]
    health: Optional[str]
    open_timeout: Optional[float]
    max_connections: Optional[int]


class ServerConnection(Connection):
    """
    A connection of a server; handlers get it as their argument.

    Attributes:
        server: the server that accepted it.
        username: set by :func:`basic_auth`, ``None`` without.
    """

    # What sockets can do is asked of the platform; a subclass may insist on less.
    portable_io = PORTABLE_IO

    def __init__(
        self, transport: Transport, options: Options, logger: LoggerLike, server: Server
    ) -> None:
        super().__init__(transport, options, logger)
        self.server = server
        self.username: Optional[str] = None

    def respond(self, status: int, text: str) -> Response:
        """
        Make a plain-text HTTP response, for ``process_request`` and ``process_response`` to return.

        Args:
            status: HTTP status code.
            text: body; it will be UTF-8.
        """
        return reject(status, text)

    def handshake(self, settings: Settings) -> bool:
        """
        Do the TLS and the opening handshake within ``open_timeout``; tell whether it succeeded.

        Called by the server, in the thread of the connection.

        Raises:
            OSError: the network or TLS failed, or it took too long.
        """
        deadline = Deadline(settings.open_timeout)
        transport = self._transport
        transport.handshake(deadline)
        parser = RequestParser()
        try:
            self.request = self._read_request(parser, deadline)
        except InvalidHandshake as exc:
            self.logger.info("opening handshake failed: %s", exc)
            if parser.started:
                response = _closing_response() if self.server.is_closing else error_response(exc)
                self._refuse(response, settings, deadline)
            return False
        handshake = self._make_handshake(settings)
        self.response = response = self._respond(self.request, handshake, settings)
        if response.status_code != http.HTTPStatus.SWITCHING_PROTOCOLS:
            self._log_refusal(handshake)
            self._refuse(response, settings, deadline)
            return False
        transport.send_before(deadline, response.serialize())
        self.subprotocol = handshake.subprotocol
        self._open(handshake.extensions, parser.leftover)
        return True

    def _read_request(self, parser: RequestParser, deadline: Deadline) -> Request:
        request = None
        while request is None:
            data = self._transport.receive_before(deadline, self.options.read_limit)
            if not data:
                parser.feed_eof()
            request = parser.feed(data)
        return request

    def _make_handshake(self, settings: Settings) -> ServerHandshake:
        select: Optional[Callable[[Sequence[str]], Optional[str]]] = None
        if settings.select_subprotocol is not None:
            user_select = settings.select_subprotocol

            def select(offered: Sequence[str]) -> Optional[str]:
                return user_select(self, offered)

        return ServerHandshake(
            origins=settings.origins,
            extensions=settings.extensions,
            subprotocols=settings.subprotocols,
            select_subprotocol=select,
        )

    def _respond(
        self, request: Request, handshake: ServerHandshake, settings: Settings
    ) -> Response:
        """Choose the response: health check, hooks, or the opening handshake."""
        try:
            response = self._health(request, settings.health)
            if response is None and settings.process_request is not None:
                response = settings.process_request(self, request)
            if response is None:
                response = handshake.respond(request)
            if self.server.is_closing and response.status_code == 101:
                response = _closing_response()
            set_default(response, "Server", settings.server_header)
            if settings.process_response is not None:
                response = settings.process_response(self, request, response) or response
            response.serialize()  # what a hook did wrong shows here, and becomes a 500
            return response
        except Exception:
            self.logger.error("opening handshake failed", exc_info=True)
            return reject(
                500,
                "Failed to open a WebSocket connection.\nSee server log for more information.\n",
            )

    def _health(self, request: Request, path: Optional[str]) -> Optional[Response]:
        """Answer a load balancer."""
        if path is None or request.path.partition("?")[0] != path:
            return None
        if request.method not in ("GET", "HEAD"):
            response = reject(405, "A health check is a GET or a HEAD request.\n")
            response.headers["Allow"] = "GET, HEAD"
            return response
        if self.server.is_closing:
            return _closing_response()
        return reject(200, "OK\n")

    def _log_refusal(self, handshake: ServerHandshake) -> None:
        exc = handshake.exception
        if isinstance(exc, InvalidOrigin):
            self.logger.warning("opening handshake refused: %s; %s", exc, origin_advice(exc.value))
        elif exc is not None:
            self.logger.info("opening handshake refused: %s", exc)

    def _refuse(self, response: Response, settings: Settings, deadline: Deadline) -> None:
        """Send a response other than 101, and give the client time to read it."""
        set_default(response, "Server", settings.server_header)
        set_default(response, "Connection", "close")
        if self.request is not None and self.request.method == "HEAD":
            response = Response(response.status_code, response.reason_phrase, response.headers)
        self._transport.send_before(deadline, response.serialize())
        self._transport.shutdown_write()
        linger = Deadline(REFUSAL_LINGER)
        while self._transport.discard(65536) != 0:
            if not self._transport.wait_readable(linger.remaining()) or linger.expired():
                return

    def cut_handshake(self) -> None:
        """Have a handshake that waits for the client end at once; takes no lock."""
        if self.request is None:
            self._transport.shutdown_read()

    def discard(self) -> None:
        """Give the descriptor back after a handshake that did not succeed."""
        self._transport.close()


def _closing_response() -> Response:
    return reject(503, "The server is shutting down.\n")


def set_default(response: Response, name: str, value: Optional[str]) -> None:
    if value is not None and name not in response.headers:
        response.headers[name] = value
