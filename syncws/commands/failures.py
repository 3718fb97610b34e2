"""What goes wrong on a command line, said in one line each."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator

__all__ = ["Failure", "explain", "explain_taken", "one_line", "opening"]

# How much of an answer that is no WebSocket is quoted.
QUOTED = 100  # characters

# How long the line may be.
LONGEST = 500  # characters


class Failure(Exception):
    """Ends a command with exit code 1; its text is the line that the user gets."""


@contextlib.contextmanager
def opening() -> Iterator[None]:
    """Within the ``with`` block, what ``connect()`` does not accept is a failure, not a bug."""
    try:
        yield
    except OSError:
        raise  # an error about a certificate is a ValueError, too
    except (ValueError, ImportError) as exc:
        raise Failure(one_line(str(exc), LONGEST)) from None


def explain(exc: BaseException) -> str:
    """Say what happened, and what to do about it where that is known."""
    if isinstance(exc, Failure):
        return str(exc)
    if isinstance(exc, ssl.SSLError):
        return _explain_tls(exc)
    if isinstance(exc, socket.gaierror):
        said = exc.strerror or str(exc)
        return said if said.startswith("cannot ") else f"no such host ({said})"
    if isinstance(exc, OSError):
        return _explain_network(exc)
    return one_line(str(exc), LONGEST) or type(exc).__name__


def _explain_tls(exc: ssl.SSLError) -> str:
    if isinstance(exc, ssl.SSLCertVerificationError):
        return (
            f"the server's certificate is not trusted: {exc.verify_message}; "
            "name its authority with --cafile, or do without the check: --insecure"
        )
    if exc.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"):
        return "this port does not speak TLS; is it ws:// instead of wss://?"
    return f"TLS failed: {one_line(exc.strerror or str(exc), LONGEST)}"


def _explain_network(exc: OSError) -> str:
    if isinstance(exc, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    if isinstance(exc, (TimeoutError, socket.timeout)):
        return "timed out: no answer in time"
    if exc.filename is not None:
        return f"{exc.strerror}: {exc.filename}"
    return one_line(exc.strerror or str(exc), LONGEST)


def explain_taken(exc: OSError, host: str, port: int) -> Failure:
    """Name the address that can't be listened on."""
    if exc.errno == errno.EADDRINUSE:
        text = f"port {port} of {host or 'this machine'} is taken; choose another with --port"
    elif exc.errno == errno.EACCES:
        text = f"port {port} needs privileges; choose one from 1024 up with --port"
    elif exc.errno == errno.EADDRNOTAVAIL or isinstance(exc, socket.gaierror):
        text = f"{host} is no address of this machine; choose one with --host"
    else:
        text = exc.strerror or str(exc)  # serve() says what can't be listened on
    return Failure(text)


def one_line(text: str, limit: int = QUOTED) -> str:
    """The text as one short line of printable characters."""
    words = " ".join(text.split())
    short = words if len(words) <= limit else f"{words[:limit]}…"
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)
