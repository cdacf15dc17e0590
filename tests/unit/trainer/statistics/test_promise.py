"""Where a promise of precision is out of reach, what is told would help does."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.statistics.promise import describe_promise, fewest_rows, find_promise
from trainer.statistics.thresholds import accept, review_threshold

PRECISION, FLOOR = 0.95, 0.5


def draw(rng: np.random.Generator, rows: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Like a small adapter that is right 82 times in a hundred, and knows how sure it is."""
    sure = rng.random(rows) < 0.62
    chance = np.where(sure, rng.beta(40.0, 1.2, size=rows), rng.beta(3.0, 2.0, size=rows))
    return chance, rng.random(rows) < chance


def review(confidence: NDArray[np.float64], correct: NDArray[np.bool_], precision: float) -> float:
    threshold = review_threshold(confidence, correct, precision, floor=FLOOR)
    return 1 - accept(confidence, correct, threshold).coverage


@pytest.mark.parametrize(("precision", "rows"), [(0.95, 59), (0.9, 29), (0.99, 299)])
def test_the_fewest_rows_are_those_that_prove_it(precision: float, rows: int) -> None:
    """Without an error so many do and one fewer does not."""
    assert fewest_rows(precision) == rows
    for count, wanted in ((rows, FLOOR), (rows - 1, 1.0)):
        confidence, right = np.linspace(0.6, 0.99, count), np.ones(count, dtype=bool)
        assert review_threshold(confidence, right, precision, floor=FLOOR) == wanted


def test_what_is_within_reach_needs_no_advice() -> None:
    """A good adapter on many rows, or one all of whose rows are right."""
    rng = np.random.default_rng(1)
    chance = rng.beta(40.0, 1.0, size=2000)
    assert find_promise(chance, rng.random(2000) < chance, PRECISION, floor=FLOOR) is None
    assert find_promise(np.full(100, 0.9), np.ones(100, dtype=bool), PRECISION, floor=FLOOR) is None


def test_with_the_rows_that_are_asked_for_the_promise_comes_within_reach() -> None:
    """Simulated: 198 rows send 20 points more to review than the point value, or everything; with
    as many rows as are asked for, the median training sends about what was told."""
    rng = np.random.default_rng(5)
    told, came, now = [], [], []
    for _ in range(150):
        confidence, correct = draw(rng, 198)
        promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
        if promise is None or promise.rows is None:
            continue
        assert promise.rows > 198
        assert promise.review_at_rows is not None
        told.append(promise.review_at_rows)
        now.append(review(confidence, correct, PRECISION))
        came.append(review(*draw(rng, promise.rows), PRECISION))
    assert len(told) >= 75
    assert np.median(now) - np.median(came) > 0.1
    assert abs(np.median(told) - np.median(came)) < 0.1


@pytest.mark.slow
def test_a_lesser_promise_that_is_told_is_kept() -> None:
    """Simulated with known truth: chosen after the rows were seen, and still broken in one training
    of twenty at most; and it sends to review what was told."""
    rng = np.random.default_rng(6)
    truth, _ = draw(rng, 400_000)
    truth = np.sort(truth)[::-1]
    true_precision = np.cumsum(truth) / np.arange(1, len(truth) + 1)
    kept: list[bool] = []
    told: list[bool] = []
    while len(kept) < 400:
        confidence, correct = draw(rng, 198)
        promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
        if promise is None or promise.lesser is None:
            continue
        threshold = review_threshold(confidence, correct, promise.lesser, floor=FLOOR)
        count = int(np.searchsorted(-truth, -threshold, side="right"))
        kept.append(count == 0 or bool(true_precision[count - 1] >= promise.lesser))
        told.append(review(confidence, correct, promise.lesser) == promise.review_at_lesser)
    assert np.mean(kept) >= 0.95
    assert all(told)


def test_it_is_told_in_one_sentence() -> None:
    """What is wrong, how many rows would mend it, and what else would."""
    rng = np.random.default_rng(3)
    while True:
        confidence, correct = draw(rng, 198)
        promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
        if promise and promise.rows and promise.lesser:
            break
    text = describe_promise(promise, 198, 0.3)
    assert text.startswith("198 validation rows are too few to prove 0.95")
    assert f"about {promise.rows:,} would, with {promise.review_at_rows:.0%} to review" in text
    assert f"review_precision = {promise.lesser:g} sends" in text
    assert '"point" 30%' in text


def test_an_adapter_that_is_never_so_sure_needs_more_than_rows() -> None:
    """Right 70 times in a hundred whatever its confidence: no number of rows proves 0.95, and the
    point value accepts what luck put first."""
    rng = np.random.default_rng(2)
    confidence = np.concatenate([np.linspace(0.99, 0.95, 40), np.full(160, 0.6)])
    correct = np.concatenate([np.ones(40, dtype=bool), rng.random(160) < 0.7])
    correct[38] = False
    promise = find_promise(confidence, correct, PRECISION, floor=FLOOR)
    assert promise is not None
    assert promise.lesser is not None
    assert promise.lesser <= 0.93
