"""Review thresholds: by the point value, by the lower bound, and what they accept."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from scipy.stats import binomtest

from trainer.statistics.figures import CoveragePoint, ThresholdRule
from trainer.statistics.thresholds import (
    MIN_OFF_LABEL_MASS,
    accept,
    coverage_curve,
    off_label_threshold,
    review_threshold,
)

RNG = np.random.default_rng(4)
CONFIDENCE = RNG.random(997)
CORRECT = RNG.random(997) < CONFIDENCE


def test_by_the_point_value_the_threshold_is_the_lowest_that_reaches_the_precision() -> None:
    confidence = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, True, True, False, False])
    assert review_threshold(confidence, correct, 0.95, floor=0.0, by="point") == 0.8
    assert review_threshold(confidence, correct, 0.8, floor=0.0, by="point") == 0.7
    assert review_threshold(confidence, correct, 0.8, floor=0.75, by="point") == 0.75
    assert review_threshold(confidence, correct, 0.6, floor=0.3, by="point") == 0.3


def test_nothing_good_enough_sends_everything_to_review() -> None:
    confidence = np.array([0.9, 0.8])
    for by in get_args(ThresholdRule):
        right = np.array([False, True])
        assert review_threshold(confidence, right, 0.95, floor=0.5, by=by) == 1.0


def test_rows_of_equal_confidence_stand_or_fall_together() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.8])
    correct = np.array([True, True, False, False])
    assert review_threshold(confidence, correct, 0.95, floor=0.5, by="point") == 0.9


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


def test_by_the_lower_bound_the_accepted_rows_prove_the_precision() -> None:
    """What is accepted passes the exact binomial test at 5 %; one hundredth of the rows more does
    not."""
    order = np.argsort(-CONFIDENCE)
    threshold = review_threshold(CONFIDENCE, CORRECT, 0.8, floor=0.0)
    count = int((threshold <= CONFIDENCE).sum())
    assert 100 < count < 997
    for more, passes in ((0, True), (10, False)):
        hits = int(CORRECT[order[: count + more]].sum())
        p = binomtest(hits, count + more, 0.8, alternative="greater").pvalue
        assert bool(p <= 0.05) is passes


def test_where_every_row_proves_it_the_floor_stands() -> None:
    """59 messages without an error are the fewest that prove 95 %."""
    for rows, wanted in ((58, 1.0), (59, 0.5)):
        confidence, right = np.linspace(0.6, 0.99, rows), np.ones(rows, dtype=bool)
        assert review_threshold(confidence, right, 0.95, floor=0.5) == wanted


def test_equal_confidences_are_accepted_together_or_not_at_all() -> None:
    confidence = np.repeat([0.99, 0.6], [200, 20])
    correct = np.repeat([True, False], [200, 20])
    assert review_threshold(confidence, correct, 0.95, floor=0.0) == 0.99
    assert review_threshold(np.full(220, 0.9), correct, 0.95, floor=0.0) == 1.0
    assert review_threshold(np.full(220, 0.9), correct, 0.85, floor=0.0) == 0.0
