"""What is minimized: the code's cross-entropy, and beside it the finer label's."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from trainer.artifacts.training import Distillation
from trainer.errors import BadInput
from trainer.model.forward import answer_logits, answer_states
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import IGNORE_INDEX, TrainingRow
from trainer.training.objective import CodeObjective
from trainer.training.teacher import Teacher

PREFIX = torch.arange(5, 25)
CODES = [40, 41, 42]


@pytest.fixture(scope="module")
def model(make_lora_model: Callable[..., LoraModel]) -> LoraModel:
    torch.manual_seed(1)
    return make_lora_model()


def some_rows(finer: tuple[str | None, ...]) -> list[TrainingRow]:
    rng = random.Random(3)
    rows = []
    for at, sublabel in enumerate(finer):
        prompt = (*PREFIX.tolist(), *(rng.randrange(3, 300) for _ in range(at + 1)))
        answer = CODES[at % 3]
        targets = (IGNORE_INDEX,) * len(prompt) + (answer,)
        rows.append(TrainingRow("x", (*prompt, answer), targets, sublabel))
    return rows


def objective(model: LoraModel, **more: object) -> CodeObjective:
    usual = {"layout": "cached", "label_smoothing": 0.0, "sublabel_weight": 0.0}
    settings: Any = usual | more
    return CodeObjective(model, PREFIX, CODES, ["a", "b"], **settings)


def logits(model: LoraModel, rows: list[TrainingRow]) -> torch.Tensor:
    prompts = [row.prompt for row in rows]
    return answer_logits(model.causal_lm, PREFIX, prompts, layout="cached")


def test_without_extras_it_is_the_cross_entropy_of_the_answers(model: LoraModel) -> None:
    """And nothing else is added."""
    rows = some_rows((None,) * 4)
    wanted = cross_entropy(logits(model, rows), torch.tensor([40, 41, 42, 40]))
    found = objective(model)(rows, 4)
    torch.testing.assert_close(found.total, wanted)
    assert found.label == pytest.approx(4 * float(wanted.detach()), rel=1e-5)
    assert found.sublabel == 0.0


def test_parts_of_a_batch_add_up_to_the_batch(model: LoraModel) -> None:
    """Micro-batches and processes change the memory, not the loss."""
    rows = some_rows(("a", "b", None, "b"))
    asked = objective(model, sublabel_weight=0.5, label_smoothing=0.1)
    whole = asked(rows, 4)
    parts = [asked(rows[:1], 4), asked(rows[1:], 4)]
    torch.testing.assert_close(whole.total, parts[0].total + parts[1].total)


def test_smoothing_spreads_over_the_label_codes_alone(model: LoraModel) -> None:
    """Answers outside the set gain nothing by it."""
    rows = some_rows((None, None))
    found = logits(model, rows)
    hard = cross_entropy(found, torch.tensor([40, 41]))
    spread = -log_softmax(found, dim=-1)[:, CODES].mean()
    wanted = 0.9 * hard + 0.1 * spread
    torch.testing.assert_close(objective(model, label_smoothing=0.1)(rows, 2).total, wanted)


def test_the_finer_label_is_learnt_from_the_same_state(model: LoraModel) -> None:
    """Rows without one count for the label alone, and the adapter gets gradients from both."""
    rows = some_rows(("a", None, "b"))
    asked = objective(model, sublabel_weight=2.0)
    assert asked.head is not None
    with torch.no_grad():
        asked.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    prompts = [row.prompt for row in rows]
    states = answer_states(model.causal_lm, PREFIX, prompts, layout="cached")
    finer = cross_entropy(asked.head(states[[0, 2]]), torch.tensor([0, 1]), reduction="sum")
    plain = objective(model)(rows, 3).total
    torch.testing.assert_close(asked(rows, 3).total, plain + 2.0 * finer / 3)


def test_a_teacher_has_its_share_of_both_targets(model: LoraModel) -> None:
    """Of the label under the whole vocabulary, and of the finer label where a row has one."""
    rows = some_rows(("a", None, "b"))
    thought = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    finer = torch.tensor([[0.6, 0.3], [0.0, 0.0], [0.2, 0.8]])
    record = Distillation(teacher="made up", agreement=1.0)
    places = {row.ids: at for at, row in enumerate(rows)}
    teacher = Teacher(0.25, places, thought, finer, record)
    asked = objective(model, sublabel_weight=2.0, label_smoothing=0.1, teacher=teacher)
    assert asked.head is not None
    with torch.no_grad():
        asked.head.weight.normal_(generator=torch.Generator().manual_seed(1))
    found = log_softmax(logits(model, rows), dim=-1)[:, CODES]
    hard = -0.9 * found.diagonal() - 0.1 * found.mean(dim=1)
    wanted = (0.75 * hard - 0.25 * (thought * found).sum(dim=1)).sum()
    prompts = [row.prompt for row in rows]
    states = answer_states(model.causal_lm, PREFIX, prompts, layout="cached")
    logs = log_softmax(asked.head(states[[0, 2]]), dim=-1)
    own, said = -logs.diagonal().sum(), -(finer[[0, 2]] * logs).sum()
    loss = asked(rows, 3)
    torch.testing.assert_close(loss.total, (wanted + 2.0 * (0.75 * own + 0.25 * said)) / 3)
    assert loss.label == pytest.approx(float(-found.diagonal().sum().detach()), rel=1e-5)
    backwards = asked(rows[::-1], 3).total
    torch.testing.assert_close(backwards, loss.total)


def test_finer_labels_that_are_not_there_are_told() -> None:
    with pytest.raises(BadInput, match="--sublabel-column"):
        CodeObjective(
            None,  # type: ignore[arg-type] # refused before it is looked at
            PREFIX,
            CODES,
            [],
            layout="cached",
            label_smoothing=0.0,
            sublabel_weight=0.5,
        )
