"""Confidences that mean something: temperature scaling and calibration error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from trainer.statistics.figures import Promise, ReliabilityBin, ThresholdRule
from trainer.statistics.metrics import Groups
from trainer.statistics.thresholds import (
    accept,
    find_promise,
    off_label_threshold,
    out_of_scope_threshold,
    review_threshold,
)
from worker.contract import Calibration, Thresholds

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FOLDS = 5
_BINS = 10
_LOG_RANGE = (math.log(0.05), math.log(20.0))


@dataclass(frozen=True, slots=True)
class Calibrated:
    """What a manifest holds about confidence, and the same figures before calibration.

    ``point_accepted_share`` is what would be accepted if the threshold were chosen by the point
    value: what the certainty costs is the difference from ``accepted_share``. ``promise`` says
    what would help where the promised precision is out of reach.
    """

    calibration: Calibration
    thresholds: Thresholds
    accepted_share: float
    accepted_precision: float | None
    point_accepted_share: float
    raw_nll: float
    raw_ece: float
    promise: Promise | None = None


def temperature_softmax(
    logprobs: Floats, temperature: float, label_of: Ints | None = None
) -> Floats:
    """Return label probabilities, (rows, labels): a softmax of the scores, (rows, outputs), over
    ``temperature``. ``label_of``, (outputs), says which label each output's probability counts for;
    None: each for the one at its place."""
    probabilities: Floats = scipy.special.softmax(logprobs / temperature, axis=1)
    if label_of is None:
        return probabilities
    summed: Floats = probabilities @ np.eye(int(label_of.max()) + 1)[label_of]
    return summed


def energy(logits: Floats) -> Floats:
    """Return each row's energy, (rows), in nats: minus the logarithm of the sum of the exponentials
    of its logits, the higher the less the message is like any that was learnt (Liu et al. 2020,
    arXiv 2010.03759, at a temperature of 1)."""
    found: Floats = -scipy.special.logsumexp(logits, axis=1)
    return found


def off_label_mass(logprobs: Floats) -> Floats:
    """Return the share of probability, (rows), that goes to answers outside the label set."""
    mass: Floats = np.clip(1.0 - np.exp(logprobs).sum(axis=1), 0.0, 1.0)
    return mass


def nll(probabilities: Floats, truth: Ints) -> float:
    """Mean negative log-likelihood of the true label, in nats."""
    picked = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(picked, 1e-12)).mean())


def ece(confidence: Floats, correct: Bools) -> float:
    """Expected calibration error over ten equally filled bins (Naeini et al. 2015; equal-mass
    bins as in Nguyen & O'Connor 2015, since most confidences crowd near 1)."""
    gaps = [
        abs(confidence[members].mean() - correct[members].mean()) * len(members)
        for members in _equal_mass_bins(confidence)
    ]
    return float(sum(gaps) / len(confidence))


def reliability(confidence: Floats, correct: Bools) -> list[ReliabilityBin]:
    """Return the bins of ``ece``, the least confident first."""
    return [
        ReliabilityBin(
            float(confidence[members].mean()), float(correct[members].mean()), len(members)
        )
        for members in _equal_mass_bins(confidence)
    ]


def fit_temperature(logprobs: Floats, truth: Ints, label_of: Ints | None = None) -> float:
    """Return the temperature with the lowest NLL, between 0.05 and 20 (Guo et al. 2017,
    arXiv 1706.04599): the NLL has one minimum in 1/temperature.

    The true label counts as 1 - 1/(rows + 2) true, the other labels share the rest (the smoothed
    targets of Platt 1999): a small set without an error would else ask for endless certainty.
    """
    found = scipy.optimize.minimize_scalar(
        lambda log_temperature: _smoothed_nll(logprobs, truth, math.exp(log_temperature), label_of),
        bounds=_LOG_RANGE,
        method="bounded",
        options={"xatol": 1e-9},
    )
    return math.exp(found.x)


def cross_fitted(
    logprobs: Floats, truth: Ints, *, seed: int, label_of: Ints | None = None
) -> Floats:
    """Return each row's label probabilities under a temperature fitted without that row."""
    folds = min(_FOLDS, len(truth))
    part = np.random.default_rng(seed).permutation(len(truth)) % folds
    labels = logprobs.shape[1] if label_of is None else int(label_of.max()) + 1
    probabilities = np.empty((len(logprobs), labels))
    for fold in range(folds):
        inside = part == fold
        rest = ~inside if folds > 1 else inside
        temperature = fit_temperature(logprobs[rest], truth[rest], label_of)
        probabilities[inside] = temperature_softmax(logprobs[inside], temperature, label_of)
    return probabilities


def calibrate(
    logprobs: Floats,
    truth: Ints,
    *,
    review_precision: float,
    review_floor: float,
    review_precision_by: ThresholdRule = "lower",
    off_label_quantile: float,
    seed: int,
    label_of: Ints | None = None,
    out_of_scope_quantile: float | None = None,
    groups: Groups | None = None,
) -> Calibrated:
    """Fit everything on validation scores: raw log-probabilities, or logits of a head (rows,
    outputs), and true indexes.

    The temperature that is published is fitted on all rows. NLL and ECE are taken from cross-fitted
    confidences (each fifth of the rows under the temperature of the other four fifths), so that
    they do not flatter a small validation set. The review threshold is one of the confidences that
    are served: it is a place in their order, which one temperature hardly changes, and anyone who
    scores validation again finds the same rows above it. Validation also chose the best epoch,
    which still makes it a little kind: the hold-out's figures are the ones to quote. ``label_of``
    is that of ``temperature_softmax``. With ``out_of_scope_quantile`` the scores are logits, and a
    threshold on their energy, that quantile over validation, takes the place of off-label mass.
    ``groups`` says which rows belong together: so many prove less, and the threshold is higher.
    """
    probabilities = cross_fitted(logprobs, truth, seed=seed, label_of=label_of)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    temperature = round(fit_temperature(logprobs, truth, label_of), 4)
    served = temperature_softmax(logprobs, temperature, label_of)
    sure, right = served.max(axis=1), served.argmax(axis=1) == truth
    review, point = (
        review_threshold(sure, right, review_precision, floor=review_floor, by=rule, groups=groups)
        for rule in (review_precision_by, "point")
    )
    accepted = accept(sure, right, review)
    promise = None
    if review_precision_by == "lower":
        promise = find_promise(sure, right, review_precision, floor=review_floor, groups=groups)
    raw = temperature_softmax(logprobs, 1.0, label_of)
    if out_of_scope_quantile is None:
        mass = off_label_mass(logprobs)
        thresholds = Thresholds(review, off_label_threshold(mass, off_label_quantile))
    else:
        farthest = out_of_scope_threshold(energy(logprobs), out_of_scope_quantile)
        thresholds = Thresholds(review, review_out_of_scope=farthest)
    return Calibrated(
        calibration=Calibration(
            temperature=temperature,
            examples=len(truth),
            nll=nll(probabilities, truth),
            ece=ece(confidence, correct),
        ),
        thresholds=thresholds,
        accepted_share=accepted.coverage,
        accepted_precision=accepted.accuracy,
        point_accepted_share=accept(sure, right, point).coverage,
        raw_nll=nll(raw, truth),
        raw_ece=ece(raw.max(axis=1), correct),
        promise=promise,
    )


def _equal_mass_bins(confidence: Floats) -> Iterator[Ints]:
    order = np.argsort(confidence, kind="stable")
    yield from np.array_split(order, min(_BINS, len(order)))


def _smoothed_nll(
    logprobs: Floats, truth: Ints, temperature: float, label_of: Ints | None
) -> float:
    probabilities = temperature_softmax(logprobs, temperature, label_of)
    rows, labels = probabilities.shape
    doubt = 1 / (rows + 2)
    logs = np.log(np.maximum(probabilities, 1e-300))
    true = logs[np.arange(rows), truth]
    others = (logs.sum(axis=1) - true) / (labels - 1)
    return float(-((1 - doubt) * true + doubt * others).mean())


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
