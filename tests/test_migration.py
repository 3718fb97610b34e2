"""
Programs as the documentation of ``websockets.sync`` has them: with other imports, they do the same.

Each is a server, a client, and what the client prints. The text is run as it stands with
``websockets``, and with its imports alone changed (see ``IMPORTS``) with this package.
"""

from __future__ import annotations

import gc
import importlib.metadata
import re
import signal
import socket
import sys
import threading
from typing import NamedTuple

import pytest
from conftest import PATIENCE, wait_until
from supervisor import launch

# What has to be changed in a program.
IMPORTS = [
    (r"\bfrom websockets\.sync\.router import", "from syncws.routing import"),
    (r"\bfrom websockets(\.\w+)* import", "from syncws import"),
]


class Example(NamedTuple):
    """
    Two programs.

    Attributes:
        server: program that serves, at ``localhost:8765``.
        client: program that prints.
        prints: its lines.
    """

    server: str
    client: str
    prints: list


ECHO = """
from websockets.sync.server import serve

def echo(websocket):
    for message in websocket:
        websocket.send(message)

with serve(echo, "localhost", 8765) as server:
    server.serve_forever()
"""

EXAMPLES = {
    "hello": Example(
        """
from websockets.sync.server import serve

def greet(websocket):
    name = websocket.recv()
    websocket.send(f"Good morning, {name}!")

with serve(greet, "localhost", 8765) as server:
    server.serve_forever()
""",
        """
from websockets.sync.client import connect

def main():
    with connect("ws://localhost:8765") as websocket:
        websocket.send("Ada")
        print(websocket.recv())

main()
""",
        ["Good morning, Ada!"],
    ),
    "echo": Example(
        ECHO,
        """
from websockets.sync.client import connect

with connect("ws://localhost:8765") as websocket:
    for message in ["text", b"bytes", "", ["in ", "three ", "parts"]]:
        websocket.send(message)
        print(repr(websocket.recv()))
""",
        ["'text'", "b'bytes'", "''", "'in three parts'"],
    ),
    "types of frames": Example(
        ECHO,
        """
from websockets.sync.client import connect

with connect("ws://localhost:8765") as websocket:
    websocket.send(b"bytes as text", text=True)
    print(repr(websocket.recv()))
    websocket.send("text as bytes", text=False)
    print(repr(websocket.recv()))
    websocket.send("text")
    print(repr(websocket.recv(decode=False)))
    websocket.send("streamed")
    print("".join(websocket.recv_streaming()))
""",
        ["'bytes as text'", "b'text as bytes'", "b'text'", "streamed"],
    ),
    "broadcast": Example(
        """
from websockets.sync.server import broadcast, serve

def relay(websocket):
    for message in websocket:
        broadcast(websocket.server.connections, message)

with serve(relay, "localhost", 8765) as server:
    server.serve_forever()
""",
        """
from websockets.sync.client import connect

with connect("ws://localhost:8765") as first, connect("ws://localhost:8765") as second:
    second.ping().wait(10)
    first.send("for all")
    print(first.recv())
    print(second.recv(timeout=10))
""",
        ["for all", "for all"],
    ),
    "basic authentication": Example(
        """
from websockets.sync.server import basic_auth, serve

def greet(websocket):
    websocket.send(f"Hello {websocket.username}!")

authenticate = basic_auth(realm="test server", credentials=("ada", "lovelace"))
with serve(greet, "localhost", 8765, process_request=authenticate) as server:
    server.serve_forever()
""",
        """
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

with connect("ws://ada:lovelace@localhost:8765") as websocket:
    print(websocket.recv())
try:
    connect("ws://ada:wrong@localhost:8765")
except InvalidStatus as exc:
    print(exc.response.status_code, exc.response.headers["WWW-Authenticate"].split()[0])
""",
        ["Hello ada!", "401 Basic"],
    ),
    "unix socket": Example(
        """
import os
from websockets.sync.server import unix_serve

def echo(websocket):
    for message in websocket:
        websocket.send(message)

with unix_serve(echo, "websocket.sock") as server:
    server.serve_forever()
""",
        """
from websockets.sync.client import unix_connect

with unix_connect("websocket.sock") as websocket:
    websocket.send("locally")
    print(websocket.recv())
""",
        ["locally"],
    ),
    "tls": Example(
        """
import ssl
from websockets.sync.server import serve

def echo(websocket):
    for message in websocket:
        websocket.send(message)

context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain("cert.pem", "key.pem")
with serve(echo, "localhost", 8765, ssl=context) as server:
    server.serve_forever()
""",
        """
import ssl
from websockets.sync.client import connect

context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
context.load_verify_locations("ca.pem")
with connect("wss://localhost:8765", ssl=context) as websocket:
    websocket.send("secretly")
    print(websocket.recv())
""",
        ["secretly"],
    ),
    "routing": Example(
        """
from websockets.sync.router import route
from werkzeug.routing import Map, Rule

def channel(websocket, channel_id):
    websocket.send(f"channel {channel_id}")

url_map = Map([Rule("/channel/<int:channel_id>", endpoint=channel)])
with route(url_map, "localhost", 8765) as server:
    server.serve_forever()
""",
        """
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

with connect("ws://localhost:8765/channel/42") as websocket:
    print(websocket.recv())
try:
    connect("ws://localhost:8765/elsewhere")
except InvalidStatus as exc:
    print(exc.response.status_code)
""",
        ["channel 42", "404"],
    ),
    "health check": Example(
        """
import http
from websockets.sync.server import serve

def health_check(connection, request):
    if request.path == "/healthz":
        return connection.respond(http.HTTPStatus.OK, "OK\\n")

def echo(websocket):
    for message in websocket:
        websocket.send(message)

with serve(echo, "localhost", 8765, process_request=health_check) as server:
    server.serve_forever()
""",
        """
import urllib.request
from websockets.sync.client import connect

with urllib.request.urlopen("http://localhost:8765/healthz") as response:
    print(response.status, response.read())
with connect("ws://localhost:8765/ws") as websocket:
    websocket.send("and a WebSocket")
    print(websocket.recv())
""",
        ["200 b'OK\\n'", "and a WebSocket"],
    ),
    "headers and cookies": Example(
        """
from websockets.sync.server import serve

def tell(websocket):
    websocket.send(websocket.request.headers["Cookie"])

def set_cookie(connection, request, response):
    response.headers["Set-Cookie"] = "seen=1"

with serve(tell, "localhost", 8765, process_response=set_cookie) as server:
    server.serve_forever()
""",
        """
from websockets.sync.client import connect

with connect("ws://localhost:8765", additional_headers={"Cookie": "seen=0"}) as websocket:
    print(websocket.recv())
    print(websocket.response.headers["Set-Cookie"])
""",
        ["seen=0", "seen=1"],
    ),
    "closing": Example(
        """
from websockets.frames import CloseCode
from websockets.sync.server import serve

def refuse(websocket):
    websocket.recv()
    websocket.close(CloseCode.POLICY_VIOLATION, "not like this")

with serve(refuse, "localhost", 8765) as server:
    server.serve_forever()
""",
        """
from websockets.exceptions import ConnectionClosed, ConnectionClosedError
from websockets.sync.client import connect

with connect("ws://localhost:8765") as websocket:
    websocket.send("?")
    try:
        websocket.recv()
    except ConnectionClosed as exc:
        print(type(exc).__name__, exc.rcvd.code, exc.rcvd.reason, exc.rcvd_then_sent)
        print(exc)
    print(websocket.close_code, websocket.close_reason, websocket.state.name)
""",
        [
            "ConnectionClosedError 1008 not like this True",
            "received 1008 (policy violation) not like this; "
            "then sent 1008 (policy violation) not like this",
            "1008 not like this CLOSED",
        ],
    ),
    "ending the loop": Example(
        """
from websockets.sync.server import serve

def count(websocket):
    for number in range(3):
        websocket.send(str(number))

with serve(count, "localhost", 8765) as server:
    server.serve_forever()
""",
        """
from websockets.exceptions import ConnectionClosedOK
from websockets.sync.client import connect

with connect("ws://localhost:8765") as websocket:
    for message in websocket:
        print(message)
    try:
        websocket.recv()
    except ConnectionClosedOK as exc:
        print(exc)
""",
        ["0", "1", "2", "received 1000 (OK); then sent 1000 (OK)"],
    ),
    "timeouts and pings": Example(
        ECHO,
        """
from websockets.sync.client import connect

with connect("ws://localhost:8765", open_timeout=5, ping_interval=None) as websocket:
    try:
        websocket.recv(timeout=0.05)
    except TimeoutError as exc:
        print("nothing came")
    pong = websocket.ping()
    print(pong.wait(timeout=10))
    websocket.pong()
""",
        ["nothing came", "True"],
    ),
    "subprotocols": Example(
        """
from websockets.sync.server import serve

def tell(websocket):
    websocket.send(str(websocket.subprotocol))

with serve(tell, "localhost", 8765, subprotocols=["v2", "v1"]) as server:
    server.serve_forever()
""",
        """
from websockets.sync.client import connect

with connect("ws://localhost:8765", subprotocols=["v1"]) as websocket:
    print(websocket.recv(), websocket.subprotocol)
""",
        ["v1 v1"],
    ),
    "reconnecting": Example(
        """
from websockets.sync.server import serve

def once(websocket):
    websocket.send(websocket.recv())

with serve(once, "localhost", 8765) as server:
    server.serve_forever()
""",
        """
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import reconnect

rounds = 0
for websocket in reconnect("ws://localhost:8765", reconnect_delays=lambda: iter([0, 0, 0])):
    try:
        rounds += 1
        websocket.send(f"round {rounds}")
        print(websocket.recv())
        if rounds == 2:
            break
        websocket.recv()
    except ConnectionClosed:
        continue
""",
        ["round 1", "round 2"],
    ),
    "compression and limits": Example(
        """
from websockets.sync.server import serve

def echo(websocket):
    for message in websocket:
        websocket.send(message)

options = {"compression": None, "max_size": 100, "max_queue": 4, "ping_timeout": 30}
with serve(echo, "localhost", 8765, close_timeout=5, server_header=None, **options) as server:
    server.serve_forever()
""",
        """
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

with connect("ws://localhost:8765", user_agent_header=None) as websocket:
    print("Server" in websocket.response.headers)
    websocket.send("x" * 101)
    try:
        websocket.recv()
    except ConnectionClosedError as exc:
        print(exc.rcvd.code)
""",
        ["False", "1009"],
    ),
}


def translate(source, library):
    """A program with the imports of a library."""
    if library == "syncws":
        for pattern, replacement in IMPORTS:
            source = re.sub(pattern, replacement, source)
        assert "import websockets" not in source
    return source


@pytest.fixture(params=["websockets", "syncws"])
def library(request):
    """The library that a program is run with."""
    if request.param == "websockets" and websockets_version() < 17:
        pytest.skip("the programs are for websockets 17.4, which is not installed")
    return request.param


def websockets_version():
    """The major version of websockets, 0 if it is not installed."""
    try:
        return int(importlib.metadata.version("websockets").partition(".")[0])
    except importlib.metadata.PackageNotFoundError:
        return 0


@pytest.fixture
def folder(tmp_path, authority, monkeypatch):
    """The current folder, with certificates."""
    certificate = authority.issue_cert("localhost")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Serving:
    """A program that serves, in a thread, until the end of a ``with`` block."""

    def __init__(self, source):
        self._names = {}
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(source,))

    def _run(self, source):
        try:
            exec(source, self._names)
        except Exception as exc:
            self._error = exc

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: "server" in self._names or not self._thread.is_alive())
        assert self._error is None

    def __exit__(self, *args):
        self._names["server"].shutdown()
        self._thread.join(PATIENCE)
        self._names.clear()
        gc.collect()  # websockets leaves the selector of its accept loop to that
        assert not self._thread.is_alive()
        assert self._error is None


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_program_for_websockets_does_the_same_with_its_imports_changed(
    name, library, port, folder, capsys
):
    example = EXAMPLES[name]
    if "AF_UNIX" not in dir(socket) and "unix_" in example.server:
        pytest.skip("there are no Unix sockets")
    server, client = (
        translate(source.replace("8765", str(port)), library)
        for source in (example.server, example.client)
    )
    with Serving(server):
        exec(client, {})
    assert capsys.readouterr().out.splitlines() == example.prints


SIGNALS = """
import signal
import threading
from websockets.sync.server import serve

def echo(websocket):
    for message in websocket:
        websocket.send(message)
    print("handler ended")

with serve(echo, "localhost", 8765) as server:
    def end(signum, frame):
        threading.Thread(target=server.shutdown).start()

    signal.signal(signal.SIGTERM, end)
    print("ready", flush=True)
    server.serve_forever()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send the signal")
def test_a_program_that_ends_by_a_signal_does_so_with_its_imports_changed(library, port):
    client = translate("from websockets.sync.client import connect\n", library)
    names = {}
    exec(client, names)
    source = translate(SIGNALS.replace("8765", str(port)), library)
    with launch([sys.executable, "-c", source]) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            with names["connect"](f"ws://localhost:{port}") as websocket:
                websocket.send("hello")
                assert websocket.recv() == "hello"
                process.send_signal(signal.SIGTERM)
                assert list(websocket) == []
                assert websocket.close_code == 1001
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "handler ended\n", "")
