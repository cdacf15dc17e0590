"""Open a published adapter of any kind for scoring, verified as a worker does; and make the files
that an encoder's directory lacks."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.artifacts.files import check_target, fresh_folder
from trainer.errors import BadInput, ProofFailed
from trainer.model.bases import AUTO, find_base
from trainer.model.encoder import BASE_CONFIG, TOKENIZER, holds_whole_encoder, load_trained_encoder
from trainer.model.forward import PromptIds
from trainer.model.lora_model import load_adapter_model
from trainer.model.onnx_files import FILES, export_onnx, onnx_versions, open_onnx
from trainer.model.prompt import BaseTokenizer, load_tokenizer
from trainer.model.scoring import HeadScorer, PromptScorer, make_verified_scorer
from worker.contract import (
    ENCODER_KINDS,
    Manifest,
    load_adapter,
    read_manifest,
    tokenizer_directory,
    verify_adapter,
)
from worker.contract.digest import sha256_file
from worker.contract.manifest import MANIFEST_NAME
from worker.contract.verify import verify_file

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


def complete_encoder(source: Path, out: Path, base: Path | str | None) -> Manifest:
    """Copy an encoder's directory to ``out`` with the files that ``source`` lacks, and return its
    manifest, whose digests all files have.

    Only weights cannot be made again. ``base`` is resolved as by ``resolve_base``, if files are
    made from it. Raises AdapterRefused for altered files or another base, BadInput for files that
    cannot be made, and ProofFailed if an ONNX file made here has other bytes.
    """
    manifest = read_manifest(source)
    if manifest.kind not in ENCODER_KINDS:
        raise BadInput(
            f"{source}: is of kind {manifest.kind!r}: only an encoder's files can be made again"
        )
    if manifest.head is not None and not manifest.head.weights:
        raise BadInput(
            f"{source}: was imported, so it has no weights to make files from: copy it from the "
            "store, or import it again"
        )
    check_target(out, MANIFEST_NAME)
    lacking = _lacking(source, manifest)
    taken = [name for name in lacking if name in _OF_THE_BASE]
    found = None
    if taken or (lacking and not holds_whole_encoder(source)):
        found = find_base(manifest) if base in {None, AUTO} else Path(base or "")
    with fresh_folder(out) as draft:
        for path in source.iterdir():
            shutil.copyfile(path, draft / path.name)
        _take_from_base(taken, draft, found)
        _export([name for name in lacking if name in FILES.values()], draft, found, manifest)
        return load_adapter(draft)


def _lacking(source: Path, manifest: Manifest) -> list[str]:
    """Verify the existing files and return the names of the missing ones. Raises AdapterRefused,
    and BadInput if one of them cannot be made again."""
    there = {name for name in manifest.files if (source / name).is_file()}
    for name in there:
        wanted = manifest.files[name]
        verify_file(source / name, wanted.sha256, wanted.bytes, f"adapter {manifest.name}")
    lacking = [name for name in manifest.files if name not in there]
    for name in lacking:
        if name not in _OF_THE_BASE and name not in FILES.values():
            raise BadInput(
                f"{source}: has no {name}, which cannot be made again: copy it from the store"
            )
    return lacking


def _take_from_base(names: list[str], draft: Path, base: Path | None) -> None:
    for name in names:
        if base is None or not (base / name).is_file():
            raise BadInput(f"{name} comes from the base: name the base's directory with --base")
        shutil.copyfile(base / name, draft / name)


def _export(names: list[str], draft: Path, base: Path | None, manifest: Manifest) -> None:
    if not names:
        return
    model = load_trained_encoder(draft, base, manifest, device="cpu")
    export_onnx(model, draft, [each for each, name in FILES.items() if name in names])
    for name in names:
        if sha256_file(draft / name) != manifest.files[name].sha256:
            raise ProofFailed(
                f"{name}: has other bytes than the published file, which was made with "
                f"{_differences(manifest.versions)}"
            )


def _differences(made_with: Mapping[str, str]) -> str:
    """Return which libraries have another version here, and what to do."""
    here = onnx_versions()
    odd = [
        f"{name} {made_with.get(name, '?')} (here {version})"
        for name, version in here.items()
        if made_with.get(name) != version
    ]
    if odd:
        return f"{', '.join(odd)}: install those versions (locks/cpu.txt)"
    return "the same library versions: the cause is its weights or this machine"
