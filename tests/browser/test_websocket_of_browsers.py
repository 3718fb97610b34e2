"""The WebSocket of browsers, on a page of its own: messages, close codes, compression, TLS."""

from __future__ import annotations

import json
import threading

import pytest

from syncws import ConnectionClosed, serve

pytestmark = pytest.mark.browser

PATIENCE = 20  # seconds

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

    def ping(self, connection, rest):
        answered = connection.ping("are you there?").wait(PATIENCE)
        connection.send(json.dumps([answered, connection.latency]))
        connection.recv(timeout=PATIENCE)


@pytest.fixture(params=["plain", "tls"])
def site(request, server_context, open_tab):
    """A server, what its handler saw, and a tab with its page."""
    handler = Handler()
    ssl = server_context if request.param == "tls" else None
    with serve(
        handler,
        "127.0.0.1",
        0,
        ssl=ssl,
        process_request=page,
        max_size=2**21,
        select_subprotocol=lambda connection, offered: offered[-1] if offered else None,
    ).start() as server:
        scheme = "http" if ssl is None else "https"
        tab = open_tab(f"{scheme}://127.0.0.1:{server.server_address[1]}/")
        yield tab, handler


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
    expression = """talk("echo", {
      open: (s) => s.send("compress me ".repeat(10000)),
      message: (s, done) => done([s.extensions, s.got[0].length]),
    })"""
    extensions, length = tab.evaluate(expression)
    assert extensions.startswith("permessage-deflate")
    assert length == 120_000


def test_a_message_in_fragments_is_one(site):
    tab, _ = site
    expression = 'talk("fragments", {message: (s, done) => done(s.got)})'
    assert tab.evaluate(expression) == ["in pärts"]


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


def test_a_page_of_another_site_is_refused(open_tab, server_context):
    with serve(Handler(), "127.0.0.1", 0, process_request=page).start() as server:
        port = server.server_address[1]
        tab = open_tab(f"http://127.0.0.1:{port}/")
        end = tab.evaluate(f'talk("ws://localhost:{port}/echo", {{}})')
    assert (end["code"], end["wasClean"]) == (1006, False)
