"""A page with a chat and live statistics, and its WebSocket, on one port."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ..serving import serve
from .page import respond
from .room import Room

if TYPE_CHECKING:
    from ..server import Server

__all__ = ["PORTS", "open_server"]

# So many ports are tried, the one asked for included.
PORTS = 20

# Of a message: the page measures with 1 MiB.
MAX_SIZE = 2**20

# The page shows how long pongs take.
PING_INTERVAL = 2.0  # seconds


def open_server(host: str, port: int) -> Server:
    """
    Listen for visitors of a chat room of their own; serving is up to the caller.

    Args:
        host: the name or address to listen on.
        port: the first port to try; the next ones follow if it is taken. 0 takes any.

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
                max_size=MAX_SIZE,
                ping_interval=PING_INTERVAL,
            )
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or candidate == last:
                raise
            print(f"Port {candidate} is taken, trying the next one.", flush=True)
    raise ValueError(f"port must be 0 to 65535, not {port}")
