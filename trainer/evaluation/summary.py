"""From prediction records to every figure of ``evaluation.json``. Pure: the same records, the
same figures, which is how anyone can recompute them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.errors import ProofFailed
from trainer.evaluation.agreement import compare_answers
from trainer.evaluation.calibration import ece, nll, review_threshold, temperature_softmax
from trainer.evaluation.curves import accept, auroc, coverage_curve, reliability
from trainer.evaluation.metrics import measure
from trainer.evaluation.predictions import Prediction, logprobs_of, predict
from worker.contract import Thresholds

SCHEMA = "evaluation/1"

_SLACK = 1e-9
"""Another machine's exponential may differ in its last digit."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Facts:
    """What no prediction tells: identities, settings in force, and speeds as they were measured.

    ``speeds`` has a record an engine: name, messages_per_s, machine.
    """

    created_at: str
    limited: bool
    adapter: Mapping[str, Any]
    dataset: Mapping[str, Any]
    labels: tuple[str, ...]
    temperature: float
    limits: Thresholds
    wanted_precision: float
    tolerance: float
    speeds: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Evidence:
    """The prediction records, as they are in the files. None: that was not measured.

    ``batches`` holds {id, batch_size, seconds, logprobs}, ``vllm`` the worker's answers.
    """

    holdout: Sequence[Prediction]
    validation: Sequence[Prediction]
    out_of_scope: Sequence[Prediction] | None
    batches: Sequence[Mapping[str, Any]] | None
    vllm: Sequence[Mapping[str, Any]] | None


def summarize(facts: Facts, evidence: Evidence) -> dict[str, Any]:
    """Return the whole of ``evaluation.json``. Raises ProofFailed when a record contradicts its
    own scores, or names a label outside the set."""
    labels = facts.labels
    _prove(facts, evidence)
    holdout = evidence.holdout
    truth = np.array([labels.index(str(one.label)) for one in holdout], dtype=np.int64)
    predicted = np.array([labels.index(one.predicted) for one in holdout], dtype=np.int64)
    confidence = _confidence(holdout)
    mass = _mass(holdout)
    correct = predicted == truth
    figures = measure(truth, predicted, labels)
    return {
        "schema": SCHEMA,
        "created_at": facts.created_at,
        "limited": facts.limited,
        "adapter": dict(facts.adapter),
        "dataset": dict(facts.dataset),
        "labels": list(labels),
        "examples": figures.examples,
        "accuracy": figures.accuracy,
        "accuracy_interval_95": list(figures.interval),
        "macro_f1": figures.macro_f1,
        "per_label": [asdict(one) for one in figures.per_label],
        "confusion": [list(row) for row in figures.confusion],
        "outside_labels": _outside(holdout, labels),
        "calibration": _calibration(facts, logprobs_of(holdout, labels), truth),
        "coverage": coverage_curve(confidence, correct),
        "review": _review(facts, evidence, confidence, correct),
        "off_label_mass": {
            "mean": float(mass.mean()),
            "p50": float(np.quantile(mass, 0.5)),
            "p99": float(np.quantile(mass, 0.99)),
        },
        "batch_sensitivity": _batches(evidence, labels),
        "engines": [_engine(one, evidence) for one in facts.speeds],
        "agreement": _agreement(facts, evidence),
        "out_of_scope": _out_of_scope(evidence, confidence, mass),
    }


def _prove(facts: Facts, evidence: Evidence) -> None:
    for answer in evidence.vllm or ():
        if answer["predicted"] not in facts.labels:
            raise ProofFailed(f"answer {answer['id']}: {answer['predicted']!r} is outside the set")
    groups = (evidence.holdout, evidence.validation, evidence.out_of_scope or ())
    for group in groups:
        wanted = predict(
            [one.id for one in group],
            [one.label for one in group],
            logprobs_of(group, facts.labels),
            [one.unconstrained_in_set for one in group],
            labels=facts.labels,
            temperature=facts.temperature,
            limits=facts.limits,
        )
        for one, other in zip(group, wanted, strict=True):
            if one.predicted not in facts.labels:
                raise ProofFailed(
                    f"prediction {one.id}: {one.predicted!r} is outside the label set"
                )
            close = math.isclose(one.confidence, other.confidence, abs_tol=_SLACK) and math.isclose(
                one.off_label_mass, other.off_label_mass, abs_tol=_SLACK
            )
            if not close or (one.predicted, one.review) != (other.predicted, other.review):
                raise ProofFailed(f"prediction {one.id}: does not follow from its own scores")


def _confidence(predictions: Sequence[Prediction]) -> Floats:
    return np.array([one.confidence for one in predictions])


def _mass(predictions: Sequence[Prediction]) -> Floats:
    return np.array([one.off_label_mass for one in predictions])


def _outside(holdout: Sequence[Prediction], labels: Sequence[str]) -> dict[str, Any]:
    """Answers outside the set; without the constraint: None where the engine does not tell."""
    told = [one.unconstrained_in_set for one in holdout if one.unconstrained_in_set is not None]
    return {
        "constrained": sum(one.predicted not in labels for one in holdout),
        "unconstrained": told.count(False) if told else None,
        "unconstrained_share": told.count(False) / len(told) if told else None,
    }


def _calibration(facts: Facts, logprobs: Floats, truth: NDArray[np.int64]) -> dict[str, Any]:
    calibrated, raw = (
        temperature_softmax(logprobs, facts.temperature),
        temperature_softmax(logprobs, 1.0),
    )
    correct = logprobs.argmax(axis=1) == truth
    return {
        "temperature": facts.temperature,
        "nll": nll(calibrated, truth),
        "nll_uncalibrated": nll(raw, truth),
        "ece": ece(calibrated.max(axis=1), correct),
        "ece_uncalibrated": ece(raw.max(axis=1), correct),
        "reliability": reliability(calibrated.max(axis=1), correct),
    }


def _review(
    facts: Facts, evidence: Evidence, confidence: Floats, correct: NDArray[np.bool_]
) -> dict[str, Any]:
    """The thresholds in force, and the one that the wanted precision asks for, fitted on
    validation alone and applied to the hold-out."""
    review = np.array([one.review for one in evidence.holdout])
    right = np.array([one.predicted == one.label for one in evidence.validation])
    threshold = review_threshold(
        _confidence(evidence.validation), right, facts.wanted_precision, floor=0.0
    )
    wanted = accept(confidence, correct, threshold)
    return {
        "confidence_below": facts.limits.review_confidence,
        "off_label_mass_above": facts.limits.review_off_label_mass,
        "share": float(review.mean()),
        "accepted_accuracy": float(correct[~review].mean()) if (~review).any() else None,
        "wanted_precision": facts.wanted_precision,
        "threshold_for_wanted": threshold,
        "coverage_at_wanted": wanted["coverage"],
        "accuracy_at_wanted": wanted["accuracy"],
    }


def _batches(evidence: Evidence, labels: Sequence[str]) -> dict[str, Any] | None:
    if evidence.batches is None:
        return None
    by_size: dict[int, dict[str, list[float]]] = {}
    for one in evidence.batches:
        scores = [one["logprobs"][label] for label in labels]
        by_size.setdefault(one["batch_size"], {})[one["id"]] = scores
    first, *others = by_size.values()
    ids = list(first)
    reference = np.array([first[name] for name in ids])
    difference, changed = 0.0, np.zeros(len(ids), dtype=bool)
    for other in others:
        again = np.array([other[name] for name in ids])
        difference = max(difference, float(np.abs(again - reference).max()))
        changed |= again.argmax(axis=1) != reference.argmax(axis=1)
    return {
        "sizes": list(by_size),
        "messages": len(ids),
        "max_logprob_difference": difference,
        "labels_changed": int(changed.sum()),
    }


def _engine(speed: Mapping[str, Any], evidence: Evidence) -> dict[str, Any]:
    """One message at a time is what latency means here: it is the answer time of an idle engine."""
    if speed["name"] == "vllm":
        assert evidence.vllm is not None
        right = [one["predicted"] == one["label"] for one in evidence.vllm]
        alone = [one["seconds_alone"] for one in evidence.vllm if one["seconds_alone"] is not None]
    else:
        right = [one.predicted == one.label for one in evidence.holdout]
        alone = [one["seconds"] for one in evidence.batches or () if one["batch_size"] == 1]
    return {
        "name": speed["name"],
        "messages": len(right),
        "accuracy": sum(right) / len(right),
        "messages_per_s": speed["messages_per_s"],
        "latency_ms": {
            "p50": 1000 * float(np.quantile(alone, 0.5)),
            "p99": 1000 * float(np.quantile(alone, 0.99)),
        }
        if alone
        else None,
        "machine": speed["machine"],
    }


def _agreement(facts: Facts, evidence: Evidence) -> dict[str, Any] | None:
    if evidence.vllm is None or all(one["name"] == "vllm" for one in facts.speeds):
        return None
    found = compare_answers(evidence.holdout, evidence.vllm, facts.labels, facts.temperature)
    return {
        "messages": found.messages,
        "labels_differ": found.labels_differ,
        "max_confidence_difference": found.max_confidence_difference,
        "tolerance": facts.tolerance,
    }


def _out_of_scope(evidence: Evidence, confidence: Floats, mass: Floats) -> dict[str, Any] | None:
    outside = evidence.out_of_scope
    if not outside:
        return None
    return {
        "messages": len(outside),
        "auroc_confidence": auroc(_confidence(outside), confidence),
        "auroc_off_label_mass": auroc(mass, _mass(outside)),
        "review_share": sum(one.review for one in outside) / len(outside),
    }
