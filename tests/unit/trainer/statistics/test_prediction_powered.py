"""Accuracy against people with a teacher's help, in worlds where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.people_and_teacher import (
    GOOD,
    WORLDS,
    World,
    as_counts,
    draw,
    reference_mean,
    simulate,
)
from trainer.statistics.prediction_powered import (
    Counts,
    count_answers,
    error_correlation,
    plain_accuracy,
    powered_accuracy,
    reachable,
)

RUNS = 600
_ERROR = 3 * (0.05 * 0.95 / RUNS) ** 0.5  # three standard errors of a coverage of 95 %


@pytest.mark.parametrize("world", WORLDS, ids=lambda world: world.name)
def test_the_interval_holds_the_truth(world: World) -> None:
    """``python -m tests.bench.people_and_teacher`` is the long simulation."""
    found = simulate(world, 130, RUNS, seed=11)
    assert found.powered >= 0.94 - _ERROR
    if world in GOOD and world is not GOOD[2]:  # a student that repeats every mistake gains less
        assert found.width <= 0.9
    if world.hostile:
        assert found.width <= 1.02
        assert found.wider <= 0.01


def test_with_mistakes_in_common_the_gain_goes_and_the_interval_still_holds() -> None:
    independent, half, all_ = (simulate(world, 300, RUNS, seed=3).width for world in GOOD[:3])
    assert independent < half < all_ <= 0.93


def test_the_estimate_is_that_of_ppi_plus_plus() -> None:
    """The value; their normal interval is not used, because it is too short (see the bench)."""
    draws = np.random.default_rng(2)
    compared = 0
    for world in GOOD[:5]:  # every message has a teacher's label
        for _ in range(20):
            drawn = draw(world, 300, draws)
            counts, (sample, agree, pool) = as_counts(*drawn), drawn
            found = powered_accuracy(counts)
            if found == plain_accuracy(counts):
                continue
            compared += 1
            # The weight that minimizes the variance, by the sample's moments; theirs takes the
            # pool's variance too.
            apart = sample[0] / sample[:2].sum() - sample[2] / sample[2:4].sum()
            weight = apart * pool / (sample.sum() + pool)
            assert found.value == pytest.approx(
                reference_mean(sample, agree, pool, weight)[0], abs=1e-9
            )
    assert compared > 80


def test_without_mistakes_the_interval_keeps_its_width() -> None:
    """A normal interval would be a point."""
    counts = Counts((50.0, 50.0), (0.0, 0.0), (0.0, 0.0), (480.0, 500.0))
    found = powered_accuracy(counts)
    assert found == plain_accuracy(counts)
    assert found.interval[0] < 0.94


def test_answers_are_counted_by_what_the_teacher_said() -> None:
    right = np.array([True, True, False, False, True])
    agrees = np.array([True, False, True, False, False])
    taught = np.array([True, True, True, True, False])
    pool = np.array([True, True, True, False])
    found = count_answers(right, agrees, taught, pool)
    assert found == Counts((1.0, 2.0), (1.0, 2.0), (1.0, 1.0), (3.0, 4.0))
    # Two messages of one thread that are right together are less evidence than two.
    together = count_answers(right, agrees, taught, pool, groups=np.array([0, 0, 1, 1, 2]))
    assert together.sample[1] < 5


def test_errors_that_go_together_are_seen() -> None:
    a = np.array([True, True, False, False, False, False])
    assert error_correlation(a, a) == pytest.approx(1)
    b = np.array([True, False, True, False, False, False])
    assert error_correlation(a, b) == pytest.approx((6 * 1 - 4) / (4 * 2 * 4 * 2) ** 0.5)
    assert error_correlation(a, np.zeros(6, dtype=np.bool_)) is None


def test_the_bound_holds_and_is_reached() -> None:
    """Random answers of a student and a teacher to questions with three labels."""
    draws = np.random.default_rng(4)
    for _ in range(300):
        truth = draws.integers(0, 3, 40)
        noise = draws.random(2)
        teacher, student = (
            np.where(draws.random(40) < share, truth, draws.integers(0, 3, 40)) for share in noise
        )
        a, g = float((teacher == truth).mean()), float((student == teacher).mean())
        low, high = reachable(g, (a, a))
        assert low - 1e-9 <= float((student == truth).mean()) <= high + 1e-9
    assert reachable(1.0, (0.9, 0.9)) == pytest.approx((0.9, 0.9))
    assert reachable(0.92, (0.88, 0.98)) == pytest.approx((0.80, 1.0))
    assert reachable(0.9, (0.95, 0.97)) == pytest.approx((0.85, 0.95))
