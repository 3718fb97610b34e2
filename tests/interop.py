"""
Connections of other libraries, all with one interface, for test_interop.py.

Each class is one end of a connection. ``connecting()`` opens it to a server, ``serving()`` runs
a server that yields its port and a function that returns the server's end of the next connection.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import os
import queue
import threading
from typing import Any, NamedTuple, Optional

import aiohttp
import aiohttp.web
import websocket
import websockets.asyncio.client
import websockets.asyncio.server
import websockets.exceptions
import websockets.sync.client
import websockets.sync.server

PATIENCE = 10  # seconds until a test gives up waiting


class Wanted(NamedTuple):
    """How to configure the other library."""

    ssl: Any
    compression: bool
    subprotocols: Optional[list[str]]


class Loop:
    """An event loop in a thread, for libraries that need one."""

    def __init__(self):
        self._started = concurrent.futures.Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()))

    def __enter__(self):
        self._thread.start()
        self._loop, self._stop = self._started.result(PATIENCE)
        return self

    def __exit__(self, *exc_info):
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)

    async def _main(self):
        stop = asyncio.Event()
        self._started.set_result((asyncio.get_running_loop(), stop))
        await stop.wait()

    def run(self, coroutine):
        """Run a coroutine in the loop; returns what it returns."""
        bounded = asyncio.wait_for(coroutine, PATIENCE)
        return asyncio.run_coroutine_threadsafe(bounded, self._loop).result(2 * PATIENCE)


class WebsocketsSync:
    """``websockets.sync``."""

    compresses = True
    fragments = True
    echoes_close_code = True

    def __init__(self, connection):
        self._connection = connection
        self._pong = None

    @classmethod
    @contextlib.contextmanager
    def connecting(cls, uri, wanted):
        with websockets.sync.client.connect(uri, proxy=None, **options(wanted)) as connection:
            yield cls(connection)

    @classmethod
    @contextlib.contextmanager
    def serving(cls, wanted):
        accepted = queue.Queue()
        done = threading.Event()

        def handler(connection):
            accepted.put(cls(connection))
            done.wait(PATIENCE)

        server = websockets.sync.server.serve(handler, "127.0.0.1", 0, **options(wanted))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1], lambda: accepted.get(timeout=PATIENCE)
        finally:
            done.set()
            server.shutdown()
            thread.join(PATIENCE)
            for name in "shutdown_watcher", "shutdown_notifier":
                end = getattr(server, name, None)
                if isinstance(end, int):  # as in version 15, which left them open
                    os.close(end)
            gc.collect()  # It leaves its selector to the garbage collector.

    @property
    def subprotocol(self):
        return self._connection.subprotocol

    def send(self, message):
        self._connection.send(message)

    def send_fragments(self, fragments):
        self._connection.send(fragments)

    def recv(self):
        return self._connection.recv(timeout=PATIENCE)

    def send_ping(self, data):
        self._pong = self._connection.ping(data)

    def wait_pong(self, data):
        return self._pong.wait(PATIENCE)

    def close(self, code=1000, reason=""):
        self._connection.close(code, reason)

    def wait_close(self):
        """Code and reason that it was closed with by the peer."""
        try:
            raise AssertionError(f"not closed, but received {self.recv()!r}")
        except websockets.exceptions.ConnectionClosed as exc:
            return exc.rcvd.code, exc.rcvd.reason


class WebsocketsAsync:
    """``websockets.asyncio``."""

    compresses = True
    fragments = True
    echoes_close_code = True

    def __init__(self, loop, connection):
        self._loop = loop
        self._connection = connection
        self._pong = None

    @classmethod
    @contextlib.contextmanager
    def connecting(cls, uri, wanted):
        async def connect():
            return await websockets.asyncio.client.connect(uri, proxy=None, **options(wanted))

        with Loop() as loop:
            theirs = cls(loop, loop.run(connect()))
            try:
                yield theirs
            finally:
                theirs.close()

    @classmethod
    @contextlib.contextmanager
    def serving(cls, wanted):
        accepted = queue.Queue()

        async def handler(connection):
            accepted.put(cls(loop, connection))
            await connection.wait_closed()

        async def start():
            serve = websockets.asyncio.server.serve
            return await serve(handler, "127.0.0.1", 0, **options(wanted))

        async def stop():
            server.close()
            await server.wait_closed()

        with Loop() as loop:
            server = loop.run(start())
            try:
                port = server.sockets[0].getsockname()[1]
                yield port, lambda: accepted.get(timeout=PATIENCE)
            finally:
                loop.run(stop())

    @property
    def subprotocol(self):
        return self._connection.subprotocol

    def send(self, message):
        self._loop.run(self._connection.send(message))

    def send_fragments(self, fragments):
        self.send(fragments)

    def recv(self):
        return self._loop.run(self._connection.recv())

    def send_ping(self, data):
        self._pong = self._loop.run(self._connection.ping(data))

    def wait_pong(self, data):
        async def wait():
            await self._pong

        self._loop.run(wait())
        return True

    def close(self, code=1000, reason=""):
        self._loop.run(self._connection.close(code, reason))

    def wait_close(self):
        """Code and reason that it was closed with by the peer."""
        try:
            raise AssertionError(f"not closed, but received {self.recv()!r}")
        except websockets.exceptions.ConnectionClosed as exc:
            return exc.rcvd.code, exc.rcvd.reason


class Aiohttp:
    """``aiohttp``. It shows pings and pongs to those who answer pings themselves."""

    compresses = True
    fragments = False
    echoes_close_code = False

    def __init__(self, loop, connection, subprotocol):
        self._loop = loop
        self._connection = connection
        self.subprotocol = subprotocol

    @classmethod
    @contextlib.contextmanager
    def connecting(cls, uri, wanted):
        async def connect():
            session = aiohttp.ClientSession()
            connection = await session.ws_connect(
                uri,
                ssl=wanted.ssl if wanted.ssl is not None else True,
                compress=15 if wanted.compression else 0,
                protocols=wanted.subprotocols or (),
                autoping=False,
            )
            return session, connection

        with Loop() as loop:
            session, connection = loop.run(connect())
            theirs = cls(loop, connection, connection.protocol)
            try:
                yield theirs
            finally:
                theirs.close()
                loop.run(session.close())

    @classmethod
    @contextlib.contextmanager
    def serving(cls, wanted):
        accepted = queue.Queue()

        async def handler(request):
            connection = aiohttp.web.WebSocketResponse(
                protocols=wanted.subprotocols or (), compress=wanted.compression, autoping=False
            )
            await connection.prepare(request)
            accepted.put(cls(loop, connection, connection.ws_protocol))
            await done.wait()
            return connection

        async def start():
            app = aiohttp.web.Application()
            app.router.add_get("/", handler)
            runner = aiohttp.web.AppRunner(app)
            await runner.setup()
            await aiohttp.web.TCPSite(runner, "127.0.0.1", 0, ssl_context=wanted.ssl).start()
            return runner, asyncio.Event()

        async def stop():
            done.set()
            await runner.cleanup()

        with Loop() as loop:
            runner, done = loop.run(start())
            try:
                yield runner.addresses[0][1], lambda: accepted.get(timeout=PATIENCE)
            finally:
                loop.run(stop())

    def send(self, message):
        send = (
            self._connection.send_str if isinstance(message, str) else self._connection.send_bytes
        )
        self._loop.run(send(message))

    def recv(self):
        message = self._next(aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY)
        return message.data

    def send_ping(self, data):
        self._loop.run(self._connection.ping(data))

    def wait_pong(self, data):
        return self._next(aiohttp.WSMsgType.PONG).data == data

    def close(self, code=1000, reason=""):
        self._loop.run(self._connection.close(code=code, message=reason.encode()))

    def wait_close(self):
        """Code and reason that it was closed with by the peer."""
        message = self._next(aiohttp.WSMsgType.CLOSE)
        return message.data, message.extra

    def _next(self, *kinds):
        """The next message of these kinds, which must be the next but for pings."""
        while True:
            message = self._loop.run(self._connection.receive())
            if message.type is not aiohttp.WSMsgType.PING:
                assert message.type in kinds
                return message
            self._loop.run(self._connection.pong(message.data))


class WebsocketClient:
    """``websocket-client``."""

    compresses = False
    fragments = True
    echoes_close_code = False

    def __init__(self, connection):
        self._connection = connection

    @classmethod
    @contextlib.contextmanager
    def connecting(cls, uri, wanted):
        connection = websocket.create_connection(
            uri,
            timeout=PATIENCE,
            subprotocols=wanted.subprotocols,
            sslopt={"context": wanted.ssl},
        )
        theirs = cls(connection)
        try:
            yield theirs
        finally:
            theirs.close()
            connection.shutdown()

    @property
    def subprotocol(self):
        return self._connection.getsubprotocol()

    def send(self, message):
        if isinstance(message, str):
            self._connection.send_text(message)
        else:
            self._connection.send_binary(message)

    def send_fragments(self, fragments):
        opcode = websocket.ABNF.OPCODE_TEXT
        for index, fragment in enumerate(fragments):
            fin = int(index == len(fragments) - 1)
            frame = websocket.ABNF.create_frame(fragment, opcode, fin)
            self._connection.send_frame(frame)
            opcode = websocket.ABNF.OPCODE_CONT

    def recv(self):
        opcode, data = self._connection.recv_data()
        assert opcode in (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_BINARY)
        return data.decode() if opcode == websocket.ABNF.OPCODE_TEXT else data

    def send_ping(self, data):
        self._connection.ping(data)

    def wait_pong(self, data):
        return self._connection.recv_data(control_frame=True) == (websocket.ABNF.OPCODE_PONG, data)

    def close(self, code=1000, reason=""):
        self._connection.close(code, reason.encode(), PATIENCE)

    def wait_close(self):
        """Code and reason that it was closed with by the peer."""
        opcode, data = self._connection.recv_data()
        assert opcode == websocket.ABNF.OPCODE_CLOSE
        self._connection.shutdown()  # It has answered, and leaves the end of TCP to its user.
        return int.from_bytes(data[:2], "big"), data[2:].decode()


def options(wanted):
    """Arguments of functions of ``websockets``."""
    return {
        "ssl": wanted.ssl,
        "compression": "deflate" if wanted.compression else None,
        "subprotocols": wanted.subprotocols,
        "close_timeout": PATIENCE,
    }
