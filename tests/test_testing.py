"""What applications test with: servers, pairs in memory, and peers that break the rules."""

from __future__ import annotations

import logging
import pathlib
import subprocess
import sys
import threading
import urllib.error
import urllib.request

import pytest
from links import PATIENCE, echo

from syncws import (
    ConnectionClosedError,
    ConnectionClosedOK,
    Frame,
    InvalidStatus,
    Opcode,
    ProtocolError,
    State,
    connect,
)
from syncws.testing import RawPeer, RawServer, TestServer, pair, raw_client

pytest_plugins = ["pytester"]

ROOT = pathlib.Path(__file__).parent.parent

SHORT = 0.1  # seconds, for what is expected to take too long


@pytest.fixture
def stuck():
    """A handler that doesn't notice the end of its connection, until the test is over."""
    release, ended = threading.Event(), threading.Event()

    def handler(connection):
        release.wait(PATIENCE)
        ended.set()

    yield handler
    release.set()
    assert ended.wait(PATIENCE)


def fail(connection):
    raise ValueError("the handler has a bug")


# --- TestServer -----------------------------------------------------------------------------------


def test_a_test_server_serves_its_handler_at_a_port_of_its_own():
    with TestServer(echo) as one, TestServer(echo) as other:
        assert one.uri != other.uri
        with one.connect() as connection:
            connection.send("hello")
            assert connection.recv(timeout=PATIENCE) == "hello"


def test_a_test_server_connects_to_a_path_with_options():
    def tell(connection):
        connection.send(connection.request.path)
        connection.send(connection.subprotocol)

    with TestServer({"/chat": tell}, subprotocols=["v1"]) as server:
        connection = server.connect("/chat?room=1", subprotocols=["v1"])
        assert connection.recv(timeout=PATIENCE) == "/chat?room=1"
        assert connection.recv(timeout=PATIENCE) == "v1"


def test_a_test_server_with_tls_has_a_wss_uri(server_context, client_context):
    with TestServer(echo, ssl=server_context) as server:
        assert server.uri.startswith("wss://")
        assert server.connect(ssl=client_context).state is State.OPEN


def test_a_test_server_listens_where_it_is_told():
    with TestServer(echo, host="localhost") as server:
        assert server.connect().state is State.OPEN


def test_a_test_server_closes_the_connections_that_it_made():
    with TestServer(echo) as server:
        connection = server.connect()
    assert connection.state is State.CLOSED
    assert connection.close_code == 1000


def test_a_test_server_tells_what_a_handler_raised(caplog):
    server = TestServer(fail)
    with pytest.raises(AssertionError, match=r"1 handlers raised.*has a bug") as raised:
        with server, server.connect() as connection, pytest.raises(ConnectionClosedError):
            connection.recv(timeout=PATIENCE)
    assert isinstance(raised.value.__cause__, ValueError)
    assert [record.levelno for record in caplog.records].count(logging.ERROR) == 1


def test_a_test_server_tells_what_a_handler_of_a_path_raised():
    server = TestServer({"/": fail})
    with pytest.raises(AssertionError, match="has a bug"), server:
        server.connect()


def test_errors_that_a_test_expects_can_be_removed():
    with TestServer(fail) as server:
        with server.connect() as connection, pytest.raises(ConnectionClosedError):
            connection.recv(timeout=PATIENCE)
        assert isinstance(server.errors.pop(), ValueError)


def test_the_end_of_its_own_connection_is_no_error_of_a_handler():
    def receive(connection):
        while True:
            connection.recv()

    with TestServer(receive) as server:
        server.connect()


def test_the_end_of_another_connection_is_an_error_of_a_handler():
    def relay(connection):
        connect(echoing.uri).close()
        other = connect(echoing.uri)
        other.close()
        other.recv()

    with TestServer(echo) as echoing:
        with pytest.raises(AssertionError, match="ConnectionClosedOK"), TestServer(relay) as server:
            with pytest.raises(ConnectionClosedError):
                server.connect().recv(timeout=PATIENCE)


def test_a_test_server_tells_where_a_handler_still_runs(stuck):
    server = TestServer(stuck, timeout=SHORT)
    with pytest.raises(AssertionError, match=r"1 handlers still running(.|\n)*release\.wait"):
        with server:
            server.connect()


def test_an_exception_of_the_test_goes_before_those_of_handlers():
    with pytest.raises(KeyError), TestServer(fail) as server, server.connect():
        raise KeyError


# --- pair -----------------------------------------------------------------------------------------


def test_a_pair_is_two_open_ends():
    with pair() as (client, server):
        client.send("hello")
        assert server.recv(timeout=PATIENCE) == "hello"
        server.send(b"\x00")
        assert client.recv(timeout=PATIENCE) == b"\x00"
    assert client.state is State.CLOSED
    assert server.state is State.CLOSED


def test_a_pair_with_a_handler_runs_it_in_a_thread():
    with pair(echo) as (client, _):
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"


def test_a_pair_survives_a_handler_that_returns_at_once():
    with pair(lambda connection: None) as (client, server):
        with pytest.raises(ConnectionClosedOK):
            client.recv(timeout=PATIENCE)
        assert server.request.path == "/"


def test_a_pair_has_options_for_both_ends():
    with pair(
        uri="ws://example.org/room", client={"origin": "http://example.org"}, max_size=10
    ) as (client, server):
        assert server.request.path == "/room"
        assert server.request.headers["Origin"] == "http://example.org"
        client.send("more than ten bytes")
        with pytest.raises(ConnectionClosedError, match="1009"):
            client.recv(timeout=PATIENCE)


def test_a_pair_with_tls(server_context, client_context):
    with pair(echo, uri="wss://localhost/", client={"ssl": client_context}, ssl=server_context) as (
        client,
        _,
    ):
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"


def test_a_pair_whose_server_refuses_raises_what_connect_raises():
    with pytest.raises(InvalidStatus, match="403"), pair(client={"origin": "http://else.org"}):
        pass


def test_a_pair_with_a_wrong_option_leaves_nothing_behind():
    with pytest.raises(ValueError, match="max_size"), pair(max_size=-1):
        pass


def test_a_pair_tells_what_its_handler_raised():
    with pytest.raises(AssertionError, match="has a bug"), pair(fail):
        pass


def test_a_pair_tells_that_its_handler_still_runs(stuck):
    with pytest.raises(AssertionError, match="still running"), pair(stuck, timeout=SHORT):
        pass


def test_an_exception_of_the_test_goes_before_that_of_a_pair():
    with pytest.raises(KeyError), pair(fail):
        raise KeyError


# --- Raw clients ----------------------------------------------------------------------------------


def test_a_raw_client_sends_and_receives_frames():
    with TestServer(echo) as server, raw_client(server.uri) as peer:
        peer.send(Opcode.TEXT, "hel", fin=False)
        peer.send(Opcode.CONT, b"lo")
        assert peer.receive() == Frame(Opcode.TEXT, b"hello")
        peer.send_close(1001, "bye")
        assert peer.receive() == Frame(Opcode.CLOSE, b"\x03\xe9bye")
        assert peer.receive() is None


def test_a_raw_client_answers_nothing_by_itself():
    with TestServer(echo, ping_interval=SHORT, ping_timeout=SHORT) as server:
        with raw_client(server.uri) as peer:
            assert peer.receive().opcode == Opcode.PING
            opcodes = []
            while (frame := peer.receive()) is not None:
                opcodes.append(frame.opcode)
            assert opcodes[-1] == Opcode.CLOSE


@pytest.mark.parametrize(
    "bits", [{"rsv1": True}, {"rsv2": True}, {"rsv3": True}, {"fin": False}], ids=str
)
def test_a_raw_client_breaks_rules(bits):
    with TestServer(echo) as server, raw_client(server.uri) as peer:
        peer.send(Opcode.PING, b"", **bits)
        assert peer.receive().data[:2] == (1002).to_bytes(2, "big")


def test_a_raw_client_sends_what_is_no_frame():
    with TestServer(echo) as server, raw_client(server.uri) as peer:
        peer.send_bytes(b"\xff\xff")
        assert peer.receive().data[:2] == (1002).to_bytes(2, "big")


def test_a_raw_client_waits_no_longer_than_it_is_told():
    with TestServer(echo) as server, raw_client(server.uri) as peer:
        with pytest.raises(TimeoutError):
            peer.receive(timeout=SHORT)


def test_a_raw_client_tells_that_it_was_refused():
    with TestServer({"/": echo}) as server, pytest.raises(InvalidStatus, match="404"):
        raw_client(server.uri + "/elsewhere")


def fetch_error(url):
    """Get a page that isn't there."""
    with pytest.raises(urllib.error.HTTPError, match="426") as raised:
        urllib.request.urlopen(url, timeout=PATIENCE)
    raised.value.close()


# --- Raw servers ----------------------------------------------------------------------------------


def test_a_raw_server_plays_a_script():
    def script(peer):
        assert peer.request.path == "/path"
        frame = peer.receive()
        peer.send(frame.opcode, frame.data[::-1])
        peer.send(Opcode.TEXT, "x" * 200_000)
        peer.send(peer.receive().opcode, b"")

    with RawServer(script) as server, connect(server.uri + "/path", compression=None) as connection:
        connection.send("abc")
        assert connection.recv(timeout=PATIENCE) == "cba"
        assert connection.recv(timeout=PATIENCE) == "x" * 200_000


def test_the_end_of_a_script_is_the_end_of_tcp():
    with RawServer(lambda peer: peer.send(Opcode.TEXT, "half a mess", fin=False)) as server:
        with connect(server.uri) as connection, pytest.raises(ConnectionClosedError, match="no cl"):
            connection.recv(timeout=PATIENCE)


def test_a_raw_server_tells_what_a_script_raised():
    def script(peer):
        assert peer.receive() == Frame(Opcode.TEXT, b"something else")

    with pytest.raises(AssertionError, match="a script raised"), RawServer(script) as server:
        with connect(server.uri, compression=None) as connection:
            connection.send("something")


def test_a_raw_server_tells_that_a_script_waits_in_vain():
    def script(peer):
        while peer.receive(timeout=PATIENCE) is not None:
            pass

    connection = None
    with pytest.raises(AssertionError, match="1 scripts still running"):
        with RawServer(script, timeout=SHORT) as server:
            connection = connect(server.uri)
    connection.close()


def test_a_client_that_goes_away_is_no_error_of_a_script():
    def script(peer):
        peer.receive()
        while True:
            peer.send(Opcode.TEXT, "x" * 65536)

    with RawServer(script) as server:
        connection = connect(server.uri, compression=None)
        connection.send("go")
        connection.abort()


def test_a_raw_server_refuses_what_is_no_opening_handshake():
    server = RawServer(lambda peer: None)
    with pytest.raises(AssertionError, match="InvalidUpgrade"), server:
        fetch_error(server.uri.replace("ws:", "http:"))


def test_an_exception_of_the_test_goes_before_that_of_a_script():
    with pytest.raises(KeyError), RawServer(fail) as server, connect(server.uri):
        raise KeyError


def test_a_raw_peer_refuses_frames_that_break_rules():
    def script(peer):
        with pytest.raises(ProtocolError):
            peer.receive()

    with RawServer(script) as server:
        client = raw_client(server.uri)
        wrong = RawPeer(client.sock, client.request, is_client=False)
        with wrong:
            wrong.send(Opcode.TEXT, "not masked")


# --- pytest ---------------------------------------------------------------------------------------


CONFTEST = 'pytest_plugins = ["syncws.testing.plugin"]'


def run_tests(pytester, monkeypatch, source):
    """Run tests with the plugin in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(source)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider")


def test_the_fixture_starts_servers(pytester, monkeypatch):
    result = run_tests(
        pytester,
        monkeypatch,
        """
        def test_echo(websocket_server):
            def echo(connection):
                for message in connection:
                    connection.send(message)

            server = websocket_server(echo, max_size=100)
            connection = server.connect()
            connection.send("hello")
            assert connection.recv(timeout=5) == "hello"
        """,
    )
    result.assert_outcomes(passed=1)


def test_the_fixture_fails_a_test_whose_handler_raised(pytester, monkeypatch):
    result = run_tests(
        pytester,
        monkeypatch,
        """
        def test_failure(websocket_server):
            def handler(connection):
                raise ValueError("a bug")

            websocket_server(handler).connect()
        """,
    )
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*1 handlers raised, the first: ValueError('a bug')*"])


def test_the_tools_need_no_pytest():
    source = "import sys, syncws.testing; sys.exit('pytest' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False, cwd=ROOT).returncode == 0
