"""Which confusions are one-way, which two-way, and which are too few."""

from __future__ import annotations

import pytest

from trainer.artifacts.evaluation import Answer
from trainer.report.measured import ONE_WAY, TWO_WAY, UNCLEAR, Confusion, confused_pairs


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


def test_the_mistakes_in_one_thread_are_no_pattern() -> None:
    """Ten messages of one thread go one way together; ten of different customers do."""
    confusion = [[90, 10], [1, 99]]

    def pair(groups: list[int | None]) -> Confusion:
        wrong = [("a", "b", group) for group in groups] + [("b", "a", None)]
        answers = [
            Answer(
                id=str(at), label=label, predicted=given, group=group, confidence=0.9,
                off_label_mass=None, review=False, unconstrained_in_set=None,
            )
            for at, (label, given, group) in enumerate(wrong)
        ]  # fmt: skip
        (found,) = confused_pairs("ab", confusion, answers)
        return found

    assert pair([None] * 10).kind == ONE_WAY == pair(list(range(10))).kind
    assert pair([7] * 10).kind == UNCLEAR


def test_every_mistake_is_in_exactly_one_pair() -> None:
    confusion = [[5, 1, 4], [0, 7, 0], [3, 2, 9]]
    pairs = confused_pairs("abc", confusion)
    assert sum(pair.total for pair in pairs) == 1 + 4 + 3 + 2
    assert [pair.total for pair in pairs] == [7, 2, 1]
