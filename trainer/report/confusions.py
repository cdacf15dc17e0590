"""Which pairs of labels are mixed up, and whether in one direction or in both.

The two kinds ask for different work. One way: messages of one label keep being answered with the
other, hardly ever the reverse; the model lacks examples of the first where it borders the second.
Two way: each is taken for the other; the labels overlap, and a clearer taxonomy helps before any
data does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

ALPHA = 0.05
BALANCED = 1 / 3
FEWEST = 6
"""Mistakes from which on the test can reject at all, for two labels of one size."""

ONE_WAY = "one-way"
TWO_WAY = "two-way"
UNCLEAR = "too few to tell"

RULE = (
    "A pair is one-way when a two-sided exact binomial test rejects, at p < 0.05, that a mistake "
    "goes either way as often as the sizes of the two labels would have it; it is two-way when the "
    "test does not reject, the pair has six mistakes or more, and the rarer direction makes up at "
    "least a third of them; anything else is too few to tell. The p-values are not adjusted for "
    "the number of pairs: they sort the work, they prove nothing."
)


@dataclass(frozen=True, slots=True)
class Confusion:
    """A pair of labels with its mistakes: ``forth`` messages of ``label`` were answered with
    ``other``, ``back`` the reverse, and forth is the more frequent one for the labels' sizes."""

    label: str
    other: str
    forth: int
    back: int
    p: float
    kind: str

    @property
    def total(self) -> int:
        """Mistakes between the two labels."""
        return self.forth + self.back


def pairs_mixed_up(labels: Sequence[str], confusion: Sequence[Sequence[int]]) -> list[Confusion]:
    """Return every pair with a mistake between them, the most mistakes first.

    ``confusion[i][j]`` counts messages of true label i that were answered with label j.
    """
    found: list[Confusion] = []
    sizes = [sum(row) for row in confusion]
    for i in range(len(labels)):
        mixed = (j for j in range(i + 1, len(labels)) if confusion[i][j] + confusion[j][i])
        found.extend(_judge(labels, confusion, sizes, i, j) for j in mixed)
    return sorted(found, key=lambda one: (-one.total, one.p, one.label, one.other))


def binomial_test(hits: int, trials: int, share: float) -> float:
    """Return the two-sided exact p-value of ``hits`` of ``trials`` under a chance of ``share``:
    the sum over every outcome that is no likelier (Clopper & Pearson's test, as R computes it)."""
    chances = [_chance(k, trials, share) for k in range(trials + 1)]
    limit = chances[hits] * (1 + 1e-7)
    return min(1.0, math.fsum(one for one in chances if one <= limit))


def _judge(
    labels: Sequence[str], confusion: Sequence[Sequence[int]], sizes: Sequence[int], i: int, j: int
) -> Confusion:
    expected = sizes[i] / (sizes[i] + sizes[j])
    total = confusion[i][j] + confusion[j][i]
    if confusion[i][j] < expected * total:
        i, j, expected = j, i, 1 - expected
    forth, back = confusion[i][j], confusion[j][i]
    p = binomial_test(forth, total, expected)
    if p < ALPHA:
        kind = ONE_WAY
    elif total >= FEWEST and min(forth, back) >= BALANCED * total:
        kind = TWO_WAY
    else:
        kind = UNCLEAR
    return Confusion(labels[i], labels[j], forth, back, p, kind)


def _chance(k: int, trials: int, share: float) -> float:
    return math.comb(trials, k) * share**k * (1 - share) ** (trials - k)
