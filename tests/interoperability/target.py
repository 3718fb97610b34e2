"""The server of syncws that the clients of others talk to; the path says what it does."""

from __future__ import annotations

import pathlib
import queue

from syncws import ConnectionClosed, serve

__all__ = ["Target"]

PATIENCE = 20  # seconds
PEERS = pathlib.Path(__file__).resolve().parent / "peers"
PARTS = ["one, ", "two, ", "three"]

# A whole frame with the three parts, masked: fewer bytes than three frames have.
WHOLE = 2 + 4 + len("".join(PARTS))

PAGE = """<!DOCTYPE html><meta charset=utf-8><title>checks</title><script type=module>
import { runChecks } from "/checks.mjs";
const found = [];
const base = (port) => `ws://${location.hostname}:${port}`;
const other = new URLSearchParams(location.search).get("compressing");
await runChecks(base(location.port), base(other), (one) => found.push(one), { WebSocket });
window.found = found;
</script>"""


class Target:
    """
    A context manager: two servers, one of which agrees to compress.

    ``ports`` has theirs. What is checked without compression has a stream to count bytes in.
    """

    def __init__(self):
        self._ends = queue.Queue()
        options = {
            "subprotocols": ["chat.v2", "chat.v1"],
            "select_subprotocol": self._select,
            "process_request": self._pages,
            "origins": None,  # the page is of the other port
            "ping_interval": None,
            "close_timeout": PATIENCE,
        }
        self._servers = [
            serve(self._handle, "127.0.0.1", 0, compression=compression, **options)
            for compression in (None, "deflate")
        ]
        self.ports = [server.server_address[1] for server in self._servers]

    def __enter__(self):
        for server in self._servers:
            server.start()
        return self

    def __exit__(self, *exc_info):
        for server in self._servers:
            server.shutdown(timeout=5)

    def _select(self, connection, offered):
        return next((name for name in ("chat.v2", "chat.v1") if name in offered), None)

    def _pages(self, connection, request):
        path = request.path.partition("?")[0]
        pages = {"/": ("html", PAGE)}
        if path == "/checks.mjs":
            pages[path] = ("javascript", (PEERS / "checks.mjs").read_text("utf-8"))
        if path not in pages:
            return None
        kind, text = pages[path]
        response = connection.respond(200, text)
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = f"text/{kind}; charset=utf-8"
        return response

    def _handle(self, connection):
        try:
            getattr(self, f"_{connection.request.path[1:]}")(connection)
            connection.recv(timeout=PATIENCE)
        except (ConnectionClosed, TimeoutError):
            pass

    def _echo(self, connection):
        for message in connection:
            connection.send(message)

    def _fragments(self, connection):
        connection.send(iter(PARTS))

    def _joined(self, connection):
        message = connection.recv(timeout=PATIENCE)
        several = connection.stats()["bytes_received"] > WHOLE
        connection.send(f"{'fragments' if several else 'whole'}: {message}")

    def _ping(self, connection):
        answered = connection.ping(b"syncws").wait(PATIENCE)
        connection.send("answered" if answered else "silent")

    def _close(self, connection):
        connection.close(4001, "Größe")

    def _closed(self, connection):
        try:
            connection.recv(timeout=PATIENCE)
        except ConnectionClosed as exc:
            received = exc.rcvd
            self._ends.put("none" if received is None else f"{received.code} {received.reason}")

    def _report(self, connection):
        connection.send(self._ends.get(timeout=PATIENCE))

    def _compression(self, connection):
        message = connection.recv(timeout=PATIENCE)
        offered, agreed = (
            "permessage-deflate" in head.headers.get("Sec-WebSocket-Extensions", "")
            for head in (connection.request, connection.response)
        )
        if not agreed:
            connection.send("refused" if offered else "not negotiated")
        elif connection.stats()["bytes_received"] > len(message) / 10:
            connection.send("negotiated, but not used")
        else:
            connection.send("compressed")
        connection.send(message)
