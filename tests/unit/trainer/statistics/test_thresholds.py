"""Review thresholds: by the point value, by the lower bound, and the messages they accept."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest

from trainer.statistics.figures import CoveragePoint, ThresholdRule
from trainer.statistics.thresholds import (
    MIN_OFF_LABEL_MASS,
    accept,
    coverage_curve,
    describe_promise,
    fewest_rows,
    find_promise,
    off_label_threshold,
    review_threshold,
)

RNG = np.random.default_rng(4)
CONFIDENCE = RNG.random(997)
CORRECT = RNG.random(997) < CONFIDENCE


def test_by_the_point_value_the_threshold_is_the_lowest_that_reaches_the_precision() -> None:
    confidence = np.array([0.99, 0.95, 0.9, 0.8, 0.7, 0.6])
    correct = np.array([True, True, True, True, False, False])
    assert review_threshold(confidence, correct, 0.95, floor=0.0, by="point") == pytest.approx(0.8)
    assert review_threshold(confidence, correct, 0.8, floor=0.0, by="point") == pytest.approx(0.7)
    assert review_threshold(confidence, correct, 0.8, floor=0.75, by="point") == 0.75
    assert review_threshold(confidence, correct, 0.6, floor=0.3, by="point") == 0.3


def test_nothing_good_enough_sends_everything_to_review() -> None:
    confidence = np.array([0.9, 0.8])
    for by in get_args(ThresholdRule):
        right = np.array([False, True])
        assert review_threshold(confidence, right, 0.95, floor=0.5, by=by) == 1.0


def test_by_the_point_value_rows_of_equal_confidence_are_accepted_together() -> None:
    confidence = np.array([0.9, 0.8, 0.8, 0.8])
    correct = np.array([True, True, False, False])
    assert review_threshold(confidence, correct, 0.95, floor=0.5, by="point") == pytest.approx(0.9)


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
    """The accepted rows pass the exact binomial test at 5 %; a hundredth more rows do not."""
    order = np.argsort(-CONFIDENCE)
    threshold = review_threshold(CONFIDENCE, CORRECT, 0.8, floor=0.0)
    count = int((threshold <= CONFIDENCE).sum())
    assert 100 < count < 997
    for more, passes in ((0, True), (10, False)):
        hits = int(CORRECT[order[: count + more]].sum())
        p = binomtest(hits, count + more, 0.8, alternative="greater").pvalue
        assert bool(p <= 0.05) is passes


def test_if_all_rows_prove_the_precision_the_floor_is_the_threshold() -> None:
    """59 messages without a mistake are the fewest that prove 95 %."""
    for rows, wanted in ((58, 1.0), (59, 0.5)):
        confidence, right = np.linspace(0.6, 0.99, rows), np.ones(rows, dtype=bool)
        assert review_threshold(confidence, right, 0.95, floor=0.5) == wanted


def test_equal_confidences_are_accepted_together_or_not_at_all() -> None:
    confidence = np.repeat([0.99, 0.6], [200, 20])
    correct = np.repeat([True, False], [200, 20])
    assert review_threshold(confidence, correct, 0.95, floor=0.0) == pytest.approx(0.99)
    assert review_threshold(np.full(220, 0.9), correct, 0.95, floor=0.0) == 1.0
    assert review_threshold(np.full(220, 0.9), correct, 0.85, floor=0.0) == 0.0


# Advice for a promise that is out of reach.


PRECISION, FLOOR = 0.95, 0.5


def draw(rng: np.random.Generator, rows: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Draw the confidences of a small calibrated adapter that is right 82 % of the time."""
    sure = rng.random(rows) < 0.62
    chance = np.where(sure, rng.beta(40.0, 1.2, size=rows), rng.beta(3.0, 2.0, size=rows))
    return chance, rng.random(rows) < chance


def review(confidence: NDArray[np.float64], correct: NDArray[np.bool_], precision: float) -> float:
    threshold = review_threshold(confidence, correct, precision, floor=FLOOR)
    return 1 - accept(confidence, correct, threshold).coverage


@pytest.mark.parametrize(("precision", "rows"), [(0.95, 59), (0.9, 29), (0.99, 299)])
def test_the_fewest_rows_are_those_that_prove_it(precision: float, rows: int) -> None:
    """One fewer does not."""
    assert fewest_rows(precision) == rows
    for count, wanted in ((rows, FLOOR), (rows - 1, 1.0)):
        confidence, right = np.linspace(0.6, 0.99, count), np.ones(count, dtype=bool)
        assert review_threshold(confidence, right, precision, floor=FLOOR) == wanted


def test_a_promise_within_reach_needs_no_advice() -> None:
    """A good adapter on many rows, or one that is always right."""
    rng = np.random.default_rng(1)
    chance = rng.beta(40.0, 1.0, size=2000)
    assert find_promise(chance, rng.random(2000) < chance, PRECISION, floor=FLOOR) is None
    assert find_promise(np.full(100, 0.9), np.ones(100, dtype=bool), PRECISION, floor=FLOOR) is None


def test_with_the_recommended_rows_the_promise_comes_within_reach() -> None:
    """Simulated: with the recommended number of rows the median training sends about the predicted
    share to review."""
    rng = np.random.default_rng(5)
    predicted, after, before = [], [], []
    for _ in range(150):
        confidence, correct = draw(rng, 198)
        promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
        if promise is None or promise.rows is None:
            continue
        assert promise.rows > 198
        assert promise.review_at_rows is not None
        predicted.append(promise.review_at_rows)
        before.append(review(confidence, correct, PRECISION))
        after.append(review(*draw(rng, promise.rows), PRECISION))
    assert len(predicted) >= 75
    assert np.median(before) - np.median(after) > 0.1
    assert abs(np.median(predicted) - np.median(after)) < 0.1


@pytest.mark.slow
def test_a_recommended_lower_promise_is_kept() -> None:
    """Simulated with a known truth: it is chosen after the rows are seen, and still broken in at
    most one training of twenty."""
    rng = np.random.default_rng(6)
    truth, _ = draw(rng, 400_000)
    truth = np.sort(truth)[::-1]
    true_precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    kept: list[bool] = []
    as_predicted: list[bool] = []
    while len(kept) < 400:
        confidence, correct = draw(rng, 198)
        promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
        if promise is None or promise.lesser is None:
            continue
        threshold = review_threshold(confidence, correct, promise.lesser, floor=FLOOR)
        count = int(np.searchsorted(-truth, -threshold, side="right"))
        kept.append(count == 0 or bool(true_precision[count - 1] >= promise.lesser))
        as_predicted.append(review(confidence, correct, promise.lesser) == promise.review_at_lesser)
    assert np.mean(kept) >= 0.95
    assert all(as_predicted)


def test_the_advice_in_words() -> None:
    rng = np.random.default_rng(3)
    while True:
        confidence, correct = draw(rng, 198)
        promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
        if promise and promise.rows and promise.lesser:
            break
    text = describe_promise(promise, 198)
    begin = "198 messages to choose by are too few to promise that 95 in 100 are right; about "
    assert text.startswith(f"{begin}{promise.rows:,} would do; or promise that ")
    wrong = f"up to {100 * (1 - promise.lesser):g} of 100 of these may be wrong"
    assert text.endswith(wrong)
    beyond = replace(promise, rows=None, lesser=None, review_at_lesser=None)
    assert describe_promise(beyond, 198) == f"{begin.removesuffix('about ')}far more would do"


def test_a_promise_that_no_number_of_rows_proves() -> None:
    """The adapter is right 70 % of the time, whatever its confidence."""
    rng = np.random.default_rng(2)
    confidence = np.concatenate([np.linspace(0.99, 0.95, 40), np.full(160, 0.6)])
    correct = np.concatenate([np.ones(40, dtype=bool), rng.random(160) < 0.7])
    correct[38] = False
    promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
    assert promise is not None
    assert promise.lesser is not None
    assert promise.lesser <= 0.93
