"""A connection of a server, from the accepted socket to the open connection."""

from __future__ import annotations

import contextlib
import http
import ssl as ssl_module
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from .connection import Connection
from .deadline import Deadline
from .exceptions import InvalidHandshake, InvalidOrigin
from .forwarded import Client, TrustedProxies, find_client
from .handshake import Origins, ServerHandshake, error_response, origin_advice, reject
from .http11 import Request, RequestParser, Response
from .options import Options
from .proxy_protocol import ProxyHeaderParser
from .sending import LoggerLike, without_traceback
from .service import service
from .transport import PORTABLE_IO, Transport

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ServerConnection", "Settings", "set_default", "unavailable"]

# How long a client that was refused may take to read the answer.
REFUSAL_LINGER = 2.0  # seconds

SWITCHING_PROTOCOLS = int(http.HTTPStatus.SWITCHING_PROTOCOLS)

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
    trusted: TrustedProxies = TrustedProxies()
    proxy_protocol: bool = False


# Whom a limit kept out is told to wait.
RETRY_AFTER = 5  # seconds

# What clients are told that are not let in, by the name that the reason has in the statistics.
REFUSALS = {
    "max_connections": "Too many connections.\n",
    "max_connections_per_ip": "Too many connections from your address.\n",
    "max_handshakes": "Too many opening handshakes.\n",
    "closing": "The server is shutting down.\n",
    "thread": "The server is out of resources.\n",
}


class ServerConnection(Connection):
    """
    A connection of a server; handlers get it as their argument.

    Attributes:
        server: the server that accepted it.
        username: set by :func:`basic_auth`, ``None`` without.
        handler: the function that was chosen by the path, where that is done.
        handler_kwargs: its further arguments, where a URL map has variables.
    """

    handler: Callable[..., None]
    handler_kwargs: dict[str, Any]

    # What sockets can do is asked of the platform; a subclass may insist on less.
    portable_io = PORTABLE_IO

    def __init__(
        self, transport: Transport, options: Options, logger: LoggerLike, server: Server
    ) -> None:
        super().__init__(transport, options, logger)
        self.server = server
        self.username: Optional[str] = None
        # Whether its counts are among the totals of the server.
        self.is_booked = False
        # Whether it was accepted while the server was draining.
        self.late = False
        # Why _respond() kept the client out, in a word for the statistics.
        self._refused_for: Optional[str] = None
        # What a trusted proxy said of the client.
        self._client: Optional[Client] = None
        # Why the opening handshake was cut, if it was; set once, by a single atomic store.
        self.cut_reason: Optional[str] = None

    @property
    def remote_address(self) -> Any:
        """
        Address of the client, as :meth:`socket.socket.getpeername` gives it.

        Behind one of the server's ``trusted_proxies``, what that says; the port is 0 if it
        doesn't say, and the host ``"unknown"``, or a name that starts with ``_``, if it hides it.
        """
        return self.peer_address if self._client is None else self._client.address

    @property
    def peer_address(self) -> Any:
        """Address of the other end of the socket: of the client, or of a proxy."""
        return self._transport.remote_address

    @property
    def host(self) -> Optional[str]:
        """Host, and perhaps port, that the client connected to, from Host or a trusted proxy."""
        if self._client is not None and self._client.host is not None:
            return self._client.host
        hosts = [] if self.request is None else self.request.headers.get_all("Host")
        return hosts[0] if len(hosts) == 1 else None

    @property
    def scheme(self) -> str:
        """``"wss"`` if the client uses TLS, as far as is known, else ``"ws"``."""
        if self._client is not None and self._client.scheme is not None:
            return self._client.scheme
        return "wss" if self._transport.secure else "ws"

    def respond(self, status: int, text: str) -> Response:
        """
        Make a plain-text HTTP response, for ``process_request`` and ``process_response`` to return.

        Args:
            status: HTTP status code.
            text: body; it will be UTF-8.
        """
        return reject(status, text)

    def handshake(self, settings: Settings, requested: Callable[[], None]) -> Optional[str]:
        """
        Do the TLS and the opening handshake within ``open_timeout``.

        Called by the server, in the thread of the connection.

        Args:
            settings: of the server.
            requested: called when the client has done its part.

        Returns:
            ``None`` if the connection is open now, or why it is not, in a word for the statistics.

        Raises:
            OSError: the network or TLS failed, or it took too long.
        """
        deadline = Deadline(settings.open_timeout)
        with_header = settings.proxy_protocol and settings.trusted.trusts(self.peer_address)
        if with_header and not self._read_proxy_header(deadline):
            return "proxy"
        self._transport.handshake(deadline)
        parser = RequestParser()
        error = self._receive_request(parser, deadline)
        # Whoever cut it did not see the request, or is seen here: the input may have been ended.
        cut = self.cut_reason
        if error is not None or cut is not None:
            self.logger.info("opening handshake failed: %s", cut or error)
            if parser.started:
                response = error_response(error) if error and not cut else unavailable(str(cut))
                self._refuse(response, settings, deadline)
            return cut or "handshake"
        assert self.request is not None
        requested()
        handshake = self._make_handshake(settings)
        self.response, data = self._respond(self.request, handshake, settings)
        response = self.response
        if response.status_code != SWITCHING_PROTOCOLS:
            self._log_refusal(handshake)
            self._refuse(response, settings, deadline)
            return self._why_refused(handshake)
        self.subprotocol = handshake.subprotocol
        self.request.headers.compact()
        response.headers.compact()
        self._open(handshake.extensions, parser.leftover, data)
        return None

    def _why_refused(self, handshake: ServerHandshake) -> str:
        """Name what kept the client out, for the statistics; ``"http"`` for other requests."""
        if handshake.exception is not None:
            return "origin" if isinstance(handshake.exception, InvalidOrigin) else "handshake"
        if self._refused_for is not None:
            return self._refused_for
        return "closing" if self._is_unwelcome else "http"

    @property
    def _is_unwelcome(self) -> bool:
        """Whether the server takes no more connections like this one."""
        return self.server.is_closing or (self.late and self.server.is_draining)

    def _read_proxy_header(self, deadline: Deadline) -> bool:
        """Read the header of the PROXY protocol; false if it is malformed."""
        parser = ProxyHeaderParser()
        try:
            self._feed_from_socket(parser, deadline)
        except ValueError as exc:
            self._blame_proxy(str(exc))
            return False
        if parser.source is not None:
            self._client = Client(parser.source)
        return True

    def _feed_from_socket(self, parser: ProxyHeaderParser, deadline: Deadline) -> None:
        while not parser.feed(self._receive_before_tls(deadline, parser.wanted)):
            pass

    def _receive_before_tls(self, deadline: Deadline, size: int) -> bytes:
        """Read from the socket itself, whatever the transport makes of what follows."""
        received: list[bytes] = []
        while not Transport.read_nowait(self._transport, received, size):
            if not Transport.wait_readable(self._transport, deadline.remaining()):
                raise TimeoutError("timed out while reading the PROXY header")
        if deadline.expired():  # a peer may send all the time without ever finishing
            raise TimeoutError("timed out while reading the PROXY header")
        if not received[0]:
            raise ConnectionAbortedError("connection closed before the end of the PROXY header")
        return received[0]

    def _blame_proxy(self, error: str) -> None:
        """Say what a trusted proxy did wrong: it keeps out all its clients, perhaps."""
        proxy = "a Unix socket"
        if isinstance(self.peer_address, tuple):
            proxy = self.peer_address[0]
        self.server.report_refusal("proxy", f"connections refused: {error}; from {proxy}")

    def _identify(self, request: Request, trusted: TrustedProxies) -> Optional[Response]:
        """Find out from the request for whom a proxy made it."""
        # The other end of a proxy's Unix socket is none of the server's own Unix socket.
        if not trusted or (self._client is not None and not isinstance(self.remote_address, tuple)):
            return None
        try:
            self._client = find_client(request.headers, self.remote_address, trusted)
        except InvalidHandshake as exc:
            self._blame_proxy(str(exc))
            self._refused_for = "proxy"
            return error_response(exc)
        return None

    def _receive_request(
        self, parser: RequestParser, deadline: Deadline
    ) -> Optional[InvalidHandshake]:
        """Read the request; returns what is wrong with it."""
        try:
            self.request = self._read_request(parser, deadline)
        except InvalidHandshake as exc:
            return without_traceback(exc)
        return None

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
    ) -> tuple[Response, bytes]:
        """Choose the response: health check, hooks, or the opening handshake. Also as bytes."""
        try:
            response = self._identify(request, settings.trusted)
            if response is None and settings.health is not None:
                response = self._health(request, settings.health)
            if response is None and settings.process_request is not None:
                response = settings.process_request(self, request)
                if response is not None and not isinstance(response, Response):
                    raise TypeError(
                        f"process_request must return a Response, such as "
                        f"connection.respond(404, 'text'), or None, not {response!r}"
                    )
            if response is None:
                asked = request if self._client is None else self._as_asked(request)
                response = handshake.respond(asked)
            if response.status_code == SWITCHING_PROTOCOLS:
                response = self._check_room(settings) or response
            if handshake.accepted is response and settings.server_header is not None:
                response.headers["Server"] = settings.server_header  # it has none yet
            else:
                set_default(response, "Server", settings.server_header)
            if settings.process_response is not None:
                response = settings.process_response(self, request, response) or response
            # What a hook did wrong shows in the last step, and becomes a 500.
            return response, response.serialize()
        except Exception:
            self.logger.error("opening handshake failed", exc_info=True)
            response = reject(
                500,
                "Failed to open a WebSocket connection.\nSee server log for more information.\n",
            )
            return response, response.serialize()

    def _as_asked(self, request: Request) -> Request:
        """The request with the host that the client asked for, whose pages may connect."""
        host = None if self._client is None else self._client.host
        if host is None or "Host" not in request.headers:
            return request
        headers = request.headers.copy()
        del headers["Host"]
        headers["Host"] = host
        return Request(request.path, headers, request.method, request.protocol)

    def _check_room(self, settings: Settings) -> Optional[Response]:
        """What to answer instead of 101."""
        if self._is_unwelcome:
            return unavailable("closing")
        through_proxy = settings.trusted.trusts(self.peer_address)
        if through_proxy and not self.server.admits_client(self.remote_address):
            self._refused_for = "max_connections_per_ip"
            return unavailable("max_connections_per_ip")
        try:
            service.ensure()
        except (RuntimeError, OSError) as exc:
            self.server.report_refusal("thread", f"connections refused: {exc}")
            self._refused_for = "thread"
            return unavailable("thread")
        return None

    def _health(self, request: Request, path: str) -> Optional[Response]:
        """Answer a load balancer."""
        if request.path.partition("?")[0] != path:
            return None
        if request.method not in ("GET", "HEAD"):
            response = reject(405, "A health check is a GET or a HEAD request.\n")
            response.headers["Allow"] = "GET, HEAD"
            return response
        if self.server.is_closing or self.server.is_draining:
            return unavailable("closing")
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
        # A client that has read the answer may be in a hurry to go.
        with contextlib.suppress(OSError):
            self._linger()

    def _linger(self) -> None:
        """Read until the client has gone: closing with unread input would reset the connection."""
        self._transport.shutdown_write()
        linger = Deadline(REFUSAL_LINGER)
        while self._transport.discard(65536) != 0:
            if not self._transport.wait_readable(linger.remaining()) or linger.expired():
                return

    def cut_handshake(self, reason: str) -> None:
        """Have a handshake that waits for the client end at once; takes no lock."""
        if self.cut_reason is None:
            self.cut_reason = reason
        if self.request is None:
            self._transport.shutdown_read()

    def discard(self) -> None:
        """Give the descriptor back after a handshake that did not succeed."""
        self._transport.close()


def unavailable(reason: str) -> Response:
    """The answer for a client that is not let in now, by a name of ``REFUSALS``."""
    response = reject(http.HTTPStatus.SERVICE_UNAVAILABLE, REFUSALS[reason])
    response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def set_default(response: Response, name: str, value: Optional[str]) -> None:
    if value is not None and name not in response.headers:
        response.headers[name] = value
