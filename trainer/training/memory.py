"""Will it fit? An estimate of a training's memory before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil
import torch

from trainer.errors import BadInput
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
class Estimate:
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

    def to_record(self) -> dict[str, int]:
        """Return plain JSON."""
        return {**asdict(self), "total": self.total}


def read_shape(base: Path, layers: Sequence[str] = ()) -> Shape:
    """Read a base's shape from its config and the headers of its weight files, without loading
    a weight. ``layers`` limits LoRA to some. Raises BadInput."""
    weights = linear = per_rank = 0
    try:
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        config = config.get("text_config", config)
        for path in sorted(base.glob("*.safetensors")):
            for name, shape in _shapes(path):
                weights += math.prod(shape)
                part = name.removesuffix(".weight").rpartition(".")[2]
                if len(shape) == 2 and "embed" not in name and part != "lm_head":
                    linear += math.prod(shape)
                    if not layers or part in layers:
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
    checkpointing: bool,
    on_cpu: bool = False,
) -> Estimate:
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
    if recipe.attention == "eager":
        layer += 2 * element * shape.heads * longest_tokens
    kept = shape.layers * layer
    if checkpointing:
        kept = shape.layers * shape.hidden * element + layer
    if recipe.base_bits == 4:
        base = _FOUR_BIT * shape.linear_weights + 2 * (shape.weights - shape.linear_weights)
    else:
        base = (2 if recipe.base_dtype == "bfloat16" else 4) * shape.weights
        if bf16 and recipe.base_dtype == "float32":
            base += 2 * shape.weights  # autocast keeps rounded copies for the step
    return Estimate(
        base=round(base),
        adapter=16 * recipe.rank * shape.adapter_weights_per_rank,  # value, gradient, two moments
        activations=round(tokens * kept * (_CPU_HEAP if on_cpu else 1)),
        logits=rows * shape.vocabulary * (8 + element),
        overhead=_OVERHEAD,
    )


def preflight(
    shape: Shape, recipe: Recipe, device: torch.device, **sizes: Any
) -> tuple[Estimate, int, bool]:
    """Return (estimate, free bytes, whether to checkpoint gradients), before a weight is loaded.

    "auto" checkpoints when it would not fit without, which ``share_prefix`` rules out. Raises
    BadInput with what would help when it does not fit at all.
    """
    free = free_memory(device)
    sizes["on_cpu"] = device.type == "cpu"
    asked = recipe.gradient_checkpointing
    found = estimate(shape, recipe, checkpointing=asked is True, **sizes)
    checkpointing = asked is True
    if asked == "auto" and not recipe.share_prefix and found.total * _SAFETY > free:
        checkpointing = True
        found = estimate(shape, recipe, checkpointing=True, **sizes)
    if recipe.memory_check and found.total * _SAFETY > free:
        raise BadInput(
            f"this training needs about {_gb(found.total)} and {_gb(free)} of "
            f"{device.type.upper()} memory are free ({_parts(found)}): {_advice(recipe)}; "
            "memory_check=false tries anyway"
        )
    return found, free, checkpointing


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on the device (for a CPU: available to new programs)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def peak_memory(device: torch.device) -> int:
    """Return this process's highest use so far, in bytes: on a GPU what torch held there, else
    the resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # not on every platform

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def explain(found: Estimate, free: int) -> str:
    """Return one line for people."""
    return f"memory: about {_gb(found.total)} of {_gb(free)} free ({_parts(found)})"


def _advice(recipe: Recipe) -> str:
    ideas = []
    if recipe.base_bits == 16 and recipe.base_dtype == "float32":
        ideas.append("base_dtype=bfloat16")
    if (recipe.micro_batch_size or recipe.batch_size) > 1:
        ideas.append("a smaller micro_batch_size")
    if recipe.share_prefix or recipe.gradient_checkpointing is False:
        ideas.append("share_prefix=false with gradient_checkpointing=true")
    if recipe.base_bits == 16:
        ideas.append("base_bits=4")
    return f"try {', '.join(ideas)}" if ideas else "use a smaller base or a shorter prompt"


def _parts(found: Estimate) -> str:
    names = ("base", "adapter", "activations", "logits")
    return ", ".join(f"{name} {_gb(getattr(found, name))}" for name in names)


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _shapes(path: Path) -> list[tuple[str, list[int]]]:
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [(name, one["shape"]) for name, one in header.items() if name != "__metadata__"]
