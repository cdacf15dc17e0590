"""The difference of two labellings' accuracies on the same messages, and tests of non-inferiority.

Without a significant difference two labellings are not shown to be equal: with few messages any
pair passes. A non-inferiority test therefore has the null hypothesis that the first labelling is
worse by the margin or more, which too few messages cannot reject.

Accuracies, differences and margins are shares (0.01 is one point). A difference is the first
labelling's accuracy minus the second's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
import scipy

from trainer.statistics.metrics import ALPHA, POWER, Bools, Discordance, Floats


def paired_interval(found: Discordance) -> tuple[float, float]:
    """Return the two-sided 95 % interval of the difference: Tango's score interval (1998,
    Statistics in Medicine 17:891)."""
    # Not the bootstrap: its interval shrinks to a point if the two differ on few messages or none.
    return lowest_difference(found, 0.025), -lowest_difference(found.turned, 0.025)


# With a margin of 1 the hypothesis leaves nothing to chance, and the score is undefined.
_LARGEST_MARGIN = 0.999
_NORMAL = NormalDist()


def non_inferiority_p(found: Discordance, margin: float) -> float:
    """Return the one-sided p-value of "a is worse than b by ``margin`` or more" (0 < margin < 1).

    Tango's score test for the difference of two correlated shares (Tango 1998, Statistics in
    Medicine 17:891), with the maximum-likelihood variance under that hypothesis. It keeps its level
    where other tests do not (Liu et al. 2002, Statistics in Medicine 21:231); ``python -m
    tests.bench.judges`` simulates it.
    """
    return math.erfc(_score(found, margin) / math.sqrt(2)) / 2


def lowest_difference(found: Discordance, alpha: float = ALPHA) -> float:
    """Return the lower end of Tango's one-sided score interval of the difference. It is above minus
    the margin if and only if ``non_inferiority_p`` is below ``alpha``."""
    wanted = _NORMAL.inv_cdf(1 - alpha)
    ends = (-_LARGEST_MARGIN, _LARGEST_MARGIN)
    if _score(found, ends[0]) >= wanted:
        return 1.0
    if _score(found, ends[1]) <= wanted:
        return -1.0
    return -float(scipy.optimize.brentq(lambda margin: _score(found, margin) - wanted, *ends))


def power(total: float, discordance: float, margin: float, alpha: float = ALPHA) -> float:
    """Return how often the test on ``total`` messages at level ``alpha`` passes an equal labelling,
    if a share ``discordance`` of the messages is discordant.

    The normal approximation of Nam (1997, Biometrics 53:1422): under the alternative the restricted
    estimate converges to the solution of the same equation in the true shares.
    """
    null, true = _deviations(discordance, margin)
    excess = math.sqrt(total) * margin - _NORMAL.inv_cdf(1 - alpha) * null
    return _NORMAL.cdf(excess / true) if true else float(excess > 0)


def required_messages(discordance: float, margin: float, alpha: float = ALPHA) -> int:
    """Return with how many messages an equal labelling passes four times in five (``POWER``)."""
    null, true = _deviations(discordance, margin)
    root = (_NORMAL.inv_cdf(1 - alpha) * null + _NORMAL.inv_cdf(POWER) * true) / margin
    return math.ceil(root * root)


def messages_for(found: Discordance, margin: float, alpha: float = ALPHA) -> int:
    """Return ``required_messages`` for the observed discordance and design effect."""
    return math.ceil(required_messages(found.share, margin, alpha) * found.effect)


def smallest_margin(total: float, discordance: float, alpha: float = ALPHA) -> float:
    """Return the smallest margin within which an equal labelling passes with ``total`` messages
    four times in five (``POWER``)."""
    return _bisect(1.0, 0.0, lambda margin: required_messages(discordance, margin, alpha) <= total)


def largest_discordance(total: float, margin: float) -> float:
    """Return the largest share of discordant messages with which an equal labelling passes with
    ``total`` messages four times in five; 0.0 if it never does."""
    return _bisect(0.0, 1.0, lambda share: required_messages(share, margin) <= total)


def _bisect(inside: float, outside: float, holds: Callable[[float], bool]) -> float:
    """Return the last value, from ``inside`` towards ``outside``, for which ``holds`` is true."""
    for _ in range(40):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if holds(middle) else (inside, middle)
    return inside


def _score(found: Discordance, margin: float) -> float:
    """Return Tango's statistic, standard normal if the difference is minus the margin."""
    n, a, b = (count / found.effect for count in (found.total, found.a_only, found.b_only))
    only_b = _restricted(a / n, b / n, margin)
    variance = 2 * only_b - margin * (1 + margin)
    excess = (a - b) / n + margin
    if variance <= 0:
        return 0.0 if excess == 0 else math.copysign(math.inf, excess)
    return math.sqrt(n / variance) * excess


def _restricted(a: float, b: float, margin: float) -> float:
    """Return the maximum-likelihood share that only b gets right if a's share is lower by
    ``margin``; ``a`` and ``b`` are the observed shares."""
    linear = a + b + margin * (2 - a + b)
    root = math.sqrt(max(0.0, linear * linear - 8 * b * margin * (1 + margin)))
    return (linear + root) / 4


def _deviations(discordance: float, margin: float) -> tuple[float, float]:
    """Return the standard deviation of one message's difference between equal labellings, as
    assumed by the test and as it is."""
    null = 2 * _restricted(discordance / 2, discordance / 2, margin) - margin * (1 + margin)
    return math.sqrt(null), math.sqrt(discordance)


def not_wrong_unseen(confidence: Floats, correct: Bools, surest: int) -> Bools:
    """Return for each message whether it is right or reviewed, if the ``surest`` most confident
    ones are labelled without review."""
    # Independent of the adapters' thresholds: a threshold is set on a validation set, with noise,
    # and a lower one sends less to review without a better model.
    unseen = np.zeros(len(confidence), dtype=np.bool_)
    unseen[np.argsort(-confidence, kind="stable")[:surest]] = True
    good: Bools = correct | ~unseen
    return good


def alpha_of(turn: int) -> float:
    """Return the level of the test at its ``turn`` (from 1): ``ALPHA`` / (turn * (turn + 1)).

    These levels add up to at most ``ALPHA`` however often the test is repeated, so the whole
    sequence errs at most that often (alpha spending, Foster and Stine 2008, Journal of the Royal
    Statistical Society B 70:429; Blum and Hardt 2015, arXiv 1502.04585, for hold-outs). The first
    tests get the most, because a hold-out is least biased before choices depend on it.
    """
    return ALPHA / (turn * (turn + 1))
