"""Temperature scaling and calibration error."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from trainer.statistics.figures import Promise, ReliabilityBin, ThresholdRule
from trainer.statistics.metrics import Groups, design_effect
from trainer.statistics.thresholds import (
    LEVEL,
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
    """A manifest's calibration and thresholds, and the figures before calibration.

    ``point_accepted_share`` is the accepted share with a threshold by the point value; the
    difference from ``accepted_share`` is the cost of the guarantee. ``promise`` says what would
    help if the promised precision is out of reach.
    """

    calibration: Calibration
    thresholds: Thresholds
    accepted_share: float
    accepted_precision: float | None
    point_accepted_share: float
    raw_nll: float
    raw_ece: float
    ece_by_chance: float
    promise: Promise | None = None


def temperature_softmax(
    logprobs: Floats, temperature: float, label_of: Ints | None = None
) -> Floats:
    """Return label probabilities, (rows, labels): a softmax of the scores, (rows, outputs), divided
    by ``temperature``. ``label_of``, (outputs), is the label index of each output, whose
    probabilities are summed; None if output i is label i."""
    probabilities: Floats = scipy.special.softmax(logprobs / temperature, axis=1)
    if label_of is None:
        return probabilities
    summed: Floats = probabilities @ np.eye(int(label_of.max()) + 1)[label_of]
    return summed


def energy(logits: Floats) -> Floats:
    """Return the energy of each row, (rows), in nats: minus the log-sum-exp of its logits. The
    higher, the less the message resembles the training data (Liu et al. 2020, arXiv 2010.03759, at
    temperature 1)."""
    found: Floats = -scipy.special.logsumexp(logits, axis=1)
    return found


def off_label_mass(logprobs: Floats) -> Floats:
    """Return the probability, (rows), of answers that are not labels."""
    # Rounding can bring the sum of the codes' probabilities above 1.
    mass: Floats = np.clip(1.0 - np.exp(logprobs).sum(axis=1), 0.0, 1.0)
    return mass


def nll(probabilities: Floats, truth: Ints) -> float:
    """Return the mean negative log-likelihood of the true labels, in nats."""
    picked = probabilities[np.arange(len(truth)), truth]
    return float(-np.log(np.maximum(picked, 1e-12)).mean())


def ece(confidence: Floats, correct: Bools) -> float:
    """Return the expected calibration error over ten equal-mass bins (Naeini et al. 2015; equal
    mass as in Nguyen & O'Connor 2015, because most confidences are near 1)."""
    gaps = [
        abs(confidence[members].mean() - correct[members].mean()) * len(members)
        for members in _equal_mass_bins(confidence)
    ]
    return float(sum(gaps) / len(confidence))


def reliability(confidence: Floats, correct: Bools) -> list[ReliabilityBin]:
    """Return the bins of ``ece``, the lowest confidence first."""
    return [
        ReliabilityBin(
            float(confidence[members].mean()), float(correct[members].mean()), len(members)
        )
        for members in _equal_mass_bins(confidence)
    ]


def fit_temperature(logprobs: Floats, truth: Ints, label_of: Ints | None = None) -> float:
    """Return the temperature with the lowest NLL, between 0.05 and 20 (Guo et al. 2017, arXiv
    1706.04599); the NLL has one minimum in 1/temperature.

    Targets are smoothed (Platt 1999): the true label gets 1 - 1/(rows + 2), the others share the
    rest. Otherwise a small set without mistakes would drive the temperature to its lower bound.
    """
    found = scipy.optimize.minimize_scalar(
        # In the logarithm, where halving and doubling are equally far and one tolerance serves
        # both.
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
        # A single row has no others to fit on.
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
    level: float = LEVEL,
) -> Calibrated:
    """Fit temperature and thresholds on validation: raw log-probabilities or a head's logits,
    (rows, outputs), and true label indexes.

    The published temperature is fitted on all rows. NLL and ECE are of cross-fitted confidences
    (each fifth of the rows with the temperature of the other four), so that they are not too
    optimistic for a small set. Validation also selected the best epoch, so only the hold-out's
    figures are unbiased. ``label_of`` is that of ``temperature_softmax``. With
    ``out_of_scope_quantile`` the scores are logits, and a threshold on their energy replaces that
    on off-label mass. ``groups`` says which rows belong together: they prove less, and the review
    threshold is higher.
    """
    probabilities = cross_fitted(logprobs, truth, seed=seed, label_of=label_of)
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == truth
    # Rounded before it is used, because the thresholds must fit the temperature in the manifest.
    temperature = round(fit_temperature(logprobs, truth, label_of), 4)
    served = temperature_softmax(logprobs, temperature, label_of)
    sure, right = served.max(axis=1), served.argmax(axis=1) == truth
    # On the served confidences, not the cross-fitted ones: scoring validation again then gives the
    # same accepted rows, and one temperature hardly changes the order of confidences.
    review, point = (
        review_threshold(
            sure, right, review_precision, floor=review_floor, by=rule, groups=groups, level=level
        )
        for rule in (review_precision_by, "point")
    )
    accepted = accept(sure, right, review)
    promise = None
    if review_precision_by == "lower":
        promise = find_promise(
            sure, right, review_precision, floor=review_floor, groups=groups, level=level
        )
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
        ece_by_chance=ece_by_chance(
            reliability(confidence, correct), effect=design_effect(correct, groups)
        ),
        promise=promise,
    )


def _equal_mass_bins(confidence: Floats) -> Iterator[Ints]:
    # Stable, so that equal confidences fall into the same bins on every machine.
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


def ece_by_chance(
    bins: Sequence[ReliabilityBin], *, off: float = 0.0, effect: float = 1.0, seed: int = 0
) -> float:
    """Return the ECE that a perfectly calibrated model stays below in 95 % of all cases, on
    messages of these confidences (consistency resampling, Bröcker & Smith 2007); 0.0 without
    messages. With ``off`` the model is right less often than its confidence by so much, 0 to 1.
    ``effect`` messages count as one.

    A measured ECE below it does not indicate wrong confidences. An ECE is never negative and grows
    when there are fewer messages, so an interval around it would be less informative.
    """
    counts = np.array([max(1, round(group.count / effect)) for group in bins], dtype=np.int64)
    confidence = np.array([group.confidence for group in bins])
    if not counts.sum():
        return 0.0
    right = np.maximum(confidence - off, 0.0)
    hits = np.random.default_rng(seed).binomial(counts, right, size=(_RESAMPLES, len(bins)))
    errors = np.abs(hits - counts * confidence).sum(axis=1) / counts.sum()
    return float(np.quantile(errors, 0.95))
