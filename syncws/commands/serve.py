"""``syncws serve``: serve a handler of the user's."""

from __future__ import annotations

import argparse
import logging
import os
import socket
import sys
import threading
import time
import traceback
from typing import Any, NoReturn, Optional

from ..activation import inherited_sockets
from ..opcodes import CloseCode
from ..serving import serve
from . import reloading
from .arguments import add_server_arguments, listening, seconds, server_options
from .failures import Failure
from .handlers import load_handler
from .serving import url_of

__all__ = ["EXAMPLES", "HELP", "add_arguments", "run"]

HELP = "serve a function of yours"

EXAMPLES = """
syncws serve app:handler
syncws serve app --reload --host '' --port 8000
syncws serve shop.feed:prices --cert chain.pem --key key.pem --health /healthz
syncws serve app:handler --unix /run/app.sock --origin https://example.com
"""

DESCRIPTION = """\
Serve a function that takes a connection, until Ctrl-C or SIGTERM; then all connections are
closed gracefully, and the exit code is 0. A socket that was handed over by systemd
(LISTEN_FDS) is used in place of --host and --port."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = DESCRIPTION
    parser.add_argument(
        "handler",
        metavar="MODULE[:FUNCTION]",
        help="what to serve; the module may be in the current folder (function: handler)",
    )
    add_server_arguments(parser)
    group = parser.add_argument_group("serving")
    group.add_argument("--health", metavar="PATH", help="answer load balancers on this path")
    group.add_argument(
        "--subprotocol",
        metavar="NAME",
        dest="subprotocols",
        action="append",
        help="speak this subprotocol; may be repeated, the preferred one first",
    )
    group.add_argument("--no-compression", action="store_true", help="do not compress")
    group.add_argument(
        "--drain",
        metavar="SECONDS",
        type=seconds,
        default=0.0,
        help="at the end, let connections go on for so long (%(default)g)",
    )
    group.add_argument(
        "--reload",
        action="store_true",
        help="start again when a source file has changed; for development",
    )
    group.add_argument("-q", "--quiet", action="store_true", help="log warnings and errors only")


def run(arguments: argparse.Namespace) -> int:
    level = logging.WARNING if arguments.quiet else logging.INFO
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if arguments.reload and os.name == "nt":
        raise Failure("--reload needs a platform where a program can be replaced by another")
    began = time.time_ns()
    sockets = inherited_sockets()
    sock = sockets[0] if sockets else None
    try:
        handler = load_handler(arguments.handler)
    except Failure as exc:
        if not arguments.reload:
            raise
        wait_for_repair(exc, sock, began)
    server = make_server(arguments, handler, sock)
    if arguments.reload:
        serve_reloading(server, arguments, began)
    else:
        with server:
            announce(server)
            server.serve_forever(signals=True, drain=arguments.drain)
    return 0


def make_server(arguments: argparse.Namespace, handler: Any, sock: Optional[socket.socket]) -> Any:
    options = server_options(arguments)
    options.update(
        health=arguments.health,
        subprotocols=arguments.subprotocols,
        compression=None if arguments.no_compression else "deflate",
    )
    if sock is not None:
        return serve(handler, sock=sock, **options)
    return listening(arguments, lambda **address: serve(handler, **address), **options)


def announce(server: Any) -> None:
    print(f"serving at {url_of(server)} (Ctrl-C ends it)", flush=True)


def serve_reloading(server: Any, arguments: argparse.Namespace, began: int) -> None:
    """Serve; when a file has changed, close with 1012 and start again on the same socket."""
    changed = threading.Event()
    listener = None if arguments.unix is not None else server.socket.dup()

    def on_change(name: str) -> None:
        print(f"{os.path.relpath(name)} has changed, starting again", flush=True)
        changed.set()
        server.close(code=CloseCode.SERVICE_RESTART, reason="the server starts again")

    with server, reloading.watching(reloading.FileWatch(began), on_change):
        announce(server)
        server.serve_forever(signals=True, drain=arguments.drain)
    if changed.is_set():
        reloading.start_again(listener)
    if listener is not None:
        listener.close()


def wait_for_repair(failure: Failure, sock: Optional[socket.socket], began: int) -> NoReturn:
    """Say what is wrong, and start again once a file has changed; Ctrl-C ends it."""
    print(f"syncws: {failure}; waiting for a change", file=sys.stderr, flush=True)
    watch = reloading.FileWatch(began, tuple(files_of(failure.__cause__)))
    watch.wait(threading.Event())
    reloading.start_again(sock)


def files_of(exc: Optional[BaseException]) -> list[str]:
    """The files that had to do with an exception; a module that failed is not loaded."""
    if exc is None:
        return []
    files = [frame.filename for frame in traceback.extract_tb(exc.__traceback__)]
    if isinstance(exc, SyntaxError) and exc.filename is not None:
        files.append(exc.filename)
    return [name for name in files if os.path.isfile(name)]
