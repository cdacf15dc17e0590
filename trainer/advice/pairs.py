"""Labels that people confuse, by messages that two of them decided on without each other.

Every claim is a binomial test against a rate that a sound taxonomy has too, at 5 % over all labels
or pairs together (Bonferroni): of sound taxonomies at most one in twenty hears a wrong word of each
kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

from trainer.advice.opinions import NONE, DecidedMessage
from trainer.statistics.metrics import ALPHA, binomial_tail

TOLERATED_PAIR = 0.05
"""Share of two labels' messages on which careful people may take one for the other."""

COIN = 0.5
"""How often two people disagree on labels that they can only guess between."""

ONE_LABEL = COIN / 2
"""Disagreement of a pair above which it is nearer to one label than to two."""

TOLERATED_LABEL = 0.25
"""Share of a label's messages on which two people may disagree: each wrong once in eight times."""


@dataclass(frozen=True, slots=True)
class PairFound:
    """Two labels, on how many messages people disagree between just these, out of how many that
    concern them; ``alike`` where they look like one label. ``digests`` name those messages."""

    labels: tuple[str, str]
    disagreements: int
    messages: int
    p_value: float
    alike: bool
    digests: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class LabelFound:
    """A label whose messages people disagree on, beyond the pairs that were found."""

    label: str
    disagreements: int
    messages: int
    p_value: float
    digests: tuple[str, ...]


def find_pairs(decided: Iterable[DecidedMessage], labels: Sequence[str]) -> list[PairFound]:
    """Return the pairs that people confuse, the most often confused first."""
    between: dict[tuple[str, str], list[str]] = {}
    concern: Counter[str] = Counter()
    doubly = [each for each in decided if each.doubly]
    for each in doubly:
        said = sorted(set(each.opinions) - {NONE})
        concern.update(said)
        for pair in combinations(said, 2):
            between.setdefault(pair, []).append(each.message_sha256)
    tests = max(1, len(labels) * (len(labels) - 1) // 2)
    found = []
    for pair, digests in between.items():
        messages = concern[pair[0]] + concern[pair[1]] - len(digests)
        p = min(1.0, tests * binomial_tail(len(digests), messages, TOLERATED_PAIR))
        if p >= ALPHA:
            continue
        one = min(1.0, tests * binomial_tail(len(digests), messages, ONE_LABEL))
        alike = one < ALPHA
        found.append(
            PairFound(pair, len(digests), messages, one if alike else p, alike, tuple(digests))
        )
    return sorted(found, key=lambda each: (-each.disagreements / each.messages, each.labels))


def find_contradictory(
    decided: Iterable[DecidedMessage], labels: Sequence[str], pairs: Sequence[PairFound]
) -> list[LabelFound]:
    """Return the labels that people disagree on too often, where no pair explains it."""
    explained = {digest for pair in pairs for digest in pair.digests}
    found = []
    doubly = [each for each in decided if each.doubly and each.message_sha256 not in explained]
    for label in labels:
        of = [each for each in doubly if label in each.opinions]
        odd = tuple(each.message_sha256 for each in of if len(set(each.opinions)) > 1)
        p = min(1.0, len(labels) * binomial_tail(len(odd), len(of), TOLERATED_LABEL))
        if p < ALPHA:
            found.append(LabelFound(label, len(odd), len(of), p, odd))
    return sorted(found, key=lambda each: each.p_value)
