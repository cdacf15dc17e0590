"""Metrics agree with their definitions and with textbook values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from tests.bench.judges_worlds import draw_right, make_groups
from trainer.statistics.metrics import (
    as_groups,
    auroc,
    design_effect,
    highest_share,
    interval_of,
    measure,
    wilson,
)
from trainer.statistics.paired import alpha_of
from trainer.statistics.thresholds import review_threshold

LABELS = ("a", "b", "c", "d")
RNG = np.random.default_rng(4)


def test_figures_are_what_their_definitions_say() -> None:
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 4, size=200)
    predicted = np.where(rng.random(200) < 0.7, truth, rng.integers(0, 4, size=200))
    found = measure(truth, predicted, LABELS)
    assert found.accuracy == pytest.approx((truth == predicted).mean())
    scores = []
    for at, label in enumerate(found.per_label):
        hits = ((truth == at) & (predicted == at)).sum()
        given, support = (predicted == at).sum(), (truth == at).sum()
        scores.append(2 * hits / (given + support))
        wanted = (hits / given, hits / support, scores[-1])
        assert (label.precision, label.recall, label.f1) == pytest.approx(wanted)
        assert (label.label, label.support) == (LABELS[at], support)
        for other in range(4):
            count = ((truth == at) & (predicted == other)).sum()
            assert found.confusion[at][other] == count
    assert found.macro_f1 == pytest.approx(np.mean(scores))


def test_a_label_without_messages_does_not_count_in_the_mean() -> None:
    found = measure(np.array([0, 1]), np.array([0, 1]), LABELS)
    assert found.macro_f1 == 1.0
    assert found.per_label[3].f1 == 0.0


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (9, 10, 0.5958, 0.9821), (300, 330, 0.8731, 0.9356), (0, 0, 0.0, 1.0)],
)
def test_wilson_intervals(hits: int, total: int, low: float, high: float) -> None:
    assert wilson(hits, total) == pytest.approx((low, high), abs=2e-4)


@pytest.mark.parametrize(("hits", "total"), [(0, 15), (6, 15), (14, 15), (74, 100)])
def test_the_highest_share_is_where_the_binomial_test_turns(hits: int, total: int) -> None:
    """It is Clopper and Pearson's."""
    high = highest_share(hits, total, 0.005)
    assert binomtest(hits, total, high, alternative="less").pvalue == pytest.approx(0.005)
    found = binomtest(hits, total, alternative="less").proportion_ci(0.995, method="exact")
    assert high == pytest.approx(found.high)


def test_the_highest_share_of_all_and_of_nothing_is_one() -> None:
    assert highest_share(15, 15, 0.05) == highest_share(0, 0, 0.05) == 1.0


def test_auroc_is_the_share_of_pairs_in_order_ties_counting_half() -> None:
    from sklearn.metrics import roc_auc_score

    low, high = RNG.integers(0, 20, 300) / 20, RNG.integers(5, 25, 200) / 20
    above, level = high[:, None] > low, high[:, None] == low
    assert auroc(low, high) == pytest.approx((above + level / 2).mean())
    truth = np.r_[np.zeros(300), np.ones(200)]
    assert auroc(low, high) == pytest.approx(roc_auc_score(truth, np.r_[low, high]))


# Grouped messages.


RUNS = 400


def test_independent_messages_count_as_they_are() -> None:
    right = np.arange(300) % 7 > 0
    assert design_effect(right, None) == 1.0
    assert design_effect(right, np.arange(300)) == pytest.approx(1.0)
    assert as_groups([None, None]) is None
    assert interval_of(right, None) == wilson(int(right.sum()), 300)


def test_copies_count_as_one() -> None:
    groups = np.arange(3000) // 10
    assert design_effect(groups % 5 > 0, groups) == pytest.approx(10, rel=0.02)


def test_the_design_effect_is_at_its_limit_if_few_values_differ() -> None:
    groups = np.arange(300) // 10
    right = np.ones(300, dtype=np.bool_)
    assert design_effect(right, groups) == pytest.approx(10)
    right[5] = False
    assert design_effect(right, groups) > 8


def test_messages_that_are_alone_get_numbers_of_their_own() -> None:
    found = as_groups([4, None, 4, None])
    assert found is not None
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 3


def test_an_interval_of_messages_in_groups_covers_the_truth() -> None:
    """Counted as independent, the intervals cover it in 86 %."""
    rng = np.random.default_rng(1)
    now = before = 0
    for _ in range(RUNS):
        groups = make_groups(rng, 800)
        right = draw_right(rng, 0.9, 800, groups)
        for_groups, plain = interval_of(right, groups), wilson(int(right.sum()), 800)
        now += for_groups[0] <= 0.9 <= for_groups[1]
        before += plain[0] <= 0.9 <= plain[1]
    assert now / RUNS > 0.93
    assert before / RUNS < 0.9


def test_a_threshold_of_rows_in_groups_is_higher() -> None:
    """They prove less."""
    rng = np.random.default_rng(2)
    groups = make_groups(rng, 800)
    confidence = 0.5 + 0.5 * rng.random(800) ** 0.3
    right = rng.random(800) < confidence
    found = [
        review_threshold(confidence, right, 0.9, floor=0.0, groups=known)
        for known in (None, groups)
    ]
    assert found[0] < found[1]


def test_the_levels_of_a_sequence_add_up_to_at_most_alpha() -> None:
    assert alpha_of(1) == pytest.approx(0.025)
    assert sum(alpha_of(turn) for turn in range(1, 10_000)) < 0.05
