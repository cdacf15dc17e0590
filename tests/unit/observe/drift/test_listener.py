"""Drift as people see it: log lines, metrics, ``/info``; and nothing of a message in them."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.toy_adapter import (
    LABELS,
    one_golden,
    small_manifest,
    toy_encoder_manifest,
    toy_reference,
    toy_serving_adapter,
    toy_spec,
)
from tests.unit.observe.conftest import Scrape, finished, label, rejected
from worker.contract import Manifest
from worker.core.events import Published
from worker.observe.drift import listener as listener_module
from worker.observe.drift.baseline import DriftPolicy, make_baseline
from worker.observe.drift.listener import DriftListener
from worker.observe.registry import Registry
from worker.records.types import Classified, Outcome

POLICY = DriftPolicy(window=30, false_alarm_rate=0.01, sample_ids=2)
EVEN = [*LABELS] * 10
BILLING = ["billing"] * 30


class Watched(DriftListener):
    """A listener and its worker's main adapter, which a test may exchange."""

    def __init__(self, manifest: Manifest | None = None) -> None:
        self.main = manifest or small_manifest()
        super().__init__(lambda: self.main, POLICY, in_background=lambda work: work())


@pytest.fixture
def listener() -> Watched:
    return Watched()


def feed(
    listener: Watched, labels: Sequence[str], value: bytes = b"", by: Manifest | None = None
) -> list[Any]:
    """Publish these labels, of the main adapter or another, in batches of 7, dead letters between
    them; return the log."""
    adapter = toy_serving_adapter(manifest=by or listener.main)
    with capture_logs() as logs:
        for at in range(0, len(labels), 7):
            batch = finished(*map(label, labels[at : at + 7]), rejected(), value=value)
            listener(Published([replace(record, adapter=adapter) for record in batch], 0.1))
    return list(logs)


def page(listener: Watched) -> Scrape:
    registry = Registry()
    registry.at_scrape(listener.metric_samples)
    return Scrape(registry.page())


def test_a_quiet_window_shows_and_is_not_told(listener: Watched) -> None:
    """Figures on the page; not a line in the log."""
    assert feed(listener, EVEN) == []
    shown = page(listener)
    assert shown("clerk_drift_label_psi") == 0
    assert shown("clerk_drift_off_label_ratio") == 0
    assert shown("clerk_drift_label_shift", label="billing") == pytest.approx(0)
    assert shown("clerk_drift_consecutive_windows", signal="labels") == 0
    assert shown("clerk_drift_windows_total", signal="labels", result="stable") == 1
    assert shown("clerk_drift_windows_total", signal="labels", result="drifted") == 0
    assert shown("clerk_drift_windows_total", signal="off_label", result="stable") == 1


def test_before_the_first_window_is_full_only_the_thresholds_show(listener: Watched) -> None:
    """Nothing is known yet, and 0 would be a claim."""
    feed(listener, EVEN[:29])
    shown = page(listener)
    assert shown("clerk_drift_label_psi") is None
    assert shown("clerk_drift_consecutive_windows", signal="labels") is None
    assert (shown("clerk_drift_threshold", signal="labels") or 0) > 0.1
    assert (shown("clerk_drift_threshold", signal="off_label") or 0) > 0.1
    assert shown("clerk_drift_windows_total", signal="labels", result="stable") == 0
    found = listener.info()
    assert found["messages"] == 29
    assert found["last"] is None


def test_a_drifted_window_names_the_labels_that_moved(listener: Watched) -> None:
    """With shares, threshold and ids to look at; on the page and in /info as well."""
    [told] = feed(listener, BILLING)
    assert (told["event"], told["log_level"]) == ("drift.labels", "warning")
    assert told["moved"]["billing"] == {"share": 1.0, "expected": 0.3333}
    assert told["psi"] > told["threshold"]
    assert told["consecutive_windows"] == 1
    assert len(told["sample"]) == 2
    assert all(record_id.startswith("in-3-") for record_id in told["sample"])
    shown = page(listener)
    assert shown("clerk_drift_label_shift", label="billing") == pytest.approx(2 / 3)
    assert shown("clerk_drift_label_shift", label="other") == pytest.approx(-1 / 3)
    assert shown("clerk_drift_consecutive_windows", signal="labels") == 1
    assert shown("clerk_drift_windows_total", signal="labels", result="drifted") == 1
    last = json.loads(json.dumps(listener.info()))["last"]
    assert last["moved"] == told["moved"]
    assert last["samples"] == {"labels": told["sample"]}
    assert last["consecutive_drifted_windows"] == {"labels": 1, "off_label": 0}


def test_what_lasts_is_told_less_and_less_often_and_its_end_is_told(
    listener: Watched,
) -> None:
    """A week of drift is not a week of log lines."""
    logs = feed(listener, BILLING * 9 + EVEN * 2)
    drifted = [line["consecutive_windows"] for line in logs if line["event"] == "drift.labels"]
    assert drifted == [1, 2, 4, 8]
    assert [line for line in logs if line["event"] == "drift.ended"] == [
        {"event": "drift.ended", "log_level": "info", "signal": "labels", "windows": 9}
    ]


def test_off_label_mass_is_told_apart(listener: Watched) -> None:
    """The labels' mix is as ever, and the model believes in none of them."""
    sure = replace(
        small_manifest(),
        reference=replace(small_manifest().reference, off_label_mass={"0.95": 0.01}),  # type: ignore[type-var]
    )
    listener.main = sure
    [told] = feed(listener, EVEN)
    assert told["event"] == "drift.off_label"
    assert told["ratio"] == 1.0
    assert len(told["sample"]) == 2


def test_without_a_reference_it_is_off_and_says_so_once() -> None:
    """One line, no series, nothing in /info."""
    with capture_logs() as logs:
        listener = Watched(replace(small_manifest(), reference=None))
    [told] = logs
    assert told["event"] == "drift.off"
    assert feed(listener, BILLING * 3) == []
    assert listener.info() is None
    assert page(listener).series == {}


def test_another_adapter_begins_anew_and_the_same_one_does_not(listener: Watched) -> None:
    """What was counted of one says nothing of another; told again of the same, it goes on."""
    feed(listener, [*BILLING, *BILLING[:10]])
    listener.main = small_manifest()
    feed(listener, BILLING[:1])
    assert listener.info()["messages"] == 11
    listener.main = replace(small_manifest(), name="toy-2")
    feed(listener, BILLING[:1])
    assert listener.info()["messages"] == 1
    assert listener.info()["last"] is None
    assert page(listener)("clerk_drift_label_psi") is None
    assert page(listener)("clerk_drift_windows_total", signal="labels", result="drifted") == 1
    [told] = feed(listener, BILLING[1:])
    assert told["consecutive_windows"] == 1
    listener.main = replace(small_manifest(), reference=None)
    feed(listener, BILLING[:1])
    assert listener.info() is None


def test_what_a_canary_answers_is_no_drift_of_the_main_adapter(listener: Watched) -> None:
    """It is judged as a canary; and records of the old adapter may come after a swap."""
    assert feed(listener, BILLING * 2, by=replace(small_manifest(), name="toy-2")) == []
    assert listener.info()["messages"] == 0


def test_nothing_of_a_message_is_told(listener: Watched) -> None:
    """Neither in the log nor on the page nor in /info."""
    logs = feed(listener, BILLING, value=b"my card is 4111")
    registry = Registry()
    registry.at_scrape(listener.metric_samples)
    said = json.dumps([logs, listener.info(), registry.page().decode()])
    assert logs
    for secret in ("4111", "customer-7", "trace"):
        assert secret not in said


def test_the_loop_does_not_wait_for_a_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes the better part of a second; the old window goes on until the new one can begin."""
    mains = [small_manifest(), replace(small_manifest(), name="next")]
    main, threads, release = [mains[0]], list[str](), threading.Event()

    def slow(manifest: Manifest, policy: DriftPolicy) -> Any:
        threads.append(threading.current_thread().name)
        if len(threads) > 1:
            assert release.wait(10)
        return make_baseline(manifest, policy)

    monkeypatch.setattr(listener_module, "make_baseline", slow)
    listener = DriftListener(lambda: main[0], POLICY)
    assert threads == [threading.current_thread().name], "the first before anything is served"
    main[0] = mains[1]
    for _ in range(3):
        listener(Published([], 0.1))
    assert listener.info()["adapter_digest"] == mains[0].digest
    assert threads[1:] in ([], ["drift-baseline"])
    release.set()
    end = time.monotonic() + 10
    while listener.info()["adapter_digest"] != mains[1].digest:
        assert time.monotonic() < end
        listener(Published([], 0.1))
    assert threads[1:] == ["drift-baseline"]
    assert listener.info()["messages"] == 0


def test_messages_that_fit_no_output_of_a_head_are_drift() -> None:
    """By the out-of-scope score, where there is no off-label mass."""
    reference = replace(toy_reference(), off_label_mass={}, out_of_scope={"0.95": -3.0})
    manifest = toy_encoder_manifest(golden=one_golden(toy_spec()), reference=reference)
    listener = Watched(manifest)
    adapter = toy_serving_adapter(manifest=manifest)
    for score, result in ((-3.5, "stable"), (-2.5, "drifted")):
        outcomes = [with_score(label(name), score) for name in EVEN]
        batch = [replace(record, adapter=adapter) for record in finished(*outcomes)]
        with capture_logs() as logs:
            listener(Published(batch, 0.1))
        told = [line["event"] for line in logs]
        assert told == (["drift.off_label"] if result == "drifted" else [])
        counted = page(listener)("clerk_drift_windows_total", signal="off_label", result=result)
        assert counted == 1


def with_score(outcome: Outcome, score: float) -> Classified:
    assert isinstance(outcome, Classified)
    decision = replace(outcome.decision, off_label_mass=None, out_of_scope=score)
    return replace(outcome, decision=decision)
