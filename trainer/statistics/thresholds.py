"""Which confidence goes without review, and what a threshold accepts (selective classification,
El-Yaniv & Wiener 2010)."""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from trainer.statistics.clusters import Groups, design_effect
from trainer.statistics.figures import CoveragePoint, ThresholdRule
from trainer.statistics.metrics import binomial_tail

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

MIN_OFF_LABEL_MASS = 0.05
LEVEL = 0.95
"""How surely a threshold by the lower bound keeps its precision."""

_STEPS = 100
_COVERAGE_STEPS = 20


def review_threshold(
    confidence: Floats,
    correct: Bools,
    precision: float,
    *,
    floor: float,
    by: ThresholdRule = "lower",
    groups: Groups | None = None,
) -> float:
    """Return the smallest confidence from which on the accepted rows keep ``precision``.

    ``by`` "lower": so that at most one set of rows in twenty gives a threshold whose true precision
    is below it (see ``_proven``). "point": so that the rows themselves reach it, which half of all
    sets do by luck. ``groups`` says which rows belong together; None: they are independent.

    It is ``floor`` where all rows together keep it, and never below: a good validation set must
    not switch review off, because it holds no message from outside the taxonomy. It is 1.0, which
    sends all but the surest to review, where no part of the rows does.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(correct[order], dtype=np.int64)
    # Rows of equal confidence stand or fall together: a part ends where the next one is less sure.
    ends = np.flatnonzero(np.append(sure[:-1] > sure[1:], True)) + 1
    if by == "point":
        kept = _found(hits, ends, precision)
    elif groups is None:
        kept = _proven(sure, hits, ends, precision)
    else:
        kept = _proven_in_groups(sure, correct[order], groups[order], ends, precision)
    if kept == 0:
        return 1.0
    return floor if kept == len(sure) else max(floor, float(sure[kept - 1]))


def off_label_threshold(mass: Floats, quantile: float) -> float:
    """Return a high quantile of validation's off-label mass, rounded up to two decimals and at
    least 0.05: a well trained adapter gives known messages next to none."""
    high = math.ceil(float(np.quantile(mass, quantile)) * 100) / 100
    return max(MIN_OFF_LABEL_MASS, high)


def out_of_scope_threshold(scores: Floats, quantile: float) -> float:
    """Return a high quantile of validation's out-of-scope scores, rounded up to two decimals: about
    so many known messages are not sent to review for it."""
    return math.ceil(float(np.quantile(scores, quantile)) * 100) / 100


def coverage_curve(confidence: Floats, correct: Bools) -> list[CoveragePoint]:
    """Return accuracy against coverage, from all messages down to the surest twentieth: each
    point accepts the messages at or above its threshold."""
    ranked = np.sort(confidence)[::-1]
    points: list[CoveragePoint] = []
    for step in range(_COVERAGE_STEPS, 0, -1):
        threshold = float(ranked[max(1, round(len(ranked) * step / _COVERAGE_STEPS)) - 1])
        if not points or points[-1].threshold != threshold:
            points.append(accept(confidence, correct, threshold))
    return points


def accept(confidence: Floats, correct: Bools, threshold: float) -> CoveragePoint:
    """Return what a threshold accepts."""
    accepted = confidence >= threshold
    return CoveragePoint(
        threshold=threshold,
        coverage=float(accepted.mean()),
        accuracy=float(correct[accepted].mean()) if accepted.any() else None,
    )


def _found(hits: NDArray[np.int64], ends: NDArray[np.int64], precision: float) -> int:
    """Return how many of the surest rows reach the precision, the largest such part; 0: none."""
    reached = ends[hits[ends - 1] / ends >= precision]
    return int(reached[-1]) if len(reached) else 0


def _proven(
    sure: Floats, hits: NDArray[np.int64], ends: NDArray[np.int64], precision: float
) -> int:
    """Return how many of the surest rows are shown to have the precision; 0: none.

    Learn then test (Angelopoulos et al. 2021, arXiv 2110.01052): larger and larger parts are tested
    in a fixed sequence, each by the exact binomial test of "the precision is below the wanted one"
    at 5 %, and the first that fails ends it. So the first part that is truly below is accepted in
    at most 5 % of all cases, and nothing after it without it; there is nothing to correct for the
    number of parts. The smallest parts cannot pass (59 rows without an error do for 95 %): the
    sequence begins with the part that is likeliest to pass by its mean confidence. That looks at
    confidences alone, so that their being wrong costs coverage, never precision.
    """
    sizes = _sizes(len(sure), ends)
    needed = scipy.stats.binom.ppf(LEVEL, sizes, precision) + 1
    expected = np.minimum(np.cumsum(sure)[sizes - 1] / sizes, 1.0)
    chance = scipy.stats.binom.sf(needed - 1, sizes, expected)
    first = int(np.argmax(chance))
    passed = hits[sizes[first:] - 1] >= needed[first:]
    count = len(passed) if passed.all() else int(np.argmin(passed))
    return int(sizes[first + count - 1]) if count else 0


def _proven_in_groups(
    sure: Floats, correct: Bools, groups: Groups, ends: NDArray[np.int64], precision: float
) -> int:
    """Return the same as ``_proven`` for rows that belong together.

    Each part is tested with its counts divided by its own design effect. What the sequence begins
    with is chosen by confidences and groups alone, for groups half as alike as they can be.
    """
    sizes = _sizes(len(sure), ends)
    limits = np.array([(np.bincount(groups[:size]) ** 2).sum() / size for size in sizes])
    likely = sizes / ((1 + limits) / 2)
    needed = scipy.stats.binom.ppf(LEVEL, np.floor(likely), precision) + 1
    expected = np.minimum(np.cumsum(sure)[sizes - 1] / sizes, 1.0)
    chance = scipy.stats.binom.sf(needed - 1, np.floor(likely), expected)
    kept = 0
    for size in map(int, sizes[int(np.argmax(chance)) :]):
        if proof(correct[:size], groups[:size], precision) > 1 - LEVEL:
            break
        kept = size
    return kept


def proof(correct: Bools, groups: Groups | None, precision: float) -> float:
    """Return the one-sided exact p-value of "the share of right rows is below ``precision``": 1.0
    of nothing."""
    effect = design_effect(correct, groups)
    return binomial_tail(correct.sum() / effect, len(correct) / effect, precision)


def _sizes(rows: int, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    wanted = np.ceil(rows * np.arange(1, _STEPS + 1) / _STEPS)
    return ends[np.unique(np.searchsorted(ends, wanted))]
