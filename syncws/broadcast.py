"""Sending one message to many connections, without waiting for the slow ones."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Literal, NamedTuple, Optional

from .connection import Connection
from .exceptions import ConnectionClosed
from .opcodes import Close, CloseCode, Opcode
from .sending import BytesLike, DataLike, Offer, SharedMessage
from .speedups import message_block, try_send
from .transport import JOIN_LIMIT

__all__ = ["BroadcastResult", "broadcast"]

OnFull = Literal["drop", "close", "wait"]


class BroadcastResult(NamedTuple):
    """
    What became of a broadcast, in numbers of connections.

    Attributes:
        sent: the whole message is with the kernel.
        queued: it is in the outbox, and will be sent as the peer makes room.
        dropped: the outbox was full, or a fragmented message was being sent.
        closed: the connection was closed already, or is being closed by ``on_full="close"``.
    """

    sent: int
    queued: int
    dropped: int
    closed: int


def broadcast(
    connections: Iterable[Connection],
    message: DataLike,
    text: Optional[bool] = None,
    *,
    on_full: OnFull = "drop",
) -> BroadcastResult:
    """
    Send a message to all connections; waits for none of them, unless asked to.

    The message is encoded, and compressed, once for each kind of connection. Each connection gets
    what its kernel buffer takes; the rest waits in its outbox for the service thread
    to send it. Where the outbox would exceed ``write_limit``, ``on_full`` tells what to do. A
    connection that is sending a fragmented message is left out, and a warning logged.

    Thread safety: any thread may call it. Messages of several broadcasts arrive everywhere
    in the order of the calls if one thread makes them.

    Args:
        connections: for example ``server.connections``; iterated over once.
        message: a string or bytes.
        text: as for :meth:`Connection.send`.
        on_full: ``"drop"`` leaves the message out for a slow connection, ``"close"`` closes that
            with 1008, ``"wait"`` waits until there is room, at most ``send_timeout``
            seconds without progress for all that are slow, before failing them.

    Raises:
        TypeError: the message is of another type, or ``connections`` is one connection.
        ValueError: ``on_full`` is none of the three.
    """
    if on_full not in ("drop", "close", "wait"):
        raise ValueError(f"on_full must be 'drop', 'close' or 'wait', not {on_full!r}")
    if isinstance(connections, Connection):
        # Iterating over it would receive messages.
        raise TypeError("connections must be a collection of connections, not one; write [it]")
    shared = _share(message, text)
    counts = dict.fromkeys(Offer, 0)
    full = []
    block = message_block(shared.data, shared.is_text, JOIN_LIMIT)
    sent = 0
    for connection in connections:
        waits = block is not None and (
            try_send(connection, block) or connection.try_block(block, collect=False)
        )
        if waits is True:
            sent += 1
            continue
        offer = connection.offer(shared) if waits is False else connection.leave_to_service()
        if offer is Offer.FULL and on_full != "drop":
            full.append((connection, connection.progress))
        else:
            _note(connection, offer)
            counts[offer] += 1
    began = time.monotonic()
    for connection, progress in full:
        if on_full == "close":
            connection.start_closing(Close(CloseCode.POLICY_VIOLATION, "too slow"))
            counts[Offer.CLOSED] += 1
        else:
            counts[_offer_waiting(connection, shared, began, progress)] += 1
    dropped = counts[Offer.FULL] + counts[Offer.BUSY]
    return BroadcastResult(
        sent + counts[Offer.SENT], counts[Offer.QUEUED], dropped, counts[Offer.CLOSED]
    )


def _share(message: DataLike, text: Optional[bool]) -> SharedMessage:
    if isinstance(message, str):
        return SharedMessage(Opcode.BINARY if text is False else Opcode.TEXT, message.encode())
    if isinstance(message, BytesLike):
        return SharedMessage(Opcode.TEXT if text else Opcode.BINARY, bytes(message))
    raise TypeError(f"data must be str or bytes, not {type(message).__name__}")


def _note(connection: Connection, offer: Offer) -> None:
    if offer is Offer.BUSY or offer is Offer.FULL:
        connection.note_dropped(offer)


def _offer_waiting(
    connection: Connection, shared: SharedMessage, began: float, progress: int
) -> Offer:
    try:
        while True:
            connection.wait_room(shared, began, progress)
            offer = connection.offer(shared)
            if offer is not Offer.FULL:
                _note(connection, offer)
                return offer
            began, progress = time.monotonic(), connection.progress
    except ConnectionClosed:
        return Offer.CLOSED
