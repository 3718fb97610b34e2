"""Metrics for Prometheus: exact after known traffic, well-formed, served beside WebSocket."""

from __future__ import annotations

import contextlib
import http.client
import os
import pathlib
import subprocess
import sys

import pytest
from conftest import wait_until
from links import PATIENCE, Held, echo
from prometheus_client import CollectorRegistry, Counter, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from syncws import connect, serve
from syncws.prometheus import ServerCollector, expose

ROOT = pathlib.Path(__file__).parent.parent
PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def samples(text, parse=parse_text):
    """The values in a text by name and labels; those without labels by name alone."""
    found = {}
    for family in parse(text):
        for sample in family.samples:
            key = (sample.name, *sample.labels.values()) if sample.labels else sample.name
            assert key not in found
            found[key] = sample.value
    return found


def collected(server):
    registry = CollectorRegistry()
    registry.register(ServerCollector(server))
    return samples(generate_latest(registry).decode())


@contextlib.contextmanager
def echo_server(**options):
    """A server of echoes, and its address for clients."""
    with serve(echo, "127.0.0.1", 0, close_timeout=PATIENCE, **options).start() as server:
        yield server, f"ws://127.0.0.1:{server.server_address[1]}"


@contextlib.contextmanager
def exposing(registry=None, **options):
    """A server that has its metrics at /metrics; yields it with its address."""
    registry = registry or CollectorRegistry()
    with echo_server(process_request=expose("/metrics", registry), **options) as (server, uri):
        registry.register(ServerCollector(server))
        yield server, uri


@contextlib.contextmanager
def connected(uri):
    """A client whose connection the server has counted: its handler runs."""
    with connect(uri) as client:
        client.send("hello")
        assert client.recv(timeout=PATIENCE) == "hello"
        yield client


def ask(server, method="GET", path="/metrics", **headers):
    """Send an HTTP request; returns the response and its body."""
    client = http.client.HTTPConnection(*server.server_address, timeout=PATIENCE)
    with contextlib.closing(client):
        client.request(method, path, headers=headers)
        response = client.getresponse()
        return response, response.read().decode()


# --- The collector --------------------------------------------------------------------------------


def test_every_number_of_the_statistics_is_a_metric():
    with echo_server() as (server, uri):
        with connect(uri):
            pass
        ask(server)
        assert wait_until(lambda: server.stats()["total"] == 0)
        stats = server.stats()
        metrics = collected(server)
    assert stats["closed"]
    assert stats["refused"]
    numbers = [len(value) if isinstance(value, dict) else 1 for value in stats.values()]
    assert len(metrics) == sum(numbers)


def test_metrics_are_exact_after_known_traffic():
    with echo_server() as (server, uri):
        with connect(uri) as first, connect(uri) as second:
            for message in ("a", "bc", b"def"):
                first.send(message)
                first.recv(timeout=PATIENCE)
            second.send("last")
            second.recv(timeout=PATIENCE)
            second.close(3001)
            assert wait_until(lambda: server.stats()["total"] == 1)
            # A message is counted when the system call that sends it has returned.
            assert wait_until(lambda: server.stats()["messages_sent"] == 4)
            metrics = collected(server)
            stats = server.stats()
    assert metrics == {
        "syncws_open_connections": 1,
        "syncws_opening_connections": 0,
        "syncws_connections": 1,
        "syncws_inbox_messages": 0,
        "syncws_inbox_bytes": 0,
        "syncws_outbox_bytes": 0,
        "syncws_accepted_connections_total": 2,
        "syncws_opened_connections_total": 2,
        ("syncws_closed_connections_total", "3001"): 1,
        "syncws_received_messages_total": 4,
        "syncws_sent_messages_total": 4,
        "syncws_dropped_messages_total": 0,
        "syncws_received_bytes_total": stats["bytes_received"],
        "syncws_sent_bytes_total": stats["bytes_sent"],
        "syncws_accept_errors_total": 0,
        "syncws_thread_errors_total": 0,
    }


def test_refused_connections_have_their_reason():
    with exposing(max_connections=1) as (server, uri):
        assert ask(server)[0].status == 200
        assert wait_until(lambda: server.stats()["total"] == 0)
        with connect(uri):
            assert ask(server)[0].status == 503
            metrics = collected(server)
    refused = {key[1]: value for key, value in metrics.items() if "refused" in key[0]}
    assert refused == {"http": 1, "max_connections": 1}


def test_messages_that_wait_for_the_application_are_a_gauge():
    held = Held()
    with serve(held, "127.0.0.1", 0, close_timeout=PATIENCE).start() as server:
        with connect(f"ws://127.0.0.1:{server.server_address[1]}") as client:
            client.send(b"x" * 100)
            client.send(b"y" * 50)
            assert wait_until(lambda: collected(server)["syncws_inbox_messages"] == 2)
            assert collected(server)["syncws_inbox_bytes"] >= 150
            held.release()


def test_a_prefix_tells_servers_in_one_registry_apart():
    registry = CollectorRegistry()
    with echo_server() as (chat, uri), echo_server() as (feed, _):
        registry.register(ServerCollector(chat, prefix="chat"))
        registry.register(ServerCollector(feed, prefix="feed"))
        with connected(uri):
            metrics = samples(generate_latest(registry).decode())
    assert metrics["chat_opened_connections_total"] == 1
    assert metrics["feed_opened_connections_total"] == 0


def test_two_servers_with_one_prefix_are_kept_out_of_a_registry():
    registry = CollectorRegistry()
    with echo_server() as (server, _):
        registry.register(ServerCollector(server))
        with pytest.raises(ValueError, match="syncws_open_connections"):
            registry.register(ServerCollector(server))


# --- Over HTTP ------------------------------------------------------------------------------------


def test_metrics_are_served_beside_connections():
    registry = CollectorRegistry()
    Counter("orders", "Not of this library.", registry=registry).inc(7)
    with exposing(registry) as (server, uri):
        with connected(uri):
            response, body = ask(server, path="/metrics?scrape=1")
    assert (response.status, response.headers["Content-Type"]) == (200, PLAIN)
    metrics = samples(body)
    assert metrics["orders_total"] == 7
    assert metrics["syncws_open_connections"] == 1


def test_openmetrics_is_served_to_who_accepts_it():
    # What Prometheus itself sends.
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
    with exposing() as (server, uri):
        with connected(uri):
            response, body = ask(server, Accept=accept)
    assert (response.status, response.headers["Content-Type"]) == (200, OPENMETRICS)
    assert samples(body, parse_openmetrics)["syncws_open_connections"] == 1


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("*/*", PLAIN),
        ("text/plain;version=one", PLAIN),
        ("text/plain;version=1.0.0;escaping=/", PLAIN),
        (";;,=,version=,", PLAIN),
        ("application/openmetrics-text; version=x", OPENMETRICS),
        ("application/openmetrics-text; version=9.9.9; charset=evil", OPENMETRICS),
        ("text/html, APPLICATION/OpenMetrics-Text;version", OPENMETRICS),
    ],
)
def test_a_strange_accept_header_neither_fails_nor_comes_back(accept, content_type):
    with exposing() as (server, _):
        response, body = ask(server, Accept=accept)
    assert (response.status, response.headers["Content-Type"]) == (200, content_type)
    assert "evil" not in body


def test_a_head_request_is_told_the_size_only():
    with exposing() as (server, _):
        response, body = ask(server, method="HEAD")
    assert (response.status, response.headers["Content-Type"], body) == (200, PLAIN, "")
    assert int(response.headers["Content-Length"]) > 0


def test_another_method_is_not_allowed():
    with exposing() as (server, _):
        response, _ = ask(server, method="DELETE")
    assert (response.status, response.headers["Allow"]) == (405, "GET, HEAD")


def test_other_paths_are_for_websocket():
    with exposing() as (server, uri):
        assert ask(server, path="/metrics/")[0].status == 426
        with connected(uri + "/metrics/"):
            pass


# --- Without the library --------------------------------------------------------------------------


def test_prometheus_client_is_asked_for_by_this_module_alone():
    source = """
import sys
import syncws
assert not [name for name in sys.modules if "prometheus" in name]
sys.modules["prometheus_client"] = None  # as if it were not installed
try:
    import syncws.prometheus
except ImportError as exc:
    print(exc)
"""
    result = subprocess.run(
        [sys.executable, "-c", source],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        encoding="utf-8",
        timeout=20,
        check=True,
    )
    assert "pip install 'syncws[prometheus]'" in result.stdout
