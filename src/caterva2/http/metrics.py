"""Prometheus metrics of one service."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from caterva2.http.connection import MAX_CONNECTIONS
from caterva2.http.events import EventStreams
from caterva2.http.lag import LoopLag
from caterva2.http.server import Server
from caterva2.model.catalogue import Catalogue, Event, EventKind
from caterva2.model.root import Entry
from caterva2.source.budget import Budget
from caterva2.source.decoded import Decoded

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["Metrics", "MetricsMiddleware"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})

_GAUGES = frozenset(
    {"cached_bytes", "degraded", "entries", "open", "in_flight", "loop_lag_s", "versions", "waiting"}
)
"""Names of fields of statistics that go up and down; all others only count up."""


class Metrics:
    """A registry of its own, so that several services fit in one process.

    Parameters
    ----------
    service : str
        Becomes part of the names: ``caterva2_<service>_requests_total``.
    """

    def __init__(self, service: str) -> None:
        self._service = service
        self._registry = CollectorRegistry()
        prefix = f"caterva2_{service}"
        labels = ["method", "route", "status"]
        self.requests = Counter(f"{prefix}_requests", "Requests answered", labels, registry=self._registry)
        self.sent = Counter(f"{prefix}_sent_bytes", "Bytes of body sent", ["route"], registry=self._registry)
        self.seconds = Histogram(
            f"{prefix}_request_seconds",
            "Seconds from request to end of answer",
            ["route"],
            registry=self._registry,
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 60),
        )
        self._lag = Histogram(
            f"{prefix}_loop_lag_seconds",
            "Seconds that the event loop was late",
            registry=self._registry,
            buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 5),
        )
        self._of_answers: dict[tuple[str, str, int], tuple[Counter, Counter, Histogram]] = {}

    def watch_loop(self, server: Server, streams: EventStreams) -> LoopLag:
        """Return what measures, while it is entered, how late the event loop of a server is."""
        lag = LoopLag(self._lag.observe, lambda: server.answering > streams.open)
        what = "Most seconds that the event loop was late, in the last minute or so"
        self.add_bound("loop_lag_max_seconds", what, lambda: lag.longest_s)
        return lag

    def answered(self, method: str, route: str, status: int, sent_bytes: int, seconds: float) -> None:
        """Count a request; a status of 0 is none."""
        found = self._of_answers.get((method, route, status))
        if found is None:  # finding the children of a metric takes longer than counting
            found = self._of_answers[method, route, status] = (
                self.requests.labels(method, route, str(status) if status else "none"),
                self.sent.labels(route),
                self.seconds.labels(route),
            )
        requests, sent, took = found
        requests.inc()
        sent.inc(sent_bytes)
        took.observe(seconds)

    def add_stats(self, part: str, stats: DataclassInstance) -> None:
        """Export the numbers of a dataclass, read when asked: ``caterva2_<service>_<part>_<field>``."""
        self._registry.register(_Stats(f"caterva2_{self._service}_{part}", stats))

    def add_bound(self, name: str, what: str, value: Callable[[], float], limit: float | None = None) -> None:
        """Export what is bounded, and its bound: ``caterva2_<service>_<name>`` and ``…_<name>_limit``.

        Parameters
        ----------
        name, what : str
            Name and description.
        value : callable
            Returns what there is now.
        limit : float or None
            None if there is none.
        """
        self._registry.register(_Bound(f"caterva2_{self._service}_{name}", what, value, limit))

    def add_server(self, server: Server, streams: EventStreams) -> None:
        """Export what a server holds for its clients."""
        self.add_bound("connections", "Connections open", lambda: server.connections, MAX_CONNECTIONS)
        self.add_bound("event_streams", "Event streams open", lambda: streams.open)
        self.add_bound("event_backlog", "Events that wait for slow clients", lambda: streams.backlog)

    def add_budget(self, budget: Budget) -> None:
        """Export the memory that large answers share."""
        self.add_stats("answers", budget.stats)
        what = "Memory of large answers being made or sent, in bytes"
        self.add_bound("answers_bytes", what, lambda: budget.granted_bytes, budget.limit_bytes)

    def add_decoded(self, decoded: Decoded) -> None:
        """Export what decoded blocks take that are kept."""
        self.add_stats("decoded", decoded.stats)
        what = "Memory of decoded blocks that are kept, in bytes"
        self.add_bound("decoded_bytes", what, lambda: decoded.stats.cached_bytes, decoded.limit_bytes)

    def add_catalogue(self, catalogue: Catalogue) -> None:
        """Export the size of a catalogue, and count its events."""
        prefix = f"caterva2_{self._service}"
        self._registry.register(_CatalogueSize(prefix, catalogue))
        self._registry.register(_Events(prefix, catalogue))

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text form."""
        return generate_latest(self._registry)


class _Stats(Collector):
    def __init__(self, prefix: str, stats: DataclassInstance) -> None:
        self._prefix = prefix
        self._stats = stats

    def collect(self) -> Iterable[Metric]:
        """Yield a metric for each number."""
        for field in dataclasses.fields(self._stats):
            value = getattr(self._stats, field.name)
            if isinstance(value, int | float):
                name, help_text = f"{self._prefix}_{field.name}", field.name.replace("_", " ").capitalize()
                family = GaugeMetricFamily if field.name in _GAUGES else CounterMetricFamily
                yield family(name, help_text, value=float(value))


class _Bound(Collector):
    def __init__(self, name: str, what: str, value: Callable[[], float], limit: float | None) -> None:
        self._name = name
        self._what = what
        self._value = value
        self._limit = limit

    def collect(self) -> Iterable[Metric]:
        """Yield what there is, and what there may be."""
        yield GaugeMetricFamily(self._name, self._what, value=float(self._value()))
        if self._limit is not None:
            yield GaugeMetricFamily(f"{self._name}_limit", f"Most of: {self._what}", value=float(self._limit))


class _CatalogueSize(Collector):
    def __init__(self, prefix: str, catalogue: Catalogue) -> None:
        self._prefix = prefix
        self._catalogue = catalogue

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics of each root."""
        datasets = GaugeMetricFamily(f"{self._prefix}_datasets", "Datasets known", labels=["root"])
        size = GaugeMetricFamily(f"{self._prefix}_dataset_bytes", "Bytes of all datasets", labels=["root"])
        fresh = GaugeMetricFamily(f"{self._prefix}_fresh", "Whether in sync with the owner", labels=["root"])
        what = "Datasets that are older at their publisher than what was seen"
        behind = GaugeMetricFamily(f"{self._prefix}_behind", what, labels=["root"])
        for root in self._catalogue.roots.values():
            datasets.add_metric([root.name], len(root.entries))
            size.add_metric([root.name], root.nbytes)
            fresh.add_metric([root.name], root.fresh)
            behind.add_metric([root.name], len(root.behind))
        yield from (datasets, size, fresh, behind)


class _Events(Collector):
    def __init__(self, prefix: str, catalogue: Catalogue) -> None:
        self._name = f"{prefix}_events"
        self._seen = dict.fromkeys(get_args(EventKind), 0)
        catalogue.listen(self._count)

    def _count(self, event: Event, _: Entry | None) -> None:
        self._seen[event.kind] += 1

    def collect(self) -> Iterator[Metric]:
        """Yield how many events of each kind there were."""
        events = CounterMetricFamily(self._name, "Differences seen", labels=["kind"])
        for kind, count in self._seen.items():
            events.add_metric([kind], count)
        yield events


class MetricsMiddleware:
    """Counts requests, bytes and seconds by route."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and count it when it is answered."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, sent = time.perf_counter(), 0, 0

        async def counted(message: Message) -> None:
            nonlocal status, sent
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = _route_of(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.answered(method, route, status, sent, time.perf_counter() - began)


def _route_of(scope: Scope) -> str:
    """Return the template of the route that matched; paths themselves would be labels without end."""
    route = scope.get("route")
    if route is not None:
        return str(getattr(route, "path", "other"))
    return str(scope.get("caterva2.route", "other"))
