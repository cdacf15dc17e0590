"""Will it fit? An estimate of a training's memory before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from trainer.artifacts.training import MemoryEstimate
from trainer.errors import BadInput
from trainer.model.device import free_memory
from trainer.training.recipe import Recipe

_OVERHEAD = 700 << 20
"""The interpreter with its libraries, or a CUDA context with its workspaces (bytes)."""
_SAFETY = 1.1
_CPU_HEAP = 1.6
"""A CPU's heap at its peak over the bytes in use: batches of many lengths leave holes in it. Peaks
of 1.35 to 1.6 times were measured with a 135M base, and with glibc's allocator."""
_FOUR_BIT = 0.53
"""Bytes a weight in NF4 with double quantization: 4.127 bits (arXiv 2305.14314, section 3)."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an estimate needs of a base: counts of weights and the layers' sizes."""

    weights: int
    linear_weights: int
    adapter_weights_per_rank: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes of a training at its peak, by what they are for."""

    base: int
    adapter: int
    activations: int
    logits: int
    overhead: int

    @property
    def total(self) -> int:
        """All of them, in bytes."""
        return self.base + self.adapter + self.activations + self.logits + self.overhead


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The estimate beside the free bytes, and whether gradients are to be checkpointed."""

    estimate: MemoryParts
    free: int
    gradient_checkpointing: bool

    def __str__(self) -> str:
        found = self.estimate
        return f"memory: about {_gb(found.total)} of {_gb(self.free)} free ({_parts(found)})"

    def to_record(self) -> MemoryEstimate:
        """Return the figures for ``training.json``."""
        return MemoryEstimate(**asdict(self.estimate), total=self.estimate.total, free=self.free)


def read_shape(base: Path, target_modules: Sequence[str] = ()) -> Shape:
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
        return Shape(
            weights,
            linear,
            per_rank,
            config["num_hidden_layers"],
            config["hidden_size"],
            config.get("intermediate_size", 4 * config["hidden_size"]),
            config["num_attention_heads"],
            config["vocab_size"],
        )
    except (OSError, ValueError, KeyError) as error:
        raise BadInput(f"{base}: cannot read the base's shape: {error}") from error


def estimate(
    shape: Shape,
    recipe: Recipe,
    *,
    prefix_tokens: int,
    longest_tokens: int,
    bf16: bool,
    gradient_checkpointing: bool,
    on_cpu: bool = False,
) -> MemoryParts:
    """Estimate the peak of a training step, in bytes.

    ``longest_tokens`` is the longest prompt, prefix included. A layer keeps for the way back
    about 9 states of the hidden size and 4 of the intermediate size a token in the base's
    precision, two float32 states for its norms, and with "eager" attention two rows of scores a
    head (counted after Korthikanti et al. 2022, arXiv 2205.05198, for gated layers with frozen
    weights). bf16 arithmetic over a float32 base saves nothing: what is rounded is kept beside
    what it was. Checkpointing keeps one hidden state a layer and recomputes one layer at a time.
    """
    element = 2 if recipe.base_dtype == "bfloat16" else 4
    rows = recipe.micro_batch_size or recipe.batch_size
    tail = longest_tokens - prefix_tokens
    tokens = rows * tail + prefix_tokens if recipe.share_prefix else rows * longest_tokens
    layer = element * (9 * shape.hidden + 4 * shape.intermediate) + 8 * shape.hidden
    if recipe.attn_implementation == "eager":
        layer += 2 * element * shape.heads * longest_tokens
    kept = shape.layers * layer
    if gradient_checkpointing:
        kept = shape.layers * shape.hidden * element + layer
    if recipe.load_in_4bit:
        base = _FOUR_BIT * shape.linear_weights + 2 * (shape.weights - shape.linear_weights)
    else:
        base = (2 if recipe.base_dtype == "bfloat16" else 4) * shape.weights
        if bf16 and recipe.base_dtype == "float32":
            base += 2 * shape.weights  # autocast keeps rounded copies for the step
    return MemoryParts(
        base=round(base),
        adapter=16
        * recipe.lora_rank
        * shape.adapter_weights_per_rank,  # value, gradient, two moments
        activations=round(tokens * kept * (_CPU_HEAP if on_cpu else 1)),
        logits=rows * shape.vocabulary * (8 + element),
        overhead=_OVERHEAD,
    )


def plan_memory(
    shape: Shape,
    recipe: Recipe,
    device: torch.device,
    *,
    prefix_tokens: int,
    longest_tokens: int,
    bf16: bool,
) -> MemoryPlan:
    """Decide before a weight is loaded whether to checkpoint gradients: "auto" does when it would
    not fit without, which ``share_prefix`` rules out. Raises BadInput with what would help when
    it does not fit at all.
    """

    def plan(*, gradient_checkpointing: bool) -> MemoryPlan:
        found = estimate(
            shape,
            recipe,
            prefix_tokens=prefix_tokens,
            longest_tokens=longest_tokens,
            bf16=bf16,
            gradient_checkpointing=gradient_checkpointing,
            on_cpu=device.type == "cpu",
        )
        return MemoryPlan(found, free, gradient_checkpointing)

    free = free_memory(device)
    asked = recipe.gradient_checkpointing
    chosen = plan(gradient_checkpointing=asked is True)
    if asked == "auto" and not recipe.share_prefix and chosen.estimate.total * _SAFETY > free:
        chosen = plan(gradient_checkpointing=True)
    if recipe.memory_check and chosen.estimate.total * _SAFETY > free:
        raise BadInput(
            f"this training needs about {_gb(chosen.estimate.total)} and {_gb(free)} of "
            f"{device.type.upper()} memory are free ({_parts(chosen.estimate)}): "
            f"{_advice(recipe)}; memory_check=false tries anyway"
        )
    return chosen


def _advice(recipe: Recipe) -> str:
    ideas = []
    if not recipe.load_in_4bit and recipe.base_dtype == "float32":
        ideas.append("base_dtype=bfloat16")
    if (recipe.micro_batch_size or recipe.batch_size) > 1:
        ideas.append("a smaller micro_batch_size")
    if recipe.share_prefix or recipe.gradient_checkpointing is False:
        ideas.append("share_prefix=false with gradient_checkpointing=true")
    if not recipe.load_in_4bit:
        ideas.append("load_in_4bit=true")
    return f"try {', '.join(ideas)}" if ideas else "use a smaller base or a shorter prompt"


def _parts(found: MemoryParts) -> str:
    names = ("base", "adapter", "activations", "logits")
    return ", ".join(f"{name} {_gb(getattr(found, name))}" for name in names)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


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
