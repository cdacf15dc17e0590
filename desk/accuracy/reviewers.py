"""How often reviewers are mistaken, from the audit items that two of them decided."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from desk.accuracy.weighting import Share

FILL = 20
"""Fewer opinions than this on results where the machine was wrong are filled up with the rate of
all mistakes: right after the start there may be none."""


class Doubled(NamedTuple):
    """An audit item on which several people spoke: whether the machine was right by what was
    settled, how many of the opinions were on the wrong side of that, and how many there were.

    The wrong side: where the machine was right, another label than its own; where it was wrong, its
    label. Two people who are mistaken for different labels, neither the machine's, do no harm to
    the measure of accuracy; ``mistaken`` counts every opinion that was not the settled label.
    """

    machine_right: bool
    wrong_side: int
    mistaken: int
    opinions: int


@dataclass(frozen=True, slots=True)
class Mistakes:
    """What one reviewer, alone, does to the measure.

    ``rejects``: how often they call the machine wrong where it is right; ``accepts``: right where
    it is wrong; ``any``: how often their label is not the settled one.
    """

    rejects: Share
    accepts: Share
    any: Share
    items: int


def mistakes(doubled: Mapping[Doubled, int]) -> Mistakes | None:
    """Return the reviewers' mistakes, from how many items there were of each kind; None from none.

    What was settled is taken for the truth: two people who decided blind and agreed, or the
    adjudicator. That both make the same mistake is not seen; where mistakes are independent, it is
    as rare as the square of their rate. Opinions on one item are not independent where the item is
    hard, so the effective size comes from the spread between items.
    """
    items = sum(doubled.values())
    if not items:
        return None
    every = _rate((kind.mistaken, kind.opinions, n) for kind, n in doubled.items())
    rejects = _rate(
        (kind.wrong_side, kind.opinions, n) for kind, n in doubled.items() if kind.machine_right
    )
    accepts = _rate(
        (kind.wrong_side, kind.opinions, n) for kind, n in doubled.items() if not kind.machine_right
    )
    return Mistakes(_filled(rejects, every), _filled(accepts, every), every, items)


def _rate(kinds: Iterable[tuple[int, int, int]]) -> Share:
    """Return a share of opinions from (hits, opinions, items) of each kind of item."""
    kinds = list(kinds)
    items = sum(n for _, _, n in kinds)
    opinions = sum(each * n for _, each, n in kinds)
    if not opinions:
        return Share(0.0, 0.0)
    rate = sum(hits * n for hits, _, n in kinds) / opinions
    # The variance of a ratio between clusters (Cochran 1977, section 9A.1).
    spread = sum(n * (hits - rate * each) ** 2 for hits, each, n in kinds)
    if items < 2 or spread <= 0:
        return Share(rate, float(opinions))
    variance = spread * items / (items - 1) / opinions**2
    return Share(rate, min(float(opinions), rate * (1 - rate) / variance))


def _filled(rate: Share, every: Share) -> Share:
    missing = max(0.0, FILL - rate.size)
    if not missing or not every.size:
        return rate
    missing = min(missing, every.size)
    size = rate.size + missing
    return Share((rate.value * rate.size + every.value * missing) / size, size)
