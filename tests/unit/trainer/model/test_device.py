"""What computes is named, also where nothing tells its name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.model import device
from trainer.model.device import (
    describe_device,
    describe_machine,
    free_memory,
    has_bf16_units,
    peak_memory,
    resolve_device,
)

CPU = torch.device("cpu")


def test_a_machine_is_described(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("model name\t: A Processor\nflags\t\t: fpu vme\n")
    monkeypatch.setattr(device, "_CPU_INFO", info)
    assert describe_device("cpu").startswith("A Processor, ")
    machine = describe_machine("cpu", threads=2, processes=1)
    assert (machine.cpu, machine.threads) == ("A Processor", 2)


def test_a_cpu_is_tried_instead() -> None:
    assert not has_bf16_units(CPU)


def test_a_gpu_that_only_emulates_bf16_is_not_fast_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA says that such a card supports it, unless it is asked without its emulation."""

    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert not has_bf16_units(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert has_bf16_units(torch.device("cuda"))


def test_a_machine_that_does_not_tell_is_still_described(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "_CPU_INFO", tmp_path / "nowhere")
    assert describe_device("cpu").endswith(" CPUs")


def test_auto_is_the_cpu_where_there_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    assert resolve_device("meta") == torch.device("meta")
    assert 0 < peak_memory(CPU) < 2**46
    assert 0 < free_memory(CPU) < 2**46
