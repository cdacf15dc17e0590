"""Estimate a training's memory before any weight is loaded, for LoRA and for encoders."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from trainer.artifacts.training import MemoryEstimate
from trainer.errors import BadInput
from trainer.model.device import free_memory
from trainer.model.forward import Layout
from trainer.model.scoring import BATCH_SIZE, BATCH_TOKENS
from trainer.training.arithmetic import attention_of, layout_of
from trainer.training.recipe import Recipe

OVERHEAD = 820 << 20
"""Bytes of the interpreter with its libraries, or a CUDA context with its workspaces. A process
that trains a tiny model takes 0.85 GB."""

# Estimates are within 5 to 10 % of the peaks of PyTorch's own tensors (test_memory.py).
SAFETY = 1.1
CPU_HEAP = 1.6
"""A CPU heap's peak over the bytes in use: batches of different lengths fragment it. Measured: 1.35
to 1.6 with a 135M base and glibc's allocator."""

_FOUR_BIT = 0.53
"""Bytes per weight in NF4 with double quantization: 4.127 bits (arXiv 2305.14314, section 3)."""


@dataclass(frozen=True, slots=True)
class BaseShape:
    """A base's weight counts and layer sizes. ``attention`` is the width of all heads' queries,
    ``key_value`` that of all heads' keys."""

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
        # Multimodal bases nest the config of their language model.
        config = config.get("text_config", config)
        for path in _weight_files(base):
            for name, shape in _shapes(path):
                weights += math.prod(shape)
                part = name.removesuffix(".weight").rpartition(".")[2]
                # The layers that linear_layers chooses, found by name because no module is built
                # here.
                if len(shape) == 2 and "embed" not in name and part != "lm_head":
                    linear += math.prod(shape)
                    if not target_modules or part in target_modules:
                        # A has rank * inputs weights and B has outputs * rank.
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
    """Return the weight files that transformers loads: those of the index, else the usual file."""
    # Not every *.safetensors: some bases contain the same weights a second time, for example
    # Mistral's consolidated.safetensors.
    index = base / "model.safetensors.index.json"
    if index.is_file():
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
        return [base / name for name in sorted(set(names))]
    whole = base / "model.safetensors"
    return [whole] if whole.is_file() else sorted(base.glob("*.safetensors"))


def _shapes(path: Path) -> list[tuple[str, list[int]]]:
    with path.open("rb") as file:
        # The safetensors format: eight bytes of length, then a JSON header. Nothing else is read.
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    return [(name, entry["shape"]) for name, entry in header.items() if name != "__metadata__"]


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes by purpose. Training holds ``base``, ``activations`` and ``logits``; scoring validation
    afterwards holds ``served_base`` and ``scoring``; both hold the rest."""

    base: int
    adapter: int
    activations: int
    logits: int
    served_base: int
    scoring: int
    overhead: int

    @property
    def training(self) -> int:
        """Bytes at the peak of a training step."""
        return self.base + self.adapter + self.activations + self.logits + self.overhead

    @property
    def scored(self) -> int:
        """Bytes at the peak of scoring."""
        return self.served_base + self.adapter + self.scoring + self.overhead

    @property
    def total(self) -> int:
        """Bytes at the larger of both peaks."""
        return max(self.training, self.scored)


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The estimate, the free bytes, and whether gradients are checkpointed."""

    estimate: MemoryParts
    free: int
    gradient_checkpointing: bool

    def __str__(self) -> str:
        found = self.estimate
        return f"memory: about {_gb(found.total)} of {_gb(self.free)} free ({_parts(found)})"

    def to_record(self) -> MemoryEstimate:
        """Return the figures for ``training.json``."""
        return MemoryEstimate(**asdict(self.estimate), total=self.estimate.total, free=self.free)


def estimate(
    shape: BaseShape,
    recipe: Recipe,
    *,
    prefix_tokens: int,
    longest_tokens: int,
    bf16: bool,
    gradient_checkpointing: bool,
    on_cpu: bool = False,
    heap: float = 1.0,
) -> MemoryParts:
    """Estimate the peaks of a training step and of scoring, in bytes.

    ``longest_tokens`` is the longest prompt, prefix included; ``heap`` is the allocator's peak over
    the bytes in use. Counted for gated layers with frozen weights (after Korthikanti et al. 2022,
    arXiv 2205.05198), and compared with PyTorch's own tensors at the width of a 7B
    (``tests/unit/trainer/training/test_memory.py``).
    """
    rows = recipe.micro_batch_size or recipe.batch_size
    layout = layout_of(recipe, on_gpu=not on_cpu)
    attention = attention_of(recipe, on_gpu=not on_cpu)
    tokens = rows * longest_tokens
    if layout != "whole":
        tokens = rows * (longest_tokens - prefix_tokens) + prefix_tokens
    # Rounding a float32 base's states saves nothing on a CPU: 6.5 GB instead of 5.9 were measured.
    rounds = bf16 and not (on_cpu and recipe.base_dtype == "float32")
    held = _held_by_a_layer(shape, recipe, bf16=rounds, on_cpu=on_cpu)
    seen = tokens if layout == "packed" else longest_tokens
    held += _element(recipe, bf16=rounds) * _scores_of_a_token(shape, attention, seen)
    keys = tokens if layout == "packed" else rows * longest_tokens
    keys *= _element(recipe, bf16=rounds) * _keys_of_a_layer(shape, layout, attention)
    activations: float = shape.layers * (tokens * held + keys)
    if gradient_checkpointing:
        element = _element(recipe, bf16=False)
        activations = tokens * shape.layers * shape.hidden * element + tokens * held + keys
    # Temporaries, which one layer at a time allocates and frees.
    passing = (3.5 if recipe.lora_dropout else 2.5) if bf16 else 8
    activations += tokens * passing * shape.intermediate
    weights = recipe.lora_rank * shape.adapter_weights_per_rank
    return MemoryParts(
        base=_base(shape, recipe, bf16=bf16, in_4bit=recipe.load_in_4bit),
        # value, gradient and two moments in float32; a rounded copy
        adapter=weights * (16 + 2 * bf16),
        activations=round(activations * heap),
        # The head's output, its float32 copy, and the gradient of that copy.
        logits=rows * shape.vocabulary * (8 + _element(recipe, bf16=bf16)),
        # Scoring runs without autocast, so there are no rounded copies.
        served_base=_base(shape, recipe, bf16=False, in_4bit=recipe.serve_in_4bit),
        scoring=round(
            _scoring(shape, recipe, prefix_tokens, longest_tokens, layout, attention) * heap
        ),
        overhead=OVERHEAD,
    )


def _element(recipe: Recipe, *, bf16: bool) -> int:
    """Bytes of a number in a state."""
    return 2 if bf16 or recipe.base_dtype == "bfloat16" or recipe.load_in_4bit else 4


def _base(shape: BaseShape, recipe: Recipe, *, bf16: bool, in_4bit: bool) -> int:
    if in_4bit:
        return round(_FOUR_BIT * shape.linear_weights) + 2 * (shape.weights - shape.linear_weights)
    if recipe.base_dtype == "bfloat16" or recipe.load_in_4bit:
        return 2 * shape.weights
    return (6 if bf16 else 4) * shape.weights  # with the copies for autocast


def _held_by_a_layer(shape: BaseShape, recipe: Recipe, *, bf16: bool, on_cpu: bool) -> int:
    """Bytes per token that a layer keeps for the backward pass, without keys, values and scores.

    These are queries and the heads' outputs; gate, activation and up; two float32 states for the
    norms; and the input of each LoRA layer in its precision, shared if no copy is needed. Dropout
    keeps a mask for each: a byte per number on a GPU, a full number on a CPU.
    """
    element = _element(recipe, bf16=bf16)
    hidden, attention, intermediate = shape.hidden, shape.attention, shape.intermediate
    held = element * (2 * attention + 3 * intermediate) + 8 * hidden
    copies = 5 * hidden + attention + intermediate
    if element == 2 and not bf16:
        held += 4 * copies
    elif recipe.lora_dropout:
        held += element * copies
    else:
        held += element * (2 * hidden + attention + intermediate)
    if recipe.lora_dropout:
        held += ((2 if bf16 else 4) if on_cpu else 1) * copies
    return held


def _scores_of_a_token(shape: BaseShape, attention: str, seen: int) -> int:
    """Numbers per token and layer that attention keeps in addition to keys and values: with "eager"
    each head's scores of the ``seen`` tokens, before and after softmax."""
    return 2 * shape.heads * seen if attention == "eager" else 0


def _keys_of_a_layer(shape: BaseShape, layout: Layout, attention: str) -> int:
    """Numbers of keys and values that a layer holds per token. They are repeated for every head
    with "eager" attention, behind a mask (a shared prefix), and by FlexAttention if the number of
    heads is not a power of two."""
    repeated = attention == "eager" or layout != "whole"
    if attention == "flex_attention":
        repeated = bool(shape.heads & (shape.heads - 1))
    return 2 * (shape.attention if repeated else shape.key_value)


def _scoring(
    shape: BaseShape,
    recipe: Recipe,
    prefix_tokens: int,
    longest_tokens: int,
    layout: Layout,
    attention: str,
) -> int:
    """Bytes of one scoring batch (``token_batches``) in addition to the weights.

    The peak is in a LoRA layer as wide as the intermediate states, which holds its float32 output
    and the state that it is added to. With a cached prefix the batch's keys and values of all
    layers stay. The vocabulary's logits come after the layers.
    """
    element = _element(recipe, bf16=False)
    # A prompt longer than a batch's limit is a batch by itself.
    held = tokens = max(BATCH_TOKENS, longest_tokens)
    cache = 0
    if layout != "whole":
        tokens = round(held * (1 - prefix_tokens / longest_tokens)) + prefix_tokens
    if layout == "cached":
        cache = held * 2 * shape.layers * shape.key_value * element
    state = 14 * shape.intermediate + 6 * shape.hidden
    if element == 4:
        state = 12 * (shape.intermediate + shape.hidden)
    seen = tokens if layout == "packed" else longest_tokens
    state += element * _scores_of_a_token(shape, attention, seen) // 2
    vocabulary = BATCH_SIZE * shape.vocabulary * (element + 8)
    return cache + max(tokens * state, vocabulary)


def heap_on(device: torch.device) -> float:
    """Return a device's allocator peak over the bytes in use."""
    return CPU_HEAP if device.type == "cpu" else 1.0


def larger(estimated: Callable[..., MemoryParts], bf16: bool | None) -> MemoryParts:
    """Return the estimate for this number format, or the larger of both if it is not known."""
    both = (True, False) if bf16 is None else (bf16,)
    return max((estimated(bf16=each) for each in both), key=lambda found: found.total)


def plan_memory(
    shape: BaseShape,
    recipe: Recipe,
    device: torch.device,
    *,
    prefix_tokens: int,
    longest_tokens: int,
    bf16: bool | None,
) -> MemoryPlan:
    """Decide before loading whether to checkpoint gradients: "auto" does if the training does not
    fit otherwise, unless the prefix is cached. ``bf16`` is None if a trial will decide. Raises
    BadInput with remedies if the training does not fit at all.
    """

    def plan(*, gradient_checkpointing: bool) -> MemoryPlan:
        estimated = partial(
            estimate,
            shape,
            recipe,
            prefix_tokens=prefix_tokens,
            longest_tokens=longest_tokens,
            gradient_checkpointing=gradient_checkpointing,
            on_cpu=device.type == "cpu",
            heap=heap_on(device),
        )
        return MemoryPlan(larger(estimated, bf16), free, gradient_checkpointing)

    # Checkpointing is the last resort, because it computes every layer twice.
    free = free_memory(device)
    asked = recipe.gradient_checkpointing
    chosen = plan(gradient_checkpointing=asked is True)
    is_cached = layout_of(recipe, on_gpu=device.type == "cuda") == "cached"
    if asked == "auto" and not is_cached and chosen.estimate.total * SAFETY > free:
        chosen = plan(gradient_checkpointing=True)
    if recipe.memory_check and chosen.estimate.total * SAFETY > free:
        raise BadInput(
            f"this training needs about {_gb(chosen.estimate.total)}, but {_gb(free)} of "
            f"{device.type.upper()} memory are free ({_parts(chosen.estimate)}): "
            f"{_advice(recipe, chosen.estimate)}; memory_check=false tries anyway"
        )
    return chosen


def _advice(recipe: Recipe, found: MemoryParts) -> str:
    if found.scored > found.training and recipe.load_in_4bit and not recipe.serve_in_4bit:
        return "try serve_in_4bit=true, if workers load the base in 4 bits too"
    ideas = []
    if not recipe.load_in_4bit and recipe.base_dtype == "float32":
        ideas.append("base_dtype=bfloat16")
    if (recipe.micro_batch_size or recipe.batch_size) > 1:
        ideas.append("a smaller micro_batch_size")
    if recipe.gradient_checkpointing is not True:
        ideas.append("gradient_checkpointing=true")
    if not recipe.load_in_4bit:
        ideas.append("load_in_4bit=true")
    return f"try {', '.join(ideas)}" if ideas else "use a smaller base or a shorter prompt"


def _parts(found: MemoryParts) -> str:
    """Return the parts of the larger peak, and the size of the other one."""
    if found.scored > found.training:
        names = ["served_base", "adapter", "scoring"]
        other = f"training itself {_gb(found.training)}"
    else:
        names = ["base", "adapter", "activations", "logits"]
        other = f"scoring afterwards {_gb(found.scored)}"
    parts = [f"{name.replace('_', ' ')} {_gb(getattr(found, name))}" for name in names]
    return ", ".join([*parts, other])


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def estimate_encoder(
    shape: BaseShape, recipe: Recipe, *, longest_tokens: int, classes: int, bf16: bool, heap: float
) -> MemoryParts:
    """Estimate the peaks of a training step and of scoring, in bytes.

    ``longest_tokens`` is the longest row; ``heap`` is the allocator's peak over the bytes in use.
    Counted for BERT's layers with dropout (after Korthikanti et al. 2022, arXiv 2205.05198), whose
    attention keeps its probabilities. Compared with PyTorch's own tensors in
    ``tests/unit/trainer/training/test_memory.py``.
    """
    rows = recipe.micro_batch_size or recipe.batch_size
    trains = recipe.kind == "encoder"
    head = classes * (shape.hidden + 1)
    learnt = head
    if trains:
        whole = recipe.tuning == "whole"
        learnt += shape.weights if whole else recipe.lora_rank * shape.adapter_weights_per_rank
    held = shape.layers * _held_by_an_encoder_layer(shape, longest_tokens, bf16=bf16)
    activations = rows * longest_tokens * held if trains else 0
    scoring = (
        max(BATCH_TOKENS, longest_tokens)
        * 4
        * (4 * shape.hidden + 2 * shape.intermediate + 2 * shape.heads * longest_tokens)
    )
    return MemoryParts(
        base=(6 if bf16 else 4) * shape.weights,
        # gradient, two moments, the best epoch's copy
        adapter=(16 if trains else 4) * learnt,
        activations=round(activations * heap),
        logits=rows * classes * 16,
        served_base=4 * shape.weights,
        scoring=round(scoring * heap),
        overhead=OVERHEAD,
    )


def plan_encoder_memory(
    shape: BaseShape,
    recipe: Recipe,
    device: torch.device,
    *,
    longest_tokens: int,
    classes: int,
    bf16: bool | None,
) -> MemoryPlan:
    """Return the estimate and the free memory, before loading; ``bf16`` is None if a trial will
    decide. Raises BadInput with remedies if the training does not fit."""
    estimated = partial(
        estimate_encoder,
        shape,
        recipe,
        longest_tokens=longest_tokens,
        classes=classes,
        heap=heap_on(device),
    )
    found = larger(estimated, bf16)
    plan = MemoryPlan(found, free_memory(device), recipe.gradient_checkpointing is True)
    if recipe.memory_check and found.total * SAFETY > plan.free:
        raise BadInput(
            f"this training does not fit: {plan}: try a smaller micro_batch_size, a smaller "
            "max_message_tokens or tuning=lora; memory_check=false tries anyway"
        )
    return plan


def _held_by_an_encoder_layer(shape: BaseShape, longest_tokens: int, *, bf16: bool) -> int:
    """Bytes per token that a layer keeps for the backward pass: inputs and outputs of its products,
    inputs of two norms, two dropout masks, and attention's probabilities before and after
    dropout."""
    element = 2 if bf16 else 4
    linear = element * (8 * shape.hidden + 2 * shape.intermediate)
    norms = 4 * 4 * shape.hidden
    masks = 4 * 2 * shape.hidden
    attention = (10 if bf16 else 12) * shape.heads * longest_tokens
    return linear + norms + masks + attention
