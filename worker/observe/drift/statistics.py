"""The statistics of drift, and the thresholds above which they are more than chance. Pure math.

A window is a number of messages drawn independently. Thresholds are derived, not chosen: each is
the value that a window without drift exceeds with at most a given probability
(``false_alarm_rate``). How well that holds is measured in docs/drift.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import NormalDist

_NORMAL = NormalDist()
_HALVINGS = 60


def psi_by_label(counts: Mapping[str, int], shares: Mapping[str, float]) -> dict[str, float]:
    """Return each label's part of the population stability index of a window; their sum is the PSI.

    PSI is the sum of (a - e) ln(a / e) over the labels, where a is the actual share and e the
    expected one (Siddiqi 2006, Credit Risk Scorecards, chapter 9): the Kullback-Leibler divergence
    in both directions (Jeffreys 1946). ``counts`` are those of the window; ``shares`` are the
    expected ones, by label, and add up to 1. A label that is missing in either counts as 0 there.

    Empty cells: half a message is added to each label's count and to each expected count, so that
    a label that did not occur, or was never expected, has a finite part.
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


def psi_threshold(window: int, labels: int, tolerated: float, false_alarm_rate: float) -> float:
    """Return the PSI that a window of messages exceeds with probability ``false_alarm_rate`` when
    the true shares are off by a PSI of ``tolerated``.

    In a sample of n messages over k labels, n times the PSI approximately follows a chi-square
    distribution with k - 1 degrees of freedom (Yurdakul 2018, Statistical Properties of Population
    Stability Index), with a noncentrality of n times the PSI of the true shares when these have
    moved. So the threshold falls with the window and grows with the number of labels, where a
    fixed 0.1 or 0.25 would not.
    """
    if labels < 2:
        return math.inf  # one label has one share
    quantile = _chi_square(1 - false_alarm_rate, labels - 1, window * tolerated)
    return quantile / window


def share_bound(share: float, examples: int, confidence: float) -> float:
    """Return the upper confidence bound of a true share, of which ``examples`` draws have shown a
    ``share`` (Clopper & Pearson 1934, one-sided)."""
    above = round(share * examples)
    if above >= examples:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        # Drawing this few becomes less likely as the true share grows.
        if _binomial_tail(above + 1, examples, middle) < confidence:
            low = middle
        else:
            high = middle
    return high


def count_threshold(window: int, share: float, false_alarm_rate: float) -> int:
    """Return the smallest count that a window reaches with at most probability ``false_alarm_rate``
    when each of its messages counts with probability ``share``; window + 1 where there is none."""
    low, high = 0, window + 1
    while low < high:
        middle = (low + high) // 2
        if _binomial_tail(middle, window, share) <= false_alarm_rate:
            high = middle
        else:
            low = middle + 1
    return low


def _binomial_tail(least: int, trials: int, p: float) -> float:
    """Return the probability of at least ``least`` successes."""
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
                - math.lgamma(successes + 1)
                - math.lgamma(trials - successes + 1)
                + successes * log_p
                + (trials - successes) * log_q
            )
            for successes in range(least, trials + 1)
        ),
    )


def _chi_square(probability: float, degrees: int, noncentrality: float) -> float:
    """Return a quantile of the noncentral chi-square distribution, by Sankaran (1963, Biometrika
    50:199, the last of his approximations): from 1 % below to 2.5 % above it in these tails."""
    mean = degrees + noncentrality
    spread = degrees + 2 * noncentrality
    power = 1 - 2 * mean * (degrees + 3 * noncentrality) / (3 * spread**2)
    width = spread / mean**2
    bend = (power - 1) * (1 - 3 * power)
    center = 1 + power * width * (power - 1 - 0.5 * (2 - power) * bend * width)
    scale = power * math.sqrt(2 * width) * (1 + 0.5 * bend * width)
    return float(mean * (center + _NORMAL.inv_cdf(probability) * scale) ** (1 / power))
