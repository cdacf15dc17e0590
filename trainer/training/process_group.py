"""One process or several: devices, precision and sums across processes. The only file that
imports ``accelerate``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

from trainer.model.device import has_fast_bf16

Element = TypeVar("Element")


class ProcessGroup:
    """The processes of one training, as ``accelerate launch`` or ``torchrun`` started them
    (alone: one).

    Only adapter weights have gradients, a few megabytes, so they are summed once a step; the
    model is not wrapped, and the short forward pass works as it does alone.
    """

    def __init__(self, device: str, mixed_precision: str) -> None:
        """``device`` "auto" takes this process's GPU where there is one; ``mixed_precision``
        "auto" is bfloat16 arithmetic where the processor has matrix units for it."""
        cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no")
        own = self._accelerator.device
        self.device = own if device in {"auto", "cpu"} else torch.device(device)
        self.bf16 = mixed_precision == "bf16"
        if mixed_precision == "auto":
            self.bf16 = has_fast_bf16(self.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return bool(self._accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self._accelerator.process_index)

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return int(self._accelerator.num_processes)

    def shard(self, elements: Sequence[Element]) -> Sequence[Element]:
        """Return this process's share of some elements: every ``world_size``-th."""
        return elements[self.rank :: self.world_size]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes, in one message."""
        if self.world_size == 1:
            return
        weights = list(parameters)
        for tensor in weights:
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
        flat = torch.cat([tensor.grad.flatten() for tensor in weights if tensor.grad is not None])
        total = self._accelerator.reduce(flat, reduction="sum")
        start = 0
        for tensor in weights:
            end = start + tensor.numel()
            tensor.grad = total[start:end].view_as(tensor).clone()
            start = end

    def all_reduce(self, values: Sequence[float]) -> list[float]:
        """Return each value's sum over the processes."""
        if self.world_size == 1:
            return list(values)
        total = self._accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduction="sum"
        )
        return [float(value) for value in total]

    def all_gather(self, elements: list[Element]) -> list[Element]:
        """Return the elements of all processes, in the order of their ranks."""
        return list(gather_object(elements)) if self.world_size > 1 else elements

    def barrier(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, if there is one."""
        self._accelerator.end_training()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
