"""A page with a chat and live statistics, and its WebSocket, on one port."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

from ..serving import serve
from .page import respond
from .room import Room

if TYPE_CHECKING:
    from ..server import Server

__all__ = ["PORTS", "open_server"]

# So many ports are tried, the one asked for included.
PORTS = 20

DEFAULTS: dict[str, Any] = {
    "health": "/healthz",  # Proxies ask there whether the server is well.
    "max_size": 2**20,  # The page measures with 1 MiB.
    "ping_interval": 2.0,  # It shows how long pongs take.
}


def open_server(host: str, port: int, **options: Any) -> Server:
    """
    Listen for visitors of a chat room of their own; serving is up to the caller.

    Args:
        host: the name or address to listen on.
        port: the first port to try; the next ones follow if it is taken. 0 takes any.
        options: of :func:`~syncws.serve`, such as ``ssl`` and ``trusted_proxies``.

    Raises:
        OSError: the host is not one of this machine, or all ports tried are taken.
    """
    last = port if port == 0 else min(port + PORTS - 1, 65535)
    for candidate in range(port, last + 1):
        try:
            return serve(
                Room().visit,
                host,
                candidate,
                process_request=respond,
                **{**DEFAULTS, **options},
            )
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or candidate == last:
                raise
            print(f"Port {candidate} is taken, trying the next one.", flush=True)
    raise ValueError(f"port must be 0 to 65535, not {port}")
