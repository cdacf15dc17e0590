"""Drift in log, metrics and ``/info``, without message text."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import beta, binom, chi2, ncx2
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
from worker.contract import Calibration, Manifest
from worker.core.events import Published
from worker.observe.drift import (
    TOLERATED_PSI,
    DriftBaseline,
    DriftDetector,
    DriftListener,
    DriftPolicy,
    WindowReport,
    count_threshold,
    expected_errors,
    make_baseline,
    psi_by_label,
    psi_threshold,
    share_bound,
)
from worker.observe.registry import Registry
from worker.records.types import Classified, Outcome

POLICY = DriftPolicy(window=30, false_alarm_rate=0.01)
EVEN = [*LABELS] * 10
BILLING = ["billing"] * 30


class Watched(DriftListener):
    """A listener and its worker's main adapter, which a test may exchange."""

    def __init__(self, manifest: Manifest | None = None) -> None:
        self.main = manifest or small_manifest()
        super().__init__(lambda: self.main, POLICY)


@pytest.fixture
def listener() -> Watched:
    return Watched()


def feed(
    listener: Watched, labels: Sequence[str], value: bytes = b"", by: Manifest | None = None
) -> list[Any]:
    """Publish these labels in batches of 7, with dead letters between them; return the log."""
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


def test_a_quiet_window_is_shown_but_not_logged(listener: Watched) -> None:
    assert feed(listener, EVEN) == []
    shown = page(listener)
    assert shown("clerk_drift_label_psi") == 0
    assert shown("clerk_drift_off_label_ratio") == 0
    assert shown("clerk_drift_label_shift", label="billing") == pytest.approx(0)
    assert shown("clerk_drift_consecutive_windows", signal="labels") == 0
    assert shown("clerk_drift_windows_total", signal="labels", result="stable") == 1
    assert shown("clerk_drift_windows_total", signal="labels", result="drifted") == 0
    assert shown("clerk_drift_windows_total", signal="off_label", result="stable") == 1


def test_a_drifted_window_names_the_labels_that_moved(listener: Watched) -> None:
    """In the log and on the metrics page."""
    [logged] = feed(listener, BILLING)
    assert (logged["event"], logged["log_level"]) == ("drift.labels", "warning")
    assert logged["moved"]["billing"] == {"share": 1.0, "expected": 0.3333}
    assert logged["psi"] > logged["threshold"]
    assert logged["consecutive_windows"] == 1
    shown = page(listener)
    assert shown("clerk_drift_label_shift", label="billing") == pytest.approx(2 / 3)
    assert shown("clerk_drift_label_shift", label="other") == pytest.approx(-1 / 3)
    assert shown("clerk_drift_consecutive_windows", signal="labels") == 1
    assert shown("clerk_drift_windows_total", signal="labels", result="drifted") == 1


def test_lasting_drift_is_logged_less_and_less_often_and_so_is_its_end(
    listener: Watched,
) -> None:
    """A week of drift must not be a week of log lines."""
    logs = feed(listener, BILLING * 9 + EVEN * 2)
    drifted = [line["consecutive_windows"] for line in logs if line["event"] == "drift.labels"]
    assert drifted == [1, 2, 4, 8]
    assert [line for line in logs if line["event"] == "drift.ended"] == [
        {"event": "drift.ended", "log_level": "info", "signal": "labels", "windows": 9}
    ]


def test_off_label_mass_is_logged_separately(listener: Watched) -> None:
    sure = replace(
        small_manifest(),
        reference=replace(small_manifest().reference, off_label_mass={"0.95": 0.01}),  # type: ignore[type-var]
    )
    listener.main = sure
    [logged] = feed(listener, EVEN)
    assert logged["event"] == "drift.off_label"
    assert logged["ratio"] == 1.0


def test_without_a_reference_it_is_off_and_says_so_once() -> None:
    with capture_logs() as logs:
        listener = Watched(replace(small_manifest(), reference=None))
    [logged] = logs
    assert logged["event"] == "drift.off"
    assert feed(listener, BILLING * 3) == []
    assert page(listener).series == {}


def test_another_adapter_begins_a_new_window_and_the_same_one_does_not(listener: Watched) -> None:
    feed(listener, [*BILLING, *BILLING[:10]])
    listener.main = small_manifest()
    assert page(listener)("clerk_drift_label_psi") is not None
    listener.main = replace(small_manifest(), name="toy-2")
    feed(listener, BILLING[:1])
    assert page(listener)("clerk_drift_label_psi") is None
    assert page(listener)("clerk_drift_windows_total", signal="labels", result="drifted") == 1
    [logged] = feed(listener, BILLING[1:])
    assert logged["consecutive_windows"] == 1
    listener.main = replace(small_manifest(), reference=None)
    feed(listener, BILLING[:1])
    assert page(listener).series == {}


def test_what_a_canary_answers_is_no_drift_of_the_main_adapter(listener: Watched) -> None:
    """Records of the old adapter may still arrive after a swap."""
    assert feed(listener, BILLING * 2, by=replace(small_manifest(), name="toy-2")) == []
    assert page(listener)("clerk_drift_label_psi") is None


def test_no_text_of_a_message_is_shown(listener: Watched) -> None:
    logs = feed(listener, BILLING, value=b"my card is 4111")
    registry = Registry()
    registry.at_scrape(listener.metric_samples)
    said = json.dumps([logs, registry.page().decode()])
    assert logs
    for secret in ("4111", "customer-7", "trace"):
        assert secret not in said


def test_a_baseline_holds_up_the_loop_for_no_longer_than_a_batch() -> None:
    """It is computed between two records when an adapter begins to serve, also one that was
    validated on many messages."""
    calibration = replace(small_manifest().calibration, examples=20_000)
    manifest = replace(small_manifest(), calibration=calibration)
    began = time.process_time()
    assert make_baseline(manifest, DriftPolicy()) is not None
    assert time.process_time() - began < 0.1


def test_messages_that_fit_no_output_of_a_head_are_drift() -> None:
    reference = replace(toy_reference(), off_label_mass={}, out_of_scope={"0.95": -3.0})
    manifest = toy_encoder_manifest(golden=one_golden(toy_spec()), reference=reference)
    listener = Watched(manifest)
    adapter = toy_serving_adapter(manifest=manifest)
    for score, result in ((-3.5, "stable"), (-2.5, "drifted")):
        outcomes = [with_score(label(name), score) for name in EVEN]
        batch = [replace(record, adapter=adapter) for record in finished(*outcomes)]
        with capture_logs() as logs:
            listener(Published(batch, 0.1))
        logged = [line["event"] for line in logs]
        assert logged == (["drift.off_label"] if result == "drifted" else [])
        counted = page(listener)("clerk_drift_windows_total", signal="off_label", result=result)
        assert counted == 1


def with_score(outcome: Outcome, score: float) -> Classified:
    assert isinstance(outcome, Classified)
    decision = replace(outcome.decision, off_label_mass=None, out_of_scope=score)
    return replace(outcome, decision=decision)


BASELINE = DriftBaseline("d" * 64, dict.fromkeys(LABELS, 1 / 3), 0.05, 0.1, 0.2)


def make_detector(baseline: DriftBaseline = BASELINE, window: int = 30) -> DriftDetector:
    return DriftDetector(baseline, window)


def fill(
    detector: DriftDetector, labels: Sequence[str], mass: float | None = 0.0
) -> list[WindowReport]:
    """Add these answers; return the reports."""
    reports = [detector.add(name, mass) for name in labels]
    return [report for report in reports if report is not None]


USUAL_POLICY = DriftPolicy(1000, 0.01)


def test_the_thresholds_follow_from_the_manifest_and_the_window() -> None:
    manifest = small_manifest()
    found = make_baseline(manifest, USUAL_POLICY)
    assert found is not None
    assert found.digest == manifest.digest
    assert found.shares == {"billing": 1 / 3, "delivery": 1 / 3, "other": 1 / 3}
    assert 0.01 < found.psi_threshold < 0.1
    assert 0.05 < found.off_label_threshold < 0.2
    assert found.mass == 0.9
    longer = make_baseline(manifest, replace(USUAL_POLICY, window=10_000))
    assert longer is not None
    assert longer.psi_threshold < found.psi_threshold
    assert longer.off_label_threshold < found.off_label_threshold
    surer = make_baseline(replace(manifest, calibration=Calibration(1.0, 10_000)), USUAL_POLICY)
    assert surer is not None
    assert surer.off_label_threshold < found.off_label_threshold
    rarer = make_baseline(manifest, replace(USUAL_POLICY, false_alarm_rate=0.001))
    assert rarer is not None
    assert rarer.psi_threshold > found.psi_threshold
    assert rarer.off_label_threshold > found.off_label_threshold


def test_without_off_label_mass_the_labels_get_the_whole_alarm_rate() -> None:
    silent = replace(small_manifest(), reference=replace(toy_reference(), off_label_mass={}))
    found = make_baseline(silent, USUAL_POLICY)
    both = make_baseline(small_manifest(), replace(USUAL_POLICY, false_alarm_rate=0.02))
    assert found is not None
    assert both is not None
    assert found.mass is None
    assert found.psi_threshold == both.psi_threshold


def test_an_adapter_that_is_often_wrong_is_allowed_a_larger_shift() -> None:
    """Its errors change the labels' shares without any drift."""
    quantiles = {"0.05": 0.4, "0.25": 0.7, "0.5": 0.9}
    weak = replace(small_manifest(), reference=replace(toy_reference(), confidence=quantiles))
    wrong = expected_errors(quantiles)
    assert 0.15 < wrong < 0.25
    found = make_baseline(weak, USUAL_POLICY)
    assert found is not None
    assert found.psi_threshold == psi_threshold(1000, 3, TOLERATED_PSI + wrong**2, 0.005)


def test_the_errors_expected_are_what_the_confidences_leave() -> None:
    assert expected_errors({}) == 0
    assert expected_errors({"0.5": 0.5}) == 0.5
    assert expected_errors({"0.01": 1.0, "0.5": 1.0}) == pytest.approx(0.005)
    draw = random.Random(1)
    values = sorted(draw.betavariate(8, 1) for _ in range(10_000))
    some = {f"{at:g}": values[int(at * len(values))] for at in (0.01, 0.05, 0.1, 0.25, 0.5)}
    assert expected_errors(some) == pytest.approx(1 - sum(values) / len(values), abs=0.03)


ELEVEN = {f"label-{n}": 1 / 11 for n in range(11)}


def test_psi_is_the_sum_of_its_parts_and_zero_without_a_shift() -> None:
    """Siddiqi's formula, except for the half message in each cell."""
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert sum(psi_by_label({"a": 500, "b": 300, "c": 200}, shares).values()) == 0
    parts = psi_by_label({"a": 50_000, "b": 20_000, "c": 30_000}, shares)
    assert parts["a"] == 0
    assert parts["b"] == pytest.approx((0.2 - 0.3) * math.log(0.2 / 0.3), rel=1e-3)
    assert parts["c"] == pytest.approx((0.3 - 0.2) * math.log(0.3 / 0.2), rel=1e-3)
    assert all(part >= 0 for part in parts.values())


@pytest.mark.parametrize("labels", [2, 3, 5, 11, 30, 77])
@pytest.mark.parametrize("window", [100, 1000, 10_000])
@pytest.mark.parametrize("tolerated", [0.0, 0.01])
def test_the_threshold_is_the_quantile_it_stands_for(
    labels: int, window: int, tolerated: float
) -> None:
    """Within 1 % below and 2.5 % above the exact quantile."""
    for share in (0.01, 0.005):
        exact = (
            ncx2.ppf(1 - share, labels - 1, window * tolerated)
            if tolerated
            else chi2.ppf(1 - share, labels - 1)
        )
        found = psi_threshold(window, labels, tolerated, share) * window
        assert 0.99 * exact < found < 1.025 * exact


def test_windows_without_drift_exceed_the_threshold_as_rarely_as_said() -> None:
    """Two thousand simulated windows."""
    draw = random.Random(1)
    shares = {name: (n + 1) / 66 for n, name in enumerate(ELEVEN)}
    threshold = psi_threshold(200, 11, 0.0, 0.05)
    over = 0
    for _ in range(2000):
        counts = Counter(draw.choices([*shares], [*shares.values()], k=200))
        over += sum(psi_by_label(counts, shares).values()) > threshold
    assert 0.03 < over / 2000 < 0.07


@pytest.mark.parametrize(("above", "examples"), [(40, 800), (2, 198), (0, 50), (5, 100)])
def test_the_bound_of_a_share_is_the_exact_one(above: int, examples: int) -> None:
    """Clopper and Pearson's bound, computed from a beta distribution."""
    exact = beta.ppf(0.95, above + 1, examples - above)
    assert share_bound(above / examples, examples, 0.95) == pytest.approx(exact, rel=1e-9)
    assert share_bound(1.0, examples, 0.95) == 1


@pytest.mark.parametrize("window", [50, 1000, 5000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.07, 0.5, 1.0])
def test_the_threshold_of_a_count_is_the_smallest_that_is_rare_enough(
    window: int, share: float
) -> None:
    found = count_threshold(window, share, 0.005)
    assert binom.sf(found - 1, window, share) <= 0.005
    if share:
        assert binom.sf(found - 2, window, share) > 0.005
