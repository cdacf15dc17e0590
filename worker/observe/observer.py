"""All that a worker exposes, put together; ``worker.app`` reports to it how far start-up is."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import structlog

from worker import __version__
from worker.contract.records import Headers
from worker.core.adapter_router import AdapterRouter
from worker.core.assignment import CompletedRecord
from worker.core.events import Listener
from worker.core.loop import Loop
from worker.core.loop_policy import PUBLISH_MAX_RECORDS
from worker.engine.open import OpenedEngine
from worker.lifecycle.events import AdapterEvents
from worker.observe import metrics as named
from worker.observe.adapters import AdapterMetrics, adapter_samples
from worker.observe.drift.listener import DriftListener
from worker.observe.health import Health, HealthVerdict
from worker.observe.info import describe_worker
from worker.observe.listener import MetricsListener, loop_samples
from worker.observe.registry import CONTENT_TYPE, MetricSample, Registry
from worker.observe.server import HttpServer, Page
from worker.settings import Settings
from worker.stream.kafka_config import CLIENT_ID
from worker.stream.port import Stream

_log = structlog.get_logger("worker.http")

_SLACK_S = 10.0
"""Added to the longest iteration that the settings allow: a machine may be slow."""


class Observer:
    """Listens to the loop for metrics and traces, and answers over HTTP. ``close`` it last.

    Raises SettingsError when it cannot listen or trace as the settings say.
    """

    def __init__(self, settings: Settings, max_iteration_s: float) -> None:
        self._settings = settings
        self._started_at = datetime.now(UTC)
        self._opened: OpenedEngine | None = None
        self._serving: tuple[AdapterRouter, AdapterEvents] | None = None
        self._health = Health(time.monotonic, max_iteration_s + _SLACK_S)
        self._registry = Registry()
        self._registry.at_scrape(self._ready)
        self.adapters = AdapterMetrics(self._registry)
        self.listeners: list[Listener] = []
        self.drift: DriftListener | None = None
        self.propagate_headers: Callable[[CompletedRecord], Headers] | None = None
        self._close: list[Callable[[], None]] = []
        self.url: str | None = None
        if settings.tracing.enabled:
            self._trace()
        self._serve()

    def model_ready(
        self, opened: OpenedEngine, router: AdapterRouter, adapter_events: AdapterEvents
    ) -> None:
        """The engine is warm; from now on there are metrics of its work."""
        self._opened = opened
        self._serving = (router, adapter_events)
        manifest = opened.manifest
        self._registry.constant(named.BUILD_INFO, __version__, platform.python_version())
        self._registry.constant(
            named.CONFIG_INFO, self._settings.kafka.delivery, opened.serving, manifest.base.name
        )
        self._registry.at_scrape(lambda: adapter_samples(router, adapter_events))
        metrics = MetricsListener(self._registry, self.adapters, time.monotonic, time.time)
        self.listeners.append(metrics)
        if self._settings.drift.enabled:
            self._watch_drift(router)
        self._health.model_ready(router)

    def runs(self, loop: Loop, stream: Stream, retention_s: Mapping[str, float]) -> None:
        """The loop is about to run. ``retention_s``: how long its topics keep messages."""
        retention = [((topic,), seconds) for topic, seconds in retention_s.items()]
        self._registry.at_scrape(lambda: [(named.RETENTION, retention)])
        self._registry.at_scrape(
            lambda: loop_samples(
                loop.state, stream.lag(), stream.oldest_ms(), time.monotonic(), time.time()
            )
        )
        self._health.runs(lambda: loop.state)

    def closing(self, error: BaseException | None = None) -> None:
        """The loop has ended; the stream and the engine are closed next."""
        self._health.closing(error)

    def metrics(self) -> bytes:
        """Return the page of ``/metrics``."""
        return self._registry.page()

    def close(self) -> None:
        """Export the remaining traces, and stop answering."""
        while self._close:
            self._close.pop()()

    def _watch_drift(self, router: AdapterRouter) -> None:
        self.drift = DriftListener(lambda: router.main.manifest)
        self.listeners.append(self.drift)
        self._registry.at_scrape(self.drift.metric_samples)

    def _trace(self) -> None:
        from worker.observe.tracing import start_tracing  # heavy, and not always installed

        kafka = self._settings.kafka
        tracing = start_tracing(
            topic=", ".join(kafka.input_topics),
            group=kafka.group_id,
            server=kafka.bootstrap_servers,
            client_id=str(kafka.client.get("client.id", CLIENT_ID)),
            max_links=PUBLISH_MAX_RECORDS,
        )
        self.listeners.append(tracing)
        self.propagate_headers = tracing.propagate_headers
        self._close.append(tracing.close)

    def _serve(self) -> None:
        http, health = self._settings.http, self._health
        server = HttpServer(
            http.host,
            http.port,
            {
                "/livez": lambda: _verdict(health.alive()),
                "/readyz": lambda: _verdict(health.ready()),
                "/startupz": lambda: _verdict(health.started()),
                "/metrics": lambda: Page(self.metrics(), CONTENT_TYPE),
                "/info": lambda: _json(self._info(), 200),
            },
        )
        self.url = server.url
        self._close.append(server.close)
        _log.info("http.listening", url=server.url)

    def _info(self) -> object:
        drift = self.drift.info() if self.drift is not None else None
        found = describe_worker(self._settings, self._started_at, self._opened, self._serving)
        return {**found, "drift": drift}

    def _ready(self) -> Sequence[MetricSample]:
        return [(named.READY, [((), float(self._health.ready().ok))])]


@contextmanager
def observing(settings: Settings, max_iteration_s: float) -> Iterator[Observer]:
    """Observe a worker from its start, before the model is loaded, until its end."""
    observer = Observer(settings, max_iteration_s)
    try:
        yield observer
    finally:
        observer.close()


def _verdict(verdict: HealthVerdict) -> Page:
    return _json({"ok": verdict.ok, "why": list(verdict.why)}, 200 if verdict.ok else 503)


def _json(content: object, status: int) -> Page:
    body = json.dumps(content, ensure_ascii=False).encode() + b"\n"
    return Page(body, "application/json", status)
