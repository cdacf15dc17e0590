"""Review thresholds (selective classification, El-Yaniv & Wiener 2010), and what helps if a
validation set is too small for a promised precision.

A threshold by the lower bound keeps its promise, but with few rows it may send nearly everything to
review. ``find_promise`` then says how many more rows, or how much lower a promise, would help.
"""

from __future__ import annotations

import math

import numpy as np
import scipy
from numpy.typing import NDArray

from trainer.statistics.figures import CoveragePoint, Promise, ThresholdRule
from trainer.statistics.metrics import Groups, binomial_tail, design_effect

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]

MIN_OFF_LABEL_MASS = 0.05
LEVEL = 0.95
"""The probability with which a threshold by the lower bound keeps its precision."""

FOLD_LEVEL = 0.975
"""The same of a test on predictions by folds. Their models share most of their rows, and another
model ships, so a test at 5 % breaks the promise in up to 6 % of trainings
(``python -m tests.bench.small_data``). Half the error keeps it, as it does for CV+, which doubles
the error that it is asked for (Barber et al. 2021, Annals of Statistics 49:486)."""

FEWEST_VALIDATION = 300
"""With fewer validation messages, thresholds come from folds over all messages that are not held
out, if the kind of model is cheap to train again (``trainer.training.inputs``)."""

# Not every row: each part is one more test that may fail by chance and end the sequence.
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
    level: float = LEVEL,
) -> float:
    """Return the smallest confidence from which the accepted rows keep ``precision``.

    With ``by`` "lower" at most one validation set in twenty (1 - ``level``) gives a threshold whose
    true precision is lower (see ``_proven``). With "point" the rows themselves reach it, which half
    of all sets do by luck. ``groups`` says which rows belong together; None: independent.

    The threshold is at least ``floor``, also if all rows together keep the precision: a good
    validation set must not switch review off, because it has no messages that fit no label. It is
    1.0, which sends nearly everything to review, if no part of the rows keeps the precision.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, hits = confidence[order], np.cumsum(correct[order], dtype=np.int64)
    # A threshold cannot separate rows of equal confidence: a part ends before a lower one.
    ends = np.flatnonzero(np.append(sure[:-1] > sure[1:], True)) + 1
    if by == "point":
        kept = _found(hits, ends, precision)
    elif groups is None:
        kept = _proven(sure, hits, ends, precision, level)
    else:
        kept = _proven_in_groups(sure, correct[order], groups[order], ends, (precision, level))
    if kept == 0:
        return 1.0
    if kept == len(sure):
        return floor
    # A softmax of this row alone may end in another last digit, and must not fall below.
    return max(floor, float(sure[kept - 1]) * (1 - 1e-12))


def off_label_threshold(mass: Floats, quantile: float) -> float:
    """Return a high quantile of validation's off-label mass, rounded up to two decimals and at
    least 0.05: the mass of a well-trained adapter is near zero, and so would be its quantile."""
    high = math.ceil(float(np.quantile(mass, quantile)) * 100) / 100
    return max(MIN_OFF_LABEL_MASS, high)


def out_of_scope_threshold(scores: Floats, quantile: float) -> float:
    """Return a high quantile of validation's out-of-scope scores, rounded up to two decimals."""
    return math.ceil(float(np.quantile(scores, quantile)) * 100) / 100


def coverage_curve(confidence: Floats, correct: Bools) -> list[CoveragePoint]:
    """Return accuracy against coverage, from all messages down to the most confident twentieth;
    each point accepts the messages at or above its threshold."""
    ranked = np.sort(confidence)[::-1]
    points: list[CoveragePoint] = []
    for step in range(_COVERAGE_STEPS, 0, -1):
        threshold = float(ranked[max(1, round(len(ranked) * step / _COVERAGE_STEPS)) - 1])
        if not points or points[-1].threshold != threshold:
            points.append(accept(confidence, correct, threshold))
    return points


def accept(confidence: Floats, correct: Bools, threshold: float) -> CoveragePoint:
    """Return the share and the accuracy of the messages that a threshold accepts."""
    accepted = confidence >= threshold
    return CoveragePoint(
        threshold=threshold,
        coverage=float(accepted.mean()),
        accuracy=float(correct[accepted].mean()) if accepted.any() else None,
    )


def _found(hits: NDArray[np.int64], ends: NDArray[np.int64], precision: float) -> int:
    """Return the size of the largest part of the most confident rows that reaches the precision."""
    reached = ends[hits[ends - 1] / ends >= precision]
    return int(reached[-1]) if len(reached) else 0


def _proven(
    sure: Floats, hits: NDArray[np.int64], ends: NDArray[np.int64], precision: float, level: float
) -> int:
    """Return how many of the most confident rows are shown to have the precision; 0 if none.

    Learn then test (Angelopoulos et al. 2021, arXiv 2110.01052): growing parts are tested in a
    fixed sequence by the exact binomial test of "the precision is below the wanted one" at 1 -
    ``level`` (5 %), and the first failure ends the sequence. The first part that is truly below is
    accepted in at most 5 % of all cases, and later parts only with it, so no correction for the
    number of parts is needed. The smallest parts cannot pass (95 % takes 59 rows without a
    mistake), so the sequence starts with the part that is most likely to pass by its mean
    confidence. This uses confidences only: if they are wrong, coverage suffers but never precision.
    """
    sizes = _sizes(len(sure), ends)
    # One more than the quantile: more hits than it have a probability of at most 1 - level.
    needed = scipy.stats.binom.ppf(level, sizes, precision) + 1
    # By rounding, a mean of confidences near 1 may exceed 1, and SciPy returns NaN for that.
    expected = np.minimum(np.cumsum(sure)[sizes - 1] / sizes, 1.0)
    chance = scipy.stats.binom.sf(needed - 1, sizes, expected)
    first = int(np.argmax(chance))
    passed = hits[sizes[first:] - 1] >= needed[first:]
    count = len(passed) if passed.all() else int(np.argmin(passed))
    return int(sizes[first + count - 1]) if count else 0


def _proven_in_groups(
    sure: Floats,
    correct: Bools,
    groups: Groups,
    ends: NDArray[np.int64],
    promise: tuple[float, float],
) -> int:
    """Return the same as ``_proven`` for grouped rows; ``promise`` is precision and level.

    Each part is tested with counts divided by its design effect. The first part is chosen by
    confidences and groups only, assuming half of the largest possible effect.
    """
    precision, level = promise
    sizes = _sizes(len(sure), ends)
    limits = np.array([(np.bincount(groups[:size]) ** 2).sum() / size for size in sizes])
    likely = sizes / ((1 + limits) / 2)
    needed = scipy.stats.binom.ppf(level, np.floor(likely), precision) + 1
    expected = np.minimum(np.cumsum(sure)[sizes - 1] / sizes, 1.0)
    chance = scipy.stats.binom.sf(needed - 1, np.floor(likely), expected)
    kept = 0
    for size in map(int, sizes[int(np.argmax(chance)) :]):
        if proof(correct[:size], groups[:size], precision) > 1 - level:
            break
        kept = size
    return kept


def proof(correct: Bools, groups: Groups | None, precision: float) -> float:
    """Return the one-sided exact p-value of "the share of right rows is below ``precision``"; 1.0
    without rows."""
    effect = design_effect(correct, groups)
    return binomial_tail(correct.sum() / effect, len(correct) / effect, precision)


def _sizes(rows: int, ends: NDArray[np.int64]) -> NDArray[np.int64]:
    wanted = np.ceil(rows * np.arange(1, _STEPS + 1) / _STEPS)
    return ends[np.unique(np.searchsorted(ends, wanted))]


WITHIN = 0.1
"""A promise is within reach if the lower bound sends at most this additional share of messages to
review, compared with the point value."""

_LESSER = (0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.87, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
_MORE = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
_POWER = 0.8


def fewest_rows(precision: float, level: float = LEVEL) -> int:
    """Return how many rows without a mistake it takes to prove a precision at 95 %: 59 for 0.95."""
    return math.ceil(math.log(1 - level) / math.log(precision))


def find_promise(
    confidence: Floats,
    correct: Bools,
    precision: float,
    *,
    floor: float,
    groups: Groups | None = None,
    level: float = LEVEL,
) -> Promise | None:
    """Return what would bring a promise within reach; None if it is within reach.

    ``rows`` is about the number of validation rows that it takes, if further rows are like these: a
    part of the most confident rows with its present precision has to pass the test four times in
    five; None if sixteen times the rows are too few. ``lesser`` is the highest lower promise that
    the present rows bring within reach; None if there is none down to 0.5.
    """

    def accepted_by(rule: ThresholdRule, share: float) -> float:
        found = review_threshold(
            confidence, correct, share, floor=floor, by=rule, groups=groups, level=level
        )
        return accept(confidence, correct, found).coverage

    point = accepted_by("point", precision)
    if accepted_by("lower", precision) >= point - WITHIN:
        return None
    wanted = max(point - WITHIN, 1 / len(confidence))
    effect = design_effect(correct, groups)
    rows = _enough_rows(confidence, correct, (precision, level), wanted, effect)
    lesser = None
    for less in (one for one in _LESSER if one < precision):
        accepted = accepted_by("lower", less)
        if accepted >= wanted:
            lesser = (less, 1 - accepted)
            break
    return Promise(
        precision=precision,
        fewest=math.ceil(fewest_rows(precision, level) * effect),
        rows=rows[0] if rows else None,
        review_at_rows=rows[1] if rows else None,
        lesser=lesser[0] if lesser else None,
        review_at_lesser=lesser[1] if lesser else None,
    )


def describe_promise(promise: Promise, rows: int) -> str:
    """Say in plain words that ``rows`` validation rows cannot prove a promise, and what helps."""
    enough = f"about {promise.rows:,}" if promise.rows is not None else "far more"
    lesser = describe_lesser(promise)
    return (
        f"{rows:,} messages to choose by are too few to promise that "
        f"{100 * promise.precision:.4g} in 100 are right; {enough} would do"
        f"{f'; or {lesser}' if lesser else ''}"
    )


REVIEW_IS_MUCH = 0.2
"""A share sent to review from which on a lower promise is offered."""


def describe_lesser(promise: Promise) -> str:
    """Say in plain words what a lower promise brings and costs; "" if none is within reach."""
    if promise.lesser is None or promise.review_at_lesser is None:
        return ""
    return (
        f"promise that {100 * promise.lesser:.4g} in 100 are right instead of "
        f"{100 * promise.precision:.4g}, and it files about "
        f"{100 * (1 - promise.review_at_lesser):.0f} of 100 by itself, but up to "
        f"{100 * (1 - promise.lesser):.4g} of 100 of these may be wrong"
    )


def _enough_rows(
    confidence: Floats,
    correct: Bools,
    promise: tuple[float, float],
    wanted: float,
    effect: float,
) -> tuple[int, float] | None:
    """Return (rows, share to review) for the fewest rows of which a share ``wanted`` or more is
    likely to be accepted; ``promise`` is precision and level, ``effect`` rows count as one."""
    precision, level = promise
    total = len(confidence)
    hits = np.cumsum(correct[np.argsort(-confidence, kind="stable")])
    sizes = np.arange(1, total + 1)
    share = hits / sizes
    for times in _MORE:
        larger = np.floor(sizes * times / effect)
        needed = scipy.stats.binom.ppf(level, larger, precision) + 1
        passes = np.flatnonzero(scipy.stats.binom.sf(needed - 1, larger, share) >= _POWER)
        if len(passes) and (passes[-1] + 1) / total >= wanted:
            return math.ceil(total * times), float(1 - (passes[-1] + 1) / total)
    return None
