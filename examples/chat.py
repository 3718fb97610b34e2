"""
A chat room: what one client says, all clients get.

With syncws installed (pip install .):

    python examples/chat.py [PORT]

Clients choose their name in the path, as in ws://localhost:8765/Ada. A client that does not read
holds up nobody: broadcast() leaves messages out for those that cannot follow.
"""

import sys

from syncws import broadcast, serve


def chat(connection):
    name = connection.request.path.strip("/") or "somebody"
    room = connection.server
    broadcast(room.connections, f"{name} came in")
    try:
        for message in connection:
            broadcast(room.connections, f"{name}: {message}")
    finally:
        broadcast(room.connections, f"{name} left")


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
with serve(chat, "localhost", port) as server:
    print(f"ws://localhost:{server.server_address[1]}", flush=True)
    server.serve_forever()
