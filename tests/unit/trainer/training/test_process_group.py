"""Two processes train what one trains."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from trainer.training.recipe import load_recipe
from trainer.training.train import train

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"
SETTINGS = {
    "lora_rank": 2,
    "epochs": 2,
    "batch_size": 4,
    "learning_rate": 0.01,
    "prefix_block": 16,
    "mixed_precision": "no",
    "threads": 1,
    "adapter_dtype": "float32",
    "sublabel_weight": 0.5,
}


@pytest.mark.long  # three more processes that import PyTorch
def test_two_processes_train_what_one_trains(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """Batches are shared out, gradients added up, and one process writes."""
    alone = {"base": tiny_base, "dataset": dataset_dir, "run": tmp_path / "one"}
    train(load_recipe(CONFIG, SETTINGS | alone), Console(quiet=True))
    launch = "torch.distributed.run"
    command = [
        *(sys.executable, "-m", launch, "--nproc_per_node", "2", "-m", "trainer", "train"),
        *("--recipe", str(CONFIG), "--base", str(tiny_base), "--dataset", str(dataset_dir)),
        *("--out", str(tmp_path / "two")),
        *(part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")),
    ]
    done = subprocess.run(
        command, cwd=CONFIG.parents[1], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("learning curve") == 1
    record = json.loads((tmp_path / "two" / "training.json").read_text("utf-8"))
    assert record["machine"]["processes"] == 2
    of_one, of_two = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("one", "two")
    )
    for name, weights in of_one.items():
        torch.testing.assert_close(of_two[name], weights, rtol=1e-3, atol=1e-4)
