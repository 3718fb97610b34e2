"""The chat room of the demo."""

from __future__ import annotations

import collections
import contextlib
import json
import secrets
import threading
import time
from typing import TYPE_CHECKING, Any, Union

from ..broadcast import broadcast
from ..exceptions import ConnectionClosed

if TYPE_CHECKING:
    from ..server import ServerConnection

__all__ = ["Room"]

HISTORY = 50
MAX_NICK = 32
MAX_TEXT = 2000


class Room:
    """
    Who is in the room, and what was said last.

    Everything that goes over the wire is a JSON object with a ``type``. Visitors
    send ``message`` (``nick``, ``text``). They get ``history`` (``room``,
    ``messages``) once, ``message`` (``id``, ``nick``, ``text``, ``time`` in seconds since 1970),
    ``online`` (``count``) and ``error`` (``text``).

    Thread safety:
        The handler threads of all visitors share it. ``broadcast()`` never
        waits for a visitor, so it is called under the lock; that is why all
        visitors see the same messages in the same order, after the history.
    """

    def __init__(self) -> None:
        # A page that comes back sees by it whether the server was started anew.
        self.name = secrets.token_hex(8)
        self._lock = threading.Lock()
        # Guarded by _lock.
        self._visitors: set[ServerConnection] = set()
        self._history: collections.deque[dict[str, Any]] = collections.deque(maxlen=HISTORY)
        self._last_id = 0

    def visit(self, connection: ServerConnection) -> None:
        """Keep a visitor in the room until the connection ends: the handler of the server."""
        self._enter(connection)
        try:
            with contextlib.suppress(ConnectionClosed):
                for data in connection:
                    self._hear(connection, data)
        finally:
            self._leave(connection)

    def _enter(self, connection: ServerConnection) -> None:
        with self._lock:
            past = {"type": "history", "room": self.name, "messages": list(self._history)}
            broadcast({connection}, json.dumps(past), on_full="drop")
            self._visitors.add(connection)
            self._count()

    def _leave(self, connection: ServerConnection) -> None:
        with self._lock:
            self._visitors.discard(connection)
            self._count()

    def _count(self) -> None:
        """Tell all how many they are; the caller holds the lock."""
        self._tell({"type": "online", "count": len(self._visitors)})

    def _hear(self, connection: ServerConnection, data: Union[str, bytes]) -> None:
        try:
            nick, text = parse_message(data)
        except ValueError as exc:
            connection.send(json.dumps({"type": "error", "text": str(exc)}))
            return
        message = {"type": "message", "nick": nick, "text": text, "time": time.time()}
        with self._lock:
            self._last_id += 1
            message["id"] = self._last_id
            self._history.append(message)
            self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        broadcast(self._visitors, json.dumps(message), on_full="drop")


def parse_message(data: Union[str, bytes]) -> tuple[str, str]:
    """
    Check what a visitor sent.

    Returns:
        the nickname, with its white space collapsed, and the text.

    Raises:
        ValueError: says what is wrong, in words for the visitor.
    """
    try:
        message = json.loads(data) if isinstance(data, str) else None
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or message.get("type") != "message":
        raise ValueError("this is not a chat message")
    nick, text = message.get("nick"), message.get("text")
    if not isinstance(nick, str) or not isinstance(text, str):
        raise ValueError("a chat message has a nick and a text")
    nick, text = " ".join(nick.split()), text.strip()
    if not 1 <= len(nick) <= MAX_NICK:
        raise ValueError(f"a nick has 1 to {MAX_NICK} characters")
    if not 1 <= len(text) <= MAX_TEXT:
        raise ValueError(f"a text has 1 to {MAX_TEXT:,} characters")
    return nick, text
