"""The desk's metrics and readiness. Counts and times; no texts and no user names."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from desk.accuracy.figures import AccuracyFigures, accuracy_figures
from desk.accuracy.metrics import AccuracyMetrics
from desk.errors import DeskError, TryAgain
from desk.service import queues
from desk.service.context import Desk

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

# Other methods share one label: a client could invent methods until the memory is full.
_METHODS = {"GET", "HEAD", "POST"}
_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Metrics:
    """All metrics of a desk. Safe from any thread."""

    def __init__(self, desk: Desk) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_State(desk))
        self._registry.register(AccuracyMetrics(lambda: _accuracy(desk), desk.clock))
        self.requests = Counter(
            "clerk_desk_requests",
            "Requests by page, method and status.",
            ["page", "method", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "clerk_desk_request_seconds",
            "How long a page took.",
            ["page"],
            buckets=_BUCKETS,
            registry=self._registry,
        )

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class Timed:
    """Middleware that counts and times requests by page."""

    def __init__(self, app: ASGIApp, *, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request and time it."""
        begun = time.perf_counter()
        status = 500

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            # The route's pattern: paths hold ids, and each would be a series of its own.
            page = getattr(scope.get("route"), "path", "none")
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(page, method, str(status)).inc()
            self._metrics.seconds.labels(page).observe(time.perf_counter() - begun)


class _State(Collector):
    """Queue lengths and the like, read from the database at each scrape."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def describe(self) -> Iterator[Metric]:
        """Describe nothing, so that registering does not query the database."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield the figures; only ``clerk_desk_database_up`` if the database is unavailable."""
        up = GaugeMetricFamily("clerk_desk_database_up", "1 where the database answers.")
        try:
            now = queues.overview(self._desk)
        except DeskError:
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        items = GaugeMetricFamily("clerk_desk_items", "Items by state.", labels=["state"])
        for state, count in sorted(now.items.items()):
            items.add_metric([state], count)
        yield items
        yield _gauge("clerk_desk_disputes", "Items that wait for an adjudicator.", now.disputes)
        yield _gauge(
            "clerk_desk_oldest_waiting_seconds",
            "Age of the item that waits longest; 0 where none waits.",
            now.oldest_waiting_s or 0.0,
        )
        yield _gauge("clerk_desk_lag_records", "Results in Kafka that were not read yet.", now.lag)
        yield _gauge(
            "clerk_desk_outbox_corrections",
            "Corrections that wait to be published.",
            now.unpublished,
        )
        if now.undelivered is not None:
            yield _gauge(
                "clerk_desk_webhook_undelivered",
                "Published decisions that the webhook's receiver has not taken.",
                now.undelivered,
            )
        oldest = now.unpublished_since_ms
        yield _gauge(
            "clerk_desk_outbox_oldest_seconds",
            "Since when the oldest of them could have been published; 0 where none waits.",
            0.0 if oldest is None else max(0.0, (self._desk.clock() - oldest) / 1000),
        )


def is_ready(desk: Desk) -> bool:
    """Tell whether the database answers."""
    try:
        with desk.database.read():
            return True
    except DeskError:
        return False


def _accuracy(desk: Desk) -> AccuracyFigures:
    """Read the figures. Raises TryAgain for any error: these figures must not take the other
    metrics with them."""
    try:
        return accuracy_figures(desk)
    except DeskError as error:
        raise TryAgain(str(error)) from None


def _gauge(name: str, words: str, value: float) -> Metric:
    made = GaugeMetricFamily(name, words)
    made.add_metric([], value)
    return made
