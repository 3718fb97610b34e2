"""The page of the demo, in real browsers, as its visitors use it."""

from __future__ import annotations

import contextlib
import json
import pathlib

import pytest

from browser.drivers import ENTER, TAB, Chromium
from browser.ways import DIRECT
from syncws import connect
from syncws.demo import open_server

pytestmark = pytest.mark.browser

# What a proxy can't spoil, and TLS neither.
directly = pytest.mark.parametrize("way", DIRECT[:1], indirect=True)

SCREENSHOT = pathlib.Path(__file__).parent.parent.parent / "docs" / "demo.png"

OPEN = "document.querySelector('#state').dataset.state === 'open'"


@contextlib.contextmanager
def demo(way):
    """The demo in the background, as ``syncws demo`` opens it; yields the address of its page."""
    with open_server("127.0.0.1", 0, **way.required).start() as server:
        with way.to(server.server_address[1]) as url:
            yield url


def say(tab, text):
    tab.evaluate("document.querySelector('#text').focus()")
    tab.type(text + ENTER)


def said(text):
    words = json.dumps(text)
    return f"[...document.querySelectorAll('.words')].some((e) => e.textContent === {words})"


def rename(tab, name):
    tab.evaluate(
        f"(document.querySelector('#nick').value = {json.dumps(name)},"
        "document.querySelector('#nick').dispatchEvent(new Event('change')))"
    )


def test_two_tabs_chat(way, open_tab):
    with demo(way) as url:
        first, second = open_tab(url), open_tab(url)
        for tab, name in ((first, "Ada"), (second, "Grace")):
            tab.wait_for(OPEN)
            rename(tab, name)
        say(first, "<b>hello</b>")
        second.wait_for(said("<b>hello</b>"))
        say(second, "hi, ä€")
        first.wait_for(said("hi, ä€"))
        assert first.evaluate(
            "[...document.querySelectorAll('.nick')].map((e) => e.textContent)"
        ) == [
            "Ada",
            "Grace",
        ]
        assert first.evaluate("document.querySelector('#log b')") is None
        assert first.text("#online") == "2 online"
        third = open_tab(url)
        third.wait_for(said("<b>hello</b>"))


@directly
def test_connections_and_rates_are_shown(way, open_tab):
    with demo(way) as url, connect(url.replace("http", "ws") + "ws") as visitor:
        visitor.send(json.dumps({"type": "name", "nick": "Linus"}))
        tab = open_tab(url)
        rename(tab, "Ada")
        tab.wait_for("document.querySelectorAll('figure path').length === 8")
        tab.wait_for("document.querySelectorAll('#rows tr').length === 2")
        tab.wait_for("document.querySelector('#rows .you').textContent === 'Ada'")
        assert "Linus" in tab.text("#rows")
        assert tab.text("#tile-open") == "2"
        assert tab.evaluate("document.querySelector('svg[role=img]').ariaLabel").startswith(
            "the last minute; now "
        )


def test_binary_messages_up_to_1_mib_come_back(way, open_tab):
    with demo(way) as url:
        tab = open_tab(url)
        tab.wait_for(OPEN)
        tab.evaluate("document.querySelector('button#large').click()")
        tab.wait_for("/1,048,576 bytes there and back in .* unharmed/.test($('speed').textContent)")
        tab.evaluate("document.querySelector('button#small').click()")
        tab.wait_for("/500 messages, .* median .* ms/.test($('speed').textContent)")


@pytest.mark.parametrize("way", DIRECT, indirect=True)
def test_compression_is_negotiated(way, open_tab):
    with demo(way) as url:
        tab = open_tab(url)
        tab.wait_for(OPEN)
        assert tab.evaluate("socket.extensions").startswith("permessage-deflate")


# Has messages of random number and size go there and back until the charts have so many seconds.
TRAFFIC = """async (samples) => {
  while (charts.messages.in.length < samples) {
    await measure(16 + Math.floor(Math.random() * 200), 1 + Math.floor(Math.random() * 100));
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
  await showSpeed(32, 500);
}"""


# Keeps what the page says of its connection: it may say so for a moment only.
WATCH = """(() => {
  globalThis.states = [];
  const look = () => states.push([$("state").textContent, $("send").disabled]);
  new MutationObserver(look).observe($("state"), {childList: true});
  return true;
})()"""


def test_the_page_comes_back_after_a_restart_of_the_server(way, open_tab, port):
    def server():
        return open_server("127.0.0.1", port, **way.required).start()

    with contextlib.ExitStack() as stack:
        with server():
            tab = open_tab(stack.enter_context(way.to(port)))
            tab.wait_for(OPEN)
            say(tab, "before")
            tab.wait_for(said("before"))
            tab.evaluate(WATCH)
        tab.wait_for("states.length > 0")
        state, disabled = tab.evaluate("states[0]")
        assert state.startswith("disconnected: 1001 going away; next try in ")
        assert disabled
        with server():
            tab.wait_for(OPEN)
            note = "document.querySelector('.note')?.textContent"
            tab.wait_for(f"{note} === 'The server was restarted.'")
            say(tab, "after")
            tab.wait_for(said("after"))


def test_the_close_code_is_shown(way, open_tab):
    with open_server("127.0.0.1", 0, **way.required).start() as server:
        with way.to(server.server_address[1]) as url:
            tab = open_tab(url)
            tab.wait_for(OPEN)
            tab.evaluate("(delay = 60000, 0)")  # so that it stays disconnected
            for connection in server.connections:
                connection.close(4001, "just <so>")
            state = "disconnected: 4001 just <so>; next try in "
            tab.wait_for(f"$('state').textContent.startsWith('{state}')")
            tab.evaluate("$('retry').click()")
            tab.wait_for(OPEN)


@directly
def test_it_can_be_used_with_the_keyboard_alone(way, open_tab):
    with demo(way) as url:
        tab = open_tab(url)
        tab.wait_for(OPEN)
        tab.evaluate("document.querySelector('.skip').focus()")
        seen = []
        for _ in range(12):
            tab.type(TAB)
            seen.append(
                tab.evaluate("document.activeElement.id || document.activeElement.className")
            )
            outline = "getComputedStyle(document.activeElement).outlineStyle"
            assert tab.evaluate(outline) not in ("none", "")
            if seen[-1] == "large":
                break
        assert [name for name in seen if name in ("nick", "text", "send", "small", "large")] == [
            "nick",
            "text",
            "send",
            "small",
            "large",
        ]


@directly
@pytest.mark.parametrize("width", [390, 1200])
def test_nothing_is_cut_off(width, way, open_tab):
    with demo(way) as url:
        tab = open_tab(url)
        tab.resize(width, 800)
        tab.wait_for("document.querySelectorAll('#rows tr').length === 1")
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        assert tab.evaluate("document.querySelector('.scroll').scrollWidth") <= tab.evaluate(
            "document.querySelector('.scroll').clientWidth"
        )


@directly
def test_the_picture_in_the_documentation_is_made(browser, way, open_tab, tmp_path):
    """By Chromium, and anew where it is missing: otherwise every run would change it."""
    missing = isinstance(browser, Chromium) and not SCREENSHOT.exists()
    with demo(way) as url, contextlib.ExitStack() as stack:
        for name, text in (
            ("Grace", "Hello! Is anybody here?"),
            ("Linus", "Yes, and it is quick."),
        ):
            visitor = stack.enter_context(connect(url.replace("http", "ws") + "ws"))
            visitor.send(json.dumps({"type": "message", "nick": name, "text": text}))
        tab = open_tab(url)
        tab.resize(1200, 860)
        if missing:
            browser.prefer(tab, "light")
        tab.wait_for(OPEN)
        rename(tab, "Ada")
        say(tab, "Good morning")
        samples = 25 if missing else 2
        tab.evaluate(f"({TRAFFIC})({samples})")
        path = SCREENSHOT if missing else tmp_path / "demo.png"
        tab.screenshot(path)
    assert path.read_bytes().startswith(b"\x89PNG")
