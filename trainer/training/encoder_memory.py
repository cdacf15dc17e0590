"""Will an encoder's training fit? An estimate of its memory before anything is loaded."""

from __future__ import annotations

from functools import partial

import torch

from trainer.errors import BadInput
from trainer.model.device import free_memory
from trainer.model.scoring import BATCH_TOKENS
from trainer.training.memory import OVERHEAD, SAFETY, MemoryParts, MemoryPlan, heap_on, larger
from trainer.training.recipe import Recipe
from trainer.training.shape import BaseShape


def estimate_encoder(
    shape: BaseShape, recipe: Recipe, *, longest_tokens: int, classes: int, bf16: bool, heap: float
) -> MemoryParts:
    """Estimate the peaks of a training step and of scoring, in bytes.

    ``longest_tokens`` is the longest row; ``heap`` is what an allocator takes over what is in use.
    Counted for BERT's layers (after Korthikanti et al. 2022, arXiv 2205.05198) with dropout, whose
    attention keeps its probabilities; compared with PyTorch's own tensors, without their memory, in
    ``tests/unit/trainer/training/test_encoder_memory.py``.
    """
    rows = recipe.micro_batch_size or recipe.batch_size
    trains = recipe.kind == "encoder"
    head = classes * (shape.hidden + 1)
    learnt = head
    if trains:
        whole = recipe.tuning == "whole"
        learnt += shape.weights if whole else recipe.lora_rank * shape.adapter_weights_per_rank
    held = shape.layers * _held_by_a_layer(shape, longest_tokens, bf16=bf16)
    activations = rows * longest_tokens * held if trains else 0
    scoring = (
        max(BATCH_TOKENS, longest_tokens)
        * 4
        * (4 * shape.hidden + 2 * shape.intermediate + 2 * shape.heads * longest_tokens)
    )
    return MemoryParts(
        base=(6 if bf16 else 4) * shape.weights,
        # gradient, two moments, the best epoch's copy; the average
        adapter=learnt * (16 + 4 * bool(recipe.ema_decay)) if trains else 4 * learnt,
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
    """Compare the estimate with what is free, before a weight is loaded; ``bf16`` is None where a
    trial will decide. Raises BadInput with what would help when it does not fit."""
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


def _held_by_a_layer(shape: BaseShape, longest_tokens: int, *, bf16: bool) -> int:
    """Bytes a token that a layer holds for the way back: what its products read and made, what its
    two norms read, two masks of dropout, and attention's probabilities before and after theirs."""
    element = 2 if bf16 else 4
    linear = element * (8 * shape.hidden + 2 * shape.intermediate)
    norms = 4 * 4 * shape.hidden
    masks = 4 * 2 * shape.hidden
    attention = (10 if bf16 else 12) * shape.heads * longest_tokens
    return linear + norms + masks + attention
