"""What computes: the device, its memory, and what a figure of speed needs beside it. The only
file that imports ``psutil``."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import psutil
import torch

from trainer.artifacts.training import Machine

_CPU_INFO = Path("/proc/cpuinfo")


def resolve_device(name: str) -> torch.device:
    """Return the device of that name; "auto" is a GPU where there is one, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bfloat16 arithmetic pays: on a CPU without AMX it is slower than float32 (5.1
    against 8.6 examples/s, docs/figures.md)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    return " amx_bf16 " in _cpu_info()


def free_memory(device: torch.device) -> int:
    """Return the bytes that are free on the device (for a CPU: available to new programs)."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def peak_memory(device: torch.device) -> int:
    """Return this process's highest use so far, in bytes: on a GPU what torch held there, else
    the resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import resource  # not on every platform

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def describe_device(name: str = "auto") -> str:
    """Name what is computed on: the GPU, or the processor and how many of its cores."""
    if torch.cuda.is_available() and name != "cpu":
        return str(torch.cuda.get_device_name())
    return f"{_cpu_model()}, {len(os.sched_getaffinity(0))} CPUs"


def describe_machine(device: str, threads: int, processes: int) -> Machine:
    """Return what a training's speed depends on beside its recipe."""
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
