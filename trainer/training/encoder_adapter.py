"""The adapter directory that the training of an encoder leaves: weights, tokenizer, ONNX files, and
the manifest last."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from trainer.artifacts.training import OnnxFigures
from trainer.errors import ProofFailed
from trainer.model.encoder import EncoderModel
from trainer.model.encoder_files import digests, read_encoder_state, write_encoder_files
from trainer.model.encoder_scoring import EncoderScorer, Floats, label_indexes
from trainer.model.onnx_export import FILES, OnnxPrecision, export_onnx, onnx_logits
from trainer.statistics.calibration import Bools, temperature_softmax
from trainer.training.adapter import finish_adapter, make_reference, verify_read_back, versions
from trainer.training.parts import Training
from trainer.training.result import Result
from trainer.training.run_folder import DRAFT
from worker.contract import (
    GoldenLogits,
    GoldenPrompt,
    Head,
    HeadOutput,
    Manifest,
    OnnxModel,
    make_golden,
)

_TOLERANCES: dict[OnnxPrecision, float] = {"fp32": 0.01, "int8": 0.5}
"""How far a logit may be off at least: another processor adds up in another order, and multiplies
8-bit integers by other instructions. What was found here counts three times."""
_ROOM = 3.0
_MOST_OFF = 0.01
"""What float32 arithmetic may be off by: more is another model."""
_NOISE = 0.005
"""By so much less accuracy on validation 8-bit weights are still preferred, for twice the speed."""


@dataclass(frozen=True, slots=True)
class _Exported:
    """The ONNX files in the order of preference, their figures, and which validation messages all
    of them give the trainer's own label."""

    models: tuple[OnnxModel, ...]
    figures: tuple[OnnxFigures, ...]
    agreed: Bools


def write_encoder(
    training: Training, result: Result, *, created_at: str, metrics: dict[str, Any]
) -> Manifest:
    """Write the result's weights, the ONNX files that the recipe wants and a manifest into the run
    folder, and beside the adapter its probes; check that what is on disk scores the validation set
    as it was measured. Raises ProofFailed, AdapterRefused, BadInput."""
    recipe, inputs, model = training.recipe, training.inputs, training.model
    assert isinstance(model, EncoderModel)
    draft, calibrated = recipe.run / DRAFT, result.calibrated
    weights = write_encoder_files(
        draft,
        recipe.base,
        model,
        result.weights,
        base_name=recipe.base_name,
        dtype=recipe.weights_dtype,
    )
    if training.validator.is_alone:
        model.load_state_dict({name: torch.zeros_like(w) for name, w in result.weights.items()})
        model.load_state_dict(read_encoder_state(draft))
        verify_read_back(draft, training.validator, result.logprobs)
    golden = make_golden(inputs.spec, inputs.tokenizer.encoders)
    logits = EncoderScorer(model).logits([prompt.ids for prompt in golden])
    exported = _export(training, result, draft, golden, logits)
    reference = make_reference(
        inputs.dataset,
        result.logprobs,
        training.validator.truth,
        calibrated.calibration,
        calibrated.thresholds,
        probes_per_label=recipe.probes_per_label,
        seed=recipe.seed,
        label_of=training.validator.label_of,
        agreed=exported.agreed,
    )
    manifest = Manifest(
        name=recipe.name,
        created_at=created_at,
        kind=recipe.kind,
        base=training.base,
        taxonomy=inputs.dataset.taxonomy,
        prompt=inputs.spec,
        lora=model.lora,
        head=_head(training, weights, logits, exported.models),
        calibration=calibrated.calibration,
        thresholds=calibrated.thresholds,
        golden=golden,
        files=digests(draft),
        reference=replace(reference, probes=()),  # messages: not for everybody who serves it
        data=inputs.to_record() | {"recipe": recipe.to_record()},
        metrics=metrics | {"onnx": [figures.to_json() for figures in exported.figures]},
        versions=versions(),
    )
    return finish_adapter(recipe.run, manifest, reference, inputs.tokenizer.encoders)


def _head(
    training: Training, weights: tuple[str, ...], logits: Floats, onnx: tuple[OnnxModel, ...]
) -> Head:
    model = training.model
    assert isinstance(model, EncoderModel)
    classifier = model.classifier
    return Head(
        outputs=tuple(HeadOutput(each.name, each.label) for each in training.inputs.classes),
        pooling=classifier.pooling,
        normalize=classifier.unit,
        out_of_scope="energy",
        vocabulary=int(classifier.backbone.get_input_embeddings().weight.shape[0]),
        pad_id=model.pad_id,
        weights=weights,
        golden_logits=tuple(
            GoldenLogits(at, tuple(map(float, row))) for at, row in enumerate(logits)
        ),
        onnx=onnx,
    )


def _export(
    training: Training,
    result: Result,
    draft: Path,
    golden: Sequence[GoldenPrompt],
    golden_logits: Floats,
) -> _Exported:
    """Write the ONNX files and measure each on the golden prompts, alone, and on validation."""
    recipe, inputs, model = training.recipe, training.inputs, training.model
    assert isinstance(model, EncoderModel)
    temperature = result.calibrated.calibration.temperature
    label_of = label_indexes(inputs.classes, inputs.labels)
    ours = temperature_softmax(result.logprobs, temperature, label_of)
    agreed = np.ones(len(ours), dtype=np.bool_)
    if not recipe.onnx:
        return _Exported((), (), agreed)
    export_onnx(model, draft, recipe.onnx)
    models, figures = [], []
    sizes = {"classes": len(inputs.classes), "pad_id": model.pad_id}
    for precision in recipe.onnx:
        path = draft / FILES[precision]
        alone = onnx_logits(path, [prompt.ids for prompt in golden], batch_size=1, **sizes)
        worst = float(np.abs(alone - golden_logits).max())
        if precision == "fp32" and not worst <= _MOST_OFF * max(1.0, float(np.abs(alone).max())):
            raise ProofFailed(
                f"{path}: a logit of the ONNX file is {worst:.3g} off: this encoder cannot be "
                "exported; set onnx to [] to go without"
            )
        theirs = temperature_softmax(
            onnx_logits(path, [row.prompt for row in inputs.validation], **sizes),
            temperature,
            label_of,
        )
        same = theirs.argmax(axis=1) == ours.argmax(axis=1)
        agreed &= same
        figures.append(
            OnnxFigures(
                file=path.name,
                precision=precision,
                bytes=path.stat().st_size,
                accuracy=float((theirs.argmax(axis=1) == training.validator.truth).mean()),
                labels_differ=int((~same).sum()),
                max_confidence_difference=float(np.abs(theirs - ours).max()),
                max_golden_difference=worst,
            )
        )
        tolerance = round(max(_TOLERANCES[precision], _ROOM * worst), 4)
        models.append(OnnxModel(path.name, precision, tolerance))
    return _Exported(_prefer(models, figures), tuple(figures), agreed)


def _prefer(models: Sequence[OnnxModel], figures: Sequence[OnnxFigures]) -> tuple[OnnxModel, ...]:
    """Return the files in the order of preference on a CPU: 8-bit weights first, which are twice as
    fast, where they are as accurate."""
    best = max(found.accuracy for found in figures)
    accuracy = {found.file: found.accuracy for found in figures}

    def key(model: OnnxModel) -> tuple[bool, bool]:
        return accuracy[model.file] < best - _NOISE, model.precision != "int8"

    return tuple(sorted(models, key=key))
