"""The list of metrics is complete, on the page, and in the documentation."""

import re
from pathlib import Path

import prometheus_client
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests.support.rig import started
from tests.support.toy_adapter import (
    ENCODERS,
    cascade_of,
    small_manifest,
    toy_manifest,
    toy_serving_adapter,
)
from tests.unit.observe.conftest import Scrape, finished, label
from worker.core.arms import CANARY, Arm
from worker.core.events import Published
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.errors import MessageRejected
from worker.observe.metrics import METRICS, REASONS, Metric, MetricLabel
from worker.observe.observer import Observer
from worker.observe.page import metrics_page
from worker.observe.registry import Histogram, Registry
from worker.records.encode import RetryPolicy
from worker.serving import make_adapter_router
from worker.settings import HttpSettings, Settings

ROOT = Path(__file__).parents[3]


def test_the_documentation_is_what_the_code_says() -> None:
    """``make metrics`` was run after the last change."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == metrics_page()


def test_every_metric_named_is_on_the_page_of_a_running_worker_and_no_other() -> None:
    """With the kind and the labels that the documentation gives it."""
    observer = Observer(Settings(http=HttpSettings(port=0)), 60.0)
    try:
        opened = OpenedEngine(
            FakeEngine(lambda _: ValueError()), small_manifest(), ENCODERS, "merged"
        )
        router, events = make_adapter_router(Settings(), opened, observer.adapters)
        observer.model_ready(opened, router, events)
        # For what only cascades have.
        cascade = cascade_of(small_manifest(), toy_manifest(name="large"))
        trial = Arm(CANARY, toy_serving_adapter(manifest=cascade), 0.0)
        router.schedule(lambda split: split.with_arm(trial))
        router.apply_pending()
        rig = started("m0", "m1", retry=RetryPolicy("retry", 60.0, 1), max_attempts=1)
        rig.stream.assign(1)
        rig.engine.fail("m0", MessageRejected("engine_rejected", ""))
        rig.iterate(2)  # one waits, one is in the engine
        observer.runs(rig.loop, rig.stream, {"in": 604800.0})
        for listener in observer.listeners:  # a whole window, for what drift shows
            listener(Published(finished(*[label()] * 1000), 0.1))
        page = Scrape(observer.metrics())
    finally:
        observer.close()
    found = {}
    for family in page.families.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {key for sample in family.samples for key in sample.labels} - {"le"}
        found[name] = (family.type, labels)
    assert found == {metric.name: (metric.kind, set(metric.label_names)) for metric in METRICS}


def test_names_say_what_they_count_and_in_which_unit() -> None:
    """Counters end in _total, times in _seconds; every one is the worker's own."""
    assert len({metric.name for metric in METRICS}) == len(METRICS)
    for metric in METRICS:
        assert re.fullmatch(r"clerk_[a-z_]+", metric.name), metric
        assert metric.name.endswith("_total") == (metric.kind == "counter"), metric
        assert bool(metric.buckets) == (metric.kind == "histogram"), metric
        assert list(metric.buckets) == sorted(set(metric.buckets)), metric
        assert metric.help.endswith("."), metric


def test_names_follow_prometheus_practice() -> None:
    """No share, age, level or percentage in a name: a ratio, a timestamp, a threshold are meant.

    https://prometheus.io/docs/practices/naming/
    """
    wrong = re.compile(r"share|percent|_age(_|$)|millis|_ms(_|$)|minutes|level|worker_info")
    units = ("_records", "_bytes", "_seconds", "_partitions", "_tokens", "_ratio", "_windows")
    # Either the unit is in the name, or there is none: counts of events, 0 or 1, a probability,
    # an index, or what tells by its labels.
    without = {
        "clerk_labels_total", "clerk_dead_letters_total", "clerk_truncated_messages_total",
        "clerk_confidence", "clerk_off_label_mass", "clerk_adapter_confidence",
        "clerk_adapter_off_label_mass", "clerk_rebalances_total", "clerk_transactions_total",
        "clerk_backpressure_events_total", "clerk_drift_label_psi", "clerk_drift_label_shift",
        "clerk_drift_threshold", "clerk_adapter_refused", "clerk_adapter_canary_stopped",
        "clerk_adapter_swaps_total", "clerk_adapter_refusals_total",
        "clerk_adapter_canary_stops_total", "clerk_ready", "clerk_stage_disagreements_total",
    }  # fmt: skip
    for metric in METRICS:
        assert not wrong.search(metric.name), metric.name
        if metric.name not in without and not metric.name.endswith("_info"):
            assert metric.name.removesuffix("_total").endswith(units), metric.name


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_explained_to_router_authors(reason: str) -> None:
    """A number on a dashboard leads to a sentence."""
    assert f"`{reason}`" in (ROOT / "docs" / "records.md").read_text(encoding="utf-8")


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
