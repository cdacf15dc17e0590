"""Reliability, coverage and separation are what their definitions say."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from trainer.statistics.calibration import ece, reliability
from trainer.statistics.figures import CoveragePoint
from trainer.statistics.metrics import auroc
from trainer.statistics.thresholds import accept, coverage_curve

RNG = np.random.default_rng(4)
CONFIDENCE = RNG.random(997)
CORRECT = RNG.random(997) < CONFIDENCE


def test_auroc_agrees_with_scikit_learn_ties_included() -> None:
    low, high = RNG.integers(0, 20, 300) / 20, RNG.integers(5, 25, 200) / 20
    truth = np.r_[np.zeros(300), np.ones(200)]
    assert auroc(low, high) == pytest.approx(roc_auc_score(truth, np.r_[low, high]))


def test_auroc_of_separate_and_of_equal_values() -> None:
    assert auroc(np.array([0.1, 0.2]), np.array([0.3])) == 1.0
    assert auroc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5


def test_the_bins_hold_every_message_once_and_give_the_ece() -> None:
    bins = reliability(CONFIDENCE, CORRECT)
    counts = np.array([members.count for members in bins])
    assert counts.sum() == 997
    assert counts.max() - counts.min() <= 1
    gaps = [abs(members.confidence - members.accuracy) * members.count for members in bins]
    assert sum(gaps) / 997 == pytest.approx(ece(CONFIDENCE, CORRECT))


def test_the_coverage_curve_starts_with_everything_and_gets_surer() -> None:
    points = coverage_curve(CONFIDENCE, CORRECT)
    assert points[0].coverage == 1.0
    assert points[0].accuracy == pytest.approx(CORRECT.mean())
    coverage = [point.coverage for point in points]
    assert coverage == sorted(coverage, reverse=True)
    assert points[-1].coverage == pytest.approx(0.05, abs=0.01)
    assert points[-1].accuracy > points[0].accuracy


def test_equal_confidences_are_one_point_of_the_curve() -> None:
    assert len(coverage_curve(np.full(50, 0.9), np.ones(50, dtype=bool))) == 1


def test_a_threshold_that_accepts_nothing_has_no_accuracy() -> None:
    assert accept(CONFIDENCE, CORRECT, 2.0) == CoveragePoint(2.0, 0.0, None)
