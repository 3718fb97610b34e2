"""The chat of ``python -m syncws demo``: its page, its room, and how it starts and ends."""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import hashlib
import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from syncws import connect
from syncws.commands.serving import sigterm_as_interrupt
from syncws.demo import open_server, room

ROOT = pathlib.Path(__file__).parent.parent


@contextlib.contextmanager
def serving():
    """A demo server in the background; yields its host and port as text."""
    with open_server("127.0.0.1", 0).start() as server:
        yield f"127.0.0.1:{server.server_address[1]}"


class Visitor:
    """What the page does, without the page."""

    def __init__(self, connection):
        self.connection = connection
        self.history = self.receive()

    def receive(self):
        return json.loads(self.connection.recv(timeout=10))

    def say(self, text="hello"):
        message = {"type": "message", "nick": "Ada", "text": text}
        self.connection.send(json.dumps(message))


@contextlib.contextmanager
def visitor(address, online=1):
    """A visitor that has read the history and the number of those online."""
    with connect(f"ws://{address}/ws") as connection:
        entered = Visitor(connection)
        assert entered.receive() == {"type": "online", "count": online}
        yield entered


def get(address, path="/"):
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
        return response.headers, response.read().decode()


def test_a_proxy_can_ask_whether_it_is_well():
    with serving() as address, urllib.request.urlopen(f"http://{address}/healthz") as response:
        assert response.read() == b"OK\n"


# --- The page -------------------------------------------------------------------------------------


def test_the_page_is_html():
    with serving() as address:
        headers, text = get(address)
    assert headers.get_all("Content-Type") == ["text/html; charset=utf-8"]
    assert text.startswith("<!DOCTYPE html>")


def test_the_page_may_have_a_query():
    with serving() as address:
        _, text = get(address, "/?a=b")
    assert text.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("element", ["script", "style"])
def test_the_policy_allows_the_inline_elements_of_the_page(element):
    with serving() as address:
        headers, text = get(address)
    content = re.search(f"<{element}>(.*?)</{element}>", text, re.DOTALL).group(1)
    digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"{element}-src 'sha256-{digest}'" in headers["Content-Security-Policy"]


def test_the_page_needs_nothing_from_elsewhere():
    with serving() as address:
        _, text = get(address)
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:|#)|url\(|@import", text) == []


@pytest.mark.parametrize(("path", "status"), [("/favicon.ico", 404), ("/ws", 426)])
def test_other_plain_requests_are_refused(path, status):
    with serving() as address:
        with pytest.raises(urllib.error.HTTPError) as raised:
            get(address, path)
        with raised.value as response:
            assert response.code == status


# --- The room -------------------------------------------------------------------------------------


def test_a_message_reaches_everybody():
    with serving() as address, visitor(address) as first, visitor(address, 2) as second:
        first.receive()
        first.say("<b>hello</b>")
        heard = second.receive()
        assert first.receive() == heard
    assert (heard["id"], heard["nick"], heard["text"]) == (1, "Ada", "<b>hello</b>")


def test_those_present_hear_who_comes_and_goes():
    with serving() as address, visitor(address) as first:
        with visitor(address, 2):
            assert first.receive() == {"type": "online", "count": 2}
        assert first.receive() == {"type": "online", "count": 1}


def test_a_visitor_gets_what_was_said_before():
    with serving() as address, visitor(address) as first:
        first.say("earlier")
        first.receive()
        with visitor(address, 2) as second:
            assert [message["text"] for message in second.history["messages"]] == ["earlier"]
            assert second.history["room"] == first.history["room"]


def test_the_history_is_limited():
    with serving() as address, visitor(address) as first:
        for number in range(room.HISTORY + 5):
            first.say(str(number))
            first.receive()
        with visitor(address, 2) as second:
            texts = [message["text"] for message in second.history["messages"]]
    assert texts == [str(number) for number in range(5, room.HISTORY + 5)]


def test_two_servers_have_two_rooms():
    with serving() as one, serving() as other, visitor(one) as first, visitor(other) as second:
        assert first.history["room"] != second.history["room"]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        ("no JSON", "this is not a chat message"),
        ("[" * 10_000, "this is not a chat message"),
        ('["message"]', "this is not a chat message"),
        ('{"type": "history"}', "this is not a chat message"),
        ('{"type": "name"}', "a chat message has a nick and a text"),
        ('{"type": "name", "nick": " "}', "a nick has 1 to 32 characters"),
        ('{"type": "message", "nick": "Ada"}', "a text has 1 to 2,000 characters"),
        ('{"type": "message", "nick": 1, "text": "a"}', "a chat message has a nick and a text"),
        ('{"type": "message", "nick": " ", "text": "a"}', "a nick has 1 to 32 characters"),
        ('{"type": "message", "nick": "a", "text": "\\n"}', "a text has 1 to 2,000 characters"),
    ],
)
def test_what_is_no_chat_message_is_refused(data, complaint):
    with pytest.raises(ValueError, match=complaint):
        room.parse_message(data)


@pytest.mark.parametrize(("field", "limit"), [("nick", room.MAX_NICK), ("text", room.MAX_TEXT)])
def test_nick_and_text_have_a_limit(field, limit):
    message = {"type": "message", "nick": "a", "text": "a", field: "ä" * limit}
    assert "ä" * limit in room.parse_message(json.dumps(message))
    message[field] += "ä"
    with pytest.raises(ValueError, match=f"1 to {limit:,} characters"):
        room.parse_message(json.dumps(message))


def test_white_space_around_is_dropped():
    data = json.dumps({"type": "message", "nick": " Ada \t Lovelace ", "text": "\n a  b\n"})
    assert room.parse_message(data) == ("message", "Ada Lovelace", "a  b")


def test_only_the_sender_hears_that_a_message_is_refused():
    with serving() as address, visitor(address) as first, visitor(address, 2) as second:
        first.receive()
        first.connection.send("no JSON")
        assert first.receive() == {"type": "error", "text": "this is not a chat message"}
        first.say()
        assert second.receive()["type"] == "message"


def test_binary_messages_come_back():
    with serving() as address, visitor(address) as first:
        for message in (b"", bytes(2**20)):
            first.connection.send(message)
            assert first.connection.recv(timeout=10) == message


def test_a_visitor_may_ask_for_statistics():
    with serving() as address, visitor(address) as first, visitor(address, 2) as second:
        first.receive()
        second.connection.send(json.dumps({"type": "name", "nick": "Ada"}))
        second.connection.send(json.dumps({"type": "stats"}))
        stats = second.receive()
    assert (stats["type"], stats["open"], stats["dropped"]) == ("stats", 2, 0)
    assert [row["name"] for row in stats["rows"]] == ["Ada", ""]
    assert stats["rows"][0]["messages_received"] == 2
    assert stats["messages_received"] == sum(row["messages_received"] for row in stats["rows"])
    assert 0 <= stats["rows"][0]["age"] <= stats["rows"][1]["age"] < stats["time"]


# --- Start and end --------------------------------------------------------------------------------


def test_a_taken_port_is_named_and_the_next_one_used(capsys):
    with open_server("127.0.0.1", 0) as first:
        taken = first.server_address[1]
        with open_server("127.0.0.1", taken) as second:
            assert second.server_address[1] > taken
    assert capsys.readouterr().out.startswith(f"Port {taken} is taken, trying the next one.\n")


def test_a_taken_port_without_a_next_one_is_an_error():
    with contextlib.ExitStack() as stack:
        # Whether another program has it or this line takes it: it is taken.
        with contextlib.suppress(OSError):
            stack.enter_context(socket.create_server(("127.0.0.1", 65535)))
        with pytest.raises(OSError, match="in use"):
            open_server("127.0.0.1", 65535)


def test_a_port_that_is_none_is_an_error():
    with pytest.raises(ValueError, match="port must be 0 to 65535, not 65536"):
        open_server("127.0.0.1", 65536)


def test_the_signal_is_left_alone_outside_of_the_main_thread():
    def enter():
        with sigterm_as_interrupt():
            return signal.getsignal(signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        assert pool.submit(enter).result() is before


@contextlib.contextmanager
def demo_process(*arguments):
    """The demo as a program; yields it and the line in which it prints its address."""
    with subprocess.Popen(
        [sys.executable, "-m", "syncws", "demo", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    ) as process:
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_program_cleanly(number):
    with demo_process("--port", "0") as (process, line):
        address = re.fullmatch(r"Chat at http://(127\.0\.0\.1:\d+)/ .*\n", line).group(1)
        with visitor(address):
            process.send_signal(number)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "bye\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot send these signals")
def test_a_signal_right_after_the_address_ends_the_program_cleanly():
    with demo_process("--port", "0") as (process, _):
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, "bye\n", "")


@pytest.mark.skipif(not socket.has_ipv6, reason="this Python has no IPv6")
def test_an_ipv6_address_is_written_in_brackets():
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")
    with demo_process("--host", "::1", "--port", "0") as (_, line):
        assert re.fullmatch(r"Chat at http://\[::1\]:\d+/ .*\n", line)
