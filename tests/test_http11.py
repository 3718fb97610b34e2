"""Heads of requests and responses (RFC 9112)."""

from __future__ import annotations

import time

import pytest

from syncws.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from syncws.headers import Headers
from syncws.http11 import MAX_BODY, Request, RequestParser, Response, ResponseParser

REQUEST = (
    b"GET /chat?room=1 HTTP/1.1\r\n"
    b"Host: server.example.com\r\n"
    b"Upgrade: websocket\r\n"
    b"X-Empty:\r\n"
    b"X-Spaces: \t a b\t \r\n"
    b"X-Signs: X::X\r\n"
    b"\r\n"
)
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"


def cuts(data):
    """Yield ``data`` whole, byte by byte, and cut in two at every place."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for i in range(1, len(data)):
        yield [data[:i], data[i:]]


def feed(parser, pieces):
    """Feed pieces until the message is complete; return it and the pieces that are left."""
    for i, piece in enumerate(pieces):
        message = parser.feed(piece)
        if message is not None:
            return message, pieces[i + 1 :]
    return None, []


def parse_request(data, **limits):
    """Parse ``data`` with every cut; return the request, which must always be the same."""
    requests = [feed(RequestParser(**limits), pieces)[0] for pieces in cuts(data)]
    assert all(request == requests[0] for request in requests)
    return requests[0]


def parse_response(data, eof=False):
    """Parse ``data`` with every cut; return the response, which must always be the same."""
    responses = []
    for pieces in cuts(data):
        parser = ResponseParser()
        response, _ = feed(parser, pieces)
        responses.append(parser.feed_eof() if response is None and eof else response)
    assert all(response == responses[0] for response in responses)
    return responses[0]


def request_error(data, **limits):
    """Parse ``data`` with every cut; return the exception, which must always be the same."""
    return error(lambda: RequestParser(**limits), data)


def response_error(data, **limits):
    """Parse ``data`` with every cut; return the exception, which must always be the same."""
    return error(lambda: ResponseParser(**limits), data)


def error(make_parser, data):
    errors = []
    for pieces in cuts(data):
        with pytest.raises(InvalidHandshake) as raised:
            feed(make_parser(), pieces)
        errors.append(raised.value)
    assert len({type(exc) for exc in errors}) == 1
    assert all(str(exc).isprintable() and len(str(exc)) < 200 for exc in errors)
    return errors[0]


def head_of(*lines):
    return b"".join(line + b"\r\n" for line in (b"GET / HTTP/1.1", *lines, b""))


# Requests


def test_request():
    assert parse_request(REQUEST) == Request(
        "/chat?room=1",
        Headers(
            [
                ("Host", "server.example.com"),
                ("Upgrade", "websocket"),
                ("X-Empty", ""),
                ("X-Spaces", "a b"),
                ("X-Signs", "X::X"),
            ]
        ),
        "GET",
        "HTTP/1.1",
    )


def test_request_without_headers():
    assert parse_request(b"GET / HTTP/1.1\r\n\r\n") == Request("/", Headers())


@pytest.mark.parametrize("parser_class", [RequestParser, ResponseParser])
def test_nothing_has_started_before_the_first_byte(parser_class):
    parser = parser_class()
    assert parser.started is False
    assert parser.feed(b"") is None
    assert parser.started is False
    assert parser.feed(b"H") is None
    assert parser.started is True
    assert parser.feed(b"") is None
    assert parser.started is True


@pytest.mark.parametrize("frames", [b"", b"\x81\x00", b"\r\n\r\n", bytes(range(256))])
def test_what_follows_a_request_is_left_over(frames):
    for pieces in cuts(REQUEST + frames):
        parser = RequestParser()
        request, rest = feed(parser, pieces)
        assert request is not None
        assert parser.leftover + b"".join(rest) == frames


def test_header_values_are_latin_1():
    assert parse_request(head_of(b"A: \xe9\xff\t\x80")).headers["A"] == "\xe9\xff\t\x80"


def test_empty_lines_before_a_request_are_ignored():
    assert parse_request(b"\r\n\r\nGET / HTTP/1.1\r\n\r\n") == Request("/", Headers())


def test_empty_lines_before_a_request_are_limited():
    assert isinstance(request_error(b"\r\n" * 101, max_head=200), HeaderLineTooLong)


def test_http_1_0_is_reported_with_the_request():
    assert parse_request(b"HEAD / HTTP/1.0\r\n\r\n") == Request("/", Headers(), "HEAD", "HTTP/1.0")


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", "/"),
        (b"*", "*"),
        (b"//a//b", "//a//b"),
        (b"/%00%ff?a=b&c={}|", "/%00%ff?a=b&c={}|"),
        (b"http://example.com/a?b", "/a?b"),
        (b"ws://example.com:81/a", "/a"),
        (b"HTTP://example.com", "/"),
        (b"http://example.com?b", "/?b"),
        (b"http://[::1]:80/", "/"),
    ],
)
def test_request_targets(target, path):
    assert parse_request(b"GET " + target + b" HTTP/1.1\r\n\r\n").path == path


def test_the_host_of_an_absolute_form_replaces_the_header():
    request = parse_request(b"GET http://a:81/b HTTP/1.1\r\nA: 1\r\nHost: c\r\n\r\n")
    assert list(request.headers.raw_items()) == [("A", "1"), ("Host", "a:81")]


@pytest.mark.parametrize("hosts", [[], ["b", "c"]])
def test_an_absolute_form_does_not_hide_an_invalid_number_of_host_headers(hosts):
    lines = b"".join(b"Host: %b\r\n" % host.encode() for host in hosts)
    request = parse_request(b"GET http://a/ HTTP/1.1\r\n" + lines + b"\r\n")
    assert request.headers.get_all("Host") == hosts


@pytest.mark.parametrize(
    "line",
    [
        b"GET",
        b"GET  / HTTP/1.1",
        b"GET / HTTP/1.1 ",
        b" GET / HTTP/1.1",
        b"GET /a b HTTP/1.1",
        b"GET\t/ HTTP/1.1",
        b"GET /\x7f HTTP/1.1",
        b"GET /\x00 HTTP/1.1",
        b"GET /\xe9 HTTP/1.1",
        b"GET /\r HTTP/1.1",
        b"\rGET / HTTP/1.1",
        b"G(T / HTTP/1.1",
        b"POST /",
        b"GET / http/1.1",
        b"GET / HTTP/1",
        b"GET / HTTP/1.1.1",
        b"GET / HTTP/11.1",
        b"GET / HTTPS/1.1",
        b"GET a HTTP/1.1",
        b"GET /a#b HTTP/1.1",
        b"GET example.com:80 HTTP/1.1",
        b"GET http:// HTTP/1.1",
        b"GET http:///a HTTP/1.1",
        b"GET http://user@example.com/ HTTP/1.1",
        b"GET http://example.com/#a HTTP/1.1",
    ],
)
def test_malformed_request_lines(line):
    exc = request_error(line + b"\r\n\r\n")
    assert type(exc) is InvalidMessage
    assert str(exc).startswith("invalid HTTP request ")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (b"GET /", "HTTP/0.9"),
        (b"GET / HTTP/0.9", "HTTP/0.9"),
        (b"GET / HTTP/1.2", "HTTP/1.2"),
        (b"GET / HTTP/2.0", "HTTP/2.0"),
        (b"GET / HTTP/3.0", "HTTP/3.0"),
    ],
)
def test_unsupported_versions(line, version):
    exc = request_error(line + b"\r\n")
    assert type(exc) is InvalidProtocol
    assert str(exc) == f"unsupported HTTP version: {version}"


def test_the_preface_of_http_2_is_recognized():
    exc = request_error(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
    assert type(exc) is InvalidProtocol
    assert str(exc) == (
        "unsupported HTTP version: HTTP/2.0 (received the connection preface of HTTP/2)"
    )


@pytest.mark.parametrize("hello", [b"\x16\x03\x01\x02\x00\x01\x00", b"\x16\n"])
def test_tls_on_a_plain_port_is_recognized_by_its_first_byte(hello):
    exc = request_error(hello)
    assert type(exc) is InvalidMessage
    assert str(exc).startswith("received a TLS handshake, but this port has no TLS; use ws://")


@pytest.mark.parametrize(
    ("parser_class", "start", "line"),
    [(RequestParser, b"GET /", "request"), (ResponseParser, b"HTTP/1.1 ", "status")],
)
def test_only_the_first_byte_can_be_that_of_tls(parser_class, start, line):
    parser = parser_class()
    assert parser.feed(start) is None
    with pytest.raises(InvalidMessage) as raised:
        parser.feed(b"\x16")
    assert str(raised.value) == rf"invalid HTTP {line} line: \x16"


def test_binary_data_is_refused_before_a_line_ends():
    assert str(request_error(b"a\xff")) == r"invalid HTTP request line: a\xff"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"A", "invalid HTTP header line: A"),
        (b" folded", "invalid HTTP header line:  folded"),
        (b"\tfolded", r"invalid HTTP header line: \tfolded"),
        (b" A: 1", "invalid HTTP header name:  A"),
        (b"A : 1", "invalid HTTP header name: A "),
        (b"A\t: 1", r"invalid HTTP header name: A\t"),
        (b": 1", "invalid HTTP header name: "),
        (b"A B: 1", "invalid HTTP header name: A B"),
        (b"A\x00: 1", r"invalid HTTP header name: A\x00"),
        (b"\xe9: 1", r"invalid HTTP header name: \xe9"),
        (b"A: \x00", r"invalid HTTP header value: \x00"),
        (b"A: 1\rB: 2", r"invalid HTTP header value: 1\rB: 2"),
        (b"A: 1\r", r"invalid HTTP header value: 1\r"),
        (b"A: \x7f", r"invalid HTTP header value: \x7f"),
        (b"\r", r"invalid HTTP header line: \r"),
        (b"A: 1\nB: 2", r"line without CRLF: A: 1\n"),
        (b"A: 1\n", r"line without CRLF: A: 1\n"),
        (b"\n", r"line without CRLF: \n"),
        (b"Transfer-Encoding: chunked", "transfer codings aren't supported"),
        (b"transfer-encoding: identity", "transfer codings aren't supported"),
        (b"Content-Length: 1", "unsupported request body"),
        (b"Content-Length: +0", "unsupported request body"),
        (b"Content-Length: 0, 0", "unsupported request body"),
        (b"Content-Length:", "unsupported request body"),
        (b"Content-Length: 0\r\nContent-Length: 0", "unsupported request body"),
        (b"Content-Length: 0\r\nContent-Length: 5", "unsupported request body"),
    ],
)
def test_malformed_headers(line, message):
    exc = request_error(head_of(b"Host: a", line))
    assert type(exc) is InvalidMessage
    assert str(exc) == message


@pytest.mark.parametrize("data", [b"GET / HTTP/1.1\n\n", b"GET / HTTP/1.1\nHost: a\n\n", b"\n"])
def test_a_request_line_must_end_with_crlf(data):
    assert str(request_error(data)).startswith("line without CRLF: ")


def test_a_content_length_of_zero_is_no_body():
    assert parse_request(head_of(b"Content-Length: 0")).headers["Content-Length"] == "0"


def test_messages_show_an_excerpt_of_what_was_received():
    exc = request_error(head_of(b"x" * 5000), max_line=5100)
    assert str(exc) == f"invalid HTTP header line: {'x' * 100}..."


# Limits


def test_a_request_line_may_have_as_many_bytes_as_allowed():
    line = b"GET /" + b"a" * 34 + b" HTTP/1.1\r\n"
    assert len(line) == 50
    assert parse_request(line + b"\r\n", max_line=50) is not None
    exc = request_error(line + b"\r\n", max_line=49)
    assert type(exc) is RequestLineTooLong
    assert str(exc) == "line is longer than 49 bytes"


def test_a_header_line_may_have_as_many_bytes_as_allowed():
    data = head_of(b"A: " + b"b" * 45)
    assert parse_request(data, max_line=50) is not None
    assert type(request_error(data, max_line=49)) is HeaderLineTooLong


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\n"])
def test_a_line_without_end_is_refused_at_its_limit(start):
    parser = RequestParser(max_line=100)
    assert parser.feed(start + b"a" * 100) is None
    with pytest.raises(HeaderLineTooLong if start else RequestLineTooLong):
        parser.feed(b"a")


def test_there_may_be_as_many_headers_as_allowed():
    data = head_of(b"A: 1", b"B: 2", b"C: 3")
    assert parse_request(data, max_headers=3) is not None
    exc = request_error(data, max_headers=2)
    assert type(exc) is TooManyHeaders
    assert str(exc) == "expected no more than 2 headers"


def test_a_head_may_have_as_many_bytes_as_allowed():
    data = head_of(b"A: 1", b"B: 2")
    assert parse_request(data, max_head=len(data)) is not None
    exc = request_error(data, max_head=len(data) - 1)
    assert type(exc) is HeaderLineTooLong
    assert str(exc) == f"head is larger than {len(data) - 1} bytes"


def test_a_head_is_refused_at_its_limit_though_its_line_has_no_end():
    parser = RequestParser(max_head=100)
    assert parser.feed(b"GET / HTTP/1.1\r\n" + b"a" * 84) is None
    with pytest.raises(HeaderLineTooLong, match="head is larger than 100 bytes"):
        parser.feed(b"a")


def test_frames_after_the_head_do_not_count_as_head():
    parser = RequestParser(max_head=len(REQUEST))
    assert parser.feed(REQUEST + b"\xff" * 100_000) is not None
    assert len(parser.leftover) == 100_000


def test_default_limits():
    line = b"A: " + b"a" * 8187
    assert RequestParser().feed(head_of(line)) is not None
    with pytest.raises(HeaderLineTooLong):
        RequestParser().feed(head_of(line + b"a"))
    assert RequestParser().feed(head_of(*[b"A: 1"] * 128)) is not None
    with pytest.raises(TooManyHeaders):
        RequestParser().feed(head_of(*[b"A: 1"] * 129))
    with pytest.raises(HeaderLineTooLong, match="head is larger than 65536 bytes"):
        RequestParser().feed(head_of(*[line] * 8))


def test_parsing_byte_by_byte_takes_linear_time():
    limit = 32 * 1024 * 1024
    parser = RequestParser(max_line=limit, max_head=limit)
    assert parser.feed(b"GET / HTTP/1.1\r\nA: " + b"a" * (limit // 2)) is None
    start = time.process_time()
    for _ in range(20_000):
        assert parser.feed(b"a") is None
    # Searching the whole line for its end at each byte would be to look at 300 GB.
    assert time.process_time() - start < 2
    assert parser.feed(b"\r\n\r\n").headers["A"] == "a" * (limit // 2 + 20_000)


# End of the stream


@pytest.mark.parametrize("data", [b"", b"GET", b"GET / HTTP/1.1\r\nHost: a\r\n"])
def test_a_stream_that_ends_before_the_request(data):
    parser = RequestParser()
    assert parser.feed(data) is None
    with pytest.raises(InvalidMessage) as raised:
        parser.feed_eof()
    assert str(raised.value) == "connection closed while reading HTTP request"
    assert isinstance(raised.value.__cause__, EOFError)
    assert str(raised.value.__cause__) == "end of stream"


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1", ACCEPTED[:-2]])
def test_a_stream_that_ends_before_the_response(data):
    parser = ResponseParser()
    assert parser.feed(data) is None
    with pytest.raises(InvalidMessage) as raised:
        parser.feed_eof()
    assert str(raised.value) == "connection closed while reading HTTP response"
    assert isinstance(raised.value.__cause__, EOFError)
    assert str(raised.value.__cause__) == "end of stream"


def test_a_101_is_complete_before_the_stream_ends():
    parser = ResponseParser()
    assert parser.feed(ACCEPTED) is not None
    with pytest.raises(InvalidMessage):
        parser.feed_eof()


# Responses


def test_response():
    assert parse_response(ACCEPTED) == Response(
        101, "Switching Protocols", Headers(Upgrade="websocket")
    )


def test_what_follows_a_101_is_left_over():
    for pieces in cuts(ACCEPTED + b"\x81\x01a"):
        parser = ResponseParser()
        response, rest = feed(parser, pieces)
        assert response.status_code == 101
        assert response.body == b""
        assert parser.leftover + b"".join(rest) == b"\x81\x01a"


def test_a_101_has_no_body_whatever_its_headers_say():
    data = b"HTTP/1.1 101 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert parse_response(data).body == b""


@pytest.mark.parametrize(
    ("line", "code", "phrase"),
    [
        (b"HTTP/1.1 204 No Content", 204, "No Content"),
        (b"HTTP/1.1 304 ", 304, ""),
        (b"HTTP/1.1 304", 304, ""),
        (b"HTTP/1.1 204 \xe9\t ?", 204, "\xe9\t ?"),
        (b"HTTP/1.0 204 No Content", 204, "No Content"),
    ],
)
def test_status_lines(line, code, phrase):
    assert parse_response(line + b"\r\n\r\n") == Response(code, phrase, Headers())


@pytest.mark.parametrize(
    "line",
    [
        b"HTTP/1.1",
        b"HTTP/1.1 ",
        b"HTTP/1.1  200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 099 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1 2000 OK",
        b"HTTP/1.1 +20 OK",
        b"HTTP/1.1\t200 OK",
        b"http/1.1 200 OK",
        b"HTTP/1.1 200 \x00",
        b"HTTP/1.1 200 \r",
        b"HTTP/1.1 200 \x7f",
        b"SSH-2.0-OpenSSH_9.6",
        b"220 mail.example.com ESMTP",
    ],
)
def test_malformed_status_lines(line):
    exc = response_error(line + b"\r\n\r\n")
    assert type(exc) is InvalidMessage
    assert str(exc).startswith(("invalid HTTP status line: ", "invalid status code; "))


def test_a_malformed_status_code_is_shown_in_its_line():
    exc = response_error(b"HTTP/1.1 600 OK\r\n")
    assert str(exc) == "invalid status code; expected 100-599: HTTP/1.1 600 OK"


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (b"HTTP/1.0 101 OK", "HTTP/1.0"),
        (b"HTTP/2.0 200 OK", "HTTP/2.0"),
        (b"HTTP/0.9 200 OK", "HTTP/0.9"),
    ],
)
def test_unsupported_versions_of_a_response(line, version):
    exc = response_error(line + b"\r\n\r\n")
    assert type(exc) is InvalidProtocol
    assert str(exc) == f"unsupported HTTP version: {version}"


@pytest.mark.parametrize("record", [b"\x15\x03\x01\x00\x02\x02\x46", b"\x16\x03\x01"])
def test_a_server_that_answers_with_tls_is_recognized(record):
    exc = response_error(record)
    assert type(exc) is InvalidMessage
    assert str(exc) == "received TLS, but this connection does not use it; use wss://"


def test_limits_of_a_response():
    assert type(response_error(ACCEPTED, max_line=20)) is StatusLineTooLong
    assert type(response_error(ACCEPTED, max_headers=0)) is TooManyHeaders
    assert type(response_error(ACCEPTED, max_head=40)) is HeaderLineTooLong


@pytest.mark.parametrize("code", [100, 102, 103, 199])
def test_interim_responses_are_skipped(code):
    interim = b"HTTP/1.1 %d Wait\r\nLink: a\r\n\r\n" % code
    assert parse_response(interim * 2 + ACCEPTED) == parse_response(ACCEPTED)


def test_headers_are_counted_anew_after_an_interim_response():
    data = b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + ACCEPTED
    assert feed(ResponseParser(max_headers=1), [data])[0] is not None


def test_interim_responses_are_limited():
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    assert type(response_error(interim * 5, max_head=100)) is HeaderLineTooLong


# Bodies of responses


def refusal(*lines, body=b""):
    return b"\r\n".join([b"HTTP/1.1 400 Bad Request", *lines, b"", body])


def test_a_body_of_a_known_length():
    response = parse_response(refusal(b"Content-Length: 5", body=b"Sorry"))
    assert response.body == b"Sorry"


def test_a_response_of_success_is_no_interim_response():
    response = parse_response(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nHi")
    assert response == Response(200, "OK", Headers({"Content-Length": "2"}), b"Hi")


def test_a_body_may_have_any_bytes():
    data = refusal(b"Content-Length: 256", body=bytes(range(256)))
    assert parse_response(data).body == bytes(range(256))


def test_a_wrong_header_of_a_response_is_told_from_a_wrong_status_line():
    exc = response_error(refusal(b"A: \x00"))
    assert str(exc) == r"invalid HTTP header value: \x00"


def test_a_body_of_length_zero():
    assert parse_response(refusal(b"Content-Length: 0")).body == b""


def test_bytes_after_a_body_are_left_over():
    parser = ResponseParser()
    response = parser.feed(refusal(b"Content-Length: 5", body=b"Sorry and more"))
    assert response.body == b"Sorry"
    assert parser.leftover == b" and more"


def test_a_body_until_the_end_of_the_stream():
    assert parse_response(refusal(body=b"Sorry"), eof=True).body == b"Sorry"


def test_an_incomplete_body_is_better_than_none():
    data = refusal(b"Content-Length: 50", body=b"Sorry")
    assert parse_response(data) is None
    assert parse_response(data, eof=True).body == b"Sorry"


@pytest.mark.parametrize(
    "codings", [b"chunked, gzip", b"gzip, Xchunked", b"gzip, chunked\xa0", b"chunked;X"]
)
def test_a_transfer_coding_that_is_not_chunked_lasts_until_the_end_of_the_stream(codings):
    data = refusal(b"Transfer-Encoding: " + codings, b"Content-Length: 1", body=b"Sorry")
    assert parse_response(data, eof=True).body == b"Sorry"


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nSorry\r\n0\r\n",
        b"2\r\nSo\r\n3\r\nrry\r\n0\r\n",
        b"0005 ; a=b\r\nSorry\r\n000;c\r\nTrailer: d\r\n\r\n",
    ],
)
@pytest.mark.parametrize("coding", [b"chunked", b"gzip, Chunked", b"a, b,\tchunked"])
def test_a_chunked_body(coding, body):
    data = refusal(b"Transfer-Encoding: " + coding, b"Content-Length: 1", body=body)
    assert parse_response(data).body == b"Sorry"


@pytest.mark.parametrize("size", [b"1a", b"1A"])
def test_sizes_of_chunks_are_hexadecimal(size):
    data = refusal(b"Transfer-Encoding: chunked", body=size + b"\r\n" + b"a" * 26 + b"\r\n0\r\n")
    assert parse_response(data).body == b"a" * 26


def test_the_last_line_of_several_transfer_encodings_counts():
    lines = b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked"
    assert parse_response(refusal(*lines, body=b"1\r\na\r\n0\r\n")).body == b"a"


def test_an_incomplete_chunked_body():
    data = refusal(b"Transfer-Encoding: chunked", body=b"2\r\nSo\r\n5\r\nrr")
    assert parse_response(data, eof=True).body == b"Sorr"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\r\n", "invalid chunk size: "),
        (b"x\r\n", "invalid chunk size: x"),
        (b"-1\r\n", "invalid chunk size: -1"),
        (b"0x1\r\n", "invalid chunk size: 0x1"),
        (b"1000000000000000\r\n", "invalid chunk size: 1000000000000000"),
        (b"1\r\nab\r\n", "chunk without CRLF: b"),
        (b"1\n", r"line without CRLF: 1\n"),
    ],
)
def test_malformed_chunks(body, message):
    exc = response_error(refusal(b"Transfer-Encoding: chunked", body=body))
    assert type(exc) is InvalidMessage
    assert str(exc) == message


def test_a_line_between_chunks_is_limited():
    data = refusal(b"Transfer-Encoding: chunked", body=b"1;" + b"a" * 50)
    assert type(response_error(data, max_line=50)) is SecurityError


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([b"Content-Length: -1"], "-1"),
        ([b"Content-Length: 5, 5"], "5, 5"),
        ([b"Content-Length: "], ""),
        ([b"Content-Length: 0x5"], "0x5"),
        ([b"Content-Length: \xb2"], r"\xb2"),
        ([b"Content-Length: " + b"1" * 19], "1" * 19),
        ([b"Content-Length: 5", b"Content-Length: 6"], "5, 6"),
    ],
)
def test_malformed_content_lengths(lines, shown):
    exc = response_error(refusal(*lines))
    assert type(exc) is InvalidMessage
    assert str(exc) == f"invalid Content-Length: {shown}"


def test_64_kib_of_a_body_are_kept():
    response = ResponseParser().feed(refusal(body=bytes(65537)))
    assert response.body == bytes(65536)


CHUNK = b"8000\r\n" + b"a" * 0x8000 + b"\r\n"


@pytest.mark.parametrize(
    "data",
    [
        refusal(b"Content-Length: 999999999999", body=b"a" * MAX_BODY),
        refusal(body=b"a" * MAX_BODY),
        refusal(b"Transfer-Encoding: chunked", body=CHUNK * 2),
        refusal(b"Transfer-Encoding: chunked", body=b"fffffff\r\n" + b"a" * MAX_BODY),
    ],
    ids=["length", "eof", "chunks", "chunk"],
)
@pytest.mark.parametrize("size", [1, 1000, 1_000_000])
def test_a_long_body_is_cut_and_the_response_complete(data, size):
    data += b"a" * 10
    pieces = [data[i : i + size] for i in range(0, len(data), size)]
    response, _ = feed(ResponseParser(), pieces)
    assert response.body == b"a" * MAX_BODY


# Serializing


def test_a_request_is_serialized_as_it_is_parsed():
    request = Request("/a?b", Headers([("Host", "c"), ("D", "\xe9")]))
    assert request.serialize() == b"GET /a?b HTTP/1.1\r\nHost: c\r\nD: \xe9\r\n\r\n"
    assert parse_request(request.serialize()) == request


def test_a_response_is_serialized_as_it_is_parsed():
    response = Response(400, "B\xe4d", Headers([("Content-Length", "2")]), b"No")
    assert response.serialize() == b"HTTP/1.1 400 B\xe4d\r\nContent-Length: 2\r\n\r\nNo"
    assert parse_response(response.serialize()) == response


@pytest.mark.parametrize(
    ("path", "method", "version"),
    [
        ("", "GET", "HTTP/1.1"),
        ("a", "GET", "HTTP/1.1"),
        ("/ HTTP/1.1\r\nA: b\r\n\r\nGET /", "GET", "HTTP/1.1"),
        ("/a b", "GET", "HTTP/1.1"),
        ("/é", "GET", "HTTP/1.1"),
        ("/\n", "GET", "HTTP/1.1"),
        ("/#a", "GET", "HTTP/1.1"),
        ("/", "", "HTTP/1.1"),
        ("/", "GET\r\n", "HTTP/1.1"),
        ("/", "G T", "HTTP/1.1"),
        ("/", "GET", "HTTP/1.1\r\nA: b"),
        ("/", "GET", ""),
    ],
)
def test_a_request_line_cannot_be_injected_into(path, method, version):
    with pytest.raises(ValueError, match="invalid HTTP request line"):
        Request(path, Headers(), method, version).serialize()


def test_the_target_of_a_request_may_be_an_asterisk():
    assert Request("*", Headers(), "OPTIONS").serialize() == b"OPTIONS * HTTP/1.1\r\n\r\n"


@pytest.mark.parametrize(
    ("code", "phrase"),
    [(99, "OK"), (600, "OK"), (200, "OK\r\nA: b"), (200, "OK\n"), (200, "\u0100"), (200, "\0")],
)
def test_a_status_line_cannot_be_injected_into(code, phrase):
    with pytest.raises(ValueError, match="invalid HTTP status line"):
        Response(code, phrase, Headers()).serialize()
