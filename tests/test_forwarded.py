"""Clients behind trusted proxies: the headers, whom they are believed, and what follows from it."""

from __future__ import annotations

import contextlib
import logging
import re

import pytest
from conftest import wait_until
from hypothesis import given
from hypothesis import strategies as st
from links import Held, Link, echo, handshake, read_all
from peers import Task
from profiles import examples

from syncws import Headers, InvalidHandshake, InvalidStatus
from syncws.forwarded import Client, TrustedProxies, find_client, parse_forwarded, parse_node

PEER = ("10.0.0.1", 5000)
TRUSTED = TrustedProxies(["10.0.0.0/8", "2001:db8:aaaa::/48"])
LOCAL = {"trusted_proxies": ["127.0.0.1"]}


# --- Who is trusted -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proxies", "address", "expected"),
    [
        (["10.0.0.1"], ("10.0.0.1", 1), True),
        (["10.0.0.1"], ("10.0.0.2", 1), False),
        (["10.0.0.0/8"], ("10.255.0.2", 1), True),
        (["10.0.0.0/8"], ("::ffff:10.255.0.2", 1, 0, 0), True),
        (["10.0.0.0/8"], ("2001:db8::1", 1, 0, 0), False),
        (["fe80::/10"], ("fe80::1%eth0", 1, 0, 2), True),
        (["::1"], ("::1", 1, 0, 0), True),
        (["0.0.0.0/0"], ("unknown", 0), False),
        (["0.0.0.0/0", "::/0"], "", False),
        (["unix"], "", True),
        (["unix"], b"\0abstract", True),
        (["unix"], ("127.0.0.1", 1), False),
        ([], ("127.0.0.1", 1), False),
        (None, "", False),
    ],
)
def test_who_is_trusted(proxies, address, expected):
    assert TrustedProxies(proxies).trusts(address) is expected


@pytest.mark.parametrize(
    ("proxies", "error"),
    [
        ("127.0.0.1", TypeError),
        ([127], TypeError),
        (["localhost"], ValueError),
        (["10.0.0.1/8"], ValueError),
        (["10.0.0.256"], ValueError),
    ],
)
def test_what_is_no_list_of_networks_is_an_error_at_once(plain, proxies, error):
    with pytest.raises(error, match=r"^trusted_proxies "):
        plain.serve(echo, trusted_proxies=proxies)


# --- Forwarded (RFC 7239 §4) ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "elements"),
    [
        ("for=192.0.2.1", [{"for": "192.0.2.1"}]),
        ('For="[2001:db8:cafe::17]:4711"', [{"for": "[2001:db8:cafe::17]:4711"}]),
        (
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"}],
        ),
        ("for=192.0.2.43, for=198.51.100.17", [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
        ("for=a ,\t,, for=b,", [{"for": "a"}, {"for": "b"}]),
        (", for=a", [{"for": "a"}]),
        (";for=a;;proto=b;", [{"for": "a", "proto": "b"}]),
        (";, for=a", [{"for": "a"}]),
        (r'for="a\"b\\c, d";x=""', [{"for": r'a"b\c, d', "x": ""}]),
        ("", []),
    ],
)
def test_forwarded_is_parsed(header, elements):
    assert parse_forwarded(header) == elements


@pytest.mark.parametrize(
    ("header", "error"),
    [
        ("for", "expected parameter at 0"),
        ("for=", "expected parameter at 0"),
        ("for =a", "expected parameter at 0"),
        ("for=a; proto=b", "expected parameter at 6"),
        ("for=a ;proto=b", "expected parameter at 5"),
        ("for=a proto=b", "expected parameter at 5"),
        ("for=[::1]", "expected parameter at 0"),
        ('for="a', "expected parameter at 0"),
        ('for="a, for=b', "expected parameter at 0"),
        ('for="a"b', "expected parameter at 7"),
        ('for="a\x01"', "expected parameter at 0"),
        ("for=a;FOR=b", "duplicate parameter at 6"),
    ],
)
def test_malformed_forwarded_is_an_error(header, error):
    with pytest.raises(InvalidHandshake, match=f"^invalid Forwarded header: {error} in "):
        parse_forwarded(header)


@pytest.mark.parametrize(
    ("node", "address"),
    [
        ("192.0.2.1", ("192.0.2.1", 0)),
        ("192.0.2.1:65535", ("192.0.2.1", 65535)),
        ("[2001:DB8::1]", ("2001:db8::1", 0, 0, 0)),
        ("[2001:db8::1]:80", ("2001:db8::1", 80, 0, 0)),
        ("[::ffff:192.0.2.1]:80", ("192.0.2.1", 80)),
        ("unknown", ("unknown", 0)),
        ("Unknown:80", ("unknown", 80)),
        ("_gazonk", ("_gazonk", 0)),
        ("_SEVKISEK:_p.1-2", ("_SEVKISEK", 0)),
        ("192.0.2.1:_hidden", ("192.0.2.1", 0)),
    ],
)
@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For"])
def test_a_node_is_parsed(node, address, header):
    assert parse_node(node, header) == address


@pytest.mark.parametrize("node", ["2001:db8::1", "::1", "::ffff:192.0.2.1"])
def test_only_x_forwarded_for_has_ipv6_without_brackets(node):
    assert parse_node(node, "X-Forwarded-For")[0] in (node, "192.0.2.1")
    with pytest.raises(InvalidHandshake, match=r"^invalid Forwarded header: "):
        parse_node(node)


@pytest.mark.parametrize(
    "node",
    [
        *("", "a", "192.0.2", "192.0.2.256", "192.0.2.1:", "192.0.2.1:65536", "192.0.2.1:123456"),
        *("192.0.2.1:a", "[192.0.2.1]", "[::1", "::1]", "[::1]80", "[:]", "[fe80::1%eth0]"),
        *("_", "_a b", "unknown2", "192.0.2.1 ", "a:b:c", "[[::1]]", "²"),
    ],
)
@pytest.mark.parametrize("header", ["Forwarded", "X-Forwarded-For"])
def test_a_malformed_node_is_an_error(node, header):
    with pytest.raises(InvalidHandshake, match=f"^(invalid|empty) {header} header"):
        parse_node(node, header)


# --- The walk -------------------------------------------------------------------------------------


def find(*headers, peer=PEER):
    return find_client(Headers(headers), peer, TRUSTED)


@pytest.mark.parametrize(
    ("value", "host"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9", "203.0.113.9"),
        ("203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("198.51.100.1, 203.0.113.9,10.9.9.9 , 2001:db8:aaaa::5", "203.0.113.9"),
        ("10.1.1.1, 10.9.9.9", "10.1.1.1"),
        ("nonsense, 203.0.113.9", "203.0.113.9"),
        ("10.0.0.7, unknown, 10.9.9.9", "unknown"),
        (", ,203.0.113.9,", "203.0.113.9"),
        ("", "10.0.0.1"),
    ],
)
def test_x_forwarded_for_is_read_from_its_end_past_trusted_proxies(value, host):
    assert find(("X-Forwarded-For", value)).address[0] == host


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("for=203.0.113.9", Client(("203.0.113.9", 0))),
        ('for=1.1.1.1, for="203.0.113.9:7"', Client(("203.0.113.9", 7))),
        ('for="203.0.113.9:7", for=10.9.9.9', Client(("203.0.113.9", 7))),
        ("for=nonsense, for=203.0.113.9", Client(("203.0.113.9", 0))),
        ("for=_x, for=10.9.9.9", Client(("_x", 0))),
        ("proto=https;host=a.example", Client(PEER, "a.example", "wss")),
        (
            'for=203.0.113.9;host="a.example:8443";proto=HTTPS, for=10.9.9.9;proto=http;host=b',
            Client(("203.0.113.9", 0), "a.example:8443", "wss"),
        ),
        ("for=203.0.113.9, for=10.9.9.9;proto=ws", Client(("203.0.113.9", 0), None, "ws")),
        ("for=1.1.1.1;host=evil, for=203.0.113.9", Client(("203.0.113.9", 0))),
        ("for=1.1.1.1;host=evil, proto=https", Client(PEER, None, "wss")),
    ],
)
def test_forwarded_is_read_from_its_end_past_trusted_proxies(value, client):
    assert find(("Forwarded", value)) == client


@pytest.mark.parametrize(
    ("headers", "client"),
    [
        ({"Proto": "https", "Host": "a.example"}, Client(PEER, "a.example", "wss")),
        (
            {"For": "1.1.1.1, 203.0.113.9", "Proto": "http, https", "Host": "evil, a.example"},
            Client(("203.0.113.9", 0), "a.example", "wss"),
        ),
        (
            {"For": "203.0.113.9, 10.9.9.9", "Proto": "https, http", "Host": "a.example, inner"},
            Client(("203.0.113.9", 0), "a.example", "wss"),
        ),
        (
            {"For": "203.0.113.9, 10.9.9.9", "Proto": "wss", "Host": "[2001:db8::1]:80"},
            Client(("203.0.113.9", 0), "[2001:db8::1]:80", "wss"),
        ),
    ],
)
def test_protocol_and_host_are_those_of_the_proxy_nearest_to_the_client(headers, client):
    assert find(*((f"X-Forwarded-{name}", value) for name, value in headers.items())) == client


def test_headers_on_several_lines_are_one():
    lines = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-For", "10.9.9.9")]
    assert find(*lines).address == ("203.0.113.9", 0)
    lines = [("Forwarded", "for=203.0.113.9"), ("Forwarded", "for=10.9.9.9")]
    assert find(*lines).address == ("203.0.113.9", 0)


PARTS = [
    "for=",
    "host=",
    "proto=",
    "https",
    '"',
    "\\",
    ";",
    ",",
    " ",
    "[::1]",
    "10.0.0.1",
    "_a",
    "\xff",
]


@examples(200)
@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_nothing_that_a_client_writes_changes_what_its_proxy_appends(start):
    own = Client(("203.0.113.9", 0), "a.example", "wss")
    with contextlib.suppress(InvalidHandshake):
        assert find(("Forwarded", f"{start}, for=203.0.113.9;host=a.example;proto=https")) == own
    names = ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
    values = ("203.0.113.9", "a.example", "https")
    assert find(*((name, f"{start}, {value}") for name, value in zip(names, values))) == own


def test_headers_of_who_is_not_trusted_are_ignored():
    peer = ("192.0.2.1", 5000)
    headers = [("Forwarded", '"'), ("X-Forwarded-For", "a"), ("X-Forwarded-Host", "b")]
    assert find(*headers, peer=peer) == Client(peer)


def test_both_kinds_may_say_the_same():
    one = ("Forwarded", 'for="203.0.113.9:7";proto=https;host=A.example')
    other = [("X-Forwarded-For", "203.0.113.9"), ("X-Forwarded-Host", "a.example")]
    client = Client(("203.0.113.9", 7), "A.example", "wss")
    assert find(one, *other, ("X-Forwarded-Proto", "wss")) == client
    other[0] = ("X-Forwarded-For", "203.0.113.9:8")
    assert find(("Forwarded", "for=203.0.113.9"), *other).address == ("203.0.113.9", 8)


@pytest.mark.parametrize(
    ("headers", "error"),
    [
        ({"X-Forwarded-For": "203.0.113.9, a"}, "invalid X-Forwarded-For header: a"),
        ({"X-Forwarded-For": "a b"}, "invalid X-Forwarded-For header: a b"),
        ({"X-Forwarded-Host": "a/b"}, "invalid X-Forwarded-Host header: a/b"),
        ({"X-Forwarded-Proto": "ftp"}, "invalid X-Forwarded-Proto header: ftp"),
        ({"Forwarded": "for=a"}, "invalid Forwarded header: a"),
        ({"Forwarded": 'host=""'}, "empty Forwarded header"),
        ({"Forwarded": "proto=x"}, "invalid Forwarded header: x"),
        ({"Forwarded": 'for="1.1.1.1, for=203.0.113.9'}, "expected parameter at 0"),
        (
            {"Forwarded": "for=1.1.1.1", "X-Forwarded-For": "203.0.113.9"},
            "invalid Forwarded header: it says for 1.1.1.1, X-Forwarded-. says for 203.0.113.9",
        ),
        ({"Forwarded": "host=a", "X-Forwarded-Host": "b"}, "it says host a, .* says host b"),
        ({"Forwarded": "proto=http", "X-Forwarded-Proto": "https"}, "it says proto ws, "),
    ],
)
def test_what_a_trusted_proxy_says_must_be_well_formed_and_agree(headers, error):
    with pytest.raises(InvalidHandshake, match=error):
        find(*headers.items())


# --- Servers --------------------------------------------------------------------------------------


def test_a_connection_has_the_address_of_the_client(slow_link, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    fields = {"X-Forwarded-For": "203.0.113.9:4711", "X-Forwarded-Proto": "https"}
    with slow_link.pair(client={"additional_headers": fields}, **LOCAL) as (client, connection):
        assert connection.remote_address == ("203.0.113.9", 4711)
        assert connection.peer_address == client.local_address
        assert connection.scheme == "wss"
        client.close()
        del connection
    lines = [m for m in caplog.messages if m.startswith("connection closed: 203.0.113.9:4711 ")]
    assert len(lines) == 1


def test_a_connection_through_a_unix_socket_has_the_address_of_the_client(
    server_context, client_context, tmp_path
):
    link = Link("unix", server_context, client_context, tmp_path)
    fields = {"Forwarded": 'for="[2001:db8::1]:80";host=a.example'}
    options = {"trusted_proxies": ["unix"], "client": {"additional_headers": fields}}
    with link.pair(**options) as (_, connection):
        assert connection.remote_address == ("2001:db8::1", 80, 0, 0)
        assert not connection.peer_address
        assert connection.host == "a.example"
        del connection


@pytest.mark.parametrize("options", [{}, {"trusted_proxies": ["192.0.2.0/24"]}])
def test_without_trust_a_client_says_what_it_likes(plain, options):
    fields = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Host": "b", "Forwarded": "proto=wss"}
    with plain.pair(client={"additional_headers": fields}, **options) as (client, connection):
        assert connection.remote_address == connection.peer_address == client.local_address
        assert connection.host == client.request.headers["Host"]
        assert connection.scheme == "ws"
        del connection


def test_a_connection_without_a_request_has_no_host(plain):
    seen = []

    def look(connection, request):
        seen.append(connection.host)

    with plain.serve(echo, process_request=look).start() as server, plain.socket(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")
    assert seen == [None]


def test_a_malformed_header_of_a_trusted_proxy_is_answered_with_400(plain, caplog):
    with plain.serve(echo, **LOCAL).start() as server:
        for _ in range(3):
            with plain.socket(server) as sock:
                assert "400" in handshake(sock, X_Forwarded_For="nonsense")
                assert b"invalid X-Forwarded-For header: nonsense." in read_all(sock)
        assert wait_until(lambda: server.stats()["refused"] == {"proxy": 3})
    assert caplog.messages == [
        "connections refused: invalid X-Forwarded-For header: nonsense; from 127.0.0.1, proxy"
    ]


def test_hooks_see_the_address_of_the_client(plain):
    def refuse(connection, request):
        return connection.respond(403, f"{connection.remote_address[0]} may not enter\n")

    with plain.serve(echo, process_request=refuse, **LOCAL).start() as server:
        with plain.socket(server) as sock:
            handshake(sock, X_Forwarded_For="203.0.113.9")
            assert read_all(sock) == b"203.0.113.9 may not enter\n"


# The same host, as a proxy that changes Host tells it


def answer_to(link, server, **headers):
    with link.socket(server) as sock:
        return int(re.match(r"HTTP/1.1 (\d+) ", handshake(sock, **headers))[1])


def test_pages_of_the_host_that_a_trusted_proxy_stands_for_may_connect(plain):
    with plain.serve(echo, **LOCAL).start() as server:
        page = {"Host": "backend:8765", "Origin": "https://www.example"}
        assert answer_to(plain, server, X_Forwarded_Host="www.example", **page) == 101
        assert answer_to(plain, server, Forwarded="host=WWW.example;proto=https", **page) == 101
        assert answer_to(plain, server, **page) == 403
        assert answer_to(plain, server, X_Forwarded_Host="www2.example", **page) == 403
        page["Origin"] = "http://backend:8765"
        assert answer_to(plain, server, X_Forwarded_Host="www.example", **page) == 403


def test_the_request_stays_as_it_was(plain):
    fields = {"X-Forwarded-Host": "www.example"}
    with plain.pair(client={"additional_headers": fields}, **LOCAL) as (client, connection):
        assert connection.request.headers["Host"] == client.request.headers["Host"]
        assert connection.host == "www.example"
        del connection


def test_others_have_no_say_which_pages_may_connect(plain):
    with plain.serve(echo).start() as server:
        page = {"Host": "backend:8765", "Origin": "https://www.example"}
        assert answer_to(plain, server, X_Forwarded_Host="www.example", **page) == 403


# max_connections_per_ip


@contextlib.contextmanager
def client_from(link, server, address):
    fields = {"X-Forwarded-For": address}
    with link.connect(server, additional_headers=fields) as client:
        yield client


def test_clients_of_a_proxy_count_by_their_own_address(plain, caplog):
    options = {**LOCAL, "max_connections_per_ip": 2, "health": "/healthz"}
    with plain.serve(echo, **options).start() as server, contextlib.ExitStack() as stack:
        for address in ("203.0.113.9", "203.0.113.9", "203.0.113.10", "2001:db8::1", "_hidden"):
            stack.enter_context(client_from(plain, server, address))
        with pytest.raises(InvalidStatus) as raised:
            stack.enter_context(client_from(plain, server, "203.0.113.9:5"))
        response = raised.value.response
        assert (response.status_code, response.headers["Retry-After"]) == (503, "5")
        assert response.body == b"Too many connections from your address.\n"
        assert wait_until(lambda: server.stats()["refused"] == {"max_connections_per_ip": 1})
        with plain.socket(server) as sock:
            assert "200 OK" in handshake(sock, "/healthz", X_Forwarded_For="203.0.113.9")
    assert caplog.messages == [
        "connections refused: there are 2 from 203.0.113.9, max_connections_per_ip"
    ]


def test_a_client_of_a_proxy_that_has_gone_makes_room(plain):
    options = {**LOCAL, "max_connections_per_ip": 1}
    with plain.serve(echo, **options).start() as server:
        for _ in range(3):
            with client_from(plain, server, "203.0.113.9") as client:
                client.send("hello")
                assert client.recv() == "hello"
            assert wait_until(lambda: server.stats()["total"] == 0)


def test_clients_that_come_at_once_do_not_exceed_their_limit(plain):
    held = Held()
    options = {**LOCAL, "max_connections_per_ip": 3}

    def attempt(server):
        with plain.socket(server) as sock:
            head = handshake(sock, X_Forwarded_For="203.0.113.9")
            if "101" in head:
                assert sock.recv(100).startswith(b"\x88")
            return int(head.split()[1])

    with plain.serve(held, **options).start() as server:
        tasks = [Task(attempt, server) for _ in range(10)]
        assert wait_until(lambda: sum(server.stats()["refused"].values()) == 7)
        held.release()
        assert sorted(task.result() for task in tasks) == [101] * 3 + [503] * 7
