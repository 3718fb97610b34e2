"""
The server under test of the Autobahn suite.

    python echo_server.py [CERTIFICATE KEY]

Prints the port it listens on, at 127.0.0.1, and serves until SIGTERM.
"""

from __future__ import annotations

import ssl
import sys

from syncws import serve

MAX_SIZE = 32 * 1024 * 1024  # bytes; the largest message of the suite has half of it


def echo(connection):
    for message in connection:
        connection.send(message)


def main(files):
    context = None
    if files:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*files)
    # No pings of our own: the suite waits for what it expects, and for nothing else.
    options = {"ssl": context, "max_size": MAX_SIZE, "ping_interval": None}
    with serve(echo, "127.0.0.1", 0, **options) as server:
        print(server.server_address[1], flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
