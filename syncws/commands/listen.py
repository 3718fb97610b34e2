"""``syncws listen``: a server that writes what it is sent to standard output."""

from __future__ import annotations

import argparse
import contextlib
import sys
import threading
from typing import Any, Optional

from ..exceptions import ConnectionClosed
from ..reports import format_address
from ..serving import serve
from .arguments import add_server_arguments, count, listening, server_options
from .payloads import FORMATS, write_message
from .serving import log_warnings, sigterm_as_interrupt, url_of

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "serve, and write what clients send to standard output"

EXAMPLES = """
syncws listen --port 8765
syncws listen --messages 1 >first.json
syncws listen | while read -r line; do notify-send "$line"; done
"""

DESCRIPTION = """\
Accept connections, and write each message of each client as a line to standard output; a
message that has several lines becomes several. Ends with Ctrl-C or SIGTERM, after
--messages, or when nobody reads the output any more; then all connections are closed
gracefully, and the exit code is 0. The address is told on standard error."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    add_server_arguments(parser)
    group = parser.add_argument_group("messages")
    group.add_argument(
        "--binary",
        choices=[*FORMATS, "raw"],
        metavar="FORM",
        default="hex",
        help="write binary messages in hex, in base64, or raw: as they are, with no line end (hex)",
    )
    group.add_argument("--messages", metavar="N", type=count, help="end after so many messages")
    group.add_argument(
        "-v", "--verbose", action="store_true", help="tell on standard error who comes and goes"
    )


def run(arguments: argparse.Namespace) -> int:
    log_warnings()
    output = Output(arguments.binary, arguments.messages)

    def handler(connection: Any) -> None:
        output.take_from(connection, arguments.verbose)

    interrupted = contextlib.suppress(KeyboardInterrupt)
    options = server_options(arguments)
    with (
        interrupted,
        sigterm_as_interrupt(),
        listening(arguments, lambda **address: serve(handler, **address), **options) as server,
    ):
        print(f"listening at {url_of(server)}", file=sys.stderr, flush=True)
        server.start()
        output.ended.wait()
    if output.failure is not None:
        raise output.failure
    return 0


class Output:
    """
    Standard output, to which the threads of all connections write.

    ``ended`` is set when enough was written, or nothing can be written any more; then
    ``failure`` may say why.
    """

    def __init__(self, form: str, messages: Optional[int]) -> None:
        self.ended = threading.Event()
        self.failure: Optional[OSError] = None
        self._form = form
        self._lock = threading.Lock()
        self._left = messages  # guarded by _lock

    def take_from(self, connection: Any, verbose: bool) -> None:
        """Write all messages of a connection: the handler of the server."""
        address = format_address(connection.remote_address)
        if verbose:
            print(f"* {address} came", file=sys.stderr, flush=True)
        with contextlib.suppress(ConnectionClosed):
            for message in connection:
                self._write(message)
        if verbose:
            print(f"* {address} went: {connection.end}", file=sys.stderr, flush=True)

    def _write(self, message: Any) -> None:
        with self._lock:
            if self.ended.is_set():
                return
            try:
                write_message(message, self._form)
            except OSError as exc:
                self.failure = exc
                self.ended.set()
                return
            if self._left is not None:
                self._left -= 1
                if self._left == 0:
                    self.ended.set()
