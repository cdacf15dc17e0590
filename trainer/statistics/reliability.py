"""What a calibration error of so many messages can say."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.statistics.figures import ReliabilityBin

_RESAMPLES = 4000


def ece_by_chance(bins: Sequence[ReliabilityBin], *, level: float = 0.95, seed: int = 0) -> float:
    """Return the ECE that a perfectly calibrated model stays below with probability ``level``,
    on messages of these confidences (consistency resampling, Bröcker & Smith 2007).

    An ECE is never below zero and grows as messages get fewer, so that an interval around it says
    less than this: a measured one below it is no sign of wrong confidences. 0 of no message.
    """
    counts = np.array([group.count for group in bins], dtype=np.int64)
    confidence = np.array([group.confidence for group in bins])
    if not counts.sum():
        return 0.0
    hits = np.random.default_rng(seed).binomial(counts, confidence, size=(_RESAMPLES, len(bins)))
    errors = np.abs(hits - counts * confidence).sum(axis=1) / counts.sum()
    return float(np.quantile(errors, level))
