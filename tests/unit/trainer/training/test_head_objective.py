"""The loss of an encoder: of labels and of finer labels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax, nll_loss

from tests.support.tiny_encoder import make_tiny_encoder
from trainer.artifacts.training import Distillation
from trainer.model.encoder import EncoderModel, EncoderShape, collate_rows, load_encoder
from trainer.model.prompt import Row
from trainer.model.scoring import Class
from trainer.training.objective import HeadObjective
from trainer.training.teacher import Teacher

pytestmark = pytest.mark.slow

LABELS = ["a", "b"]
CLASSES = [Class("a1", "a", "a1"), Class("a2", "a", "a2"), Class("b", "b")]
ROWS = [
    Row("a", (1, 7, 2), sublabel="a1", place=0),
    Row("a", (1, 8, 9, 2), sublabel="a2", place=1),
    Row("b", (1, 5, 6, 7, 2), sublabel=None, place=2),
    Row("a", (1, 6, 2), sublabel=None, place=3),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> EncoderModel:
    base = make_tiny_encoder(tmp_path_factory.mktemp("base"), ["a few words of text"] * 3)
    found = load_encoder(base, EncoderShape(3, "mean", False, None), device="cpu")
    torch.manual_seed(1)
    torch.nn.init.normal_(found.classifier.head.weight)
    return found


def objective(model: EncoderModel, **more: Any) -> HeadObjective:
    settings: dict[str, Any] = {"label_smoothing": 0.0, "sublabel_weight": 0.0} | more
    return HeadObjective(model, CLASSES, LABELS, **settings)


def logits(model: EncoderModel) -> torch.Tensor:
    ids, mask = collate_rows([row.prompt for row in ROWS], model.pad_id, model.device)
    found: torch.Tensor = model.classifier(ids, mask)
    return found


def of_labels(found: torch.Tensor) -> torch.Tensor:
    logs = log_softmax(found, dim=1)
    return torch.stack([logs[:, :2].logsumexp(1), logs[:, 2]], dim=1)


def test_smoothing_spreads_either_target(model: EncoderModel) -> None:
    loss = objective(model, sublabel_weight=0.25, label_smoothing=0.2)(ROWS[:2], 2)
    found = logits(model)[:2]
    coarse = of_labels(found)
    plain = 0.8 * nll_loss(coarse, torch.tensor([0, 0]), reduction="none") - 0.2 * coarse.mean(1)
    finer = cross_entropy(found, torch.tensor([0, 1]), reduction="none", label_smoothing=0.2)
    torch.testing.assert_close(loss.total, (0.75 * plain + 0.25 * finer).sum() / 2)


def test_a_teacher_has_its_share_of_labels_and_of_finer_ones(model: EncoderModel) -> None:
    """For a row without a finer label, of its label only."""
    thought = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [1.0, 0.0]])
    finer = torch.tensor([[0.5, 0.4, 0.1], [0.1, 0.5, 0.4], [0.1, 0.1, 0.8], [0.0, 0.0, 0.0]])
    record = Distillation(teacher="made up", agreement=1.0)
    teacher = Teacher(0.5, thought, finer, record)
    loss = objective(model, sublabel_weight=0.25, teacher=teacher)(ROWS, 4)
    found = logits(model)
    coarse, logs = of_labels(found), log_softmax(found, dim=1)
    hard = nll_loss(coarse, torch.tensor([0, 0, 1, 0]), reduction="none")
    label = 0.5 * hard - 0.5 * (thought * coarse).sum(dim=1)
    own = nll_loss(logs[:3], torch.tensor([0, 1, 2]), reduction="none")
    taught = 0.5 * own - 0.5 * (finer * logs).sum(dim=1)[:3]
    wanted = 0.75 * label[:3].sum() + label[3] + 0.25 * taught.sum()
    torch.testing.assert_close(loss.total, wanted / 4)
    assert loss.label == pytest.approx(float(hard.sum().detach()))
    assert loss.sublabel == pytest.approx(float(own.sum().detach()))
    assert loss.tokens == 15


def test_a_copy_with_an_instruction_weighs_half(model: EncoderModel) -> None:
    whole = objective(model, sublabel_weight=0.5)
    rows = [ROWS[0], replace(ROWS[1], is_copy=True)]
    alone = [whole([row], 1).total for row in ROWS[:2]]
    torch.testing.assert_close(whole(rows, 2).total, (alone[0] + alone[1] / 2) / 2)


def test_parts_of_a_batch_add_up(model: EncoderModel) -> None:
    whole = objective(model, sublabel_weight=0.5)(ROWS, 4).total
    parts = [objective(model, sublabel_weight=0.5)(ROWS[at : at + 2], 4).total for at in (0, 2)]
    torch.testing.assert_close(sum(parts), whole)
