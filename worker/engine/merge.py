"""Fold a LoRA adapter into a copy of its base, so that serving has no cost per token for LoRA. Only
this file imports torch and safetensors, when it is called."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from worker.common.cache import made_once
from worker.contract import AdapterRefused, Lora, Manifest
from worker.errors import SettingsError

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_PREFIX = "base_model.model."
_DOWN = ".lora_A.weight"
_UP = ".lora_B.weight"

# Keys of adapter_config.json that, if set, change the formula W + scale * B @ A.
_CANNOT_FOLD = (
    "use_dora",
    "use_rslora",
    "use_qalora",
    "lora_bias",
    "fan_in_fan_out",
    "rank_pattern",
    "alpha_pattern",
    "layer_replication",
    "trainable_token_indices",
    "target_parameters",
)


# Configuration and tokenizer files. Weights in other formats stay behind: they lack the adapter.
_COPIED = {".json", ".jinja", ".txt", ".model", ".tiktoken"}


@dataclass(frozen=True, slots=True)
class LoraFiles:
    """An adapter's weight file: the changed modules of the base, with the keys of A and B."""

    path: Path
    scale: float
    modules: Mapping[str, tuple[str, str]]


def read_lora(adapter: Path, manifest: Manifest, *, tied: bool) -> LoraFiles:
    """Read which weights an adapter changes. ``tied``: the base shares input and output embeddings.
    Raises AdapterRefused for anything but plain LoRA on linear layers."""
    lora = manifest.lora
    if lora is None:
        raise AdapterRefused(adapter, f"is of kind {manifest.kind!r}, which has no LoRA weights")
    _check_config(adapter / CONFIG, lora)
    path = adapter / WEIGHTS
    modules: dict[str, tuple[str, str]] = {}
    keys = _keys(path)
    for key in sorted(keys):
        module = key.removeprefix(_PREFIX).removesuffix(_DOWN).removesuffix(_UP)
        pair = (f"{_PREFIX}{module}{_DOWN}", f"{_PREFIX}{module}{_UP}")
        if key not in pair or not keys.issuperset(pair):
            raise AdapterRefused(path, f"has {key!r}, which is not half of a LoRA pair")
        # In a tied base the two are one tensor: changing one side would change the other.
        if tied and module.endswith(("lm_head", "embed_tokens")):
            raise AdapterRefused(
                path, f"changes {module!r}, which this base shares between input and output"
            )
        modules[module] = pair
    if not modules:
        raise AdapterRefused(path, "has no LoRA weights")
    return LoraFiles(path, lora.scale, modules)


def _check_config(path: Path, lora: Lora) -> None:
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        scale = float(config["lora_alpha"]) / int(config["r"])
        kind, bias = config.get("peft_type"), config.get("bias", "none")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError) as error:
        raise AdapterRefused(path, f"not readable as a LoRA config: {error!r}") from error
    if kind != "LORA":
        raise AdapterRefused(path, f"peft_type is {kind!r}; only LORA can be served")
    if bias != "none":
        raise AdapterRefused(path, f"bias is {bias!r}: it cannot be folded into the base")
    if saved := config.get("modules_to_save"):
        raise AdapterRefused(path, f"modules_to_save is {saved}: only LoRA weights can be served")
    if found := [key for key in _CANNOT_FOLD if config.get(key)]:
        raise AdapterRefused(path, f"{found[0]} is set: it cannot be folded into the base")
    if not math.isclose(scale, lora.scale, rel_tol=1e-6):
        raise AdapterRefused(
            path, f"lora_alpha / r is {scale:g}, and the manifest says {lora.scale:g}"
        )


def _keys(path: Path) -> set[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return set(file.keys())
    except (OSError, SafetensorError) as error:
        raise AdapterRefused(path, f"cannot be read: {error}") from error


def merged_base(base: Path, adapter: Path, manifest: Manifest, cache_dir: Path) -> Path:
    """Return a directory with the base's weights plus the adapter's, made once for each digest.

    The name depends on ``manifest.digest``, which covers the files of base and adapter; the caller
    has verified them. Concurrent processes wait for the first; an existing directory is complete.
    Needs memory for about one weight file. Raises AdapterRefused if the adapter cannot be folded
    in, and SettingsError if ``cache_dir`` cannot be written.
    """
    target = cache_dir / f"merged-{manifest.digest[:32]}"
    try:
        return made_once(target, partial(_build, base, adapter, manifest))
    except OSError as error:
        raise SettingsError(
            f"cannot fold the adapter into a copy of the base under {cache_dir}: {error}; give a "
            "cache folder with room for the base, or serve with serving='runtime'"
        ) from error


def _build(base: Path, adapter: Path, manifest: Manifest, target: Path) -> None:
    lora = read_lora(adapter, manifest, tied=_ties_embeddings(base))
    unused = set(lora.modules)
    for shard in sorted(base.glob("*.safetensors")):
        unused -= _merge_shard(shard, target / shard.name, lora)
    if unused:
        raise AdapterRefused(
            lora.path, f"changes {min(unused)!r}, which is not a weight of the base"
        )
    for path in base.iterdir():
        if path.is_file() and path.suffix in _COPIED:
            shutil.copyfile(path, target / path.name)


def _merge_shard(source: Path, target: Path, lora: LoraFiles) -> set[str]:
    """Write one weight file with the adapter folded in; return the changed modules."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    changed: set[str] = set()
    tensors: dict[str, Any] = {}
    with safe_open(source, "pt") as weights, safe_open(lora.path, "pt") as factors:
        for name in weights.keys():  # noqa: SIM118 - not a mapping
            weight = weights.get_tensor(name)
            module = name.removesuffix(".weight")
            if name.endswith(".weight") and module in lora.modules:
                changed.add(module)
                down, up = (factors.get_tensor(key).float() for key in lora.modules[module])
                if weight.dtype not in {torch.bfloat16, torch.float16, torch.float32}:
                    raise AdapterRefused(
                        source, f"{name} is {weight.dtype}: serve a quantized base at runtime"
                    )
                if (up.shape[0], down.shape[1]) != weight.shape or up.shape[1] != down.shape[0]:
                    raise AdapterRefused(
                        lora.path, f"does not fit the base's {name} of {list(weight.shape)}"
                    )
                # In float32: adding in the base's precision would lose most of a small update.
                weight = (weight.float() + lora.scale * (up @ down)).to(weight.dtype)
            tensors[name] = weight.contiguous()
        metadata = weights.metadata() or {"format": "pt"}
    save_file(tensors, target, metadata=metadata)
    target.chmod(0o644)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    return changed


def _ties_embeddings(base: Path) -> bool:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return bool(config.get("tie_word_embeddings", False))
