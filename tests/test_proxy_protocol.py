"""The PROXY protocol: its parser, and servers whose trusted proxies speak it."""

from __future__ import annotations

import contextlib
import ipaddress
import logging
import socket
import struct

import pytest
from conftest import wait_until
from links import PATIENCE, Held, Link, echo, handshake, masked, read_all

from syncws.proxy_protocol import MAX_BODY, ProxyHeaderParser

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
TRUSTED = {"trusted_proxies": ["127.0.0.1"], "proxy_protocol": True}


def binary(version_and_command, family, body=b""):
    """A header of version 2."""
    return SIGNATURE + struct.pack("!BBH", version_and_command, family, len(body)) + body


def ip_addresses(source, port):
    """The addresses of version 2, both of them alike."""
    packed = ipaddress.ip_address(source).packed
    return packed + packed + struct.pack("!HH", port, port)


def vector(kind, value):
    return struct.pack("!BH", kind, len(value)) + value


def crc32c(data):
    """The checksum bit by bit, which is not how the library does it."""
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 & -(value & 1))
    return value ^ 0xFFFFFFFF


def with_checksum(wrong=0):
    blank = binary(0x21, 0x11, ip_addresses("192.0.2.1", 80) + vector(3, bytes(4)))
    return blank[:-4] + struct.pack("!I", crc32c(blank) ^ wrong)


UNIX_PATHS = b"/tmp/client\n".ljust(108, b"\0") + b"/tmp/server".ljust(108, b"\0")

# Headers, and the client's address that they tell.
HEADERS = {
    "TCP4": (b"PROXY TCP4 192.0.2.1 198.51.100.2 65535 443\r\n", ("192.0.2.1", 65535)),
    "TCP4 shortest": (b"PROXY TCP4 1.1.1.1 2.2.2.2 0 1\r\n", ("1.1.1.1", 0)),
    "TCP6": (b"PROXY TCP6 2001:DB8::1 ::1 5000 443\r\n", ("2001:db8::1", 5000, 0, 0)),
    "TCP6 longest": (
        b"PROXY TCP6 %b %b 65535 65535\r\n" % ((b":".join([b"ffff"] * 8),) * 2),
        (":".join(["ffff"] * 8), 65535, 0, 0),
    ),
    "UNKNOWN": (b"PROXY UNKNOWN\r\n", None),
    "UNKNOWN with more": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2 TCP4": (binary(0x21, 0x11, ip_addresses("192.0.2.1", 5000)), ("192.0.2.1", 5000)),
    "v2 TCP6": (binary(0x21, 0x21, ip_addresses("2001:db8::1", 7)), ("2001:db8::1", 7, 0, 0)),
    "v2 UNIX": (binary(0x21, 0x31, UNIX_PATHS), "/tmp/client\\n"),
    "v2 LOCAL": (binary(0x20, 0x00), None),
    "v2 LOCAL with addresses": (binary(0x20, 0x11, ip_addresses("192.0.2.1", 5000)), None),
    "v2 LOCAL with anything": (binary(0x20, 0xFF, b"anything"), None),
    "v2 UNSPEC": (binary(0x21, 0x00, b"anything"), None),
    "v2 UDP4": (binary(0x21, 0x12, ip_addresses("192.0.2.1", 5000)), None),
    "v2 vectors": (
        binary(0x21, 0x11, ip_addresses("192.0.2.1", 80) + vector(2, b"name") + vector(4, b"")),
        ("192.0.2.1", 80),
    ),
    "v2 checksum": (with_checksum(), ("192.0.2.1", 80)),
    "v2 largest": (
        binary(0x21, 0x11, (ip_addresses("192.0.2.1", 80) + vector(4, bytes(MAX_BODY - 15)))),
        ("192.0.2.1", 80),
    ),
}

MALFORMED = {
    "HTTP": (b"GET / HTTP/1.1\r\n", "expected a PROXY header, not G"),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", r"not \\x16"),
    "lower case": (b"proxy TCP4 ", "expected a PROXY header"),
    "signature, almost": (SIGNATURE[:11] + b"\r", "expected a PROXY header"),
    "no words": (b"PROXY 12345\r\n", "invalid PROXY line"),
    "two spaces": (b"PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n", "invalid PROXY line"),
    "too few": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n", "invalid PROXY line"),
    "too many": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n", "invalid PROXY line"),
    "UNKNOWNS": (b"PROXY UNKNOWNS\r\n", "invalid PROXY line"),
    "other protocol": (b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n", "invalid PROXY line"),
    "no address": (b"PROXY TCP4 192.0.2.999 192.0.2.2 1 2\r\n", "invalid address"),
    "no destination": (b"PROXY TCP4 192.0.2.1 192.0.2 1 2\r\n", "invalid address"),
    "other family": (b"PROXY TCP4 ::1 ::2 1 2\r\n", "another family"),
    "mixed families": (b"PROXY TCP6 ::1 192.0.2.2 1 2\r\n", "another family"),
    "large port": (b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n", "invalid port"),
    "large destination port": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n", "invalid port"),
    "port with zeros": (b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n", "invalid PROXY line"),
    "bare LF": (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n1", "without CRLF"),
    "bare CR": (b"PROXY UNKNOWN\r a\r\n", "invalid PROXY line"),
    "108 bytes": (b"PROXY UNKNOWN".ljust(106) + b"\r\n", "without CRLF in 107 bytes"),
    "no end": (b"PROXY UNKNOWN".ljust(109), "without CRLF"),
    "v2 version 1": (binary(0x11, 0x11), "unknown version or command in PROXY header: 0x11"),
    "v2 command": (binary(0x22, 0x11), "unknown version or command"),
    "v2 family": (binary(0x21, 0x41), "unknown address family in PROXY header: 0x41"),
    "v2 transport": (binary(0x21, 0x13), "unknown address family"),
    "v2 short TCP4": (binary(0x21, 0x11, bytes(11)), "addresses of 11 bytes"),
    "v2 short TCP6": (binary(0x21, 0x21, bytes(35)), "addresses of 35 bytes"),
    "v2 short UNIX": (binary(0x21, 0x31, bytes(215)), "addresses of 215 bytes"),
    "v2 too long": (SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_BODY + 1), "at most 16384"),
    "v2 half a vector": (binary(0x21, 0x11, bytes(12) + b"\4\0"), "incomplete vector"),
    "v2 long vector": (binary(0x21, 0x11, bytes(12) + b"\4\0\2a"), "vector over the end"),
    "v2 checksum": (with_checksum(wrong=1), "wrong checksum"),
    "v2 short checksum": (binary(0x21, 0x11, bytes(12) + vector(3, b"ab")), "wrong checksum"),
}


def parse(data, size=None):
    """Feed a header, at most ``size`` bytes at a time; returns the parser and what it left."""
    parser = ProxyHeaderParser()
    while not parser.complete:
        wanted = parser.wanted if size is None else min(parser.wanted, size)
        assert wanted > 0
        part, data = data[:wanted], data[wanted:]
        assert part, "the parser wants more than there is"
        assert parser.feed(part) is parser.complete
    return parser, data


# --- The parser -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 1, 5])
@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_read_to_its_end_and_no_further(name, size):
    data, source = HEADERS[name]
    parser, left = parse(data + b"\r\nwhat follows", size)
    assert (parser.source, left) == (source, b"\r\nwhat follows")


@pytest.mark.parametrize("size", [None, 1, 7])
@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_is_refused(name, size):
    data, error = MALFORMED[name]
    with pytest.raises(ValueError, match=error):
        parse(data, size)


def test_every_proper_beginning_is_incomplete():
    for data, _ in HEADERS.values():
        for end in range(min(len(data), 300)):
            parser = ProxyHeaderParser()
            for index in range(end):
                assert not parser.feed(data[index : index + 1])


# --- Servers --------------------------------------------------------------------------------------


@contextlib.contextmanager
def through_proxy(link, server, header):
    """A client behind a proxy that has just sent a header, and done TLS where there is some."""
    secure, link.secure = link.secure, False
    try:
        sock = link.socket(server)
    finally:
        link.secure = secure
    with sock:
        sock.sendall(header)
        if not secure:
            yield sock
            return
        with link._client_context.wrap_socket(sock, server_hostname="127.0.0.1") as wrapped:
            yield wrapped


def says_hello(sock):
    sock.sendall(masked(0x81, b"hello"))
    return sock.recv(100) == b"\x81\x05hello"


@pytest.mark.parametrize("name", ["TCP4", "v2 TCP6", "v2 UNIX", "v2 LOCAL", "UNKNOWN"])
def test_a_connection_has_the_address_that_its_proxy_tells(slow_link, name, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    header, source = HEADERS[name]
    held = Held()
    with slow_link.serve(held, **TRUSTED).start() as server:
        with through_proxy(slow_link, server, header) as sock:
            peer = sock.getsockname()
            assert "101" in handshake(sock)
            connection = held.wait()
            assert connection.remote_address == (peer if source is None else source)
            assert connection.peer_address == peer
            del connection
            held.release()
            sock.sendall(masked(0x88, b"\x03\xe8"))
            read_all(sock)
    line = next(m for m in caplog.messages if m.startswith("connection closed: "))
    address = peer if source is None else source
    assert line.startswith(f"connection closed: {address if isinstance(address, str) else ''}")
    if isinstance(address, tuple):
        assert line.startswith((f"connection closed: {address[0]}:", "connection closed: ["))
        assert f":{address[1]} " in line


def test_through_a_unix_socket(tmp_path, server_context, client_context):
    link = Link("unix", server_context, client_context, tmp_path)
    held = Held()
    options = {"trusted_proxies": ["unix"], "proxy_protocol": True}
    with link.serve(held, **options).start() as server, link.socket(server) as sock:
        sock.sendall(HEADERS["TCP4"][0])
        handshake(sock)
        assert held.wait().remote_address == ("192.0.2.1", 65535)
        held.release()


def test_header_and_request_in_one_packet(plain):
    with plain.serve(echo, **TRUSTED).start() as server, plain.socket(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        request = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        request += b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        sock.sendall(HEADERS["TCP4"][0] + request + b"\r\n" + masked(0x81, b"hello"))
        received = b""
        while not received.endswith(b"\x81\x05hello"):
            received += sock.recv(1000)
        assert received.startswith(b"HTTP/1.1 101 ")


def test_a_header_that_trickles_in(plain):
    with plain.serve(echo, **TRUSTED).start() as server, plain.socket(server) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in HEADERS["TCP6"][0]:
            sock.sendall(bytes([byte]))
        handshake(sock)
        assert says_hello(sock)


def test_who_is_not_trusted_sends_no_header(plain):
    options = {**TRUSTED, "trusted_proxies": ["192.0.2.0/24"]}
    held = Held()
    with plain.serve(held, **options).start() as server, plain.connect(server) as client:
        assert held.wait().remote_address == client.local_address
        held.release()


def test_the_header_of_who_is_not_trusted_is_no_request(plain):
    options = {**TRUSTED, "trusted_proxies": ["192.0.2.0/24"]}
    with plain.serve(echo, **options).start() as server, plain.socket(server) as sock:
        sock.sendall(HEADERS["TCP4"][0])
        assert read_all(sock).startswith(b"HTTP/1.1 400 ")


def test_a_malformed_header_ends_the_connection_with_one_line_in_the_log(slow_link, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with slow_link.serve(echo, **TRUSTED).start() as server:
        for _ in range(3):
            with socket.create_connection(server.server_address[:2], PATIENCE) as sock:
                sock.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert read_all(sock) == b""
        server.shutdown()
        assert server.stats()["refused"] == {"proxy": 3}
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert warnings == [
        "connections refused: expected a PROXY header, not GET / HTTP/1; from 127.0.0.1, proxy"
    ]


def test_a_header_that_does_not_come_costs_open_timeout(slow_link, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with slow_link.serve(echo, open_timeout=0.1, **TRUSTED).start() as server:
        with socket.create_connection(server.server_address[:2], PATIENCE) as sock:
            sock.sendall(HEADERS["TCP4"][0][:-1])
            assert read_all(sock) == b""
        server.shutdown()
        assert server.stats()["refused"] == {"network": 1}
    assert "opening handshake failed: timed out while reading the PROXY header" in caplog.messages


def test_a_proxy_that_only_looks_whether_the_port_is_open(plain, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with plain.serve(echo, **TRUSTED).start() as server:
        with socket.create_connection(server.server_address[:2], PATIENCE) as sock:
            sock.sendall(b"PROXY")
        assert wait_until(lambda: server.stats()["refused"] == {"network": 1})
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


def test_a_client_of_two_proxies_is_found_behind_both(plain):
    held = Held()
    options = {"trusted_proxies": ["127.0.0.1", "192.0.2.1"], "proxy_protocol": True}
    with plain.serve(held, **options).start() as server, plain.socket(server) as sock:
        sock.sendall(HEADERS["TCP4"][0])
        handshake(sock, X_Forwarded_For="203.0.113.9")
        assert held.wait().remote_address == ("203.0.113.9", 0)
        held.release()


@pytest.mark.parametrize("name", ["TCP4", "v2 UNIX"])
def test_a_client_of_the_protocol_is_no_proxy_itself(plain, name):
    header, source = HEADERS[name]
    held = Held()
    options = {"trusted_proxies": ["127.0.0.1", "unix"], "proxy_protocol": True}
    with plain.serve(held, **options).start() as server, plain.socket(server) as sock:
        sock.sendall(header)
        handshake(sock, X_Forwarded_For="203.0.113.9")
        assert held.wait().remote_address == source
        held.release()


def test_somebody_must_be_trusted(plain):
    with pytest.raises(ValueError, match="proxy_protocol needs trusted_proxies"):
        plain.serve(echo, proxy_protocol=True)
