"""WebSocket URIs (RFC 6455 §3)."""

from __future__ import annotations

import pytest

from syncws.exceptions import InvalidURI
from syncws.uri import WebSocketURI, parse_uri


@pytest.mark.parametrize(
    ("uri", "parsed"),
    [
        ("ws://localhost", WebSocketURI(False, "localhost", 80, "", "")),
        ("wss://localhost", WebSocketURI(True, "localhost", 443, "", "")),
        ("ws://localhost/", WebSocketURI(False, "localhost", 80, "/", "")),
        ("ws://localhost:8765/a/b", WebSocketURI(False, "localhost", 8765, "/a/b", "")),
        ("ws://localhost/a?b=c&d", WebSocketURI(False, "localhost", 80, "/a", "b=c&d")),
        ("ws://localhost?a", WebSocketURI(False, "localhost", 80, "", "a")),
        ("ws://localhost/?", WebSocketURI(False, "localhost", 80, "/", "")),
        ("ws://localhost/a?b?c/d", WebSocketURI(False, "localhost", 80, "/a", "b?c/d")),
        ("ws://localhost:/", WebSocketURI(False, "localhost", 80, "/", "")),
        ("ws://127.0.0.1:1/", WebSocketURI(False, "127.0.0.1", 1, "/", "")),
        ("ws://my_service.local:65535/", WebSocketURI(False, "my_service.local", 65535, "/", "")),
        ("ws://[::1]/", WebSocketURI(False, "::1", 80, "/", "")),
        ("wss://[2001:DB8::1]:8443/", WebSocketURI(True, "2001:db8::1", 8443, "/", "")),
        ("ws://u:p@localhost/", WebSocketURI(False, "localhost", 80, "/", "", "u", "p")),
    ],
)
def test_parts_of_a_uri(uri, parsed):
    assert parse_uri(uri) == parsed


def test_scheme_and_host_are_case_insensitive():
    assert parse_uri("WSS://LocalHost/A") == parse_uri("wss://localhost/A")


def test_a_zone_follows_an_encoded_percent_sign():
    assert parse_uri("ws://[fe80::1%25eth0]/").host == "fe80::1%eth0"


@pytest.mark.parametrize(
    ("uri", "resource_name"),
    [
        ("ws://localhost", "/"),
        ("ws://localhost?a=b", "/?a=b"),
        ("ws://localhost/c?a=b", "/c?a=b"),
        ("ws://localhost/c?", "/c"),
        ("ws://localhost/a%20b%2Fc", "/a%20b%2Fc"),
    ],
)
def test_resource_name_is_path_and_query(uri, resource_name):
    assert parse_uri(uri).resource_name == resource_name


def test_characters_outside_of_ascii_are_encoded():
    uri = parse_uri("ws://Müller.example:81/ü%20/€?q=ä&r=%26")
    assert uri.host == "xn--mller-kva.example"
    assert uri.resource_name == "/%C3%BC%20/%E2%82%AC?q=%C3%A4&r=%26"


def test_characters_that_a_uri_cannot_have_are_encoded():
    assert parse_uri('ws://localhost/{"a"}|<b>').path == "/%7B%22a%22%7D%7C%3Cb%3E"


def test_without_user_info():
    assert parse_uri("ws://localhost/").user_info is None


@pytest.mark.parametrize(
    ("uri", "user_info"),
    [
        ("ws://user:secret@localhost/", ("user", "secret")),
        ("ws://user:@localhost/", ("user", "")),
        ("ws://:secret@localhost/", ("", "secret")),
        ("ws://us%40er:s%3Ae%2Fc@localhost/", ("us@er", "s:e/c")),
        ("ws://user:a:b@localhost/", ("user", "a:b")),
        ("ws://%C3%BC:ü@localhost/", ("ü", "ü")),
    ],
)
def test_user_info_is_decoded(uri, user_info):
    assert parse_uri(uri).user_info == user_info


MALFORMED = "host or port is malformed; write ws://host:port/path, and IPv6 in brackets"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("", "scheme isn't ws or wss; write ws://host:port/path"),
        ("localhost", "scheme isn't ws or wss; write ws://host:port/path"),
        ("localhost:8765", "scheme isn't ws or wss; write ws://host:port/path"),
        ("//localhost/", "scheme isn't ws or wss; write ws://host:port/path"),
        ("ws:/localhost/", "scheme isn't ws or wss; write ws://host:port/path"),
        ("ftp://localhost/", "scheme isn't ws or wss; write ws://host:port/path"),
        ("http://localhost/", "scheme isn't ws or wss; use ws:// instead"),
        ("HTTPS://localhost/", "scheme isn't ws or wss; use wss:// instead"),
        ("ws://", "hostname isn't provided"),
        ("ws:///path", "hostname isn't provided"),
        ("ws://:8765/", "hostname isn't provided"),
        ("ws://user:secret@/", "hostname isn't provided"),
        ("ws://localhost/#", "fragment identifier is meaningless; a # is written %23"),
        ("ws://localhost/a#b", "fragment identifier is meaningless; a # is written %23"),
        ("ws://localhost#b", "fragment identifier is meaningless; a # is written %23"),
        ("ws://user@localhost/", "username provided without password; write user:password@host"),
        ("ws://@localhost/", "username provided without password; write user:password@host"),
        ("ws://u:p@q@localhost/", "an @ in the user information must be written as %40"),
        ("ws://u%3Av:p@localhost/", "username contains a colon"),
        ("ws://%ff:p@localhost/", "user information isn't UTF-8"),
        ("ws://localhost/a b", "contains a space or a control character; a space is written %20"),
        (" ws://localhost/", "contains a space or a control character; a space is written %20"),
        (
            "ws://localhost/\r\nA: b",
            "contains a space or a control character; a space is written %20",
        ),
        ("ws://local\0host/", "contains a space or a control character; a space is written %20"),
        ("ws://localhost/\x7f", "contains a space or a control character; a space is written %20"),
        ("ws://localhost/\x85", "contains a space or a control character; a space is written %20"),
        ("ws://localhost:0/", "port isn't between 1 and 65535"),
        ("ws://localhost:65536/", "port isn't between 1 and 65535"),
        ("ws://localhost:999999/", "port isn't between 1 and 65535"),
        ("ws://localhost:http/", MALFORMED),
        ("ws://localhost:-1/", MALFORMED),
        ("ws://localhost:٣/", MALFORMED),
        ("ws://::1/", MALFORMED),
        ("ws://[::1/", MALFORMED),
        ("ws://[::1]a/", MALFORMED),
        ("ws://[]/", "address in brackets isn't IPv6"),
        ("ws://[127.0.0.1]/", "address in brackets isn't IPv6"),
        ("ws://[::g]/", "address in brackets isn't IPv6"),
        ("ws://exa%6dple.com/", "hostname contains invalid characters"),
        ("ws://a,b/", "hostname contains invalid characters"),
        ("ws://a\\b/", "hostname contains invalid characters"),
        ("ws://ü／b/", "hostname contains invalid characters"),
        ("ws://ü..b/", "hostname isn't valid in IDNA"),
        ("ws://" + "ü" * 100 + "/", "hostname isn't valid in IDNA"),
        ("ws://" + "a" * 254 + "/", "hostname is longer than 253 characters"),
        ("ws://" + "ü." * 60 + "de/", "hostname is longer than 253 characters in IDNA"),
        ("ws://localhost/\ud800", "contains a lone surrogate"),
        ("ws://\ud800:x@localhost/", "user information isn't UTF-8"),
    ],
)
def test_invalid_uris(uri, message):
    with pytest.raises(InvalidURI) as raised:
        parse_uri(uri)
    assert raised.value.uri == uri
    assert raised.value.msg == message
