"""What a manifest says of the data, for whoever watches the adapter in service."""

from __future__ import annotations

import numpy as np

from trainer.dataset.folder import Dataset
from trainer.dataset.per_label import first_of_each
from trainer.evaluation.calibration import Floats, temperature_softmax
from trainer.model.score import Scores
from worker.contract import Calibration, Decision, Probe, Reference, Thresholds, review_reasons
from worker.contract.digest import sha256_json

_CONFIDENCE = (0.01, 0.05, 0.1, 0.25, 0.5)
_OFF_LABEL_MASS = (0.5, 0.75, 0.9, 0.95, 0.99, 0.995)


def make_reference(
    dataset: Dataset,
    scores: Scores,
    calibration: Calibration,
    thresholds: Thresholds,
    *,
    probes_per_label: int,
    seed: int,
) -> Reference:
    """Return shares of the labels, quantiles over validation, and at most ``probes_per_label``
    messages of each label as probes. ``scores`` are of ``dataset.validation``.

    A probe is a message that is classified correctly and far from review, so that arithmetic
    that rounds differently gives it the same label.
    """
    confidence = temperature_softmax(scores.logprobs, calibration.temperature).max(axis=1)
    correct = scores.predicted == scores.truth
    rows = zip(dataset.validation, correct, confidence, scores.off_label_mass, strict=True)
    candidates = [
        example
        for example, is_correct, sure, mass in rows
        if is_correct
        and not review_reasons(Decision(example.label, float(sure), {}, float(mass)), thresholds)
    ]
    places = [sha256_json([seed, example.id]) for example in candidates]
    chosen = first_of_each([example.label for example in candidates], places, probes_per_label)
    return Reference(
        probes=tuple(Probe(candidates[at].message, candidates[at].label) for at in chosen),
        label_shares=_label_shares(dataset),
        confidence=_quantiles(confidence, _CONFIDENCE),
        off_label_mass=_quantiles(scores.off_label_mass, _OFF_LABEL_MASS),
    )


def _label_shares(dataset: Dataset) -> dict[str, float]:
    files = dataset.record["files"].values()
    surplus = dataset.record.get("counts", {}).get("surplus", {})
    counts = {
        name: sum(one["per_label"][name] for one in files) + surplus.get(name, 0)
        for name in dataset.taxonomy.names
    }
    total = sum(counts.values())
    return {name: round(count / total, 6) for name, count in counts.items()}


def _quantiles(values: Floats, probabilities: tuple[float, ...]) -> dict[str, float]:
    return {
        f"{one:g}": round(float(value), 6)
        for one, value in zip(probabilities, np.quantile(values, probabilities), strict=True)
    }
