"""Heads, headers and URIs under any input: round trips, cuts, limits; no line can be injected."""

from __future__ import annotations

import base64
import dataclasses
import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from profiles import examples, patience
from strategies import cut, cuts, field_contents, mutations, texts, tokens

from syncws import headers as grammar
from syncws.auth import basic_auth
from syncws.exceptions import (
    HeaderLineTooLong,
    InvalidHandshake,
    InvalidHeader,
    InvalidHeaderFormat,
    InvalidHeaderValue,
    InvalidMessage,
    InvalidProtocol,
    InvalidURI,
    RequestLineTooLong,
    SecurityError,
    StatusLineTooLong,
    TooManyHeaders,
)
from syncws.handshake import SAME_HOST, ClientHandshake, ServerHandshake, error_response, reject
from syncws.headers import Headers
from syncws.http11 import MAX_BODY, Request, RequestParser, Response, ResponseParser
from syncws.permessage_deflate import PerMessageDeflate
from syncws.uri import parse_uri

pytestmark = patience

# What ends lines or hides in them, for texts that should not get into a head.
nasty = st.one_of(
    texts(12),
    st.text(st.sampled_from("a :/?#\t\r\n\x00\x0b\x7f\x85\u2028\ud800é"), max_size=12),
    st.sampled_from(["\r\n", "a\r\nX-Injected: 1", "a\nb", "a\rb", "\r\n\r\n", "a\r\n b"]),
)

paths = st.just("*") | st.text(st.sampled_from("/az09%?&=\"'~!|"), max_size=15).map("/{}".format)
# Those of bodies have a meaning, and are tried by themselves.
field_names = tokens.filter(
    lambda name: name.lower() not in {"content-length", "transfer-encoding"}
)
fields = st.lists(st.tuples(field_names, field_contents), max_size=5)
phrases = st.text(st.sampled_from("\t aZ\x7e\x80\xff"), max_size=10)


def feed(parser, pieces):
    """Feed pieces until the message is complete; return it, and what follows it."""
    for place, piece in enumerate(pieces):
        message = parser.feed(piece)
        if message is not None:
            return message, parser.leftover + b"".join(pieces[place + 1 :])
    return None, None


def attempt(refusal, function, argument, done=None):
    """
    Call a function; return what it returns, or ``done`` in place of ``None``.

    If it refuses the argument, return ``None``; the refusal must then be fit for a log: one line
    of printable ASCII.
    """
    try:
        result = function(argument)
    except refusal as exc:
        text = str(exc)
    else:
        return done if result is None else result
    assert text.isprintable()
    assert text.isascii()
    return None


def parts_of(message):
    """A message in a form to compare: headers in their order, names as they were written."""
    return {**vars(message), "headers": list(message.headers.raw_items())}


# Heads (RFC 9112)


@given(
    request=st.builds(
        Request,
        path=paths,
        headers=fields.map(Headers),
        method=tokens,
        protocol=st.sampled_from(["HTTP/1.1", "HTTP/1.0"]),
    ),
    before=st.sampled_from([b"", b"\r\n"]),
    after=st.binary(max_size=10),
    sizes=cuts,
)
def test_requests_are_parsed_back_however_they_are_cut(request, before, after, sizes):
    wire = before + request.serialize() + after
    parsed, leftover = feed(RequestParser(), cut(wire, sizes))
    assert parts_of(parsed) == parts_of(request)
    assert leftover == after


head_parts = st.sampled_from(
    [b"GET / HTTP/1.1", b"get /?a=b HTTP/1.0", b"GET http://h/ HTTP/1.1", b"GET / HTTP/2.0"]
    + [b"Host: h", b"host:h", b"A: b", b"A:\tb \t", b"A: \xe9\xff", b"A:", b"A :b", b": b", b" b"]
    + [b"Content-Length: 0", b"Content-Length: 1", b"Transfer-Encoding: chunked"]
    + [b"\r\n"] * 9
    + [b"\r\n\r\n", b"\n", b"\r", b"\x00", b"\x16", b"a", b" ", b"\x81\x00"]
)
head_limits = st.builds(
    dict,
    max_line=st.sampled_from([8, 20, 8192]),
    max_headers=st.integers(0, 3),
    max_head=st.sampled_from([8, 40, 65536]),
)


def outcome_of(pieces, limits):
    """What a parser of requests makes of pieces: a request and what follows it, or an error."""
    parser = RequestParser(**limits)
    try:
        parsed, leftover = feed(parser, pieces)
    except InvalidHandshake as exc:
        return type(exc), str(exc), parser.started
    return None if parsed is None else (parts_of(parsed), leftover, parser.started)


@given(
    parts=st.lists(head_parts, max_size=12).map(b"".join),
    start=st.sampled_from([b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: h\r\n"]),
    end=st.sampled_from([b"", b"\r\n\r\n", b"\r\n\r\n\x81\x00"]),
    limits=st.just({}) | head_limits,
)
def test_a_request_in_one_piece_is_taken_as_one_that_comes_in_two(parts, start, end, limits):
    # What comes whole takes a short cut, which must not lead elsewhere.
    wire = start + parts + end
    most = wire.find(b"\r\n\r\n") + 3  # all of the head but its last byte
    assert outcome_of([wire], limits) == outcome_of([wire[:most], wire[most:]], limits)


def chunked(body, sizes):
    """A body in chunks, with extensions (RFC 9112 §7.1)."""
    encoded = b""
    for place, chunk in enumerate(cut(body, sizes) if body else ()):
        extension = b";name=value" if place % 2 else b""
        encoded += b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk)
    return encoded + b"0\r\n"


@st.composite
def responses(draw):
    """A response with a body of each kind; how it is to be sent, and whether EOF ends it."""
    status = draw(st.sampled_from([101, 200, 204, 304, 426, 599]))
    body = draw(st.binary(max_size=300))
    kind = draw(st.sampled_from(["length", "chunked", "eof"]))
    response = Response(status, draw(phrases), Headers(draw(fields)), body)
    if status in (101, 204, 304):
        response.body = b""
        return response, response.serialize(), False
    if kind == "length":
        response.headers["Content-Length"] = str(len(body))
    elif kind == "chunked":
        response.headers["Transfer-Encoding"] = draw(st.sampled_from(["chunked", "gzip, Chunked"]))
    wire = response.serialize()
    if kind == "chunked":
        wire = wire[: len(wire) - len(body)] + chunked(body, draw(cuts))
    return response, wire, kind == "eof"


@given(responses(), fields, st.booleans(), cuts)
def test_responses_are_parsed_back_however_they_are_cut(made, interim_fields, has_interim, sizes):
    response, wire, until_eof = made
    if has_interim:
        wire = Response(103, "Early Hints", Headers(interim_fields)).serialize() + wire
    parser = ResponseParser()
    parsed, leftover = feed(parser, cut(wire, sizes))
    if until_eof:
        assert parsed is None
        parsed, leftover = parser.feed_eof(), parser.leftover
    assert parts_of(parsed) == parts_of(response)
    assert leftover == b""


LINES = [
    b"GET / HTTP/1.1",
    b"GET http://example.com HTTP/1.0",
    b"HTTP/1.1 101 Switching Protocols",
    b"HTTP/1.1 200 OK",
    b"HTTP/1.1 100 Continue",
    b"HTTP/1.0 404",
    b"Host: example.com",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Transfer-Encoding: chunked",
    b" folded: line",
    b"3;x=y",
    b"abc",
    b"0",
    b"\x16\x03\x01",
    b"",
]

heads = mutations(
    st.lists(
        st.tuples(st.sampled_from(LINES), st.sampled_from([b"\r\n"] * 9 + [b"\n"])), max_size=7
    ).map(lambda lines: b"".join(line + end for line, end in lines))
)

limits = st.fixed_dictionaries(
    {
        "max_line": st.sampled_from([8192, 20]),
        "max_headers": st.sampled_from([128, 1]),
        "max_head": st.sampled_from([65536, 40]),
    }
)


def outcome(parser, pieces):
    """What a parser makes of its input and of the end of the stream, in a form to compare."""
    try:
        message, leftover = feed(parser, pieces)
        if message is None:
            message, leftover = parser.feed_eof(), None
    except (InvalidMessage, InvalidProtocol, SecurityError) as exc:
        return type(exc)
    return type(message), parts_of(message), leftover


@pytest.mark.parametrize("kind", [RequestParser, ResponseParser])
@examples(60)
@given(data=heads, limits=limits, sizes=cuts)
def test_any_bytes_mean_the_same_however_they_are_cut(kind, data, limits, sizes):
    whole = outcome(kind(**limits), [data])
    in_pieces = outcome(kind(**limits), cut(data, sizes))
    if isinstance(whole, type) and min(limits.values()) < 128:
        # What is wrong twice, and over a limit too, may be refused for either.
        assert isinstance(in_pieces, type)
    else:
        assert in_pieces == whole


@pytest.mark.parametrize("kind", [RequestParser, ResponseParser])
@given(data=st.binary(max_size=30) | heads)
def test_what_is_refused_whole_is_refused_byte_by_byte_before_its_end(kind, data):
    try:
        feed(kind(), [data])
    except InvalidHandshake:
        with pytest.raises(InvalidHandshake):
            feed(kind(), cut(data, [1]))


@st.composite
def nearly_requests(draw):
    """A request that is right, or has a line that is wrong, or a wrong end of a line."""
    right = st.sampled_from([b"a:", b"X-B:c", b"X-B: \tc d\xff\t", b"Content-Length: 0"])
    wrong = st.sampled_from(
        [
            b"Content-Length: 5",
            b"Content-Length: 0\r\nContent-Length: 0",
            b"Transfer-Encoding: chunked",
            b"a: c\x00",
            b"a: c\rd",
            b"a: \x0c",
            b"a b: c",
            b" a: b",
            b": c",
        ]
    )
    lines = draw(st.lists(st.one_of(right, right, right, wrong), max_size=3))
    start = draw(
        st.sampled_from([b"GET / HTTP/1.1"] * 4 + [b"* * HTTP/1.0", b"GET /\xff HTTP/1.1"])
    )
    ends = st.sampled_from([b"\r\n"] * 9 + [b"\n", b" \r\n"])
    text = b"".join(line + draw(ends) for line in (start, *lines))
    if draw(st.integers(0, 3)) == 3:
        text = draw(mutations(st.just(text)))
    return text + b"\r\n" + draw(st.binary(max_size=3))


@examples(100)
@given(nearly_requests())
def test_request_that_is_taken_says_what_its_lines_say(data):
    parser = RequestParser()
    try:
        request = parser.feed(data)
    except (InvalidMessage, InvalidProtocol):
        return
    if request is None:
        return
    head = data[: len(data) - len(parser.leftover)].lstrip(b"\r\n")
    assert head.endswith(b"\r\n\r\n")
    start, *lines = head[:-4].split(b"\r\n")
    assert not re.search(rb"[\r\n\x00\x0c]", b"".join([start, *lines]))
    assert start == f"{request.method} {request.path} {request.protocol}".encode()
    pairs = [line.split(b":", 1) for line in lines]
    expected = [(name.decode(), value.strip(b" \t").decode("latin-1")) for name, value in pairs]
    assert list(request.headers.raw_items()) == expected
    # A body would be taken for frames, or for a second request.
    assert request.headers.get("Content-Length", "0") == "0"
    assert "Transfer-Encoding" not in request.headers
    assert Headers(expected) == request.headers


def expect_limits(lines, too_long, max_line, max_headers, max_head):
    """Which limit a head breaks first, if any; ``lines`` are the sizes of its lines."""
    size = 0
    for place, line in enumerate(lines):
        size += line
        if line > max_line:
            return HeaderLineTooLong if place else too_long
        if size > max_head:
            return HeaderLineTooLong
        if place > max_headers and line > 2:
            return TooManyHeaders
    return None


@pytest.mark.parametrize(
    ("kind", "start", "too_long"),
    [
        (RequestParser, b"GET /%b HTTP/1.1\r\n", RequestLineTooLong),
        (ResponseParser, b"HTTP/1.1 101 %b\r\n", StatusLineTooLong),
    ],
)
@given(
    padding=st.integers(0, 12),
    values=st.lists(st.sampled_from([0, 20, 25]), max_size=3),
    max_line=st.integers(25, 31),
    max_headers=st.integers(0, 4),
    spare=st.integers(-2, 1),
    sizes=cuts,
)
def test_heads_pass_up_to_the_limits_and_not_beyond(
    kind, start, too_long, padding, values, spare, sizes, **limits
):
    lines = [start % (b"a" * padding), *[b"a:%b\r\n" % (b"b" * size) for size in values], b"\r\n"]
    # Partial lines count for both limits; none should be over this one first.
    limits["max_head"] = max(limits["max_line"], len(b"".join(lines)) + spare)
    expected = expect_limits([len(line) for line in lines], too_long, **limits)
    pieces = cut(b"".join(lines), sizes)
    if expected is None:
        message, leftover = feed(kind(**limits), pieces)
        assert message.headers.get_all("a") == ["b" * size for size in values]
        assert leftover == b""
    else:
        with pytest.raises(expected) as caught:
            feed(kind(**limits), pieces)
        assert type(caught.value) is expected


@given(st.integers(-2, 2), st.sampled_from(["length", "chunked", "eof"]), st.integers(1, 70000))
def test_body_is_kept_up_to_its_limit(over, kind, size):
    body = bytes(MAX_BODY + over)
    headers = {"length": b"Content-Length: %d\r\n" % len(body), "eof": b""}
    head = b"HTTP/1.1 400 \r\n" + headers.get(kind, b"Transfer-Encoding: chunked\r\n") + b"\r\n"
    wire = head + (chunked(body, [size]) if kind == "chunked" else body)
    parser = ResponseParser()
    message, _ = feed(parser, cut(wire, [size]))
    message = message or parser.feed_eof()
    assert message.body == body[:MAX_BODY]


# Grammar of headers (RFC 9110 §5.6, RFC 6455 §9.1)

spaces = st.sampled_from(["", " ", "\t", " \t "])
separators = st.builds("{}{}{}".format, spaces, st.sampled_from([",", ", ,", ",,"]), spaces)


@st.composite
def lists_of(draw, items):
    """A list-based header with all that its grammar allows; and the list."""
    written = draw(st.lists(items, min_size=1, max_size=4))
    text = draw(st.sampled_from(["", " ", ",", ", ,"]))
    for place, (item, _) in enumerate(written):
        text += (draw(separators) if place else "") + item
    return text + draw(st.sampled_from(["", " ", ",", " , "])), [value for _, value in written]


def quote(token):
    """A quoted string, with a backslash before all that is no letter (RFC 9110 §5.6.4)."""
    return '"' + re.sub(r"([^a-z])", r"\\\1", token) + '"'


@st.composite
def extensions(draw):
    """An extension with parameters, as a header may have it; and what it means."""
    name = draw(tokens)
    parameters = draw(st.lists(st.tuples(tokens, st.none() | tokens), max_size=3))
    text = name
    for parameter, value in parameters:
        text += f"{draw(spaces)};{draw(spaces)}{parameter}"
        if value is not None:
            written = draw(st.sampled_from([value, f'"{value}"', quote(value)]))
            text += f"{draw(spaces)}={draw(spaces)}{written}"
    return text, (name, parameters)


same = tokens.map(lambda token: (token, token))
protocols = st.builds("{}/{}".format, tokens, tokens).map(lambda name: (name, name)) | same


@given(lists_of(extensions()), lists_of(same), lists_of(protocols))
def test_lists_are_parsed_with_all_that_their_grammar_allows(extension, token, protocol):
    assert grammar.parse_extension(extension[0]) == extension[1]
    assert grammar.parse_connection(token[0]) == token[1]
    assert grammar.parse_subprotocol(token[0]) == token[1]
    assert grammar.parse_upgrade(protocol[0]) == protocol[1]


@given(st.lists(extensions().map(lambda written: written[1]), min_size=1, max_size=4))
def test_extensions_are_built_and_parsed_back(listed):
    built = grammar.build_extension(listed)
    assert grammar.parse_extension(built) == listed
    assert Headers({"Sec-WebSocket-Extensions": built})


nearly_lists = st.one_of(
    st.text(st.sampled_from('az;=," \t\\/*é\x00'), max_size=15),
    lists_of(extensions()).map(lambda written: written[0]),
    st.text(st.sampled_from("az, \t/"), max_size=6),
    texts(10),
)


@examples(100)
@given(nearly_lists)
def test_any_text_is_a_list_of_tokens_or_refused(text):
    for parse in (
        grammar.parse_extension,
        grammar.parse_connection,
        grammar.parse_subprotocol,
        grammar.parse_upgrade,
    ):
        items = attempt(InvalidHeaderFormat, parse, text)
        if items is None:
            continue
        if parse is grammar.parse_extension:
            assert grammar.parse_extension(grammar.build_extension(items)) == items
        else:
            parts = [part.strip(" \t") for part in text.split(",")]
            assert items == [part for part in parts if part]


# HTTP Basic authentication (RFC 7617)

usernames = texts(8).map(lambda name: name.replace(":", ""))


@given(usernames, texts(8) | st.sampled_from([":", "a:b"]))
def test_credentials_are_built_and_parsed_back(username, password):
    header = grammar.build_authorization_basic(username, password)
    assert Headers({"Authorization": header})
    assert grammar.parse_authorization_basic(header) == (username, password)


@given(
    st.one_of(
        texts(12),
        st.binary(max_size=9).map(lambda raw: "BASIC  " + base64.b64encode(raw).decode()),
        st.text(st.sampled_from("Basic =a+/\t"), max_size=12),
    )
)
def test_any_text_is_a_pair_of_credentials_or_refused(text):
    credentials = attempt(InvalidHeaderValue, grammar.parse_authorization_basic, text)
    if credentials is None:
        return
    username, password = credentials
    assert ":" not in username
    again = grammar.build_authorization_basic(username, password)
    assert grammar.parse_authorization_basic(again) == (username, password)


@given(field_contents)
def test_realm_is_quoted(realm):
    header = grammar.build_www_authenticate_basic(realm)
    match = re.fullmatch(r'Basic realm="((?:[^"\\]|\\.)*)", charset="UTF-8"', header)
    assert re.sub(r"\\(.)", r"\1", match.group(1)) == realm
    assert Headers({"WWW-Authenticate": header})


# URIs (RFC 6455 §3)

labels = st.text(st.sampled_from("az09-"), max_size=8).map("a{}z".format)
names = st.lists(labels, min_size=1, max_size=3).map(".".join)
addresses = st.integers(0, 2**128 - 1).map(ipaddress.IPv6Address).map(str)
hosts = st.one_of(
    names.map(lambda name: (name, name)),
    addresses.map(lambda address: (f"[{address}]", address)),
    st.just(("bücher.example", "xn--bcher-kva.example")),
)
uri_characters = st.sampled_from("az09-._~!$&'()*+,;=:@/%é😀")


@st.composite
def uris(draw):
    """A WebSocket URI, and its parts."""
    secure = draw(st.booleans())
    written, host = draw(hosts)
    port = draw(st.none() | st.integers(1, 65535))
    path = draw(st.just("") | st.text(uri_characters, max_size=8).map("/{}".format))
    query = draw(st.none() | st.text(uri_characters, max_size=8))
    user_info = draw(st.none() | st.tuples(usernames, texts(5)))
    text = draw(st.sampled_from(["wss", "WSS"] if secure else ["ws", "Ws"])) + "://"
    if user_info is not None:
        text += ":".join(map(_percent_encode, user_info)) + "@"
    text += draw(st.sampled_from([written, written.upper()]))
    text += ("" if port is None else f":{port}") + path
    text += "" if query is None else f"?{query}"
    return text, (secure, host, port or (443 if secure else 80), path, query or "", user_info)


def _percent_encode(text):
    return "".join(f"%{byte:02x}" for byte in text.encode())


def _encode(text):
    """Percent-encode what is not ASCII, and that alone."""
    return "".join(char if char.isascii() else _percent_encode(char).upper() for char in text)


@given(uris())
def test_uris_are_taken_apart(made):
    text, (secure, host, port, path, query, user_info) = made
    uri = parse_uri(text)
    assert (uri.secure, uri.host, uri.port) == (secure, host, port)
    assert (uri.path, uri.query) == (_encode(path), _encode(query))
    assert uri.user_info == user_info
    default = port == (443 if secure else 80)
    written = f"[{host}]" if ":" in host else host
    headers = ClientHandshake(uri).request.headers
    assert headers["Host"] == (written if default else f"{written}:{port}")


URI = "ws://user:password@host/path?query"

nearly_uris = st.one_of(
    nasty,
    st.builds("ws{}://{}{}{}".format, st.sampled_from(["", "s"]), nasty, st.just("/"), nasty),
    uris().map(lambda made: made[0]),
    st.lists(
        st.sampled_from(
            ["[", "]", "::1", "%25lo", "a", ":", "80", "/", "?", "@", "é", "%3a", "$", " "]
        ),
        max_size=6,
    ).map(lambda parts: "ws://" + "".join(parts)),
    # Right but for one character.
    st.builds(
        lambda place, wrong: URI[:place] + wrong + URI[place:],
        st.integers(5, len(URI)),
        st.sampled_from(["%3a", "%3a", "$", " ", "\t", "#", "%"]),
    ),
)


@examples(120)
@given(nearly_uris)
def test_any_text_is_a_uri_that_makes_a_good_request_or_refused(text):
    try:
        uri = parse_uri(text)
    except InvalidURI:
        return
    assert not re.search(r"[\x00-\x20\x7f#]", text)
    assert re.fullmatch(r"[-a-z0-9._~]+|[0-9a-f:.]+(%[!-~]+)?", uri.host)
    assert uri.username is None or ":" not in uri.username
    wire = ClientHandshake(uri).request.serialize()
    request = RequestParser().feed(wire)
    assert request.path == uri.resource_name
    server = ServerHandshake()
    assert server.respond(request).status_code == 101, server.exception


# Opening handshakes (RFC 6455 §4)

lists_of_tokens = st.lists(st.sampled_from(["chat", "chat.v2", "x"]), max_size=3, unique=True)
compressions = st.sampled_from([(), (PerMessageDeflate(),)])


@given(
    uris(),
    lists_of_tokens,
    lists_of_tokens,
    compressions,
    compressions,
    fields.map(lambda pairs: [(f"X-{name}", value) for name, value in pairs]),
    cuts,
)
def test_two_ends_agree(made, ours, theirs, our_extensions, their_extensions, additional, sizes):
    client = ClientHandshake(
        parse_uri(made[0]),
        subprotocols=ours or None,
        extensions=our_extensions,
        additional_headers=additional,
    )
    server = ServerHandshake(subprotocols=theirs or None, extensions=their_extensions)
    request, _ = feed(RequestParser(), cut(client.request.serialize(), sizes))
    for name, value in additional:
        assert value in request.headers.get_all(name)
    wire = server.respond(request).serialize()
    response, _ = feed(ResponseParser(), cut(wire, sizes))
    common = [name for name in theirs if name in ours]
    if theirs and not common:
        assert response.status_code == 400
        return
    client.check(response)
    assert client.subprotocol == server.subprotocol == (common[0] if common else None)
    in_use = bool(our_extensions and their_extensions)
    assert len(client.extensions) == len(server.extensions) == in_use


authorities = st.builds(
    "{}{}".format,
    names | addresses.map("[{}]".format),
    st.just("") | st.integers(1, 65535).map(":{}".format),
)


@given(authorities, authorities, st.sampled_from(["http://", "https://", "HTTPS://"]))
def test_pages_may_connect_to_their_own_host_alone(page, host, scheme):
    request = _upgrade(("Host", host.upper()), ("Origin", scheme + page))
    response = ServerHandshake(origins=SAME_HOST).respond(request)
    same_host = re.sub(r":[0-9]*$", "", page) == re.sub(r":[0-9]*$", "", host)
    assert response.status_code == (101 if same_host else 403)


KEY = "dGhlIHNhbXBsZSBub25jZQ=="


def _upgrade(*pairs):
    """A request to open a connection."""
    required = {
        "Host": "example.com",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Key": KEY,
        "Sec-WebSocket-Version": "13",
    }
    given_names = {name for name, _ in pairs}
    headers = Headers({name: required[name] for name in required if name not in given_names})
    headers.update(pairs)
    return Request("/", headers)


one_or_two = st.lists(st.sampled_from(["chat", "chat.v2", "x"]), min_size=1, max_size=2)


@given(one_or_two, one_or_two, one_or_two)
def test_lists_of_several_lines_are_one_list(first, second, preferred):
    preferred = list(dict.fromkeys(preferred))
    server = ServerHandshake(subprotocols=preferred)
    lines = [("Sec-WebSocket-Protocol", ", ".join(line)) for line in (first, second)]
    response = server.respond(_upgrade(*lines))
    chosen = next((name for name in preferred if name in first + second), None)
    assert response.status_code == (400 if chosen is None else 101)
    assert server.subprotocol == chosen


@given(st.binary(min_size=15, max_size=17), st.sampled_from(["", "", "A", "=", " "]))
def test_key_must_stand_for_16_bytes(raw, more):
    key = base64.b64encode(raw).decode() + more
    response = ServerHandshake().respond(_upgrade(("Sec-WebSocket-Key", key)))
    assert response.status_code == (101 if len(raw) == 16 and not more else 400)


ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

# Headers of the handshake, with values that are right and that are not.
VALUES = {
    "Host": ["example.com", "a b", "[::1", "[::1]:80"],
    "Upgrade": ["h2c, WebSocket", "h2c", "websocket/13"],
    "Connection": ["keep-alive, upgrade", "close"],
    "Origin": ["http://EXAMPLE.com:99", "http://example.net", "null"],
    "Sec-WebSocket-Key": [KEY, KEY + "A", "A" + KEY, KEY[:-1]],
    "Sec-WebSocket-Version": ["13", "8", "13, 8"],
    "Sec-WebSocket-Accept": [ACCEPT, ACCEPT + "A", KEY],
    "Sec-WebSocket-Protocol": ["chat", "x, chat", "x", ","],
    "Sec-WebSocket-Extensions": [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits=99",
        "permessage-deflate; server_no_context_takeover, permessage-deflate",
        "x-other",
    ],
}
other_values = field_contents | nearly_lists.filter(
    lambda text: re.fullmatch("[\t\x20-\x7e\x80-\xff]*", text)
)
handshake_fields = st.lists(
    st.sampled_from(sorted(VALUES)).flatmap(
        lambda name: st.tuples(
            st.just(name), st.one_of(*[st.sampled_from(VALUES[name])] * 4, other_values)
        )
    ),
    min_size=1,
    max_size=2,
)


@examples(70)
@given(handshake_fields, st.sampled_from([None, ["chat"]]))
def test_any_request_is_answered(pairs, subprotocols):
    server = ServerHandshake(subprotocols=subprotocols, extensions=[PerMessageDeflate()])
    request = _upgrade(*pairs)
    response = server.respond(request)
    assert response.status_code in {101, 400, 403, 426}
    if response.status_code == 101:
        # RFC 6455 §4.2.1
        assert request.headers["Sec-WebSocket-Version"] == "13"
        assert re.fullmatch("[A-Za-z0-9+/]{22}==", request.headers["Sec-WebSocket-Key"])
        assert "websocket" in ",".join(request.headers.get_all("Upgrade")).lower()
        assert "upgrade" in ",".join(request.headers.get_all("Connection")).lower()
    assert (server.exception is None) == (response.status_code == 101)
    parser = ResponseParser()
    assert parts_of(parser.feed(response.serialize())) == parts_of(response)


@examples(70)
@given(handshake_fields, st.sampled_from([None, ["chat"]]))
def test_any_response_is_taken_or_refused(pairs, subprotocols):
    client = ClientHandshake(
        parse_uri("ws://example.com/"),
        subprotocols=subprotocols,
        extensions=[PerMessageDeflate()],
        key=KEY,
    )
    required = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": ACCEPT,
    }
    headers = Headers(pairs)
    for name, value in required.items():
        if name not in headers:
            headers[name] = value
    if attempt(InvalidHandshake, client.check, Response(101, "", headers), done=True):
        assert client.subprotocol in [None, *(subprotocols or ())]
        assert headers["Sec-WebSocket-Accept"] == required["Sec-WebSocket-Accept"]


# No injection: whatever text a caller passes on, the head has the lines that it should have.


# Those that belong to the handshake, or would make its request longer.
RESERVED = ["Upgrade", "connection", "Sec-WebSocket-Key", "Content-Length", "Transfer-Encoding"]


def check_lines(wire, expected):
    """A head must have so many lines, and nothing that some parser takes for another one."""
    head, end, _ = wire.partition(b"\r\n\r\n")
    assert end
    lines = head.split(b"\r\n")
    assert len(lines) == expected
    assert not re.search(rb"[\x00-\x08\x0a-\x1f\x7f]", b"".join(lines))
    for line in lines[1:]:
        assert re.match(rb"[!#-'*+.0-9A-Z^_`a-z|~-]+: ", line)
    return lines


@examples(60)
@given(st.lists(st.tuples(nasty | tokens, nasty | field_contents), max_size=3))
def test_headers_cannot_be_injected_into_headers(pairs):
    for make in (
        lambda: Headers(pairs),
        lambda: Headers(dict(pairs)),
        lambda: Headers(Headers(pairs)),
        lambda: Headers(**dict(pairs)),
    ):
        try:
            headers = make()
        except (ValueError, InvalidHeaderValue):
            continue
        check_lines(b"\r\n" + headers.serialize(), 1 + len(list(headers.raw_items())))


@examples(60)
@given(
    path=nasty | paths | nasty.map("/{}".format),
    method=nasty | tokens,
    protocol=st.just("HTTP/1.1") | nasty.map("HTTP/1.1{}".format) | nasty,
)
def test_nothing_can_be_injected_into_a_request_line(path, method, protocol):
    for parts in ({"path": path}, {"method": method}, {"protocol": protocol}):
        request = Request(**{"path": "/", "headers": Headers(), **parts})
        try:
            wire = request.serialize()
        except ValueError:
            continue
        [line] = check_lines(wire, 1)
        assert re.fullmatch(rb"[!-~]+ [!-~]+ HTTP/[0-9]\.[0-9]", line)


@examples(60)
@given(status=st.integers(99, 600) | st.integers(), phrase=nasty | phrases)
def test_nothing_can_be_injected_into_a_status_line(status, phrase):
    for response in (Response(status, "", Headers()), Response(200, phrase, Headers())):
        try:
            wire = response.serialize()
        except ValueError:
            continue
        [line] = check_lines(wire, 1)
        assert re.match(rb"HTTP/1\.1 [1-5][0-9][0-9] ", line)


GOOD_URI = parse_uri("ws://example.com/path")


@examples(60)
@given(
    uri_part=st.tuples(st.sampled_from(["host", "path", "query", "username"]), nasty),
    additional=st.tuples(
        st.sampled_from(["Host", "User-Agent", *RESERVED]) | tokens | nasty, field_contents | nasty
    ),
    text=field_contents | nasty,
    subprotocol=tokens | nasty,
)
def test_nothing_can_be_injected_into_the_request_of_a_client(
    uri_part, additional, text, subprotocol
):
    name, value = uri_part
    uri = dataclasses.replace(GOOD_URI, password="secret", **{name: value})
    for options in (
        {"uri": uri},
        {"additional_headers": [additional]},
        {"subprotocols": [subprotocol]},
        {"origin": text},
        {"key": text},
        {"user_agent_header": text},
    ):
        try:
            client = ClientHandshake(**{"uri": GOOD_URI, **options})
            wire = client.request.serialize()
        except (ValueError, InvalidHandshake):
            continue
        lines = check_lines(wire, 1 + len(list(client.request.headers.raw_items())))
        names = [line.partition(b":")[0].lower().decode() for line in lines[1:]]
        for name in ("host", "upgrade", "connection", "sec-websocket-key"):
            assert names.count(name) == 1
        if "additional_headers" in options:
            assert additional[0].lower() in names
            assert additional[0] not in RESERVED


class Extension:
    """An extension that has whatever name and parameters it was given."""

    def __init__(self, name, params):
        self.name = name
        self._params = params

    def get_request_params(self):
        return self._params

    def process_request_params(self, params, accepted_extensions):
        return self._params, self


@given(
    st.builds(
        Extension, nasty | tokens, st.lists(st.tuples(tokens, st.none() | nasty), max_size=2)
    ),
    st.lists(tokens, min_size=1, max_size=2),
)
def test_nothing_can_be_injected_by_an_extension(extension, offered):
    try:
        client = ClientHandshake(parse_uri("ws://example.com/"), extensions=[extension])
    except ValueError:
        pass
    else:
        check_lines(client.request.serialize(), 7)
    extension.name = offered[0]
    request = _upgrade(("Sec-WebSocket-Extensions", ", ".join(offered)))
    try:
        response = ServerHandshake(extensions=[extension]).respond(request)
    except ValueError:
        return
    check_lines(response.serialize(), 6)


class Refusing:
    """What ``basic_auth`` needs of a connection."""

    username = None

    @staticmethod
    def respond(status, text):
        return reject(status, text)


@given(nasty.filter(lambda text: "\ud800" not in text), st.sampled_from([400, 401, 503]))
def test_nothing_can_be_injected_into_a_refusal(text, status):
    lines = check_lines(reject(status, text).serialize(), 5)
    assert lines[3] == b"Content-Length: %d" % len(text.encode())
    check_lines(error_response(InvalidMessage(text)).serialize(), 5)
    check_lines(error_response(InvalidHeader("Sec-WebSocket-Version", text)).serialize(), 6)
    try:
        hook = basic_auth(realm=text, credentials=("user", "password"))
    except ValueError:
        return
    check_lines(hook(Refusing(), _upgrade()).serialize(), 6)
