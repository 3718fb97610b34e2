"""
Fuzz target: what a peer sends to open the connection, and what is made of it.

Covers syncws/http11.py, headers.py, handshake.py, uri.py, and the negotiation of
permessage-deflate.
"""

from __future__ import annotations

import base64
import ipaddress
import re
from typing import Any, NamedTuple, Optional
from urllib.parse import quote

from fuzz.bytecode import Source, cut

from syncws.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProtocol,
    InvalidStatus,
    InvalidURI,
    NegotiationError,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
)
from syncws.handshake import SAME_HOST, ClientHandshake, ServerHandshake, error_response, reject
from syncws.headers import (
    Headers,
    build_authorization_basic,
    build_extension,
    build_subprotocol,
    build_www_authenticate_basic,
    excerpt,
    parse_authorization_basic,
    parse_connection,
    parse_extension,
    parse_subprotocol,
    parse_upgrade,
)
from syncws.http11 import (
    MAX_BODY,
    MAX_HEAD,
    MAX_HEADERS,
    MAX_LINE,
    Request,
    RequestParser,
    Response,
    ResponseParser,
)
from syncws.permessage_deflate import PerMessageDeflate
from syncws.uri import WebSocketURI, parse_uri

__all__ = ["DICTIONARY", "check"]

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

# What a program puts heads together from; a byte stands for each of them.
PARTS = [
    b"GET / HTTP/1.1\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\n",
    b"\r\n",
    b"Host: example.com\r\n",
    b"Upgrade: websocket\r\n",
    b"Connection: Upgrade\r\n",
    b"Sec-WebSocket-Version: 13\r\n",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n",
    b"Origin: http://example.com\r\n",
    b"Sec-WebSocket-Extensions: ",
    b"permessage-deflate",
    b"; client_max_window_bits",
    b"; server_max_window_bits",
    b"; client_no_context_takeover",
    b"; server_no_context_takeover",
    b"=15",
    b'="10"',
    b"=8",
    b"Sec-WebSocket-Protocol: ",
    b"chat",
    b"superchat",
    b", ",
    b"Content-Length: ",
    b"Transfer-Encoding: ",
    b"chunked",
    b"HTTP/1.1 403 Forbidden\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.0 ",
    b"5\r\nhello\r\n0\r\n",
    b"ffff\r\n",
    b"GET http://example.com:8080/path?query HTTP/1.1\r\n",
    b"GET ",
    b"POST ",
    b"*",
    b"/",
    b" HTTP/1.1\r\n",
    b" HTTP/1.0\r\n",
    b"Host: ",
    b"[::1]",
    b"[2001:DB8::1]:443",
    b"example.com:80",
    b"Origin: ",
    b"http://",
    b"null",
    b"Connection: ",
    b"Upgrade: ",
    b"keep-alive, ",
    b"websocket/13",
    b"Authorization: Basic ",
    b"dGVzdDoxMjPCow==",
    b": ",
    b";",
    b'"',
    b"\\",
    b"\t",
    b"X: ",
    b"x" * 60,
    b"x" * 1000,
    b"X: y\r\n" * 30,
    b"\n",
    b"\r",
    b"\x00",
    b"\xff",
]
DICTIONARY = PARTS[:58]

DEFAULT_LIMITS = (MAX_LINE, MAX_HEADERS, MAX_HEAD)
LIMITS = (DEFAULT_LIMITS, DEFAULT_LIMITS, (100, 8, 400), (40, 3, 70), (1000, 20, 900), (64, 64, 64))
# A serialized header has a space after its colon, which the received one may have lacked.
AMPLE_LIMITS = (2 * MAX_LINE, 2 * MAX_HEADERS, 2 * MAX_HEAD)
MOST_BYTE_BY_BYTE = 2048

# How the first line may be wrong; which one is found depends on how much of it is there.
START_LINE_ERRORS = (
    InvalidMessage,
    InvalidProtocol,
    RequestLineTooLong,
    StatusLineTooLong,
    HeaderLineTooLong,
)

TOKEN = rb"[!#$%&'*+.^_`|~A-Za-z0-9-]+"
# RFC 9112 §2.1, §3 and §5, written at one go.
REQUEST = re.compile(
    rb"(?:\r\n)*(?P<method>%b) (?:(?P<path>\*|/[!-\"$-~]*)|"
    rb"[A-Za-z][A-Za-z0-9+.-]*://(?P<host>[!-\"$-.0-9:-?A-~]+?)(?P<rest>(?:[/?][!-\"$-~]*)?)) "
    rb"HTTP/1\.(?P<minor>[01])\r\n"
    rb"(?P<headers>(?:%b:[\t -~\x80-\xff]*\r\n)*)\r\n" % (TOKEN, TOKEN)
)
RESPONSE = re.compile(
    rb"(?:\r\n)*HTTP/1\.(?P<minor>[01]) (?P<code>[1-5]\d\d)(?: (?P<phrase>[\t -~\x80-\xff]*))?\r\n"
    rb"(?P<headers>(?:%b:[\t -~\x80-\xff]*\r\n)*)\r\n" % TOKEN
)
# RFC 9110 §5.6.1, §7.6.1 and §7.8, RFC 6455 §9.1: an element of a list
OPTION = r"[!#$%&'*+.^_`|~A-Za-z0-9-]+"
PROTOCOL = f"{OPTION}(?:/{OPTION})?"
PARAMETER = rf'{OPTION}(?:[ \t]*=[ \t]*(?:{OPTION}|"(?:\\?{OPTION[:-1]})+"))?'
EXTENSION = rf"{OPTION}(?:[ \t]*;[ \t]*{PARAMETER})*"
# RFC 9112 §7.1
CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\n]*)?\r\n")


def check(data):
    """Check everything for one input; raises ``AssertionError`` if something is wrong."""
    source = Source(data)
    source.choice(CHECKS)(source)


def compose(source):
    """Put a head together from parts and from bytes as they are."""
    head = bytearray()
    while source and len(head) < 2 * MAX_HEAD:
        step = source.byte()
        if step < len(PARTS):
            head += PARTS[step]
        elif step < 128:
            head += source.take(step - len(PARTS) + 1)
        else:
            head += PARTS[step % len(PARTS)] * (step >> 2)
    return bytes(head)


def printable(text):
    """Messages go to logs and responses: there are no control characters of a peer in them."""
    assert text.isprintable()
    assert text.isascii()


# Heads in pieces


class Outcome(NamedTuple):
    """What a parser made of its input. ``at_start``: it was at a request or status line."""

    message: Any
    leftover: bytes
    error: Optional[InvalidHandshake]
    at_start: bool


def parse(parser, pieces, max_line):
    """Feed pieces, and the end of the stream if that is not the end of the message."""
    pieces = list(pieces)
    try:
        while pieces:
            message = parser.feed(pieces.pop(0))
            if message is not None:
                return Outcome(message, parser.leftover + b"".join(pieces), None, False)
            assert len(parser.leftover) <= max_line, "the parser keeps too much"
        return Outcome(finish(parser), b"", None, False)
    except InvalidHandshake as exc:
        printable(str(exc))
        check_end(exc)
        at_start = not parser._in_headers and getattr(parser, "_response", None) is None
        return Outcome(None, b"", exc, at_start)


def finish(parser):
    """Feed the end of the stream: it is an error, or ends a body without a length."""
    message = parser.feed_eof()
    assert isinstance(message, Response)
    return message


def check_end(error):
    """An end that came too early can be told from other errors."""
    assert str(error).startswith("connection closed") is isinstance(error.__cause__, EOFError)


def parse_all_ways(make_parser, data, sizes, limits):
    """Parse whole and in pieces: the result does not depend on how the input arrives."""
    whole = parse(make_parser(*limits), [data], limits[0])
    cuttings = [cut(data, sizes)] if any(sizes) else []
    if len(data) <= MOST_BYTE_BY_BYTE:
        cuttings.append(cut(data, []))
    for pieces in cuttings:
        check_same(parse(make_parser(*limits), pieces, limits[0]), whole)
    return whole


def check_same(outcome, whole):
    assert outcome.message == whole.message
    assert items(outcome.message) == items(whole.message)
    assert outcome.leftover == whole.leftover
    if whole.error is None:
        assert outcome.error is None
    elif outcome.at_start and whole.at_start:
        assert isinstance(outcome.error, START_LINE_ERRORS)
        assert isinstance(whole.error, START_LINE_ERRORS)
    elif isinstance(outcome.error, HeaderLineTooLong):
        # The head may be over its limit before the line is over its own, or has no CRLF.
        no_crlf = str(whole.error).startswith("line without CRLF")
        assert isinstance(whole.error, HeaderLineTooLong) or no_crlf
    else:
        assert type(outcome.error) is type(whole.error)
        assert str(outcome.error) == str(whole.error)


def items(message):
    return None if message is None else list(message.headers.raw_items())


def check_head(head, headers, limits):
    """No limit is passed, and nothing would add a header or end the head if it is sent again."""
    max_line, max_headers, max_head = limits
    assert len(head) <= max_head
    assert all(len(line) + 1 <= max_line for line in head.split(b"\n"))
    assert len(list(headers.raw_items())) <= max_headers
    for name, value in headers.raw_items():
        assert re.fullmatch(TOKEN, name.encode())
        assert not re.search("[^\t\x20-\x7e\x80-\xff]", value)
        assert value == value.strip(" \t")
        assert value in headers.get_all(name.upper())
    assert Headers(headers) == headers


# Requests


def check_request(source, read=Source.rest):
    limits = source.choice(LIMITS)
    sizes = [source.byte() for _ in range(source.byte() & 7)]
    options = source.byte()
    head = read(source)
    whole = parse_all_ways(RequestParser, head, sizes, limits)
    check_grammar(head, whole)
    if whole.message is None:
        check_refusal(error_response(whole.error))
        return
    request = whole.message
    check_head(head[: len(head) - len(whole.leftover)], request.headers, limits)
    check_serializes_to_itself(request)
    check_server(request, options)


def check_grammar(head, whole):
    """A request is taken if and only if the grammar and RFC 9112 §6 allow it, and for the same."""
    match = REQUEST.match(head)
    request = whole.message
    if isinstance(whole.error, SecurityError):
        return
    if match is None:
        assert request is None
        return
    pairs = pairs_of(match)
    coded = values_of(pairs, b"transfer-encoding")
    if coded or values_of(pairs, b"content-length") not in ([], [b"0"]):
        assert request is None
        return
    assert request is not None, "a request that should have been taken"
    assert whole.leftover == head[match.end() :]
    assert request.method.encode() == match["method"]
    assert request.protocol.encode() == b"HTTP/1." + match["minor"]
    hosts = values_of(pairs, b"host")
    path = match["path"]
    if path is None:
        path = match["rest"] if match["rest"].startswith(b"/") else b"/" + match["rest"]
        hosts = [match["host"]] if len(hosts) == 1 else hosts
    assert request.path.encode() == path
    assert [host.encode("iso-8859-1") for host in request.headers.get_all("host")] == hosts
    assert sorted(request.headers) == sorted({name.lower().decode() for name, _ in pairs})


def pairs_of(match):
    """The headers of a head that a regular expression matched."""
    lines = (line.partition(b":") for line in match["headers"].split(b"\r\n")[:-1])
    return [(name, value.strip(b" \t")) for name, _, value in lines]


def values_of(pairs, wanted):
    return [value for name, value in pairs if name.lower() == wanted]


def check_serializes_to_itself(request):
    wire = request.serialize()
    parser = RequestParser(*AMPLE_LIMITS)
    again = parser.feed(wire)
    assert again == request
    assert items(again) == items(request)
    assert not parser.leftover
    assert wire.count(b"\n") == wire.count(b"\r") == len(items(request)) + 2


ORIGINS = (
    SAME_HOST,
    None,
    ["http://example.com", None],
    [SAME_HOST, re.compile(r"https?://[a-z.]*example\.com")],
)
FACTORIES = (
    (),
    (PerMessageDeflate(),),
    (PerMessageDeflate(server_no_context_takeover=True, client_max_window_bits=9),),
    (PerMessageDeflate(require_client_max_window_bits=True, server_max_window_bits=8),),
)
SUBPROTOCOLS = (None, ["chat"], ["superchat", "chat"], None)


def select_last(offered):
    return offered[-1] if offered else None


def check_server(request, options):
    """A server answers every request that was parsed, with a 101 or with why not."""
    origins = ORIGINS[options & 3]
    handshake = ServerHandshake(
        origins=origins,
        extensions=FACTORIES[options >> 2 & 3],
        subprotocols=SUBPROTOCOLS[options >> 4 & 3],
        select_subprotocol=select_last if options >> 4 & 3 == 3 else None,
    )
    response = handshake.respond(request)
    if handshake.exception is not None:
        assert not handshake.extensions
        assert handshake.subprotocol is None
        printable(str(handshake.exception))
        check_refusal(response)
        return
    check_sent(response)
    check_opening(request)
    if origins == SAME_HOST and "Origin" in request.headers:
        assert host_of(request.headers["Origin"].partition("://")[2]) == host_of(
            request.headers["Host"]
        )
    check_accepted(handshake, request, response)


def check_opening(request):
    """What RFC 6455 §4.2.1 asks of a request."""
    headers = request.headers
    assert (request.method, request.protocol) == ("GET", "HTTP/1.1")
    assert "upgrade" in tokens(headers, "Connection")
    assert "websocket" in tokens(headers, "Upgrade")
    assert headers["Sec-WebSocket-Version"] == "13"
    assert len(base64.b64decode(headers["Sec-WebSocket-Key"], validate=True)) == 16
    assert headers["Host"]
    assert len(headers.get_all("Origin")) <= 1


def check_accepted(handshake, request, response):
    """The client of that request takes the response, as RFC 6455 §4.1 has it."""
    offered = tokens(request.headers, "Sec-WebSocket-Protocol", lower=False)
    assert handshake.subprotocol is None or handshake.subprotocol in offered
    offers = extension_names(request.headers)
    agreed = extension_names(response.headers)
    assert len(agreed) == len(handshake.extensions) <= 1
    assert set(agreed) <= set(offers)
    client = ClientHandshake(
        parse_uri("ws://example.com"),
        key=request.headers["Sec-WebSocket-Key"],
        extensions=[PerMessageDeflate(window_bits=15)],
        subprotocols=list(dict.fromkeys(offered)) or None,
    )
    client.check(response)
    assert client.subprotocol == handshake.subprotocol
    for ours, theirs in zip(handshake.extensions, client.extensions):
        check_pair(ours, theirs)


def extension_names(headers):
    values = headers.get_all("Sec-WebSocket-Extensions")
    return [name for name, _ in parse_extension(", ".join(values))] if values else []


def check_pair(server, client):
    """Both ends of permessage-deflate can read what the other one writes (RFC 7692 §7)."""
    for sender, receiver in ((server, client), (client, server)):
        assert 8 <= sender.own_window_bits <= receiver.peer_window_bits <= 15
        assert sender.own_no_context_takeover or not receiver.peer_no_context_takeover


def check_refusal(response):
    assert response.status_code in (400, 403, 405, 414, 426, 431, 505)
    body = response.body.decode("ascii")
    printable(body.replace("\n", " "))
    check_sent(response)


def check_sent(response):
    """What we send is read as what we meant, and holds no line of the peer's."""
    wire = response.serialize()
    parser = ResponseParser()
    assert parser.feed(wire) == response
    assert not parser.leftover
    head = wire[: len(wire) - len(response.body)]
    assert head.count(b"\n") == head.count(b"\r") == len(items(response)) + 2


def tokens(headers, name, lower=True):
    """The elements of a list-based header, taken apart in the simplest way."""
    found = [part.strip(" \t") for part in ",".join(headers.get_all(name)).split(",")]
    return [part.lower() if lower else part for part in found if part]


def host_of(authority):
    """Host of ``host[:port]``, in lower case; IPv6 addresses as numbers."""
    host = re.sub(r":[0-9]*$", "", authority.lower())
    return ipaddress.IPv6Address(host[1:-1]) if host.startswith("[") else host


# Responses


def check_response(source, read=Source.rest):
    limits = source.choice(LIMITS)
    sizes = [source.byte() for _ in range(source.byte() & 7)]
    options = source.byte()
    data = read(source)
    whole = parse_all_ways(ResponseParser, data, sizes, limits)
    if not isinstance(whole.error, SecurityError):
        check_response_grammar(data, whole)
    if whole.message is None:
        return
    response = whole.message
    match = RESPONSE.match(data)
    assert match is not None
    check_head(match.group(), Headers() if interim(match) else response.headers, limits)
    assert len(response.body) <= MAX_BODY
    assert 100 <= response.status_code <= 599
    check_head_serializes_to_itself(response)
    check_client(response, options)


def check_response_grammar(data, whole):
    """A response is taken if and only if the grammar allows it, and for the same."""
    response = whole.message
    match = RESPONSE.match(data)
    while match and interim(match):
        match = RESPONSE.match(data, match.end())
    # RFC 6455 §4.2.2: HTTP/1.1 or higher
    if match is None or (match["code"], match["minor"]) == (b"101", b"0"):
        assert response is None
        return
    content = content_of(match["code"], pairs_of(match), data[match.end() :])
    if content is None:
        assert response is None
        return
    assert response is not None, "a response that should have been taken"
    assert (response.body, whole.leftover) == content
    assert response.status_code == int(match["code"])
    assert response.reason_phrase.encode("iso-8859-1") == (match["phrase"] or b"")
    assert [
        (name.encode(), value.encode("iso-8859-1")) for name, value in items(response)
    ] == pairs_of(match)


def interim(match):
    """Whether a response is followed by another one (RFC 9110 §15.2)."""
    return match["code"].startswith(b"1") and match["code"] != b"101"


def content_of(code, pairs, rest):
    """Body and what follows, as RFC 9112 §6.3 has it; ``None`` if it is malformed."""
    codings = values_of(pairs, b"transfer-encoding")
    lengths = values_of(pairs, b"content-length")
    size = MAX_BODY
    if code in (b"101", b"204", b"304"):
        size = 0
    elif codings:
        if codings[-1].split(b",")[-1].strip(b" \t").lower() == b"chunked":
            return unchunk(rest)
    elif lengths:
        if len(lengths) > 1 or not re.fullmatch(rb"[0-9]{1,18}", lengths[0]):
            return None
        size = min(int(lengths[0]), MAX_BODY)
    return rest[:size], rest[size:]


def unchunk(rest):
    """Take the chunks off a body (RFC 9112 §7.1), which may end before the last one."""
    body = b""
    while True:
        match = CHUNK_SIZE.match(rest)
        if match is None:
            return None if b"\n" in rest else (body, b"")
        size = int(match[1], 16)
        rest = rest[match.end() :]
        if size == 0:
            return body, rest
        size = min(size, MAX_BODY - len(body))
        body += rest[:size]
        rest = rest[size:]
        if len(body) == MAX_BODY:
            return body, rest
        if not rest.startswith(b"\r\n"):
            return None if b"\n" in rest else (body, b"")
        rest = rest[2:]


def check_head_serializes_to_itself(response):
    head = Response(response.status_code, response.reason_phrase, response.headers)
    if 100 < response.status_code < 200 and response.status_code != 101:
        raise AssertionError("an interim response is not the response")
    parser = ResponseParser(*AMPLE_LIMITS)
    again = parser.feed(head.serialize()) or parser.feed_eof()
    assert (again.status_code, again.reason_phrase) == (head.status_code, head.reason_phrase)
    assert items(again) == items(head)
    assert not again.body
    assert not parser.leftover


def check_client(response, options):
    """A client takes a response, or says why not."""
    factories = FACTORIES[options & 3]
    subprotocols = SUBPROTOCOLS[options >> 2 & 3]
    handshake = ClientHandshake(
        parse_uri("ws://example.com/"), key=KEY, extensions=factories, subprotocols=subprotocols
    )
    try:
        handshake.check(response)
    except InvalidHandshake as exc:
        check_client_refusal(exc, response)
        return
    headers = response.headers
    assert response.status_code == 101
    assert headers.get_all("Sec-WebSocket-Accept") == [ACCEPT]
    assert "upgrade" in tokens(headers, "Connection")
    assert tokens(headers, "Upgrade") == ["websocket"]
    assert handshake.subprotocol in (None, *(subprotocols or ()))
    assert len(handshake.extensions) <= len(factories)
    for codec, factory in zip(handshake.extensions, factories):
        offered = dict(factory.get_request_params())
        assert 8 <= codec.own_window_bits <= int(offered["client_max_window_bits"] or 15)
        assert 8 <= codec.peer_window_bits <= 15


def check_client_refusal(error, response):
    printable(str(error))
    assert isinstance(error, InvalidStatus) is (response.status_code != 101)


# Header values


def check_values(source):
    """The grammar of each header; what is parsed is written as what parses to the same."""
    text = source.rest().decode("iso-8859-1")
    printable(excerpt(text))
    check_list(parse_connection, ", ".join, OPTION, 0, text)
    check_list(parse_upgrade, ", ".join, PROTOCOL, 0, text)
    check_list(parse_subprotocol, build_subprotocol, OPTION, 1, text)
    for name, params in check_list(parse_extension, build_extension, EXTENSION, 1, text):
        check_negotiation(name, params)
    check_credentials(text)


def check_list(parse_value, build_value, element, least, text):
    """A list is taken if and only if the grammar allows it."""
    grammar = rf"[ \t,]*(?:{element}[ \t]*(?:,[ \t,]*|\Z))" + ("+" if least else "*")
    allowed = re.fullmatch(grammar, text) is not None
    try:
        value = parse_value(text)
    except InvalidHeaderFormat as exc:
        printable(str(exc))
        value = None
    assert (value is not None) is allowed
    assert value is None or parse_value(build_value(value) or ",") == value
    return value or []


def check_negotiation(name, params):
    """Any parameters are agreed upon or declined, by both ends."""
    for factory in (factory for factories in FACTORIES for factory in factories):
        try:
            answer, server = factory.process_request_params(params, [])
        except NegotiationError as exc:
            printable(str(exc))
        else:
            answer = parse_extension(build_extension([(name, answer)]))[0][1]
            client = PerMessageDeflate(window_bits=15).process_response_params(answer, [])
            check_pair(server, client)
        try:
            factory.process_response_params(params, [])
        except NegotiationError as exc:
            printable(str(exc))


def check_credentials(text):
    try:
        username, password = parse_authorization_basic(text)
    except InvalidHeaderValue as exc:
        printable(str(exc))
        return
    header = build_authorization_basic(username, password)
    assert parse_authorization_basic(header) == (username, password)


# What an application gives


def decode_text(data):
    """Text with any character: UTF-8, with lone surrogates, or else ISO-8859-1."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("iso-8859-1")


def check_uri(source):
    """A URI is refused, or makes a request that says the same."""
    text = decode_text(source.rest())
    try:
        uri = parse_uri(text)
    except InvalidURI:
        return
    assert not re.search(r"[\x00-\x20\x7f]", text)
    request = ClientHandshake(uri).request
    check_serializes_to_itself(request)
    assert parse_uri(unparse(uri)) == uri
    assert request.path == uri.resource_name
    host = request.headers["Host"]
    assert re.fullmatch(r"[0-9a-z._~-]+(:[0-9]+)?|\[[0-9a-f:.]+\](:[0-9]+)?", host)
    if uri.user_info is not None:
        assert parse_authorization_basic(request.headers["Authorization"]) == uri.user_info


def unparse(uri: WebSocketURI) -> str:
    user_info = ""
    if uri.user_info is not None:
        user_info = "{}:{}@".format(*(quote(part, safe="") for part in uri.user_info))
    host = f"[{uri.host.replace('%', '%25', 1)}]" if ":" in uri.host else uri.host
    query = f"?{uri.query}" if uri.query else ""
    return f"ws{'s' * uri.secure}://{user_info}{host}:{uri.port}{uri.path}{query}"


def check_client_request(source):
    """No argument of a client adds a line to its request."""
    parts = decode_text(source.rest()).split("\n", 5)
    parts += [""] * (6 - len(parts))
    name, value, origin, user_agent, subprotocols, realm = parts
    # A separator that can be changed to a line's end within a part.
    value, origin, user_agent = (x.replace("\x1f", "\n") for x in (value, origin, user_agent))
    try:
        request = ClientHandshake(
            parse_uri("wss://example.com/?q"),
            origin=origin or None,
            user_agent_header=user_agent or None,
            additional_headers=[(name, value)] if name else None,
            subprotocols=subprotocols.split(",") if subprotocols else None,
        ).request
    except (ValueError, InvalidHeaderValue):
        pass
    else:
        check_sent_request(request)
    try:
        challenge = build_www_authenticate_basic(realm)
    except ValueError:
        return
    Headers()["WWW-Authenticate"] = challenge


def check_sent_request(request):
    """The peer reads the headers that were meant, without the space around their values."""
    wire = request.serialize()
    again = RequestParser(*AMPLE_LIMITS).feed(wire)
    assert again is not None
    assert items(again) == [(name, value.strip(" \t")) for name, value in items(request)]
    assert wire.count(b"\n") == wire.count(b"\r") == len(items(request)) + 2


def check_serialize(source):
    """Nothing in a start line adds a line or changes the others."""
    method, path, protocol, reason, *rest = [
        *decode_text(source.rest()).split("\n", 4),
        "",
        "",
        "",
        "",
    ]
    request = Request(path.replace("\x1f", "\n"), Headers(), method, protocol or "HTTP/1.1")
    try:
        wire = request.serialize()
    except ValueError:
        pass
    else:
        assert wire.count(b"\n") == wire.count(b"\r") == 2
        assert wire.split(b"\r\n")[0].count(b" ") == 2
    response = Response(101, reason.replace("\x1f", "\n"), Headers())
    try:
        wire = response.serialize()
    except ValueError:
        pass
    else:
        assert ResponseParser(*AMPLE_LIMITS).feed(wire) == response
    check_sent(reject(403, rest[0].encode(errors="replace").decode()))


CHECKS = (
    check_request,
    lambda source: check_request(source, compose),
    check_response,
    lambda source: check_response(source, compose),
    check_values,
    check_uri,
    check_client_request,
    check_serialize,
)
