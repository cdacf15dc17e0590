"""The list of metrics is complete, on the page, and in the documentation."""

import re
from pathlib import Path

import pytest

from tests.support.rig import started
from tests.support.toy_adapter import ENCODERS, small_manifest
from tests.unit.observe.conftest import Scrape, finished, label
from worker.engine.fake import FakeEngine
from worker.engine.open import OpenedEngine
from worker.observe.metrics import GROUPS, METRICS, REASONS
from worker.observe.observer import Observer
from worker.observe.page import metrics_page
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
        observer.model_ready(opened, *make_adapter_router(Settings(), opened, observer.adapters))
        rig = started("m0")
        observer.runs(rig.loop, rig.stream)
        for listener in observer.listeners:  # a whole window, for what drift shows
            listener.published(finished(*[label()] * 1000), 0.1)
        page = Scrape(observer.metrics())
    finally:
        observer.close()
    found = {}
    for family in page.families.values():
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {key for one in family.samples for key in one.labels} - {"le"}
        found[name] = (family.type, labels)
    assert found == {one.name: (one.kind, set(one.labels)) for one in METRICS}


def test_names_say_what_they_count_and_in_which_unit() -> None:
    """Counters end in _total, times in _seconds; every one is the worker's own."""
    assert len({one.name for one in METRICS}) == len(METRICS)
    for one in METRICS:
        assert re.fullmatch(r"clerk_[a-z_]+", one.name), one
        assert one.name.endswith("_total") == (one.kind == "counter"), one
        assert bool(one.buckets) == (one.kind == "histogram"), one
        assert list(one.buckets) == sorted(set(one.buckets)), one
        assert one.help.endswith("."), one


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_is_explained_to_router_authors(reason: str) -> None:
    """A number on a dashboard leads to a sentence."""
    assert f"`{reason}`" in (ROOT / "docs" / "records.md").read_text(encoding="utf-8")


def test_every_group_of_the_page_has_its_metrics() -> None:
    """None is in two, none is left out."""
    grouped = [one.name for _, group in GROUPS for one in group]
    assert sorted(grouped) == sorted({one.name for one in METRICS})
