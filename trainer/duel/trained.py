"""Candidates that were trained before: adapters of any kind that a worker serves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from trainer.artifacts.duel import MadeAdapter
from trainer.dataset.folder import Dataset, Example
from trainer.duel.candidates import Candidate, ask_adapter
from trainer.errors import BadInput
from trainer.model.encoder import holds_whole_encoder
from trainer.model.prompt import BaseTokenizer
from trainer.model.published import read_adapter
from trainer.model_card import read_training
from worker.contract import (
    ENCODER_KINDS,
    MANIFEST_NAME,
    AdapterRefused,
    Manifest,
    read_manifest,
    verify_base,
)

_ADAPTER = "adapter"


@dataclass(frozen=True, slots=True)
class TrainedAdapter:
    """An adapter that was verified, and what it takes to score with it."""

    directory: Path
    base: Path | None
    manifest: Manifest
    tokenizer: BaseTokenizer


def open_trained(given: Path, bases: Sequence[Path], dataset: Dataset) -> TrainedAdapter:
    """Verify an adapter, or a run's, before the hold-out is opened. One that does not carry its
    whole model needs one of ``bases``. Raises BadInput where it was trained on another dataset;
    AdapterRefused."""
    directory = find_adapter(given)
    found = read_manifest(directory)
    if found.data.get("digest") != dataset.digest:
        raise BadInput(
            f"--against {directory}: was not trained on {dataset.directory}: train it on that, so "
            "that all have learnt from the same messages"
        )
    is_whole = holds_whole_encoder(directory) and not found.needs_base
    base = None if is_whole else _find_base(directory, found, bases)
    manifest, tokenizer = read_adapter(directory, base)
    return TrainedAdapter(directory, base, manifest, tokenizer)


def ask_trained(
    trained: TrainedAdapter, holdout: Sequence[Example], console: Console, *, device: str
) -> Candidate:
    """Score the hold-out with an adapter: an encoder is a baseline, for it needs no GPU; one of a
    language model is a rival, which has to be better to be shipped."""
    manifest, directory = trained.manifest, trained.directory
    found = ask_adapter(
        *(directory, trained.base, manifest, trained.tokenizer, holdout, console), device=device
    )
    made = MadeAdapter(name=manifest.name, digest=manifest.digest, path=str(directory.resolve()))
    training = read_training(directory.resolve().parent, manifest)
    return replace(
        found,
        name=manifest.name,
        kind="baseline" if manifest.kind in ENCODER_KINDS else "rival",
        served_as=manifest.kind,
        adapter=made,
        train_seconds=training.seconds if training else None,
        validation_accuracy=manifest.metrics.get("validation", {}).get("accuracy"),
    )


def _find_base(directory: Path, manifest: Manifest, bases: Sequence[Path]) -> Path:
    for base in bases:
        try:
            verify_base(base, manifest.base)
        except AdapterRefused:
            continue
        return base
    raise BadInput(
        f"--against {directory}: needs its base, {manifest.base.name}: name that one's directory "
        "with --base or --embeddings"
    )


def find_adapter(given: Path) -> Path:
    """Return an adapter's directory: the one given, or that of the run that was given."""
    if (given / MANIFEST_NAME).exists() or not (given / _ADAPTER).is_dir():
        return given
    return given / _ADAPTER
