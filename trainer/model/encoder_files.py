"""An encoder's files: what is learnt as safetensors, beside the config and the tokenizer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.encoder import (
    EncoderModel,
    EncoderShape,
    load_empty_encoder,
    load_encoder,
)
from trainer.model.lora_model import CONFIG, WEIGHTS
from worker.contract import FileDigest, Manifest, verify_base
from worker.contract.digest import sha256_file, write_atomically

BACKBONE = "model.safetensors"
"""The whole encoder, under the names that ``AutoModel`` reads."""
HEAD = "head.safetensors"
BASE_CONFIG = "config.json"
TOKENIZER = "tokenizer.json"

_BODY, _HEAD = "backbone.", "head."
_LORA = ".default.weight"
"""PEFT's name of an adapter within a model, which its files leave out."""


def write_encoder_files(
    directory: Path,
    base: Path,
    model: EncoderModel,
    state: Mapping[str, Tensor],
    *,
    base_name: str,
    dtype: str,
) -> tuple[str, ...]:
    """Write what is learnt into a new ``directory``, with the base's config and tokenizer. Return
    the names of the weight files."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    stored = getattr(torch, dtype)
    parts: dict[str, dict[str, Tensor]] = {}
    for name in sorted(state):
        file, key = _place(name, lora=model.lora is not None)
        parts.setdefault(file, {})[key] = state[name].cpu().to(stored).contiguous()
    for file, tensors in parts.items():
        write_atomically(directory / file, save(tensors, metadata={"format": "pt"}))
    for name in (BASE_CONFIG, TOKENIZER):
        write_atomically(directory / name, (base / name).read_bytes())
    if model.lora is not None:
        text = json.dumps(_lora_config(model, base_name), indent=2, sort_keys=True) + "\n"
        write_atomically(directory / CONFIG, text.encode("utf-8"))
    return tuple(sorted(parts))


def read_encoder_state(directory: Path) -> dict[str, Tensor]:
    """Read what was learnt as float32, by the names of ``EncoderModel.state_dict``."""
    state = {f"{_HEAD}{key}": weights for key, weights in load_file(directory / HEAD).items()}
    if holds_whole_encoder(directory):
        whole = load_file(directory / BACKBONE)
        state |= {f"{_BODY}{key}": weights for key, weights in whole.items()}
    if (directory / WEIGHTS).is_file():
        lora = load_file(directory / WEIGHTS)
        state |= {
            f"{_BODY}{key.removesuffix('.weight')}{_LORA}": weights for key, weights in lora.items()
        }
    return {name: weights.float() for name, weights in state.items()}


def holds_whole_encoder(directory: Path) -> bool:
    """Whether an adapter's directory holds its whole model, so that it needs no base."""
    return (directory / BACKBONE).is_file()


def digests(directory: Path) -> dict[str, FileDigest]:
    """Return the digest of every file in a directory."""
    return {
        path.name: FileDigest(sha256_file(path), path.stat().st_size)
        for path in sorted(directory.iterdir())
    }


def load_trained_encoder(
    directory: Path, base: Path | None, manifest: Manifest, *, device: str
) -> EncoderModel:
    """Load a published encoder in float32. One that was trained whole needs no base. Raises
    BadInput, and AdapterRefused for another base than its own."""
    head = manifest.head
    assert head is not None
    shape = EncoderShape(
        classes=len(head.outputs), pooling=head.pooling, unit=head.normalize, lora=manifest.lora
    )
    if holds_whole_encoder(directory):
        model = load_empty_encoder(directory, shape, device=device)
    elif base is None:
        raise BadInput(
            f"{directory}: holds no whole encoder: name its base, {manifest.base.name}, with --base"
        )
    else:
        verify_base(base, manifest.base)
        frozen = manifest.kind == "embedding-linear"
        model = load_encoder(base, shape, device=device, frozen=frozen)
    model.load_state_dict(read_encoder_state(directory))
    return model


def _place(name: str, *, lora: bool) -> tuple[str, str]:
    """Return the file of a parameter, and its name there."""
    if name.startswith(_HEAD):
        return HEAD, name.removeprefix(_HEAD)
    key = name.removeprefix(_BODY)
    if lora:
        return WEIGHTS, f"{key.removesuffix(_LORA)}.weight"
    return BACKBONE, key


def _lora_config(model: EncoderModel, base_name: str) -> dict[str, Any]:
    """Return ``adapter_config.json`` as PEFT reads it, naming the base and no local path."""
    config: dict[str, Any] = model.classifier.backbone.peft_config["default"].to_dict()
    config |= {"base_model_name_or_path": base_name, "inference_mode": True}
    plain: dict[str, Any] = json.loads(json.dumps(config, default=sorted, sort_keys=True))
    plain["target_modules"] = sorted(plain["target_modules"])
    return plain
