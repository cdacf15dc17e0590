"""The short forward pass is the model's own forward pass, and its loss the full-logits loss."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.flex_attention import flex_attention

from trainer.errors import ProofFailed
from trainer.model import forward
from trainer.model.forward import (
    Layout,
    PromptIds,
    answer_logits,
    verify_forward,
)
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import Row

pytestmark = pytest.mark.slow

PREFIX = tuple(range(5, 25))
LAYOUTS: tuple[Layout, ...] = ("packed", "cached", "whole")
CPU = torch.device("cpu")


@pytest.fixture(params=["sdpa", "eager"])
def model(make_lora_model: Callable[..., LoraModel], request: pytest.FixtureRequest) -> LoraModel:
    return learnt(make_lora_model, attn_implementation=request.param)


def learnt(make_lora_model: Callable[..., LoraModel], **choices: object) -> LoraModel:
    """Return a model whose adapter says something."""
    torch.manual_seed(1)
    model = make_lora_model(**choices)
    with torch.no_grad():
        for weights in model.trainable_parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    return model


def some_rows() -> list[Row]:
    rng = random.Random(3)
    rows = []
    for length in (3, 9, 1, 30):
        prompt = PREFIX + tuple(rng.randrange(3, 300) for _ in range(length))
        answer = rng.randrange(40, 50)
        rows.append(Row("x", prompt, answer))
    return rows


def prompts(rows: list[Row]) -> list[PromptIds]:
    return [row.prompt for row in rows]


def full_logits_loss(model: LoraModel, rows: list[Row]) -> torch.Tensor:
    """The loss as a general trainer computes it: all logits, shifted targets, padding masked."""
    sequences = [(*row.prompt, row.answer) for row in rows]
    width = max(map(len, sequences))
    ids = torch.tensor([[*each, *[0] * (width - len(each))] for each in sequences])
    mask = torch.tensor([[1] * len(each) + [0] * (width - len(each)) for each in sequences])
    targets = torch.full_like(ids, -100)
    for at, each in enumerate(sequences):
        targets[at, len(each) - 1] = ids[at, len(each) - 1]
    logits = model.peft_model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=-100
    )


def short_loss(model: LoraModel, rows: list[Row], layout: Layout) -> torch.Tensor:
    logits = answer_logits(model.causal_lm, torch.tensor(PREFIX), prompts(rows), layout=layout)
    return torch.nn.functional.cross_entropy(logits, torch.tensor([row.answer for row in rows]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_loss_and_gradients_equal_those_of_the_full_logits(
    model: LoraModel, layout: Layout
) -> None:
    rows = some_rows()
    loss, wanted = short_loss(model, rows, layout), full_logits_loss(model, rows)
    torch.testing.assert_close(loss, wanted)
    found = torch.autograd.grad(loss, model.trainable_parameters())
    expected = torch.autograd.grad(wanted, model.trainable_parameters())
    for gradient, one in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, one, rtol=1e-3, atol=1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # what torch itself imports
def test_flex_attention_gives_the_same_scores(
    make_lora_model: Callable[..., LoraModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.integrations.flex_attention import WrappedFlexAttention

    monkeypatch.setattr(WrappedFlexAttention, "__call__", lambda _: flex_attention)
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)
    model = learnt(make_lora_model, attn_implementation="flex_attention")
    plain = learnt(make_lora_model, attn_implementation="eager")
    prefix, rows = torch.tensor(PREFIX), prompts(some_rows())
    with torch.no_grad():
        found = answer_logits(model.causal_lm, prefix, rows, layout="packed")
        wanted = answer_logits(plain.causal_lm, prefix, rows, layout="whole")
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_prompts_beyond_a_sliding_window_are_not_packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask would let them see further back than the model does."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(2)
    config = MistralConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=12,
        attn_implementation="eager",
        initializer_range=0.3,
    )
    causal_lm = MistralForCausalLM(config).eval()
    prefix = torch.tensor([5, 6, 7, 8])
    ways: list[int] = []
    original = forward._packed_states

    def packed_states(*args: Any) -> torch.Tensor:
        ways.append(len(args[2]))
        return original(*args)

    monkeypatch.setattr(forward, "_packed_states", packed_states)
    short: Sequence[PromptIds] = [(5, 6, 7, 8, 9), (5, 6, 7, 8, 10, 11, 12, 13, 14, 15, 16, 17)]
    assert verify_forward(causal_lm, prefix, short, layout="packed") < 1e-3
    assert ways == [2]
    long = [*short, (5, 6, 7, 8, *range(20, 40))]
    assert verify_forward(causal_lm, prefix, long, layout="packed") < 1e-3
    assert ways == [2]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_proof_passes_a_llama_and_catches_a_model_that_scales_its_logits(
    model: LoraModel, monkeypatch: pytest.MonkeyPatch, layout: Layout
) -> None:
    prefix, rows = torch.tensor(PREFIX), prompts(some_rows())
    assert verify_forward(model.causal_lm, prefix, rows, layout=layout) < 1e-3
    own = model.causal_lm.forward

    def scaled(*args: object, **kwargs: object) -> object:
        output = own(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    monkeypatch.setattr(model.causal_lm, "forward", scaled)
    with pytest.raises(ProofFailed, match="short forward pass"):
        verify_forward(model.causal_lm, prefix, rows, layout=layout)


def test_the_proof_catches_a_model_that_does_not_heed_the_mask(
    model: LoraModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoder = model.causal_lm.get_decoder()
    own = decoder.forward

    def careless(*args: object, attention_mask: object = None, **kwargs: object) -> object:
        return own(*args, **kwargs)

    monkeypatch.setattr(decoder, "forward", careless)
    with pytest.raises(ProofFailed, match="short forward pass"):
        verify_forward(model.causal_lm, torch.tensor(PREFIX), prompts(some_rows()), layout="packed")
