"""
An echo server in several processes, which Gunicorn starts, watches, restarts and reloads.

With syncws and Gunicorn installed (pip install .[gunicorn]):

    gunicorn -k syncws.gunicorn.Worker -w 2 -b localhost:8765 --pythonpath examples gunicorn_app:app

SIGHUP to Gunicorn's first process loads changed code, SIGTERM ends it. Clients that are connected
have five seconds to finish; after that they get close code 1001. To try it in one process:

    python examples/gunicorn_app.py [PORT]
"""

import sys

from syncws import serve
from syncws.gunicorn import App


def echo(connection):
    for message in connection:
        connection.send(message)


options = {"health": "/healthz", "max_size": 65536}
app = App(echo, drain=5, **options)

if __name__ == "__main__":
    port = int(sys.argv[1]) if len(sys.argv) > 1 else 8765
    with serve(echo, "localhost", port, **options) as server:
        print(f"ws://localhost:{server.server_address[1]}", flush=True)
        server.serve_forever()
