"""A client connection that tells about the control frames it gets."""

from __future__ import annotations

import time
from typing import Any, Callable, Optional

from ..client import ClientConnection, connect
from ..opcodes import Opcode
from ..protocol import Control
from .failures import opening

__all__ = ["WatchedConnection", "open_watched"]


class WatchedConnection(ClientConnection):
    """
    Calls ``on_control`` with what came, in words, for each ping and pong.

    It is called by whichever thread reads, and must not block.
    """

    on_control: Optional[Callable[[str], None]] = None

    @property
    def tls_version(self) -> str:
        """Version of TLS and cipher, for people; empty without TLS."""
        tls = getattr(self._transport, "tls", None)
        return "" if tls is None else f"{tls.version()}, {tls.cipher()[0]}"

    def _handle(self, control: Control) -> None:
        super()._handle(control)
        tell = self.on_control
        if tell is None or control.close is not None:
            return
        data = f" {describe(bytes(control.data))}" if control.data else ""
        if control.opcode == Opcode.PING:
            tell(f"ping{data}, answered")
        else:
            tell(f"pong{data}, {self.latency * 1000:.1f} ms")


def describe(data: bytes) -> str:
    """The payload of a control frame, for people."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return data.hex(" ")
    return repr(text) if text.isprintable() else data.hex(" ")


def open_watched(uri: str, **options: Any) -> tuple[WatchedConnection, float]:
    """Connect; returns the connection and how many seconds it took to open it."""
    began = time.monotonic()
    with opening():
        connection = connect(uri, create_connection=WatchedConnection, **options)
    took = time.monotonic() - began
    assert isinstance(connection, WatchedConnection)
    return connection, took
