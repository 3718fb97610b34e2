"""Proxies of a client: which one to use, and HTTP CONNECT (RFC 9110 §9.3.6, RFC 6455 §4.1)."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Optional
from urllib.parse import unquote, urlsplit

from .deadline import Deadline
from .exceptions import InvalidMessage, InvalidProxy, InvalidProxyMessage, InvalidProxyStatus
from .headers import Headers, build_authorization_basic, build_host, excerpt
from .http11 import Response, ResponseParser
from .transport import Transport

__all__ = ["Proxy", "find_proxy", "open_tunnel", "parse_proxy"]

_DEFAULT_PORTS = {
    "http": 80,
    "https": 443,
    "socks4": 1080,
    "socks4a": 1080,
    "socks5": 1080,
    "socks5h": 1080,
}

_READ_LIMIT = 65536  # bytes


@dataclasses.dataclass(frozen=True)
class Proxy:
    """
    Address of a proxy.

    Attributes:
        scheme: ``http``, ``https``, ``socks4``, ``socks4a``, ``socks5`` or ``socks5h``.
        host: name, or address without brackets.
        port: the default one of the scheme if none was given.
        username: decoded; ``None`` if there is none.
        password: decoded; ``None`` if there is none.
    """

    scheme: str
    host: str
    port: int
    username: Optional[str] = None
    password: Optional[str] = None

    @property
    def is_socks(self) -> bool:
        """Whether it speaks SOCKS rather than HTTP."""
        return self.scheme.startswith("socks")


def parse_proxy(proxy: str) -> Proxy:
    """
    Parse and validate the address of a proxy, such as ``http://user:password@host:3128``.

    Raises:
        InvalidProxy: it is not valid; the message says why, and leaves out the password.
    """
    try:
        return _parse(proxy)
    except ValueError as exc:
        raise InvalidProxy(_without_password(proxy), str(exc)) from None


def _without_password(proxy: str) -> str:
    user_info, at, rest = proxy.rpartition("@")
    scheme, slashes, _ = user_info.rpartition("//")
    return f"{scheme}{slashes}***@{rest}" if at else proxy


def _parse(proxy: str) -> Proxy:
    parts = urlsplit(proxy)
    scheme = parts.scheme
    if "://" not in proxy:
        raise ValueError("scheme is missing; write http://host:port")
    if scheme not in _DEFAULT_PORTS:
        raise ValueError(f"scheme {scheme} isn't one of {', '.join(_DEFAULT_PORTS)}")
    if not parts.hostname:
        raise ValueError("hostname isn't provided")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise ValueError("there must be nothing after host and port")
    if not all(map(str.isprintable, proxy)) or " " in proxy:
        raise ValueError("contains a space or a control character")
    if (parts.username is None) != (parts.password is None) and scheme != "socks4":
        raise ValueError("username provided without password")
    return Proxy(
        scheme,
        parts.hostname.encode("ascii" if parts.hostname.isascii() else "idna").decode("ascii"),
        _DEFAULT_PORTS[scheme] if parts.port is None else parts.port,
        _decode(parts.username),
        _decode(parts.password),
    )


def _decode(text: Optional[str]) -> Optional[str]:
    return None if text is None else unquote(text, errors="strict")


def find_proxy(host: str, port: int, secure: bool) -> Optional[str]:
    """
    Return the proxy that the environment, or the operating system, names for a server.

    Variables count in the order ``wss_proxy`` (``ws_proxy`` without TLS), ``socks_proxy``,
    ``https_proxy``, ``http_proxy`` (without TLS only), ``all_proxy``; RFC 6455 §4.1 prefers
    SOCKS, then what is meant for HTTPS. ``no_proxy`` lists servers to connect to directly.
    """
    if sys.platform not in ("darwin", "win32") and not any(
        name.lower().endswith("_proxy") for name in os.environ
    ):
        return None
    # Where no proxy is configured, as on most servers, this module need not be loaded.
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(f"{host}:{port}"):
        return None
    proxies = getproxies()
    schemes = ["wss", "socks", "https"] if secure else ["ws", "socks", "https", "http"]
    for scheme in (*schemes, "all"):
        if scheme in proxies:
            return _complete(scheme, proxies[scheme])
    return None


def _complete(scheme: str, proxy: str) -> str:
    """Make a URI of how operating systems and people write addresses of proxies."""
    if scheme == "socks":
        bare = proxy[len("http://") :] if proxy.startswith("http://") else proxy
        return bare if "://" in bare else f"socks5h://{bare}"
    return proxy if "://" in proxy else f"http://{proxy}"


def open_tunnel(
    transport: Transport,
    proxy: Proxy,
    host: str,
    port: int,
    *,
    user_agent: Optional[str],
    deadline: Deadline,
) -> None:
    """
    Have an HTTP proxy connect to a host (RFC 9110 §9.3.6).

    Args:
        transport: to the proxy; its own handshake is done.
        user_agent: value of the User-Agent header; ``None`` for none.

    Raises:
        InvalidProxyStatus: the proxy refused.
        InvalidProxyMessage: its answer is not HTTP.
        OSError: the connection failed, or it took too long.
    """
    transport.send_before(deadline, _request(proxy, host, port, user_agent))
    parser = ResponseParser(tunnel=True)
    try:
        response = _read_response(transport, parser, deadline)
    except InvalidMessage as exc:
        # The cause tells whether the proxy was just gone.
        raise InvalidProxyMessage(f"proxy {proxy.host}:{proxy.port}: {exc}") from exc.__cause__
    if not 200 <= response.status_code < 300:
        raise InvalidProxyStatus(response)
    if parser.leftover:
        # Neither TLS nor WebSocket lets the server speak first.
        raise InvalidProxyMessage(f"proxy sent {excerpt(parser.leftover)} after its response")


def _read_response(transport: Transport, parser: ResponseParser, deadline: Deadline) -> Response:
    response = None
    while response is None:
        data = transport.receive_before(deadline, _READ_LIMIT)
        response = parser.feed(data) if data else parser.feed_eof()
    return response


def _request(proxy: Proxy, host: str, port: int, user_agent: Optional[str]) -> bytes:
    # RFC 9110 §7.1: authority-form, with the port in any case.
    authority = build_host(host, port, secure=port == 80)
    headers = Headers({"Host": authority})
    if user_agent is not None:
        headers["User-Agent"] = user_agent
    if proxy.username is not None:
        credentials = build_authorization_basic(proxy.username, proxy.password or "")
        headers["Proxy-Authorization"] = credentials
    return f"CONNECT {authority} HTTP/1.1\r\n".encode("ascii") + headers.serialize()
