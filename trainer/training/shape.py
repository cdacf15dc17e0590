"""A base's shape, read from its config and the headers of its weight files."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from trainer.errors import BadInput


@dataclass(frozen=True, slots=True)
class BaseShape:
    """What an estimate needs of a base: counts of weights and the layers' sizes. ``attention`` and
    ``key_value`` are the widths of all heads' queries, and of all heads' keys."""

    weights: int
    linear_weights: int
    adapter_weights_per_rank: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    attention: int
    key_value: int
    vocabulary: int


def read_shape(base: Path, target_modules: Sequence[str] = ()) -> BaseShape:
    """Read a base's shape from its config and the headers of its weight files, without loading
    a weight. ``target_modules`` limits LoRA to some layers. Raises BadInput."""
    weights = linear = per_rank = 0
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        for path in _weight_files(base):
            for name, shape in _shapes(path):
                weights += math.prod(shape)
                part = name.removesuffix(".weight").rpartition(".")[2]
                if len(shape) == 2 and "embed" not in name and part != "lm_head":
                    linear += math.prod(shape)
                    if not target_modules or part in target_modules:
                        per_rank += sum(shape)
        hidden, heads = config["hidden_size"], config["num_attention_heads"]
        head = config.get("head_dim") or hidden // heads
        return BaseShape(
            weights=weights,
            linear_weights=linear,
            adapter_weights_per_rank=per_rank,
            layers=config["num_hidden_layers"],
            hidden=hidden,
            intermediate=config.get("intermediate_size") or 4 * hidden,
            heads=heads,
            attention=heads * head,
            key_value=(config.get("num_key_value_heads") or heads) * head,
            vocabulary=config["vocab_size"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{base}: cannot read the base's shape: {error}") from error


def _weight_files(base: Path) -> list[Path]:
    """Return the files that transformers loads, in their order: those of the index, else the one
    of the usual name. Some bases hold the same weights a second time under their maker's own names
    (Mistral's ``consolidated.safetensors``)."""
    index = base / "model.safetensors.index.json"
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [base / name for name in sorted(set(names))]
    whole = base / "model.safetensors"
    return [whole] if whole.is_file() else sorted(base.glob("*.safetensors"))


def _shapes(path: Path) -> list[tuple[str, list[int]]]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [(name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"]
