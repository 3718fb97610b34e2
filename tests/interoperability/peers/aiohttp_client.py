"""The package "aiohttp"; its event loop runs while something is waited for."""

from __future__ import annotations

import asyncio

import aiohttp
from checks import PATIENCE, NotOffered, main

LOOP = asyncio.new_event_loop()


def run(awaitable):
    return LOOP.run_until_complete(asyncio.wait_for(awaitable, PATIENCE))


class Link:
    def __init__(self, uri, subprotocols, compression):
        run(self._open(uri, subprotocols, compression))
        self.subprotocol = self._socket.protocol

    async def _open(self, uri, subprotocols, compression):
        self._session = aiohttp.ClientSession()
        self._socket = await self._session.ws_connect(
            uri, protocols=subprotocols, compress=15 if compression else 0, autoping=False
        )

    def send(self, message):
        text = isinstance(message, str)
        run(self._socket.send_str(message) if text else self._socket.send_bytes(message))

    def recv(self):
        while True:
            message = run(self._socket.receive())
            if message.type is not aiohttp.WSMsgType.PING:
                return message.data
            run(self._socket.pong(message.data))

    def send_fragments(self, parts):
        raise NotOffered("it sends a message as one frame")

    def ping(self):
        run(self._socket.ping(b"x"))
        message = run(self._socket.receive())
        assert message.type is aiohttp.WSMsgType.PONG, message

    def ended(self):
        message = run(self._socket.receive())
        assert message.type is aiohttp.WSMsgType.CLOSE, message
        run(self._session.close())
        return message.data, message.extra

    def close(self, code, reason):
        run(self._socket.close(code=code, message=reason.encode()))
        run(self._session.close())


main(aiohttp.__version__, Link)
LOOP.close()
