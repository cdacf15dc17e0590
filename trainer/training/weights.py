"""The adapter directory: weights, PEFT's config, and the manifest written last."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from trainer.model.student import CONFIG, WEIGHTS
from worker.contract import (
    Encoders,
    FileDigest,
    Manifest,
    load_adapter,
    verify_tokens,
    write_manifest,
)
from worker.contract.digest import sha256_file, write_atomically


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
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    paths = [directory / CONFIG, directory / WEIGHTS]
    write_atomically(paths[0], text.encode("utf-8"))
    write_atomically(paths[1], save(tensors, metadata={"format": "pt"}))
    return {path.name: FileDigest(sha256_file(path), path.stat().st_size) for path in paths}


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read an adapter's weights as float32."""
    return {name: one.float() for name, one in load_file(directory / WEIGHTS).items()}


def finish(draft: Path, target: Path, manifest: Manifest, encoders: Encoders) -> Manifest:
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
