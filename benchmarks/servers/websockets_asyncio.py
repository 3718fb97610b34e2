"""
websockets, its asyncio server: one event loop, with its C speedups.

    python websockets_asyncio.py PORT [broadcast] [deflate] [uvloop]
"""

import asyncio
import sys

from websockets.asyncio.server import broadcast, serve

port = int(sys.argv[1])
options = set(sys.argv[2:])
connections = set()


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def publish(connection):
    connections.add(connection)
    try:
        async for message in connection:
            broadcast(connections, message)
    finally:
        connections.discard(connection)


async def main():
    handler = publish if "broadcast" in options else echo
    compression = "deflate" if "deflate" in options else None
    async with serve(handler, "127.0.0.1", port, compression=compression) as server:
        await server.serve_forever()


if "uvloop" in options:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
