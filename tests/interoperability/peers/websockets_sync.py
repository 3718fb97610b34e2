"""The package "websockets", its client for threads."""

from __future__ import annotations

import contextlib

import websockets
from checks import PATIENCE, main
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect


class Link:
    def __init__(self, uri, subprotocols, compression):
        opening = connect(
            uri,
            subprotocols=subprotocols or None,
            compression="deflate" if compression else None,
            open_timeout=PATIENCE,
            proxy=None,
        )
        self._connection = opening.__enter__()
        self.subprotocol = self._connection.subprotocol
        self.send = self._connection.send
        self.close = self._connection.close

    def recv(self):
        return self._connection.recv(timeout=PATIENCE)

    def send_fragments(self, parts):
        self._connection.send(iter(parts))

    def ping(self):
        assert self._connection.ping().wait(PATIENCE), "no pong"

    def ended(self):
        with contextlib.suppress(ConnectionClosed):
            self._connection.recv(timeout=PATIENCE)
        return self._connection.close_code, self._connection.close_reason


main(websockets.__version__, Link)
