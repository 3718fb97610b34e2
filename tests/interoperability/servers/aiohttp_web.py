"""A server of the package "aiohttp" for the client of syncws."""

from __future__ import annotations

import asyncio
import json

import aiohttp
from aiohttp import WSMsgType, web

ENDS: asyncio.Queue[str] = asyncio.Queue()


async def echo(socket):
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            await socket.send_str(message.data)
        else:
            await socket.send_bytes(message.data)


async def fragments(socket):
    await socket.close(code=4404, message=b"it sends a message as one frame")


async def ping(socket):
    await socket.ping(b"x")
    message = await socket.receive()
    await socket.send_str("answered" if message.type is WSMsgType.PONG else str(message))
    await socket.receive()


async def close(socket):
    await socket.close(code=4001, message="Größe".encode())


async def closed(socket):
    message = await socket.receive()
    await ENDS.put(f"{message.data} {message.extra}")


async def report(socket):
    await socket.send_str(await ENDS.get())
    await socket.receive()


ACTIONS = {"joined": echo, **{act.__name__: act for act in (echo, fragments, ping, close)}}
ACTIONS.update({act.__name__: act for act in (closed, report)})


async def handle(request):
    action = request.path[1:]
    # It tells the program of pongs only where it doesn't answer pings.
    socket = web.WebSocketResponse(protocols=["chat.v2"], autoping=action != "ping")
    await socket.prepare(request)
    await ACTIONS[action](socket)
    return socket


async def main():
    app = web.Application()
    app.router.add_get("/{action}", handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    print(json.dumps({"version": aiohttp.__version__, "port": port}), flush=True)
    await asyncio.Event().wait()


asyncio.run(main())
