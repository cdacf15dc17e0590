"""The hold-out's figures, through the same decision code as the worker's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from trainer.dataset.examples import Example
from trainer.evaluation.calibration import ece
from trainer.evaluation.metrics import Figures, measure
from trainer.model.score import Scores
from worker.contract import Code, Decision, Thresholds, decide_from_codes


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Figures of a scored set; ``review_share`` is the share that a human would be asked about,
    ``accepted_accuracy`` the accuracy of the rest (None where nothing is accepted)."""

    figures: Figures
    ece: float
    mean_off_label_mass: float
    review_share: float
    accepted_accuracy: float | None
    decisions: tuple[Decision, ...]


def evaluate(
    scores: Scores, codes: Mapping[str, Code], temperature: float, limits: Thresholds
) -> Evaluation:
    """Decide every row by the contract, and measure."""
    labels = tuple(codes)
    ids = [codes[label].token_id for label in labels]
    decisions = tuple(
        decide_from_codes(dict(zip(ids, map(float, row), strict=True)), codes, temperature)
        for row in scores.logprobs
    )
    predicted = np.array([labels.index(one.label) for one in decisions], dtype=np.int64)
    confidence = np.array([one.confidence for one in decisions])
    mass = np.array([one.off_label_mass for one in decisions], dtype=np.float64)
    correct = predicted == scores.truth
    review = np.zeros(len(decisions), dtype=bool)
    if limits.review_confidence is not None:
        review |= confidence < limits.review_confidence
    if limits.review_off_label_mass is not None:
        review |= mass > limits.review_off_label_mass
    return Evaluation(
        figures=measure(scores.truth, predicted, labels),
        ece=ece(confidence, correct),
        mean_off_label_mass=float(mass.mean()),
        review_share=float(review.mean()),
        accepted_accuracy=float(correct[~review].mean()) if (~review).any() else None,
        decisions=decisions,
    )


def prediction_records(
    examples: Sequence[Example], decisions: Sequence[Decision]
) -> list[dict[str, object]]:
    """Return a line per hold-out message for ``predictions.jsonl``.

    It holds the message's id, never its text: a run folder travels further than data.
    """
    return [
        {
            "id": example.id,
            "label": example.label,
            "predicted": decision.label,
            "confidence": round(decision.confidence, 6),
            "off_label_mass": decision.off_label_mass,
            "scores": {label: round(score, 6) for label, score in decision.scores.items()},
        }
        for example, decision in zip(examples, decisions, strict=True)
    ]
