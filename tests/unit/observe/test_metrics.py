"""The list of metrics is complete, on the page and in the documentation."""

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
from worker.contract.errors import MessageRejected
from worker.core.arms import CANARY, Arm
from worker.core.events import Published
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.observe.metrics import METRICS, REASONS, Metric, MetricLabel
from worker.observe.observer import Observer
from worker.observe.page import metrics_page
from worker.observe.registry import Registry
from worker.records.encode import RetryPolicy
from worker.serving import make_adapter_router
from worker.settings import HttpSettings, Settings

ROOT = Path(__file__).parents[3]


def test_the_documentation_is_what_the_code_says() -> None:
    """Run ``make metrics`` after a change."""
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == metrics_page()


def test_every_metric_named_is_on_the_page_of_a_running_worker_and_no_other() -> None:
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


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_explained_to_router_authors(reason: str) -> None:
    assert f"`{reason}`" in (ROOT / "docs" / "records.md").read_text(encoding="utf-8")


BOUNDS = (0.005, 0.5, 1.0, 120.0, 21600.0)
numbers = st.one_of(st.sampled_from([*BOUNDS, -1.0, 1e9]), st.floats(-1, 1e6))
METRIC = Metric("clerk_toy_seconds", "histogram", "A toy.", (MetricLabel("adapter"),), BOUNDS)


@given(st.lists(st.lists(numbers, max_size=20), max_size=5))
def test_the_page_is_the_one_that_the_client_would_show(batches: list[list[float]]) -> None:
    """The registry's own histogram is faster; dashboards must not see a difference."""
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
