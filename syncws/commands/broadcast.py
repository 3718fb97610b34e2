"""``syncws broadcast``: a server that sends standard input to all its clients."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from typing import Any, Optional, Union

from ..broadcast import broadcast
from ..exceptions import ConnectionClosed
from ..serving import serve
from .arguments import add_server_arguments, count, listening, server_options
from .payloads import FORMATS, decode
from .serving import log_warnings, sigterm_as_interrupt, url_of

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "serve, and send each line of standard input to all clients"

EXAMPLES = """
vmstat -n 1 | syncws broadcast --port 8765
tail -f access.log | syncws broadcast --last
seq 1000 | syncws broadcast --clients 2 --on-full wait
"""

DESCRIPTION = """\
Accept connections, and send each line of standard input as a message to all clients that are
connected at that moment; what they send is ignored. At the end of input, all connections are
closed gracefully, after they have got what was sent; Ctrl-C and SIGTERM end it in the same
way, but with exit code 130. The address, and a line if messages were left out, go to
standard error."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    add_server_arguments(parser)
    group = parser.add_argument_group("messages")
    group.add_argument(
        "--binary",
        choices=FORMATS,
        metavar="FORM",
        help="send binary messages: lines are in hex or base64",
    )
    group.add_argument(
        "--clients",
        metavar="N",
        type=count,
        help="read no input until so many clients are connected",
    )
    group.add_argument(
        "--last", action="store_true", help="send the last line to those that come later, too"
    )
    group.add_argument(
        "--on-full",
        choices=["drop", "close", "wait"],
        default="drop",
        help="for a client that does not keep up: leave messages out, close the connection, or "
        "hold up the input (%(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    log_warnings()
    audience = Audience(arguments)
    options = server_options(arguments)
    with (
        sigterm_as_interrupt(),
        listening(
            arguments, lambda **address: serve(audience.enter, **address), **options
        ) as server,
    ):
        print(f"broadcasting at {url_of(server)}", file=sys.stderr, flush=True)
        server.start()
        audience.complete.wait()
        for line in sys.stdin:
            audience.tell(line.rstrip("\r\n"))
    if audience.dropped:
        print(f"syncws: {audience.dropped} messages were left out", file=sys.stderr)
    return 0


class Audience:
    """
    The clients, and what they get.

    ``complete`` is set as soon as the clients that were to be waited for are there.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.complete = threading.Event()
        self.dropped = 0
        self._form: Optional[str] = arguments.binary
        self._wanted = arguments.clients or 0
        self._keep_last = arguments.last
        self._on_full = arguments.on_full
        self._lock = threading.Lock()
        # Guarded by _lock, so that nobody misses a line or gets it twice.
        self._clients: set[Any] = set()
        self._last: Union[str, bytes, None] = None
        if not self._wanted:
            self.complete.set()

    def enter(self, connection: Any) -> None:
        """Be there until the connection ends: the handler of the server."""
        with self._lock:
            self._clients.add(connection)
            if self._last is not None:
                broadcast({connection}, self._last)
            if len(self._clients) >= self._wanted:
                self.complete.set()
        try:
            with contextlib.suppress(ConnectionClosed):
                for _ in connection:
                    pass
        finally:
            with self._lock:
                self._clients.discard(connection)

    def tell(self, line: str) -> None:
        """
        Send a line to all.

        Raises:
            Failure: the line is no hexadecimal or base64.
        """
        message = line if self._form is None else decode(line, self._form)
        with self._lock:
            clients = set(self._clients)
            self._last = message if self._keep_last else None
            if self._on_full != "wait":
                self.dropped += broadcast(clients, message, on_full=self._on_full).dropped
        if self._on_full == "wait":
            broadcast(clients, message, on_full="wait")
