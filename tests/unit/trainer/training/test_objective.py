"""The loss of codes, of finer labels, and a teacher's share of both."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch.nn.functional import cross_entropy, log_softmax

from tests.support.trainer_world import call
from trainer.artifacts.training import TRAINING, Distillation
from trainer.check import suspects as out_of_fold
from trainer.errors import BadInput
from trainer.model.forward import answer_logits, answer_states
from trainer.model.lora_model import LoraModel
from trainer.model.prompt import Row
from trainer.steering.sentences import make_copies
from trainer.training import objective as module
from trainer.training.inputs import Inputs, read_code_inputs, read_head_inputs
from trainer.training.objective import CodeObjective, Teacher, ask_teacher
from trainer.training.recipe import Recipe, load_recipe
from worker.contract import read_manifest

pytestmark = pytest.mark.slow

PREFIX = torch.arange(5, 25)
CODES = [40, 41, 42]


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
    chosen = recipe("cpu", tiny_base, dataset_dir, tmp_path / "run", epochs=3)
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


# Distillation: an out-of-fold teacher, and its record.


CONFIG = Path(__file__).parents[4] / "config"


@pytest.fixture(autouse=True)
def without_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Word counts are good enough here, and a hundred times faster."""
    monkeypatch.setattr(module, "find_embedding_model", lambda: None)


def recipe(kind: str, base: Path, dataset: Path, run: Path, **more: Any) -> Recipe:
    settings = {"base": base, "dataset": dataset, "run": run, "distillation_weight": 0.5}
    return load_recipe(CONFIG / f"trainer-{kind}.toml", settings | more)


def asked(chosen: Recipe, inputs: Inputs) -> tuple[Teacher, str]:
    console = Console(file=io.StringIO(), width=200)
    found = ask_teacher(chosen, inputs, torch.device("cpu"), console)
    assert found is not None
    assert isinstance(console.file, io.StringIO)
    return found, console.file.getvalue()


def test_the_teacher_predicts_each_message_out_of_fold(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """Probabilities of labels and finer labels, in the rows' order, and not just zeros and ones."""
    chosen = recipe("cpu", tiny_base, dataset_dir, tmp_path / "run", sublabel_weight=0.5)
    inputs = read_code_inputs(chosen)
    found, printed = asked(chosen, inputs)
    count = len(inputs.train)
    assert found.finer is not None
    assert found.labels.shape == (count, len(inputs.labels))
    assert found.finer.shape == (count, len(inputs.sublabels))
    for thought in (found.labels, found.finer):
        torch.testing.assert_close(thought.sum(dim=1), torch.ones(count))
        assert 0.0 < float(thought.max()) < 0.9999
    own = torch.tensor([inputs.labels.index(row.label) for row in inputs.train])
    agreement = float((found.labels.argmax(dim=1) == own).float().mean())
    assert found.record.agreement == pytest.approx(agreement)
    assert agreement > 0.6  # of three labels
    of_finer = [name.partition(".")[0] for name in inputs.sublabels]
    summed = torch.stack(
        [found.finer[:, [of == name for of in of_finer]].sum(dim=1) for name in inputs.labels], 1
    )
    torch.testing.assert_close(summed, found.labels, atol=1e-4, rtol=1e-4)
    assert f"{agreement:.1%}" in printed


def test_finer_labels_that_the_teacher_groups_get_no_probability(
    tiny_encoder: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher groups finer labels with fewer than five messages; a head has an output for
    each, which then learns only from the rows' own labels."""
    chosen = recipe("encoder", tiny_encoder, dataset_dir, tmp_path / "run", max_message_tokens=100)
    inputs = read_head_inputs(chosen)
    names = [each.sublabel for each in inputs.classes]
    count = len(inputs.train)
    label = inputs.classes[0].label

    def thinks(*_: Any, **__: Any) -> out_of_fold.OutOfFold:
        classes = ((label, None), *((each.label, each.sublabel) for each in inputs.classes[1:]))
        finer = np.tile(np.array([0.25, 0.35, *([0.1] * (len(classes) - 2))]), (count, 1))
        return out_of_fold.OutOfFold(
            inputs.labels, np.zeros(count, np.int64), np.full((count, 3), 1 / 3),
            np.ones((count, 1), np.float32), np.ones(count, bool), "made up",
            classes=classes, finer=finer,
        )  # fmt: skip

    monkeypatch.setattr(module, "predict_out_of_fold", thinks)
    found, _ = asked(chosen, inputs)
    assert found.finer is not None
    assert len(names) == 6
    torch.testing.assert_close(found.finer[0, :3], torch.tensor([0.0, 0.35, 0.1]))


def test_too_few_messages_for_a_teacher(tiny_base: Path, dataset_dir: Path, tmp_path: Path) -> None:
    chosen = recipe("cpu", tiny_base, dataset_dir, tmp_path / "run", per_label=10)
    with pytest.raises(BadInput, match="needs 50 training examples, and there are 30: set dist"):
        asked(chosen, read_code_inputs(chosen))


@pytest.mark.parametrize("kind", ["cpu", "encoder"])
def test_a_training_records_its_teacher(
    kind: str, tiny_base: Path, tiny_encoder: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """In training.json, in the manifest and on the card."""
    base = tiny_base if kind == "cpu" else tiny_encoder
    run = tmp_path / "run"
    code, out, error = call(
        *("train", "--recipe", CONFIG / f"trainer-{kind}.toml", "--dataset", dataset_dir),
        *("--base", base, "--out", run, "--set", "epochs=1", "--set", "max_message_tokens=100"),
        *("--set", "distillation_weight=0.5", "--set", "mixed_precision=no", "--json"),
    )
    assert code == 0, error
    assert "teacher (TF-IDF" in error
    record = TRAINING.read(run).distillation
    assert record is not None
    data = read_manifest(run / "adapter").data
    assert data["distillation"] == record.to_json() == out["distillation"]
    assert "Distilled: 0.5 of the target" in (run / "README.md").read_text(encoding="utf-8")
