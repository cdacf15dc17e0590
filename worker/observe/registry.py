"""The Prometheus client behind a few functions. Only this file imports it."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from worker.observe.metrics import Metric

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

MetricSample = tuple[Metric, Sequence[tuple[tuple[str, ...], float]]]
"""A metric with its series at one moment: label values in the metric's order, and the value."""


class Registry:
    """Metrics of one worker, separate from the client's global registry."""

    def __init__(self) -> None:
        # Otherwise each counter has a second series with its creation time.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        # auto_describe would already collect when a collector is registered.
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_EngineMetrics())
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}

    def counter(self, metric: Metric, *series: Sequence[str]) -> Callable[..., None]:
        """Return ``add(amount, *label values)``. Each of ``series`` (label values) begins at 0."""
        made = Counter(metric.name, metric.help, metric.label_names, registry=self._registry)
        self._counters[metric] = made
        for values in series:
            made.labels(*values)

        def add(amount: float, *labels: str) -> None:
            (made.labels(*labels) if labels else made).inc(amount)

        return add

    def histogram(self, metric: Metric) -> Callable[..., None]:
        """Return ``observe(values, *label values)``, which takes a batch's values at once: the
        client's own histogram takes two locks for each value, a fifth of the loop's time."""
        made = self._histograms[metric] = Histogram(metric.buckets)
        if not metric.labels:
            made.begin(())
        self._registry.register(_Histogram(metric, made))

        def observe(values: Sequence[float], *labels: str) -> None:
            made.observe(values, labels)

        return observe

    def constant(self, metric: Metric, *labels: str) -> None:
        """Show a constant 1 with these labels."""
        made = Gauge(metric.name, metric.help, metric.label_names, registry=self._registry)
        made.labels(*labels).set(1)

    def forget(self, label: str, value: str) -> None:
        """Remove the series with this label value from every counter and histogram."""
        for metric, counter in self._counters.items():
            if label in metric.label_names:
                counter.remove_by_labels({label: value})
        for metric, histogram in self._histograms.items():
            if label in metric.label_names:
                histogram.forget(metric.label_names.index(label), value)

    def begin(self, metric: Metric, *labels: str) -> None:
        """Create a series of a counter or histogram with the value 0."""
        if metric in self._histograms:
            self._histograms[metric].begin(labels)
        else:
            self._counters[metric].labels(*labels)

    def at_scrape(self, read: Callable[[], Iterable[MetricSample]]) -> None:
        """Add the samples that ``read`` returns at each scrape. It must be thread-safe."""
        self._registry.register(_AtScrape(read))

    def page(self) -> bytes:
        """Return all metrics in the Prometheus text format (``CONTENT_TYPE``)."""
        return prometheus_client.generate_latest(self._registry)


class _AtScrape(Collector):
    def __init__(self, read: Callable[[], Iterable[MetricSample]]) -> None:
        self._read = read

    def collect(self) -> Iterator[prometheus_client.Metric]:
        for metric, samples in self._read():
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(metric.name, metric.help, labels=metric.label_names)
            for labels, value in samples:
                family.add_metric(labels, value)
            yield family


class _Histogram(Collector):
    def __init__(self, metric: Metric, histogram: Histogram) -> None:
        self._metric = metric
        self._histogram = histogram
        self._bounds = [*map(floatToGoString, metric.buckets), "+Inf"]

    def collect(self) -> Iterator[prometheus_client.Metric]:
        metric = self._metric
        family = HistogramMetricFamily(metric.name, metric.help, labels=metric.label_names)
        for labels, counts, total in self._histogram.read():
            family.add_metric(labels, list(zip(self._bounds, counts, strict=True)), total)
        yield family


class _EngineMetrics(Collector):
    """vLLM's own metrics, which it registers in the client's global registry."""

    def collect(self) -> Iterator[prometheus_client.Metric]:
        for family in prometheus_client.REGISTRY.collect():
            if family.name.startswith("vllm:"):
                yield family


@dataclass(slots=True)
class _Series:
    """The number of values in each bucket (not cumulative), and the sum of all values."""

    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Histogram:
    """Counts values by bucket, for each combination of label values. Thread-safe.

    ``bounds`` are the buckets' upper bounds, ascending and included; one more bucket has no bound.
    """

    bounds: Sequence[float]
    _series: dict[tuple[str, ...], _Series] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, labels: tuple[str, ...]) -> None:
        """Create the series with these label values, if it does not exist."""
        with self._lock:
            self._of(labels)

    def observe(self, values: Sequence[float], labels: tuple[str, ...]) -> None:
        """Add values, none of them NaN."""
        # Outside of the lock, which a scrape waits for.
        places = [bisect_left(self.bounds, value) for value in values]
        with self._lock:
            series = self._of(labels)
            for place in places:
                series.counts[place] += 1
            series.total += sum(values)

    def forget(self, place: int, value: str) -> None:
        """Remove the series whose label number ``place`` has this value."""
        with self._lock:
            for labels in [labels for labels in self._series if labels[place] == value]:
                del self._series[labels]

    def read(self) -> Iterator[tuple[tuple[str, ...], list[int], float]]:
        """Yield each series: its label values, the cumulative counts by bucket, and the sum."""
        with self._lock:
            found = [
                (labels, list(accumulate(series.counts)), series.total)
                for labels, series in self._series.items()
            ]
        yield from found

    def _of(self, labels: tuple[str, ...]) -> _Series:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series([0] * (len(self.bounds) + 1))
        return series
