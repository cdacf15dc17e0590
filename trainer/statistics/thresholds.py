"""From validation scores to a temperature and thresholds for human review, and what a threshold
accepts (selective classification, El-Yaniv & Wiener 2010)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from trainer.statistics.calibration import (
    Bools,
    Floats,
    Ints,
    cross_fitted,
    ece,
    fit_temperature,
    nll,
    off_label_mass,
    temperature_softmax,
)
from trainer.statistics.figures import CoveragePoint
from worker.contract import Calibration, Thresholds

MIN_OFF_LABEL_MASS = 0.05
_COVERAGE_STEPS = 20


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a manifest holds about confidence, and the same figures before calibration."""

    calibration: Calibration
    thresholds: Thresholds
    accepted_share: float
    accepted_precision: float | None
    raw_nll: float
    raw_ece: float


def calibrate(
    logprobs: Floats,
    truth: Ints,
    *,
    review_precision: float,
    review_floor: float,
    off_label_quantile: float,
    seed: int,
) -> Calibrated:
    """Fit everything on validation scores: raw log-probabilities (rows, labels) and true indexes.

    The temperature that is published is fitted on all rows. NLL, ECE and the review threshold are
    taken from cross-fitted confidences (each fifth of the rows under the temperature of the other
    four fifths), so that they do not flatter a small validation set. It also chose the best epoch,
    which still makes it a little kind: the hold-out's figures are the ones to quote.
    """
    probabilities = cross_fitted(logprobs, truth, seed=seed)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    review = review_threshold(confidence, correct, review_precision, floor=review_floor)
    accepted = accept(confidence, correct, review)
    raw = temperature_softmax(logprobs, 1.0)
    mass = off_label_mass(logprobs)
    return Calibrated(
        calibration=Calibration(
            temperature=round(fit_temperature(logprobs, truth), 4),
            examples=len(truth),
            nll=nll(probabilities, truth),
            ece=ece(confidence, correct),
        ),
        thresholds=Thresholds(review, off_label_threshold(mass, off_label_quantile)),
        accepted_share=accepted.coverage,
        accepted_precision=accepted.accuracy,
        raw_nll=nll(raw, truth),
        raw_ece=ece(raw.max(axis=1), correct),
    )


def review_threshold(
    confidence: Floats, correct: Bools, precision: float, *, floor: float
) -> float:
    """Return the smallest confidence from which on the accepted rows reach ``precision``.

    It is ``floor`` where all rows together reach it, and never below: a good validation set must
    not switch review off, because it holds no message from outside the taxonomy. It is 1.0, which
    sends all but the surest to review, where even the surest rows fall short.
    """
    order = np.argsort(-confidence, kind="stable")
    sure, right = confidence[order], np.cumsum(correct[order])
    reached = right / np.arange(1, len(order) + 1) >= precision
    reached[:-1] &= sure[:-1] > sure[1:]  # rows of equal confidence stand or fall together
    if not reached.any():
        return 1.0
    if reached[-1]:
        return floor
    return max(floor, float(sure[np.flatnonzero(reached)[-1]]))


def off_label_threshold(mass: Floats, quantile: float) -> float:
    """Return a high quantile of validation's off-label mass, rounded up to two decimals and at
    least 0.05: a well trained adapter gives known messages next to none."""
    high = math.ceil(float(np.quantile(mass, quantile)) * 100) / 100
    return max(MIN_OFF_LABEL_MASS, high)


def coverage_curve(confidence: Floats, correct: Bools) -> list[CoveragePoint]:
    """Return accuracy against coverage, from all messages down to the surest twentieth: each
    point accepts the messages at or above its threshold."""
    ranked = np.sort(confidence)[::-1]
    points: list[CoveragePoint] = []
    for step in range(_COVERAGE_STEPS, 0, -1):
        threshold = float(ranked[max(1, round(len(ranked) * step / _COVERAGE_STEPS)) - 1])
        if not points or points[-1].threshold != threshold:
            points.append(accept(confidence, correct, threshold))
    return points


def accept(confidence: Floats, correct: Bools, threshold: float) -> CoveragePoint:
    """Return what a threshold accepts."""
    accepted = confidence >= threshold
    return CoveragePoint(
        threshold=threshold,
        coverage=float(accepted.mean()),
        accuracy=float(correct[accepted].mean()) if accepted.any() else None,
    )
