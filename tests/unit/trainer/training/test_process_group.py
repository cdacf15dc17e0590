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


def run_two(
    command: str, base: Path, dataset: Path, out: Path, *more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command of the trainer in two processes, as ``torchrun`` does."""
    words = [
        *(sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"),
        *("-m", "trainer", command, "--recipe", str(CONFIG), "--base", str(base)),
        *("--dataset", str(dataset), "--out", str(out)),
        *(part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")),
        *more,
    ]
    done = subprocess.run(
        words, cwd=CONFIG.parents[1], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.mark.long  # three more processes that import PyTorch
def test_two_processes_train_what_one_trains(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """One of them asks the teacher and writes."""
    alone = {"base": tiny_base, "dataset": dataset_dir, "run": tmp_path / "one"}
    taught = {"distillation_weight": 0.5}
    train(load_recipe(CONFIG, SETTINGS | alone | taught), Console(quiet=True))
    more = ("--set", "distillation_weight=0.5")
    done = run_two("train", tiny_base, dataset_dir, tmp_path / "two", *more)
    assert done.stdout.count("teacher (") == 1
    assert done.stdout.count("learning curve") == 1
    record = json.loads((tmp_path / "two" / "training.json").read_text("utf-8"))
    assert record["machine"]["processes"] == 2
    of_one, of_two = (
        load_file(tmp_path / name / "adapter" / "adapter_model.safetensors")
        for name in ("one", "two")
    )
    for name, weights in of_one.items():
        torch.testing.assert_close(of_two[name], weights, rtol=1e-3, atol=1e-4)


@pytest.mark.long  # three more processes that import PyTorch
def test_two_processes_sweep_trial_after_trial(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """One of them writes and prints."""
    grid = ("--grid", "per_label=5,10,20", "--json")
    done = run_two("sweep", tiny_base, dataset_dir, tmp_path, *grid)
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "sweep.json").read_text("utf-8"))
    assert [trial["per_label"] for trial in printed["trials"]] == [5, 10, 20]
    assert done.stderr.count("learning curve") == 3
    again = json.loads(run_two("sweep", tiny_base, dataset_dir, tmp_path, *grid).stdout)
    assert again == printed
