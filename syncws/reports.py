"""What a server tells about itself: statistics, log lines, stacks, how a shutdown went."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Mapping
from types import FrameType
from typing import Any, NamedTuple, Optional

from .admission import Admission, Slot
from .headers import excerpt
from .server_connection import ServerConnection

__all__ = [
    "RunningHandler",
    "ShutdownReport",
    "connection_totals",
    "describe_end",
    "dump",
    "format_address",
    "keep_from_falling",
    "running_handlers",
    "server_stats",
]

PACKAGE = os.path.dirname(os.path.abspath(__file__))

# Totals that connections keep, and what waits in them.
TOTALS = ("messages_received", "messages_sent", "messages_dropped", "bytes_received", "bytes_sent")
WAITING = ("inbox_messages", "inbox_bytes", "outbox_bytes")


class RunningHandler(NamedTuple):
    """A handler that had not ended when a shutdown did: its thread, connection and stack."""

    thread: threading.Thread
    connection: Optional[ServerConnection]
    stack: str


class ShutdownReport(NamedTuple):
    """
    How a shutdown went.

    Attributes:
        closed: connections that ended by themselves in time.
        aborted: connections that had to be cut off.
        running: handlers that were still running at the end.
    """

    closed: int
    aborted: int
    running: list[RunningHandler]


# Statistics


def connection_totals(connection: ServerConnection) -> dict[Any, int]:
    """What a connection that has ended adds to the totals of its server."""
    connection.is_booked = True
    stats = connection.stats()
    totals: dict[Any, int] = {("closed", connection.end_code): 1}
    for name in TOTALS:
        amount = stats[name]
        if amount:
            totals[name] = int(amount)
    return totals


def server_stats(
    totals: Mapping[Any, int], admission: Admission, connections: Iterable[ServerConnection]
) -> dict[str, Any]:
    """Make the statistics of a server from its totals and from what its connections have."""
    live = [conn for conn in connections if not conn.is_booked]
    stats: dict[str, Any] = {
        "open": sum(conn.is_open for conn in live),
        "opening": admission.opening,
        "total": len(admission.slots),
    }
    for name in ("accepted", "opened"):
        stats[name] = totals.get(name, 0)
    for name in ("refused", "closed"):
        stats[name] = _by_key(totals, name)
    each = [conn.stats() for conn in live]
    for name in (*TOTALS, *WAITING):
        stats[name] = totals.get(name, 0) + sum(int(one[name]) for one in each)
    for name in ("accept_errors", "thread_errors"):
        stats[name] = totals.get(name, 0)
    return stats


def keep_from_falling(stats: dict[str, Any], highest: dict[str, int]) -> None:
    """
    Have totals never fall: of a connection that has just ended, some may be missing.

    Args:
        highest: what they were before; brought up to date.
    """
    for name in TOTALS:
        highest[name] = stats[name] = max(stats[name], highest.get(name, 0))


def _by_key(totals: Mapping[Any, int], name: str) -> dict[Any, int]:
    found = {
        key[1]: amount
        for key, amount in totals.items()
        if isinstance(key, tuple) and key[0] == name
    }
    return dict(sorted(found.items()))


# Log lines


def format_address(address: Any) -> str:
    """Host and port as people write them; the path of a Unix socket."""
    if not isinstance(address, tuple):
        return str(address) if address else "unix socket"
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def describe_end(connection: ServerConnection) -> str:
    """
    Describe a connection that has ended: one line for the log.

    Without the query of the path, where some put their secrets; what the peer sent is escaped.
    """
    stats = connection.stats()
    return (
        f'{format_address(connection.remote_address)} "{_path(connection)}" '
        f"{time.monotonic() - connection.opened_at:.3f} s, "
        f"received {stats['messages_received']} messages, {stats['bytes_received']} bytes, "
        f"sent {stats['messages_sent']} messages, {stats['bytes_sent']} bytes, "
        f"{connection.end_code}: {_escape(str(connection.end))}"
    )


def _path(connection: ServerConnection) -> str:
    request = connection.request
    return "" if request is None else excerpt(request.path.partition("?")[0])


def _escape(text: str) -> str:
    return text.encode("unicode_escape").decode("ascii")


# Stacks


def _frames() -> dict[int, FrameType]:
    """The innermost frame of each thread but this one, by its identity."""
    frames = sys._current_frames()
    # This function's own would refer to itself, and so keep all the others, with their
    # variables, until the garbage collector comes by.
    del frames[threading.get_ident()]
    return frames


def running_handlers(admission: Admission) -> list[RunningHandler]:
    """The handlers that run, but that of the calling thread."""
    running = []
    frames = _frames()
    for thread, slot in list(admission.slots.items()):
        frame = frames.get(thread.ident or 0)
        if frame is not None:
            running.append(RunningHandler(thread, slot.connection, _stack(frame)))
    return running


def _stack(frame: FrameType) -> str:
    return "".join(traceback.format_stack(frame))


def dump(title: str, admission: Admission) -> str:
    """Describe all connections, their threads, and the other threads that are in this package."""
    frames = _frames()
    slots = dict(admission.slots)
    parts = [f"{title}, {len(slots)} connections, {admission.opening} opening\n"]
    for thread, slot in slots.items():
        parts.append(f"\n{_describe(slot)}\n")
        parts.append(_describe_thread(thread.name, frames.pop(thread.ident or 0, None)))
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    for ident, frame in frames.items():
        stack = _stack(frame)
        if PACKAGE in stack:
            parts.append(f"\n{_describe_thread(names.get(ident, '?'), frame)}")
    return "".join(parts)


def _describe(slot: Slot) -> str:
    connection = slot.connection
    age = f"{time.monotonic() - slot.since:.1f} s"
    if connection is None:
        return f"connection from {format_address(slot.address)}, accepted {age} ago"
    stats = ", ".join(f"{name} {value}" for name, value in connection.stats().items())
    return (
        f"connection {connection.id} from {format_address(connection.remote_address)} "
        f'"{_path(connection)}", {connection.state.name}, accepted {age} ago\n  {stats}'
    )


def _describe_thread(name: str, frame: Optional[FrameType]) -> str:
    if frame is None:
        return f"  thread {name}: this one, or not running\n"
    return f"  thread {name}:\n{_stack(frame)}"
