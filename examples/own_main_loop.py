"""
A server inside a program that has a main loop of its own: here one that counts and publishes.

With syncws installed (pip install .):

    python examples/own_main_loop.py [PORT]

Each client gets the counter ten times a second, and may send a number to set it. Handlers
run in threads of their own; they leave what they want in a queue, so that only the main loop
touches the state. start() returns once the server listens; the end of `with` shuts it down.
"""

import queue
import signal
import sys

from syncws import broadcast, serve

wishes = queue.Queue()


def listen(connection):
    for message in connection:
        wishes.put(message)


signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM acts as Ctrl-C
port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
with serve(listen, "localhost", port).start() as server:
    counter = 0
    try:
        print(f"ws://localhost:{server.server_address[1]}", flush=True)
        while True:
            try:
                counter = int(wishes.get(timeout=0.1))
            except (queue.Empty, ValueError):
                counter += 1
            broadcast(server.connections, str(counter))
    except KeyboardInterrupt:
        print(f"ended at {counter}")
