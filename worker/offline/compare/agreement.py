"""How far two adapters agree on the same messages. Pure arithmetic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Labelled:
    """One adapter's answer; ``review`` tells whether it would go to review."""

    label: str
    confidence: float
    off_label_mass: float | None
    review: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """One message with both answers, and its true label where it is known.

    ``text`` is kept only on request.
    """

    id: str
    first: Labelled
    second: Labelled
    truth: str | None = None
    text: str | None = None

    @property
    def agrees(self) -> bool:
        """Whether both labels are the same."""
        return self.first.label == self.second.label


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """How many messages each adapter gave a label, and how many got it from both.

    ``share`` is 2 both / (first + second), the specific agreement on one category (Dice 1945).
    """

    label: str
    first: int
    second: int
    both: int
    share: float


@dataclass(frozen=True, slots=True)
class AdapterSummary:
    """Means and shares of one adapter over all messages; None is a mean over nothing."""

    confidence: float
    confidence_agreed: float | None
    confidence_disagreed: float | None
    off_label_mass: float | None
    review: float
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Correctness:
    """Both adapters against true labels.

    ``first_only`` counts the messages that the first adapter alone labelled correctly. ``p_value``
    is that of McNemar's exact two-sided test (1947) that both are correct equally often.
    """

    messages: int
    both: int
    first_only: int
    second_only: int
    neither: int
    p_value: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that is reported. ``kappa`` is None where both gave every message the same one label.

    ``moves`` counts messages by their first and second label, where these differ.
    """

    messages: int
    agreed: int
    kappa: float | None
    labels: tuple[LabelAgreement, ...]
    moves: tuple[tuple[str, str, int], ...]
    first: AdapterSummary
    second: AdapterSummary
    review_both: float
    truth: Correctness | None

    @property
    def agreement(self) -> float:
        """Share of the messages that got the same label from both."""
        return self.agreed / self.messages


def compare(pairs: Sequence[Pair], labels: Sequence[str]) -> Comparison:
    """Compare the answers of two adapters; ``pairs`` must not be empty.

    Labels are reported in the order of ``labels``, then of their occurrence; unused ones are not.
    """
    firsts = Counter(pair.first.label for pair in pairs)
    seconds = Counter(pair.second.label for pair in pairs)
    both = Counter(pair.first.label for pair in pairs if pair.agrees)
    agreed = both.total()
    used = [
        label
        for label in dict.fromkeys((*labels, *firsts, *seconds))
        if firsts[label] + seconds[label]
    ]
    moves = Counter((pair.first.label, pair.second.label) for pair in pairs if not pair.agrees)
    return Comparison(
        messages=len(pairs),
        agreed=agreed,
        kappa=kappa(firsts, seconds, agreed),
        labels=tuple(
            LabelAgreement(
                label,
                firsts[label],
                seconds[label],
                both[label],
                2 * both[label] / (firsts[label] + seconds[label]),
            )
            for label in used
        ),
        moves=tuple((first, second, count) for (first, second), count in moves.most_common()),
        first=_summary([pair.first for pair in pairs], pairs),
        second=_summary([pair.second for pair in pairs], pairs),
        review_both=_mean([pair.first.review and pair.second.review for pair in pairs]) or 0.0,
        truth=_correctness([pair for pair in pairs if pair.truth is not None]),
    )


def kappa(firsts: Counter[str], seconds: Counter[str], agreed: int) -> float | None:
    """Return Cohen's kappa (1960): agreement beyond the one that two labellers with these counts
    have by chance. 1 at best, 0 for chance, None where chance alone would always agree."""
    total = firsts.total()
    chance = sum(count * seconds[label] for label, count in firsts.items()) / total**2
    if chance == 1:
        return None
    return (agreed / total - chance) / (1 - chance)


def mcnemar(first_only: int, second_only: int) -> float:
    """Return the exact two-sided p-value of McNemar's test.

    Under the null hypothesis, the messages that exactly one of the two labels correctly are the
    tosses of a fair coin. 1 without any such message.
    """
    trials = first_only + second_only
    smaller = min(first_only, second_only)
    tail = sum(math.comb(trials, successes) for successes in range(smaller + 1))
    return min(1.0, 2 * tail / (1 << trials))


def _summary(answers: Sequence[Labelled], pairs: Sequence[Pair]) -> AdapterSummary:
    answered = list(zip(answers, pairs, strict=True))
    masses = [answer.off_label_mass for answer in answers if answer.off_label_mass is not None]
    correct = [answer.label == pair.truth for answer, pair in answered if pair.truth is not None]
    return AdapterSummary(
        confidence=_mean([answer.confidence for answer in answers]) or 0.0,
        confidence_agreed=_mean([answer.confidence for answer, pair in answered if pair.agrees]),
        confidence_disagreed=_mean(
            [answer.confidence for answer, pair in answered if not pair.agrees]
        ),
        off_label_mass=_mean(masses),
        review=_mean([answer.review for answer in answers]) or 0.0,
        accuracy=_mean(correct),
    )


def _correctness(pairs: Sequence[Pair]) -> Correctness | None:
    if not pairs:
        return None
    correct = Counter(
        (pair.first.label == pair.truth, pair.second.label == pair.truth) for pair in pairs
    )
    first_only, second_only = correct[True, False], correct[False, True]
    return Correctness(
        len(pairs),
        correct[True, True],
        first_only,
        second_only,
        correct[False, False],
        mcnemar(first_only, second_only),
    )


def _mean(values: Sequence[float]) -> float | None:
    return math.fsum(values) / len(values) if values else None
