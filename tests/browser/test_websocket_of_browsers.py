"""The WebSocket of browsers, on a page of its own: messages, close codes, compression, restarts."""

from __future__ import annotations

import contextlib
import json
import threading

import pytest
from conftest import wait_until

from browser.ways import DIRECT, PROXIED
from syncws import ConnectionClosed, serve

pytestmark = pytest.mark.browser

PATIENCE = 20  # seconds

# What no proxy knows of.
directly = pytest.mark.parametrize("way", DIRECT, indirect=True)

# Opens a connection and hands it to a function; whatever comes of that is the result.
SCRIPT = """
function talk(path, act, protocols) {
  return new Promise((resolve) => {
    const url = new URL(path, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    const socket = new WebSocket(url, protocols || []);
    socket.binaryType = "arraybuffer";
    socket.got = [];
    socket.onmessage = (event) => {
      socket.got.push(event.data);
      if (act.message) act.message(socket, resolve);
    };
    socket.onopen = () => { if (act.open) act.open(socket, resolve); };
    socket.onclose = ({code, reason, wasClean}) => resolve({code, reason, wasClean});
  });
}
// Tries until a message has come back; the result is how often it did not.
async function insist(path) {
  for (let failures = 0; ; failures++) {
    const act = {
      open: (socket) => socket.send("hello"),
      message: (socket, resolve) => resolve(socket.got[0]),
    };
    if (await talk(path, act) === "hello") return failures;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
function equal(one, other) {
  const [a, b] = [new Uint8Array(one), new Uint8Array(other)];
  return a.length === b.length && a.every((value, index) => value === b[index]);
}
"""
PAGE = f"<!DOCTYPE html><meta charset=utf-8><title>test</title><script>{SCRIPT}</script>"


def page(connection, request):
    if request.path != "/":
        return None
    response = connection.respond(200, PAGE)
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = "text/html; charset=utf-8"
    return response


class Handler:
    """Does what the path says, and remembers what came."""

    def __init__(self):
        self.received = []
        self.ends = []
        self.ended = threading.Semaphore(0)

    def __call__(self, connection):
        action, _, rest = connection.request.path[1:].partition("/")
        try:
            getattr(self, action)(connection, rest)
        except ConnectionClosed as exc:
            self.ends.append(None if exc.rcvd is None else (exc.rcvd.code, exc.rcvd.reason))
        self.ended.release()

    def echo(self, connection, rest):
        for message in connection:
            self.received.append(message)
            connection.send(message)

    def close(self, connection, rest):
        connection.close(int(rest), "Größe")

    def wait(self, connection, rest):
        connection.recv(timeout=PATIENCE)

    def fragments(self, connection, rest):
        connection.send(iter(["in ", "", "pärts"]))
        connection.recv(timeout=PATIENCE)

    def weigh(self, connection, rest):
        connection.send(connection.recv(timeout=PATIENCE))
        stats = connection.stats()
        connection.send(json.dumps([stats["bytes_received"], stats["bytes_sent"]]))
        connection.recv(timeout=PATIENCE)

    def whence(self, connection, rest):
        connection.send(json.dumps([connection.scheme, connection.host]))
        connection.recv(timeout=PATIENCE)

    def field(self, connection, rest):
        connection.send(json.dumps(connection.request.headers.get(rest)))
        connection.recv(timeout=PATIENCE)

    def ping(self, connection, rest):
        answered = connection.ping("are you there?").wait(PATIENCE)
        connection.send(json.dumps([answered, connection.latency]))
        connection.recv(timeout=PATIENCE)


def serving(handler, way, port=0, **options):
    """A server in the background."""
    return serve(
        handler,
        "127.0.0.1",
        port,
        process_request=page,
        health="/healthz",
        max_size=2**21,
        select_subprotocol=lambda connection, offered: offered[-1] if offered else None,
        **way.options,
        **options,
    ).start()


@pytest.fixture
def site(way, open_tab):
    """A tab with the page of a server, and what the handler of that server saw."""
    handler = Handler()
    with serving(handler, way) as server, way.to(server.server_address[1]) as url:
        yield open_tab(url), handler


def test_text_of_all_kinds_comes_back(site):
    tab, handler = site
    texts = ["", "plain", "Grüße, 世界 \U0001f44b", "a\0b", "x" * 65536, "y" * 2**20]
    tab.evaluate(f"(globalThis.texts = {json.dumps(texts)}).length")
    expression = """talk("echo", {
      open: (s) => texts.forEach((text) => s.send(text)),
      message: (s, done) => {
        if (s.got.length === texts.length) done(s.got.every((text, i) => text === texts[i]));
      },
    })"""
    assert tab.evaluate(expression) is True
    assert handler.received == texts


def test_binary_messages_of_all_sizes_come_back(site):
    tab, handler = site
    sizes = [0, 1, 125, 126, 65535, 65536, 2**20]
    expression = f"""(() => {{
      const fill = (_, index) => index * 7 + (index >> 8);
      const all = {sizes}.map((size) => new Uint8Array(size).map(fill));
      return talk("echo", {{
        open: (s) => all.forEach((data) => s.send(data)),
        message: (s, done) => {{
          if (s.got.length === all.length) done(all.map((data, i) => equal(data, s.got[i])));
        }},
      }});
    }})()"""
    assert tab.evaluate(expression) == [True] * len(sizes)
    assert [len(message) for message in handler.received] == sizes


def test_compression_is_agreed_upon_and_used(site):
    tab, _ = site
    expression = """talk("weigh", {
      open: (s) => s.send("compress me ".repeat(10000)),
      message: (s, done) => {
        if (s.got.length === 2) done([s.extensions, s.got[0].length, ...JSON.parse(s.got[1])]);
      },
    })"""
    extensions, length, received, sent = tab.evaluate(expression)
    assert extensions.startswith("permessage-deflate")
    assert length == 120_000
    assert 0 < received < length / 50
    assert 0 < sent < length / 50


@directly
def test_a_message_in_fragments_is_one(site):
    tab, _ = site
    expression = 'talk("fragments", {message: (s, done) => done(s.got)})'
    assert tab.evaluate(expression) == ["in pärts"]


@directly
def test_the_browser_answers_pings(site):
    tab, _ = site
    expression = 'talk("ping", {message: (s, done) => done(JSON.parse(s.got[0]))})'
    answered, latency = tab.evaluate(expression)
    assert answered
    assert 0 < latency < PATIENCE


def test_the_page_sees_the_close_code_and_reason(site):
    tab, _ = site
    for code in (1000, 1001, 1008, 1011, 1012, 3000, 4999):
        end = tab.evaluate(f'talk("close/{code}", {{}})')
        assert end == {"code": code, "reason": "Größe", "wasClean": True}


def test_the_server_sees_the_close_code_of_the_page(site):
    tab, handler = site
    for arguments, code, reason in (("", 1005, ""), ("1000", 1000, ""), ("4000, 'ä'", 4000, "ä")):
        end = tab.evaluate(f'talk("wait", {{open: (s) => s.close({arguments})}})')
        assert (end["code"], end["wasClean"]) == (code, True)
        assert handler.ended.acquire(timeout=PATIENCE)
        assert handler.ends.pop() == (code, reason)


def test_a_message_over_the_limit_is_refused_with_1009(site):
    tab, _ = site
    expression = f'talk("echo", {{open: (s) => s.send(new Uint8Array({2**21 + 1}))}})'
    assert tab.evaluate(expression)["code"] == 1009


def test_the_subprotocol_is_agreed_upon(site):
    tab, _ = site
    expression = 'talk("echo", {open: (s, done) => done(s.protocol)}, ["one", "two"])'
    assert tab.evaluate(expression) == "two"


def test_the_server_knows_where_the_page_came_from(way, site):
    tab, _ = site
    expression = 'talk("whence", {message: (s, done) => done(JSON.parse(s.got[0]))})'
    scheme, host = tab.evaluate(expression)
    assert scheme == ("wss" if way.secure else "ws")
    assert host == tab.evaluate("location.host")


def test_a_page_of_another_site_is_refused(way, open_tab):
    with serving(Handler(), way) as server, way.to(server.server_address[1]) as url:
        tab = open_tab(url)
        other = url.replace("http", "ws").replace("127.0.0.1", "localhost")
        end = tab.evaluate(f'talk("{other}echo", {{}})')
        assert (end["code"], end["wasClean"]) == (1006, False)
        # The page knows as soon as the answer is there; the server counts what has ended.
        assert wait_until(lambda: server.stats()["refused"].get("origin") == 1)


# Its end is for later.
TALK_ON = """globalThis.end = talk("echo", {
  open: (socket) => socket.send("hello"),
  message: () => { globalThis.talking = true; },
})"""


def test_a_page_sees_a_shutdown_and_comes_back_after_a_restart(way, open_tab, port):
    with contextlib.ExitStack() as stack:
        with serving(Handler(), way, port) as server:
            tab = open_tab(stack.enter_context(way.to(port)))
            tab.evaluate(f"({TALK_ON}, 0)")
            tab.wait_for("globalThis.talking")
            server.shutdown()
        assert tab.evaluate("end") == {"code": 1001, "reason": "", "wasClean": True}
        tab.evaluate('(globalThis.back = insist("echo"), 0)')
        with serving(Handler(), way, port):
            tab.evaluate("back")


# With much less patience for silence than the shipped configurations have.
@pytest.mark.parametrize("way", [name for name in PROXIED if "plain" in name], indirect=True)
def test_pings_keep_a_silent_page_connected(way, open_tab):
    with serving(Handler(), way, ping_interval=0.3) as server:
        with way.to(server.server_address[1], ("75s", "1s")) as url:
            tab = open_tab(url)
            expression = """talk("echo", {
              open: (s) => setTimeout(() => s.send("still here"), 2200),
              message: (s, done) => done(s.got),
            })"""
            assert tab.evaluate(expression) == ["still here"]


# What makes a proxy speak HTTP/2, and tell the server if the WebSocket came by it, too.
HTTP2_OF_NGINX = [
    (" ssl;", " ssl http2;"),
    ("proxy_http_version 1.1;", "proxy_http_version 1.1; proxy_set_header X-By $http2;"),
]
HTTP2_OF_HAPROXY = [
    ("alpn http/1.1\n", "alpn h2,http/1.1\n    http-request set-header X-By %[req.ver]\n"),
]


@pytest.mark.parametrize(
    ("way", "changes", "by"),
    [("nginx-tls", HTTP2_OF_NGINX, None), ("haproxy-tls", HTTP2_OF_HAPROXY, "2.0")],
    ids=["nginx-tls", "haproxy-tls"],
    indirect=["way"],
)
def test_pages_may_come_by_http2(way, changes, by, open_tab):
    """For WebSocket HAProxy speaks it, too (RFC 8441); behind nginx browsers take HTTP/1.1."""
    with serving(Handler(), way) as server, way.to(server.server_address[1], *changes) as url:
        tab = open_tab(url)
        page_by = tab.evaluate("performance.getEntriesByType('navigation')[0].nextHopProtocol")
        assert page_by == "h2"
        expression = 'talk("field/X-By", {message: (s, done) => done(JSON.parse(s.got[0]))})'
        assert tab.evaluate(expression) == by
        end = tab.evaluate('talk("close/4000", {})')
        assert end == {"code": 4000, "reason": "Größe", "wasClean": True}
