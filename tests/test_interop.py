"""Interoperability: our server with clients of other libraries, our client with their servers."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ssl

import pytest
from interop import PATIENCE, Aiohttp, Wanted, WebsocketClient, WebsocketsAsync, WebsocketsSync
from links import Held

from syncws import ConnectionClosedError, ConnectionClosedOK, connect, serve

CLIENTS = [WebsocketsSync, WebsocketsAsync, Aiohttp, WebsocketClient]
SERVERS = [WebsocketsSync, WebsocketsAsync, Aiohttp]

MEBIBYTE = bytes(range(256)) * 4096


class Pairs:
    """
    Opens connections between our library and another one.

    Args:
        library: one of the classes of the module ``interop``.
        our_role: ``"server"`` or ``"client"``.
        contexts: TLS for servers and for clients; ``None`` and ``None`` for plain.
    """

    def __init__(self, library, our_role, contexts):
        self.library = library
        self._open = self._serve if our_role == "server" else self._connect
        self._server_context, self._client_context = contexts
        self._scheme = "ws" if self._server_context is None else "wss"

    @contextlib.contextmanager
    def open(self, *, compression=False, ours=None, theirs=None):
        """Yield our end and theirs; ``ours`` and ``theirs`` are the subprotocols of each."""
        our_options = {
            "compression": "deflate" if compression else None,
            "subprotocols": ours,
            "close_timeout": 2 * PATIENCE,  # none is closed by it: a test fails before
        }
        with self._open(our_options, compression, theirs) as (our_end, their_end):
            yield our_end, their_end
            # Both at once: neither has to wait until the other one looks.
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                closing = pool.submit(their_end.close)
                our_end.close()
                closing.result(PATIENCE)

    @contextlib.contextmanager
    def _serve(self, our_options, compression, subprotocols):
        held = Held()
        server = serve(held, "127.0.0.1", 0, ssl=self._server_context, **our_options)
        with server.start():
            uri = f"{self._scheme}://127.0.0.1:{server.server_address[1]}/"
            wanted = Wanted(self._client_context, compression, subprotocols)
            try:
                with self.library.connecting(uri, wanted) as theirs:
                    yield held.wait(), theirs
            finally:
                held.release()

    @contextlib.contextmanager
    def _connect(self, our_options, compression, subprotocols):
        wanted = Wanted(self._server_context, compression, subprotocols)
        with self.library.serving(wanted) as (port, accept):
            uri = f"{self._scheme}://127.0.0.1:{port}/"
            with connect(uri, ssl=self._client_context, **our_options) as ours:
                yield ours, accept()


@pytest.fixture(params=["plain", "tls"])
def contexts(request, authority, client_context):
    if request.param == "plain":
        return None, None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    # The client of websockets.sync reads in one thread while another one writes to the same TLS
    # object. When it reads session tickets just then, its request can get lost, with its own
    # server too: 8 of 1500 connections; without tickets 0 of 1500.
    context.num_tickets = 0
    return context, client_context


COMBINATIONS = [("server", library) for library in CLIENTS] + [("client", lib) for lib in SERVERS]


def name(combination):
    our_role, library = combination
    return f"{our_role}-{library.__name__}"


@pytest.fixture(params=COMBINATIONS, ids=name)
def pairs(request, contexts):
    our_role, library = request.param
    return Pairs(library, our_role, contexts)


def those_with(ability):
    """Have a test run with the libraries that can do something, in the roles in which they can."""
    combinations = [pair for pair in COMBINATIONS if getattr(pair[1], ability)]
    return pytest.mark.parametrize("pairs", combinations, indirect=True, ids=name)


# --- Messages -------------------------------------------------------------------------------------


def test_messages_arrive_as_they_were_sent_in_both_directions(pairs):
    with pairs.open() as (ours, theirs):
        for message in "", "Grüße, 世界 🌍", b"", bytes(range(256)), "x" * 65536:
            ours.send(message)
            assert theirs.recv() == message
            theirs.send(message)
            assert ours.recv(timeout=PATIENCE) == message


@pytest.mark.parametrize("compression", [False, True], ids=["uncompressed", "compressed"])
@pytest.mark.parametrize("message", [MEBIBYTE, "x" * 2**20], ids=["binary", "text"])
def test_a_mebibyte_arrives_as_it_was_sent_in_both_directions(pairs, message, compression):
    with contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(1))
        ours, theirs = stack.enter_context(pairs.open(compression=compression))
        sending = pool.submit(ours.send, message)
        assert theirs.recv() == message
        sending.result(PATIENCE)
        sending = pool.submit(theirs.send, message)
        assert ours.recv(timeout=PATIENCE) == message
        sending.result(PATIENCE)


def test_they_join_our_fragments(pairs):
    with pairs.open() as (ours, theirs):
        ours.send(["one, ", "", "two, ", "three"])
        assert theirs.recv() == "one, two, three"


@those_with("fragments")
def test_we_join_their_fragments(pairs):
    with pairs.open() as (ours, theirs):
        theirs.send_fragments(["one, ", "", "two, ", "three"])
        assert ours.recv(timeout=PATIENCE) == "one, two, three"


def test_they_answer_our_ping(pairs):
    with pairs.open() as (ours, theirs):
        waiter = ours.ping("are you there?")
        ours.send("read this")
        assert theirs.recv() == "read this"
        assert waiter.wait(PATIENCE)


def test_we_answer_their_ping(pairs):
    with pairs.open() as (ours, theirs):
        theirs.send_ping(b"are you there?")
        theirs.send("read this")
        assert ours.recv(timeout=PATIENCE) == "read this"
        assert theirs.wait_pong(b"are you there?")


# --- Negotiation ----------------------------------------------------------------------------------


@those_with("compresses")
def test_compression_is_agreed_on_and_used_in_both_directions(pairs):
    message = "All work and no play makes Jack a dull boy. " * 1000
    with pairs.open(compression=True) as (ours, theirs):
        agreed = ours.response.headers["Sec-WebSocket-Extensions"]
        assert agreed.split(";")[0] == "permessage-deflate"
        ours.send(message)
        assert theirs.recv() == message
        theirs.send(message)
        assert ours.recv(timeout=PATIENCE) == message
        stats = ours.stats()
    assert stats["bytes_sent"] < len(message) / 10
    assert stats["bytes_received"] < len(message) / 10


@those_with("compresses")
def test_many_compressed_messages_keep_both_contexts_together(pairs):
    with pairs.open(compression=True) as (ours, theirs):
        for number in range(50):
            message = f"message {number} of this connection, " * (number + 1)
            ours.send(message)
            assert theirs.recv() == message
            theirs.send(message.encode())
            assert ours.recv(timeout=PATIENCE) == message.encode()


def test_without_compression_none_is_agreed_on(pairs):
    with pairs.open(compression=False) as (ours, theirs):
        assert "Sec-WebSocket-Extensions" not in ours.response.headers
        ours.send("x" * 1000)
        assert theirs.recv() == "x" * 1000
        assert ours.stats()["bytes_sent"] > 1000


def test_a_subprotocol_is_agreed_on(pairs):
    with pairs.open(ours=["chat.v2", "chat.v1"], theirs=["chat.v1", "other"]) as (ours, theirs):
        assert ours.subprotocol == "chat.v1"
        assert theirs.subprotocol == "chat.v1"


# --- Closing --------------------------------------------------------------------------------------


def test_they_see_our_close_code_and_reason(pairs):
    with pairs.open() as (ours, theirs), concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(ours.close, 3001, "we go")
        assert theirs.wait_close() == (3001, "we go")
        closing.result(PATIENCE)
        with pytest.raises(ConnectionClosedError) as raised:
            ours.recv(timeout=PATIENCE)
        assert (raised.value.sent.code, raised.value.sent.reason) == (3001, "we go")
        assert raised.value.rcvd.code == (3001 if pairs.library.echoes_close_code else 1000)
        assert not raised.value.rcvd_then_sent


def test_we_see_their_close_code_and_reason(pairs):
    with pairs.open() as (ours, theirs), concurrent.futures.ThreadPoolExecutor(1) as pool:
        closing = pool.submit(theirs.close, 3002, "they go")
        with pytest.raises(ConnectionClosedError) as raised:
            ours.recv(timeout=PATIENCE)
        closing.result(PATIENCE)
        assert (raised.value.rcvd.code, raised.value.rcvd.reason) == (3002, "they go")
        assert raised.value.rcvd_then_sent
        assert raised.value.sent.code == 3002
        assert (ours.close_code, ours.close_reason) == (3002, "they go")


def test_a_normal_close_of_theirs_ends_our_iteration(pairs):
    with pairs.open() as (ours, theirs), concurrent.futures.ThreadPoolExecutor(1) as pool:
        theirs.send("the last one")
        closing = pool.submit(theirs.close)
        assert list(ours) == ["the last one"]
        closing.result(PATIENCE)
        with pytest.raises(ConnectionClosedOK, match=r"^received 1000 \(OK\); then sent 1000"):
            ours.recv(timeout=PATIENCE)
