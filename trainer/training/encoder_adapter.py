"""The adapter directory that the training of an encoder leaves: weights, tokenizer, ONNX files, and
the manifest last."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from trainer.model.encoder import EncoderModel
from trainer.model.encoder_files import digests, read_encoder_state, write_encoder_files
from trainer.model.head_scoring import HeadScorer
from trainer.model.onnx_export import onnx_versions
from trainer.training.adapter import Parts, verify_read_back, write_rest
from trainer.training.onnx_files import make_onnx_files
from trainer.training.parts import Training
from trainer.training.result import Result
from trainer.training.run_folder import DRAFT
from worker.contract import GoldenLogits, Head, HeadOutput, Manifest, make_golden


def write_encoder(
    training: Training, result: Result, *, created_at: str, outcome: Mapping[str, Any]
) -> tuple[Manifest, Result]:
    """Write the result's weights, the ONNX files that the recipe wants and a manifest into the run
    folder, and beside the adapter its probes; check that what is on disk scores the validation set
    as it was measured. Return the manifest, and the result calibrated on the file that workers take
    first. Raises ProofFailed, AdapterRefused, BadInput."""
    recipe, inputs, model = training.recipe, training.inputs, training.model
    assert isinstance(model, EncoderModel)
    draft = recipe.run / DRAFT
    weights = write_encoder_files(
        draft,
        recipe.base,
        model,
        result.weights,
        base_name=recipe.base_name,
        dtype=recipe.weights_dtype,
    )
    verify_read_back(training, result, read_encoder_state)
    golden = make_golden(inputs.spec, inputs.tokenizer.encoders)
    logits = HeadScorer(model).logits([prompt.ids for prompt in golden])
    exported = make_onnx_files(training, result, golden, logits)
    head = Head(
        outputs=tuple(HeadOutput(each.name, each.label) for each in inputs.classes),
        pooling=model.classifier.pooling,
        normalize=model.classifier.unit,
        out_of_scope="energy",
        vocabulary=int(model.classifier.backbone.get_input_embeddings().weight.shape[0]),
        pad_id=model.pad_id,
        weights=weights,
        golden_logits=tuple(
            GoldenLogits(at, tuple(map(float, row))) for at, row in enumerate(logits)
        ),
        onnx=exported.models,
    )
    parts = Parts(
        files=digests(draft),
        golden=golden,
        lora=model.lora,
        head=head,
        agreed=exported.agreed,
        metrics={"onnx": [figures.to_json() for figures in exported.figures]},
        versions=onnx_versions() if recipe.onnx else {},
    )
    served = exported.result
    made = write_rest(training, served, parts, created_at=created_at, outcome=outcome)
    return made, served
