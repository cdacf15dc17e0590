"""What a model's raw scores are of, and how the contract decides by them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from trainer.artifacts.evaluation import HeadRecord, OutputName
from trainer.statistics.calibration import Floats, Ints, temperature_softmax
from trainer.statistics.figures import ThresholdRule
from worker.contract import (
    Code,
    Decision,
    GoldenLogits,
    Head,
    HeadOutput,
    Manifest,
    decide_from_codes,
    decide_from_logits,
)

PRECISION = 0.95
"""What an adapter promises whose manifest does not say it."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A model's outputs: a code for each label, or those of its ``head``."""

    labels: tuple[str, ...]
    head: Head | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The outputs' names, in the order of a row of raw scores."""
        return tuple(output.name for output in self.head.outputs) if self.head else self.labels

    @property
    def label_of(self) -> Ints | None:
        """For each output, (outputs), the place of its label; None: each is a label."""
        if self.head is None:
            return None
        return np.array([self.labels.index(label) for label in self.head.labels], dtype=np.int64)

    def decide(self, scores: Floats, temperature: float) -> list[Decision]:
        """Decide each row of raw scores, (messages, outputs), by the contract, as the worker
        does."""
        rows = [[float(value) for value in row] for row in scores]
        if self.head is not None:
            return [decide_from_logits(row, self.head, self.labels, temperature) for row in rows]
        codes = {label: Code("", at) for at, label in enumerate(self.labels)}
        return [decide_from_codes(dict(enumerate(row)), codes, temperature) for row in rows]

    def probabilities(self, scores: Floats, temperature: float) -> Floats:
        """Return the labels' probabilities, (messages, labels)."""
        return temperature_softmax(scores, temperature, self.label_of)

    def to_record(self) -> HeadRecord | None:
        """Return what an evaluation writes down of a head; None where there is none."""
        if self.head is None:
            return None
        return HeadRecord(
            out_of_scope=self.head.out_of_scope,
            outputs=tuple(
                OutputName(name=output.name, label=output.label) for output in self.head.outputs
            ),
        )


def outputs_of(manifest: Manifest) -> Outputs:
    """Return an adapter's outputs."""
    return Outputs(manifest.taxonomy.names, manifest.head)


def outputs_from(labels: Sequence[str], record: HeadRecord | None) -> Outputs:
    """Return the outputs that an evaluation was made with: a head of which only those and the
    out-of-scope method are known."""
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
    """Return which precision an adapter promises of labels that nobody reviews, and the rule that
    its threshold was chosen by; None where it was trained without one."""
    recipe = manifest.data.get("recipe", {})
    if manifest.thresholds.review_confidence is None and "review_precision" not in recipe:
        return None
    by: ThresholdRule = "point" if recipe.get("review_precision_by") == "point" else "lower"
    return float(recipe.get("review_precision", PRECISION)), by
