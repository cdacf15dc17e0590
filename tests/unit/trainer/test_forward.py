"""The short forward pass is the model's own forward pass, and its loss the full-logits loss."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch

from trainer.errors import ProofFailed
from trainer.model.forward import answer_logits, collate, verify_forward
from trainer.model.rows import IGNORE_INDEX, Row
from trainer.model.student import LoraModel

PREFIX = tuple(range(5, 25))


@pytest.fixture(params=["sdpa", "eager"])
def student(make_student: Callable[..., LoraModel], request: pytest.FixtureRequest) -> LoraModel:
    torch.manual_seed(1)
    student = make_student(attention=request.param)
    with torch.no_grad():
        for one in student.parameters():
            one.add_(torch.randn_like(one) * 0.1)
    return student


def some_rows() -> list[Row]:
    rng = random.Random(3)
    rows = []
    for length in (3, 9, 1, 30):
        prompt = PREFIX + tuple(rng.randrange(3, 300) for _ in range(length))
        answer = rng.randrange(40, 50)
        rows.append(Row("x", (*prompt, answer), (IGNORE_INDEX,) * len(prompt) + (answer,)))
    return rows


def full_logits_loss(student: LoraModel, rows: list[Row]) -> torch.Tensor:
    """The loss as a general trainer computes it: all logits, shifted targets, padding masked."""
    width = max(len(row.ids) for row in rows)
    ids = torch.tensor([[*row.ids, *[0] * (width - len(row.ids))] for row in rows])
    targets = torch.tensor([[*r.targets, *[IGNORE_INDEX] * (width - len(r.targets))] for r in rows])
    mask = torch.tensor([[1] * len(r.ids) + [0] * (width - len(r.ids)) for r in rows])
    logits = student.peft(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return torch.nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORE_INDEX
    )


@pytest.mark.parametrize("share_prefix", [True, False])
def test_loss_and_gradients_equal_those_of_the_full_logits(
    student: LoraModel, share_prefix: bool
) -> None:
    rows = some_rows()
    batch = collate(rows, len(PREFIX), 0, student.device)
    logits = answer_logits(student.causal, torch.tensor(PREFIX), batch, share_prefix=share_prefix)
    loss = torch.nn.functional.cross_entropy(logits, batch.answers)
    wanted = full_logits_loss(student, rows)
    torch.testing.assert_close(loss, wanted)
    found = torch.autograd.grad(loss, student.parameters())
    for one, other in zip(found, torch.autograd.grad(wanted, student.parameters()), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_a_row_scores_the_same_alone_and_beside_longer_rows(student: LoraModel) -> None:
    rows, prefix = some_rows(), torch.tensor(PREFIX)
    together = collate(rows, len(PREFIX), 0, student.device)
    alone = collate(rows[2:3], len(PREFIX), 0, student.device)
    torch.testing.assert_close(
        answer_logits(student.causal, prefix, together, share_prefix=True)[2],
        answer_logits(student.causal, prefix, alone, share_prefix=True)[0],
    )


def test_tokens_are_counted_as_served() -> None:
    batch = collate(some_rows(), len(PREFIX), 0, torch.device("cpu"))
    assert batch.tokens == 4 * len(PREFIX) + 3 + 9 + 1 + 30


def test_the_proof_passes_a_llama_and_catches_a_model_that_scales_its_logits(
    student: LoraModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    prefix, batch = torch.tensor(PREFIX), collate(some_rows(), len(PREFIX), 0, student.device)
    assert verify_forward(student.causal, prefix, batch, share_prefix=True) < 1e-3
    own = student.causal.forward

    def scaled(*args: object, **kwargs: object) -> object:
        output = own(*args, **kwargs)
        output.logits = output.logits * 0.5
        return output

    monkeypatch.setattr(student.causal, "forward", scaled)
    with pytest.raises(ProofFailed, match="short forward pass"):
        verify_forward(student.causal, prefix, batch, share_prefix=True)
