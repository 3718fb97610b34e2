"""``syncws check`` and ``syncws bench``: what they tell of servers good and bad."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading

import pytest
from commandline import PATIENCE, echoing, program
from peers import BINARY, CLOSE, FIN, PING, PONG, frame
from ports import held_port
from script_peer import welcome

from syncws.cli import main
from syncws.commands.bench import percentile

MASKED = 0x80

# --- check ----------------------------------------------------------------------------------------


def verdicts(out):
    """The mark of each examination, by its title."""
    found = re.findall(r"^  ([✓✗–]) (.{38}) ", out, re.MULTILINE)
    return {title.strip(): mark for mark, title in found}


def test_a_server_of_ours_has_nothing_wrong(capsys):
    with echoing() as uri:
        assert main(["check", uri]) == 0
    out = capsys.readouterr().out
    assert set(verdicts(out).values()) == {"✓"}
    assert re.search(r"\nnothing wrong, 30 as they should be, 0 to note, in [0-9.]+ s\n$", out)


def test_with_tls_the_certificate_is_examined(server_context, authority, tmp_path, capsys):
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    with echoing(ssl=server_context) as uri:
        assert main(["check", uri, f"--cafile={tmp_path / 'ca.pem'}"]) == 0
        assert verdicts(capsys.readouterr().out)["TLS"] == "✓"
        assert main(["check", uri, "--insecure"]) == 0
        assert verdicts(capsys.readouterr().out)["TLS"] == "–"
        assert main(["check", uri]) == 1
        assert verdicts(capsys.readouterr().out)["TLS"] == "✗"


def test_a_server_that_is_not_there_is_wrong(capsys):
    with held_port() as port:
        assert main(["check", f"ws://127.0.0.1:{port}"]) == 1
    out = capsys.readouterr().out
    assert "connection refused: nothing listens there" in out
    assert "Messages" not in out


def test_a_server_that_does_not_echo_is_a_note(capsys):
    def handler(connection):
        connection.send("news")
        for _ in connection:
            pass

    with echoing(handler) as uri:
        assert main(["check", uri]) == 0
    marks = verdicts(capsys.readouterr().out)
    assert marks["echo"] == "–"
    assert "fragments" not in marks


def test_what_a_server_leaves_out_is_a_note(capsys):
    with echoing(compression=None, origins=None) as uri:
        assert main(["check", uri]) == 0
    marks = verdicts(capsys.readouterr().out)
    assert (marks["compression"], marks["origin"]) == ("–", "–")


def test_subprotocols_are_offered(capsys):
    with echoing(subprotocols=["chat"]) as uri:
        assert main(["check", uri, "--subprotocol=chat"]) == 0
    assert re.search("✓ subprotocol +chat was chosen", capsys.readouterr().out)


def answer_badly(client):
    """Do the wrong thing about the first frame, or nothing at all, and never close."""
    welcome(client, deflate=False)
    head, second = client.recv(2)
    if head == FIN | PING:
        client.sendall(frame(FIN | PONG, b"other data", False))
    elif second >= MASKED and (head, second) != (FIN | BINARY, MASKED | 127):
        client.sendall(frame(FIN | CLOSE, struct.pack("!H", 1003), False))


def serve_badly(sock):
    """Welcome everybody, until the listening socket is shut down."""
    with contextlib.ExitStack() as stack:
        while True:
            try:
                client, _ = sock.accept()
            except OSError:
                return
            stack.enter_context(client)
            client.settimeout(PATIENCE)
            with contextlib.suppress(AssertionError, OSError, StopIteration, ValueError):
                answer_badly(client)


def test_a_bad_server_is_found_out(capsys):
    with socket.create_server(("127.0.0.1", 0)) as sock:
        thread = threading.Thread(target=serve_badly, args=(sock,))
        thread.start()
        try:
            uri = f"ws://127.0.0.1:{sock.getsockname()[1]}"
            assert main(["check", uri, "--timeout=0.4"]) == 1
        finally:
            sock.shutdown(socket.SHUT_RDWR)
            thread.join()
    out = capsys.readouterr().out
    marks = verdicts(out)
    wrong = ("another version", "a key of 3 bytes", "ping", "close with 1000", "an unmasked frame")
    assert {marks[title] for title in (*wrong, "a reserved bit")} == {"✗"}
    assert re.search(r"✗ an unmasked frame +the server goes on \(RFC 6455 §5\.1\)\n", out)
    assert re.search(r"✗ a reserved bit +closed with 1003, not 1002 \(RFC 6455 §5\.2\)\n", out)
    assert marks["a message of 2^62 bytes"] == "–"
    assert re.search(r"\n[0-9]+ wrong, ", out)


def test_marks_are_words_where_the_terminal_has_no_signs():
    with echoing() as uri, program("check", uri, env_more={"PYTHONIOENCODING": "ascii"}) as process:
        out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (0, "")
    assert "  ok TCP" in out


# --- bench ----------------------------------------------------------------------------------------


def test_rate_and_latency_are_told(capsys):
    with echoing() as uri:
        assert main(["bench", uri, "-c2", "-d0.1"]) == 0
    out = capsys.readouterr().out
    assert re.match(r"2 connections, 32 bytes, 1 in flight, 0\.\d s\n", out)
    assert re.search(r"[1-9][0-9,]* messages/s each way, [0-9.,]+ MB/s each way\n", out)
    assert re.search(r"round trip in ms: 50 % [0-9.]+, 90 % ", out)


def test_the_result_may_be_json(capsys):
    arguments = ["-c1", "-d0.1", "-s70000", "--binary", "--in-flight=4", "--compress", "--json"]
    with echoing() as uri:
        assert main(["bench", uri, *arguments]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["connections"], result["size"], result["in_flight"]) == (1, 70000, 4)
    assert result["messages"] > 0
    assert result["p50"] <= result["p99"] <= result["max"]


def shout(connection):
    for message in connection:
        connection.send(message.upper() + "!")


def once(connection):
    echo_one = connection.recv()
    connection.send(echo_one)
    connection.recv()
    connection.close(1011, "enough")


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (shout, "the server does not echo: it answered with another message"),
        (lambda connection: connection.recv(), "received 1000 (OK); then sent 1000 (OK)"),
        (once, "received 1011 (internal error) enough; then sent 1011 (internal error) enough"),
        (lambda connection: connection.wait_closed(PATIENCE), "no answer within 1 s"),
    ],
)
def test_a_server_that_does_not_echo_is_an_error(handler, complaint, capsys):
    with echoing(handler) as uri:
        assert main(["bench", uri, "-c1", "--timeout=1"]) == 1
    assert f"syncws: {complaint}" in capsys.readouterr().err


def test_percentiles_are_of_the_values_in_order():
    assert [percentile([1.0, 2.0, 3.0, 4.0], share) for share in (0, 50, 99.9)] == [1.0, 3.0, 4.0]
    assert percentile([], 50) == 0.0
