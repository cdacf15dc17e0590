"""LoRA layers as two matrix products: the second adds onto the base layer's output."""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor

_ADAPTER = "default"  # PEFT's name of the only adapter


def add_by_addmm(peft_model: Any) -> int:
    """Let the plain LoRA layers of a PEFT model compute ``base(x) + scaling * x A' B'`` with one
    ``addmm`` for the sum, the scale and the second product, and without a float32 copy of ``x``
    under autocast. Returns how many layers were changed.

    PEFT's own ``forward`` is kept for what is not plain: layers of 4 bits, other variants, merged
    or switched off layers, and inputs in another precision than the matrices where no autocast
    brings them together. State dicts, names and gradients are the same.
    """
    from peft.tuners.lora import Linear

    changed = 0
    for module in peft_model.modules():
        if type(module) is Linear and not module.lora_variant:
            module.forward = MethodType(_forward, module)
            changed += 1
    return changed


def _forward(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    if args or kwargs or self.disable_adapters or self.merged or not _is_of_one_type(self, x):
        found: Tensor = type(self).forward(self, x, *args, **kwargs)
        return found
    base = self.base_layer(x)
    down, up = self.lora_A[_ADAPTER].weight, self.lora_B[_ADAPTER].weight
    rows = self.lora_dropout[_ADAPTER](x).reshape(-1, x.shape[-1])
    summed = torch.addmm(
        base.reshape(-1, base.shape[-1]),
        rows @ down.t(),
        up.t(),
        alpha=self.scaling[_ADAPTER],
    )
    return summed.reshape(base.shape)


def _is_of_one_type(layer: Any, x: Tensor) -> bool:
    if torch.is_autocast_enabled(x.device.type):
        return True
    return bool(x.dtype == layer.lora_A[_ADAPTER].weight.dtype == layer.base_layer.weight.dtype)
