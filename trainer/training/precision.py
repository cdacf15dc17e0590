"""Whether bfloat16 arithmetic pays for an encoder on this machine: by trying, not by a list of
processors."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch

_ROUNDS = 3
_BUDGET_S = 1.0
_WORTH = 1.1
"""What rounds must also be faster, and by more than a trial's noise."""


def is_bf16_faster(step: Callable[[], None], device: torch.device) -> bool:
    """Whether ``step``, a forward and backward pass, is faster under bfloat16 autocast than
    without. Each is run in turn, for about a second in all; the medians are compared. Random
    numbers that are drawn meanwhile are given back."""
    state = torch.get_rng_state()
    taken: dict[bool, list[float]] = {False: [], True: []}
    began = time.perf_counter()
    while len(taken[True]) < _ROUNDS or time.perf_counter() - began < _BUDGET_S:
        for bf16, seconds in taken.items():
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                started = time.perf_counter()
                step()
            seconds.append(time.perf_counter() - started)
    torch.set_rng_state(state)
    first = 1  # kernels are made in the first round
    return median(taken[True][first:]) * _WORTH < median(taken[False][first:])
