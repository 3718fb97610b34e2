"""
The program that the set-ups of this folder run; put your own in its place.

    python examples/deployment/app.py

It is told the rest by its environment:

    HOST, PORT         where it listens (127.0.0.1, 8765), unless it inherits a socket
    TRUSTED_PROXIES    addresses and networks of proxies, with spaces between ("127.0.0.1 unix")
    PROXY_PROTOCOL     1: these proxies speak HAProxy's PROXY protocol
    CERTIFICATE        file with a chain of certificates and the key: TLS at this server
    DRAIN              seconds that connections may go on after SIGTERM (0)
"""

import logging
import os
import ssl

from syncws import inherited_sockets, serve


def echo(connection):
    for message in connection:
        connection.send(message)


def options():
    setting = os.environ.get
    sockets = inherited_sockets()
    if sockets:
        yield "sock", sockets[0]
    else:
        yield "host", setting("HOST", "127.0.0.1")
        yield "port", int(setting("PORT", "8765"))
    if setting("CERTIFICATE"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(setting("CERTIFICATE"))
        yield "ssl", context
    yield "trusted_proxies", setting("TRUSTED_PROXIES", "").split()
    yield "proxy_protocol", setting("PROXY_PROTOCOL") == "1"


logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
with serve({"/": echo}, health="/healthz", **dict(options())) as server:
    server.serve_forever(drain=float(os.environ.get("DRAIN", "0")))
