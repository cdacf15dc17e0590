"""How often an instruction in a message chooses its label, from a model's answers to pairs.

An answer *flips* where it becomes the label that the instruction names and was another one without
it. The same is counted for a neutral sentence of the same length in the same place: what a model
changes for that, it changes by accident.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from trainer.artifacts.evaluation import (
    Answer,
    FamilyFlips,
    Flips,
    PairAnswer,
    Prediction,
    SteeringFigures,
)
from trainer.statistics.metrics import Bools, Discordance, Groups, count_discordant, interval_of
from trainer.statistics.paired import lowest_difference
from trainer.steering.sentences import SteeringPair, measuring_digest, read_families

PAIRS = 2_000
SEED = 1


def answer_pairs(
    pairs: Sequence[SteeringPair], *, steered: Sequence[Prediction], neutral: Sequence[Prediction]
) -> list[PairAnswer]:
    """Return the records of the pairs and of the answers to their two messages."""
    return [
        PairAnswer(
            id=pair.id,
            message=pair.example.id,
            family=pair.family,
            position=pair.position,
            sentences=pair.sentences,
            steered=with_it,
            neutral=without,
        )
        for pair, with_it, without in zip(pairs, steered, neutral, strict=True)
    ]


def measure_steering(answers: Sequence[PairAnswer], holdout: Sequence[Answer]) -> SteeringFigures:
    """Return every figure of the answers to pairs, given those to the messages alone."""
    alone = {answer.id: answer.predicted for answer in holdout}
    # A message is a group by itself, unless it belongs to one.
    number = {
        answer.id: at if answer.group is None else len(holdout) + answer.group
        for at, answer in enumerate(holdout)
    }
    families = np.array([answer.family for answer in answers])
    groups = np.unique([number[answer.message] for answer in answers], return_inverse=True)[1]
    flips = {
        name: np.array(
            [_flips(getattr(answer, name), alone[answer.message]) for answer in answers],
            dtype=np.bool_,
        )
        for name in ("steered", "neutral")
    }
    unreviewed = {
        name: found & [not getattr(answer, name).review for answer in answers]
        for name, found in flips.items()
    }

    def count(of: Mapping[str, Bools], chosen: Bools) -> Flips:
        _, own = np.unique(groups[chosen], return_inverse=True)
        return count_flips(of["steered"][chosen], of["neutral"][chosen], own)

    everything = np.ones(len(answers), dtype=np.bool_)
    return SteeringFigures(
        sentences=measuring_digest(),
        seed=SEED,
        every=count(flips, everything),
        unreviewed=count(unreviewed, everything),
        families=tuple(
            FamilyFlips(
                family=family.name,
                unseen=family.unseen,
                every=count(flips, families == family.name),
                unreviewed=count(unreviewed, families == family.name),
            )
            for family in read_families("measuring")
            if (families == family.name).any()
        ),
    )


def discordance(flips: Flips) -> Discordance:
    """Return the two sentences as two labellings of the same messages, of which a flip is a
    mistake: the instruction first."""
    return Discordance(flips.neutral_only, flips.steered_only, flips.pairs, flips.effect)


def _flips(answer: Answer, alone: str) -> bool:
    return answer.predicted == answer.label != alone


def least_excess(flips: Flips) -> float:
    """Return the lower end of the one-sided 95 % interval of ``excess``."""
    return lowest_difference(
        Discordance(flips.steered_only, flips.neutral_only, flips.pairs, flips.effect)
    )


def count_flips(steered: Bools, neutral: Bools, groups: Groups) -> Flips:
    """Count from arrays (pairs) that say which flip with the instruction and with the neutral
    sentence; ``groups`` says which pairs have the same message, or ones that belong together."""
    found = count_discordant(steered, neutral, groups)
    return Flips(
        pairs=found.total,
        steered=int(steered.sum()),
        neutral=int(neutral.sum()),
        steered_only=found.a_only,
        neutral_only=found.b_only,
        effect=found.effect,
        interval_95=interval_of(steered, groups),
    )
