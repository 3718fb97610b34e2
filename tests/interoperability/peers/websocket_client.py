"""The package "websocket-client"."""

from __future__ import annotations

import struct

import websocket
from checks import PATIENCE, NotOffered, main
from websocket import ABNF


class Link:
    def __init__(self, uri, subprotocols, compression):
        self._socket = websocket.create_connection(
            uri, timeout=PATIENCE, subprotocols=subprotocols or None, suppress_origin=True
        )
        self.subprotocol = self._socket.subprotocol
        self._text = False

    def send(self, message):
        opcode = ABNF.OPCODE_TEXT if isinstance(message, str) else ABNF.OPCODE_BINARY
        self._socket.send(message, opcode)

    def recv(self):
        opcode, data = self._socket.recv_data()
        return data.decode() if opcode == ABNF.OPCODE_TEXT else data

    def send_fragments(self, parts):
        for index, part in enumerate(parts):
            opcode = ABNF.OPCODE_CONT if index else ABNF.OPCODE_TEXT
            final = int(index == len(parts) - 1)
            self._socket.send_frame(ABNF.create_frame(part, opcode, final))

    def ping(self):
        self._socket.ping("x")
        opcode, _ = self._socket.recv_data(control_frame=True)
        if opcode != ABNF.OPCODE_PONG:
            raise NotOffered

    def ended(self):
        opcode, data = self._socket.recv_data()
        assert opcode == ABNF.OPCODE_CLOSE, opcode
        self._socket.close()
        return struct.unpack("!H", data[:2])[0], data[2:].decode()

    def close(self, code, reason):
        self._socket.close(code, reason.encode())


main(websocket.__version__, Link)
