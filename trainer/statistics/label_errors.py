"""Estimate how many labels are wrong, from out-of-fold predictions and from a blind audit.

A model that is wrong still gives the true label some probability. A slip is a label that has
nothing to do with the text, and gets almost none. Labels are therefore modelled as a mixture: with
probability 1 - e the model's distribution, adjusted by a temperature, and with probability e any
other label (a contaminated model: Huber 1964; label noise as in Natarajan et al. 2013). Both are
fitted by maximum likelihood; the interval of e is from the likelihood ratio.

This does not count wrong labels between similar labels, which the text makes likely. They are among
the messages on which the models disagree with the label, whose share is an upper bound for all
wrong labels. Neither figure detects a systematic mistake, because the models learn it too. How
often the bounds hold is simulated (``python -m tests.bench.wrong_share``, docs/figures.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import scipy

from trainer.statistics.calibration import Bools, Floats, Ints
from trainer.statistics.metrics import share_interval, wilson

_LOG_TEMPERATURES = (-2.5, 1.0)
_MOST = 0.9
_HALF_QUANTILE = 1.92  # half the 95 % quantile of chi-square with one degree of freedom
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class WrongShare:
    """Shares of all labels: ``value`` are slips, with the 95 % interval from ``low`` to ``high``;
    at most ``most`` are wrong in any way."""

    value: float
    low: float
    high: float
    most: float


def wrong_share(
    labels: Ints, probabilities: Floats, *, confirmed: Bools | None = None
) -> WrongShare:
    """Return the share of wrong ``labels``, (rows).

    ``probabilities``, (rows, classes), above 0, are of models trained without the row and its
    near-copies. Labels ``confirmed`` by a reviewer, (rows), count as right. ``most`` is the upper
    end of a 95 % Wilson interval. These are the shares of these rows, so it does not matter whether
    the labels of a thread are wrong together.
    """
    asked = np.ones(len(labels), dtype=np.bool_) if confirmed is None else ~confirmed
    count = int(asked.sum())
    if not count or probabilities.shape[1] < 2:
        return WrongShare(0.0, 0.0, 0.0, 0.0)
    given, found = labels[asked], probabilities[asked]
    value, low, high = _slips(given, found)
    differ = int((found.argmax(axis=1) != given).sum())
    part = count / len(labels)
    most = max(high, wilson(differ, count)[1])
    return WrongShare(part * value, part * low, part * high, part * most)


def _slips(labels: Ints, probabilities: Floats) -> tuple[float, float, float]:
    """Return the most likely share of slips and its interval."""
    profile = _profile(labels, probabilities)
    none = profile(0.0)
    inner = scipy.optimize.minimize_scalar(
        profile, bounds=(0.0, _MOST), method="bounded", options={"xatol": _TOLERANCE}
    )
    # A bounded search never tries its ends, so no slips at all is compared separately.
    value, best = (float(inner.x), float(inner.fun)) if inner.fun < none else (0.0, none)
    # Profile likelihood: the interval has all shares that a likelihood-ratio test does not reject.
    limit = best + _HALF_QUANTILE

    def beyond(share: float) -> float:
        return profile(share) - limit

    low, high = 0.0, _MOST
    if none > limit:
        low = float(scipy.optimize.brentq(beyond, 0.0, value, xtol=_TOLERANCE))
    if beyond(_MOST) > 0:
        high = float(scipy.optimize.brentq(beyond, value, _MOST, xtol=_TOLERANCE))
    return value, low, high


def _profile(labels: Ints, probabilities: Floats) -> Callable[[float], float]:
    """Return the negative log-likelihood of a share of slips, each at its best temperature."""
    rows, classes = probabilities.shape
    logs = np.log(probabilities)
    at = np.arange(rows)

    def loss(share: float, log_temperature: float) -> float:
        own = np.exp(scipy.special.log_softmax(logs / np.exp(log_temperature), axis=1)[at, labels])
        # A label is the one that was meant or, with probability ``share``, any other with equal
        # chance.
        mixed = (1 - share) * own + share * (1 - own) / (classes - 1)
        return float(-np.log(np.maximum(mixed, 1e-300)).sum())

    def profile(share: float) -> float:
        found = scipy.optimize.minimize_scalar(
            lambda log_temperature: loss(share, log_temperature),
            bounds=_LOG_TEMPERATURES,
            method="bounded",
            options={"xatol": 1e-3},
        )
        return float(found.fun)

    return profile


# The label errors of a hold-out, from a random sample that a reviewer labelled blind.

_Z = NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its 95 % interval."""

    value: float
    interval: tuple[float, float]


def sample_size(half_width: float, expected_rate: float, population: int) -> int:
    """Return how many of ``population`` to draw for a 95 % interval of ``half_width`` around a
    share of ``expected_rate`` (Cochran 1977, Sampling Techniques, sections 4.4 and 4.5, with the
    correction for a finite population)."""
    unlimited = _Z**2 * expected_rate * (1 - expected_rate) / half_width**2
    return min(population, max(1, math.ceil(unlimited / (1 + (unlimited - 1) / population))))


def label_error_rate(errors: int, sample: int, population: int) -> Estimate:
    """Return the share of wrong labels in a population, given ``errors`` in a simple random sample.

    Wilson's score interval (1927) with the sample size enlarged by the correction for a finite
    population, so a complete audit has no uncertainty.
    """
    rate = errors / sample
    return Estimate(rate, _wilson(rate, _effective(sample, population)))


def corrected_accuracy(
    given_correct: int,
    population: int,
    *,
    gained: int,
    lost: int,
    sample: int,
    effect: float = 1.0,
) -> Estimate:
    """Return the accuracy against true labels, with the 95 % interval for messages like these.

    ``given_correct`` of ``population`` answers equal the given label. In a simple random sample of
    ``sample`` answers, ``gained`` equal only the true label and ``lost`` only the given label.
    ``effect`` answers of the population count as one (grouped messages); the sample is drawn at
    random from it, so its own variance has no such effect.

    The difference estimator under two-phase sampling (Cochran 1977, section 12.9; Särndal, Swensson
    and Wretman 1992, chapter 9; the same idea as prediction-powered inference, Angelopoulos et al.
    2023): accuracy against the given labels plus the sample's mean difference. Its variance is the
    sum of that of the true accuracy over all messages and that of the mean difference times
    (1/sample - 1/population), which are uncorrelated. The limits of both parts are Wilson's,
    combined by MOVER (Zou and Donner 2008; for the difference of two shares of one sample Newcombe
    1998). A normal interval would be too short if few wrong labels are found, and empty if none is.
    """
    up, down = gained / sample, lost / sample
    value = min(1.0, max(0.0, given_correct / population + up - down))
    low, high = _wilson(value, population / effect)
    size = _effective(sample, population)
    down_by, up_by = _difference_limits(up, down, size)
    return Estimate(
        value,
        (
            max(0.0, value - math.hypot(value - low, down_by)),
            min(1.0, value + math.hypot(high - value, up_by)),
        ),
    )


def _difference_limits(up: float, down: float, size: float) -> tuple[float, float]:
    """Return how far the interval of up - down extends below and above it; both are mutually
    exclusive shares of one sample."""
    (up_low, up_high), (down_low, down_high) = _wilson(up, size), _wilson(down, size)
    spread = (1 - up) * (1 - down)
    correlation = -math.sqrt(up * down / spread) if spread else -1.0

    def reach(a: float, b: float) -> float:
        return math.sqrt(max(0.0, a * a + b * b - 2 * correlation * a * b))

    return reach(up - up_low, down_high - down), reach(up_high - up, down - down_low)


def _effective(sample: int, population: int) -> float:
    """Return the size of an equally precise sample from an infinite population."""
    return math.inf if sample >= population else 1 / (1 / sample - 1 / population)


def _wilson(share: float, size: float) -> tuple[float, float]:
    return (share, share) if math.isinf(size) else share_interval(share, size)
