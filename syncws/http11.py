"""
Heads of HTTP/1.1 requests and responses (RFC 9112), as far as the opening handshake needs them.

The parsers do no I/O: bytes are fed to them as they arrive, and they return ``None`` until the
message is complete. They look at each byte once, however the input is cut, and they stop with
an exception at the first line that is wrong or over a limit, rather than wait for the rest.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Optional, Union

from .exceptions import (
    HeaderLineTooLong,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from .headers import Headers, excerpt

__all__ = ["Request", "RequestParser", "Response", "ResponseParser"]

# 8 KiB a line is what most servers allow (Apache httpd, nginx, h11 and others).
MAX_LINE = 8192
MAX_HEADERS = 128
MAX_HEAD = 65536

MAX_BODY = 65536
"""Bytes kept of the body of a response: it is there to say why a server refused."""

# RFC 9110 §5.6.2: token
_TOKEN = re.compile(rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
# RFC 9110 §5.5: field-value; the reason phrase has the same characters (RFC 9112 §4).
_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
_VERSION = re.compile(rb"HTTP/[0-9]\.[0-9]")
_STATUS_CODE = re.compile(rb"[1-5][0-9][0-9]")
# RFC 9112 §3.2: visible ASCII; a fragment is not sent.
_ORIGIN_FORM = re.compile(rb"/[\x21\x22\x24-\x7e]*")
_ABSOLUTE_FORM = re.compile(
    rb"[A-Za-z][A-Za-z0-9+.-]*://([^\x00-\x20\x7f-\xff/?#@]+)((?:[/?][\x21\x22\x24-\x7e]*)?)"
)
# RFC 9112 §3 and §4: what we send ourselves.
_REQUEST_LINE = re.compile(
    rb"%b (?:\*|%b) %b" % (_TOKEN.pattern, _ORIGIN_FORM.pattern, _VERSION.pattern)
)
_STATUS_LINE = re.compile(r"HTTP/1\.1 [1-5][0-9][0-9] [\t\x20-\x7e\x80-\xff]*")
# A whole request as nearly all of them are; what does not match may still be right.
_USUAL_REQUEST = re.compile(
    rb"(%b) (%b) (HTTP/1\.[01])\r\n((?:%b:%b\r\n)*)\r\n"
    % (_TOKEN.pattern, _ORIGIN_FORM.pattern, _TOKEN.pattern, _VALUE.pattern)
)
_FIELD_LINE = re.compile("([^:]+):[ \\t]*([^\\r]*)\\r\\n")
_SWITCHING_PROTOCOLS = b"HTTP/1.1 101 Switching Protocols\r\n"
# RFC 9112 §7.1: chunk-size. 15 digits are enough for everything that exists.
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_CONTENT_LENGTH = re.compile(r"[0-9]{1,18}")

# What cannot be in the first line of a request or of a response.
_NOT_REQUEST_LINE = re.compile(rb"[^\x20-\x7e\r]")
_NOT_STATUS_LINE = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")

# RFC 8446 §5.1: content types of the records that TLS starts with.
_TLS_ALERT, _TLS_HANDSHAKE = 0x15, 0x16


@dataclass
class Request:
    """
    Head of an HTTP request.

    Attributes:
        path: path and query as in the request line, percent-encoded.
        headers: header fields.
        method: ``"GET"`` in an opening handshake.
        protocol: ``"HTTP/1.1"`` in an opening handshake; may be ``"HTTP/1.0"``.
    """

    path: str
    headers: Headers
    method: str = "GET"
    protocol: str = "HTTP/1.1"

    def serialize(self) -> bytes:
        """
        Return the request as bytes.

        Raises:
            ValueError: a part of the request line would make another request of it.
        """
        line = f"{self.method} {self.path} {self.protocol}"
        if not line.isascii() or not _REQUEST_LINE.fullmatch(line.encode()):
            raise ValueError(f"invalid HTTP request line: {excerpt(line)}")
        return line.encode() + b"\r\n" + self.headers.serialize()


@dataclass
class Response:
    """
    An HTTP response.

    Attributes:
        status_code: 101 where the opening handshake succeeded.
        reason_phrase: text for people.
        headers: header fields; Content-Length must fit ``body``.
        body: at most 64 KiB of it in a response that was received.
    """

    status_code: int
    reason_phrase: str
    headers: Headers
    body: bytes = b""

    def serialize(self) -> bytes:
        """
        Return the response as bytes.

        Raises:
            ValueError: status code or reason phrase would make another response of it.
        """
        if self.status_code == 101 and self.reason_phrase == "Switching Protocols":
            return _SWITCHING_PROTOCOLS + self.headers.serialize() + self.body
        line = f"HTTP/1.1 {self.status_code:d} {self.reason_phrase}"
        if not _STATUS_LINE.fullmatch(line):
            raise ValueError(f"invalid HTTP status line: {excerpt(line)}")
        return line.encode("iso-8859-1") + b"\r\n" + self.headers.serialize() + self.body


class _Lines:
    """A growing buffer that is cut into lines; each byte is searched once."""

    __slots__ = ("_buffer", "_max_line", "_searched")

    def __init__(self, max_line: int) -> None:
        self._buffer = bytearray()
        self._max_line = max_line
        self._searched = 0

    def __len__(self) -> int:
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        self._buffer += data

    def peek(self) -> bytes:
        return bytes(self._buffer)

    def next_line(self, too_long: type[SecurityError]) -> Optional[bytes]:
        """Return a line without its CRLF; ``None`` if it is not complete."""
        end = self._buffer.find(b"\n", self._searched)
        size = len(self._buffer) if end < 0 else end + 1
        if size > self._max_line:
            raise too_long(f"line is longer than {self._max_line} bytes")
        self._searched = size
        if end < 0:
            return None
        line = self.take(size)
        # RFC 9112 §2.2 lets a recipient take a bare LF for a line's end. Those that do and
        # those that do not see different messages, which is how requests are smuggled.
        if not line.endswith(b"\r\n"):
            raise InvalidMessage(f"line without CRLF: {excerpt(line)}")
        return line[:-2]

    def take(self, size: Optional[int] = None) -> bytes:
        """Remove and return at most ``size`` bytes; all if it is ``None``."""
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._searched = 0
        return data


class _HeadParser(ABC):
    """What heads of requests and of responses have in common."""

    _start_line_too_long: type[SecurityError]

    def __init__(
        self, max_line: int = MAX_LINE, max_headers: int = MAX_HEADERS, max_head: int = MAX_HEAD
    ) -> None:
        self._max_line = max_line
        self._max_headers = max_headers
        self._max_head = max_head
        self._head_size = 0
        self._in_headers = False
        self._header_count = 0
        self.started = False
        """Whether any byte has arrived."""

    def _begin(self) -> None:
        """Make what is needed to parse line by line."""
        self._lines = _Lines(self._max_line)
        self._headers = Headers()

    @property
    def leftover(self) -> bytes:
        """Bytes that followed the message: frames, once the handshake is complete."""
        return self._lines.peek()

    @abstractmethod
    def _read_start_line(self, line: bytes) -> None:
        """Parse the request line or the status line."""

    def _read_head(self) -> bool:
        """Parse the lines that are complete; tell whether the head is."""
        while True:
            line = self._next_line()
            if line is None:
                return False
            if not self._in_headers:
                # RFC 9112 §2.2: a server should ignore an empty line before the request.
                # The limits end a stream of them.
                if line:
                    self._read_start_line(line)
                    self._in_headers = True
            elif line:
                self._read_header(line)
            else:
                self._in_headers = False
                return True

    def _next_line(self) -> Optional[bytes]:
        too_long = HeaderLineTooLong if self._in_headers else self._start_line_too_long
        line = self._lines.next_line(too_long)
        pending = len(self._lines) if line is None else 0
        if line is not None:
            self._head_size += len(line) + 2
        if self._head_size + pending > self._max_head:
            raise HeaderLineTooLong(f"head is larger than {self._max_head} bytes")
        return line

    def _read_header(self, line: bytes) -> None:
        self._header_count += 1
        if self._header_count > self._max_headers:
            raise TooManyHeaders(f"expected no more than {self._max_headers} headers")
        name, colon, value = line.partition(b":")
        # RFC 9112 §5.2: a folded line starts with a space and is refused here.
        if not colon:
            raise InvalidMessage(f"invalid HTTP header line: {excerpt(line)}")
        if not _TOKEN.fullmatch(name):
            raise InvalidMessage(f"invalid HTTP header name: {excerpt(name)}")
        value = value.strip(b" \t")
        if not _VALUE.fullmatch(value):
            raise InvalidMessage(f"invalid HTTP header value: {excerpt(value)}")
        self._headers.add_parsed(name.decode("ascii"), value.decode("iso-8859-1"))


def _check_body_absent(headers: Headers) -> None:
    # RFC 9112 §6.1: a request's body would be taken for frames, or for a second request.
    if "Transfer-Encoding" in headers:
        raise InvalidMessage("transfer codings aren't supported")
    if "Content-Length" in headers and headers.get_all("Content-Length") != ["0"]:
        raise InvalidMessage("unsupported request body")


class RequestParser(_HeadParser):
    """
    Parser of one request without a body, for a server.

    Args:
        max_line: bytes in a line, CRLF included.
        max_headers: number of header lines.
        max_head: bytes in the whole head.
    """

    _start_line_too_long = RequestLineTooLong

    def __init__(
        self, max_line: int = MAX_LINE, max_headers: int = MAX_HEADERS, max_head: int = MAX_HEAD
    ) -> None:
        super().__init__(max_line, max_headers, max_head)
        self._leftover: Optional[bytes] = None  # after a request that came in one piece

    def _begin(self) -> None:
        super()._begin()
        self._request = Request("", self._headers)
        self._authority: Optional[str] = None

    @property
    def leftover(self) -> bytes:
        return super().leftover if self._leftover is None else self._leftover

    def feed(self, data: bytes) -> Optional[Request]:
        """
        Take what arrived; return the request once its head is complete.

        Raises:
            InvalidMessage: it is not a request as RFC 9112 has it, or it has a body.
            InvalidProtocol: its version is not HTTP/1.1 or HTTP/1.0.
            RequestLineTooLong: the request line is over ``max_line``.
            HeaderLineTooLong: a header line is over ``max_line``, or the head over ``max_head``.
            TooManyHeaders: there are more than ``max_headers`` of them.
        """
        if not self.started:
            request = self._parse_usual(data)
            if request is not None:
                return request
            self._begin()
        if not self._in_headers:
            self._check_start(data)
        self.started = self.started or bool(data)
        self._lines.feed(data)
        if not self._read_head():
            return None
        _check_body_absent(self._headers)
        self._apply_authority()
        return self._request

    def _parse_usual(self, data: bytes) -> Optional[Request]:
        """Parse at once what came in one piece and is within all limits for sure."""
        match = _USUAL_REQUEST.match(data, 0, min(self._max_line, self._max_head))
        if match is None:
            return None
        method, path, protocol, fields = match.group(1, 2, 3, 4)
        items = _FIELD_LINE.findall(fields.decode("iso-8859-1"))
        if len(items) > self._max_headers:
            return None
        if b" \r\n" in fields or b"\t\r\n" in fields:
            items = [(name, value.rstrip(" \t")) for name, value in items]
        self.started = True
        headers = Headers.of_parsed(items)
        _check_body_absent(headers)
        self._leftover = data[match.end() :]
        return Request(path.decode(), headers, method.decode(), protocol.decode())

    def feed_eof(self) -> None:
        """
        Take the end of the stream, before a request was complete.

        Raises:
            InvalidMessage: always, with an :exc:`EOFError` as its cause.
        """
        raise InvalidMessage("connection closed while reading HTTP request") from EOFError(
            "end of stream"
        )

    def _check_start(self, data: bytes) -> None:
        """Refuse what is not HTTP at its first byte: it may never contain a line's end."""
        if not self.started and data[:1] == bytes([_TLS_HANDSHAKE]):
            raise InvalidMessage(
                "received a TLS handshake, but this port has no TLS; use ws:// there, or ssl= here"
            )
        line = data.partition(b"\n")[0]
        if _NOT_REQUEST_LINE.search(line):
            raise InvalidMessage(f"invalid HTTP request line: {excerpt(line)}")

    def _read_start_line(self, line: bytes) -> None:
        parts = line.split(b" ")
        if len(parts) == 2 and parts[0] == b"GET":
            # RFC 1945 §5: a Simple-Request has no version.
            raise InvalidProtocol("HTTP/0.9")
        if len(parts) != 3 or not _TOKEN.fullmatch(parts[0]) or not _VERSION.fullmatch(parts[2]):
            raise InvalidMessage(f"invalid HTTP request line: {excerpt(line)}")
        method, target, version = parts
        if line == b"PRI * HTTP/2.0":
            # RFC 9113 §3.4
            raise InvalidProtocol("HTTP/2.0 (received the connection preface of HTTP/2)")
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise InvalidProtocol(version.decode("ascii"))
        self._request.method = method.decode("ascii")
        self._request.path = self._parse_target(target)
        self._request.protocol = version.decode("ascii")

    def _parse_target(self, target: bytes) -> str:
        if target == b"*" or _ORIGIN_FORM.fullmatch(target):
            return target.decode("ascii")
        match = _ABSOLUTE_FORM.fullmatch(target)
        if match is None:
            raise InvalidMessage(f"invalid HTTP request target: {excerpt(target)}")
        self._authority = match.group(1).decode("ascii")
        path = match.group(2).decode("ascii")
        return path if path.startswith("/") else f"/{path}"

    def _apply_authority(self) -> None:
        # RFC 9112 §3.2.2: the host of an absolute-form target replaces the Host header.
        # One that is missing or occurs twice is left to those who check it.
        if self._authority is not None and len(self._headers.get_all("Host")) == 1:
            del self._headers["Host"]
            self._headers.add_parsed("Host", self._authority)


class _Body:
    """A body of a known length, or until the end of the stream (``None``)."""

    def __init__(self, length: Optional[int]) -> None:
        self.content = bytearray()
        self._length = MAX_BODY if length is None else min(length, MAX_BODY)

    def read(self, lines: _Lines) -> bool:
        """Take from ``lines``; tell whether the body is complete, or over its limit."""
        self.content += lines.take(self._length - len(self.content))
        return len(self.content) == self._length


class _ChunkedBody:
    """A body in chunks (RFC 9112 §7.1). Its trailer is not read: nothing comes after it."""

    def __init__(self) -> None:
        self.content = bytearray()
        self._remaining = 0
        self._after_data = False

    def read(self, lines: _Lines) -> bool:
        """Take from ``lines``; tell whether the body is complete, or over its limit."""
        while len(self.content) < MAX_BODY:
            if self._remaining:
                if not self._read_data(lines):
                    return False
                continue
            line = lines.next_line(SecurityError)
            if line is None:
                return False
            if self._after_data:
                self._check_data_end(line)
            elif self._read_size(line) == 0:
                return True
        return True

    def _read_data(self, lines: _Lines) -> bool:
        """Take data of a chunk; tell whether there was any."""
        data = lines.take(min(self._remaining, MAX_BODY - len(self.content)))
        self.content += data
        self._remaining -= len(data)
        return bool(data)

    def _read_size(self, line: bytes) -> int:
        match = _CHUNK_SIZE.fullmatch(line)
        if match is None:
            raise InvalidMessage(f"invalid chunk size: {excerpt(line)}")
        self._remaining = int(match.group(1), 16)
        self._after_data = True
        return self._remaining

    def _check_data_end(self, line: bytes) -> None:
        if line:
            raise InvalidMessage(f"chunk without CRLF: {excerpt(line)}")
        self._after_data = False


class ResponseParser(_HeadParser):
    """
    Parser of the response to an opening handshake, for a client.

    Args:
        max_line: bytes in a line, CRLF included.
        max_headers: number of header lines.
        max_head: bytes in the whole head, and in those of interim responses before it.
        tunnel: the request was CONNECT: what follows a head with 2xx is not a body.
    """

    _start_line_too_long = StatusLineTooLong

    def __init__(
        self,
        max_line: int = MAX_LINE,
        max_headers: int = MAX_HEADERS,
        max_head: int = MAX_HEAD,
        *,
        tunnel: bool = False,
    ) -> None:
        super().__init__(max_line, max_headers, max_head)
        self._begin()
        self._tunnel = tunnel
        self._response: Optional[Response] = None
        self._body: Union[_Body, _ChunkedBody, None] = None
        self._status_code = 0
        self._reason_phrase = ""

    def feed(self, data: bytes) -> Optional[Response]:
        """
        Take what arrived; return the response once it is complete.

        A 101 is complete with its head. Of other responses the body belongs to it, of which
        the first 64 KiB are read. Interim responses (1xx but 101) are skipped.

        Raises:
            InvalidMessage: it is not a response as RFC 9112 has it.
            InvalidProtocol: its version is not HTTP/1.1 (or HTTP/1.0 in a refusal).
            StatusLineTooLong: the status line is over ``max_line``.
            HeaderLineTooLong: a header line is over ``max_line``, or the head over ``max_head``.
            TooManyHeaders: there are more than ``max_headers`` of them.
            SecurityError: a line between chunks is over ``max_line``.
        """
        if self._response is None and not self._in_headers:
            self._check_start(data)
        self.started = self.started or bool(data)
        self._lines.feed(data)
        while self._response is None:
            if not self._read_head():
                return None
            self._finish_head()
        if self._body is not None:
            if not self._body.read(self._lines):
                return None
            self._response.body = bytes(self._body.content)
        return self._response

    def feed_eof(self) -> Response:
        """
        Take the end of the stream; return the response, with what arrived of its body.

        Raises:
            InvalidMessage: the head is not complete; the cause is an :exc:`EOFError`.
        """
        if self._response is None or self._body is None:
            raise InvalidMessage("connection closed while reading HTTP response") from EOFError(
                "end of stream"
            )
        self._response.body = bytes(self._body.content)
        return self._response

    def _check_start(self, data: bytes) -> None:
        """Refuse what is not HTTP at its first byte: it may never contain a line's end."""
        if not self.started and data[:1] in (bytes([_TLS_ALERT]), bytes([_TLS_HANDSHAKE])):
            raise InvalidMessage("received TLS, but this connection does not use it; use wss://")
        line = data.partition(b"\n")[0]
        if _NOT_STATUS_LINE.search(line):
            raise InvalidMessage(f"invalid HTTP status line: {excerpt(line)}")

    def _read_start_line(self, line: bytes) -> None:
        version, _, rest = line.partition(b" ")
        # RFC 9112 §4: the space after the status code is there even without a phrase,
        # but servers that leave it out are many.
        code, _, phrase = rest.partition(b" ")
        if not _VERSION.fullmatch(version) or not _VALUE.fullmatch(phrase):
            raise InvalidMessage(f"invalid HTTP status line: {excerpt(line)}")
        if not _STATUS_CODE.fullmatch(code):
            raise InvalidMessage(f"invalid status code; expected 100-599: {excerpt(line)}")
        # A refusal by something old is worth reading; RFC 6455 §4.2.2 wants HTTP/1.1 in a 101.
        if version != b"HTTP/1.1" and (version != b"HTTP/1.0" or code == b"101"):
            raise InvalidProtocol(version.decode("ascii"))
        self._status_code = int(code)
        self._reason_phrase = phrase.decode("iso-8859-1")

    def _finish_head(self) -> None:
        code = self._status_code
        if 100 <= code < 200 and code != 101:
            # RFC 9110 §15.2: an interim response; another one follows.
            self._headers = Headers()
            self._header_count = 0
            return
        self._response = Response(code, self._reason_phrase, self._headers)
        # RFC 9110 §9.3.6: Content-Length and Transfer-Encoding of a tunnel mean nothing.
        if code not in (101, 204, 304) and not (self._tunnel and 200 <= code < 300):
            self._body = self._choose_body()

    def _choose_body(self) -> Union[_Body, _ChunkedBody]:
        # RFC 9112 §6.3
        codings = self._headers.get_all("Transfer-Encoding")
        if codings:
            last = codings[-1].rpartition(",")[2].strip(" \t").lower()
            return _ChunkedBody() if last == "chunked" else _Body(None)
        lengths = self._headers.get_all("Content-Length")
        if not lengths:
            return _Body(None)
        if len(lengths) > 1 or not _CONTENT_LENGTH.fullmatch(lengths[0]):
            raise InvalidMessage(f"invalid Content-Length: {excerpt(', '.join(lengths))}")
        return _Body(int(lengths[0]))
