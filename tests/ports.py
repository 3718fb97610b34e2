"""Ports for programs that are told where to listen."""

from __future__ import annotations

import contextlib
import socket
import sys


@contextlib.contextmanager
def held_port():
    """
    A port that nobody listens on, kept from everyone who does not ask for just that one.

    As long as a socket is bound to it, the kernel gives it to no other socket that takes any port,
    which on a busy machine happens within milliseconds. A server that allows the reuse of
    addresses, as all do, may listen on it nevertheless, but for platforms other than Linux: there
    the port is only let go.
    """
    dual = socket.has_dualstack_ipv6()
    with socket.socket(socket.AF_INET6 if dual else socket.AF_INET) as sock:
        if dual:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", 0))
        port = sock.getsockname()[1]
        if sys.platform != "linux":
            sock.close()
        yield port
