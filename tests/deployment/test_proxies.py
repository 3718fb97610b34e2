"""Servers behind the real nginx and HAProxy, with the configurations in examples/deployment."""

from __future__ import annotations

import contextlib
import logging
import re
import ssl
import urllib.request

import pytest
from conftest import wait_until
from deployed import PATIENCE, HAProxy, Nginx

from syncws import ConnectionClosedError, InvalidStatus, connect, serve

pytestmark = pytest.mark.deployment

TRUSTED = {"trusted_proxies": ["127.0.0.1"], "health": "/healthz"}

# An address of this machine that is not the proxies'.
CLIENT = "127.0.0.5"

# Proxy, and which of its ports: the last one passes TLS on, and speaks the PROXY protocol.
WAYS = [
    *((Nginx, "plain"), (Nginx, "tls")),
    *((HAProxy, "plain"), (HAProxy, "tls"), (HAProxy, "passthrough")),
]
NAMES = [f"{kind.__name__}-{port}" for kind, port in WAYS]

every_way = pytest.mark.parametrize("way", WAYS, ids=NAMES)
every_way_over_http = pytest.mark.parametrize("way", WAYS[:-1], ids=NAMES[:-1])


def answer(connection):
    """Echo, but for some words."""
    for message in connection:
        if message == "who":
            host = connection.remote_address[0]
            connection.send(f"{host} {connection.scheme} {connection.host}")
        elif message == "bye":
            connection.close(4000, "as you like")
        else:
            connection.send(message)


@pytest.fixture(scope="session")
def certificate(authority, tmp_path_factory):
    """A file with a certificate, its chain and its key."""
    path = tmp_path_factory.mktemp("certificate") / "all.pem"
    authority.issue_cert("localhost", "127.0.0.1").private_key_and_cert_chain_pem.write_to_path(
        path
    )
    return path


class Setup:
    """A server behind a proxy, of which one port is used."""

    def __init__(self, server, proxy, port):
        self.server = server
        self.proxy = proxy
        self.port = port

    def connect(self, **options):
        return self.proxy.connect(self.port, **options)


@pytest.fixture
def behind(certificate, server_context, client_context, tmp_path):
    """A context manager: a server behind a proxy."""

    @contextlib.contextmanager
    def behind(way, *changes, handler=answer, **options):
        kind, port = way
        proxy = kind(tmp_path, client_context)
        options = {**TRUSTED, **options}
        if port == "passthrough":
            options = {"ssl": server_context, "proxy_protocol": True, **options}
        with serve(handler, "127.0.0.1", 0, **options).start() as server:
            app = server.server_address[1]
            ports = {"app_with_tls": app} if port == "passthrough" else {"app": app}
            with proxy.start(certificate, *changes, **ports):
                yield Setup(server, proxy, port)

    return behind


def exchange(client, message):
    client.send(message)
    return client.recv(timeout=PATIENCE)


# --- What passes ----------------------------------------------------------------------------------


@every_way
def test_messages_pass_and_the_client_is_known(behind, way, caplog):
    caplog.set_level(logging.INFO, "syncws.server")
    with behind(way) as setup:
        with setup.connect(source_address=(CLIENT, 0)) as client:
            assert exchange(client, "hello") == "hello"
            assert exchange(client, b"") == b""
            large = bytes(range(256)) * 4096  # 1 MiB
            assert exchange(client, large[:-1]) == large[:-1]
            address, scheme, host = exchange(client, "who").split()
            assert (address, scheme) == (CLIENT, "ws" if setup.port == "plain" else "wss")
            assert host == f"127.0.0.1:{setup.proxy.ports[setup.port]}"
        assert wait_until(lambda: setup.server.stats()["closed"] == {1000: 1})
    assert any(m.startswith(f"connection closed: {CLIENT}:") for m in caplog.messages)


@every_way
def test_close_codes_pass_both_ways(behind, way):
    with behind(way) as setup:
        with setup.connect() as client:
            client.send("bye")
            with pytest.raises(ConnectionClosedError, match=r"received 4000 .*as you like"):
                client.recv(timeout=PATIENCE)
        with setup.connect() as client:
            client.close(4001, "enough")
        assert wait_until(lambda: setup.server.stats()["closed"] == {4000: 1, 4001: 1})


@every_way
def test_a_server_that_shuts_down_says_so_to_clients(behind, way):
    with behind(way) as setup, setup.connect() as client:
        assert exchange(client, "hello") == "hello"
        setup.server.shutdown()
        assert (list(client), client.close_code) == ([], 1001)


@every_way
def test_health_checks_pass(behind, way, client_context):
    with behind(way) as setup:
        url = setup.proxy.url(setup.port, "/healthz", "http")
        with urllib.request.urlopen(url, timeout=PATIENCE, context=client_context) as response:
            assert (response.status, response.read()) == (200, b"OK\n")


@every_way_over_http
def test_what_clients_say_of_themselves_is_not_believed(behind, way):
    spoof = {
        "X-Forwarded-For": "192.0.2.1",
        "X-Forwarded-Proto": "https",
        "X-Forwarded-Host": "evil.example",
        "Forwarded": "for=192.0.2.1;proto=https;host=evil.example",
    }
    with behind(way) as setup:
        with setup.connect(additional_headers=spoof, source_address=(CLIENT, 0)) as client:
            scheme = "ws" if setup.port == "plain" else "wss"
            host = f"127.0.0.1:{setup.proxy.ports[setup.port]}"
            assert exchange(client, "who") == f"{CLIENT} {scheme} {host}"


@every_way
def test_pages_of_the_same_host_may_connect_and_others_not(behind, way):
    with behind(way) as setup:
        options = {"additional_headers": {"Host": "www.example"}}
        with setup.connect(origin="https://www.example", **options) as client:
            assert exchange(client, "hello") == "hello"
        with pytest.raises(InvalidStatus, match="403"):
            setup.connect(origin="https://evil.example", **options)


def test_a_proxy_that_changes_the_host_says_which_it_was(behind):
    change = ("proxy_set_header Host $http_host;", "")
    with behind((Nginx, "tls"), change) as setup:
        options = {"additional_headers": {"Host": "www.example"}}
        with setup.connect(origin="https://www.example", **options) as client:
            assert exchange(client, "who").endswith(" wss www.example")


@every_way
def test_clients_count_by_their_own_address(behind, way):
    with behind(way, max_connections_per_ip=1) as setup:
        with setup.connect(source_address=(CLIENT, 0)), setup.connect() as client:
            assert exchange(client, "hello") == "hello"
            with pytest.raises(InvalidStatus, match="503"):
                setup.connect(source_address=(CLIENT, 0))


# --- Time -----------------------------------------------------------------------------------------

# The timeout for silence of the shipped configurations, and a shorter one.
QUICKLY = ("75s", "1s")

# Waiting takes a while: once for each kind of proxy.
each_kind = pytest.mark.parametrize("way", WAYS[1::2] + WAYS[-1:], ids=NAMES[1::2] + NAMES[-1:])


@each_kind
def test_pings_keep_a_silent_connection_alive(behind, way):
    with behind(way, QUICKLY, ping_interval=0.3) as setup:
        with setup.connect(ping_interval=None) as client:
            with pytest.raises(TimeoutError):
                client.recv(timeout=2.2)
            assert exchange(client, "hello") == "hello"


@each_kind
def test_without_pings_the_proxy_ends_a_silent_connection(behind, way):
    with behind(way, QUICKLY, ping_interval=None) as setup:
        with setup.connect(ping_interval=None) as client:
            with pytest.raises(ConnectionClosedError, match="no close frame received"):
                client.recv(timeout=PATIENCE)
        assert wait_until(lambda: setup.server.stats()["closed"] == {1006: 1})


@every_way
def test_a_graceful_reload_leaves_connections_alone(behind, way):
    with behind(way) as setup:
        with setup.connect() as client:
            assert exchange(client, "before") == "before"
            setup.proxy.reload()
            with setup.connect() as newcomer:
                assert exchange(newcomer, "after") == "after"
            assert exchange(client, "after") == "after"
        assert wait_until(lambda: setup.server.stats()["closed"] == {1000: 2})


@pytest.mark.parametrize("port", ["plain", "passthrough"])
def test_health_checks_notice_a_drain(behind, port):
    """HAProxy asks for /healthz itself; through the PROXY protocol, on its own account."""
    # The interval is also how long a check may take.
    with behind((HAProxy, port), ("inter 2s", "inter 1s fall 1")) as setup:
        name = "app/app1" if port == "plain" else "app_with_tls/app1"
        with setup.connect() as client:
            setup.server.close(drain=60)
            down = re.compile(rf"Server {name} is DOWN.*503")
            assert wait_until(lambda: down.search(setup.proxy.process.log()))
            assert exchange(client, "still here") == "still here"
        assert setup.server.stats()["refused"].get("proxy") is None


# --- The PROXY protocol ---------------------------------------------------------------------------


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize(
    "version", ["send-proxy", "send-proxy-v2", "send-proxy-v2 proxy-v2-options ssl,crc32c"]
)
def test_every_version_of_the_proxy_protocol(behind, version, secure):
    changes = [("send-proxy-v2", version)]
    options = {}
    if not secure:
        changes.append(("check-ssl verify none", ""))
        options["ssl"] = None
    with behind((HAProxy, "passthrough"), *changes, **options) as setup:
        uri = setup.proxy.url("passthrough" if secure else "plain").rsplit(":", 1)[0]
        uri = f"{uri}:{setup.proxy.ports['passthrough']}"
        context = setup.proxy.client_context if secure else None
        with connect(uri, ssl=context, source_address=(CLIENT, 0)) as client:
            assert exchange(client, "who").startswith(f"{CLIENT} {'wss' if secure else 'ws'} ")


def test_a_forgotten_send_proxy_is_told_in_the_log(behind, caplog):
    with behind((HAProxy, "passthrough"), ("send-proxy-v2", "")) as setup:
        with pytest.raises((ssl.SSLError, OSError)):
            setup.connect()
    assert any("expected a PROXY header, not \\x16\\x03" in m for m in caplog.messages)
