"""Everything that a worker exposes: probes, metrics, traces and ``/info``.

``worker.app`` reports the progress of the start to it.
"""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import structlog

from worker import __version__
from worker.common.settings import REDACTED, Loaded
from worker.contract.records import Headers
from worker.contract.timestamps import rfc3339
from worker.core.arms import AdapterRouter, Arm
from worker.core.assignment import CompletedRecord
from worker.core.events import Listener
from worker.core.labeller import ServingAdapter
from worker.core.loop import Loop
from worker.core.publisher import PUBLISH_MAX_RECORDS
from worker.engine.open import OpenedEngine
from worker.lifecycle.events import AdapterEvents, Refused, Stopped
from worker.observe import metrics as named
from worker.observe.drift import DriftListener
from worker.observe.health import Health
from worker.observe.listener import AdapterMetrics, MetricsListener, adapter_samples, loop_samples
from worker.observe.registry import CONTENT_TYPE, MetricSample, Registry
from worker.observe.server import HttpServer, Page
from worker.settings import Settings, effective
from worker.stream.kafka_config import CLIENT_ID
from worker.stream.port import Stream

_log = structlog.get_logger("worker.http")

# Added to the longest iteration that the settings allow, for slow machines.
_SLACK_S = 10.0


class Observer:
    """Listens to the loop for metrics and traces, and serves them over HTTP. Create it before the
    model is loaded, ``close`` it last. Raises SettingsError if it cannot listen or trace."""

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
        self.propagate_headers: Callable[[CompletedRecord], Headers] | None = None
        self._close: list[Callable[[], None]] = []
        self.url: str | None = None
        if settings.tracing.enabled:
            self._trace()
        self._serve()

    def model_ready(
        self, opened: OpenedEngine, router: AdapterRouter, adapter_events: AdapterEvents
    ) -> None:
        """The engine is warm: begin its metrics."""
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
        self._health.model_ready(router.check_health)

    def runs(self, loop: Loop, stream: Stream, retention_s: Mapping[str, float]) -> None:
        """The loop is about to run. ``retention_s`` has the retention of its topics."""
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
        """Return the content of ``/metrics``."""
        return self._registry.page()

    def close(self) -> None:
        """Export the remaining traces and stop serving."""
        while self._close:
            self._close.pop()()

    def _watch_drift(self, router: AdapterRouter) -> None:
        drift = DriftListener(lambda: router.main.manifest)
        self.listeners.append(drift)
        self._registry.at_scrape(drift.metric_samples)

    def _trace(self) -> None:
        from worker.observe.tracing import start_tracing  # slow to import, and optional

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
        self._close.append(tracing.close)  # closed last-in first-out, after the HTTP server

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
        return describe_worker(self._settings, self._started_at, self._opened, self._serving)

    def _ready(self) -> Sequence[MetricSample]:
        return [(named.READY, [((), float(not self._health.ready()))])]


def _verdict(why: list[str]) -> Page:
    return _json({"ok": not why, "why": why}, 503 if why else 200)


def _json(content: object, status: int) -> Page:
    body = json.dumps(content, ensure_ascii=False).encode() + b"\n"
    return Page(body, "application/json", status)


def describe_worker(
    settings: Settings,
    started_at: datetime,
    opened: OpenedEngine | None,
    serving: tuple[AdapterRouter, AdapterEvents] | None,
) -> Any:
    """Return the content of ``/info`` as plain JSON. Keys about the model are null until it is
    loaded; ``adapter`` to ``decoding`` are those of the current main adapter."""
    found: dict[str, Any] = {
        "version": __version__,
        "started_at": rfc3339(started_at),
        "adapter": None,
        "adapters": [],
        "last_refusal": None,
        "canary_stopped": None,
        "base": None,
        "taxonomy": None,
        "kind": None,
        "stages": [],
        "decoding": None,
        "serving": None,
        "settings": {
            name: shown if shown == REDACTED else json.loads(shown)
            for name, shown, _ in effective(Loaded(settings, {}))
        },
    }
    if opened is not None and serving is not None:
        router, events = serving
        split = router.split
        found |= _model(split.main)
        found |= {
            "adapters": [
                _serving(arm, ratio) for arm, ratio in zip(split.arms, split.ratios, strict=True)
            ],
            "last_refusal": _event(events.last_refusal),
            "canary_stopped": _event(events.stopped.get("canary")),
            "serving": opened.serving,
        }
    return found


def _model(main: ServingAdapter) -> dict[str, Any]:
    manifest = main.manifest
    return {
        "adapter": {
            "name": manifest.name,
            "digest": manifest.digest,
            "precisions": list(main.engine.precisions),
            "created_at": manifest.created_at,
            "since": _since(main),
        },
        "base": {"name": manifest.base.name, "revision": manifest.base.revision},
        "taxonomy": {
            "name": manifest.taxonomy.name,
            "version": manifest.taxonomy.version,
            "digest": manifest.taxonomy.digest,
            "labels": list(manifest.taxonomy.names),
        },
        "kind": manifest.kind,
        "stages": [
            {
                "name": stage.name,
                "digest": stage.digest,
                "kind": stage.kind,
                "sure_from": stage.sure_from,
                "share": stage.share,
            }
            for stage in manifest.stages
        ],
        "decoding": manifest.answers_with,
    }


def _serving(arm: Arm, ratio: float) -> dict[str, Any]:
    return {
        "role": arm.role.name,
        "name": arm.adapter.manifest.name,
        "digest": arm.adapter.digest,
        "precisions": list(arm.adapter.engine.precisions),
        "share": round(ratio, 6),
        "since": _since(arm.adapter),
    }


def _since(adapter: ServingAdapter) -> str | None:
    return None if adapter.since is None else rfc3339(adapter.since)


def _event(event: Refused | Stopped | None) -> dict[str, Any] | None:
    return None if event is None else {**asdict(event), "at": rfc3339(event.at)}
