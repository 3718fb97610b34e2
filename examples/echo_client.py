"""
A client: sends its arguments as messages, and prints what comes back.

With syncws installed (pip install .), and echo_server.py running:

    python examples/echo_client.py [URI [MESSAGE...]]
"""

import sys

from syncws import connect

uri = sys.argv[1] if len(sys.argv) > 1 else "ws://localhost:8765"
messages = sys.argv[2:] or ["Hello!", "Goodbye!"]

with connect(uri) as connection:
    for message in messages:
        connection.send(message)
        print(connection.recv(timeout=5))
