"""The accuracy in service: weighted, corrected for reviewers' mistakes, with a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from desk.accuracy.beta import exact_limits
from desk.accuracy.reviewers import Mistakes
from desk.accuracy.weighting import Counts, Share, Stratum, weighted_share

_LEAST_SENSE = 0.05
"""Of 1 - rejects - accepts: with less, reviewers tell right from wrong no better than a coin."""


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A share of all traffic that was labelled rightly, with the limits of its 95 % interval.

    ``verdicts`` is how many audited results it stands on; ``observed`` the weighted share before
    the correction; ``plain`` neither weighted nor corrected. ``corrected`` is False where nothing
    is known of the reviewers' mistakes.
    """

    value: float
    low: float
    high: float
    verdicts: int
    observed: float
    plain: float
    corrected: bool


def accuracy(
    sample: Mapping[Stratum, Counts], traffic: Mapping[Stratum, int], mistakes: Mistakes | None
) -> Accuracy | None:
    """Estimate the accuracy over ``traffic``; None without verdicts.

    Of a single verdict: P(found right) = a (1 - rejects) + (1 - a) accepts, for an accuracy of a;
    solved for a (Rogan and Gladen, Estimating Prevalence from the Results of a Screening Test,
    1978). Both rates are estimated by themselves, so nothing is assumed of whether a reviewer's
    mistake falls on the machine's. A verdict that a second person or an adjudicator has checked is
    taken to be right, so the rates count for the share of the others.

    Limits are those of Korn and Graubard for the observed share and of Clopper and Pearson for the
    two rates, each carried through the formula alone and put together by the square root of the sum
    of squares (MOVER: Zou and Donner, Construction of Confidence Limits about Effect Measures,
    2008). Bayer, Fay and Graubard (2023) put the same three together by melding, which takes
    thousands of draws for each figure.
    """
    observed = weighted_share(sample, traffic)
    if observed is None:
        return None
    total = sum(sample.values(), Counts(0, 0))
    unchecked = 1 - total.checked / total.verdicts
    exact = Share(0.0, math.inf)
    rejects, accepts = (mistakes.rejects, mistakes.accepts) if mistakes else (exact, exact)
    value, low, high = _limits(observed, rejects, accepts, unchecked)
    return Accuracy(
        value=min(1.0, max(0.0, value)),
        low=min(1.0, max(0.0, low)),
        high=min(1.0, max(0.0, high)),
        verdicts=total.verdicts,
        observed=observed.value,
        plain=total.right / total.verdicts,
        corrected=mistakes is not None,
    )


def _limits(
    observed: Share, rejects: Share, accepts: Share, unchecked: float
) -> tuple[float, float, float]:
    """Return the estimate and its limits, not yet cut to [0, 1]."""

    def solve(share: float, rejected: float, accepted: float) -> float:
        sense = max(_LEAST_SENSE, 1 - unchecked * (rejected + accepted))
        return (share - unchecked * accepted) / sense

    points = (observed.value, rejects.value, accepts.value)
    value = solve(*points)
    below = above = 0.0
    for at, share in enumerate((observed, rejects, accepts)):
        if math.isinf(share.size):
            continue
        ends = []
        for limit in exact_limits(share.value, share.size):
            moved = list(points)
            moved[at] = limit
            ends.append(solve(*moved))
        below += max(0.0, value - min(ends)) ** 2
        above += max(0.0, max(ends) - value) ** 2
    return value, value - math.sqrt(below), value + math.sqrt(above)
