"""``syncws connect``: in a pipe, and at a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys

import pytest
from commandline import PATIENCE, ROOT, echoing, feed, program
from conftest import wait_until

from syncws.cli import main
from syncws.commands.dialogue import layout

# --- In a pipe ------------------------------------------------------------------------------------


def test_lines_are_messages_and_messages_are_lines(monkeypatch, capsys):
    feed(monkeypatch, "one\nGrüße\n\n".encode())
    with echoing() as uri:
        assert main(["connect", uri, "--messages=3"]) == 0
    assert capsys.readouterr() == ("one\nGrüße\n\n", "")


def test_after_the_end_of_input_answers_are_waited_for(monkeypatch, capsys):
    feed(monkeypatch, b"one\ntwo\n")
    with echoing() as uri:
        assert main(["connect", uri]) == 0
    assert capsys.readouterr().out == "one\ntwo\n"


def test_it_ends_when_the_server_closes(monkeypatch, capsys):
    feed(monkeypatch, b"")
    with echoing(lambda connection: connection.send("bye")) as uri:
        assert main(["connect", uri, "--wait=100"]) == 0
    assert capsys.readouterr() == ("bye\n", "")


def test_an_error_of_the_server_is_one_line_and_exit_code_1(monkeypatch, capsys):
    feed(monkeypatch, b"")
    with echoing(lambda connection: connection.close(4000, "no reason")) as uri:
        assert main(["connect", uri, "--wait=100"]) == 1
    complaint = (
        "syncws: the connection ended badly: received 4000 (private use) no reason; "
        "then sent 4000 (private use) no reason\n"
    )
    assert capsys.readouterr() == ("", complaint)


@pytest.mark.parametrize(("form", "line"), [("hex", "00ff41"), ("base64", "AP9B")])
def test_binary_messages_are_written_on_lines(form, line, monkeypatch, capsys):
    received = []

    def handler(connection):
        received.append(connection.recv())
        connection.send(received[0])

    feed(monkeypatch, f"{line}\n".encode())
    with echoing(handler) as uri:
        assert main(["connect", uri, f"--binary={form}", "--wait=100"]) == 0
    assert received == [b"\x00\xffA"]
    assert capsys.readouterr().out == f"{line}\n"


def test_raw_bytes_go_through_as_one_message(monkeypatch, capfdbinary):
    data = bytes(range(256)) * 8192  # 2 MiB
    feed(monkeypatch, data)
    with echoing(max_size=None) as uri:
        assert main(["connect", uri, "--binary=raw", "--messages=1"]) == 0
    assert capfdbinary.readouterr().out == data


@pytest.mark.parametrize("form", ["hex", "base64"])
def test_a_line_that_is_not_in_the_form_is_an_error(form, monkeypatch, capsys):
    feed(monkeypatch, b"?\n")
    with echoing() as uri:
        assert main(["connect", uri, f"--binary={form}"]) == 1
    assert f"syncws: this is no {form}, which looks like" in capsys.readouterr().err


def test_input_that_is_no_text_is_an_error(monkeypatch, capsys):
    feed(monkeypatch, b"\xff\n")
    with echoing() as uri:
        assert main(["connect", uri]) == 1
    assert "syncws: can't read standard input: " in capsys.readouterr().err


def test_headers_origin_and_subprotocol_are_sent(monkeypatch, capsys):
    def handler(connection):
        names = ("X-One", "X-Two", "Origin", "Sec-WebSocket-Protocol")
        connection.send(json.dumps([connection.request.headers.get(name) for name in names]))

    feed(monkeypatch, b"")
    arguments = ["-HX-One: 1", "--header=X-Two:2", "--origin=http://a", "--subprotocol=chat"]
    with echoing(handler, origins=None, subprotocols=["chat"]) as uri:
        assert main(["connect", uri, *arguments]) == 0
    assert json.loads(capsys.readouterr().out) == ["1", "2", "http://a", "chat"]


def test_verbose_tells_of_pings_timing_and_the_end(monkeypatch, capsys):
    def handler(connection):
        assert connection.ping("are you there?").wait(PATIENCE)

    feed(monkeypatch, b"")
    with echoing(handler) as uri:
        assert main(["connect", uri, "--verbose", "--wait=100"]) == 0
    err = capsys.readouterr().err
    assert re.match(rf"\* connected to {uri} in [0-9.]+ ms; no subprotocol; permessage-", err)
    assert "* ping 'are you there?', answered\n" in err
    assert re.search(r"\* closed after [0-9.]+ s: received 1000 \(OK\); then sent 1000", err)


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        ([], 1, "the server's certificate is not trusted: .*; name its authority with --cafile"),
        (["--insecure"], 0, ""),
        (["--cafile={ca}"], 0, ""),
        (["--cafile=missing.pem"], 1, "--cafile missing.pem: No such file or directory"),
    ],
)
def test_certificates(
    arguments, code, complaint, server_context, authority, tmp_path, monkeypatch, capsys
):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    feed(monkeypatch, b"one\n")
    arguments = [argument.format(ca=tmp_path / "ca.pem") for argument in arguments]
    with echoing(ssl=server_context) as uri:
        assert main(["connect", uri, "--messages=1", *arguments]) == code
    assert re.match(f"(syncws: {complaint}.*\n)?$" if code else "$", capsys.readouterr().err)


def test_a_server_that_refuses_is_quoted(monkeypatch, capsys):
    def refuse(connection, request):
        return connection.respond(401, "Who are you?\n")

    with echoing(process_request=refuse) as uri:
        assert main(["connect", uri]) == 1
    assert re.match(r"syncws: .*HTTP 401.*Who are you\?.*\n$", capsys.readouterr().err)


def test_ctrl_c_ends_it_with_130_and_no_traceback():
    def handler(connection):
        connection.send("ready")
        connection.wait_closed(PATIENCE)

    with echoing(handler) as uri, program("connect", uri, stdin=subprocess.PIPE) as process:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (130, "", "")


def test_output_that_nobody_reads_ends_it():
    with echoing() as uri, program("connect", uri, stdin=subprocess.PIPE) as process:
        process.stdout.close()
        process.stdin.write("one\n")
        process.stdin.flush()
        assert process.stderr.read() == "syncws: nobody reads the output any more\n"
        assert process.wait(PATIENCE) == 1


# --- At a terminal --------------------------------------------------------------------------------


class Terminal:
    """A pseudoterminal with a program in it, and all that was shown in there."""

    def __init__(self, home, *arguments):
        self.master, slave = os.openpty()
        env = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PYTHONDONTWRITEBYTECODE": "1",
            "XDG_STATE_HOME": str(home),
            "TERM": "xterm",
            "NO_COLOR": "1",
        }
        command = [sys.executable, "-m", "syncws", *arguments]
        try:
            self.process = subprocess.Popen(
                # The first terminal that a new session opens is its own: Ctrl-C works there.
                ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(slave), *command],
                env=env,
                start_new_session=True,
            )
        finally:
            os.close(slave)
        os.set_blocking(self.master, False)
        self.shown = ""

    def type(self, text):
        os.write(self.master, text.encode())

    def shows(self, text):
        """Wait until a text was shown."""

        def is_there():
            with contextlib.suppress(OSError):  # nothing new, or the program has ended
                self.shown += os.read(self.master, 65536).decode()
            return text in self.shown

        assert wait_until(is_there), self.shown
        return True


@pytest.fixture
def terminal(tmp_path):
    pytest.importorskip("readline")
    with contextlib.ExitStack() as stack:

        def start(*arguments):
            started = Terminal(tmp_path, *arguments)
            stack.callback(os.close, started.master)
            stack.enter_context(started.process)
            stack.callback(started.process.kill)
            return started

        yield start


def test_what_is_typed_is_sent_and_what_comes_is_shown(terminal):
    with echoing() as uri:
        session = terminal("connect", uri)
        assert session.shows("> ")
        session.type("hello\n")
        assert session.shows("< hello")
        session.type("/hex 00 ff\n")
        assert session.shows("< 2 bytes: 00ff")
        session.type("/base64 AP8B\n")
        assert session.shows("< 3 bytes: 00ff01")
        session.type("//slash\n")
        assert session.shows("< /slash")
        session.type("/ping there\n")
        assert session.shows("s: pong 'there', ")
        session.type("/fly\n")
        assert session.shows("* not sent: there is no /fly; /help lists what there is")
        session.type("/close 4000 enough\n")
        assert session.shows("sent 4000 (private use) enough; then received 4000")
        assert session.process.wait(PATIENCE) == 0


def test_files_can_be_sent_and_long_messages_are_cut(terminal, tmp_path):
    (tmp_path / "file").write_bytes(bytes(5000))
    with echoing() as uri:
        session = terminal("connect", uri, "--binary=base64")
        assert session.shows("> ")
        session.type(f"/file {tmp_path / 'file'}\n")
        assert session.shows("s: sent 5,000 bytes")
        assert session.shows("< 5,000 bytes: AAAA")
        assert session.shows("… (5,000 in all)")
        session.type("/file /missing\n")
        assert session.shows("* not sent: No such file or directory: /missing")
        session.type("/help\n")
        assert session.shows("/pong [TEXT]")
        session.type("/pong\n/hex x\n")
        assert session.shows("* not sent: this is no hex, which looks like 00 ff or 00ff: 'x'")
        session.type("/close one\n")
        assert session.shows("* not sent: a close code is a number, not one")
        session.type("/close 1005\n")
        assert session.shows("* not sent: ")
        session.type("/quit\n")
        assert session.process.wait(PATIENCE) == 0


def test_so_many_messages_end_it_at_a_terminal(terminal):
    with echoing(lambda connection: connection.send("one") or connection.recv()) as uri:
        session = terminal("connect", uri, "--messages=1")
        assert session.shows("< one")
        assert session.shows("* closed after ")
        assert session.process.wait(PATIENCE) == 0


def test_a_benchmark_shows_how_far_it_is(terminal):
    with echoing() as uri:
        session = terminal("bench", uri, "-c1", "-d0.6")
        assert session.shows(" messages/s   ")
        assert session.shows("round trip in ms: ")
        assert session.process.wait(PATIENCE) == 0


def test_a_message_does_not_destroy_the_line_that_is_typed(terminal):
    connections = []

    def handler(connection):
        connections.append(connection)
        for message in connection:
            connection.send(f"got {message}")

    with echoing(handler) as uri:
        session = terminal("connect", uri)
        assert session.shows("> ")
        session.type("a line")
        assert session.shows("> a line")
        assert wait_until(lambda: connections)
        connections[0].send("news")
        # A row is made above, the message written there, and the cursor put back.
        assert session.shows("\x1b8\x1b[1B")
        written = session.shown.partition("\x1b7")[2].replace("\r", "")
        assert written == "\n\x1b[1A\x1b[1L< news\n\x1b8\x1b[1B"
        session.type(" goes on\n")
        assert session.shows("< got a line goes on")
        session.type("\x04")
        assert session.process.wait(PATIENCE) == 0


def test_the_end_of_the_connection_ends_the_line_that_is_typed(terminal):
    connections = []

    def handler(connection):
        connections.append(connection)
        connection.wait_closed(PATIENCE)

    with echoing(handler) as uri:
        session = terminal("connect", uri)
        assert session.shows("> ")
        session.type("a line")
        assert session.shows("> a line")
        assert wait_until(lambda: connections)
        connections[0].close(1001, "over")
        assert session.shows("received 1001 (going away) over; then sent 1001")
        assert session.process.wait(PATIENCE) == 0


def test_ctrl_c_at_a_terminal_exits_with_130(terminal):
    with echoing() as uri:
        session = terminal("connect", uri)
        assert session.shows("> ")
        session.type("a line\x03")
        assert session.shows("* closed after ")
        assert session.process.wait(PATIENCE) == 130
        assert "Traceback" not in session.shown


def test_lines_typed_before_come_back_with_the_arrow_key(terminal):
    with echoing() as uri:
        for keys in ("remember this\n", "\x1b[A\x1b[A\n"):
            session = terminal("connect", uri)
            assert session.shows("> ")
            session.type(keys)
            assert session.shows("< remember this")
            session.type("/quit\n")
            assert session.process.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("", [""]),
        ("abcdefgh", ["abcdef", "gh"]),
        ("ab\ncd", ["ab", "cd"]),
        ("日本語文", ["日本語", "文"]),
        ("a\x1b[2Jb", ["a\N{REPLACEMENT CHARACTER}[2Jb"]),
        ("e\u0301" * 6, ["e\u0301" * 6]),
    ],
)
def test_a_message_is_broken_into_rows_and_cannot_act_on_the_terminal(text, rows):
    assert layout(text, 6) == rows
