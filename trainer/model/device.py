"""Where a model runs: device, number format, and several processes that train together."""

from __future__ import annotations

import logging
import os
import platform
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import psutil
import torch
from torch import Tensor

from trainer.artifacts.training import Machine

_CPU_INFO = Path("/proc/cpuinfo")


def quiet_transformers() -> None:
    """Turn off transformers' progress bars and its warnings about unused weights."""
    from transformers.utils import logging as transformers_logging  # takes seconds

    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers_logging.disable_progress_bar()


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU if there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_bf16_units(device: torch.device) -> bool:
    """Return whether this is a GPU with bfloat16 units. For a CPU a trial decides
    (``choose_bf16``)."""
    # GPUs before Ampere emulate bfloat16, which is slower than float32.
    return device.type == "cuda" and bool(torch.cuda.is_bf16_supported(including_emulation=False))


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on the device (for a CPU: available to new programs)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def peak_memory(device: torch.device) -> int:
    """Return this process's peak memory in bytes: on a GPU that of torch, else the resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # not on every platform

    # Linux reports kibibytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe_device(name: str = "auto") -> str:
    """Return the GPU's name, or the processor's and the number of usable cores."""
    if torch.cuda.is_available() and name != "cpu":
        return str(torch.cuda.get_device_name())
    return f"{_cpu_model()}, {len(os.sched_getaffinity(0))} CPUs"


def describe_machine(device: str, threads: int, processes: int) -> Machine:
    """Return the machine, on which a training's speed depends."""
    return Machine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count(),
        threads=threads,
        device=device,
        processes=processes,
        memory_bytes=psutil.virtual_memory().total,
        system=f"{platform.system()} {platform.machine()}",
    )


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that shape an adapter."""
    return {
        name: version(name)
        for name in ("torch", "transformers", "peft", "accelerate", "tokenizers")
    }


def _cpu_model() -> str:
    for line in _cpu_info().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _cpu_info() -> str:
    try:
        return _CPU_INFO.read_text(encoding="utf-8")
    except OSError:
        return ""


Element = TypeVar("Element")


class ProcessGroup:
    """The processes of one training, started by ``accelerate launch`` or ``torchrun``, or one.

    All groups in a program contain the same processes, and closing one closes all: processes
    cannot join again.
    """

    # The model is not wrapped (DistributedDataParallel): only adapter weights have gradients, a few
    # megabytes, which are summed once a step, and the short forward pass needs the bare model.

    def __init__(self, device: str, mixed_precision: str) -> None:
        """``device`` "auto" is this process's GPU, if any; ``mixed_precision`` "auto" is bfloat16
        on a GPU that has units for it."""
        from accelerate import Accelerator  # takes seconds

        cpu = device == "cpu" or (device == "auto" and not torch.cuda.is_available())
        # Not accelerate's mixed precision: on a CPU a trial decides about it after this
        # (choose_bf16), and autocast() then applies it.
        self._accelerator = Accelerator(cpu=cpu, mixed_precision="no")
        own = self._accelerator.device
        self.device = own if device in {"auto", "cpu"} else torch.device(device)
        self.bf16 = mixed_precision == "bf16"
        if mixed_precision == "auto":
            self.bf16 = has_bf16_units(self.device)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return bool(self._accelerator.is_main_process)

    @property
    def rank(self) -> int:
        """This process's number, from 0."""
        return int(self._accelerator.process_index)

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return int(self._accelerator.num_processes)

    def shard(self, elements: Sequence[Element]) -> Sequence[Element]:
        """Return this process's share of the elements: every ``world_size``-th."""
        return elements[self.rank :: self.world_size]

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)

    def all_reduce_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace every gradient by its sum over the processes, in one message."""
        if self.world_size == 1:
            return
        weights = list(parameters)
        for tensor in weights:
            if tensor.grad is None:
                # A process without rows in a short last batch has no gradients, but must send as
                # many numbers as the others.
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

    def any(self, condition: bool) -> bool:
        """Return whether a condition is true in any process, so that all processes decide the
        same."""
        return self.all_reduce([float(condition)])[0] > 0

    def all_gather(self, elements: list[Element]) -> list[Element]:
        """Return the elements of all processes, in the order of their ranks."""
        if self.world_size == 1:
            return elements
        from accelerate.utils import gather_object

        return list(gather_object(elements))

    def barrier(self) -> None:
        """Wait until every process is here."""
        self._accelerator.wait_for_everyone()

    def close(self) -> None:
        """Leave the process group, if there is one."""
        self._accelerator.end_training()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
