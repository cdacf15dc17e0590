"""The adapter directory: weights, PEFT's config, and the manifest written last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.student import CONFIG, WEIGHTS
from worker.contract import (
    MANIFEST_NAME,
    Encoders,
    FileDigest,
    Manifest,
    load_adapter,
    verify_tokens,
    write_manifest,
)
from worker.contract.digest import sha256_file

_OURS = frozenset({CONFIG, WEIGHTS, MANIFEST_NAME})


def check_target(directory: Path, *, replace_existing: bool) -> None:
    """Raise BadInput when ``directory`` may not become an adapter: something is there already.

    With ``replace_existing`` an earlier adapter may go, and nothing else.
    """
    if not directory.exists():
        return
    if not directory.is_dir():
        raise BadInput(f"{directory}: exists and is no directory")
    found = {one.name for one in directory.iterdir()}
    if found - _OURS:
        raise BadInput(f"{directory}: holds {min(found - _OURS)!r}, which is no adapter's")
    if found and not replace_existing:
        raise BadInput(f"{directory}: holds an adapter; choose another --out or add --replace")


def round_weights(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return float32 weights that hold exactly what a file of ``dtype`` can hold, so that what is
    evaluated is what is published."""
    kind = getattr(torch, dtype)
    return {name: one.to(kind).float() for name, one in state.items()}


def write_weights(
    directory: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], dtype: str
) -> dict[str, FileDigest]:
    """Write weights and config into a new ``directory``; return both files' digests."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    kind = getattr(torch, dtype)
    tensors = {name: state[name].cpu().to(kind).contiguous() for name in sorted(state)}
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False)
    (directory / CONFIG).write_text(text + "\n", encoding="utf-8")
    paths = [directory / CONFIG, directory / WEIGHTS]
    for path in paths:  # safetensors writes for its owner alone; a worker runs as somebody else
        path.chmod(0o644)
    return {path.name: FileDigest(sha256_file(path), path.stat().st_size) for path in paths}


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read an adapter's weights as float32."""
    return {name: one.float() for name, one in load_file(directory / WEIGHTS).items()}


def publish(draft: Path, target: Path, manifest: Manifest, encoders: Encoders) -> Manifest:
    """Write the manifest into ``draft``, verify the whole directory as a worker will, and move it
    to ``target``. Return the manifest as read back. Raises AdapterRefused."""
    write_manifest(draft, manifest)
    found = load_adapter(draft)
    verify_tokens(found, encoders, Path("tokenizer.json"))
    if target.exists():
        shutil.rmtree(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft.rename(target)
    return found
