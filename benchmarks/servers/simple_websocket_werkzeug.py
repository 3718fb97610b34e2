"""
simple-websocket under Werkzeug's threaded server, as with flask-sock: two threads per connection.

    python simple_websocket_werkzeug.py PORT [broadcast]
"""

import contextlib
import sys

from simple_websocket import ConnectionClosed, Server
from werkzeug.serving import WSGIRequestHandler, run_simple

port = int(sys.argv[1])
options = set(sys.argv[2:])
connections = set()


def echo(connection):
    while True:
        connection.send(connection.receive())


def publish(connection):
    connections.add(connection)
    try:
        while True:
            send_to_all(connection.receive())
    finally:
        connections.discard(connection)


def send_to_all(message):
    for connection in connections.copy():
        try:
            connection.send(message)
        except ConnectionClosed:
            connections.discard(connection)


def application(environ, start_response):
    connection = Server(environ)
    with contextlib.suppress(ConnectionClosed):
        (publish if "broadcast" in options else echo)(connection)
    # Werkzeug ends the connection after a response only, so flask-sock gives it one, too.
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]


class SilentHandler(WSGIRequestHandler):
    def log(self, *args):
        pass


run_simple("127.0.0.1", port, application, threaded=True, request_handler=SilentHandler)
