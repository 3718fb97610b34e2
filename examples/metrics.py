"""
An echo server whose numbers Prometheus can read, on the port of the WebSocket itself.

With syncws and its extra installed (pip install ".[prometheus]"):

    python examples/metrics.py [PORT]
    curl http://localhost:8765/metrics

The metrics of the program itself, here a counter of words, come along with those of the server.
"""

import sys

from prometheus_client import REGISTRY, Counter

from syncws import serve
from syncws.prometheus import ServerCollector, expose

words = Counter("echo_words", "Words in all messages.")


def echo(connection):
    for message in connection:
        words.inc(len(message.split()))
        connection.send(message)


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
with serve(echo, "localhost", port, process_request=expose("/metrics")) as server:
    REGISTRY.register(ServerCollector(server))
    print(f"ws://localhost:{server.server_address[1]}", flush=True)
    server.serve_forever()
