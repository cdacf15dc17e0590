"""The loss of codes, of finer labels, and a teacher's share of both."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax

from trainer.artifacts.training import Distillation
from trainer.model.forward import answer_logits, answer_states
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import Row
from trainer.steering.sentences import make_copies
from trainer.training.inputs import read_code_inputs
from trainer.training.objective import CodeObjective
from trainer.training.recipe import load_recipe
from trainer.training.teacher import Teacher

pytestmark = pytest.mark.slow

PREFIX = torch.arange(5, 25)
CODES = [40, 41, 42]
RECIPE = Path(__file__).parents[4] / "config/trainer-cpu.toml"


@pytest.fixture(scope="module")
def model(make_lora_model: Callable[..., LoraModel]) -> LoraModel:
    torch.manual_seed(1)
    return make_lora_model()


def some_rows(finer: tuple[str | None, ...]) -> list[Row]:
    rng = random.Random(3)
    rows = []
    for at, sublabel in enumerate(finer):
        prompt = (*PREFIX.tolist(), *(rng.randrange(3, 300) for _ in range(at + 1)))
        answer = CODES[at % 3]
        rows.append(Row("x", prompt, answer, sublabel, at))
    return rows


def objective(model: LoraModel, **more: object) -> CodeObjective:
    usual = {"layout": "cached", "label_smoothing": 0.0, "sublabel_weight": 0.0}
    settings: Any = usual | more
    return CodeObjective(model, PREFIX, CODES, ["a", "b"], **settings)


def logits(model: LoraModel, rows: list[Row]) -> torch.Tensor:
    prompts = [row.prompt for row in rows]
    return answer_logits(model.causal_lm, PREFIX, prompts, layout="cached")


def test_without_extras_it_is_the_cross_entropy_of_the_answers(model: LoraModel) -> None:
    rows = some_rows((None,) * 4)
    wanted = cross_entropy(logits(model, rows), torch.tensor([40, 41, 42, 40]))
    found = objective(model)(rows, 4)
    torch.testing.assert_close(found.total, wanted)
    assert found.label == pytest.approx(4 * float(wanted.detach()), rel=1e-5)
    assert found.sublabel == 0.0


def test_parts_of_a_batch_add_up_to_the_batch(model: LoraModel) -> None:
    """So micro-batches and processes do not change the loss."""
    rows = some_rows(("a", "b", None, "b"))
    asked = objective(model, sublabel_weight=0.5, label_smoothing=0.1)
    whole = asked(rows, 4)
    parts = [asked(rows[:1], 4), asked(rows[1:], 4)]
    torch.testing.assert_close(whole.total, parts[0].total + parts[1].total)


def test_a_teacher_has_its_share_of_both_targets(model: LoraModel) -> None:
    """Of the label under the whole vocabulary, and of the finer label where a row has one."""
    rows = some_rows(("a", None, "b"))
    thought = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
    finer = torch.tensor([[0.6, 0.3], [0.0, 0.0], [0.2, 0.8]])
    record = Distillation(teacher="made up", agreement=1.0)
    teacher = Teacher(0.25, thought, finer, record)
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


def test_each_epoch_has_its_own_copies(tiny_base: Path, dataset_dir: Path, tmp_path: Path) -> None:
    """Of other messages, with their labels; a resumed training has the same ones."""
    settings = {"base": tiny_base, "dataset": dataset_dir, "run": tmp_path / "run", "epochs": 3}
    chosen = load_recipe(RECIPE, settings)
    inputs = read_code_inputs(chosen)
    assert len(inputs.copies) == 3
    examples, taxonomy = inputs.dataset.train, inputs.dataset.taxonomy
    for epoch, copies in enumerate(inputs.copies):
        drawn = make_copies(examples, taxonomy, share=0.4, seed=f"{chosen.seed}:{epoch}")
        assert [copy.place for copy in copies] == list(drawn)
        for copy in copies:
            original = inputs.train[copy.place]
            assert copy.is_copy
            assert copy.label == original.label
            assert len(copy.prompt) > len(original.prompt)
    assert len({tuple(copy.place for copy in copies) for copies in inputs.copies}) == 3
    assert inputs.epoch(2) == (*inputs.train, *inputs.copies[1])
    assert read_code_inputs(chosen).copies == inputs.copies
