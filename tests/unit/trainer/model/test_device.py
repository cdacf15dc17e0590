"""Devices and machines are described, even without /proc/cpuinfo."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from trainer.model import device
from trainer.model.device import (
    describe_device,
    has_bf16_units,
)

CPU = torch.device("cpu")


def test_a_cpu_is_tried_instead() -> None:
    assert not has_bf16_units(CPU)


def test_a_gpu_that_only_emulates_bf16_is_not_fast_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA reports bfloat16 for such a card unless it is asked without emulation."""

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
