"""Histograms that take a batch at a time count what the Prometheus client's own would."""

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from worker.observe.histogram import Histogram
from worker.observe.metric import Metric, MetricLabel
from worker.observe.registry import Registry

BOUNDS = (0.005, 0.5, 1.0, 120.0, 21600.0)
numbers = st.one_of(st.sampled_from([*BOUNDS, -1.0, 1e9]), st.floats(-1, 1e6))
METRIC = Metric("clerk_toy_seconds", "histogram", "A toy.", (MetricLabel("adapter"),), BOUNDS)


@given(st.lists(st.lists(numbers, max_size=20), max_size=5))
def test_the_page_is_the_one_that_the_client_would_show(batches: list[list[float]]) -> None:
    """To the letter, whatever the values and however they come in batches: dashboards and alerts
    read the same names, bounds and counts."""
    registry, theirs = Registry(), CollectorRegistry()
    observe = registry.histogram(METRIC)
    registry.begin(METRIC, "none")
    client = prometheus_client.Histogram(
        METRIC.name, METRIC.help, METRIC.label_names, buckets=BOUNDS, registry=theirs
    )
    client.labels("none")
    for batch in batches:
        observe(batch, "a")
        series = client.labels("a")
        for value in batch:
            series.observe(value)
    ours = registry.page().decode().splitlines()
    expected = prometheus_client.generate_latest(theirs).decode().splitlines()
    for mine, other in zip(ours, expected, strict=True):
        if "_sum" in mine:  # added up in another order
            name, _, total = other.rpartition(" ")
            assert mine.rpartition(" ")[0] == name
            assert float(mine.rpartition(" ")[2]) == pytest.approx(float(total))
        else:
            assert mine == other


def test_one_without_labels_is_there_from_the_beginning() -> None:
    """The first value is an increase, not a series that was not there before."""
    registry = Registry()
    registry.histogram(Metric("clerk_toy_seconds", "histogram", "A toy.", (), BOUNDS))
    assert "clerk_toy_seconds_count 0.0" in registry.page().decode()


def test_the_series_of_a_label_value_are_forgotten_and_no_others() -> None:
    """Of an adapter that served long ago nothing is shown any more."""
    histogram = Histogram((1.0,))
    for labels in (("a", "x"), ("a", "y"), ("b", "x")):
        histogram.observe([0.5, 2.0], labels)
    histogram.forget(1, "x")
    assert list(histogram.read()) == [(("a", "y"), [1, 2], 2.5)]
