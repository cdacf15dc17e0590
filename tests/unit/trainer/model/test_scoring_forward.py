"""The short forward pass is the model's own forward pass, and its loss the full-logits loss."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from trainer.errors import ProofFailed
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import IGNORE_INDEX, TrainingRow
from trainer.model.scoring import answer_logits, collate, verify_forward

PREFIX = tuple(range(5, 25))


@pytest.fixture(params=["sdpa", "eager"])
def model(make_lora_model: Callable[..., LoraModel], request: pytest.FixtureRequest) -> LoraModel:
    torch.manual_seed(1)
    model = make_lora_model(attn_implementation=request.param)
    with torch.no_grad():
        for weights in model.trainable_parameters():
            weights.add_(torch.randn_like(weights) * 0.1)
    return model


def some_rows() -> list[TrainingRow]:
    rng = random.Random(3)
    rows = []
    for length in (3, 9, 1, 30):
        prompt = PREFIX + tuple(rng.randrange(3, 300) for _ in range(length))
        answer = rng.randrange(40, 50)
        rows.append(TrainingRow("x", (*prompt, answer), (IGNORE_INDEX,) * len(prompt) + (answer,)))
    return rows


def prompts(rows: list[TrainingRow]) -> list[tuple[int, ...]]:
    return [row.prompt for row in rows]


def full_logits_loss(model: LoraModel, rows: list[TrainingRow]) -> torch.Tensor:
    """The loss as a general trainer computes it: all logits, shifted targets, padding masked."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows])
    targets = torch.tensor([[*r.targets, *[IGNORE_INDEX] * (width - len(r.targets))] for r in rows])
    mask = torch.tensor([[1] * len(r.ids) + [0] * (width - len(r.ids)) for r in rows])
    logits = model.peft_model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )


@pytest.mark.parametrize("share_prefix", [True, False])
def test_loss_and_gradients_equal_those_of_the_full_logits(
    model: LoraModel, share_prefix: bool
) -> None:
    rows = some_rows()
    batch = collate(prompts(rows), len(PREFIX), model.device)
    logits = answer_logits(model.causal_lm, torch.tensor(PREFIX), batch, share_prefix=share_prefix)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([row.answer for row in rows]))
    wanted = full_logits_loss(model, rows)
    torch.testing.assert_close(loss, wanted)
    found = torch.autograd.grad(loss, model.trainable_parameters())
    expected = torch.autograd.grad(wanted, model.trainable_parameters())
    for gradient, other in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, other, rtol=1e-3, atol=1e-5)


def test_a_row_scores_the_same_alone_and_beside_longer_rows(model: LoraModel) -> None:
    rows, prefix = some_rows(), torch.tensor(PREFIX)
    together = collate(prompts(rows), len(PREFIX), model.device)
    alone = collate(prompts(rows[2:3]), len(PREFIX), model.device)
    torch.testing.assert_close(
        answer_logits(model.causal_lm, prefix, together, share_prefix=True)[2],
        answer_logits(model.causal_lm, prefix, alone, share_prefix=True)[0],
    )


def test_tokens_are_counted_as_served() -> None:
    batch = collate(prompts(some_rows()), len(PREFIX), torch.device("cpu"))
    assert batch.tokens == 4 * len(PREFIX) + 3 + 9 + 1 + 30


def test_the_proof_passes_a_llama_and_catches_a_model_that_scales_its_logits(
    model: LoraModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix = torch.tensor(PREFIX)
    batch = collate(prompts(some_rows()), len(PREFIX), model.device)
    assert verify_forward(model.causal_lm, prefix, batch, share_prefix=True) < 1e-3
    own = model.causal_lm.forward

    def scaled(*args: object, **kwargs: object) -> object:
        output = own(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    monkeypatch.setattr(model.causal_lm, "forward", scaled)
    with pytest.raises(ProofFailed, match="short forward pass"):
        verify_forward(model.causal_lm, prefix, batch, share_prefix=True)
