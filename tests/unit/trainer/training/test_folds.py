"""Thresholds by folds: all messages of a small dataset are learnt, and none is judged by a model
that learnt it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from tests.unit.trainer.training.test_encoder import linear_recipe
from trainer.artifacts.training import TRAINING, VALIDATION_SCORES
from trainer.dataset.folder import Dataset, Example, open_dataset, write_dataset
from trainer.evaluation.evaluate import EvaluationRequest, evaluate_adapter, read_held_out
from trainer.statistics.thresholds import FEWEST_VALIDATION
from trainer.store.gate import judge_promise
from trainer.training.inputs import learns_by_folds, read_head_inputs
from trainer.training.train import train
from worker.contract import load_adapter

QUIET = Console(quiet=True)
ROWS = 72


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, dataset_dir: Path) -> Path:
    """Return the run folder of a training on 60 training and 12 validation messages."""
    run = tmp_path_factory.mktemp("folds") / "run"
    recipe = linear_recipe(run, tiny_encoder, dataset_dir, review_precision=0.5, onnx=("fp32",))
    train(recipe, QUIET)
    return run


@pytest.mark.slow
def test_every_message_that_is_not_held_out_is_learnt_and_predicted(run: Path) -> None:
    manifest, record = load_adapter(run / "adapter"), TRAINING.read(run)
    assert manifest.calibration.examples == record.validation.examples == ROWS
    assert manifest.metrics["validation"]["folds"] == record.validation.folds == 10
    assert len(VALIDATION_SCORES.read(run)) == ROWS


@pytest.mark.slow
def test_no_message_is_judged_by_a_model_that_learnt_it(
    tmp_path: Path, tiny_encoder: Path, dataset_dir: Path
) -> None:
    """Labels are drawn at random: a model that learnt them has them right, others by chance."""
    dataset = open_dataset(dataset_dir)
    rng = np.random.default_rng(4)

    def shuffled(examples: tuple[Example, ...]) -> list[Example]:
        order = rng.permutation(len(examples))
        return [
            replace(example, label=examples[at].label, sublabel=None)
            for example, at in zip(examples, order, strict=True)
        ]

    splits = {"train": shuffled(dataset.train), "validation": shuffled(dataset.validation)}
    held = list(dataset.train[:3])
    write_dataset(
        tmp_path / "data",
        name="chance",
        taxonomy=dataset.taxonomy,
        splits={**splits, "holdout": held},
    )
    recipe = linear_recipe(tmp_path / "run", tiny_encoder, tmp_path / "data", onnx=())
    record = train(recipe, QUIET)
    assert record.validation.accuracy < 0.55  # of three labels
    assert record.epochs[0].validation_accuracy == record.validation.accuracy
    assert record.validation.accepted_share == 0.0
    assert record.epochs[0].train_loss < record.calibration.nll


@pytest.mark.slow
def test_near_copies_are_in_one_fold(tmp_path: Path, tiny_encoder: Path, dataset_dir: Path) -> None:
    dataset = open_dataset(dataset_dir)
    copies = [
        replace(each, id=f"{each.id}-{at}", message=f"{each.message} {'!' * at}")
        for each in dataset.train[:20]
        for at in range(3)
    ]
    splits = {"train": [*copies, *dataset.train[20:]], "validation": list(dataset.validation),
              "holdout": []}  # fmt: skip
    write_dataset(tmp_path / "data", name="copies", taxonomy=dataset.taxonomy, splits=splits)
    inputs = read_head_inputs(linear_recipe(tmp_path / "run", tiny_encoder, tmp_path / "data"))
    assert inputs.folds is not None
    folds = inputs.folds[:60].reshape(20, 3)
    assert (folds == folds[:, :1]).all()
    assert len(np.unique(inputs.folds)) == 10


@pytest.mark.slow
def test_an_evaluation_tests_the_promise_on_the_predictions_by_folds(
    run: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """The adapter's own answers to messages that it learnt would prove anything."""
    manifest = load_adapter(run / "adapter")
    found = read_held_out(run / "adapter", manifest)
    assert found is not None
    assert {each.id for each in found} == {each.id for each in VALIDATION_SCORES.read(run)}
    share = sum(not each.review for each in found) / ROWS
    assert share == pytest.approx(TRAINING.read(run).validation.accepted_share)
    request = EvaluationRequest(run / "adapter", dataset_dir, None, tmp_path / "evaluation")
    record = evaluate_adapter(request, QUIET)
    assert record.promise is not None
    assert record.promise.validation.messages == sum(not each.review for each in found)
    assert judge_promise(record).passed


@pytest.mark.slow
def test_without_its_run_folder_nothing_proves_the_promise(
    run: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    shutil.copytree(run / "adapter", tmp_path / "adapter")
    assert read_held_out(tmp_path / "adapter", load_adapter(tmp_path / "adapter")) == []
    request = EvaluationRequest(tmp_path / "adapter", dataset_dir, None, tmp_path / "evaluation")
    record = evaluate_adapter(request, QUIET)
    row = judge_promise(record)
    assert not row.passed
    assert "its run folder has the predictions" in row.found


def _dataset(validation: int, split: str | None) -> Dataset:
    examples = tuple(Example(str(at), "a", "b") for at in range(validation))
    record: dict[str, Any] = {"split": {"by": split}} if split else {}
    taxonomy: Any = None
    return Dataset(Path(), "", "", taxonomy, (), examples, record)


@pytest.mark.parametrize(
    ("kind", "validation", "split", "by_folds"),
    [
        ("embedding-linear", FEWEST_VALIDATION - 1, None, True),
        ("embedding-linear", FEWEST_VALIDATION - 1, "group", True),
        ("embedding-linear", FEWEST_VALIDATION, None, False),
        ("embedding-linear", 12, "time", False),
        ("encoder", 12, None, False),
    ],
)
def test_folds_are_for_small_data_and_models_that_train_in_seconds(
    kind: str, validation: int, split: str | None, by_folds: bool
) -> None:
    recipe = linear_recipe(Path("run"), Path("base"), Path("data"))
    recipe = recipe.model_copy(update={"kind": kind})
    assert learns_by_folds(recipe, _dataset(validation, split)) == by_folds
