"""
picows, which is written in Cython: one event loop.

    python picows_listener.py PORT [broadcast] [uvloop]
"""

import asyncio
import sys

from picows import WSListener, WSMsgType, ws_create_server

port = int(sys.argv[1])
options = set(sys.argv[2:])
transports = set()


class Listener(WSListener):
    def on_ws_connected(self, transport):
        transports.add(transport)

    def on_ws_disconnected(self, transport):
        transports.discard(transport)

    def on_ws_frame(self, transport, frame):
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()
        elif frame.msg_type == WSMsgType.PING:
            transport.send_pong(frame.get_payload_as_bytes())
        else:
            self.on_message(transport, frame.msg_type, frame.get_payload_as_bytes())

    def on_message(self, transport, opcode, payload):
        transport.send(opcode, payload)


class Publisher(Listener):
    def on_message(self, transport, opcode, payload):
        for each in transports:
            each.send(opcode, payload)


async def main():
    listener = Publisher if "broadcast" in options else Listener
    server = await ws_create_server(lambda request: listener(), "127.0.0.1", port)
    await server.serve_forever()


if "uvloop" in options:
    import uvloop

    uvloop.run(main())
else:
    asyncio.run(main())
