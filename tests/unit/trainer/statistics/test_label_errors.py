"""Estimates of wrong labels contain the known truth as often as they claim."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tests.bench.judges_worlds import draw_right, make_groups
from tests.bench.wrong_share import Desk, draw_answers, judge_answers, judge_desk
from trainer.statistics.label_errors import (
    corrected_accuracy,
    label_error_rate,
    sample_size,
    wrong_share,
)
from trainer.statistics.metrics import design_effect, wilson

pytestmark = pytest.mark.slow

RUNS = 20


@pytest.mark.parametrize(
    ("wrong", "temperature"), [(0.0, 1.0), (0.02, 1.0), (0.05, 1.6), (0.15, 0.7)]
)
def test_the_interval_of_slips_holds_the_truth(wrong: float, temperature: float) -> None:
    """Also of over- and underconfident models, because the temperature is fitted too. ``python -m
    tests.bench.wrong_share`` is the long simulation."""
    held, values, truths = [], [], []
    for seed in range(RUNS):
        truth, found = judge_answers(wrong, temperature, rows=300, seed=seed)
        held.append(found.low <= truth <= found.high)
        values.append(found.value)
        truths.append(truth)
        assert found.low <= found.value <= found.high <= found.most
    assert np.mean(held) >= 0.85
    assert np.mean(values) == pytest.approx(np.mean(truths), abs=0.01)


def test_slips_are_counted_where_models_are_weak() -> None:
    """Real models on folds, which make far more mistakes than the labels have."""
    for desk in (Desk("none", 0.0, apart=3.0, rows=500), Desk("some", 0.1, apart=3.0, rows=500)):
        truth, found = judge_desk(desk, seed=2)
        assert found.low <= truth <= found.high
        assert found.value == pytest.approx(truth, abs=0.04)
        assert found.most > 0.2


def test_mistakes_between_labels_that_are_alike_are_below_the_upper_bound() -> None:
    """They are not slips, because the text makes them likely."""
    desk = Desk("alike", 0.08, rows=500, borderline=True)
    truth, found = judge_desk(desk, seed=3)
    assert found.value < truth < found.most


def test_confirmed_labels_count_as_right() -> None:
    """With half of the labels confirmed the shares are halved."""
    labels, found = draw_answers(0.2, 1.0, rows=400, seed=1)
    alone = wrong_share(labels[200:], found[200:])
    both = wrong_share(labels, found, confirmed=np.arange(400) < 200)
    assert both.value == pytest.approx(alone.value / 2)
    assert both.most == pytest.approx(alone.most / 2)
    assert wrong_share(labels, found, confirmed=np.ones(400, dtype=np.bool_)).most == 0


# The corrected accuracy of an audit.


AUDITS = 2000


def simulate(
    holdout: int, sample: int, wrong_labels: float, accuracy: float, repeated: float
) -> tuple[float, float, float]:
    """Return how often, in 2,000 hold-outs, the intervals of the corrected accuracy, of the label
    error rate, and of the uncorrected accuracy contain the truth.

    The adapter has ``accuracy`` on messages with a right label. On those with a wrong label it
    repeats the mistake on a share ``repeated`` and has ``accuracy`` on the rest.
    """
    else_ = wrong_labels * (1 - repeated)
    # The answer equals both labels, only the given, only the true, neither (right label), neither
    # (wrong label).
    shares = [
        (1 - wrong_labels) * accuracy,
        wrong_labels * repeated,
        else_ * accuracy,
        (1 - wrong_labels) * (1 - accuracy),
        else_ * (1 - accuracy),
    ]
    truth = shares[0] + shares[2]
    rng = np.random.default_rng(20)
    held = [0, 0, 0]
    for _ in range(AUDITS):
        cells = rng.multinomial(holdout, shares)
        drawn = rng.multivariate_hypergeometric(cells, sample)
        given = int(cells[0] + cells[1])
        corrected = corrected_accuracy(
            given, holdout, gained=int(drawn[2]), lost=int(drawn[1]), sample=sample
        )
        rate = label_error_rate(int(drawn[1] + drawn[2] + drawn[4]), sample, holdout)
        real = (cells[1] + cells[2] + cells[4]) / holdout
        plain = wilson(given, holdout)
        for at, (value, (low, high)) in enumerate(
            [(truth, corrected.interval), (real, rate.interval), (truth, plain)]
        ):
            held[at] += low <= value <= high
    return held[0] / AUDITS, held[1] / AUDITS, held[2] / AUDITS


@pytest.mark.parametrize(
    ("wrong_labels", "accuracy", "repeated"),
    [(0.08, 0.95, 0.0), (0.08, 0.95, 0.4), (0.1, 0.9, 0.9), (0.03, 0.96, 0.5)],
)
def test_the_interval_holds_the_true_accuracy_95_times_in_100(
    wrong_labels: float, accuracy: float, repeated: float
) -> None:
    """With a sample of 300 of 1,500 messages, also if the adapter repeats the labels' mistakes. The
    uncorrected interval contains the truth less than once in ten if it repeats none or nearly
    all."""
    corrected, rate, plain = simulate(1500, 300, wrong_labels, accuracy, repeated)
    assert 0.93 <= corrected <= 0.97
    assert 0.93 <= rate <= 0.97
    if repeated in {0.0, 0.9}:
        assert plain < 0.1


def test_of_threads_an_audit_s_interval_is_wider() -> None:
    """Messages in groups of five to ten are right or wrong together: without the design effect the
    interval holds the truth in less than nine of ten hold-outs."""
    rng, truth, held = np.random.default_rng(21), 0.9, [0, 0]
    for _ in range(400):
        groups = make_groups(rng, 1500)
        right = draw_right(rng, truth, 1500, groups)
        wrong_label = rng.random(1500) < 0.05
        given = right & ~wrong_label
        gained = int((right & wrong_label)[rng.permutation(1500)[:300]].sum())
        for at, effect in enumerate((1.0, design_effect(given, groups))):
            low, high = corrected_accuracy(
                int(given.sum()), 1500, gained=gained, lost=0, sample=300, effect=effect
            ).interval
            held[at] += low <= truth <= high
    assert held[0] / 400 < 0.9
    assert held[1] / 400 >= 0.93


def test_with_few_wrong_labels_in_a_small_sample_the_interval_is_too_wide_not_too_short() -> None:
    """Two or three wrong labels in a sample of 60."""
    corrected, rate, _ = simulate(1500, 60, 0.03, 0.97, 0.5)
    assert corrected >= 0.95
    assert rate >= 0.93
    nothing_found = corrected_accuracy(1400, 1500, gained=0, lost=0, sample=60)
    low, high = nothing_found.interval
    assert high - low > 0.06


def test_after_a_complete_audit_the_error_rate_is_known_exactly() -> None:
    """And the corrected accuracy has its Wilson interval."""
    assert label_error_rate(150, 1500, 1500).interval == (0.1, 0.1)
    whole = corrected_accuracy(1350, 1500, gained=60, lost=30, sample=1500)
    assert whole.value == pytest.approx(0.92)
    assert whole.interval == pytest.approx(wilson(1380, 1500))


def test_the_extremes_stay_between_0_and_1() -> None:
    """All right, all wrong, all labels wrong."""
    for given, gained, lost in ((100, 0, 0), (0, 0, 0), (100, 0, 50), (0, 50, 0)):
        found = corrected_accuracy(given, 100, gained=gained, lost=lost, sample=50)
        low, high = found.interval
        assert 0 <= low <= found.value <= high <= 1


@pytest.mark.parametrize(("half_width", "population"), [(0.03, 1500), (0.02, 100_000), (0.05, 200)])
def test_the_size_gives_the_width_that_was_asked_for(half_width: float, population: int) -> None:
    """At the planned rate, within 10 %."""
    size = sample_size(half_width, 0.1, population)
    low, high = label_error_rate(round(size * 0.1), size, population).interval
    assert (high - low) / 2 == pytest.approx(half_width, rel=0.1)
    assert sample_size(0.05, 0.5, 10**9) == math.ceil(384.2)
    assert sample_size(0.001, 0.5, 100) == 100
