"""
Ways from a page to its server: directly, or through a real proxy with its shipped configuration.

Each one is plain or has TLS; in ``haproxy-passthrough`` the server has it, behind the proxy.
"""

from __future__ import annotations

import contextlib

from deployment.deployed import HAProxy, Nginx

__all__ = ["DIRECT", "PROXIED", "WAYS", "Way"]

PROXIES = {"nginx": Nginx, "haproxy": HAProxy}

DIRECT = ["direct-plain", "direct-tls"]
PROXIED = ["nginx-plain", "nginx-tls", "haproxy-plain", "haproxy-tls", "haproxy-passthrough"]
WAYS = DIRECT + PROXIED


class Way:
    """
    One of ``WAYS``.

    ``secure`` tells whether the page has TLS. The server needs the options in ``required``, or no
    connection would come about; with those in ``options`` it also believes the proxy.
    """

    def __init__(self, name, folder, certificate, server_context):
        kind, _, self._port = name.partition("-")
        self._proxy = PROXIES.get(kind)
        self._folder = folder
        self._certificate = certificate
        self.secure = self._port != "plain"
        trust = {}
        if self._proxy is not None:
            self._proxy.require()
            trust = {"trusted_proxies": ["127.0.0.1"]}
        self.required = {}
        if name in ("direct-tls", "haproxy-passthrough"):
            self.required["ssl"] = server_context
        if self._port == "passthrough":
            self.required.update(trust, proxy_protocol=True)
        self.options = {**trust, **self.required}

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
        ports = {"app_with_tls": app} if self._port == "passthrough" else {"app": app}
        with proxy.start(self._certificate, *changes, **ports):
            yield proxy.url(self._port, scheme="http")
