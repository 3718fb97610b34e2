"""What the page shows about the server and its connections."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..server import Server, ServerConnection

__all__ = ["snapshot"]

# A page has room for so many rows, and each visitor asks once a second.
ROWS = 50

COUNTS = ("messages_received", "messages_sent", "bytes_received", "bytes_sent")


def snapshot(
    server: Server, names: Mapping[ServerConnection, str], asking: ServerConnection
) -> dict[str, Any]:
    """
    Describe the server, and the visitors who have been there longest.

    Args:
        names: of all visitors; ``""`` for one that gave none.
        asking: the visitor who will get it, whose row comes first.

    Returns:
        plain data: ``time`` in seconds on a clock of the server's, totals, and ``rows``.
    """
    stats = server.stats()
    oldest = sorted(names, key=lambda connection: (connection is not asking, connection.opened_at))
    return {
        "time": time.monotonic(),
        "open": stats["open"],
        "dropped": stats["messages_dropped"],
        **{name: stats[name] for name in COUNTS},
        "rows": [row(connection, names[connection]) for connection in oldest[:ROWS]],
    }


def row(connection: ServerConnection, name: str) -> dict[str, Any]:
    """Describe one visitor; times in seconds."""
    stats = connection.stats()
    return {
        "name": name,
        "age": time.monotonic() - connection.opened_at,
        "latency": stats["latency"],
        **{name: stats[name] for name in COUNTS},
    }
