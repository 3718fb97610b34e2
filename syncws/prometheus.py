"""
Statistics of servers for Prometheus, through its own client library.

This module needs ``prometheus_client``, the one optional dependency::

    pip install 'syncws[prometheus]'

A server that answers ``/metrics`` itself, beside its WebSocket connections::

    from prometheus_client import REGISTRY
    from syncws import serve
    from syncws.prometheus import ServerCollector, expose

    server = serve(handler, "localhost", 8765, process_request=expose("/metrics"))
    REGISTRY.register(ServerCollector(server))
"""

from __future__ import annotations

import http
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

from .handshake import reject
from .http11 import Request, Response

try:
    from prometheus_client.core import REGISTRY, CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.exposition import choose_encoder
    from prometheus_client.registry import Collector, CollectorRegistry
except ImportError as exc:
    raise ImportError(
        "syncws.prometheus needs prometheus_client: pip install 'syncws[prometheus]'"
    ) from exc

if TYPE_CHECKING:
    from .server import Server

__all__ = ["ServerCollector", "expose", "metrics_response"]

OPENMETRICS = "application/openmetrics-text"


class _Family(NamedTuple):
    """A metric family: the key in ``server.stats()`` with its name and its help."""

    key: str
    name: str  # without the prefix; counters have "_total" added
    help: str
    label: Optional[str] = None  # of the counts in a dict


GAUGES = [
    _Family("open", "open_connections", "Connections that are open."),
    _Family("opening", "opening_connections", "Connections whose request has not come yet."),
    _Family("total", "connections", "All connections, those that close included."),
    _Family("inbox_messages", "inbox_messages", "Messages that wait for the application."),
    _Family("inbox_bytes", "inbox_bytes", "Size of the messages that wait for the application."),
    _Family("outbox_bytes", "outbox_bytes", "Size of the frames that wait for slow peers."),
]
COUNTERS = [
    _Family("accepted", "accepted_connections", "Connections accepted."),
    _Family("opened", "opened_connections", "Connections whose opening handshake succeeded."),
    _Family("refused", "refused_connections", "Connections not opened, by reason.", "reason"),
    _Family("closed", "closed_connections", "Connections that ended, by close code.", "code"),
    _Family("messages_received", "received_messages", "Messages received."),
    _Family("messages_sent", "sent_messages", "Messages sent."),
    _Family("messages_dropped", "dropped_messages", "Messages that broadcast() left out."),
    _Family("bytes_received", "received_bytes", "Bytes received."),
    _Family("bytes_sent", "sent_bytes", "Bytes sent."),
    _Family("accept_errors", "accept_errors", "Failures to accept connections."),
    _Family("thread_errors", "thread_errors", "Failures to start the thread of a connection."),
]

Metric = Union[CounterMetricFamily, GaugeMetricFamily]


class ServerCollector(Collector):
    """
    The numbers of ``server.stats()`` as metrics, each time they are asked for.

    What is counted in :meth:`Server.stats` is a counter with ``_total`` at the end of its name,
    such as ``syncws_closed_connections_total{code="1000"}``; what there is at the moment is a
    gauge, such as ``syncws_open_connections``.

    A registry refers to its collectors, and so to their servers, until ``unregister()``.

    Thread safety: any thread may collect.

    Args:
        server: whose numbers to collect; it need not serve yet.
        prefix: what the names of all metrics begin with. Two servers in one registry need
            different ones, which the registry enforces.
    """

    def __init__(self, server: Server, prefix: str = "syncws") -> None:
        self._server = server
        self._prefix = prefix

    def describe(self) -> Iterator[Metric]:
        """Yield the metrics without values; a registry wants to know their names."""
        for family in GAUGES:
            yield GaugeMetricFamily(f"{self._prefix}_{family.name}", family.help)
        for family in COUNTERS:
            labels = None if family.label is None else [family.label]
            yield CounterMetricFamily(f"{self._prefix}_{family.name}", family.help, labels=labels)

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics with their values, all of one call of ``server.stats()``."""
        stats = self._server.stats()
        for family, metric in zip(GAUGES + COUNTERS, self.describe()):
            _add_samples(metric, family, stats)
            yield metric


def _add_samples(metric: Metric, family: _Family, stats: Mapping[str, Any]) -> None:
    if family.label is None:
        metric.add_metric([], stats[family.key])
    else:
        for value, count in stats[family.key].items():
            metric.add_metric([str(value)], count)


def metrics_response(request: Request, registry: CollectorRegistry = REGISTRY) -> Response:
    """
    Answer a request with the metrics of a registry, for a ``process_request`` of your own.

    Args:
        request: of GET or HEAD, else the answer is 405; its Accept header chooses between
            the text formats of Prometheus and of OpenMetrics.
        registry: whose metrics; default: the one that ``prometheus_client`` uses by itself.
    """
    if request.method not in ("GET", "HEAD"):
        response = reject(http.HTTPStatus.METHOD_NOT_ALLOWED, "Metrics are for GET and HEAD.\n")
        response.headers["Allow"] = "GET, HEAD"
        return response
    # The library learns only what was understood here: it raises on strange versions in the
    # header, and repeats others in its Content-Type.
    encode, content_type = choose_encoder(OPENMETRICS if _accepts_openmetrics(request) else "")
    response = reject(http.HTTPStatus.OK, encode(registry).decode())
    del response.headers["Content-Type"]
    response.headers["Content-Type"] = content_type
    return response


def _accepts_openmetrics(request: Request) -> bool:
    ranges = ",".join(request.headers.get_all("Accept")).split(",")
    return any(item.partition(";")[0].strip().lower() == OPENMETRICS for item in ranges)


def expose(
    path: str = "/metrics", registry: CollectorRegistry = REGISTRY
) -> Callable[[Any, Request], Optional[Response]]:
    """
    Return a ``process_request`` hook that answers ``path`` with metrics, and lets others pass.

    Whoever reaches the server may read them, as there is no authentication. If that matters, call
    :func:`metrics_response` in a hook of your own that checks first, or have
    ``prometheus_client.start_http_server()`` listen elsewhere.

    Args:
        path: of the metrics, compared without a query.
        registry: whose metrics; default: the one that ``prometheus_client`` uses by itself.
    """

    def process_request(connection: Any, request: Request) -> Optional[Response]:
        """Answer with metrics, or let the request pass."""
        if request.path.partition("?")[0] != path:
            return None
        return metrics_response(request, registry)

    return process_request
