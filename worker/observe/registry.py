"""The Prometheus client behind a few functions. The only file that imports it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from worker.observe.histogram import Histogram
from worker.observe.metric import Metric

CONTENT_TYPE: Final = prometheus_client.CONTENT_TYPE_PLAIN_0_0_4

MetricSample = tuple[Metric, Sequence[tuple[tuple[str, ...], float]]]
"""A metric with its series at one moment: label values in the metric's order, and the value."""


class Registry:
    """Metrics of one worker, separate from whatever stands in the client's global registry."""

    def __init__(self) -> None:
        # A second series for each counter, with its creation time: nobody here needs it.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_EngineMetrics())
        self._counters: dict[Metric, Counter] = {}
        self._histograms: dict[Metric, Histogram] = {}

    def counter(self, metric: Metric, *series: Sequence[str]) -> Callable[..., None]:
        """Return ``add(amount, *label values)``; each of ``series`` (label values) begins at 0."""
        made = Counter(metric.name, metric.help, metric.label_names, registry=self._registry)
        self._counters[metric] = made
        for values in series:
            made.labels(*values)

        def add(amount: float, *labels: str) -> None:
            (made.labels(*labels) if labels else made).inc(amount)

        return add

    def histogram(self, metric: Metric) -> Callable[..., None]:
        """Return ``observe(values, *label values)``: a batch's values in one step."""
        made = self._histograms[metric] = Histogram(metric.buckets)
        if not metric.labels:
            made.begin(())
        self._registry.register(_Histogram(metric, made))

        def observe(values: Sequence[float], *labels: str) -> None:
            made.observe(values, labels)

        return observe

    def constant(self, metric: Metric, *labels: str) -> None:
        """Show an info metric: a constant 1 that tells by its labels."""
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
        """Show a series of a counter or a histogram before anything is counted in it."""
        if metric in self._histograms:
            self._histograms[metric].begin(labels)
        else:
            self._counters[metric].labels(*labels)

    def at_scrape(self, read: Callable[[], Iterable[MetricSample]]) -> None:
        """Show what ``read`` returns whenever the page is requested. It must be thread-safe."""
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
    """The engine's own metrics, which it registers in the client's global registry."""

    def collect(self) -> Iterator[prometheus_client.Metric]:
        for family in prometheus_client.REGISTRY.collect():
            if family.name.startswith("vllm:"):
                yield family
