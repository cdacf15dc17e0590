"""How many of some labels are wrong, as far as models that did not learn them can tell.

A model that errs gives the given label some probability; a slip of the pen gives a label that has
nothing to do with the text, and next to none. So labels are taken for a mixture: with probability
1 - e the model's own distribution, sharpened or flattened by a temperature, with probability e any
other label (a contaminated model: Huber 1964; label noise as in Natarajan et al. 2013). Both are
fitted by maximum likelihood, and the interval of e is the likelihood ratio's.

What it does not count are wrong labels that the text makes likely, between labels that are alike;
they are among the messages on which the models disagree with the label, whose share bounds all
wrong labels from above. Neither sees a mistake that everybody made alike: the models learn it. How
often the bounds hold was simulated (``python -m tests.bench.wrong_share``, docs/figures.md).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy

from trainer.statistics.calibration import Bools, Floats, Ints
from trainer.statistics.metrics import wilson

_LOG_TEMPERATURES = (-2.5, 1.0)
_MOST = 0.9
_HALF_QUANTILE = 1.92  # half the 95 % quantile of chi-square with one degree of freedom
_TOLERANCE = 1e-4


@dataclass(frozen=True, slots=True)
class WrongShare:
    """Shares of all labels. ``value`` are slips, which have nothing to do with the text, with the
    95 % interval from ``low`` to ``high``; at most ``most`` are wrong in any way."""

    value: float
    low: float
    high: float
    most: float


def wrong_share(labels: Ints, probabilities: Floats, *, vouched: Bools | None = None) -> WrongShare:
    """Return the share of ``labels`` (rows) that is wrong.

    ``probabilities`` (rows, classes), above 0, are of models that learnt neither the row nor a
    near-copy of it. Labels that a person ``vouched`` for (rows) count as right. ``most`` is the
    upper end of a 95 % Wilson interval.
    """
    asked = np.ones(len(labels), dtype=np.bool_) if vouched is None else ~vouched
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
    """Return the likeliest share of slips and its interval."""
    profile = _profile(labels, probabilities)
    none = profile(0.0)
    inner = scipy.optimize.minimize_scalar(
        profile, bounds=(0.0, _MOST), method="bounded", options={"xatol": _TOLERANCE}
    )
    value, best = (float(inner.x), float(inner.fun)) if inner.fun < none else (0.0, none)
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
    """Return the negative log-likelihood of a share of slips under its likeliest temperature."""
    rows, classes = probabilities.shape
    logs = np.log(probabilities)
    at = np.arange(rows)

    def loss(share: float, log_temperature: float) -> float:
        own = np.exp(scipy.special.log_softmax(logs / np.exp(log_temperature), axis=1)[at, labels])
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
