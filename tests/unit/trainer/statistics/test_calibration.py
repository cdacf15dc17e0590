"""Temperature and calibration error, on data with a known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.statistics.calibration import (
    calibrate,
    cross_fitted,
    ece,
    fit_temperature,
    nll,
    off_label_mass,
    reliability,
    temperature_softmax,
)

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


def test_the_temperature_minimizes_the_nll_and_fixes_overconfidence() -> None:
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
    """Rounding may raise their sum above one; a mass is never negative."""
    found = off_label_mass(np.log(np.array([[0.7, 0.2], [0.6, 0.4 + 1e-9]])))
    assert found == pytest.approx([0.1, 0.0])
    assert found.min() >= 0.0


def test_a_flawless_validation_set_still_gives_a_finite_temperature() -> None:
    logprobs = np.log(np.full((20, 3), 0.05) + np.eye(3)[np.arange(20) % 3] * 0.85)
    found = calibrate(logprobs, np.arange(20) % 3, **SETTINGS, review_precision_by="point")
    assert found.calibration.temperature > 0.3
    assert found.thresholds.review_confidence == 0.5
    assert found.accepted_share == 1.0


def test_twenty_flawless_messages_are_no_proof_of_a_precision() -> None:
    """By the lower bound everything goes to review."""
    logprobs = np.log(np.full((20, 3), 0.05) + np.eye(3)[np.arange(20) % 3] * 0.85)
    found = calibrate(logprobs, np.arange(20) % 3, **SETTINGS)
    assert found.thresholds.review_confidence == 1.0
    assert (found.accepted_share, found.accepted_precision) == (0.0, None)
    assert found.point_accepted_share == 1.0


def test_one_validation_row_is_enough_to_go_on() -> None:
    found = calibrate(np.log(np.array([[0.7, 0.2]])), np.array([0]), **SETTINGS)
    assert found.calibration.examples == 1
