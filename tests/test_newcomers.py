"""
What newcomers meet when something is wrong, as it is printed and as docs/errors.rst has it.

``SAID`` has the messages with a function that provokes each; ``…`` stands for what differs
from time to time and from system to system.
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import logging
import pathlib
import re
import socket
import ssl
import sys
import threading

import pytest
from commandline import echo
from links import PATIENCE, Held, handshake
from peers import PING, Task, bare_server

import syncws
from syncws import broadcast, connect, serve, unix_connect
from syncws.cli import main
from syncws.listening import explain_refusal

ROOT = pathlib.Path(__file__).parent.parent

APP = """
async def feed(connection):
    pass


def handler(connection):
    pass
"""


class World:
    """What the mistakes need: certificates, a folder, what was printed and logged."""

    def __init__(self, authority, server_context, client_context, folder, capsys, caplog):
        self.authority = authority
        self.server_context = server_context
        self.client_context = client_context
        self.folder = folder
        self._capsys = capsys
        self._caplog = caplog

    def printed(self, *arguments):
        """The last line that a command prints to standard error."""
        with contextlib.suppress(SystemExit):
            main(arguments)
        return self._capsys.readouterr().err.splitlines()[-1]

    def logged_error(self):
        """The last line of the traceback in the log."""
        return next(
            f"{type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
            for record in self._caplog.records
            if record.exc_info
        )

    def logged(self, start):
        """The line of the log with this start, as ``logging.basicConfig()`` has it."""
        lines = [
            f"{record.levelname}:{record.name}:{record.getMessage()}"
            for record in self._caplog.records
        ]
        found = [line for line in lines if line.split(":", 2)[2].startswith(start)]
        return found[0] if found else f"nothing but {lines}"


@pytest.fixture
def world(authority, server_context, client_context, tmp_path, capsys, caplog, monkeypatch):
    caplog.set_level(logging.INFO)
    (tmp_path / "app.py").write_text(APP, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    yield World(authority, server_context, client_context, tmp_path, capsys, caplog)
    sys.modules.pop("app", None)


def raised(function, *args, **kwargs):
    """What a call raises, as the last line of its traceback has it."""
    try:
        function(*args, **kwargs)
    except Exception as exc:
        return f"{type(exc).__name__}: {exc}"
    return "nothing"


@contextlib.contextmanager
def serving(handler=echo, **options):
    """A server in the background; yields its host and port."""
    with serve(handler, "127.0.0.1", 0, **options).start() as server:
        yield f"127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def pair(handler=echo, *, client=None, **options):
    """A connection to a server; yields the client's end."""
    with serving(handler, **options) as address:
        with connect(f"ws://{address}/", **(client or {})) as connection:
            yield connection


def end_of(handler, *, client=None, **options):
    """How ``recv()`` tells the end of a connection to a server with this handler."""
    with pair(handler, client=client, **options) as connection:
        return raised(lambda: connection.recv(timeout=PATIENCE))


@contextlib.contextmanager
def answering(answer):
    """A server of another kind, that answers the first request with some bytes; yields its URI."""

    def run():
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(PATIENCE)
            sock.recv(65536)
            sock.sendall(answer)
            sock.shutdown(socket.SHUT_WR)
            sock.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = Task(run)
        yield f"ws://127.0.0.1:{listener.getsockname()[1]}/"
        task.join(PATIENCE)


def answered(status, body="", head=""):
    response = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{head}\r\n{body}".encode()
    with answering(response) as uri:
        return raised(connect, uri)


# --- Making a server ------------------------------------------------------------------------------


def handler_that_is(function):
    return lambda _: raised(serve, function, "127.0.0.1", 0)


def option(**options):
    return lambda _: raised(serve, echo, "127.0.0.1", 0, **options)


def async_handler(_):
    async def chat(connection):
        pass

    return raised(serve, chat, "127.0.0.1", 0)


def generator(_):
    def chat(connection):
        yield

    return raised(serve, {"/chat": chat}, "127.0.0.1", 0)


def handler_without_argument(_):
    def chat():
        pass

    return raised(serve, chat, "127.0.0.1", 0)


def handler_with_a_path(_):
    def chat(connection, path):
        pass

    return raised(serve, chat, "127.0.0.1", 0)


def hook_without_arguments(_):
    def hook():
        pass

    return raised(serve, echo, "127.0.0.1", 0, process_request=hook)


def port_is_taken(_):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return raised(serve, echo, "127.0.0.1", sock.getsockname()[1])


def port_is_privileged(_):
    # Whether it is depends on the system and the user: what it says then is all that is tried.
    refused = PermissionError(errno.EACCES, "Permission denied")
    return raised(lambda: (_ for _ in ()).throw(explain_refusal(refused, "localhost", 80)))


def socket_is_there(world):
    path = str(world.folder / "socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        return raised(syncws.unix_serve, echo, path).replace(path, "/run/app.sock")


def folder_is_missing(world):
    path = str(world.folder / "missing" / "socket")
    return raised(syncws.unix_serve, echo, path).replace(path, "/run/app/app.sock")


def served_twice(_):
    with serve(echo, "127.0.0.1", 0).start() as server:
        return raised(server.serve_forever)


# --- Connecting -----------------------------------------------------------------------------------


def no_server(_):
    with socket.socket() as sock:  # bound, and so nobody else's, but not listening
        sock.bind(("127.0.0.1", 0))
        return raised(connect, f"ws://127.0.0.1:{sock.getsockname()[1]}/")


def uri(text):
    return lambda _: raised(connect, text)


def no_socket(world):
    return raised(unix_connect, str(world.folder / "socket"))


def certificate_of_ones_own(world):
    with serving(ssl=world.server_context) as address:
        return raised(connect, f"wss://{address}/")


def certificate_for_another_host(world):
    with serving(ssl=world.server_context) as address:
        options = {"ssl": world.client_context, "server_hostname": "example.com"}
        return raised(connect, f"wss://{address}/", **options)


def expired_certificate(world):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime(2020, 1, 1), datetime.datetime(2020, 2, 1)
    world.authority.issue_cert("127.0.0.1", not_before=past[0], not_after=past[1]).configure_cert(
        context
    )
    with serving(ssl=context) as address:
        return raised(connect, f"wss://{address}/", ssl=world.client_context)


def no_certificate(world):
    with serving(ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)) as address:
        return raised(connect, f"wss://{address}/", ssl=world.client_context)


def plain_to_tls(world):
    with serving(ssl=world.server_context) as address:
        return raised(connect, f"ws://{address}/").replace(address, "localhost:8765")


def tls_to_plain(world):
    with serving() as address:
        said = raised(connect, f"wss://{address}/", ssl=world.client_context)
        return said.replace(address, "localhost:8765")


def wrong_path(_):
    with serving({"/chat": echo}) as address:
        return raised(connect, f"ws://{address}/caht")


def no_subprotocol(_):
    with serving(subprotocols=["chat"]) as address:
        return raised(connect, f"ws://{address}/")


def refused_origin(_):
    with serving() as address:
        return raised(connect, f"ws://{address}/", origin="https://example.com")


def no_http(_):
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as uri:
        return raised(connect, uri)


def no_answer(_):
    with serve(echo, "127.0.0.1", 0) as server:  # and nobody calls start()
        port = server.server_address[1]
        return raised(connect, f"ws://127.0.0.1:{port}/", open_timeout=0.1)


def too_many(_):
    with serving(max_connections=1) as address, connect(f"ws://{address}/"):
        return raised(connect, f"ws://{address}/")


def client_option(**options):
    return lambda _: raised(connect, "ws://localhost:1/", **options)


# --- The log of the server ------------------------------------------------------------------------


def logged_origin(world):
    refused_origin(world)
    return world.logged("opening handshake refused")


def logged_path(world):
    wrong_path(world)
    return world.logged("no handler")


def logged_tls(world):
    tls_to_plain(world)
    return world.logged("opening handshake failed")


def logged_plain(world):
    plain_to_tls(world)
    return world.logged("opening handshake failed")


def logged_page(world):
    with serving() as address:
        host, port = address.split(":")
        with socket.create_connection((host, int(port))) as sock:
            sock.settimeout(PATIENCE)
            handshake(sock, Connection="keep-alive", Upgrade="")
    return world.logged("opening handshake refused")


def logged_failure(world):
    def fail(connection):
        raise ValueError("a mistake of the application")

    end_of(fail)
    return world.logged("connection handler failed")


def logged_limit(world):
    too_many(world)
    return world.logged("connections refused")


# --- Sending and receiving ------------------------------------------------------------------------


def sending(*args, **kwargs):
    def send(_):
        with pair() as connection:
            return raised(connection.send, *args, **kwargs)

    return send


def closing(*args):
    def close(_):
        with pair() as connection:
            return raised(connection.close, *args)

    return close


def closed_by_us(_):
    with pair() as connection:
        connection.close()
        return raised(connection.recv)


def lost(_):
    return end_of(lambda connection: connection.abort())


def too_big_for_us(_):
    options = {"max_size": 100, "compression": None}
    return end_of(lambda connection: connection.send("x" * 2000), client=options)


def too_big_for_the_server(_):
    with pair(max_size=100) as connection:
        connection.send("x" * 200, compress=False)
        return raised(lambda: connection.recv(timeout=PATIENCE))


def bytes_as_text(_):
    with pair() as connection:
        connection.send(b"\xff", text=True)
        return raised(lambda: connection.recv(timeout=PATIENCE))


def no_pong(_):
    with bare_server(ping_interval=0.05, ping_timeout=0.05, close_timeout=0.1) as (wire, client):
        assert wire.receive()[0] & 0xF == PING
        return raised(lambda: client.recv(timeout=PATIENCE))


def nothing_received(_):
    with pair() as connection:
        return raised(connection.recv, timeout=0.01)


def send_beside_fragments(_):
    go_on = threading.Event()
    with pair() as connection:
        sent = threading.Event()

        def parts():
            yield "a"
            sent.set()
            go_on.wait(PATIENCE)

        task = Task(connection.send, parts())
        assert sent.wait(PATIENCE)
        said = raised(connection.send, "b")
        go_on.set()
        task.result()
        return said


def broadcast_of(message):
    return lambda _: raised(broadcast, set(), message)


def broadcast_to_one(_):
    with pair() as connection:
        return raised(broadcast, connection, "hello")


def broadcast_to_a_server(_):
    with serve(echo, "127.0.0.1", 0) as server:
        return raised(broadcast, server, "hello")


def awaited(_):
    async def program(connection):
        await connection

    with pair() as connection:
        return raised(program(connection).send, None)


def shut_down(_):
    held = Held()
    with serve(held, "127.0.0.1", 0).start() as server:
        with connect(f"ws://127.0.0.1:{server.server_address[1]}/") as connection:
            held.wait()
            server.close()
            said = raised(lambda: connection.recv(timeout=PATIENCE))
            held.release()
            return said


def failing(_):
    return end_of(lambda connection: 1 / 0)


def logged_exit(world):
    threads = []

    def handler(connection):
        threads.append(threading.current_thread())
        sys.exit()

    # That of pytest takes any exception for a failure.
    threading.excepthook, before = lambda args: None, threading.excepthook
    try:
        end_of(handler)
        threads[0].join(PATIENCE)
    finally:
        threading.excepthook = before
    return world.logged("connection handler failed")


def logged_hook(world):
    with serving(process_request=lambda connection, request: "no") as address:
        raised(connect, f"ws://{address}/")
    return world.logged_error()


def logged_running(world):
    goes_on, threads = threading.Event(), []

    def handler(connection):
        threads.append(threading.current_thread())
        goes_on.wait(PATIENCE)

    try:
        with serving(handler, close_timeout=0.1) as address:
            with contextlib.suppress(syncws.ConnectionClosed):
                connect(f"ws://{address}/").close()
    finally:
        goes_on.set()
        threads[0].join(PATIENCE)
    return world.logged("a handler still runs").splitlines()[0]


# --- The command line -----------------------------------------------------------------------------


def command_port(world):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return world.printed("listen", f"--port={sock.getsockname()[1]}")


def command(*arguments):
    return lambda world: world.printed(*arguments)


def command_without_server(world):
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return world.printed("connect", f"ws://127.0.0.1:{sock.getsockname()[1]}/")


RESPONSES = "server rejected WebSocket connection: HTTP"

SAID = {
    # Making a server
    "OSError: [Errno …] cannot listen on 127.0.0.1 port …: …; another program listens there, "
    "perhaps an earlier run of this one: end it, or choose another port": port_is_taken,
    "PermissionError: [Errno …] cannot listen on localhost port 80: Permission denied; ports below "
    "1024 need privileges: choose a higher one": port_is_privileged,
    "OSError: [Errno …] cannot listen on 203.0.113.1 port …: …; host is a name or address of this "
    "machine, such as 'localhost', or '' for all": lambda _: raised(serve, echo, "203.0.113.1", 0),
    "OSError: [Errno …] cannot listen on /run/app.sock: …; there is a file already: remove it, "
    "unless another server listens on it": socket_is_there,
    "FileNotFoundError: [Errno …] cannot listen on /run/app/app.sock: …; its folder has to "
    "exist": folder_is_missing,
    "ValueError: host must be a name or address alone, not 'localhost:8765'; write serve(handler, "
    "'localhost', 8765)": lambda _: raised(serve, echo, "localhost:8765"),
    "TypeError: host must be a str or None, not 8765; write serve(handler, 'localhost', "
    "8765)": lambda _: raised(serve, echo, 8765),
    "TypeError: port must be an int or None, not '8765'": lambda _: raised(serve, echo, "", "8765"),
    "ValueError: port must be between 0 and 65535, not 87650": lambda _: raised(
        serve, echo, "localhost", 87650
    ),
    "TypeError: the handler must be a function that takes the connection, not None; write "
    "serve(handler, …), not serve(handler(), …)": handler_that_is(None),
    "TypeError: chat is an async function; handlers are ordinary ones, without async and await: "
    "each connection has a thread of its own": async_handler,
    "TypeError: chat has a yield, so that calling it does nothing; handlers send with "
    "connection.send()": generator,
    "TypeError: chat() can't be called with one argument, the connection": handler_without_argument,
    "TypeError: chat(connection, path) can't be called with one argument, the connection; its "
    "path is connection.request.path": handler_with_a_path,
    "TypeError: process_request must be a function that takes the connection and the request, "
    "not hook()": hook_without_arguments,
    "TypeError: serve() got an unexpected keyword argument 'ping_timeouts'; did you mean "
    "ping_timeout?": option(ping_timeouts=5),
    "TypeError: serve() got an unexpected keyword argument 'certfile'; write ssl=, with an "
    "ssl.SSLContext": option(certfile="cert.pem"),
    "TypeError: ssl must be an SSLContext, not 'cert.pem'; make one: "
    "ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), then load_cert_chain(cert, key)": option(
        ssl="cert.pem"
    ),
    "ValueError: ssl is an SSLContext for clients; make one: "
    "ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), then load_cert_chain(cert, key)": option(
        ssl=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    ),
    "ValueError: origins has 'example.com', which no browser sends; write scheme and host alone, "
    "as in 'https://example.com'": option(origins=["example.com"]),
    "TypeError: max_size must be a number or None, not '1M'": option(max_size="1M"),
    "TypeError: logger must be a logger, not 'chat'; write logging.getLogger('chat')": option(
        logger="chat"
    ),
    "ValueError: health must be a path that starts with a slash, not 'healthz'": option(
        health="healthz"
    ),
    "RuntimeError: the server is serving already": served_twice,
    # Connecting
    "ConnectionRefusedError: [Errno …] cannot connect to 127.0.0.1 port … (127.0.0.1: …); nothing "
    "listens there: is the server running, and the port right?": no_server,
    "FileNotFoundError: [Errno …] …": no_socket,
    "InvalidURI: http://localhost:8765 isn't a valid URI: scheme isn't ws or wss; use ws:// "
    "instead": uri("http://localhost:8765"),
    "InvalidURI: localhost:8765 isn't a valid URI: scheme isn't ws or wss; write "
    "ws://host:port/path": uri("localhost:8765"),
    "InvalidURI: ws://localhost:8765/#chat isn't a valid URI: fragment identifier is meaningless; "
    "a # is written %23": uri("ws://localhost:8765/#chat"),
    "TypeError: a URI must be a str, as in 'ws://host:port/path', not 8765": uri(8765),
    "TypeError: connect() got an unexpected keyword argument 'extra_headers'; write "
    "additional_headers={'Name': 'value'}": client_option(extra_headers={}),
    "TypeError: additional_headers must be a dictionary, {'Name': 'value'}, not 'Name: "
    "value'": client_option(additional_headers="Name: value"),
    "TypeError: open_timeout must be a number or None, not '5'": client_option(open_timeout="5"),
    "TypeError: subprotocols must be a list, not a str; write ['chat']": client_option(
        subprotocols="chat"
    ),
    "ValueError: ssl argument is incompatible with a ws:// URI; write wss://": client_option(
        ssl=True
    ),
    "TypeError: ssl must be an SSLContext, not 'cert.pem'; make one: "
    "ssl.create_default_context(cafile=...)": lambda _: raised(
        connect, "wss://localhost/", ssl="cert.pem"
    ),
    "SSLCertVerificationError: … certificate verify failed: …; for a certificate of your own pass "
    "ssl=ssl.create_default_context(cafile=...)": certificate_of_ones_own,
    "SSLCertVerificationError: … certificate verify failed: Hostname mismatch, certificate is not "
    "valid for 'example.com'. …; connect to the name in the certificate, or pass that as "
    "server_hostname": certificate_for_another_host,
    "SSLCertVerificationError: … certificate verify failed: certificate has expired …; the server "
    "needs another certificate, unless the clock here is wrong": expired_certificate,
    "SSLError: … handshake failure …; has the server at … a certificate? its log should say "
    "more": no_certificate,
    "SSL…Error: …; localhost:8765 closed the connection: if it has no TLS, use ws:// instead of "
    "wss://": tls_to_plain,
    "InvalidMessage: connection closed while reading HTTP response; is localhost:8765 a WebSocket "
    "server, or one with TLS (wss://)?": plain_to_tls,
    "InvalidMessage: invalid HTTP status line: SSH-2.0-…; … is no WebSocket server: is the port "
    "right?": no_http,
    "TimeoutError: timed out during the opening handshake; … took the connection: is a WebSocket "
    "server at work there?": no_answer,
    f"InvalidStatus: {RESPONSES} 200 (this is a page of a web server; is the path that of a "
    "WebSocket?)": lambda _: answered("200 OK", "<html>"),
    f"InvalidStatus: {RESPONSES} 400: Failed to open a WebSocket connection: missing subprotocol; "
    "expected one of chat.": no_subprotocol,
    f"InvalidStatus: {RESPONSES} 403: Failed to open a WebSocket connection: invalid Origin "
    "header: https://example.com. (the server may want another origin, see origin=, or "
    "credentials)": refused_origin,
    f"InvalidStatus: {RESPONSES} 404: There is no WebSocket at /caht on this server. (is the path "
    "right, and the port that of the WebSocket server?)": wrong_path,
    f"InvalidStatus: {RESPONSES} 502 (a proxy can't reach the server behind it: is that "
    "running?)": lambda _: answered("502 Bad Gateway", "<html>"),
    f"InvalidStatus: {RESPONSES} 503: Too many connections.": too_many,
    # The log of the server
    "WARNING:syncws.server:opening handshake refused: invalid Origin header: https://example.com; "
    "to allow it, add 'https://example.com' to the origins argument of serve(), as in "
    "origins=[SAME_HOST, 'https://example.com']; origins=None allows the pages of every "
    "host": logged_origin,
    "WARNING:syncws.server:connections refused: there are 1, max_connections": logged_limit,
    "ERROR:syncws.server:connection handler failed": logged_failure,
    "INFO:syncws.server:no handler for the path /caht; there are /chat": logged_path,
    "INFO:syncws.server:opening handshake failed: received a TLS handshake, but this port has "
    "no TLS; use ws:// there, or ssl= here": logged_tls,
    "INFO:syncws.server:opening handshake failed: [SSL: HTTP_REQUEST] …; use wss:// "
    "there": logged_plain,
    "ERROR:syncws.server:connection handler failed: sys.exit() ends its connection, not the "
    "program; use connection.server.close()": logged_exit,
    "TypeError: process_request must return a Response, such as connection.respond(404, 'text'), "
    "or None, not 'no'": logged_hook,
    "WARNING:syncws.server:a handler still runs after the shutdown: it has to return when its "
    "connection is closed; it is here:": logged_running,
    "INFO:syncws.server:opening handshake refused: invalid Connection header: "
    "keep-alive": logged_page,
    # Sending and receiving
    "TypeError: data must be str, bytes, or iterable, not int": sending(1),
    "TypeError: data is a dict-like object; send json.dumps(data)": sending({"a": 1}),
    "TypeError: iterable must contain bytes or str, not int": sending([1, 2]),
    "TypeError: data must be str or bytes, not int": broadcast_of(1),
    "TypeError: 'Server' object is not iterable": broadcast_to_a_server,
    "TypeError: connections must be a collection of connections, not one; write "
    "[it]": broadcast_to_one,
    "TypeError: …ClientConnection…await…": awaited,
    "TimeoutError: timed out in 0.0s": nothing_received,
    "ConnectionClosedOK: sent 1000 (OK); then received 1000 (OK)": closed_by_us,
    "ConnectionClosedOK: received 1000 (OK); then sent 1000 (OK)": lambda _: end_of(lambda _: None),
    "ConnectionClosedOK: received 1001 (going away); then sent 1001 (going away)": shut_down,
    "ConnectionClosedError: received 1011 (internal error); then sent 1011 (internal "
    "error)": failing,
    "ConnectionClosedError: no close frame received or sent": lost,
    "ConnectionClosedError: sent 1011 (internal error) keepalive ping timeout; no close frame "
    "received": no_pong,
    "ConnectionClosedError: sent 1009 (message too big) frame with 2000 bytes exceeds limit of 100 "
    "bytes (max_size); no close frame received": too_big_for_us,
    "ConnectionClosedError: received 1009 (message too big) frame with 200 bytes exceeds limit of "
    "100 bytes (max_size); then sent 1009 (message too big) …": too_big_for_the_server,
    "ConnectionClosedError: received 1007 (invalid frame payload data) invalid start byte at "
    "position 0; …": bytes_as_text,
    "ConcurrencyError: cannot call send while another thread is already running "
    "send": send_beside_fragments,
    "TypeError: a close code is an int, not 'bye'; write close(1000, 'reason')": closing("bye"),
    "ProtocolError: invalid status code: 404; write 1000 or 3000 to 4999": closing(404),
    "ProtocolError: control frame too long: a close reason has at most 123 bytes": closing(
        1000, "x" * 200
    ),
    # The command line
    "syncws: port … of 127.0.0.1 is taken; choose another with --port": command_port,
    "syncws: connection refused: nothing listens there": command_without_server,
    "syncws: there is no module nowhere here or in Python's path; expected "
    "module:function": command("serve", "nowhere:handler"),
    "syncws: app has no chat; its functions are feed, handler": command("serve", "app:chat"),
    "syncws: app:feed is an async function; handlers are ordinary ones, without async and await: "
    "each connection has a thread of its own": command("serve", "app:feed"),
    "syncws: no such file: cert.pem": command("serve", "app", "--port=0", "--cert=cert.pem"),
    "syncws connect: error: argument URI: http://localhost:8765 is the address of a page; did you "
    "mean ws://localhost:8765?": command("connect", "http://localhost:8765"),
}


def pattern(message):
    """A message with ``…`` for anything, as a regular expression."""
    return re.compile(re.escape(message).replace("…", ".*"))


@pytest.mark.parametrize("message", SAID)
def test_a_mistake_is_answered_with_what_to_do(message, world):
    said = SAID[message](world)
    assert pattern(message).fullmatch(said), said


def test_the_documentation_has_these_messages_and_no_others():
    text = (ROOT / "docs" / "errors.rst").read_text(encoding="utf-8")
    documented = re.findall(r"^   \* - ``(.+)``$", text, re.MULTILINE)
    assert sorted(documented) == sorted(SAID)
