"""What is counted as steering."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from trainer.artifacts.evaluation import PairAnswer, Prediction, SteeringFigures
from trainer.steering.measure import measure_steering
from trainer.steering.sentences import read_families


def predicted(
    name: str, label: str, *, named: str = "refund", review: bool = False, group: int | None = None
) -> Prediction:
    return Prediction(
        id=name,
        label=named,
        predicted=label,
        confidence=0.9,
        off_label_mass=None,
        review=review,
        unconstrained_in_set=None,
        group=group,
        logprobs={},
    )


@dataclass(frozen=True)
class Tried:
    """A message that is answered ``refund`` alone, and what becomes of it."""

    steered: str = "refund"
    neutral: str = "refund"
    review: bool = False
    family: str = "orders"
    message: str | None = None


def measured(
    tried: Sequence[Tried], *, alone: str = "refund", threads: Sequence[Prediction] = ()
) -> SteeringFigures:
    """Measure pairs whose sentence names ``payment``; each has a message of its own unless it
    names one."""
    names = [each.message or str(at) for at, each in enumerate(tried)]
    answers = [
        PairAnswer(
            id=f"{name}#{at}",
            message=name,
            family=each.family,
            position="start",
            sentences=1,
            steered=predicted(name, each.steered, named="payment", review=each.review),
            neutral=predicted(name, each.neutral, named="payment", review=each.review),
        )
        for at, (name, each) in enumerate(zip(names, tried, strict=True))
    ]
    alone_answers = threads or [predicted(name, alone) for name in dict.fromkeys(names)]
    return measure_steering(answers, alone_answers)


@pytest.mark.parametrize(
    ("alone", "steered", "review", "expected"),
    [
        ("refund", "payment", False, (1, 1)),
        ("refund", "payment", True, (1, 0)),
        ("refund", "refund", False, (0, 0)),
        ("refund", "order_change", False, (0, 0)),
        ("payment", "payment", False, (0, 0)),
    ],
    ids=["to the label named", "and to review", "not at all", "to a third", "it was there before"],
)
def test_a_flip_is_to_the_label_that_is_named(
    alone: str, steered: str, review: bool, expected: tuple[int, int]
) -> None:
    found = measured([Tried(steered, alone, review=review)], alone=alone)
    assert (found.every.steered, found.unreviewed.steered) == expected
    assert found.every.neutral == 0


def test_figures_by_hand() -> None:
    found = measured(
        [
            *[Tried("payment")] * 6,
            *[Tried("payment", "payment", review=True)] * 2,
            Tried("refund", "payment"),
            *[Tried(family="signatures")] * 91,
        ]
    )
    every, unreviewed = found.every, found.unreviewed
    assert (every.pairs, every.steered, every.neutral) == (100, 8, 3)
    assert (every.steered_only, every.neutral_only) == (6, 1)
    assert (unreviewed.steered, unreviewed.neutral) == (6, 1)
    assert every.excess == pytest.approx(0.05)
    assert every.interval_95[0] < 0.08 < every.interval_95[1]
    assert [(each.family, each.every.pairs, each.unseen) for each in found.families] == [
        ("orders", 9, False),
        ("signatures", 91, True),
    ]


def test_pairs_of_one_message_and_messages_that_belong_together_count_as_fewer() -> None:
    flips = ["payment"] * 20 + ["refund"] * 180

    def effect(size: int) -> float:
        tried = [Tried(label, message=str(at // size)) for at, label in enumerate(flips)]
        return measured(tried).every.effect

    assert effect(1) == 1.0
    assert effect(10) > 5
    threads = [predicted(str(at), "refund", group=at // 10) for at in range(len(flips))]
    assert measured([Tried(label) for label in flips], threads=threads).every.effect > 5


def test_families_that_training_lacks_are_told_apart() -> None:
    names = {
        use: {family.name for family in read_families(use)} for use in ("training", "measuring")
    }
    unseen = {family.name for family in read_families("measuring") if family.unseen}
    assert names["training"] & unseen == {"languages"}  # other languages
    assert names["measuring"] - names["training"] <= unseen
