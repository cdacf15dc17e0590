"""Where a model runs: device, machine, and number format."""

from __future__ import annotations

import logging
import os
import platform
from contextlib import AbstractContextManager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch

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


def describe_machine(device: str, threads: int) -> Machine:
    """Return the machine, on which a training's speed depends."""
    return Machine(
        cpu=_cpu_model(),
        cores=psutil.cpu_count(),
        threads=threads,
        device=device,
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


class Compute:
    """Where a training computes, and whether it does so in bfloat16."""

    def __init__(self, device: str, mixed_precision: str) -> None:
        """``device`` "auto" is the GPU, if there is one; ``mixed_precision`` "auto" is bfloat16 on
        a GPU that has units for it."""
        self.device = resolve_device(device)
        self.bf16 = mixed_precision == "bf16"
        if mixed_precision == "auto":
            self.bf16 = has_bf16_units(self.device)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context for forward passes."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.bf16)
