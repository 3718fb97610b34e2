"""A chat that runs from a checkout: its page and its WebSocket on one port."""

from __future__ import annotations

import contextlib
import errno
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..serving import serve
from .page import respond
from .room import Room

if TYPE_CHECKING:
    from ..server import Server

__all__ = ["open_server", "run"]

# So many ports are tried, the one asked for included.
PORTS = 20

# A chat message has at most 2,000 characters; JSON may write each as \uXXXX\uXXXX.
MAX_SIZE = 32 * 1024


def open_server(host: str, port: int) -> Server:
    """
    Listen for visitors of a chat room of their own; serving is up to the caller.

    Args:
        host: the name or address to listen on.
        port: the first port to try; the next ones follow if it is taken. 0 takes any.

    Raises:
        OSError: the host is not one of this machine, or all ports tried are taken.
    """
    last = port if port == 0 else min(port + PORTS - 1, 65535)
    for candidate in range(port, last + 1):
        try:
            return serve(Room().visit, host, candidate, process_request=respond, max_size=MAX_SIZE)
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or candidate == last:
                raise
            print(f"Port {candidate} is taken, trying the next one.", flush=True)
    raise ValueError(f"port must be 0 to 65535, not {port}")


def url_of(server: Server) -> str:
    """The address of the page, for a browser on this machine."""
    host, port = str(server.server_address[0]), server.server_address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


@contextlib.contextmanager
def sigterm_as_interrupt() -> Iterator[None]:
    """
    Let SIGTERM raise ``KeyboardInterrupt``, as Ctrl-C does.

    ``serve_forever()`` handles both signals, but only while it runs: one may
    come as soon as the address is printed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def run(host: str = "127.0.0.1", port: int = 8000) -> None:
    """
    Serve the chat until Ctrl-C or SIGTERM, then close it gracefully.

    Args:
        host: the name or address to listen on.
        port: the first of the ports to try; 0 takes any.

    Raises:
        OSError: it was not possible to listen there.
    """
    interrupted = contextlib.suppress(KeyboardInterrupt)
    with interrupted, sigterm_as_interrupt(), open_server(host, port) as server:
        print(f"Chat at {url_of(server)} (Ctrl-C ends it)", flush=True)
        server.serve_forever(signals=True)
    print("bye", flush=True)
