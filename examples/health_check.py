"""
Plain HTTP beside WebSocket on one port: a health check, and a page of text.

With syncws installed (pip install .):

    python examples/health_check.py [PORT]
    curl -i http://localhost:8765/healthz
    curl -i http://localhost:8765/

A load balancer is told 200 while the server accepts connections, and 503 once it shuts down.
"""

import sys

from syncws import serve


def echo(connection):
    for message in connection:
        connection.send(message)


def answer_http(connection, request):
    if request.path == "/":
        return connection.respond(200, f"{len(connection.server.connections)} connected\n")
    if request.path != "/ws":
        return connection.respond(404, "There is / and /healthz, and a WebSocket at /ws.\n")
    return None  # goes on with the WebSocket handshake


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
with serve(echo, "localhost", port, health="/healthz", process_request=answer_http) as server:
    print(f"ws://localhost:{server.server_address[1]}/ws", flush=True)
    server.serve_forever()
