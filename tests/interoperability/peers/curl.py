"""The functions curl_ws_send() and curl_ws_recv() of libcurl, through the package "curl-cffi"."""

from __future__ import annotations

import io
import re
import select
import struct

import checks
import curl_cffi
from checks import PATIENCE, InPart, expect, main
from curl_cffi import Curl, CurlECode, CurlError, CurlInfo, CurlOpt, CurlWsFlag

ONLY_WEBSOCKET = 2  # the value of CURLOPT_CONNECT_ONLY that ends with the opening handshake


class Link:
    patience = PATIENCE

    def __init__(self, uri, subprotocols, compression):
        self._curl = Curl()
        head = io.BytesIO()
        self._curl.setopt(CurlOpt.URL, uri.encode())
        self._curl.setopt(CurlOpt.CONNECT_ONLY, ONLY_WEBSOCKET)
        self._curl.setopt(CurlOpt.HEADERDATA, head)
        if subprotocols:
            offer = "Sec-WebSocket-Protocol: " + ", ".join(subprotocols)
            self._curl.setopt(CurlOpt.HTTPHEADER, [offer.encode()])
        self._curl.perform()
        self._descriptor = self._curl.getinfo(CurlInfo.ACTIVESOCKET)
        match = re.search(rb"(?im)^sec-websocket-protocol: *(\S+)", head.getvalue())
        self.subprotocol = match and match.group(1).decode()

    def send(self, message):
        text = isinstance(message, str)
        self._send(
            message.encode() if text else message, CurlWsFlag.TEXT if text else CurlWsFlag.BINARY
        )

    def _send(self, data, flags):
        sent = 0
        while True:
            # A call after a part of the message goes on with the same frame.
            sent += self._retried(self._curl.ws_send, select.POLLOUT, data[sent:], flags)
            if sent >= len(data):
                return

    def _retried(self, function, event, *arguments):
        poll = select.poll()
        poll.register(self._descriptor, event)
        for _ in range(self.patience * 10):
            try:
                return function(*arguments)
            except CurlError as exc:
                if exc.code != CurlECode.AGAIN:
                    raise
            poll.poll(100)
        raise TimeoutError("nothing came in time")

    def _recv(self):
        """Receive one message or control frame."""
        parts = []
        while True:
            part, frame = self._retried(self._curl.ws_recv, select.POLLIN)
            parts.append(bytes(part))
            if frame.bytesleft == 0 and not frame.flags & CurlWsFlag.CONT:
                return b"".join(parts), frame.flags

    def recv(self):
        data, flags = self._recv()
        return data.decode() if flags & CurlWsFlag.TEXT else data

    def send_fragments(self, parts):
        for part in parts[:-1]:
            self._send(part.encode(), CurlWsFlag.TEXT | CurlWsFlag.CONT)
        self._send(parts[-1].encode(), CurlWsFlag.TEXT)

    def flush(self):
        """Send something that needs no answer (RFC 6455 §5.5.3)."""
        self._send(b"", CurlWsFlag.PONG)

    def ping(self):
        self._send(b"x", CurlWsFlag.PING)
        data, flags = self._recv()
        assert flags & CurlWsFlag.PONG, flags
        assert data == b"x", data

    def ended(self):
        data, flags = self._recv()
        assert flags & CurlWsFlag.CLOSE, flags
        self._send(data[:2], CurlWsFlag.CLOSE)
        self._curl.close()
        return struct.unpack("!H", data[:2])[0], data[2:].decode()

    def close(self, code, reason):
        self._send(struct.pack("!H", code) + reason.encode(), CurlWsFlag.CLOSE)
        data, flags = self._recv()
        assert flags & CurlWsFlag.CLOSE, (data, flags)
        self._curl.close()


class Checks(checks.Checks):
    def pings_to(self):
        link = self.open("/ping")
        link.patience = 3  # seconds; the server waits longer
        try:
            expect(link.recv(), "answered")
        except TimeoutError:
            link.flush()
            link.patience = PATIENCE
            expect(link.recv(), "answered")
            raise InPart("the pong stays in a buffer until the program sends something") from None


main(curl_cffi.__curl_version__.split()[0].partition("/")[2], Link, Checks)
