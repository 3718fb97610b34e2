"""
A server that ends gracefully when it gets SIGTERM, as from systemd, or SIGINT, as from Ctrl-C.

With syncws installed (pip install .):

    python examples/graceful_shutdown.py [PORT]

serve_forever() takes care of the signals: all clients get a close frame with code 1001 at once, and
handlers have five seconds to end. What had to be cut off is in the report.
"""

import sys

from syncws import serve


def count(connection):
    words = 0
    try:
        for message in connection:  # ends when the server shuts down, too
            words += len(message.split())
            connection.send(str(words))
    finally:
        print(f"saved: {words} words")


port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
server = serve(count, "localhost", port, close_timeout=5)
print(f"ws://localhost:{server.server_address[1]}", flush=True)
server.serve_forever()
report = server.shutdown()
for handler in report.running:
    print(f"still running, at:\n{handler.stack}")
print(f"{report.closed} closed, {report.aborted} cut off")
