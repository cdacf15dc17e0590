"""An adapter's weights on disk, and a published adapter verified and loaded on its base. The only
file that imports ``safetensors``."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from trainer.errors import BadInput
from trainer.model.device import resolve_device
from trainer.model.lora_model import LoraModel, load_lora_model
from trainer.model.prompt import BaseTokenizer, load_tokenizer
from worker.contract import (
    Code,
    FileDigest,
    Manifest,
    PromptSpec,
    build_prompt,
    verify_adapter,
)
from worker.contract.digest import sha256_file, write_atomically

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"


def read_adapter(directory: Path, base: Path) -> tuple[Manifest, BaseTokenizer]:
    """Verify everything a worker verifies (files, base, token ids, golden prompts).

    Raises AdapterRefused, or BadInput for an adapter that answers in words.
    """
    tokenizer = load_tokenizer(base)
    manifest = verify_adapter(directory, base, tokenizer.encoders)
    if manifest.decoding != "code":
        raise BadInput(
            f"{directory}: answers with decoding={manifest.decoding!r}, which has no score for "
            "every label; only adapters with decoding='code' can be evaluated"
        )
    return manifest, tokenizer


def load_adapter_model(
    directory: Path, base: Path, manifest: Manifest, *, device: str = "auto"
) -> LoraModel:
    """Load the base as it is served (not in 4 bits, whatever it was trained in) with the
    adapter's weights. Float32 on a CPU, bfloat16 elsewhere. Raises BadInput."""
    chosen = resolve_device(device)
    on_cpu = chosen.type == "cpu"
    model = load_lora_model(
        base,
        rank=manifest.lora.rank,
        alpha=manifest.lora.alpha,
        dropout=0.0,
        base_dtype="float32" if on_cpu else "bfloat16",
        attn_implementation="eager" if on_cpu else "sdpa",
        device=str(chosen),
        gradient_checkpointing=False,
        target_modules=manifest.lora.target_modules,
    )
    model.load_state_dict(read_weights(directory))
    model.peft_model.eval()
    return model


def encode_prompts(
    messages: Mapping[str, str], spec: PromptSpec, tokenizer: BaseTokenizer
) -> dict[str, tuple[int, ...]]:
    """Return each message's prompt ids by its id. Raises BadInput for a message with no text."""
    prompts = {}
    for message_id, message in messages.items():
        prompt = build_prompt(spec, message, tokenizer.encoders.plain)
        if prompt is None:
            raise BadInput(
                f"message {message_id}: nothing printable is in it: a worker would reject it"
            )
        prompts[message_id] = prompt.ids
    return prompts


def label_token_ids(codes: Mapping[str, Code], labels: Sequence[str]) -> tuple[int, ...]:
    """Return the codes' token ids in the labels' order."""
    return tuple(codes[label].token_id for label in labels)


def round_weights(state: Mapping[str, Tensor], dtype: str) -> dict[str, Tensor]:
    """Return float32 weights that hold exactly what a file of ``dtype`` can hold, so that what is
    evaluated is what is published."""
    stored = getattr(torch, dtype)
    return {name: weights.to(stored).float() for name, weights in state.items()}


def write_weights(
    directory: Path, state: Mapping[str, Tensor], config: Mapping[str, Any], dtype: str
) -> dict[str, FileDigest]:
    """Write weights and config into a new ``directory``; return both files' digests."""
    if directory.exists():
        shutil.rmtree(directory)
    directory.mkdir(parents=True)
    stored = getattr(torch, dtype)
    tensors = {name: state[name].cpu().to(stored).contiguous() for name in sorted(state)}
    text = json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    paths = [directory / CONFIG, directory / WEIGHTS]
    write_atomically(paths[0], text.encode("utf-8"))
    write_atomically(paths[1], save(tensors, metadata={"format": "pt"}))
    return {path.name: FileDigest(sha256_file(path), path.stat().st_size) for path in paths}


def read_weights(directory: Path) -> dict[str, Tensor]:
    """Read an adapter's weights as float32."""
    return {name: weights.float() for name, weights in load_file(directory / WEIGHTS).items()}
