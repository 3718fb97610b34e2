"""The page of the demo and the plain HTTP answers around it."""

from __future__ import annotations

import base64
import functools
import hashlib
import pathlib
import re
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from ..http11 import Request, Response
    from ..server import ServerConnection

__all__ = ["respond"]

WEBSOCKET_PATH = "/ws"


def respond(connection: ServerConnection, request: Request) -> Optional[Response]:
    """
    Answer plain HTTP requests; ``None`` lets the opening handshake go on.

    This is the ``process_request`` hook of the demo's server.
    """
    path = request.path.partition("?")[0]
    if path == WEBSOCKET_PATH:
        return None
    if path != "/":
        return connection.respond(404, "There is nothing here; the chat is at /.\n")
    text, policy = load_page()
    response = connection.respond(200, text)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    response.headers["Content-Security-Policy"] = policy
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["Cache-Control"] = "no-store"
    return response


@functools.cache
def load_page() -> tuple[str, str]:
    """The page and the Content-Security-Policy that allows what stands in it, and nothing else."""
    text = read("chat.html")
    # One request brings it all.
    for element, name in (("style", "chat.css"), ("script", "chat.js")):
        start, marker, end = text.partition(f"<{element}>")
        text = f"{start}{marker}\n{read(name)}{end}"
    policy = [
        "default-src 'none'",
        f"script-src {hash_of(text, 'script')}",
        f"style-src {hash_of(text, 'style')}",
        "img-src data:",
        # Not every browser takes 'self' for the WebSocket of the same host.
        "connect-src 'self' ws: wss:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
    return text, "; ".join(policy)


def read(name: str) -> str:
    return pathlib.Path(__file__).with_name(name).read_text(encoding="utf-8")


def hash_of(text: str, element: str) -> str:
    """The source expression for the one inline element of that name."""
    match = re.search(f"<{element}>(.*?)</{element}>", text, re.DOTALL)
    content = match.group(1) if match else ""
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
