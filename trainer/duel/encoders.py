"""Candidates that were trained before: encoders, which need no GPU to be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from trainer.artifacts.duel import MadeAdapter
from trainer.dataset.folder import Dataset, Example
from trainer.duel.candidates import Candidate, ask_adapter
from trainer.errors import BadInput
from trainer.model.encoder_files import holds_whole_encoder
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


def ask_encoder(
    directory: Path,
    bases: Sequence[Path],
    dataset: Dataset,
    holdout: Sequence[Example],
    console: Console,
    *,
    device: str,
) -> Candidate:
    """Score the hold-out with an encoder that was trained on the same dataset: a baseline, for it
    needs no GPU. One that was not trained whole needs one of ``bases``. Raises BadInput where it is
    of another dataset or needs a GPU, AdapterRefused."""
    manifest, tokenizer, base = _open_encoder(directory, bases)
    if manifest.data.get("digest") != dataset.digest:
        raise BadInput(
            f"--against {directory}: was not trained on {dataset.directory}: train it on that, so "
            "that all have learnt from the same messages"
        )
    found = ask_adapter(directory, base, manifest, tokenizer, holdout, console, device=device)
    made = MadeAdapter(name=manifest.name, digest=manifest.digest, path=str(directory.resolve()))
    training = read_training(directory.resolve().parent, manifest)
    return replace(
        found,
        name=manifest.name,
        kind="baseline",
        served_as=manifest.kind,
        adapter=made,
        train_seconds=training.seconds if training else None,
        validation_accuracy=manifest.metrics.get("validation", {}).get("accuracy"),
    )


def _open_encoder(
    directory: Path, bases: Sequence[Path]
) -> tuple[Manifest, BaseTokenizer, Path | None]:
    found = read_manifest(directory)
    if found.kind not in ENCODER_KINDS:
        raise BadInput(
            f"--against {directory}: is of kind {found.kind!r}; beside an adapter those of "
            f"{' and '.join(ENCODER_KINDS)} can take part"
        )
    if holds_whole_encoder(directory):
        return *read_adapter(directory, None), None
    for base in bases:
        try:
            verify_base(base, found.base)
        except AdapterRefused:
            continue
        return *read_adapter(directory, base), base
    raise BadInput(
        f"--against {directory}: needs its base, {found.base.name}: name that one's directory with "
        "--embeddings"
    )


def find_adapter(given: Path) -> Path:
    """Return an adapter's directory: the one given, or that of the run that was given."""
    if (given / MANIFEST_NAME).exists() or not (given / _ADAPTER).is_dir():
        return given
    return given / _ADAPTER
