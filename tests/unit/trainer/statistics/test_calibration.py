"""Temperature, calibration error and thresholds, against data whose truth is planted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.statistics.calibration import (
    MIN_OFF_LABEL_MASS,
    accept,
    calibrate,
    coverage_curve,
    cross_fitted,
    ece,
    fit_temperature,
    nll,
    off_label_mass,
    off_label_threshold,
    reliability,
    review_threshold,
    temperature_softmax,
)
from trainer.statistics.figures import CoveragePoint

SETTINGS: Any = {
    "review_precision": 0.95,
    "review_floor": 0.5,
    "off_label_quantile": 0.995,
    "seed": 1,
}
RNG = np.random.default_rng(4)
CONFIDENCE = RNG.random(997)
CORRECT = RNG.random(997) < CONFIDENCE


def planted(
    temperature: float, rows: int = 4000, labels: int = 5, scale: float = 2.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Scores whose truth is drawn from their softmax over ``temperature``."""
    rng = np.random.default_rng(5)
    scores = rng.normal(scale=scale, size=(rows, labels)) * temperature
    probabilities = temperature_softmax(scores, temperature)
    truth = np.array([rng.choice(labels, p=row) for row in probabilities], dtype=np.int64)
    logprobs = scores - np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return logprobs, truth


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_planted_temperature_is_recovered(temperature: float) -> None:
    logprobs, truth = planted(temperature)
    assert fit_temperature(logprobs, truth) == pytest.approx(temperature, rel=0.08)


def test_the_temperature_is_the_best_there_is_and_mends_over_confidence() -> None:
    logprobs, truth = planted(3.0)
    found = fit_temperature(logprobs, truth)
    best = nll(temperature_softmax(logprobs, found), truth)
    assert all(
        best <= nll(temperature_softmax(logprobs, found * by), truth)
        for by in (0.9, 0.97, 1.03, 1.1)
    )
    correct = logprobs.argmax(axis=1) == truth
    assert ece(temperature_softmax(logprobs, found).max(axis=1), correct) < 0.03
    assert ece(temperature_softmax(logprobs, 1.0).max(axis=1), correct) > 0.15


def test_cross_fitting_never_uses_a_rows_own_truth() -> None:
    logprobs, truth = planted(1.5, rows=50)
    changed = truth.copy()
    changed[7] = (truth[7] + 1) % 5
    before = cross_fitted(logprobs, truth, seed=1)
    after = cross_fitted(logprobs, changed, seed=1)
    assert np.array_equal(before[7], after[7])
    assert not np.array_equal(before, after)


def test_the_bins_hold_every_message_once_and_give_the_ece() -> None:
    bins = reliability(CONFIDENCE, CORRECT)
    counts = np.array([members.count for members in bins])
    assert counts.sum() == 997
    assert counts.max() - counts.min() <= 1
    gaps = [abs(members.confidence - members.accuracy) * members.count for members in bins]
    assert sum(gaps) / 997 == pytest.approx(ece(CONFIDENCE, CORRECT))


def test_the_off_label_mass_is_what_the_codes_leave() -> None:
    """Rounding may carry their sum above one; a mass is never negative."""
    found = off_label_mass(np.log(np.array([[0.7, 0.2], [0.6, 0.4 + 1e-9]])))
    assert found == pytest.approx([0.1, 0.0])
    assert found.min() >= 0.0


def test_a_flawless_validation_set_still_gives_a_finite_temperature() -> None:
    logprobs = np.log(np.full((20, 3), 0.05) + np.eye(3)[np.arange(20) % 3] * 0.85)
    found = calibrate(logprobs, np.arange(20) % 3, **SETTINGS)
    assert found.calibration.temperature > 0.3
    assert found.thresholds.review_confidence == 0.5
    assert found.accepted_share == 1.0


def test_one_validation_row_is_enough_to_go_on() -> None:
    found = calibrate(np.log(np.array([[0.7, 0.2]])), np.array([0]), **SETTINGS)
    assert found.calibration.examples == 1


def test_the_review_threshold_is_the_lowest_that_reaches_the_precision() -> None:
    confidence = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, True, True, False, False])
    assert review_threshold(confidence, correct, 0.95, floor=0.0) == 0.8
    assert review_threshold(confidence, correct, 0.8, floor=0.0) == 0.7
    assert review_threshold(confidence, correct, 0.8, floor=0.75) == 0.75
    assert review_threshold(confidence, correct, 0.6, floor=0.3) == 0.3


def test_nothing_good_enough_sends_everything_to_review() -> None:
    confidence = np.array([0.9, 0.8])
    assert review_threshold(confidence, np.array([False, True]), 0.95, floor=0.5) == 1.0


def test_rows_of_equal_confidence_stand_or_fall_together() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.8])
    correct = np.array([True, True, False, False])
    assert review_threshold(confidence, correct, 0.95, floor=0.5) == 0.9


def test_the_off_label_threshold_is_a_rounded_up_quantile_with_a_floor() -> None:
    assert off_label_threshold(np.full(100, 1e-6), 0.995) == MIN_OFF_LABEL_MASS
    assert off_label_threshold(np.linspace(0, 0.301, 1000), 0.995) == pytest.approx(0.3)


def test_the_coverage_curve_starts_with_everything_and_gets_surer() -> None:
    points = coverage_curve(CONFIDENCE, CORRECT)
    assert points[0].coverage == 1.0
    assert points[0].accuracy == pytest.approx(CORRECT.mean())
    coverage = [point.coverage for point in points]
    assert coverage == sorted(coverage, reverse=True)
    assert points[-1].coverage == pytest.approx(0.05, abs=0.01)
    least, most = points[0].accuracy, points[-1].accuracy
    assert least is not None
    assert most is not None
    assert most > least


def test_equal_confidences_are_one_point_of_the_curve() -> None:
    assert len(coverage_curve(np.full(50, 0.9), np.ones(50, dtype=bool))) == 1


def test_a_threshold_that_accepts_nothing_has_no_accuracy() -> None:
    assert accept(CONFIDENCE, CORRECT, 2.0) == CoveragePoint(2.0, 0.0, None)
