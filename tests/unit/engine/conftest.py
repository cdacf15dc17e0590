"""A base and an adapter of a few weights, on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tests.support.toy_adapter import toy_manifest
from worker.contract import Lora, Manifest

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "modules_to_save": None}
Q, EMBED = "model.layers.0.self_attn.q_proj", "model.embed_tokens"

MakeAdapter = Callable[..., Path]


@pytest.fixture
def manifest() -> Manifest:
    return replace(toy_manifest(), lora=Lora(2, 4.0, ("q_proj",)))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """One linear layer of 4 by 3 and tied embeddings, in bfloat16."""
    folder = tmp_path / "base"
    folder.mkdir()
    generator = torch.Generator().manual_seed(1)
    weights = {
        f"{Q}.weight": torch.randn(4, 3, generator=generator).bfloat16(),
        f"{EMBED}.weight": torch.randn(5, 3, generator=generator).bfloat16(),
        "model.norm.weight": torch.ones(3).bfloat16(),
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps({"tie_word_embeddings": True}))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_bytes(b"not wanted")
    return folder


@pytest.fixture
def make_adapter(tmp_path: Path) -> MakeAdapter:
    """Write an adapter: ``weights`` replace the default pair, keywords go into its config."""

    def make(weights: dict[str, torch.Tensor] | None = None, **config: Any) -> Path:
        folder = tmp_path / "adapter"
        folder.mkdir(exist_ok=True)
        (folder / "adapter_config.json").write_text(json.dumps(CONFIG | config))
        save_file(weights or pair(Q), folder / "adapter_model.safetensors")
        return folder

    return make


def pair(module: str, rows: int = 4, columns: int = 3) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        f"base_model.model.{module}.lora_A.weight": torch.randn(2, columns, generator=generator),
        f"base_model.model.{module}.lora_B.weight": torch.randn(rows, 2, generator=generator),
    }


@pytest.fixture
def make_pair() -> Callable[..., dict[str, torch.Tensor]]:
    return pair
