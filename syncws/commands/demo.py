"""``syncws demo``: the chat page."""

from __future__ import annotations

import argparse
import contextlib

from .. import demo
from .arguments import own_host, port_number
from .serving import sigterm_as_interrupt, url_of

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "serve a chat page and its WebSocket"

EXAMPLES = """
syncws demo
syncws demo --host 0.0.0.0 --port 80
"""

DESCRIPTION = (
    "Serve a chat page with live statistics, and its WebSocket, on one port, until Ctrl-C or\n"
    f"SIGTERM. If the port is taken, up to {demo.PORTS - 1} ports after it are tried."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument(
        "--host",
        type=own_host,
        default="127.0.0.1",
        help="name or address to listen on (%(default)s)",
    )
    parser.add_argument(
        "--port", type=port_number, default=8000, help="first port to try, 0 for any (%(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    interrupted = contextlib.suppress(KeyboardInterrupt)
    opening = demo.open_server
    with interrupted, sigterm_as_interrupt(), opening(arguments.host, arguments.port) as server:
        print(f"Chat at {url_of(server, 'http')} (Ctrl-C ends it)", flush=True)
        server.serve_forever(signals=True)
    print("bye", flush=True)
    return 0
