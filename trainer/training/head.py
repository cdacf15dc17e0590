"""The head of a manifest: what every kind of model with one says about itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainer.model.head_scoring import Class
from trainer.statistics.calibration import Floats
from worker.contract import GoldenLogits, Head, HeadOutput, OnnxModel, Pooling


@dataclass(frozen=True, slots=True)
class HeadShape:
    """How a model comes to the vector that its head reads, and which token ids it knows: see
    ``worker.contract.Head``."""

    pooling: Pooling
    normalize: bool
    vocabulary: int
    pad_id: int


def make_head(
    classes: Sequence[Class],
    shape: HeadShape,
    weights: tuple[str, ...],
    golden_logits: Floats,
    onnx: tuple[OnnxModel, ...] = (),
) -> Head:
    """Return a manifest's head. ``golden_logits``, (golden prompts, classes), are the trainer's
    own in float32; ``weights`` and ``onnx`` are files."""
    return Head(
        outputs=tuple(HeadOutput(each.name, each.label) for each in classes),
        pooling=shape.pooling,
        normalize=shape.normalize,
        out_of_scope="energy",
        vocabulary=shape.vocabulary,
        pad_id=shape.pad_id,
        weights=weights,
        golden_logits=tuple(
            GoldenLogits(at, tuple(map(float, row))) for at, row in enumerate(golden_logits)
        ),
        onnx=onnx,
    )
