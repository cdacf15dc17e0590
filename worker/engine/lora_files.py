"""A LoRA adapter's files, as PEFT writes them: what they change, and what cannot be folded in."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from worker.contract import AdapterRefused, Lora, Manifest

WEIGHTS = "adapter_model.safetensors"
CONFIG = "adapter_config.json"

_PREFIX = "base_model.model."
_DOWN = ".lora_A.weight"
_UP = ".lora_B.weight"

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
"""Keys of ``adapter_config.json`` that, when set, mean more than W + scale * B @ A."""


@dataclass(frozen=True, slots=True)
class LoraFiles:
    """An adapter's weight file: the base's modules it changes, with the keys of their A and B."""

    path: Path
    scale: float
    modules: Mapping[str, tuple[str, str]]


def read_lora(adapter: Path, manifest: Manifest, *, tied: bool) -> LoraFiles:
    """Read which weights an adapter changes. ``tied``: the base shares input and output embeddings.

    Raises AdapterRefused for anything but plain LoRA on linear layers.
    """
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
            raise AdapterRefused(path, f"holds {key!r}, which is no half of a LoRA pair")
        if tied and module.endswith(("lm_head", "embed_tokens")):
            raise AdapterRefused(
                path, f"changes {module!r}, which this base shares between input and output"
            )
        modules[module] = pair
    if not modules:
        raise AdapterRefused(path, "changes nothing")
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
