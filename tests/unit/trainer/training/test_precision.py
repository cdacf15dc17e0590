"""Whether a CPU computes in bfloat16 is decided by a trial."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from tests.unit.trainer.training.test_train import recipe
from trainer.training import arithmetic as precision
from trainer.training.arithmetic import is_bf16_faster
from trainer.training.train import train

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")


def test_a_trial_says_which_arithmetic_is_faster() -> None:
    """And leaves the random state unchanged."""
    slow = {False: 0.02, True: 0.0}
    before = torch.get_rng_state()

    def step() -> None:
        torch.rand(3)
        time.sleep(slow[torch.is_autocast_enabled("cpu")])

    assert is_bf16_faster(step, CPU)
    slow[True], slow[False] = 0.02, 0.0
    assert not is_bf16_faster(step, CPU)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("faster", "dtype"), [(True, "bfloat16"), (False, "float32")])
def test_an_adapter_is_trained_in_what_was_faster(
    tmp_path: Path,
    tiny_base: Path,
    dataset_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    faster: bool,
    dtype: str,
) -> None:
    """The trial leaves no gradient behind: in float32 the loss is that of a training without a
    trial."""

    def measured(step: Any, device: torch.device) -> bool:
        is_bf16_faster(step, device)
        return faster

    monkeypatch.setattr(precision, "_BUDGET_S", 0.0)
    monkeypatch.setattr(precision, "is_bf16_faster", measured)
    tried = recipe(tmp_path, tiny_base, dataset_dir, mixed_precision="auto", epochs=1)
    record = train(tried, Console(quiet=True))
    assert record.compute_dtype == dtype
    if not faster:
        plain = recipe(tmp_path / "plain", tiny_base, dataset_dir, epochs=1)
        assert train(plain, Console(quiet=True)).epochs[0].train_loss == record.epochs[0].train_loss
