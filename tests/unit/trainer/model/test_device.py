"""Devices and machines are described, even without /proc/cpuinfo."""

from __future__ import annotations

import pytest
import torch

from trainer.model.device import (
    has_bf16_units,
)


def test_a_gpu_that_only_emulates_bf16_is_not_fast_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA reports bfloat16 for such a card unless it is asked without emulation."""

    def is_supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", is_supported)
    assert not has_bf16_units(torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    assert has_bf16_units(torch.device("cuda"))
