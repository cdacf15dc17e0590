"""Which confusions are one-way, which two-way, and which are too few."""

from __future__ import annotations

import pytest

from trainer.report.measured import ONE_WAY, TWO_WAY, UNCLEAR, confused_pairs


@pytest.mark.parametrize(
    ("forth", "back", "kind"),
    [
        (18, 0, ONE_WAY),
        (9, 8, TWO_WAY),
        (5, 2, UNCLEAR),
        (6, 0, ONE_WAY),
    ],
)
def test_a_pair_is_judged_by_the_stated_rule(forth: int, back: int, kind: str) -> None:
    (pair,) = confused_pairs("ab", [[100 - forth, forth], [back, 100 - back]])
    assert pair.kind == kind


def test_a_small_label_beside_a_large_one_is_not_called_lopsided() -> None:
    (pair,) = confused_pairs("ab", [[980, 20], [2, 98]])
    assert pair.kind != ONE_WAY
    (pair,) = confused_pairs("ab", [[990, 10], [9, 91]])
    assert (pair.kind, pair.label, pair.forth) == (ONE_WAY, "b", 9)


def test_every_mistake_is_in_exactly_one_pair() -> None:
    confusion = [[5, 1, 4], [0, 7, 0], [3, 2, 9]]
    pairs = confused_pairs("abc", confusion)
    assert sum(pair.total for pair in pairs) == 1 + 4 + 3 + 2
    assert [pair.total for pair in pairs] == [7, 2, 1]
