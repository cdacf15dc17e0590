"""Figures of merit agree with their definitions, counted one by one, and with textbook values."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest

from trainer.statistics.metrics import auroc, highest_share, measure, wilson

LABELS = ("a", "b", "c", "d")
RNG = np.random.default_rng(4)


def test_figures_are_what_their_definitions_say() -> None:
    """Every figure from hits and counts, label by label."""
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
    """Clopper and Pearson's end, as scipy has it too."""
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


def test_auroc_of_separate_and_of_equal_values() -> None:
    assert auroc(np.array([0.1, 0.2]), np.array([0.3])) == 1.0
    assert auroc(np.array([0.5, 0.5]), np.array([0.5])) == 0.5
