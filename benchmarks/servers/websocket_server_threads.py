"""
websocket-server: one thread per connection.

    python websocket_server_threads.py PORT [broadcast]
"""

import logging
import sys

from websocket_server import WebsocketServer

port = int(sys.argv[1])
options = set(sys.argv[2:])


def echo(client, server, message):
    server.send_message(client, message)


def publish(client, server, message):
    server.send_message_to_all(message)


server = WebsocketServer(host="127.0.0.1", port=port, loglevel=logging.ERROR)
server.set_fn_message_received(publish if "broadcast" in options else echo)
server.run_forever()
