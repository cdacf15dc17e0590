"""From raw scores to predictions, by the worker's own rules, and whether two engines agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.artifacts.evaluation import Prediction, WorkerAnswer
from trainer.errors import ProofFailed
from trainer.evaluation.outputs import Outputs
from trainer.statistics.calibration import Floats
from worker.contract import ReviewReason, Thresholds, review_reasons


@dataclass(frozen=True, slots=True)
class Agreement:
    """How one engine's answers differ from the other's.

    ``labels_differ`` counts messages with another label; ``widest_tie`` is the largest gap, among
    those, between the two labels' probabilities in the first engine: within the tolerance it is a
    tie, which rounding may decide either way.
    """

    messages: int
    labels_differ: int
    widest_tie: float
    max_confidence_difference: float


def predict(
    ids: Sequence[str],
    truth: Sequence[str | None],
    logprobs: Floats,
    in_set: Sequence[bool | None],
    *,
    outputs: Outputs,
    temperature: float,
    limits: Thresholds,
    reasons: Sequence[tuple[ReviewReason, ...] | None] | None = None,
    groups: Sequence[int | None] | None = None,
) -> list[Prediction]:
    """Turn raw scores, (messages, outputs), into prediction records, in the given order.
    ``reasons`` for review are those of a cascade, in the place of what its scores tell; ``groups``
    number the messages that belong together."""
    predictions = []
    names = outputs.names
    decisions = outputs.decide(logprobs, temperature)
    others = [None] * len(ids) if reasons is None else reasons
    together = [None] * len(ids) if groups is None else groups
    rows = zip(ids, truth, logprobs, in_set, decisions, others, together, strict=True)
    for message_id, label, row, inside, decision, why, group in rows:
        predictions.append(
            Prediction(
                id=message_id,
                label=label,
                predicted=decision.label,
                confidence=decision.confidence,
                off_label_mass=decision.off_label_mass,
                out_of_scope=decision.out_of_scope,
                review=bool(review_reasons(decision, limits) if why is None else why),
                reasons=why,
                group=group,
                unconstrained_in_set=None if inside is None else bool(inside),
                logprobs=dict(zip(names, map(float, row), strict=True)),
            )
        )
    return predictions


def logprobs_of(predictions: Sequence[Prediction], outputs: Outputs) -> Floats:
    """Return the raw scores as an array (messages, outputs)."""
    names = outputs.names
    scores = [[prediction.logprobs[name] for name in names] for prediction in predictions]
    return np.array(scores).reshape(len(predictions), len(names))


def compare_answers(
    predictions: Sequence[Prediction],
    answers: Sequence[WorkerAnswer],
    outputs: Outputs,
    temperature: float,
) -> Agreement:
    """Compare predictions with a worker's answers, message by message. Confidences are compared
    for the first engine's label."""
    by_id = {prediction.id: prediction for prediction in predictions}
    decisions = outputs.decide(logprobs_of(predictions, outputs), temperature)
    scores = dict(zip(by_id, (decision.scores for decision in decisions), strict=True))
    differ, tie, largest = 0, 0.0, 0.0
    for answer in answers:
        prediction = by_id[answer.id]
        theirs = answer.scores.get(prediction.predicted, 0.0)
        largest = max(largest, abs(prediction.confidence - theirs))
        if answer.predicted != prediction.predicted:
            differ += 1
            tie = max(tie, prediction.confidence - scores[answer.id][answer.predicted])
    return Agreement(len(answers), differ, tie, largest)


def verify_agreement(found: Agreement, tolerance: float) -> None:
    """Raise ProofFailed unless every difference is within ``tolerance`` (of a probability)."""
    if found.widest_tie > tolerance:
        raise ProofFailed(
            f"the engines give {found.labels_differ} of {found.messages} messages another label, "
            f"and not only near ties: by up to {found.widest_tie:.3f} of probability, with "
            f"{tolerance} allowed"
        )
    if found.max_confidence_difference > tolerance:
        raise ProofFailed(
            f"the engines' confidences differ by up to {found.max_confidence_difference:.3f}, "
            f"with {tolerance} allowed: a finer head helps (float32 logits)"
        )
