"""Agreement, kappa, McNemar and the rest, against known values."""

from __future__ import annotations

from collections import Counter

import pytest
from scipy.stats import binomtest

from worker.offline.compare.agreement import Labelled, Pair, compare, kappa, mcnemar


def pair(
    first: str, second: str, truth: str | None = None, sure: float = 0.9, review: bool = False
) -> Pair:
    return Pair(
        "m", Labelled(first, sure, 0.1, review), Labelled(second, sure / 2, None, False), truth
    )


PAIRS = [
    *[pair("yes", "yes")] * 20,
    *[pair("yes", "no", sure=0.6)] * 5,
    *[pair("no", "yes", sure=0.6)] * 10,
    *[pair("no", "no")] * 15,
]


def test_agreement_and_kappa_are_those_of_the_textbook() -> None:
    """The example that introductions use: 50 cases, 35 the same, kappa 0.4."""
    found = compare(PAIRS, ["no", "yes", "never"])
    assert (found.messages, found.agreed, found.agreement) == (50, 35, 0.7)
    assert found.kappa == pytest.approx(0.4)
    [no, yes] = found.labels
    assert (no.label, no.first, no.second, no.both) == ("no", 25, 20, 15)
    assert yes.share == pytest.approx(2 * 20 / (25 + 30))
    assert found.moves == (("no", "yes", 10), ("yes", "no", 5))


def test_kappa_knows_perfect_agreement_chance_and_the_case_without_any_spread() -> None:
    """1, 0, and nothing to say."""
    assert kappa(Counter(a=5, b=5), Counter(a=5, b=5), 10) == 1
    assert kappa(Counter(a=5, b=5), Counter(a=5, b=5), 5) == 0
    assert kappa(Counter(a=10), Counter(a=10), 10) is None
    assert kappa(Counter(a=10), Counter(b=10), 0) == 0


def test_confidence_is_told_apart_where_they_agree_and_where_not() -> None:
    """A mean over nothing is nothing."""
    found = compare(PAIRS, [])
    assert found.first.confidence == pytest.approx((35 * 0.9 + 15 * 0.6) / 50)
    assert found.first.confidence_agreed == pytest.approx(0.9)
    assert found.first.confidence_disagreed == pytest.approx(0.6)
    assert found.second.confidence_agreed == pytest.approx(0.45)
    assert found.first.off_label_mass == pytest.approx(0.1)
    assert found.second.off_label_mass is None
    assert compare([pair("a", "a")], []).first.confidence_disagreed is None


def test_review_shares_of_each_and_of_both() -> None:
    """What people will have to look at."""
    found = compare([pair("a", "a", review=True), pair("a", "a")], [])
    assert (found.first.review, found.second.review, found.review_both) == (0.5, 0, 0)


def test_true_labels_decide_who_is_right() -> None:
    """Messages without one are compared and not counted here."""
    known = [
        *[pair("a", "a", "a")] * 4,
        *[pair("a", "b", "a")] * 3,
        *[pair("a", "b", "b")] * 9,
        *[pair("a", "b", "c")] * 2,
        *[pair("a", "b")] * 7,
    ]
    found = compare(known, [])
    assert found.truth is not None
    assert found.truth.messages == 18
    right = (found.truth.both, found.truth.first_only, found.truth.second_only)
    assert (*right, found.truth.neither) == (4, 3, 9, 2)
    assert found.truth.p_value == pytest.approx(binomtest(3, 12).pvalue)
    assert found.first.accuracy == pytest.approx(7 / 18)
    assert found.second.accuracy == pytest.approx(13 / 18)
    assert compare(PAIRS, []).truth is None
    assert compare(PAIRS, []).first.accuracy is None


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (5, 5), (2, 11), (40, 80), (0, 2000)])
def test_mcnemar_is_the_exact_coin(a: int, b: int) -> None:
    """However many, and none at all."""
    exact = binomtest(a, a + b).pvalue if a + b else 1.0
    assert mcnemar(a, b) == pytest.approx(exact)
    assert mcnemar(b, a) == mcnemar(a, b)
