"""What a manifest's reference makes of a window, and what a setting overrides."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from tests.support.toy_adapter import (
    one_golden,
    small_manifest,
    toy_encoder_manifest,
    toy_reference,
    toy_spec,
)
from worker.contract import Calibration
from worker.observe.drift.baseline import (
    LEAST_MASS,
    TOLERATED_PSI,
    DriftPolicy,
    expected_errors,
    make_baseline,
)
from worker.observe.drift.statistics import psi_threshold

POLICY = DriftPolicy(1000, 0.01)


def test_without_a_reference_there_is_nothing_to_compare_with() -> None:
    """As with an adapter that was trained before manifests had one."""
    assert make_baseline(replace(small_manifest(), reference=None), POLICY) is None


def test_the_thresholds_follow_from_the_manifest_and_the_window() -> None:
    """Labels, validation's size and the window all move them; a larger window finds less."""
    manifest = small_manifest()
    found = make_baseline(manifest, POLICY)
    assert found is not None
    assert found.digest == manifest.digest
    assert found.shares == {"billing": 1 / 3, "delivery": 1 / 3, "other": 1 / 3}
    assert 0.01 < found.psi_threshold < 0.1
    assert 0.05 < found.off_label_threshold < 0.2
    assert found.mass == 0.9
    longer = make_baseline(manifest, replace(POLICY, window=10_000))
    assert longer is not None
    assert longer.psi_threshold < found.psi_threshold
    assert longer.off_label_threshold < found.off_label_threshold
    surer = make_baseline(replace(manifest, calibration=Calibration(1.0, 10_000)), POLICY)
    assert surer is not None
    assert surer.off_label_threshold < found.off_label_threshold
    rarer = make_baseline(manifest, replace(POLICY, false_alarm_rate=0.001))
    assert rarer is not None
    assert rarer.psi_threshold > found.psi_threshold
    assert rarer.off_label_threshold > found.off_label_threshold


def test_the_labels_have_all_the_false_alarms_where_no_mass_is_told() -> None:
    """Choice decoding: one signal, at the threshold for the whole rate."""
    silent = replace(small_manifest(), reference=replace(toy_reference(), off_label_mass={}))
    found = make_baseline(silent, POLICY)
    both = make_baseline(small_manifest(), replace(POLICY, false_alarm_rate=0.02))
    assert found is not None
    assert both is not None
    assert found.mass is None
    assert found.psi_threshold == both.psi_threshold


def test_a_mass_that_is_rounding_is_no_baseline() -> None:
    """A sure model leaves a millionth to everything else: more than that is not yet doubt."""
    sure = replace(small_manifest(), reference=replace(toy_reference(), off_label_mass={"0.95": 0}))
    found = make_baseline(sure, POLICY)
    assert found is not None
    assert found.mass == LEAST_MASS


def test_a_head_is_compared_by_its_out_of_scope_score() -> None:
    """Of any sign and size, so no value of it is rounding; the threshold is that of any other."""
    reference = replace(toy_reference(), off_label_mass={}, out_of_scope={"0.95": -3.5})
    manifest = toy_encoder_manifest(golden=one_golden(toy_spec()), reference=reference)
    found = make_baseline(manifest, POLICY)
    other = make_baseline(small_manifest(), POLICY)
    assert found is not None
    assert other is not None
    assert found.mass == -3.5
    assert found.off_label_threshold == other.off_label_threshold


def test_an_adapter_that_is_often_wrong_is_allowed_a_larger_shift() -> None:
    """Its confusions move the shares of labels where nothing has drifted."""
    quantiles = {"0.05": 0.4, "0.25": 0.7, "0.5": 0.9}
    weak = replace(small_manifest(), reference=replace(toy_reference(), confidence=quantiles))
    wrong = expected_errors(quantiles)
    assert 0.15 < wrong < 0.25
    found = make_baseline(weak, POLICY)
    assert found is not None
    assert found.psi_threshold == psi_threshold(1000, 3, TOLERATED_PSI + wrong**2, 0.005)


def test_the_errors_expected_are_what_the_confidences_leave() -> None:
    """From the mean of calibrated confidences; nothing is expected of nothing."""
    assert expected_errors({}) == 0
    assert expected_errors({"0.5": 0.5}) == 0.5
    assert expected_errors({"0.01": 1.0, "0.5": 1.0}) == pytest.approx(0.005)
    draw = random.Random(1)
    values = sorted(draw.betavariate(8, 1) for _ in range(10_000))
    some = {f"{at:g}": values[int(at * len(values))] for at in (0.01, 0.05, 0.1, 0.25, 0.5)}
    assert expected_errors(some) == pytest.approx(1 - sum(values) / len(values), abs=0.03)


@pytest.mark.parametrize("examples", [0, 1, 10])
def test_little_validation_makes_a_careful_threshold_and_no_error(examples: int) -> None:
    """Down to none at all, where only a window full of them would be drift."""
    found = make_baseline(replace(small_manifest(), calibration=Calibration(1.0, examples)), POLICY)
    assert found is not None
    assert 0.2 < found.off_label_threshold <= 1.001
    assert math.isfinite(found.psi_threshold)
