"""``syncws connect``: talk to a server by hand, or from a pipe."""

from __future__ import annotations

import argparse
import sys
import time

from ..exceptions import ConnectionClosed, ConnectionClosedOK
from . import dialogue, pipe
from .arguments import add_client_arguments, client_options, count, extras, seconds
from .failures import Failure
from .payloads import FORMATS
from .watched import WatchedConnection, open_watched

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "talk to a server, by hand or in a pipe"

EXAMPLES = """
syncws connect ws://localhost:8765
syncws connect wss://example.com/feed -H 'Authorization: Bearer TOKEN' --subprotocol v2.json
echo hello | syncws connect ws://localhost:8765
echo 00ff | syncws connect ws://localhost:8765 --binary hex
syncws connect ws://localhost:8765 --binary raw <picture.png >answer.png
syncws connect ws://localhost:8765/ticker --messages 1 </dev/null
"""

DESCRIPTION = """\
Open a connection. At a terminal, each line that you type is sent as a text message, what
arrives is shown above it, and /help lists what else can be sent. In a pipe, each line of
standard input is sent as a message, each message that arrives is written as a line to
standard output, and nothing else is."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    add_client_arguments(parser)
    group = parser.add_argument_group("messages")
    group.add_argument(
        "--binary",
        choices=[*FORMATS, "raw"],
        metavar="FORM",
        help="send binary messages: lines are in hex or base64, or with raw all of the input is "
        "one message; binary messages that arrive are written in the same form (hex)",
    )
    group.add_argument(
        "--messages",
        metavar="N",
        type=count,
        help="close after so many messages have arrived",
    )
    group.add_argument(
        "--wait",
        metavar="SECONDS",
        type=seconds,
        help="in a pipe, how long to wait for more messages after the end of input and after each "
        "message (1; with --messages: until they have come)",
    )
    group.add_argument(
        "--ping",
        metavar="SECONDS",
        type=seconds,
        help="send a ping this often, 0 for never (20)",
    )
    group.add_argument("--no-compression", action="store_true", help="do not offer compression")
    group.add_argument(
        "-v",
        "--verbose",
        action="store_true",
        help="in a pipe, tell on standard error what goes on",
    )


def run(arguments: argparse.Namespace) -> int:
    options = client_options(arguments)
    options["max_size"] = None
    options["compression"] = None if arguments.no_compression else "deflate"
    if arguments.ping is not None:
        options["ping_interval"] = arguments.ping or None
    connection, took = open_watched(arguments.uri, **options)
    opened = [
        f"connected to {arguments.uri} in {took * 1000:.1f} ms",
        connection.tls_version,
        extras(connection.response),
    ]
    began = time.monotonic()
    talk = dialogue.talk if is_terminal() else pipe.talk
    try:
        talk(connection, "; ".join(filter(None, opened)), arguments)
    finally:
        connection.close()
        ended = describe_end(connection, time.monotonic() - began)
        if talk is dialogue.talk or arguments.verbose:
            print(f"* {ended}", file=sys.stderr)
    return exit_code(connection)


def is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def describe_end(connection: WatchedConnection, lasted: float) -> str:
    stats = connection.stats()
    end = connection.end
    how = str(end) if end.__cause__ is None else f"{end} ({end.__cause__})"
    return (
        f"closed after {lasted:.1f} s: {how}; "
        f"sent {stats['messages_sent']} messages, {stats['bytes_sent']} bytes; "
        f"received {stats['messages_received']} messages, {stats['bytes_received']} bytes"
    )


def exit_code(connection: WatchedConnection) -> int:
    """
    Say whether the connection ended well.

    Raises:
        Failure: it did not; says how.
    """
    end: ConnectionClosed = connection.end
    closed_by_us = end.rcvd is not None and end.rcvd_then_sent is False
    if isinstance(end, ConnectionClosedOK) or closed_by_us:
        return 0
    raise Failure(f"the connection ended badly: {end}")
