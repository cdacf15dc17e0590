"""From validation scores to a temperature and to thresholds for human review."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from worker.contract import Calibration, Thresholds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_OFF_LABEL_MASS = 0.05
_FOLDS = 5
_ECE_BINS = 10
_LOG_RANGE = (math.log(0.05), math.log(20.0))
_SEARCH_STEPS = 80


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
    accepted = confidence >= review
    mass = np.clip(1.0 - np.exp(logprobs).sum(axis=1), 0.0, 1.0)
    return Calibrated(
        calibration=Calibration(
            temperature=round(fit_temperature(logprobs, truth), 4),
            examples=len(truth),
            nll=nll(probabilities, truth),
            ece=ece(confidence, correct),
        ),
        thresholds=Thresholds(review, off_label_threshold(mass, off_label_quantile)),
        accepted_share=float(accepted.mean()),
        accepted_precision=float(correct[accepted].mean()) if accepted.any() else None,
        raw_nll=nll(temperature_softmax(logprobs, 1.0), truth),
        raw_ece=ece(temperature_softmax(logprobs, 1.0).max(axis=1), correct),
    )


def temperature_softmax(logprobs: Floats, temperature: float) -> Floats:
    """Return label probabilities, (rows, labels): a softmax of the scores over ``temperature``."""
    scaled = logprobs / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    weights = np.exp(scaled)
    probabilities: Floats = weights / weights.sum(axis=1, keepdims=True)
    return probabilities


def nll(probabilities: Floats, truth: Ints) -> float:
    """Mean negative log-likelihood of the true label, in nats."""
    picked = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(picked, 1e-12)).mean())


def ece(confidence: Floats, correct: NDArray[np.bool_]) -> float:
    """Expected calibration error over ten equally filled bins (Naeini et al. 2015; equal-mass
    bins as in Nguyen & O'Connor 2015, since most confidences crowd near 1)."""
    order = np.argsort(confidence, kind="stable")
    bins = np.array_split(order, min(_ECE_BINS, len(order)))
    gaps = [abs(confidence[one].mean() - correct[one].mean()) * len(one) for one in bins]
    return float(sum(gaps) / len(confidence))


def fit_temperature(logprobs: Floats, truth: Ints) -> float:
    """Return the temperature with the lowest NLL, between 0.05 and 20 (Guo et al. 2017,
    arXiv 1706.04599), by golden-section search: the NLL has one minimum in 1/temperature.

    The true label counts as 1 - 1/(rows + 2) true, the other labels share the rest (the smoothed
    targets of Platt 1999): a small set without an error would else ask for endless certainty.
    """
    ratio = (math.sqrt(5) - 1) / 2
    low, high = _LOG_RANGE
    for _ in range(_SEARCH_STEPS):
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if _smoothed_nll(logprobs, truth, left) <= _smoothed_nll(logprobs, truth, right):
            high = right
        else:
            low = left
    return math.exp((low + high) / 2)


def cross_fitted(logprobs: Floats, truth: Ints, *, seed: int) -> Floats:
    """Return each row's label probabilities under a temperature fitted without that row."""
    folds = min(_FOLDS, len(truth))
    part = np.random.default_rng(seed).permutation(len(truth)) % folds
    probabilities = np.empty_like(logprobs)
    for fold in range(folds):
        inside = part == fold
        rest = ~inside if folds > 1 else inside
        temperature = fit_temperature(logprobs[rest], truth[rest])
        probabilities[inside] = temperature_softmax(logprobs[inside], temperature)
    return probabilities


def review_threshold(
    confidence: Floats, correct: NDArray[np.bool_], precision: float, *, floor: float
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


def _smoothed_nll(logprobs: Floats, truth: Ints, log_temperature: float) -> float:
    rows, labels = logprobs.shape
    doubt = 1 / (rows + 2)
    logs = np.log(np.maximum(temperature_softmax(logprobs, math.exp(log_temperature)), 1e-300))
    true = logs[np.arange(rows), truth]
    others = (logs.sum(axis=1) - true) / (labels - 1)
    return float(-((1 - doubt) * true + doubt * others).mean())
