"""
A WebSocket in a Flask application: views tell browsers what has happened.

With syncws and Flask installed (pip install . flask):

    python examples/flask_app.py [PORT FLASK_PORT]

Open http://localhost:5000/ in a tab, and http://localhost:5000/notify/hello in another.
"""

import signal
import sys

from flask import Flask

from syncws import broadcast, serve

app = Flask(__name__)


@app.route("/")
def page():
    return f"<script>new WebSocket('ws://localhost:{port}').onmessage = e => alert(e.data)</script>"


@app.route("/notify/<text>")
def notify(text):
    return f"{broadcast(server.connections, text).sent} told\n"


def listen(connection):
    for message in connection:
        connection.send(f"You said: {message}")


port, flask_port = map(int, sys.argv[1:] or [8765, 5000])
signal.signal(signal.SIGTERM, signal.default_int_handler)  # SIGTERM acts as Ctrl-C
with serve(listen, "localhost", port).start() as server:
    print(f"ws://localhost:{port}", flush=True)
    app.run("localhost", flask_port)
