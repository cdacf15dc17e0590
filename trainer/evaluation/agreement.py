"""Whether two engines give the same answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.artifacts.evaluation import Prediction, WorkerAnswer
from trainer.errors import ProofFailed
from trainer.evaluation.predictions import decide, logprobs_of


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


def compare_answers(
    predictions: Sequence[Prediction],
    answers: Sequence[WorkerAnswer],
    labels: Sequence[str],
    temperature: float,
) -> Agreement:
    """Compare predictions with a worker's answers, message by message. Confidences are compared
    for the first engine's label."""
    by_id = {prediction.id: prediction for prediction in predictions}
    decisions = decide(logprobs_of(predictions, labels), labels, temperature)
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
