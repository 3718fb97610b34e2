"""
syncws: one thread per connection.

    python syncws_threads.py PORT [broadcast] [deflate] [cork] [affinity]
"""

import sys

from syncws import broadcast, serve

port = int(sys.argv[1])
options = set(sys.argv[2:])
connections = set()


def echo(connection):
    for message in connection:
        connection.send(message)


def echo_together(connection):
    """Answer all messages that have arrived with one system call."""
    while True:
        messages = connection.recv_many()
        with connection.cork():
            for message in messages:
                connection.send(message)


def publish(connection):
    connections.add(connection)
    try:
        for message in connection:
            broadcast(connections.copy(), message)
    finally:
        connections.discard(connection)


handler = publish if "broadcast" in options else echo_together if "cork" in options else echo
settings = {"compression": "deflate" if "deflate" in options else None}
if "affinity" in options:
    settings["affinity"] = "auto"
with serve(handler, "127.0.0.1", port, **settings) as server:
    server.serve_forever()
