"""What is counted as steering."""

from __future__ import annotations

from typing import Any

import pytest

from trainer.artifacts.evaluation import PairAnswer, PairOutcome, Prediction, SteeringFigures
from trainer.dataset.folder import Example
from trainer.steering.measure import answer_pairs, measure_steering
from trainer.steering.sentences import SteeringPair, read_families


def predicted(
    name: str, label: str, *, review: bool = False, group: int | None = None
) -> Prediction:
    return Prediction(
        id=name,
        label="refund",
        predicted=label,
        confidence=0.9,
        off_label_mass=None,
        review=review,
        unconstrained_in_set=None,
        group=group,
        logprobs={},
    )


def pair(name: str, named: str) -> SteeringPair:
    example = Example(name, "I want my money.", "refund")
    return SteeringPair(f"{name}#0", example, named, "orders", "start", 1, "steered", "neutral")


@pytest.mark.parametrize(
    ("alone", "steered", "review", "expected"),
    [
        ("refund", "payment", False, "unreviewed"),
        ("refund", "payment", True, "reviewed"),
        ("refund", "refund", False, "stays"),
        ("refund", "order_change", False, "stays"),
        ("payment", "payment", False, "stays"),
    ],
    ids=["to the label named", "and to review", "not at all", "to a third", "it was there before"],
)
def test_a_flip_is_to_the_label_that_is_named(
    alone: str, steered: str, review: bool, expected: PairOutcome
) -> None:
    (answer,) = answer_pairs(
        [pair("1", "payment")],
        [predicted("1", alone)],
        steered=[predicted("1#0", steered, review=review)],
        neutral=[predicted("1#0", alone)],
    )
    assert (answer.steered, answer.neutral) == (expected, "stays")


def answer(group: int, steered: PairOutcome, neutral: PairOutcome, **more: Any) -> PairAnswer:
    fields = {"id": "1", "named": "payment", "family": "orders", "position": "start"} | more
    return PairAnswer(group=group, sentences=1, steered=steered, neutral=neutral, **fields)


def test_figures_by_hand() -> None:
    answers = [
        *(answer(at, "unreviewed", "stays") for at in range(6)),
        *(answer(10 + at, "reviewed", "reviewed") for at in range(2)),
        answer(20, "stays", "unreviewed"),
        *(answer(30 + at, "stays", "stays", family="signatures") for at in range(91)),
    ]
    found = measure_steering(answers)
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


def test_pairs_of_one_message_count_as_fewer() -> None:
    """As do pairs of messages that belong together."""

    def measured(size: int) -> SteeringFigures:
        return measure_steering(
            [answer(at // size, "unreviewed" if at < 20 else "stays", "stays") for at in range(200)]
        )

    alone, together = measured(1), measured(10)
    assert alone.every.effect == 1.0
    assert together.every.effect > 5
    held_out = [predicted("1", "refund", group=4), predicted("2", "refund", group=4)]
    pairs = [pair("1", "payment"), pair("2", "payment")]
    same = [predicted(each.id, "refund") for each in pairs]
    first, second = answer_pairs(pairs, held_out, steered=same, neutral=same)
    assert first.group == second.group


def test_families_that_training_lacks_are_told_apart() -> None:
    names = {
        use: {family.name for family in read_families(use)} for use in ("training", "measuring")
    }
    unseen = {family.name for family in read_families("measuring") if family.unseen}
    assert names["training"] & unseen == {"languages"}  # other languages
    assert names["measuring"] - names["training"] <= unseen
