"""Whether a promise of precision is within a validation set's reach, and what would be.

A threshold by the lower bound keeps its promise and may send nearly everything to review: where few
rows are at hand they prove little. Then a person wants to know what would help, more rows or a
promise of less, and how much of it.
"""

from __future__ import annotations

import math

import numpy as np
import scipy

from trainer.statistics.clusters import Groups, design_effect
from trainer.statistics.figures import Promise, ThresholdRule
from trainer.statistics.thresholds import LEVEL, Bools, Floats, accept, review_threshold

WITHIN = 0.1
"""A promise is within reach where the lower bound sends at most this share of the messages to
review beyond what the point value would."""

_LESSER = (0.99, 0.98, 0.97, 0.95, 0.93, 0.9, 0.87, 0.85, 0.8, 0.75, 0.7, 0.6, 0.5)
_MORE = (1.25, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
_POWER = 0.8


def fewest_rows(precision: float) -> int:
    """Return how many rows without an error are the fewest that prove a precision above 0 and
    below 1 at 95 %: 59 for 0.95."""
    return math.ceil(math.log(1 - LEVEL) / math.log(precision))


def find_promise(
    confidence: Floats,
    correct: Bools,
    precision: float,
    *,
    floor: float,
    groups: Groups | None = None,
) -> Promise | None:
    """Return what would bring a promise within reach; None where it is.

    ``rows`` are about as many validation rows as do, if further ones are like these: a part of the
    surest with the precision that it has here has to pass the test four times in five. ``lesser``
    is the highest smaller promise that these rows put within reach of the point value of the
    wanted one. None where up to sixteen times the rows, or no promise of half the labels, do.
    """

    def accepted_by(rule: ThresholdRule, share: float) -> float:
        found = review_threshold(confidence, correct, share, floor=floor, by=rule, groups=groups)
        return accept(confidence, correct, found).coverage

    point = accepted_by("point", precision)
    if accepted_by("lower", precision) >= point - WITHIN:
        return None
    wanted = max(point - WITHIN, 1 / len(confidence))
    effect = design_effect(correct, groups)
    rows = _enough_rows(confidence, correct, precision, wanted, effect)
    lesser = None
    for less in (one for one in _LESSER if one < precision):
        accepted = accepted_by("lower", less)
        if accepted >= wanted:
            lesser = (less, 1 - accepted)
            break
    return Promise(
        precision=precision,
        fewest=math.ceil(fewest_rows(precision) * effect),
        rows=rows[0] if rows else None,
        review_at_rows=rows[1] if rows else None,
        lesser=lesser[0] if lesser else None,
        review_at_lesser=lesser[1] if lesser else None,
    )


def describe_promise(promise: Promise, rows: int, point_review: float) -> str:
    """Return in words what a promise out of the reach of ``rows`` validation rows comes to;
    ``point_review`` is the share to review by the point value."""
    wanted = f"{promise.precision:.4g}"
    said = [f"{rows:,} validation rows are too few to prove {wanted} of labels as unsure as these"]
    if promise.rows is None or promise.review_at_rows is None:
        said.append(f"{_MORE[-1]:.0f} times as many would not either")
    else:
        said.append(f"about {promise.rows:,} would, with {promise.review_at_rows:.0%} to review")
    if promise.lesser is not None and promise.review_at_lesser is not None:
        said.append(
            f"review_precision = {promise.lesser:.4g} sends {promise.review_at_lesser:.0%} there"
        )
    said.append(
        f'review_precision_by = "point" {point_review:.0%}, and keeps {wanted} half of the time'
    )
    return "; ".join(said)


def _enough_rows(
    confidence: Floats, correct: Bools, precision: float, wanted: float, effect: float
) -> tuple[int, float] | None:
    """Return (rows, share to review) for the fewest rows of which ``wanted`` (a share) or more is
    likely to be accepted; ``effect`` of them count as one."""
    total = len(confidence)
    hits = np.cumsum(correct[np.argsort(-confidence, kind="stable")])
    sizes = np.arange(1, total + 1)
    share = hits / sizes
    for times in _MORE:
        larger = np.floor(sizes * times / effect)
        needed = scipy.stats.binom.ppf(LEVEL, larger, precision) + 1
        passes = np.flatnonzero(scipy.stats.binom.sf(needed - 1, larger, share) >= _POWER)
        if len(passes) and (passes[-1] + 1) / total >= wanted:
            return math.ceil(total * times), float(1 - (passes[-1] + 1) / total)
    return None
