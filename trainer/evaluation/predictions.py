"""Turn raw scores into predictions by the worker's rules, and compare two engines' answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.artifacts.evaluation import (
    EngineAgreement,
    HeadRecord,
    OutputName,
    Prediction,
    WorkerAnswer,
)
from trainer.errors import ProofFailed
from trainer.statistics.calibration import Floats, Ints, temperature_softmax
from trainer.statistics.figures import ThresholdRule
from worker.contract import (
    Decision,
    GoldenLogits,
    Head,
    HeadOutput,
    Manifest,
    ReviewReason,
    Thresholds,
    decide_from_codes,
    decide_from_logits,
    review_reasons,
)

PRECISION = 0.95
"""The promise of an adapter whose manifest has none."""

TOLERANCE = 0.1
"""The largest difference of a probability between two engines. Merged bfloat16 weights and logits,
1/8 of a nat apart, move an even decision by up to a tenth."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A model's outputs: a code for each label, or the outputs of its ``head``."""

    labels: tuple[str, ...]
    head: Head | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names, in the order of a row of raw scores."""
        return tuple(output.name for output in self.head.outputs) if self.head else self.labels

    @property
    def label_of(self) -> Ints | None:
        """The label index of each output, (outputs); None if output i is label i."""
        if self.head is None:
            return None
        return np.array([self.labels.index(label) for label in self.head.labels], dtype=np.int64)

    def decide(self, scores: Floats, temperature: float) -> list[Decision]:
        """Decide each row of raw scores, (messages, outputs), by the worker's contract."""
        rows = [[float(value) for value in row] for row in scores]
        if self.head is not None:
            return [decide_from_logits(row, self.head, self.labels, temperature) for row in rows]
        scored = (dict(zip(self.labels, row, strict=True)) for row in rows)
        return [decide_from_codes(row, self.labels, temperature) for row in scored]

    def probabilities(self, scores: Floats, temperature: float) -> Floats:
        """Return the labels' probabilities, (messages, labels)."""
        return temperature_softmax(scores, temperature, self.label_of)

    def to_record(self) -> HeadRecord | None:
        """Return the evaluation's record of a head; None without a head."""
        if self.head is None:
            return None
        return HeadRecord(
            out_of_scope=self.head.out_of_scope,
            outputs=tuple(
                OutputName(name=output.name, label=output.label) for output in self.head.outputs
            ),
        )


def outputs_of(manifest: Manifest) -> Outputs:
    """Return the outputs of an adapter."""
    return Outputs(manifest.taxonomy.names, manifest.head)


def outputs_from(labels: Sequence[str], record: HeadRecord | None) -> Outputs:
    """Return the outputs from an evaluation's record. A head has placeholders for its other fields,
    which decisions do not use."""
    if record is None:
        return Outputs(tuple(labels))
    outputs = tuple(HeadOutput(each.name, each.label) for each in record.outputs)
    head = Head(
        outputs=outputs,
        pooling="mean",
        normalize=False,
        out_of_scope=record.out_of_scope,
        vocabulary=1,
        pad_id=0,
        weights=("head.safetensors",),
        golden_logits=(GoldenLogits(0, (0.0,) * len(outputs)),),
    )
    return Outputs(tuple(labels), head)


def promised_by(manifest: Manifest) -> tuple[float, ThresholdRule] | None:
    """Return the precision that an adapter promises without review, and the rule of its threshold;
    None if it was trained without a threshold."""
    recipe = manifest.data.get("recipe", {})
    if manifest.thresholds.review_confidence is None and "review_precision" not in recipe:
        return None
    by: ThresholdRule = "point" if recipe.get("review_precision_by") == "point" else "lower"
    return float(recipe.get("review_precision", PRECISION)), by


def made_by_folds(manifest: Manifest) -> bool:
    """Whether an adapter has learnt its validation messages, and its thresholds were made on
    predictions of other models."""
    return bool(manifest.metrics.get("validation", {}).get("folds"))


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
    """Turn raw scores, (messages, outputs), into prediction records. ``reasons`` for review, of a
    cascade, replace those that follow from the scores; ``groups`` number the messages that belong
    together."""
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
) -> EngineAgreement:
    """Compare predictions with a worker's answers, message by message, confidences for the first
    engine's label."""
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
    return EngineAgreement(
        messages=len(answers),
        labels_differ=differ,
        widest_tie=tie,
        max_confidence_difference=largest,
        tolerance=TOLERANCE,
    )


def verify_agreement(found: EngineAgreement) -> None:
    """Raise ProofFailed if a difference is larger than ``TOLERANCE``."""
    if found.widest_tie > TOLERANCE:
        raise ProofFailed(
            f"the engines disagree on the labels of {found.labels_differ} of {found.messages} "
            f"messages, by up to {found.widest_tie:.3f} of probability ({TOLERANCE} allowed)"
        )
    if found.max_confidence_difference > TOLERANCE:
        raise ProofFailed(
            f"the engines' confidences differ by up to {found.max_confidence_difference:.3f} "
            f"({TOLERANCE} allowed): try float32 logits"
        )
