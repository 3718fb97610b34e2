"""Header fields and their grammar (RFC 9110 §5, RFC 6455 §9.1)."""

from __future__ import annotations

import time

import pytest

from syncws.exceptions import InvalidHeaderFormat, InvalidHeaderValue
from syncws.headers import (
    Headers,
    MultipleValuesError,
    build_authorization_basic,
    build_extension,
    build_host,
    build_subprotocol,
    build_www_authenticate_basic,
    excerpt,
    parse_authorization_basic,
    parse_connection,
    parse_extension,
    parse_subprotocol,
    parse_upgrade,
    validate_subprotocols,
)

# Headers: reading


def test_names_are_case_insensitive():
    headers = Headers({"Content-Type": "text/plain"})
    assert headers["content-TYPE"] == "text/plain"
    assert "CONTENT-type" in headers


def test_what_was_looked_up_before_a_change_is_not_remembered():
    headers = Headers([("A", "1"), ("B", "2")])
    assert headers["A"] == "1"
    headers["a"] = "3"
    assert headers.get_all("A") == ["1", "3"]
    del headers["a"]
    assert "A" not in headers
    headers.clear()
    assert "B" not in headers


def test_values_that_were_returned_may_be_changed():
    headers = Headers([("A", "1"), ("A", "2")])
    headers.get_all("A").clear()
    assert headers.get_all("A") == ["1", "2"]


def test_headers_are_the_same_after_they_were_compacted():
    headers = Headers([("A", "1"), ("A", "2"), ("B", "3")])
    assert len(headers) == 2
    headers.compact()
    assert (headers.get_all("a"), headers["b"]) == (["1", "2"], "3")


def test_a_missing_header_raises_key_error():
    headers = Headers()
    with pytest.raises(KeyError):
        headers["Host"]
    assert headers.get("Host") is None
    assert "Host" not in headers


def test_only_strings_are_contained():
    assert 1 not in Headers({"1": "one"})


def test_several_values_raise_when_one_is_asked_for():
    headers = Headers([("A", "1"), ("a", "2")])
    with pytest.raises(MultipleValuesError) as raised:
        headers["A"]
    assert str(raised.value) == "'A'"
    with pytest.raises(MultipleValuesError):
        headers.get("A")


def test_get_all_returns_values_in_order():
    headers = Headers([("A", "1"), ("B", "x"), ("a", "2")])
    assert headers.get_all("A") == ["1", "2"]
    assert headers.get_all("C") == []


def test_the_list_of_get_all_is_a_copy():
    headers = Headers(A="1")
    headers.get_all("A").append("2")
    assert headers["A"] == "1"


def test_raw_items_keep_order_and_case():
    pairs = [("B", "1"), ("a", "2"), ("b", "3")]
    assert list(Headers(pairs).raw_items()) == pairs


def test_iteration_and_length_count_names():
    headers = Headers([("A", "1"), ("a", "2"), ("B", "3")])
    assert list(headers) == ["a", "b"]
    assert len(headers) == 2


# Headers: writing


def test_assignment_adds_a_value():
    headers = Headers()
    headers["A"] = "1"
    headers["A"] = "2"
    assert headers.get_all("A") == ["1", "2"]


def test_deletion_removes_all_values():
    headers = Headers([("A", "1"), ("B", "2"), ("a", "3")])
    del headers["A"]
    assert list(headers.raw_items()) == [("B", "2")]
    assert "A" not in headers


def test_deletion_of_a_missing_header_raises_key_error():
    headers = Headers()
    with pytest.raises(KeyError):
        del headers["A"]


def test_clear_removes_everything():
    headers = Headers(A="1")
    headers.clear()
    assert headers == Headers()
    assert list(headers.raw_items()) == []


@pytest.mark.parametrize(
    "source",
    [Headers([("A", "1"), ("B", "2")]), {"A": "1", "B": "2"}, [("A", "1"), ("B", "2")]],
    ids=["headers", "mapping", "pairs"],
)
def test_update_takes_whatever_headers_are_made_from(source):
    headers = Headers({"A": "0"})
    headers.update(source, C="3")
    assert list(headers.raw_items()) == [("A", "0"), ("A", "1"), ("B", "2"), ("C", "3")]


def test_update_keeps_several_values_of_other_headers():
    assert Headers(Headers([("A", "1"), ("A", "2")])).get_all("A") == ["1", "2"]


def test_headers_can_be_added_to_themselves():
    headers = Headers(A="1")
    headers.update(headers)
    assert headers.get_all("A") == ["1", "1"]


def test_setdefault_keeps_a_value_that_is_there():
    headers = Headers(A="1")
    assert headers.setdefault("a", "2") == "1"
    assert headers.get_all("A") == ["1"]


def test_a_copy_is_independent():
    headers = Headers(A="1")
    copy = headers.copy()
    copy["A"] = "2"
    copy["B"] = "3"
    assert list(headers.raw_items()) == [("A", "1")]
    assert headers.get_all("A") == ["1"]
    assert copy.get_all("A") == ["1", "2"]


def test_equality_ignores_case_of_names_and_order_of_headers():
    assert Headers([("A", "1"), ("B", "2")]) == Headers([("b", "2"), ("a", "1")])
    assert Headers([("A", "1"), ("A", "2")]) != Headers([("A", "2"), ("A", "1")])
    assert Headers(A="1") != {"a": "1"}


def test_repr_shows_the_pairs():
    assert repr(Headers(A="1")) == "Headers([('A', '1')])"


# Headers: on the wire


def test_serialize_ends_with_an_empty_line():
    headers = Headers([("A", "1"), ("B", "two words"), ("A", "2")])
    assert headers.serialize() == b"A: 1\r\nB: two words\r\nA: 2\r\n\r\n"
    assert Headers().serialize() == b"\r\n"


def test_values_are_latin_1():
    headers = Headers(A="caf\xe9")
    assert headers.serialize() == b"A: caf\xe9\r\n\r\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a\r\nB: 2", r"a\r\nB: 2"),
        ("a\nB: 2", r"a\nB: 2"),
        ("a\rB: 2", r"a\rB: 2"),
        ("a\0", r"a\x00"),
        ("\x1f", r"\x1f"),
        ("a\x7f", r"a\x7f"),
        ("\u0100", r"\u0100"),
        ("\ud800", r"\ud800"),
    ],
)
def test_a_value_cannot_inject_a_header(value, shown):
    headers = Headers()
    with pytest.raises(InvalidHeaderValue) as raised:
        headers["A"] = value
    assert str(raised.value) == f"invalid A header: {shown}"
    assert headers.serialize() == b"\r\n"


@pytest.mark.parametrize("name", ["", "A B", "A:", "A\r\nB", "A\n", "(A)", "\xe9", "A\0"])
def test_a_name_must_be_a_token(name):
    headers = Headers()
    with pytest.raises(ValueError, match="invalid header name"):
        headers[name] = "1"
    assert headers.serialize() == b"\r\n"


def test_a_value_must_be_a_string():
    headers = Headers()
    with pytest.raises(TypeError, match="value of A header must be a str, not 1"):
        headers["A"] = 1


def test_the_constructor_validates():
    with pytest.raises(InvalidHeaderValue):
        Headers(A="1\n")


# excerpt


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("plain", "plain"),
        (b"plain", "plain"),
        ("\r\n\x00\x1b", r"\r\n\x00\x1b"),
        (b"\xff\xe9", r"\xff\xe9"),
        ("\u2028\ud800", r"\u2028\ud800"),
        ("a" * 100, "a" * 100),
        ("a" * 101, "a" * 100 + "..."),
        (b"a" * 10000, "a" * 100 + "..."),
        ("\0" * 50, r"\x00" * 25 + "..."),
    ],
)
def test_an_excerpt_is_short_and_printable(value, text):
    assert excerpt(value) == text


# build_host


@pytest.mark.parametrize(
    ("host", "port", "secure", "header"),
    [
        ("localhost", 80, False, "localhost"),
        ("localhost", 443, False, "localhost:443"),
        ("localhost", 443, True, "localhost"),
        ("localhost", 80, True, "localhost:80"),
        ("127.0.0.1", 8080, False, "127.0.0.1:8080"),
        ("::1", 80, False, "[::1]"),
        ("::1", 8080, True, "[::1]:8080"),
        ("fe80::1%eth0", 80, False, "[fe80::1]"),
    ],
)
def test_build_host(host, port, secure, header):
    assert build_host(host, port, secure) == header


# Lists


@pytest.mark.parametrize(
    ("header", "options"),
    [
        ("Upgrade", ["Upgrade"]),
        ("keep-alive, Upgrade", ["keep-alive", "Upgrade"]),
        ("keep-alive,Upgrade", ["keep-alive", "Upgrade"]),
        ("a \t , \t b", ["a", "b"]),
        (" a ", ["a"]),
        (",, a ,, b , ,", ["a", "b"]),
        ("", []),
        (" , ,", []),
    ],
)
def test_parse_connection(header, options):
    assert parse_connection(header) == options


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("a b", "expected comma at 2 in a b"),
        ("a;b", "expected comma at 1 in a;b"),
        ("a, ?", "expected token at 3 in a, ?"),
        ("\xe9", r"expected token at 0 in \xe9"),
        ("a\x0b", r"expected comma at 1 in a\x0b"),
    ],
)
def test_parse_connection_refuses_what_is_no_list_of_tokens(header, error):
    with pytest.raises(InvalidHeaderFormat) as raised:
        parse_connection(header)
    assert str(raised.value) == f"invalid Connection header: {error}"


@pytest.mark.parametrize(
    ("header", "protocols"),
    [
        ("websocket", ["websocket"]),
        ("h2c, HTTP/3.0, WebSocket", ["h2c", "HTTP/3.0", "WebSocket"]),
        ("", []),
    ],
)
def test_parse_upgrade(header, protocols):
    assert parse_upgrade(header) == protocols


@pytest.mark.parametrize("header", ["/1", "a/", "a/b/c", "a b", "?"])
def test_parse_upgrade_refuses_what_is_no_list_of_protocols(header):
    with pytest.raises(InvalidHeaderFormat):
        parse_upgrade(header)


@pytest.mark.parametrize(
    ("header", "extensions"),
    [
        # RFC 6455 §9.1
        ("foo", [("foo", [])]),
        ("bar; baz=2", [("bar", [("baz", "2")])]),
        ("foo, bar; baz=2", [("foo", []), ("bar", [("baz", "2")])]),
        ("deflate-stream", [("deflate-stream", [])]),
        (
            "mux; max-channels=4; flow-control, deflate-stream",
            [("mux", [("max-channels", "4"), ("flow-control", None)]), ("deflate-stream", [])],
        ),
        ("private-extension", [("private-extension", [])]),
        # RFC 7692 §7.1
        (
            'permessage-deflate; server_max_window_bits="10"',
            [("permessage-deflate", [("server_max_window_bits", "10")])],
        ),
        (r'a; b="\1\0"', [("a", [("b", "10")])]),
        ("a;b;b=1", [("a", [("b", None), ("b", "1")])]),
        (",, a ; b = 1 ;c, ,d ,", [("a", [("b", "1"), ("c", None)]), ("d", [])]),
    ],
)
def test_parse_extension(header, extensions):
    assert parse_extension(header) == extensions


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("", "expected token at 0 in "),
        (", ,", "expected token at 3 in , ,"),
        (";", "expected token at 0 in ;"),
        ("a;", "expected token at 2 in a;"),
        ("a;;b", "expected token at 2 in a;;b"),
        ("a; b=", "expected token at 5 in a; b="),
        ("a; b=,c", "expected token at 5 in a; b=,c"),
        ("a b", "expected comma at 2 in a b"),
        ("a; b c", "expected comma at 5 in a; b c"),
        ('a; b="1', r'expected quoted string at 5 in a; b="1'),
        ('a; b="1\\', r'expected quoted string at 5 in a; b="1\\'),
        ('a; b="1\x00"', r'expected quoted string at 5 in a; b="1\x00"'),
        ('a; b=""', r'invalid quoted header content at 5 in a; b=""'),
        ('a; b="1 2"', r'invalid quoted header content at 5 in a; b="1 2"'),
        ('a; b="1"2', r'expected comma at 8 in a; b="1"2'),
    ],
)
def test_parse_extension_refuses_what_does_not_match_the_grammar(header, error):
    with pytest.raises(InvalidHeaderFormat) as raised:
        parse_extension(header)
    assert str(raised.value) == f"invalid Sec-WebSocket-Extensions header: {error}"


@pytest.mark.parametrize(
    ("header", "subprotocols"),
    [("chat", ["chat"]), ("chat, superchat", ["chat", "superchat"]), (",a, ,b,", ["a", "b"])],
)
def test_parse_subprotocol(header, subprotocols):
    assert parse_subprotocol(header) == subprotocols


@pytest.mark.parametrize("header", ["", ",", "a/b", "a b", '"a"', "a;b"])
def test_parse_subprotocol_refuses_what_is_no_list_of_tokens(header):
    with pytest.raises(InvalidHeaderFormat):
        parse_subprotocol(header)


@pytest.mark.parametrize(
    "header",
    [
        'a; b="' + "\\" * 65535,
        'a; b="' + "x" * 65536,
        'a; b="' + "\\x" * 32768,
        "," * 65536,
        "a" * 65536 + "?",
        " " * 65536 + "?",
        "a; b" + " " * 65536 + "?",
        "a; b=1" * 10000 + "?",
    ],
    ids=["backslashes", "unclosed", "pairs", "commas", "token", "space", "inner", "params"],
)
def test_parsing_takes_linear_time(header):
    # Quadratic time would be minutes for 64 KiB.
    start = time.process_time()
    with pytest.raises(InvalidHeaderFormat):
        parse_extension(header)
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    "header", ["foo", "foo; a; b=2, bar", "permessage-deflate; client_max_window_bits"]
)
def test_build_extension_is_the_reverse_of_parse_extension(header):
    assert build_extension(parse_extension(header)) == header


@pytest.mark.parametrize(
    "extension",
    [("a b", []), ("a", [("b,", None)]), ("a", [("b", "1, c")]), ("a", [("b", "")])],
)
def test_build_extension_takes_tokens_only(extension):
    with pytest.raises(ValueError, match="must be tokens"):
        build_extension([extension])


def test_build_subprotocol():
    assert build_subprotocol(["a", "b"]) == "a, b"


@pytest.mark.parametrize("subprotocols", [[], ["a"], ("a", "b")])
def test_valid_subprotocols(subprotocols):
    validate_subprotocols(subprotocols)


@pytest.mark.parametrize(
    ("subprotocols", "error", "message"),
    [
        ("chat", TypeError, "subprotocols must be a list, not a str; write ['chat']"),
        ({"chat"}, TypeError, "subprotocols must be a list"),
        (["a b"], ValueError, "invalid subprotocol: a b"),
        ([""], ValueError, "invalid subprotocol: "),
        (["a", "b", "a"], ValueError, "duplicate subprotocol: a, b, a"),
    ],
)
def test_invalid_subprotocols(subprotocols, error, message):
    with pytest.raises(error) as raised:
        validate_subprotocols(subprotocols)
    assert str(raised.value) == message


# HTTP Basic authentication


@pytest.mark.parametrize(
    ("realm", "header"),
    [
        ("", 'Basic realm="", charset="UTF-8"'),
        ("the lab", 'Basic realm="the lab", charset="UTF-8"'),
        (r'a "b" \c', r'Basic realm="a \"b\" \\c", charset="UTF-8"'),
    ],
)
def test_build_www_authenticate_basic(realm, header):
    assert build_www_authenticate_basic(realm) == header


@pytest.mark.parametrize("realm", ["a\r\nB: c", "\u0100"])
def test_a_realm_cannot_inject_a_header(realm):
    with pytest.raises(ValueError, match="invalid characters in realm"):
        build_www_authenticate_basic(realm)


@pytest.mark.parametrize(
    ("header", "credentials"),
    [
        # RFC 7617 §2 and §2.1
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        ("Basic dGVzdDoxMjPCow==", ("test", "123£")),
        ("basic  QWxhZGRpbjpvcGVuIHNlc2FtZQ==", ("Aladdin", "open sesame")),
        ("Basic YTpiOmM=", ("a", "b:c")),
        ("Basic Og==", ("", "")),
        ("Basic YTr/", ("a", "\udcff")),
    ],
)
def test_parse_authorization_basic(header, credentials):
    assert parse_authorization_basic(header) == credentials


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("", "expected scheme and credentials"),
        ("Basic a b", "expected scheme and credentials"),
        ("Basic QWxhZGRpbg==x", "expected scheme and credentials"),
        ("Bearer abc", "unsupported scheme: Bearer"),
        ("Basic", "expected username:password credentials"),
        ("Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ", "expected base64-encoded credentials"),
        ("Basic -_-_", "expected base64-encoded credentials"),
        ("Basic QWxhZGRpbg==", "expected username:password credentials"),
    ],
)
def test_parse_authorization_basic_refuses_without_repeating_credentials(header, error):
    with pytest.raises(InvalidHeaderValue) as raised:
        parse_authorization_basic(header)
    assert str(raised.value) == f"invalid Authorization header: {error}"


@pytest.mark.parametrize("credentials", [("Aladdin", "open sesame"), ("", ":"), ("é", "\udcff")])
def test_build_authorization_basic_is_the_reverse_of_parsing(credentials):
    assert parse_authorization_basic(build_authorization_basic(*credentials)) == credentials


def test_a_username_with_a_colon_cannot_be_sent():
    with pytest.raises(ValueError, match=r"^username must not contain a colon$"):
        build_authorization_basic("a:b", "c")
