"""Prometheus: the metrics as its client has them. The only file that imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from worker.observe.metrics import Metric

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

MetricSample = tuple[Metric, Sequence[tuple[tuple[str, ...], float]]]
"""A metric and its values by label values, as read at one moment."""


class Registry:
    """Metrics of one worker, apart from whatever others keep in the client's global registry."""

    def __init__(self) -> None:
        # A second series for each counter, with the time it was made: nobody here asks for it.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_EngineMetrics())
        self._made: dict[Metric, Counter | Histogram] = {}

    def counter(self, metric: Metric, *values: Sequence[str]) -> Callable[..., None]:
        """Return ``add(amount, *label values)``; each of ``values`` begins at 0."""
        made = Counter(metric.name, metric.help, metric.labels, registry=self._registry)
        self._made[metric] = made
        for one in values:
            made.labels(*one)

        def add(amount: float, *labels: str) -> None:
            (made.labels(*labels) if labels else made).inc(amount)

        return add

    def histogram(self, metric: Metric) -> Callable[..., None]:
        """Return ``observe(value, *label values)``."""
        made = Histogram(
            metric.name,
            metric.help,
            metric.labels,
            buckets=metric.buckets,
            registry=self._registry,
        )
        self._made[metric] = made

        def observe(value: float, *labels: str) -> None:
            (made.labels(*labels) if labels else made).observe(value)

        return observe

    def constant(self, metric: Metric, *labels: str) -> None:
        """Show a metric that is 1 and tells by its labels."""
        Gauge(metric.name, metric.help, metric.labels, registry=self._registry).labels(*labels).set(
            1
        )

    def forget(self, label: str, value: str) -> None:
        """Show the series of one label value no more, in whichever counter or histogram."""
        for metric, made in self._made.items():
            if label in metric.labels:
                made.remove_by_labels({label: value})

    def begin(self, metric: Metric, *labels: str) -> None:
        """Show a series of a counter or a histogram before anything was counted in it."""
        self._made[metric].labels(*labels)

    def at_scrape(self, read: Callable[[], Iterable[MetricSample]]) -> None:
        """Show what ``read`` says whenever the page is asked for; called from any thread."""
        self._registry.register(_AtScrape(read))

    def page(self) -> bytes:
        """Return all of it in the Prometheus text format (``CONTENT_TYPE``)."""
        return prometheus_client.generate_latest(self._registry)


class _AtScrape(Collector):
    def __init__(self, read: Callable[[], Iterable[MetricSample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[prometheus_client.Metric]:
        for metric, samples in self._read():
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.labels)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


class _EngineMetrics(Collector):
    """The engine's own metrics, which it keeps in the client's global registry."""

    def collect(self) -> Iterator[prometheus_client.Metric]:
        for family in prometheus_client.REGISTRY.collect():
            if family.name.startswith("vllm:"):
                yield family
