"""Accuracy by traffic: each distinct message counts as often as it came."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from trainer.statistics.metrics import wilson


def weighted_accuracy(
    right: NDArray[np.bool_], rows: NDArray[np.int64]
) -> tuple[float, tuple[float, float]]:
    """Return the share of rows that is right, and its 95 % interval, where message i came
    ``rows[i]`` times (1 or more).

    Copies of a message are right or wrong together, so they are no further evidence: the interval
    is Wilson's for as many messages as have the variance of this ratio (linearized; Cochran 1977,
    6.3), and at most Kish's effective number: either alone holds the truth in 87 to 92 % of some
    simulated hold-outs, both together in 93 to 99 % (``tests/unit/trainer/statistics``).
    """
    weights = rows / rows.sum()
    share = float((weights * right).sum())
    effective = 1 / float((weights**2).sum())
    variance = float((weights**2 * (right - share) ** 2).sum())
    if 0 < share < 1 and variance > 0:
        effective = min(effective, share * (1 - share) / variance)
    size = max(1, math.floor(effective))
    return share, wilson(round(share * size), size)
