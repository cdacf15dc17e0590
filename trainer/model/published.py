"""Open a published adapter of any kind for scoring, verified as a worker does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from trainer.errors import BadInput
from trainer.model.encoder import BASE_CONFIG, TOKENIZER, load_trained_encoder
from trainer.model.forward import PromptIds
from trainer.model.lora_model import load_adapter_model
from trainer.model.onnx_files import open_onnx
from trainer.model.prompt import BaseTokenizer, load_tokenizer
from trainer.model.scoring import HeadScorer, PromptScorer, make_verified_scorer
from worker.contract import (
    ENCODER_KINDS,
    Manifest,
    read_manifest,
    tokenizer_directory,
    verify_adapter,
)

_OF_THE_BASE = (BASE_CONFIG, TOKENIZER)


def read_adapter(directory: Path, base: Path | None) -> tuple[Manifest, BaseTokenizer]:
    """Verify everything that a worker verifies: files, base, token ids, golden prompts. ``base``
    may be None if the adapter needs none.

    Raises AdapterRefused, or BadInput for an adapter that does not score every label.
    """
    found = read_manifest(directory)
    tokenizer = load_tokenizer(tokenizer_directory(directory, found, base))
    manifest = verify_adapter(directory, base, tokenizer.encoders)
    return manifest, tokenizer


def open_scorer(
    directory: Path,
    base: Path | None,
    manifest: Manifest,
    prompts: Sequence[PromptIds],
    *,
    device: str = "auto",
) -> PromptScorer:
    """Load an adapter as it is served, and return its scorer. A language model's forward pass is
    verified on a few of ``prompts``. Raises BadInput, ProofFailed."""
    if manifest.kind in ENCODER_KINDS:
        # The file that workers load: temperature and thresholds were fitted on its scores, not on
        # PyTorch's.
        if served := open_onnx(directory, manifest):
            return served
        return HeadScorer(load_trained_encoder(directory, base, manifest, device=device))
    base = require_base(base, manifest)
    model = load_adapter_model(directory, base, manifest, device=device)
    codes = {label: manifest.codes[label] for label in manifest.taxonomy.names}
    return make_verified_scorer(model, manifest.prompt.prefix_ids, codes, prompts)


def require_base(base: Path | None, manifest: Manifest) -> Path:
    """Return the base's directory. Raises BadInput if it is None."""
    if base is None:
        raise BadInput(
            f"an adapter of kind {manifest.kind!r} needs its base, {manifest.base.name}: name its "
            "directory with --base"
        )
    return base
