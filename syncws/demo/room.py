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
from .snapshots import snapshot

if TYPE_CHECKING:
    from ..server import ServerConnection

__all__ = ["Room"]

HISTORY = 50
MAX_NICK = 32
MAX_TEXT = 2000


class Room:
    """
    Who is in the room, and what was said last.

    Text messages are JSON objects with a ``type``. Visitors send ``message`` (``nick``,
    ``text``), ``name`` (``nick``) and ``stats``. They get ``history`` (``room``,
    ``messages``) once, ``message`` (``id``, ``nick``, ``text``, ``time`` in seconds since
    1970), ``online`` (``count``), ``stats`` as :func:`snapshot` makes them when they ask, and
    ``error`` (``text``).
    Binary messages are sent back as they are, for pages to measure how long that takes.

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
        self._visitors: dict[ServerConnection, str] = {}  # with their names
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
            self._visitors[connection] = ""
            self._count()

    def _leave(self, connection: ServerConnection) -> None:
        with self._lock:
            self._visitors.pop(connection, None)
            self._count()

    def _count(self) -> None:
        """Tell all how many they are; the caller holds the lock."""
        self._tell({"type": "online", "count": len(self._visitors)})

    def _hear(self, connection: ServerConnection, data: Union[str, bytes]) -> None:
        if isinstance(data, bytes):
            connection.send(data)
            return
        try:
            kind, nick, text = parse_message(data)
        except ValueError as exc:
            connection.send(json.dumps({"type": "error", "text": str(exc)}))
            return
        if kind == "stats":
            self._report_to(connection)
            return
        with self._lock:
            self._visitors[connection] = nick
        if kind == "message":
            self._say(nick, text)

    def _report_to(self, connection: ServerConnection) -> None:
        with self._lock:
            names = dict(self._visitors)
        report = snapshot(connection.server, names, connection)
        connection.send(json.dumps({"type": "stats", **report}))

    def _say(self, nick: str, text: str) -> None:
        message = {"type": "message", "nick": nick, "text": text, "time": time.time()}
        with self._lock:
            self._last_id += 1
            message["id"] = self._last_id
            self._history.append(message)
            self._tell(message)

    def _tell(self, message: dict[str, Any]) -> None:
        broadcast(self._visitors, json.dumps(message), on_full="drop")


def parse_message(data: str) -> tuple[str, str, str]:
    """
    Check what a visitor sent.

    Returns:
        the type, the nickname, with its white space collapsed, and the text.

    Raises:
        ValueError: says what is wrong, in words for the visitor.
    """
    try:
        message = json.loads(data)
    except (ValueError, RecursionError):
        message = None
    kind = message.get("type") if isinstance(message, dict) else None
    if kind == "stats":
        return kind, "", ""
    if kind not in ("message", "name"):
        raise ValueError("this is not a chat message")
    nick, text = message.get("nick"), message.get("text", "")
    if not isinstance(nick, str) or not isinstance(text, str):
        raise ValueError("a chat message has a nick and a text")
    nick, text = " ".join(nick.split()), text.strip()
    if not 1 <= len(nick) <= MAX_NICK:
        raise ValueError(f"a nick has 1 to {MAX_NICK} characters")
    if kind == "message" and not 1 <= len(text) <= MAX_TEXT:
        raise ValueError(f"a text has 1 to {MAX_TEXT:,} characters")
    return kind, nick, text
