"""
Ways from a page to its server: directly, or through a real proxy with its shipped configuration.

Each one is plain or has TLS. TLS that a proxy passes on to the server makes no difference to pages:
it is tested in ``deployment``.
"""

from __future__ import annotations

import contextlib

from deployment.deployed import HAProxy, Nginx

__all__ = ["DIRECT", "PROXIED", "WAYS", "Way"]

PROXIES = {"nginx": Nginx, "haproxy": HAProxy}

DIRECT = ["direct-plain", "direct-tls"]
PROXIED = ["nginx-plain", "nginx-tls", "haproxy-plain", "haproxy-tls"]
WAYS = DIRECT + PROXIED


class Way:
    """
    One of ``WAYS``.

    ``secure`` tells whether the page has TLS. The server needs the options in ``required``; with
    those in ``options`` it also believes the proxy.
    """

    def __init__(self, name, folder, certificate, server_context):
        kind, _, self._port = name.partition("-")
        self._proxy = PROXIES.get(kind)
        self._folder = folder
        self._certificate = certificate
        self.secure = self._port != "plain"
        self.required = {"ssl": server_context} if name == "direct-tls" else {}
        self.options = self.required
        if self._proxy is not None:
            self._proxy.require()
            self.options = {"trusted_proxies": ["127.0.0.1"]}

    @contextlib.contextmanager
    def to(self, app, *changes):
        """
        Lead to the port of a server, which listens already; yields the address for pages.

        ``changes`` are those of the shipped configuration.
        """
        if self._proxy is None:
            yield f"http{'s' if self.secure else ''}://127.0.0.1:{app}/"
            return
        proxy = self._proxy(self._folder)
        with proxy.start(self._certificate, *changes, app=app):
            yield proxy.url(self._port, scheme="http")
