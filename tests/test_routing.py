"""Handlers by path: a dictionary of them, and URL maps of Werkzeug."""

from __future__ import annotations

import http.client
import subprocess
import sys

import pytest
from links import Link, echo, handshake, read_all
from werkzeug.routing import Map, Rule, Subdomain

from syncws import unix_connect
from syncws.routing import Router, route, unix_route


def tell(name):
    """A handler that tells its name, what it was called with, and the path."""

    def handler(connection, **arguments):
        connection.send(f"{name} {arguments} {connection.request.path}")

    return handler


def told(link, server, path, **options):
    with link.connect(server, path, **options) as client:
        return client.recv()


def refused(link, server, path, **headers):
    """Status, headers and body of the answer to an opening handshake that is refused."""
    with link.socket(server) as sock:
        head = handshake(sock, path, **headers)
        status_line, *lines = head[:-4].split("\r\n")
        fields = dict(line.split(": ", 1) for line in lines)
        return int(status_line.split()[1]), fields, read_all(sock).decode()


# --- A dictionary ---------------------------------------------------------------------------------


def test_the_path_chooses_the_handler(link):
    with link.serve({"/chat": tell("chat"), "/feed": tell("feed")}).start() as server:
        assert told(link, server, "/chat") == "chat {} /chat"
        assert told(link, server, "/feed?since=5") == "feed {} /feed?since=5"


@pytest.mark.parametrize(
    ("path", "request_path"),
    [
        ("/café", "/caf%C3%A9"),
        ("/caf%c3%a9", "/caf%C3%A9"),
        ("/a b", "/a%20b"),
        ("/ab", "/%61b"),
        ("/", "/?x"),
        ("//a", "//a"),
    ],
)
def test_paths_are_compared_without_percent_encoding(plain, path, request_path):
    with plain.serve({path: tell("it")}).start() as server:
        assert told(plain, server, request_path) == f"it {{}} {request_path}"


@pytest.mark.parametrize("path", ["/", "/chat/", "/Chat", "/chat/room", "/%2Fchat", "/%FF"])
def test_other_paths_are_answered_with_404_in_the_opening_handshake(plain, caplog, path):
    caplog.set_level("INFO", "syncws.server")
    with plain.serve({"/chat": echo, "/feed": echo}).start() as server:
        status, fields, body = refused(plain, server, f"{path}?secret")
        assert server.stats()["opened"] == 0
    assert (status, body) == (404, f"There is no WebSocket at {path} on this server.\n")
    assert fields["Connection"] == "close"
    assert f"no handler for the path {path}; there are /chat, /feed" in caplog.messages
    assert not any("secret" in message for message in caplog.messages)


def get(server, path):
    connection = http.client.HTTPConnection(*server.server_address, timeout=10)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def test_plain_requests_are_answered_by_path_too(plain):
    def answer(connection, request):
        return connection.respond(200, "page\n") if request.path == "/page" else None

    options = {"health": "/healthz", "process_request": answer}
    with plain.serve({"/chat": echo}, **options).start() as server:
        found = [get(server, path) for path in ("/healthz", "/page", "/chat", "/elsewhere")]
    assert found == [200, 200, 426, 404]


def test_the_handler_of_a_connection_is_known_to_it(plain):
    seen = []

    def chat(connection):
        seen.append(connection.handler)

    with plain.serve({"/chat": chat}).start() as server:
        with plain.connect(server, "/chat") as client:
            list(client)
    assert seen == [chat]


def test_a_dictionary_that_is_changed_changes_nothing(plain):
    paths = {"/chat": tell("chat")}
    with plain.serve(paths).start() as server:
        paths.clear()
        assert told(plain, server, "/chat") == "chat {} /chat"


@pytest.mark.parametrize(
    ("paths", "error", "text"),
    [
        ({}, ValueError, "at least one path"),
        ({"chat": echo}, ValueError, "must start with a slash: 'chat'"),
        ({"/chat?x": echo}, ValueError, "neither a query nor a fragment: '/chat"),
        ({"/chat#x": echo}, ValueError, "neither a query nor a fragment"),
        ({"/chat": None}, TypeError, "expected a path and a function, not '/chat': None"),
        ({1: echo}, TypeError, "expected a path and a function"),
    ],
)
def test_what_is_no_dictionary_of_paths_is_an_error_at_once(plain, paths, error, text):
    with pytest.raises(error, match=text):
        plain.serve(paths)


# --- URL maps -------------------------------------------------------------------------------------


def by_map(rules, *args, **options):
    url_map = rules if isinstance(rules, Map) else Map(rules)
    return route(url_map, "127.0.0.1", 0, *args, **options)


RULES = [
    Rule("/", endpoint=tell("root")),
    Rule("/channel/<int:number>", endpoint=tell("channel")),
    Rule("/user/<name>", endpoint=tell("user")),
    Rule("/files/<path:path>/", endpoint=tell("files")),
    Rule("/default", endpoint=tell("default"), defaults={"page": 1}),
    Rule("/gone", redirect_to="/channel/1", endpoint=None),
    Rule("/moved/<int:number>", redirect_to="/channel/<number>"),
    Rule("/post", endpoint=tell("post"), methods=["POST"]),
]


@pytest.fixture
def server():
    with by_map([rule.empty() for rule in RULES], health="/healthz").start() as server:
        yield server


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/", "root {} /"),
        ("/channel/42", "channel {'number': 42} /channel/42"),
        ("/channel/42?x=1", "channel {'number': 42} /channel/42?x=1"),
        ("/user/caf%C3%A9%20au", "user {'name': 'café au'} /user/caf%C3%A9%20au"),
        ("/files/a/b/", "files {'path': 'a/b'} /files/a/b/"),
        ("/default", "default {'page': 1} /default"),
    ],
)
def test_a_rule_chooses_handler_and_arguments(plain, server, path, text):
    assert told(plain, server, path) == text


@pytest.mark.parametrize("path", ["/channel/x", "/channel", "/elsewhere?x", "/channel/42/", "/%FF"])
def test_what_matches_no_rule_is_answered_with_404(plain, server, path):
    status, _, body = refused(plain, server, path)
    assert (status, body) == (404, "There is no WebSocket at this path.\n")


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("/gone", "/channel/1"),
        ("/moved/7", "/channel/7"),
        ("/files/a", "/files/a/"),
        ("/files/a?x=%20y", "/files/a/?x=%20y"),
        ("//files/a", "/files/a/"),
    ],
)
def test_redirects_of_the_map_are_answered_with_308(plain, server, path, location):
    status, fields, body = refused(plain, server, path, Host="a.example:81")
    assert (status, fields["Location"]) == (308, f"ws://a.example:81{location}")
    assert body == f"It is at ws://a.example:81{location}\n"


def test_a_rule_that_is_not_for_get_is_answered_with_405(plain, server):
    status, fields, body = refused(plain, server, "/post")
    assert (status, fields["Allow"], body) == (405, "POST", "Method Not Allowed.\n")


@pytest.mark.parametrize("host", ["", "a b", "ä"])
def test_a_request_with_a_malformed_host_is_answered_with_400(plain, server, host):
    assert refused(plain, server, "/", Host=host)[0] == 400


def test_a_request_without_host_is_answered_with_400(plain, server):
    with plain.socket(server) as sock:
        sock.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert b"400 Bad Request" in read_all(sock)


def test_health_checks_come_before_the_map(server):
    assert [get(server, path) for path in ("/healthz", "/channel/1", "/x")] == [200, 426, 404]


def test_a_hook_of_the_application_comes_before_the_map(plain):
    def answer(connection, request):
        return connection.respond(403, "no\n") if request.path == "/secret" else None

    rules = [Rule("/secret", endpoint=echo), Rule("/open", endpoint=tell("open"))]
    with by_map(rules, process_request=answer).start() as server:
        assert refused(plain, server, "/secret")[0] == 403
        assert refused(plain, server, "/other")[0] == 404
        assert told(plain, server, "/open") == "open {} /open"


def test_hosts_are_matched(plain):
    rules = [
        Rule("/", host="a.example", endpoint=tell("a")),
        Rule("/", host="<name>.b.example", endpoint=tell("b")),
    ]
    with by_map(Map(rules, host_matching=True)).start() as server:
        for host, text in (("a.example", "a {} /"), ("x.b.example", "b {'name': 'x'} /")):
            assert told(plain, server, "/", additional_headers={"Host": host}) == text
        assert refused(plain, server, "/", Host="c.example")[0] == 404


def test_hosts_of_trusted_proxies_are_matched_and_are_those_of_redirects(plain):
    rules = [Rule("/a/", host="a.example", endpoint=tell("a"))]
    options = {"trusted_proxies": ["127.0.0.1"]}
    with by_map(Map(rules, host_matching=True), **options).start() as server:
        headers = {"X-Forwarded-Host": "a.example", "X-Forwarded-Proto": "https"}
        assert told(plain, server, "/a/", additional_headers=headers) == "a {} /a/"
        _, fields, _ = refused(plain, server, "/a", **headers)
        assert fields["Location"] == "wss://a.example/a/"


def test_the_server_name_counts_more_than_the_host_of_the_request(plain):
    rules = [Rule("/a/", host="a.example", endpoint=tell("a"))]
    with by_map(Map(rules, host_matching=True), server_name="a.example").start() as server:
        assert told(plain, server, "/a/") == "a {} /a/"
        assert refused(plain, server, "/a")[1]["Location"] == "ws://a.example/a/"


def test_subdomains(plain):
    url_map = Map([Subdomain("api", [Rule("/", endpoint=tell("api"))])], default_subdomain="api")
    with by_map(url_map, server_name="a.example").start() as server:
        assert told(plain, server, "/") == "api {} /"


def test_behind_a_proxy_with_tls_redirects_are_secure(plain):
    with by_map([Rule("/a/", endpoint=echo)], ssl=True).start() as server:
        status, fields, _ = refused(plain, server, "/a", Host="a.example")
    assert (status, fields["Location"]) == (308, "wss://a.example/a/")


def test_over_tls(tls, server_context):
    with by_map([Rule("/a/", endpoint=tell("a"))], ssl=server_context).start() as server:
        assert told(tls, server, "/a/") == "a {} /a/"
        assert refused(tls, server, "/a", Host="a.example")[1]["Location"] == "wss://a.example/a/"


def test_over_a_unix_socket(tmp_path, server_context, client_context):
    path = str(tmp_path / "socket")
    url_map = Map([Rule("/<name>/", endpoint=tell("it"))])
    with unix_route(url_map, path, server_name="a.example", open_timeout=5).start() as server:
        with unix_connect(path, "ws://localhost/x/") as client:
            assert client.recv() == "it {'name': 'x'} /x/"
        link = Link("unix", server_context, client_context, tmp_path)
        assert refused(link, server, "/x")[1]["Location"] == "ws://a.example/x/"


def test_a_subclass_of_the_router_may_do_otherwise(plain):
    class Own(Router):
        def not_found(self, connection):
            return connection.respond(404, "own 404\n")

        def redirect(self, connection, url):
            response = connection.respond(302, "own redirect\n")
            response.headers["Location"] = url
            return response

        def handler(self, connection):
            connection.send("before")
            super().handler(connection)

    with by_map([Rule("/a/", endpoint=tell("a"))], create_router=Own).start() as server:
        assert refused(plain, server, "/b")[2] == "own 404\n"
        assert refused(plain, server, "/a")[0] == 302
        with plain.connect(server, "/a/") as client:
            assert list(client) == ["before", "a {} /a/"]


def test_an_endpoint_that_is_no_function_is_an_error_at_once():
    with pytest.raises(TypeError, match="the endpoint of /a must be a function"):
        by_map([Rule("/a", endpoint="a")])


def test_without_werkzeug_the_error_says_what_to_install():
    source = """
import sys
sys.modules["werkzeug"] = sys.modules["werkzeug.routing"] = None
from syncws.routing import route, unix_route
for function in (route, unix_route):
    try:
        function(None)
    except ImportError as exc:
        print(exc)
"""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    text = "route() needs werkzeug: pip install 'syncws[routing]'\n"
    assert (result.stdout, result.stderr) == (text * 2, "")
