"""Redirects: where they lead, and what does not follow them."""

from __future__ import annotations

import logging
import socket
import threading

import pytest
from links import PATIENCE, echo

from syncws import (
    Headers,
    InvalidHeaderValue,
    InvalidStatus,
    Response,
    SecurityError,
    connect,
    serve,
    unix_connect,
    unix_serve,
)
from syncws.redirects import redirect, without_credentials
from syncws.uri import parse_uri

URI = "ws://user:secret@a.example:8080/chat/room?x=1"


def resolved(location, uri=URI, status=302):
    return redirect(parse_uri(uri), Response(status, "Found", Headers({"Location": location})))


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("/new", "ws://user:secret@a.example:8080/new"),
        ("other?y=2", "ws://user:secret@a.example:8080/chat/other?y=2"),
        ("../top", "ws://user:secret@a.example:8080/top"),
        ("?y=2", "ws://user:secret@a.example:8080/chat/room?y=2"),
        ("//b.example/c", "ws://b.example/c"),
        ("ws://b.example/c", "ws://b.example/c"),
        ("http://b.example/c", "ws://b.example/c"),
        ("HTTPS://b.example/c", "wss://b.example/c"),
        ("wss://a.example:8080/", "wss://a.example:8080/"),
        ("ws://other:pass@a.example:8080/", "ws://other:pass@a.example:8080/"),
        ("/with#fragment", "ws://user:secret@a.example:8080/with"),
        ("/\xc3\xbc", "ws://user:secret@a.example:8080/%C3%BC"),
    ],
)
def test_a_location_is_resolved(location, target):
    assert resolved(location) == parse_uri(target)


def test_an_ipv6_address_is_a_base():
    assert resolved("/b", "ws://[::1]:80/a") == parse_uri("ws://[::1]/b")


@pytest.mark.parametrize("location", ["ftp://a.example/", "mailto:a", "ws://:80/", "\xff", "ws://"])
def test_a_location_that_leads_nowhere_raises(location):
    with pytest.raises(InvalidHeaderValue, match="invalid Location header"):
        resolved(location)


def test_two_locations_raise():
    headers = Headers([("Location", "/a"), ("Location", "/b")])
    with pytest.raises(InvalidHeaderValue, match="invalid Location header: /a, /b"):
        redirect(parse_uri(URI), Response(302, "Found", headers))


@pytest.mark.parametrize("location", ["ws://a.example/", "http://a.example/"])
def test_tls_is_never_left(location):
    with pytest.raises(SecurityError, match=r"from wss:// to ws://a.example"):
        resolved(location, "wss://a.example/")


@pytest.mark.parametrize("status", [200, 300, 304, 305, 404])
def test_other_statuses_are_no_redirects(status):
    assert resolved("/new", status=status) is None


def test_without_a_location_there_is_no_redirect():
    assert redirect(parse_uri(URI), Response(302, "Found", Headers())) is None


def test_credentials_are_taken_out_of_headers():
    headers = Headers(
        [("Authorization", "a"), ("COOKIE", "b"), ("Proxy-Authorization", "c"), ("Host", "d")]
    )
    headers["X-Other"] = "e"
    assert list(without_credentials(headers).raw_items()) == [("X-Other", "e")]
    assert len(headers) == 5


# With servers


class Redirecting:
    """A server that redirects by path; remembers the requests it got."""

    def __init__(self, targets, status=302, **options):
        self.targets = targets
        self.status = status
        self.requests = []
        self.server = serve(echo, "127.0.0.1", 0, process_request=self._redirect, **options)

    def _redirect(self, connection, request):
        self.requests.append(request)
        target = self.targets.get(request.path)
        if target is None:
            return None
        response = connection.respond(self.status, "moved\n")
        response.headers["Location"] = target
        return response

    def uri(self, path="/", scheme="ws", user_info=""):
        return f"{scheme}://{user_info}127.0.0.1:{self.server.server_address[1]}{path}"


@pytest.fixture
def two_servers():
    """A server that redirects from /away to another one, which gets the requests then."""
    away = Redirecting({})
    with away.server.start():
        first = Redirecting({"/away": away.uri("/there"), "/here": "there"})
        with first.server.start():
            yield first, away


def says(connection, message="hello"):
    connection.send(message)
    return connection.recv(PATIENCE) == message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(status, caplog):
    first = Redirecting({"/a": "/b?c"}, status)
    caplog.set_level(logging.INFO, "syncws.client")
    with first.server.start(), connect(first.uri("/a")) as connection:
        assert says(connection)
        assert connection.request.path == "/b?c"
    port = first.server.server_address[1]
    records = [record for record in caplog.records if record.name == "syncws.client"]
    assert records[0].getMessage() == f"127.0.0.1 redirects to 127.0.0.1:{port}"


SECRETS = {"Authorization": "Bearer secret", "Cookie": "secret=1", "X-Other": "yes"}


def test_credentials_follow_within_an_origin(two_servers):
    first, _ = two_servers
    with connect(first.uri("/here"), additional_headers=SECRETS):
        pass
    headers = first.requests[-1].headers
    assert first.requests[-1].path == "/there"
    assert (headers["Authorization"], headers["Cookie"]) == ("Bearer secret", "secret=1")


def test_credentials_do_not_follow_to_another_origin(two_servers):
    first, away = two_servers
    with connect(first.uri("/away"), additional_headers=SECRETS) as connection:
        assert says(connection)
    (request,) = away.requests
    assert request.headers["X-Other"] == "yes"
    assert "Authorization" not in request.headers
    assert "Cookie" not in request.headers


def test_credentials_of_the_uri_follow_within_an_origin_only(two_servers):
    first, away = two_servers
    for path in ("/here", "/away"):
        with connect(first.uri(path, user_info="user:secret@")):
            pass
    assert [("Authorization" in request.headers) for request in first.requests] == [True] * 3
    assert "Authorization" not in away.requests[0].headers


def test_credentials_do_not_come_back(two_servers):
    first, away = two_servers
    away.targets["/there"] = first.uri("/back")
    with connect(first.uri("/away"), additional_headers=SECRETS):
        pass
    assert "Authorization" not in first.requests[-1].headers


def test_a_host_header_is_not_for_another_host(two_servers):
    first, away = two_servers
    with connect(first.uri("/away"), additional_headers={"Host": "a.example"}):
        pass
    assert first.requests[0].headers["Host"] == "a.example"
    assert away.requests[0].headers["Host"] == away.uri()[len("ws://") : -1]


def test_a_loop_ends():
    first = Redirecting({"/a": "/b", "/b": "/a"})
    with first.server.start():
        with pytest.raises(SecurityError, match="more than 10 redirects"):
            connect(first.uri("/a"))
    assert len(first.requests) == 11


def test_the_number_of_redirects_can_be_chosen():
    first = Redirecting({"/a": "/b", "/b": "/c"})
    with first.server.start():
        with pytest.raises(SecurityError, match="more than 1 redirects"):
            connect(first.uri("/a"), max_redirects=1)
        with connect(first.uri("/a"), max_redirects=2) as connection:
            assert connection.request.path == "/c"


def test_redirects_need_not_be_followed():
    first = Redirecting({"/a": "/b"})
    with first.server.start(), pytest.raises(InvalidStatus, match="HTTP 302: moved"):
        connect(first.uri("/a"), max_redirects=0)
    assert len(first.requests) == 1


def test_the_number_of_redirects_is_not_negative():
    with pytest.raises(ValueError, match="max_redirects must be at least 0, not -1"):
        connect("ws://localhost/", max_redirects=-1)


def test_tls_is_not_left_for_a_plain_server(tls, client_context):
    plain = Redirecting({})
    with plain.server.start():
        first = Redirecting({"/": plain.uri("/")}, ssl=tls._server_context)
        with first.server.start(), pytest.raises(SecurityError, match="from wss:// to ws://"):
            connect(first.uri("/", "wss"), ssl=client_context)
    assert plain.requests == []


def test_a_plain_server_may_redirect_to_tls(tls, authority, monkeypatch, tmp_path):
    authority.cert_pem.write_to_path(tmp_path / "root.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "root.pem"))
    with tls.serve(echo).start() as server:
        first = Redirecting({"/": tls.uri(server, "/there")})
        with first.server.start(), connect(first.uri("/")) as connection:
            assert says(connection)
            assert connection.peer_certificate is not None


def test_a_name_to_check_is_not_for_another_host(tls, client_context):
    with tls.serve(echo).start() as server:
        first = Redirecting({"/": tls.uri(server)}, ssl=tls._server_context)
        options = {"ssl": client_context, "server_hostname": "localhost"}
        with first.server.start(), connect(first.uri("/", "wss"), **options) as connection:
            assert says(connection)


@pytest.mark.parametrize("path", ["/here", "/away"])
def test_a_socket_of_the_user_is_not_redirected(two_servers, path):
    first, away = two_servers
    sock = socket.create_connection(first.server.server_address)
    with pytest.raises(ValueError, match=r"cannot follow a redirect to .* with a socket of your"):
        connect(first.uri(path), sock=sock)
    assert sock.fileno() == -1
    assert away.requests == []


def test_an_explicit_address_is_not_redirected_to_another_host(two_servers):
    first, away = two_servers
    address = first.server.server_address[:2]
    with connect("ws://a.example/here", address=address) as connection:
        assert connection.request.path == "/there"
    with pytest.raises(ValueError, match="with a Unix socket or an explicit address"):
        connect("ws://a.example/away", address=address)
    assert away.requests == []


def test_a_unix_socket_is_not_redirected_to_another_host(tmp_path):
    def moved(connection, request):
        response = connection.respond(302, "moved\n")
        response.headers["Location"] = "ws://b.example/"
        return response

    with unix_serve(echo, tmp_path / "socket", process_request=moved).start():
        with pytest.raises(ValueError, match=r"redirect to b.example with a Unix socket"):
            unix_connect(tmp_path / "socket")


def test_redirects_are_under_one_timeout():
    done = threading.Event()

    def slow(connection, request):
        if request.path == "/a":
            response = connection.respond(302, "moved\n")
            response.headers["Location"] = "/b"
            return response
        done.wait(PATIENCE)
        return None

    with serve(echo, "127.0.0.1", 0, process_request=slow).start() as server:
        with pytest.raises(TimeoutError, match="timed out during the opening handshake"):
            connect(f"ws://127.0.0.1:{server.server_address[1]}/a", open_timeout=0.2)
        done.set()
