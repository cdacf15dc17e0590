"""The figures of drift and the levels above which they are more than chance. Pure arithmetic.

A window is a number of messages drawn one by one. Levels are worked out, not chosen: each is the
value that a window without drift exceeds in at most a given share of windows
(``false_alarm_share``). How well that holds is measured in docs/drift.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

_NORMAL = NormalDist()
_HALVINGS = 60


def psi_by_label(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, float]:
    """Return each label's part in the population stability index of a window; they add up to it.

    PSI is the sum of (a - e) ln(a / e) over the labels, with a the share found and e the share
    expected (Siddiqi 2006, Credit Risk Scorecards, chapter 9): the Kullback-Leibler divergence
    taken in both directions (Jeffreys 1946). ``counts`` are of the window; ``shares`` are those
    expected, by label, adding up to 1; a label that is in one of them alone has 0 in the other.

    Empty cells: half a message is added to each label's count and to each expected count, so that
    a label that did not come, or was never expected, has a finite part.
    """
    labels = dict.fromkeys((*shares, *counts))
    messages = sum(counts.values())
    total = messages + len(labels) / 2
    parts = {}
    for label in labels:
        found = counts.get(label, 0) + 0.5
        expected = messages * shares.get(label, 0.0) + 0.5
        parts[label] = (found - expected) / total * math.log(found / expected)
    return parts


def psi_level(window: int, labels: int, tolerated: float, false_alarm_share: float) -> float:
    """Return the PSI that a window of messages exceeds with probability ``false_alarm_share`` when
    the true shares are off by a PSI of ``tolerated``.

    In a sample of n messages over k labels, n times the PSI is distributed about as chi-square with
    k - 1 degrees of freedom (Yurdakul 2018, Statistical Properties of Population Stability Index),
    and off-center by n times the PSI of the true shares when these have moved. So the level falls
    with the window and grows with the number of labels, where a fixed 0.1 or 0.25 would not.
    """
    if labels < 2:
        return math.inf  # one label has one share
    quantile = _chi_square(1 - false_alarm_share, labels - 1, window * tolerated)
    return quantile / window


def share_bound(share: float, examples: int, confidence: float) -> float:
    """Return what the true share is at most, with this confidence, of what ``examples`` draws have
    a ``share`` of (Clopper & Pearson 1934, one-sided)."""
    above = round(share * examples)
    if above >= examples:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # Seeing so few gets less likely as the true share grows.
        if _binomial_tail(above + 1, examples, middle) < confidence:
            low = middle
        else:
            high = middle
    return high


def count_level(window: int, share: float, false_alarm_share: float) -> int:
    """Return the smallest count that a window reaches with at most this probability when each of
    its messages counts with probability ``share``; above the window's size where none is."""
    low, high = 0, window + 1
    while low < high:
        middle = (low + high) // 2
        if _binomial_tail(middle, window, share) <= false_alarm_share:
            high = middle
        else:
            low = middle + 1
    return low


def _binomial_tail(least: int, trials: int, p: float) -> float:
    """Return the probability of at least so many successes."""
    if least <= 0:
        return 1.0
    if least > trials or p <= 0:
        return 0.0
    if p >= 1:
        return 1.0
    log_p, log_q = math.log(p), math.log1p(-p)
    first = math.lgamma(trials + 1)
    return min(
        1.0,
        math.fsum(
            math.exp(
                first
                - math.lgamma(one + 1)
                - math.lgamma(trials - one + 1)
                + one * log_p
                + (trials - one) * log_q
            )
            for one in range(least, trials + 1)
        ),
    )


def _chi_square(probability: float, degrees: int, off_center: float) -> float:
    """Return a quantile of the chi-square distribution with this noncentrality, by Sankaran (1963,
    Biometrika 50:199, the last of his approximations): 1 % below to 2.5 % above in these tails."""
    mean = degrees + off_center
    spread = degrees + 2 * off_center
    power = 1 - 2 * mean * (degrees + 3 * off_center) / (3 * spread**2)
    width = spread / mean**2
    bend = (power - 1) * (1 - 3 * power)
    center = 1 + power * width * (power - 1 - 0.5 * (2 - power) * bend * width)
    scale = power * math.sqrt(2 * width) * (1 + 0.5 * bend * width)
    return float(mean * (center + _NORMAL.inv_cdf(probability) * scale) ** (1 / power))
