"""
An echo server: sends each message back to where it came from.

With syncws installed (pip install .):

    python examples/echo_server.py [PORT]

Then run echo_client.py in another terminal. Ctrl-C or SIGTERM ends the server.
"""

import sys

from syncws import serve


def echo(connection):
    for message in connection:
        connection.send(message)


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
with serve(echo, "localhost", port) as server:
    print(f"ws://localhost:{server.server_address[1]}", flush=True)
    server.serve_forever()
