"""Fold a LoRA adapter into a copy of its base: no LoRA cost per token when serving.

The only file that imports torch and safetensors, when it is called.
"""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path
from typing import Any

from worker.cache import made_once
from worker.contract import AdapterRefused, Manifest
from worker.engine.lora_files import LoraFiles, read_lora
from worker.errors import SettingsError

_COPIED = {".json", ".jinja", ".txt", ".model", ".tiktoken"}


def merged_base(base: Path, adapter: Path, manifest: Manifest, cache_dir: Path) -> Path:
    """Return a directory with the base's weights plus the adapter's, made once for each digest.

    ``manifest.digest`` covers the base's files and the adapter's, which the caller has verified.
    Processes that ask at the same time wait for the first; a directory that exists is complete.
    Holds about one weight file in memory. Raises AdapterRefused when the adapter cannot be
    folded in, and SettingsError when ``cache_dir`` cannot be written.
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
        raise AdapterRefused(lora.path, f"changes {min(unused)!r}, which is no weight of the base")
    for path in base.iterdir():
        if path.is_file() and path.suffix in _COPIED:
            shutil.copyfile(path, target / path.name)


def _merge_shard(source: Path, target: Path, lora: LoraFiles) -> set[str]:
    """Write one weight file with the adapter's part added; return the modules it changed."""
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
                # In float32: most of a small update would be lost in the base's own precision.
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
