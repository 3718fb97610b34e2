"""
ws4py on wsgiref's server, one thread per connection.

    python ws4py_threads.py PORT [broadcast]

As it comes, ws4py has one thread read all connections of that server. Here each connection is
read in the thread that shook hands, which is faster.
"""

import logging
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import make_server

from ws4py.server.wsgirefserver import WebSocketWSGIRequestHandler, WSGIServer
from ws4py.server.wsgiutils import WebSocketWSGIApplication
from ws4py.websocket import EchoWebSocket, WebSocket

logging.getLogger("ws4py").setLevel(logging.CRITICAL)
port = int(sys.argv[1])
options = set(sys.argv[2:])
connections = set()


class Publisher(WebSocket):
    def opened(self):
        connections.add(self)

    def closed(self, code, reason=None):
        connections.discard(self)

    def received_message(self, message):
        for connection in connections.copy():
            try:
                connection.send(message.data, message.is_binary)
            except (OSError, RuntimeError):  # it is closed
                connections.discard(connection)


class ThreadingServer(ThreadingMixIn, WSGIServer):
    daemon_threads = True
    request_queue_size = 1024

    def link_websocket_to_server(self, websocket):
        websocket.run()

    def shutdown_request(self, request):
        request.close()

    def handle_error(self, request, client_address):
        pass


class SilentHandler(WebSocketWSGIRequestHandler):
    def log_message(self, *args):
        pass


server = make_server(
    "127.0.0.1",
    port,
    WebSocketWSGIApplication(handler_cls=Publisher if "broadcast" in options else EchoWebSocket),
    server_class=ThreadingServer,
    handler_class=SilentHandler,
)
server.serve_forever()
