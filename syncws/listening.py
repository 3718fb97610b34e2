"""Where servers listen, and what to do where that is not possible."""

from __future__ import annotations

import errno
import operator
import socket
from typing import Any, Optional, Union

from .server import BACKLOG

__all__ = ["SOCKET_OPTIONS", "explain_refusal", "listen"]

SOCKET_OPTIONS = ("backlog", "dualstack_ipv6", "family", "reuse_port")
"""What :func:`socket.create_server` takes besides the address."""

_LOWEST_FREE_PORT = 1024  # those below need privileges on most systems

_A_HOST = "host is a name or address of this machine, such as 'localhost', or '' for all"


def listen(
    host: Optional[str],
    port: Optional[int],
    unix_path: Union[str, bytes, None],
    options: dict[str, Any],
) -> socket.socket:
    """
    Make a listening socket.

    Args:
        host: name or address; ``None`` or ``""`` for all interfaces, in IPv4 and IPv6.
        port: 0 or ``None`` for any.
        unix_path: of a Unix socket, in place of host and port.
        options: of :func:`socket.create_server`, see ``SOCKET_OPTIONS``.

    Raises:
        OSError: it is not possible to listen there; says what to do about it.
        TypeError, ValueError: host or port can't be one.
    """
    options.setdefault("backlog", BACKLOG)
    if unix_path is not None:
        try:
            return socket.create_server(unix_path, family=socket.AF_UNIX, **options)
        except OSError as exc:
            raise _explain_unix(exc, unix_path) from None
    number = _check_port(port)
    _check_host(host)
    if not host and "family" not in options and socket.has_dualstack_ipv6():
        options.update(family=socket.AF_INET6, dualstack_ipv6=True)
    elif host and ":" in host:
        options.setdefault("family", socket.AF_INET6)
    try:
        return socket.create_server((host or "", number), **options)
    except OSError as exc:
        raise explain_refusal(exc, host, number) from None


def _check_port(port: Any) -> int:
    try:
        number = operator.index(port or 0)
    except TypeError:
        raise TypeError(f"port must be an int or None, not {port!r}") from None
    if not 0 <= number <= 65535:
        raise ValueError(f"port must be between 0 and 65535, not {number}")
    return number


def _check_host(host: Any) -> None:
    if host is not None and not isinstance(host, str):
        raise TypeError(
            f"host must be a str or None, not {host!r}; write serve(handler, 'localhost', 8765)"
        )
    if host and ("/" in host or host.count(":") == 1):
        raise ValueError(
            f"host must be a name or address alone, not {host!r}; "
            "write serve(handler, 'localhost', 8765)"
        )


def explain_refusal(exc: OSError, host: Optional[str], port: int) -> OSError:
    """The error of a system that does not let a server listen, with what to do about it."""
    reason = _reason(exc)
    advice = ""
    if isinstance(reason, socket.gaierror) or reason.errno == errno.EADDRNOTAVAIL:
        advice = f"; {_A_HOST}"
    elif reason.errno == errno.EADDRINUSE:
        advice = (
            "; another program listens there, perhaps an earlier run of this one: "
            "end it, or choose another port"
        )
    elif reason.errno == errno.EACCES and 0 < port < _LOWEST_FREE_PORT:
        advice = f"; ports below {_LOWEST_FREE_PORT} need privileges: choose a higher one"
    text = f"cannot listen on {host or 'all interfaces'} port {port}: {reason.strerror}{advice}"
    if isinstance(reason, socket.gaierror):
        return socket.gaierror(reason.errno, text)
    # Called with a number, it makes the fitting subclass.
    return OSError(reason.errno, text)


def _explain_unix(exc: OSError, path: Union[str, bytes]) -> OSError:
    reason = _reason(exc)
    what = reason.strerror or str(reason)
    advice = ""
    if reason.errno == errno.EADDRINUSE:
        advice = "; there is a file already: remove it, unless another server listens on it"
    elif reason.errno == errno.ENOENT:
        advice = "; its folder has to exist"
    text = f"cannot listen on {_name(path)}: {what}{advice}"
    return OSError(text) if reason.errno is None else OSError(reason.errno, text)


def _name(path: Union[str, bytes]) -> str:
    return path if isinstance(path, str) else repr(path)


def _reason(exc: OSError) -> OSError:
    """What the system said: ``create_server()`` puts the address into it, and drops its class."""
    context = exc.__context__
    return context if isinstance(context, OSError) else exc
