"""A server of the package "websockets" for the client of syncws."""

from __future__ import annotations

import asyncio
import json

import websockets
from websockets.asyncio.server import serve

ENDS: asyncio.Queue[str] = asyncio.Queue()


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def fragments(connection):
    await connection.send(iter(["one, ", "two, ", "three"]))
    await connection.wait_closed()


async def ping(connection):
    await (await connection.ping())
    await connection.send("answered")
    await connection.wait_closed()


async def close(connection):
    await connection.close(4001, "Größe")


async def closed(connection):
    await connection.wait_closed()
    ENDS.put_nowait(f"{connection.close_code} {connection.close_reason}")


async def report(connection):
    await connection.send(await ENDS.get())
    await connection.wait_closed()


ACTIONS = {"joined": echo, **{act.__name__: act for act in (echo, fragments, ping, close)}}
ACTIONS.update({act.__name__: act for act in (closed, report)})


async def handle(connection):
    await ACTIONS[connection.request.path[1:]](connection)


def select(connection, offered):
    return "chat.v2" if "chat.v2" in offered else None


async def main():
    async with serve(handle, "127.0.0.1", 0, select_subprotocol=select) as server:
        port = server.sockets[0].getsockname()[1]
        print(json.dumps({"version": websockets.__version__, "port": port}), flush=True)
        await server.serve_forever()


asyncio.run(main())
