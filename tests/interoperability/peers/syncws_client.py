"""The client of syncws, for the servers of others."""

from __future__ import annotations

import contextlib

import checks
from checks import PATIENCE, NotOffered, expect

from syncws import ConnectionClosed, __version__, connect

NO_SUCH_CHECK = 4404  # the close code of a server that cannot do what is asked for


class Link:
    def __init__(self, uri, subprotocols, compression):
        self.connection = connect(
            uri,
            subprotocols=subprotocols or None,
            compression="deflate" if compression else None,
            open_timeout=PATIENCE,
            close_timeout=PATIENCE,
            proxy=None,
        )
        self.subprotocol = self.connection.subprotocol
        self.send = self.connection.send
        self.close = self.connection.close

    def recv(self):
        try:
            return self.connection.recv(timeout=PATIENCE)
        except ConnectionClosed as exc:
            if exc.rcvd is not None and exc.rcvd.code == NO_SUCH_CHECK:
                raise NotOffered(exc.rcvd.reason) from None
            raise

    def send_fragments(self, parts):
        self.connection.send(iter(parts))

    def ping(self):
        assert self.connection.ping().wait(PATIENCE), "no pong"

    def ended(self):
        with contextlib.suppress(ConnectionClosed):
            self.connection.recv(timeout=PATIENCE)
        return self.connection.close_code, self.connection.close_reason


class Checks(checks.Checks):
    """A server tells less than ours: what the wire had is seen here."""

    joined = "one, two, three"

    def compression(self):
        link = self.open("/echo", compression=True)
        offered, agreed = (
            "permessage-deflate" in head.headers.get("Sec-WebSocket-Extensions", "")
            for head in (link.connection.request, link.connection.response)
        )
        assert offered, "not offered by syncws"
        if not agreed:
            raise NotOffered
        message = "compress me, " * 1000
        link.send(message)
        expect(link.recv(), message)
        stats = link.connection.stats()
        assert stats["bytes_sent"] < len(message) / 10, "sent as it is"
        assert stats["bytes_received"] < len(message) / 10, "received as it is"
        link.close(1000, "")


checks.main(__version__, Link, Checks)
