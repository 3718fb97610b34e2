"""
websockets, its threading server: one thread for the handler, one to read, one for keepalive.

    python websockets_sync.py PORT [broadcast] [deflate]
"""

import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.server import serve

port = int(sys.argv[1])
options = set(sys.argv[2:])
connections = set()


def echo(connection):
    for message in connection:
        connection.send(message)


def publish(connection):
    connections.add(connection)
    try:
        for message in connection:
            send_to_all(message)
    finally:
        connections.discard(connection)


def send_to_all(message):
    for connection in connections.copy():
        try:
            connection.send(message)
        except ConnectionClosed:
            connections.discard(connection)


handler = publish if "broadcast" in options else echo
compression = "deflate" if "deflate" in options else None
with serve(handler, "127.0.0.1", port, compression=compression) as server:
    server.serve_forever()
