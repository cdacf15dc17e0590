"""The ONNX files of an encoder: made, measured as a worker runs them, and put in the order in which
workers take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from trainer.artifacts.training import OnnxFigures
from trainer.errors import ProofFailed
from trainer.model.encoder import EncoderModel
from trainer.model.onnx_export import FILES, OnnxPrecision, export_onnx, onnx_logits
from trainer.statistics.calibration import Bools, Floats, Ints, temperature_softmax
from trainer.training.parts import Training
from trainer.training.result import Result, as_served
from trainer.training.run_folder import DRAFT
from worker.contract import GoldenPrompt, OnnxModel

_TOLERANCES: dict[OnnxPrecision, float] = {"fp32": 0.01, "int8": 0.5}
"""How far a logit may be off at least: another processor adds up in another order, and multiplies
8-bit integers by other instructions. What was found here counts three times."""
_ROOM = 3.0
_MOST_OFF = 0.01
"""What float32 arithmetic may be off by: more is another model."""


@dataclass(frozen=True, slots=True)
class OnnxFiles:
    """The ONNX files in the order of preference, their figures, which validation messages,
    (messages), all of them give the trainer's own label, and the result as the first one serves
    it."""

    models: tuple[OnnxModel, ...]
    figures: tuple[OnnxFigures, ...]
    agreed: Bools
    result: Result


@dataclass(frozen=True, slots=True)
class _Measured:
    """One file: how far the worst golden logit is off, and the result calibrated on its scores."""

    path: Path
    precision: OnnxPrecision
    worst: float
    result: Result

    @property
    def model(self) -> OnnxModel:
        tolerance = round(max(_TOLERANCES[self.precision], _ROOM * self.worst), 4)
        return OnnxModel(self.path.name, self.precision, tolerance)


def make_onnx_files(
    training: Training,
    result: Result,
    golden: Sequence[GoldenPrompt],
    golden_logits: Floats,
) -> OnnxFiles:
    """Write the files that the recipe wants into the run's draft, and measure each on the golden
    prompts and on validation, a message a run, as a worker runs it. Raises ProofFailed,
    BadInput."""
    recipe, model = training.recipe, training.model
    assert isinstance(model, EncoderModel)
    if not recipe.onnx:
        return OnnxFiles((), (), np.ones(len(training.inputs.validation), dtype=np.bool_), result)
    draft = recipe.run / DRAFT
    export_onnx(model, draft, recipe.onnx)
    files = [
        _measure(training, result, precision, golden, golden_logits) for precision in recipe.onnx
    ]
    truth = training.validator.truth
    right = {file.precision: _labels(training, file.result) == truth for file in files}
    ordered = prefer(right)
    first = ordered[0]
    by_precision = {file.precision: file for file in files}
    ours = _labels(training, result)
    return OnnxFiles(
        models=tuple(by_precision[precision].model for precision in ordered),
        figures=tuple(_figures(training, result, file) for file in files),
        agreed=np.all([_labels(training, file.result) == ours for file in files], axis=0),
        result=by_precision[first].result,
    )


def prefer(right: dict[OnnxPrecision, Bools]) -> tuple[OnnxPrecision, ...]:
    """Return the precisions in the order of preference on a CPU. ``right``, (validation messages),
    says which messages each labels rightly.

    8-bit weights answer twice as fast, and are taken where they are as right within noise: where
    the messages that they alone get wrong are not more than those that they alone get right by
    over one standard error of that difference, the square root of both together (the rule of one
    standard error: Breiman et al. 1984, Classification and Regression Trees, 3.4.3).
    """
    if not {"fp32", "int8"} <= set(right):
        return tuple(right)
    lost = int((right["fp32"] & ~right["int8"]).sum())
    won = int((right["int8"] & ~right["fp32"]).sum())
    return ("int8", "fp32") if lost - won <= math.sqrt(lost + won) else ("fp32", "int8")


def _measure(
    training: Training,
    result: Result,
    precision: OnnxPrecision,
    golden: Sequence[GoldenPrompt],
    golden_logits: Floats,
) -> _Measured:
    recipe, inputs, model = training.recipe, training.inputs, training.model
    assert isinstance(model, EncoderModel)
    path = recipe.run / DRAFT / FILES[precision]

    def score(prompts: Sequence[tuple[int, ...]]) -> Floats:
        return onnx_logits(path, prompts, classes=model.classes, pad_id=model.pad_id, batch_size=1)

    alone = score([prompt.ids for prompt in golden])
    worst = float(np.abs(alone - golden_logits).max())
    if precision == "fp32" and not worst <= _MOST_OFF * max(1.0, float(np.abs(alone).max())):
        raise ProofFailed(
            f"{path}: a logit of the ONNX file is {worst:.3g} off: this encoder cannot be "
            "exported; set onnx to [] to go without"
        )
    served = score([row.prompt for row in inputs.validation])
    return _Measured(
        path, precision, worst, as_served(result, served, recipe, training.validator, inputs)
    )


def _figures(training: Training, result: Result, file: _Measured) -> OnnxFigures:
    ours, theirs = _probabilities(training, result), _probabilities(training, file.result)
    calibration = file.result.calibrated.calibration
    return OnnxFigures(
        file=file.path.name,
        precision=file.precision,
        bytes=file.path.stat().st_size,
        accuracy=float((theirs.argmax(axis=1) == training.validator.truth).mean()),
        labels_differ=int((theirs.argmax(axis=1) != ours.argmax(axis=1)).sum()),
        max_confidence_difference=float(np.abs(theirs - ours).max()),
        max_golden_difference=file.worst,
        temperature=calibration.temperature,
        ece=calibration.ece,
    )


def _labels(training: Training, result: Result) -> Ints:
    labels: Ints = _probabilities(training, result).argmax(axis=1)
    return labels


def _probabilities(training: Training, result: Result) -> Floats:
    return temperature_softmax(
        result.served_scores,
        result.calibrated.calibration.temperature,
        training.validator.label_of,
    )
