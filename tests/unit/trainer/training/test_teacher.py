"""An out-of-fold teacher, and its record."""

from __future__ import annotations

import io
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from tests.support.trainer_world import call
from trainer.artifacts.training import TRAINING
from trainer.check import suspects as out_of_fold
from trainer.errors import BadInput
from trainer.model.embeddings import fit_linear
from trainer.model.encoder import POOLING_FILE
from trainer.training import teacher as module
from trainer.training.inputs import Inputs, read_code_inputs, read_head_inputs
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.teacher import Teacher, ask_teacher, predict_frozen
from worker.contract import read_manifest

pytestmark = pytest.mark.slow

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


# A teacher of several frozen bases.


def of_bases(base: Path, dataset: Path, run: Path, *teachers: str) -> Recipe:
    return recipe("encoder", base, dataset, run, max_message_tokens=100, teacher_bases=teachers)


def test_each_base_has_its_share(
    tiny_encoder: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of what each says alone; folders and names of the hub's cache."""
    from huggingface_hub import constants

    other = tmp_path / "hub/models--some--other/snapshots/a1"
    shutil.copytree(tiny_encoder, other)
    (other / "1_Pooling").mkdir()
    (other / POOLING_FILE).write_text('{"pooling_mode_cls_token": true}')
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    both = of_bases(tiny_encoder, dataset_dir, tmp_path / "run", str(tiny_encoder), "other")
    inputs = read_head_inputs(both)
    found, printed = asked(both, inputs)
    assert f"teacher ({tiny_encoder.name}, other: logistic regression and 10 nearest" in printed
    assert both.to_record()["teacher_bases"] == [tiny_encoder.name, "other"]
    alone = [
        asked(both.model_copy(update={"teacher_bases": (each,)}), inputs)[0]
        for each in both.teacher_bases
    ]
    assert not torch.allclose(alone[0].labels, alone[1].labels, atol=0.01)
    torch.testing.assert_close(
        found.labels, (alone[0].labels + alone[1].labels) / 2, atol=1e-6, rtol=0
    )
    assert found.finer is not None
    assert alone[0].finer is not None
    assert found.finer.shape == (len(inputs.train), len(inputs.classes))


def test_of_random_labels_it_knows_nothing(
    tiny_encoder: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """It would, if a message or a near-copy of it were among its own neighbours."""
    chosen = of_bases(tiny_encoder, dataset_dir, tmp_path / "run", str(tiny_encoder))
    inputs = read_head_inputs(chosen)
    rng, train = random.Random(1), inputs.dataset.train
    drawn = [replace(one, label=rng.choice(inputs.labels), sublabel=None) for one in train]
    inputs = replace(inputs, dataset=replace(inputs.dataset, train=tuple(drawn)))
    found, _ = asked(chosen, inputs)
    assert found.record.agreement < 0.5  # chance is a third


def test_a_base_that_is_not_here_is_named(
    tiny_encoder: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    chosen = of_bases(tiny_encoder, dataset_dir, tmp_path / "run", "no-such-model")
    with pytest.raises(BadInput, match="no no-such-model is installed"):
        asked(chosen, read_head_inputs(chosen))
    with pytest.raises(BadInput, match="teacher_bases: set distillation_weight too"):
        recipe("encoder", tiny_encoder, dataset_dir, tmp_path, distillation_weight=0.0,
               teacher_bases=("x",))  # fmt: skip


def test_regression_and_neighbours_by_hand() -> None:
    """Two clusters of unit vectors, and a class without an example."""
    rng = np.random.default_rng(1)
    targets = np.repeat([0, 2], 20)
    known = np.eye(3)[targets] + rng.normal(0, 0.05, (40, 3))
    known = (known / np.linalg.norm(known, axis=1, keepdims=True)).astype(np.float32)
    asked_rows = np.array([[1, 0, 0], [0.7, 0, 0.714]], np.float32)
    found = predict_frozen(known, targets, asked_rows, 3)
    assert found.sum(axis=1) == pytest.approx([1, 1], abs=1e-6)
    assert found[:, 1].tolist() == [0, 0]
    assert found[0, 0] > 0.95
    cosines = asked_rows[1] @ known.T
    near = np.argsort(-cosines)[:10]
    weights = np.exp(20 * cosines[near])
    share = weights[targets[near] == 2].sum() / weights.sum()
    regression = fit_linear(known, targets.tolist(), 60.0).predict_proba(asked_rows[1:])[0, 1]
    assert found[1, 2] == pytest.approx(0.7 * regression + 0.3 * share, abs=1e-5)


@pytest.mark.parametrize("classes", [1, 2])
def test_of_few_messages_or_one_label(classes: int) -> None:
    known = np.eye(4, dtype=np.float32)
    found = predict_frozen(known, np.arange(4) % classes, known, 2)
    assert found.sum(axis=1) == pytest.approx(np.ones(4), abs=1e-6)
    assert found.argmax(axis=1).tolist() == [0, classes - 1, 0, classes - 1]
