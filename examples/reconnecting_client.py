"""
A client that stays connected: prints messages, and connects again whenever the connection ends.

With syncws installed (pip install .), and a server running, such as own_main_loop.py:

    python examples/reconnecting_client.py [URI]

It may be started before the server, and goes on when the server restarts. Ctrl-C ends it.
"""

import logging
import signal
import sys

from syncws import ConnectionClosed, reconnect

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

connections = reconnect(sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765")

# stop() never waits, so a signal handler may call it; any thread may.
signal.signal(signal.SIGINT, lambda *_: connections.stop())
signal.signal(signal.SIGTERM, lambda *_: connections.stop())

for connection in connections:
    try:
        for message in connection:
            print(message, flush=True)
    except ConnectionClosed:
        pass  # lost without a goodbye; the log says why
