"""How confidence relates to being right: reliability, coverage and separation."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BINS = 10
_COVERAGE_STEPS = 20


def reliability(confidence: Floats, correct: Bools) -> list[dict[str, Any]]:
    """Return mean confidence and accuracy of ten equally filled bins, least confident first
    (equal mass as in Nguyen & O'Connor 2015; the bins of ``calibration.ece``)."""
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(_BINS, len(order)))
    return [
        {
            "confidence": float(confidence[one].mean()),
            "accuracy": float(correct[one].mean()),
            "count": len(one),
        }
        for one in bins
    ]


def coverage_curve(confidence: Floats, correct: Bools) -> list[dict[str, Any]]:
    """Return accuracy against coverage (El-Yaniv & Wiener 2010), from all messages down to the
    surest twentieth: each point accepts the messages at or above its threshold."""
    ranked = np.sort(confidence)[::-1]
    points: list[dict[str, Any]] = []
    for step in range(_COVERAGE_STEPS, 0, -1):
        threshold = float(ranked[max(1, round(len(ranked) * step / _COVERAGE_STEPS)) - 1])
        if points and points[-1]["threshold"] == threshold:
            continue
        points.append({"threshold": threshold} | accept(confidence, correct, threshold))
    return points


def accept(confidence: Floats, correct: Bools, threshold: float) -> dict[str, Any]:
    """Return the coverage of a threshold, and the accuracy of what it accepts (None of nothing)."""
    accepted = confidence >= threshold
    return {
        "coverage": float(accepted.mean()),
        "accuracy": float(correct[accepted].mean()) if accepted.any() else None,
    }


def auroc(low: Floats, high: Floats) -> float:
    """Return the chance that a value of ``high`` exceeds one of ``low``, ties counting half: the
    area under the ROC curve (Hanley & McNeil 1982)."""
    _, inverse, counts = np.unique(
        np.concatenate([low, high]), return_inverse=True, return_counts=True
    )
    last = np.cumsum(counts)
    ranks = (last - (counts - 1) / 2)[inverse][len(low) :]
    wins = ranks.sum() - len(high) * (len(high) + 1) / 2
    return float(wins / (len(low) * len(high)))
