"""A published adapter of any kind: verified as a worker verifies it, and opened to be scored."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.errors import BadInput
from trainer.model.encoder_files import load_trained_encoder
from trainer.model.forward import PromptIds
from trainer.model.head_scoring import HeadScorer
from trainer.model.lora_model import label_token_ids, load_adapter_model
from trainer.model.onnx_scoring import open_onnx
from trainer.model.prompt import BaseTokenizer, load_tokenizer
from trainer.model.scoring import PromptScorer, make_verified_scorer
from worker.contract import (
    ENCODER_KINDS,
    Manifest,
    read_manifest,
    tokenizer_directory,
    verify_adapter,
)


def read_adapter(directory: Path, base: Path | None) -> tuple[Manifest, BaseTokenizer]:
    """Verify everything a worker verifies (files, base, token ids, golden prompts); ``base`` may be
    None where the adapter needs none.

    Raises AdapterRefused, or BadInput for an adapter that gives no score for every label.
    """
    found = read_manifest(directory)
    tokenizer = load_tokenizer(tokenizer_directory(directory, found, base))
    manifest = verify_adapter(directory, base, tokenizer.encoders)
    if manifest.decoding == "choice":
        raise BadInput(
            f"{directory}: answers with decoding='choice', which has no score for every label "
            "here; only adapters with decoding='code' and models with a head can be evaluated"
        )
    return manifest, tokenizer


def open_scorer(
    directory: Path,
    base: Path | None,
    manifest: Manifest,
    prompts: Sequence[PromptIds],
    *,
    device: str,
) -> PromptScorer:
    """Load an adapter as it is served and return what scores prompts with it; the forward pass of a
    language model is verified on a few of ``prompts``. Raises BadInput, ProofFailed."""
    if manifest.kind in ENCODER_KINDS:
        if served := open_onnx(directory, manifest):
            return served
        return HeadScorer(load_trained_encoder(directory, base, manifest, device=device))
    base = require_base(base, manifest)
    model = load_adapter_model(directory, base, manifest, device=device)
    label_ids = label_token_ids(manifest.codes, manifest.taxonomy.names)
    return make_verified_scorer(model, manifest.prompt.prefix_ids, label_ids, prompts)


def require_base(base: Path | None, manifest: Manifest) -> Path:
    """Return the base's directory. Raises BadInput where none was named."""
    if base is None:
        raise BadInput(
            f"an adapter of kind {manifest.kind!r} needs its base, {manifest.base.name}: name its "
            "directory with --base"
        )
    return base
