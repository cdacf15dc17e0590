"""LoRA layers folded into the weights that they change, to the same bits on every processor."""

from __future__ import annotations

from typing import Any

import torch

_ADAPTER = "default"  # PEFT's name of the only adapter


def fold_lora(peft_model: Any) -> None:
    """Add ``scaling * B A`` to the weights below a PEFT model's plain LoRA layers, in place; what
    takes the layers out afterwards is the model's ``unload``.

    PEFT's ``merge_and_unload`` multiplies the matrices by a library that adds up in another order
    on another processor. Here the rank's outer products are added one after the other in float64,
    by operations on single numbers, so that files made of the weights have one digest.
    """
    from peft.tuners.lora import Linear

    with torch.no_grad():
        for module in peft_model.modules():
            if not isinstance(module, Linear):
                continue
            down = module.lora_A[_ADAPTER].weight.double()
            up = module.lora_B[_ADAPTER].weight.double()
            weight = module.get_base_layer().weight
            added = torch.zeros(weight.shape, dtype=torch.float64)
            for row, column in zip(down, up.T, strict=True):
                added += column[:, None] * row
            weight.copy_(weight.double() + module.scaling[_ADAPTER] * added)
