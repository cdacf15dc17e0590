"""Choose how a training computes on this machine: prompt layout, attention, and number format."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from statistics import median

import torch

from trainer.errors import BadInput
from trainer.model.device import Compute
from trainer.model.forward import Layout
from trainer.model.prompt import Row
from trainer.training.learner import Learner, Objective
from trainer.training.recipe import Recipe
from trainer.training.run_folder import checkpoint_identity

_ROUNDS = 3
_BUDGET_S = 1.0
_MOST_S = 30.0
_WORTH = 1.1
"""bfloat16 must be faster by this factor, which exceeds the noise of a trial."""


def layout_of(recipe: Recipe, *, on_gpu: bool) -> Layout:
    """Return the layout of prompts in training. "auto" packs on a GPU, and with gradient
    checkpointing, which cannot recompute a cached prefix."""
    if recipe.prompt_layout != "auto":
        return recipe.prompt_layout
    return "packed" if on_gpu or recipe.gradient_checkpointing is True else "cached"


def attention_of(recipe: Recipe, *, on_gpu: bool) -> str:
    """Return transformers' name of the attention for a training. "auto" is ``flex_attention`` for
    packed prompts on a GPU with Triton, else ``sdpa``, or ``eager`` on a CPU. Raises BadInput for
    FlexAttention on a CPU."""
    wanted = recipe.attn_implementation
    if wanted == "flex_attention" and not on_gpu:  # PyTorch has no backward pass for it on a CPU
        raise BadInput(
            "attn_implementation = flex_attention needs a GPU: set it to auto, sdpa or eager"
        )
    if wanted != "auto":
        return wanted
    if layout_of(recipe, on_gpu=on_gpu) == "packed":
        return "flex_attention" if on_gpu and find_spec("triton") else "sdpa"
    # On a CPU with AMX "sdpa" is a quarter slower than "eager", and without AMX it is as fast.
    return "sdpa" if on_gpu else "eager"


def served_layout(recipe: Recipe) -> Layout:
    """Return the layout for scoring with the base as workers hold it."""
    # Never packed: its attention has no block mask, so it would compute every masked score too.
    return "whole" if recipe.prompt_layout == "whole" else "cached"


def planned_bf16(recipe: Recipe, compute: Compute) -> bool | None:
    """Return the answer of ``choose_bf16`` if it is known before weights are loaded, else None."""
    if recipe.kind == "embedding-linear":
        return False
    is_tried = recipe.mixed_precision == "auto" and compute.device.type == "cpu"
    return None if is_tried else compute.bf16


def choose_bf16(
    model: Learner,
    rows: Sequence[Row],
    objective: Objective,
    recipe: Recipe,
    compute: Compute,
) -> bool:
    """Return whether a training computes in bfloat16.

    "auto" follows the GPU's abilities. On a CPU a batch of medium length is timed in both formats.
    A resumed training keeps the format it started with.
    """
    planned = planned_bf16(recipe, compute)
    if planned is not None:
        return planned
    # A trial, not the processor's flags: those were asked before, and a CPU with AVX-512 bf16 and
    # without AMX was never used so.
    # A new trial could end the other way, and the checkpoint would be refused as another
    # training's.
    before = checkpoint_identity(recipe.run)
    if before is not None and isinstance(before.get("bf16"), bool):
        return bool(before["bf16"])
    size = recipe.micro_batch_size or recipe.batch_size
    ordered = sorted(rows, key=lambda row: len(row.prompt))
    start = max(0, (len(ordered) - size) // 2)
    batch = ordered[start : start + size]
    learnt = model.trainable_parameters()
    if objective.head is not None:
        learnt += list(objective.head.parameters())

    def step() -> None:
        objective(batch, len(batch)).total.backward()  # type: ignore[no-untyped-call]
        for parameter in learnt:
            # Otherwise the trial's gradients would be added to those of the first step.
            parameter.grad = None

    model.start_training()
    return is_bf16_faster(step, compute.device)


def is_bf16_faster(step: Callable[[], None], device: torch.device) -> bool:
    """Whether ``step``, a forward and backward pass, is faster under bfloat16 autocast.

    Both formats take turns for about a second in all and at least three rounds, but not longer
    than half a minute. The medians are compared without the first round, which compiles kernels.
    """
    state = torch.get_rng_state()  # restored below: the trial must not change the training
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
