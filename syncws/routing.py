"""
Routing by patterns: the URL maps of Werkzeug, which Flask has, too.

This module needs ``werkzeug``, an optional dependency::

    pip install 'syncws[routing]'

For a few fixed paths it is not needed: :func:`serve` takes a dictionary of them.
"""

from __future__ import annotations

import os
import ssl as ssl_module
from typing import TYPE_CHECKING, Any, Callable, Literal, Optional, Union

from .headers import excerpt
from .http11 import Request, Response
from .paths import after, path_of
from .server import Server
from .server_connection import ServerConnection
from .serving import serve, unix_serve

if TYPE_CHECKING:
    from werkzeug.exceptions import HTTPException
    from werkzeug.routing import Map

__all__ = ["Router", "route", "unix_route"]


def route(
    url_map: Map,
    *args: Any,
    server_name: Optional[str] = None,
    ssl: Union[ssl_module.SSLContext, Literal[True], None] = None,
    create_router: Optional[Callable[..., Router]] = None,
    **kwargs: Any,
) -> Server:
    """
    Make a server whose handlers are chosen by a :class:`werkzeug.routing.Map`.

    The endpoint of a rule is the handler; it is called with the connection, and with the
    variables of the rule as keyword arguments::

        from syncws.routing import route
        from werkzeug.routing import Map, Rule

        def channel(connection, name):
            for message in connection:
                connection.send(f"{name}: {message}")

        url_map = Map([Rule("/channel/<name>", endpoint=channel)])

        with route(url_map, "localhost", 8765) as server:
            server.serve_forever()

    What matches no rule is answered with 404, and a redirect of the map with 308, in place of
    the opening handshake. Rules need no ``websocket=True``. A ``process_request`` is called
    first, and its answer counts.

    Args:
        url_map: rules with handlers as their endpoints. It belongs to the server from here on.
        args: host and port, as for :func:`serve`.
        server_name: host of the server as clients see it, for redirects and for maps with
            ``host_matching``; ``None``: what the request says, or a trusted proxy.
        ssl: TLS configuration; ``True`` if a proxy has the TLS: redirects go to ``wss`` then.
        create_router: subclass of :class:`Router`, or what else makes one.
        kwargs: as for :func:`serve`.

    Raises:
        ImportError: Werkzeug is not installed.
        OSError, TypeError, ValueError: as :func:`serve` does.
    """
    return _route(serve, url_map, args, kwargs, server_name, ssl, create_router)


def unix_route(
    url_map: Map, path: Union[str, bytes, os.PathLike[str], None] = None, **kwargs: Any
) -> Server:
    """
    Make a server on a Unix socket whose handlers are chosen by a URL map.

    Args:
        url_map: as for :func:`route`.
        path: of the socket, as for :func:`unix_serve`.
        kwargs: as for :func:`route`.

    Raises:
        ImportError: Werkzeug is not installed.
        OSError, TypeError, ValueError: as :func:`unix_serve` does.
    """
    own = {name: kwargs.pop(name, None) for name in ("server_name", "ssl", "create_router")}
    return _route(unix_serve, url_map, (path,), kwargs, **own)


def _route(
    make_server: Callable[..., Server],
    url_map: Map,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    server_name: Optional[str],
    ssl: Union[ssl_module.SSLContext, Literal[True], None],
    create_router: Optional[Callable[..., Router]],
) -> Server:
    try:
        import werkzeug.routing  # noqa: F401 # to say at once that it is missing
    except ImportError as exc:
        raise ImportError("route() needs werkzeug: pip install 'syncws[routing]'") from exc
    if ssl is not None and ssl is not True:
        kwargs["ssl"] = ssl
    router = (create_router or Router)(url_map, server_name, "ws" if ssl is None else "wss")
    kwargs["process_request"] = after(kwargs.get("process_request"), router.route_request)
    return make_server(router.handler, *args, **kwargs)


class Router:
    """
    Chooses handlers by a URL map; to be subclassed where :func:`route` is not enough.

    Its methods are called in the threads of the connections.

    Args:
        url_map: rules with handlers as their endpoints.
        server_name: host of the server as clients see it, or ``None``.
        url_scheme: of redirects: ``"ws"`` or ``"wss"``.
    """

    def __init__(
        self, url_map: Map, server_name: Optional[str] = None, url_scheme: str = "ws"
    ) -> None:
        self.url_map = url_map
        self.server_name = server_name
        self.url_scheme = url_scheme
        for rule in url_map.iter_rules():
            rule.websocket = True
            if not callable(rule.endpoint) and not rule.redirect_to and not rule.build_only:
                raise TypeError(f"the endpoint of {rule.rule} must be a function")

    def get_server_name(self, connection: ServerConnection, request: Request) -> str:
        """Host, and perhaps port, that the client connected to."""
        if self.server_name is not None:
            return self.server_name
        return connection.host or ""

    def redirect(self, connection: ServerConnection, url: str) -> Response:
        """Make the response for a redirect of the map."""
        response = connection.respond(308, f"It is at {excerpt(url)}\n")
        response.headers["Location"] = url
        return response

    def not_found(self, connection: ServerConnection) -> Response:
        """Make the response for what matches no rule."""
        return connection.respond(404, "There is no WebSocket at this path.\n")

    def route_request(self, connection: ServerConnection, request: Request) -> Optional[Response]:
        """Choose the handler for a request, or answer it; a ``process_request`` hook."""
        from werkzeug.exceptions import HTTPException, NotFound
        from werkzeug.routing import RequestRedirect

        if connection.host is None:
            return None  # the opening handshake refuses a request without Host
        scheme = "wss" if connection.scheme == "wss" else self.url_scheme
        try:
            adapter = self.url_map.bind(
                self.get_server_name(connection, request), url_scheme=scheme
            )
            query = request.path.partition("?")[2]
            endpoint, arguments = adapter.match(path_info=path_of(request), query_args=query)
        except RequestRedirect as redirect:
            return self.redirect(connection, redirect.new_url)
        except NotFound:
            return self.not_found(connection)
        except HTTPException as exc:
            return _refuse(connection, exc)
        connection.handler, connection.handler_kwargs = endpoint, dict(arguments)
        return None

    def handler(self, connection: ServerConnection) -> None:
        """Run the handler that was chosen, with the variables of its rule."""
        connection.handler(connection, **connection.handler_kwargs)


def _refuse(connection: ServerConnection, exc: HTTPException) -> Response:
    """What else a map may say: a malformed host, or a rule that is not for GET."""
    response = connection.respond(exc.code or 400, f"{exc.name}.\n")
    methods = getattr(exc, "valid_methods", None)
    if methods:
        response.headers["Allow"] = ", ".join(sorted(methods))
    return response
