"""What a training computes with on this machine: layout, attention and number format."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median
from typing import TypeVar

import torch

from trainer.errors import BadInput
from trainer.model.device import ProcessGroup
from trainer.model.forward import Layout
from trainer.training.learner import Learner, LearnerRow, Objective
from trainer.training.recipe import Recipe
from trainer.training.run_folder import checkpoint_identity

_ROUNDS = 3
_BUDGET_S = 1.0
_MOST_S = 30.0
_WORTH = 1.1
"""What rounds must also be faster, and by more than a trial's noise."""


def layout_of(recipe: Recipe, *, on_gpu: bool) -> Layout:
    """Return the layout of a training. With ``packing = "auto"`` prompts are packed on a GPU, and
    where gradients are checkpointed, which a prefix that is cached rules out."""
    if not recipe.share_prefix:
        return "whole"
    packs = recipe.packing
    if packs == "auto":
        packs = on_gpu or recipe.gradient_checkpointing is True
    return "packed" if packs else "cached"


def attention_of(recipe: Recipe, *, on_gpu: bool) -> str:
    """Return transformers' name of the attention that a training is loaded with. "auto" is
    ``flex_attention`` for what is packed on a GPU, if Triton is there to compile it; else ``sdpa``,
    but ``eager`` on a CPU. Raises BadInput for FlexAttention on a CPU, where it has no way back."""
    wanted = recipe.attn_implementation
    if wanted == "flex_attention" and not on_gpu:
        raise BadInput(
            "attn_implementation = flex_attention learns on a GPU alone: set it to auto, sdpa or "
            "eager"
        )
    if wanted != "auto":
        return wanted
    if layout_of(recipe, on_gpu=on_gpu) == "packed":
        return "flex_attention" if on_gpu and find_spec("triton") else "sdpa"
    return "sdpa" if on_gpu else "eager"


def served_layout(recipe: Recipe) -> Layout:
    """Return the layout for a base as workers hold it, whose attention masks nothing in blocks."""
    return "cached" if recipe.share_prefix else "whole"


RowT = TypeVar("RowT", bound=LearnerRow)


def planned_bf16(recipe: Recipe, group: ProcessGroup) -> bool | None:
    """Return what ``choose_bf16`` will say where that is known before a weight is loaded; None
    where it will be tried."""
    if recipe.kind == "embedding-linear":
        return False
    is_tried = recipe.mixed_precision == "auto" and group.device.type == "cpu"
    return None if is_tried else group.bf16


def choose_bf16(
    model: Learner,
    rows: Sequence[RowT],
    objective: Objective[RowT],
    recipe: Recipe,
    group: ProcessGroup,
) -> bool:
    """Return whether a training computes in bfloat16: what the recipe says; with "auto" what the
    GPU can, and on a CPU what is faster there, by trying a batch of rows of middling length. A
    training that is resumed stays with what it began with. All processes have one answer."""
    planned = planned_bf16(recipe, group)
    if planned is not None:
        return planned
    before = checkpoint_identity(recipe.run)
    if before is not None and isinstance(before.get("bf16"), bool):
        return bool(before["bf16"])
    size = recipe.micro_batch_size or recipe.batch_size
    ordered = sorted(rows, key=lambda row: len(row.ids))
    start = max(0, (len(ordered) - size) // 2)
    batch = ordered[start : start + size]
    learnt = model.trainable_parameters()
    if objective.head is not None:
        learnt += list(objective.head.parameters())

    def step() -> None:
        objective(batch, len(batch)).total.backward()  # type: ignore[no-untyped-call]
        for parameter in learnt:
            parameter.grad = None

    model.start_training()
    return group.any(is_bf16_faster(step, group.device))


def is_bf16_faster(step: Callable[[], None], device: torch.device) -> bool:
    """Whether ``step``, a forward and backward pass, is faster under bfloat16 autocast than
    without. Each is run in turn, three times or for about a second in all, and no longer than half
    a minute where one takes so long; the medians are compared, without the first, in which kernels
    are made. Random numbers that are drawn meanwhile are given back."""
    state = torch.get_rng_state()
    taken: dict[bool, list[float]] = {False: [], True: []}
    began = time.perf_counter()
    while _is_open(len(taken[True]), time.perf_counter() - began):
        for bf16, seconds in taken.items():
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                started = time.perf_counter()
                step()
            seconds.append(time.perf_counter() - started)
    torch.set_rng_state(state)
    first = 1 if len(taken[True]) > 1 else 0
    return median(taken[True][first:]) * _WORTH < median(taken[False][first:])


def _is_open(rounds: int, seconds: float) -> bool:
    return not rounds or seconds < _BUDGET_S or (rounds < _ROUNDS and seconds < _MOST_S)
