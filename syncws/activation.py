"""Listening sockets that a process inherits from its supervisor, as from systemd."""

from __future__ import annotations

import os
import socket
import threading
from typing import Optional

__all__ = ["inherited_sockets"]

# The protocol of sd_listen_fds(3): so many descriptors, from this one on, for the process with
# this id, with these names.
FIRST_DESCRIPTOR = 3
VARIABLES = ("LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES")

# What a socket is called whose supervisor gives no names.
UNKNOWN = "unknown"

_lock = threading.Lock()
# Names and descriptors that were inherited and not asked for yet. Guarded by _lock.
_waiting: list[tuple[str, int]] = []


def inherited_sockets(name: Optional[str] = None) -> list[socket.socket]:
    """
    Return the listening sockets that this process was started with, for :func:`serve`.

    systemd starts a service so that has a socket unit, and so does any supervisor that sets
    ``LISTEN_FDS``, ``LISTEN_PID`` and perhaps ``LISTEN_FDNAMES``::

        sockets = inherited_sockets()
        server = serve(handler, sock=sockets[0]) if sockets else serve(handler, port=8765)

    Since the supervisor keeps such a socket open, clients that come while the service
    restarts wait in its backlog, and none is refused.

    The first call removes the variables from the environment, and keeps the descriptors from
    child processes. Each socket is returned once, and belongs to the caller; with ``name``, the
    others are left for later calls. May be called from any thread.

    Args:
        name: return only the sockets of this name: that of the socket unit, such as
            ``"web.socket"``, or its ``FileDescriptorName=``; ``None`` for all.

    Returns:
        Sockets in the supervisor's order; none if the variables are missing or meant for
        another process.

    Raises:
        ValueError: the variables are malformed, or a descriptor is no stream socket that
            listens, as with ``Accept=yes`` in the socket unit.
    """
    with _lock:
        _waiting.extend(_take_from_environment())
        wanted = [entry for entry in _waiting if name is None or entry[0] == name]
        sockets = _listening([descriptor for _, descriptor in wanted])
        for entry in wanted:
            _waiting.remove(entry)
        return sockets


def _take_from_environment() -> list[tuple[str, int]]:
    """Return names and descriptors. The variables go even if they say nothing, or nonsense."""
    values = {variable: os.environ.pop(variable, None) for variable in VARIABLES}
    pid, count, names = values["LISTEN_PID"], values["LISTEN_FDS"], values["LISTEN_FDNAMES"]
    if pid is None or count is None or _number("LISTEN_PID", pid) != os.getpid():
        return []
    descriptors = range(FIRST_DESCRIPTOR, FIRST_DESCRIPTOR + _number("LISTEN_FDS", count))
    labels = [UNKNOWN] * len(descriptors) if names is None else names.split(":")
    if len(labels) != len(descriptors):
        raise ValueError(f"LISTEN_FDS is {count}, but LISTEN_FDNAMES has {len(labels)}: {names!r}")
    for descriptor in descriptors:
        try:
            os.set_inheritable(descriptor, False)
        except OSError as exc:
            raise ValueError(f"LISTEN_FDS is {count}, but {descriptor} is not open") from exc
    return list(zip(labels, descriptors))


def _number(variable: str, value: str) -> int:
    # int() alone would take signs, spaces, underscores and the digits of all scripts.
    if not (value.isascii() and value.isdigit() and int(value)):
        raise ValueError(f"{variable} must be a positive number, not {value!r}")
    return int(value)


def _listening(descriptors: list[int]) -> list[socket.socket]:
    """Make socket objects of descriptors: of all, or of none."""
    sockets: list[socket.socket] = []
    try:
        for descriptor in descriptors:
            sockets.append(_socket(descriptor))
            _check_listens(sockets[-1])
    except BaseException:
        for sock in sockets:
            sock.detach()  # the descriptor stays open for a later call
        raise
    return sockets


def _socket(descriptor: int) -> socket.socket:
    try:
        return socket.socket(fileno=descriptor)  # asks the kernel for family and type
    except OSError as exc:
        raise ValueError(f"inherited descriptor {descriptor} is no socket: {exc}") from exc


def _check_listens(sock: socket.socket) -> None:
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        raise ValueError(
            f"inherited descriptor {sock.fileno()} is no stream socket that listens; "
            "a socket unit of systemd needs ListenStream= and Accept=no"
        )
