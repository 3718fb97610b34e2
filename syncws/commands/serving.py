"""What the commands that serve have in common."""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..server import Server

__all__ = ["log_warnings", "sigterm_as_interrupt", "url_of"]


def log_warnings() -> None:
    """Let the library's warnings look like those of the command."""
    logging.basicConfig(level=logging.WARNING, format="syncws: %(message)s")


def url_of(server: Server, scheme: str = "ws") -> str:
    """The address of a server, for a client on this machine."""
    scheme = scheme if server.ssl is None else f"{scheme}s"
    address = server.server_address
    if not isinstance(address, tuple):
        return f"Unix socket {address!s}"
    host, port = str(address[0]), address[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


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
