"""
aiohttp: one event loop, with its C extensions.

    python aiohttp_web.py PORT [broadcast] [deflate] [uvloop]
"""

import asyncio
import sys

from aiohttp import WSMsgType, web

port = int(sys.argv[1])
options = set(sys.argv[2:])
connections = set()


async def echo(connection):
    async for message in connection:
        if message.type is WSMsgType.TEXT:
            await connection.send_str(message.data)


async def publish(connection):
    connections.add(connection)
    try:
        async for message in connection:
            sends = [each.send_str(message.data) for each in connections]
            await asyncio.gather(*sends, return_exceptions=True)
    finally:
        connections.discard(connection)


async def handle(request):
    connection = web.WebSocketResponse(compress="deflate" in options)
    await connection.prepare(request)
    await (publish if "broadcast" in options else echo)(connection)
    return connection


async def main():
    application = web.Application()
    application.router.add_get("/", handle)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


if "uvloop" in options:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
