"""
The client under test of the Autobahn suite.

    python echo_client.py URI [AUTHORITY PORT]

Runs all cases of the fuzzing server at the URI, and has it write its report. With a forwarder
between them, connects to its port: the suite insists on its own in the Host header.
"""

from __future__ import annotations

import contextlib
import ssl
import sys

from syncws import ConnectionClosed, connect

AGENT = "syncws"
MAX_SIZE = 32 * 1024 * 1024  # bytes; the largest message of the suite has half of it


def main(uri, authority=None, port=None):
    # No pings of our own: the suite waits for what it expects, and for nothing else.
    options = {"max_size": MAX_SIZE, "ping_interval": None}
    if authority is not None:
        options["ssl"] = ssl.create_default_context(cafile=authority)
        options["address"] = ("127.0.0.1", int(port))
    with connect(f"{uri}/getCaseCount", **options) as connection:
        count = int(connection.recv(timeout=10))
    for case in range(1, count + 1):
        with connect(f"{uri}/runCase?case={case}&agent={AGENT}", **options) as connection:
            echo(connection)
    # Written before the server ends the closing handshake.
    connect(f"{uri}/updateReports?agent={AGENT}", **options).close()


def echo(connection):
    # However a case ends, the suite judges it.
    with contextlib.suppress(ConnectionClosed):
        for message in connection:
            connection.send(message)


if __name__ == "__main__":
    main(*sys.argv[1:])
