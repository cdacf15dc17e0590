"""Trainings that need a GPU or bitsandbytes; skipped with the reason if it is missing."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from trainer.training.recipe import load_recipe
from trainer.training.train import train
from worker.contract import load_adapter

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
needs_bitsandbytes = pytest.mark.skipif(
    find_spec("bitsandbytes") is None, reason="needs the extra 'qlora' (bitsandbytes)"
)


def settings(base: Path, dataset: Path, run: Path, **more: object) -> dict[str, object]:
    return {
        "base": base,
        "dataset": dataset,
        "run": run,
        "lora_rank": 4,
        "epochs": 4,
        "batch_size": 8,
        "learning_rate": 0.01,
        "prefix_block": 16,
        **more,
    }


@pytest.fixture(scope="module")
def wide_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the tiny base with heads 16 wide, as FlexAttention's kernels require."""
    directory = tmp_path_factory.mktemp("base") / "wide"
    shutil.copytree(tiny_base, directory)
    config = LlamaConfig.from_pretrained(tiny_base, hidden_size=64, head_dim=16)
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(directory)
    return directory


def learn(given: dict[str, object]) -> list[float]:
    train(load_recipe(CONFIG, given), Console(quiet=True))
    run = Path(str(given["run"]))
    load_adapter(run / "adapter")
    record = json.loads((run / "training.json").read_text(encoding="utf-8"))
    return [epoch["train_loss"] for epoch in record["epochs"]]


@needs_gpu
@pytest.mark.parametrize(
    "more",
    [
        {"attn_implementation": "auto", "gradient_checkpointing": True},
        {"attn_implementation": "sdpa", "prompt_layout": "cached", "micro_batch_size": 4},
    ],
)
def test_it_learns_on_a_gpu(
    wide_base: Path, dataset_dir: Path, tmp_path: Path, more: dict[str, object]
) -> None:
    more = {"mixed_precision": "bf16", **more}
    losses = learn(settings(wide_base, dataset_dir, tmp_path / "run", **more))
    assert losses[-1] < 0.9 * losses[0]


@needs_bitsandbytes
def test_it_learns_on_a_base_of_four_bits(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    more = {"load_in_4bit": True, "serve_in_4bit": True, "prompt_layout": "whole"}
    losses = learn(settings(tiny_base, dataset_dir, tmp_path / "run", **more))
    assert losses[-1] < 0.9 * losses[0]


def test_gradient_checkpointing_learns_the_same(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """Micro-batches and packing do not change the result either."""
    runs = {}
    for name, more in (
        ("plain", {"gradient_checkpointing": False}),
        ("checkpointed", {"gradient_checkpointing": True}),
        ("micro", {"gradient_checkpointing": False, "micro_batch_size": 3}),
        ("packed", {"prompt_layout": "packed"}),
        ("packed, checkpointed", {"prompt_layout": "auto", "gradient_checkpointing": True}),
    ):
        given = settings(
            tiny_base,
            dataset_dir,
            tmp_path / name,
            **{
                "prompt_layout": "whole",
                "mixed_precision": "no",
                "threads": 1,
                "epochs": 2,
                **more,
            },
        )
        runs[name] = learn(given)
    assert runs["checkpointed"] == pytest.approx(runs["plain"], rel=1e-4)
    for name in ("micro", "packed", "packed, checkpointed"):
        assert runs[name] == pytest.approx(runs["plain"], rel=1e-3)
