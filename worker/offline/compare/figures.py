"""What two labellings of the same messages have in common. Pure arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Labelled:
    """One adapter's answer; ``review`` tells whether a person would look at it."""

    label: str
    confidence: float
    off_label_mass: float | None
    review: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """One message with both answers, and its true label where that is known.

    ``text`` is kept only where it was asked for.
    """

    id: str
    first: Labelled
    second: Labelled
    truth: str | None = None
    text: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both gave the same label."""
        return self.first.label == self.second.label


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How often each gave a label, and how often both did for the same message.

    ``share`` is 2 both / (first + second), the specific agreement of one category (Dice 1945).
    """

    label: str
    first: int
    second: int
    both: int
    share: float


@dataclass(frozen=True, slots=True)
class Side:
    """One adapter over all messages; a share or mean each."""

    confidence: float
    confidence_agreed: float | None
    confidence_disagreed: float | None
    off_label_mass: float | None
    review: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Truth:
    """Against true labels: ``first_only`` messages that the first adapter alone labelled rightly,
    and the exact two-sided p-value of McNemar's test (1947) that the two are right as often."""

    messages: int
    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Everything that is reported. ``kappa`` is None where each gave one and the same label."""

    messages: int
    agreed: int
    kappa: float | None
    labels: tuple[LabelAgreement, ...]
    moves: tuple[tuple[str, str, int], ...]
    first: Side
    second: Side
    review_both: float
    truth: Truth | None

    @property
    def agreement(self) -> float:
        """Share of the messages with the same label from both."""
        return self.agreed / self.messages


def compare(pairs: Sequence[Pair], labels: Sequence[str]) -> Comparison:
    """Compare two adapters' answers; there must be some. ``labels`` gives their order."""
    firsts = Counter(one.first.label for one in pairs)
    seconds = Counter(one.second.label for one in pairs)
    both = Counter(one.first.label for one in pairs if one.agrees)
    agreed = sum(both.values())
    order = [
        one for one in dict.fromkeys((*labels, *firsts, *seconds)) if firsts[one] + seconds[one]
    ]
    moves = Counter((one.first.label, one.second.label) for one in pairs if not one.agrees)
    return Comparison(
        messages=len(pairs),
        agreed=agreed,
        kappa=kappa(firsts, seconds, agreed),
        labels=tuple(
            LabelAgreement(
                one,
                firsts[one],
                seconds[one],
                both[one],
                2 * both[one] / (firsts[one] + seconds[one]),
            )
            for one in order
        ),
        moves=tuple((a, b, count) for (a, b), count in moves.most_common()),
        first=_side([one.first for one in pairs], pairs),
        second=_side([one.second for one in pairs], pairs),
        review_both=_mean([one.first.review and one.second.review for one in pairs]) or 0.0,
        truth=_truth([one for one in pairs if one.truth is not None]),
    )


def kappa(firsts: Counter[str], seconds: Counter[str], agreed: int) -> float | None:
    """Return Cohen's kappa (1960): agreement beyond what two labellings with these counts would
    have by chance, 1 at best, 0 for chance. None where chance alone would always agree."""
    total = firsts.total()
    chance = sum(count * seconds[label] for label, count in firsts.items()) / total**2
    if chance == 1:
        return None
    return (agreed / total - chance) / (1 - chance)


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value: without a difference the messages that exactly one of
    them labels rightly fall to either side like a fair coin. 1 without any such message."""
    trials = first_only + second_only
    smaller = min(first_only, second_only)
    tail = sum(math.comb(trials, one) for one in range(smaller + 1))
    return min(1.0, 2 * tail / (1 << trials))


def _side(answers: Sequence[Labelled], pairs: Sequence[Pair]) -> Side:
    known = [
        one.label == pair.truth
        for one, pair in zip(answers, pairs, strict=True)
        if pair.truth is not None
    ]
    together = list(zip(answers, pairs, strict=True))
    return Side(
        confidence=_mean([one.confidence for one in answers]) or 0.0,
        confidence_agreed=_mean([one.confidence for one, pair in together if pair.agrees]),
        confidence_disagreed=_mean([one.confidence for one, pair in together if not pair.agrees]),
        off_label_mass=_mean(
            [one.off_label_mass for one in answers if one.off_label_mass is not None]
        ),
        review=_mean([one.review for one in answers]) or 0.0,
        accuracy=_mean(known),
    )


def _truth(pairs: Sequence[Pair]) -> Truth | None:
    if not pairs:
        return None
    right = Counter((one.first.label == one.truth, one.second.label == one.truth) for one in pairs)
    first_only, second_only = right[True, False], right[False, True]
    return Truth(
        len(pairs),
        right[True, True],
        first_only,
        second_only,
        right[False, False],
        mcnemar(first_only, second_only),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
