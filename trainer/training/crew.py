"""One process or several: devices, precision and sums across processes. The only file that
imports ``accelerate``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor

Item = TypeVar("Item")


class ProcessGroup:
    """The processes of one training, as ``accelerate launch`` or ``torchrun`` started them
    (alone: one).

    Only adapter weights have gradients, a few megabytes, so they are summed once a step; the
    model is not wrapped, and the short forward pass works as it does alone.
    """

    def __init__(self, device: str, precision: str) -> None:
        """``device`` "auto" takes this process's GPU where there is one; ``precision`` "auto" is
        bfloat16 arithmetic where the processor has matrix units for it, else float32."""
        cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no")
        found = self._accelerator.device
        self.device = found if device in {"auto", "cpu"} else torch.device(device)
        self.bf16 = _has_fast_bf16(self.device) if precision == "auto" else precision == "bf16"

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and talks."""
        return bool(self._accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self._accelerator.process_index)

    @property
    def size(self) -> int:
        """How many processes there are."""
        return int(self._accelerator.num_processes)

    def mine(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return this process's share of some items: every ``size``-th."""
        return items[self.rank :: self.size]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context in which forward passes run."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def add_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes, in one message."""
        if self.size == 1:
            return
        some = list(parameters)
        for one in some:
            if one.grad is None:
                one.grad = torch.zeros_like(one)
        flat = torch.cat([one.grad.flatten() for one in some if one.grad is not None])
        total = self._accelerator.reduce(flat, reduction="sum")
        at = 0
        for one in some:
            one.grad = total[at : at + one.numel()].view_as(one).clone()
            at += one.numel()

    def add(self, values: Sequence[float]) -> list[float]:
        """Return each value's sum over the processes."""
        if self.size == 1:
            return list(values)
        total = self._accelerator.reduce(
            torch.tensor(values, dtype=torch.float64, device=self.device), reduction="sum"
        )
        return [float(one) for one in total]

    def gather(self, items: list[Item]) -> list[Item]:
        """Return the items of all processes, in the processes' order."""
        return list(gather_object(items)) if self.size > 1 else items

    def wait(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, if there is one."""
        self._accelerator.end_training()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic pays: on a CPU without AMX it is slower than float32 (5.1
    against 8.6 examples/s, docs/figures.md)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    try:
        return " amx_bf16 " in Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
