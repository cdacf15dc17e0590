"""The confidence is of the base that serves, also where the adapter learnt on one of four bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from trainer.dataset.folder import open_dataset
from trainer.model import lora_model
from trainer.model.lora_model import (
    LoraModel,
    encode_prompts,
    label_token_ids,
    load_adapter_model,
    load_lora_model,
)
from trainer.model.published import read_adapter
from trainer.model.scoring import Scorer
from trainer.training import lora_code
from trainer.training.recipe import load_recipe
from trainer.training.train import train
from worker.contract import Lora

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"


@pytest.fixture
def four_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Round every linear weight of the base to a coarse grid where four bits are asked for, as
    bitsandbytes does on a GPU."""

    def load(base: Path, *, load_in_4bit: bool = False, **choices: Any) -> LoraModel:
        model = load_lora_model(base, **choices)
        if load_in_4bit:
            for name, weights in model.peft_model.named_parameters():
                if "base_layer" in name:
                    weights.data = (weights.data * 5).round() / 5
        return model

    monkeypatch.setattr(lora_code, "load_lora_model", load)
    monkeypatch.setattr(lora_model, "load_lora_model", load)


@pytest.mark.parametrize("serve_in_4bit", [False, True])
def test_it_is_calibrated_on_the_base_that_serves(
    four_bits: None, tiny_base: Path, dataset_dir: Path, tmp_path: Path, serve_in_4bit: bool
) -> None:
    """What a run records of validation is what an evaluation of its adapter finds, which loads the
    base as the recipe says that it is served."""
    given = {
        "base": tiny_base,
        "dataset": dataset_dir,
        "run": tmp_path / "run",
        "lora_rank": 4,
        "epochs": 2,
        "learning_rate": 0.01,
        "prefix_block": 16,
        "threads": 1,
        "lora_dropout": 0.1,
        "load_in_4bit": True,
        "serve_in_4bit": serve_in_4bit,
    }
    train(load_recipe(CONFIG, given), Console(quiet=True))
    adapter = tmp_path / "run" / "adapter"
    manifest, tokenizer = read_adapter(adapter, tiny_base)
    messages = {row.id: row.message for row in open_dataset(dataset_dir).validation}
    prompts = list(encode_prompts(messages, manifest.prompt, tokenizer).values())
    labels = manifest.taxonomy.names
    codes = label_token_ids(manifest.codes, labels)
    model = load_adapter_model(adapter, tiny_base, manifest)
    found = Scorer(model, manifest.prompt.prefix_ids, codes, "cached").score(prompts).logprobs
    lines = (tmp_path / "run" / "validation_predictions.jsonl").read_text("utf-8").splitlines()
    recorded = [[json.loads(line)["logprobs"][label] for label in labels] for line in lines]
    assert np.abs(found - np.array(recorded)).max() < 1e-3
    config = json.loads((adapter / "adapter_config.json").read_text("utf-8"))
    assert config["lora_dropout"] == 0.1


def test_a_released_model_holds_no_weights(tiny_base: Path) -> None:
    """So that the base that serves has the room of the base that was trained on."""
    model = lora_model.load_as_served(tiny_base, Lora(2, 4.0, ()), device="cpu", in_4bit=False)
    assert sum(weights.numel() for weights in model.peft_model.parameters()) > 0
    model.release()
    tensors: list[torch.Tensor] = [*model.peft_model.parameters(), *model.peft_model.buffers()]
    assert sum(tensor.untyped_storage().nbytes() for tensor in tensors) == 0
