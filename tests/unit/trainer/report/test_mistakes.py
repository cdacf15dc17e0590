"""The reading aid of the confusion matrix: one way or two."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from trainer.report.measured import ONE_WAY, TWO_WAY, UNCLEAR, confused_pairs
from trainer.statistics.metrics import binomial_test


def test_the_exact_test_is_the_textbooks() -> None:
    """Every outcome of small samples has the p-value that an independent implementation gives."""
    for trials in (1, 6, 17):
        for share in (0.5, 0.2, 0.71):
            for hits in range(trials + 1):
                wanted = binomtest(hits, trials, share).pvalue
                assert binomial_test(hits, trials, share) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("forth", "back", "kind"),
    [(18, 0, ONE_WAY), (9, 8, TWO_WAY), (5, 2, UNCLEAR), (2, 2, UNCLEAR), (6, 0, ONE_WAY)],
)
def test_a_pair_is_judged_by_the_stated_rule(forth: int, back: int, kind: str) -> None:
    """Two labels of one size: lopsided is one-way, even is two-way, a handful is neither."""
    (pair,) = confused_pairs("ab", [[100 - forth, forth], [back, 100 - back]])
    assert pair.kind == kind


@pytest.mark.parametrize(("forth", "back", "kind"), [(1200, 0, ONE_WAY), (700, 650, TWO_WAY)])
def test_a_thousand_mistakes_are_judged_too(forth: int, back: int, kind: str) -> None:
    """Binomial coefficients of so many are beyond a float; the test's p-value is not."""
    (pair,) = confused_pairs("ab", [[0, forth], [back, forth - back]])
    assert (pair.kind, pair.total) == (kind, forth + back)
    assert 0 <= pair.p <= 1


def test_a_small_label_beside_a_large_one_is_not_called_lopsided() -> None:
    """Ten times the messages make ten times the mistakes: that is even, not one-way."""
    (pair,) = confused_pairs("ab", [[980, 20], [2, 98]])
    assert pair.kind != ONE_WAY
    (pair,) = confused_pairs("ab", [[990, 10], [9, 91]])
    assert (pair.kind, pair.label, pair.forth) == (ONE_WAY, "b", 9)


def test_every_mistake_is_in_exactly_one_pair() -> None:
    """The list neither loses nor doubles a mistake, and the largest pair comes first."""
    confusion = [[5, 1, 4], [0, 7, 0], [3, 2, 9]]
    pairs = confused_pairs("abc", confusion)
    assert sum(pair.total for pair in pairs) == 1 + 4 + 3 + 2
    assert [pair.total for pair in pairs] == [7, 2, 1]
