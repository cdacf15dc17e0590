"""The estimate of an encoder's memory against the tensors that PyTorch makes, without their
memory, at the width of all-MiniLM-L6-v2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from tests.support.fake_memory import PeakMemory, on_device
from trainer.model.encoder import Classifier
from trainer.training.encoder_memory import estimate_encoder
from trainer.training.memory import OVERHEAD
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.shape import BaseShape

pytestmark = pytest.mark.slow

HIDDEN, LAYERS = 384, 6
ROWS, CLASSES = 32, 77
SHIPPED = Path(__file__).parents[4] / "config" / "trainer-encoder.toml"


def recipe(**more: object) -> Recipe:
    return load_recipe(
        SHIPPED, {"base": "b", "dataset": "d", "run": "r", "batch_size": ROWS} | more
    )


def minilm() -> Any:
    """Return a BERT of that shape."""
    from transformers import BertConfig, BertModel

    config = BertConfig(
        hidden_size=HIDDEN,
        intermediate_size=4 * HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=12,
        vocab_size=30522,
        attn_implementation="sdpa",
    )
    return BertModel(config, add_pooling_layer=False)


def peak_of_a_step(tokens: int, *, bf16: bool) -> int:
    """Return the bytes at the peak of a training step on a GPU's kernels, weights included."""
    with torch.device("meta"):
        backbone = minilm()
        head = torch.nn.Linear(HIDDEN, CLASSES)
    classifier = Classifier(backbone, head, pooling="mean", unit=False).train()
    with FakeTensorMode(allow_non_fake_inputs=True):
        on_device(classifier, "cpu")
        weights = list(classifier.parameters())
        optimizer = torch.optim.AdamW(weights, foreach=False)
        ids = torch.ones(ROWS, tokens, dtype=torch.int64)
        with PeakMemory(weights) as memory:
            for _ in range(2):
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
                    loss = classifier(ids, torch.ones_like(ids)).logsumexp(dim=1).sum()
                loss.backward()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
    return int(memory.peak)


def shape() -> BaseShape:
    with torch.device("meta"):
        model = minilm()
    config, weights = model.config, sum(each.numel() for each in model.parameters())
    return BaseShape(
        weights=weights,
        linear_weights=weights // 2,
        adapter_weights_per_rank=0,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        intermediate=config.intermediate_size,
        heads=config.num_attention_heads,
        attention=config.hidden_size,
        key_value=config.hidden_size,
        vocabulary=config.vocab_size,
    )


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("tokens", [32, 192])
def test_the_estimate_is_what_a_step_holds(tokens: int, bf16: bool) -> None:
    """Not less, so that nothing is begun that does not fit, and not half as much again."""
    parts = estimate_encoder(
        shape(), recipe(), longest_tokens=tokens, classes=CLASSES, bf16=bf16, heap=1.0
    )
    found = peak_of_a_step(tokens, bf16=bf16)
    assert 0.95 < (parts.training - OVERHEAD) / found < 1.5


def test_a_frozen_encoder_holds_no_gradients() -> None:
    linear = Recipe(
        kind="embedding-linear",
        name="n",
        base=Path("b"),
        base_name="b",
        base_revision="1",
        dataset=Path("d"),
        run=Path("r"),
    )
    parts = estimate_encoder(
        shape(), linear, longest_tokens=192, classes=CLASSES, bf16=False, heap=1.0
    )
    assert parts.activations == 0
    assert parts.adapter < 1 << 20
