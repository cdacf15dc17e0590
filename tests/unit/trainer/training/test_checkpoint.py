"""A killed training resumes to the same weights, bit by bit."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from trainer.artifacts.training import Step
from trainer.check import suspects as out_of_fold
from trainer.errors import BadInput
from trainer.training import run_folder, teacher
from trainer.training.recipe import Recipe, load_recipe
from trainer.training.run_folder import (
    StepLog,
    TrainState,
    has_checkpoint,
    load_checkpoint,
    open_run,
    save_checkpoint,
)
from trainer.training.train import train
from worker.contract.digest import write_atomically

pytestmark = pytest.mark.slow

CONFIG = Path(__file__).parents[4] / "config" / "trainer-cpu.toml"
WEIGHTS = "adapter_model.safetensors"
SETTINGS = {
    "lora_rank": 4,
    "lora_alpha": 8,
    "epochs": 3,
    "early_stopping_patience": 9,
    "batch_size": 4,
    "learning_rate": 0.01,
    "prefix_block": 16,
    "mixed_precision": "no",
    "threads": 1,
    "lora_dropout": 0.1,
    "sublabel_weight": 0.5,
    "label_smoothing": 0.1,
    "checkpoint_every_s": 1e-6,
}


class Killed(Exception):
    """Stands for a kill at a step."""


def recipe(run: Path, base: Path, dataset: Path, **more: object) -> Recipe:
    return load_recipe(CONFIG, SETTINGS | {"run": run, "base": base, "dataset": dataset} | more)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, dataset_dir: Path) -> Path:
    """Return the run folder of an uninterrupted training."""
    run = tmp_path_factory.mktemp("whole") / "run"
    train(recipe(run, tiny_base, dataset_dir), Console(quiet=True))
    return run


def train_and_stop(chosen: Recipe, step: int) -> None:
    """Train until just after a step, and fail there."""

    original = StepLog.write

    def write(self: StepLog, figures: Step) -> None:
        original(self, figures)
        if figures.step == step:
            raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StepLog, "write", write)
        with pytest.raises(Killed):
            train(chosen, Console(quiet=True))


def steps(run: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run / "steps.jsonl").read_text("utf-8").splitlines()]
    return [{k: v for k, v in line.items() if k != "examples_per_s"} for line in lines]


@pytest.mark.parametrize("step", [random.Random(4).randrange(2, 44), 15, 45])
def test_resumed_weights_are_the_uninterrupted_ones(
    whole: Path, tiny_base: Path, dataset_dir: Path, tmp_path: Path, step: int
) -> None:
    """Optimizer, schedule, dropout, order, averages and patience continue: in the middle of an
    epoch, at its end, and at the end of the training."""
    run = tmp_path / "run"
    train_and_stop(recipe(run, tiny_base, dataset_dir), step)
    assert not (run / "adapter").exists()
    train(recipe(run, tiny_base, dataset_dir), Console(quiet=True), resume=True)
    found = (run / "adapter" / WEIGHTS).read_bytes()
    assert found == (whole / "adapter" / WEIGHTS).read_bytes()
    assert steps(run) == steps(whole)


def test_a_distilled_training_resumes_only_with_the_same_teacher(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With or without sentence embeddings it is another teacher, and half of the training would
    learn other targets."""
    monkeypatch.setattr(teacher, "find_embedding_model", lambda: None)
    taught = {"distillation_weight": 0.3, "epochs": 2, "steering_augmentation": 0.0}
    runs = tmp_path / "whole", tmp_path / "stopped"
    train(recipe(runs[0], tiny_base, dataset_dir, **taught), Console(quiet=True))
    stopped = recipe(runs[1], tiny_base, dataset_dir, **taught)
    train_and_stop(stopped, 9)
    ask = out_of_fold.predict_out_of_fold
    with monkeypatch.context() as patched:
        patched.setattr(
            teacher,
            "predict_out_of_fold",
            lambda *given, **more: replace(ask(*given, **more), detector="another model"),
        )
        with pytest.raises(BadInput, match=r"teacher was 'TF-IDF.*, is 'another model'"):
            train(stopped, Console(quiet=True), resume=True)
    train(stopped, Console(quiet=True), resume=True)
    found = [(run / "adapter" / WEIGHTS).read_bytes() for run in runs]
    assert found[0] == found[1]


def test_a_checkpoint_of_another_device_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that wrote it had a GPU that this one does not have."""
    kept = TrainState(best={"a": torch.ones(2)})
    with monkeypatch.context() as patched:
        patched.setattr(torch.serialization, "location_tag", lambda _: "cuda:7")
        save_checkpoint(tmp_path, {}, kept, {"rng": [torch.get_rng_state()]})
    state, state_dicts = load_checkpoint(tmp_path, {})
    assert state.best["a"].device == state_dicts["rng"][0].device == torch.device("cpu")


def test_a_checkpoint_is_refused_when_it_cannot_be_continued_from(
    tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    """If it is corrupt or of another training."""
    run = tmp_path / "run"
    train_and_stop(recipe(run, tiny_base, dataset_dir), 4)
    with pytest.raises(BadInput, match="--resume"):
        train(recipe(run, tiny_base, dataset_dir), Console(quiet=True))
    with pytest.raises(BadInput, match=r"learning_rate was 0.01, is 0.02"):
        train(
            recipe(run, tiny_base, dataset_dir, learning_rate=0.02),
            Console(quiet=True),
            resume=True,
        )
    state = next((run / "checkpoint").glob("step-*.pt"))
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.raises(BadInput, match="the checkpoint is corrupt"):
        train(recipe(run, tiny_base, dataset_dir), Console(quiet=True), resume=True)


def test_a_full_disk_leaves_the_earlier_checkpoint(
    whole: Path, tiny_base: Path, dataset_dir: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    original = write_atomically

    def full(path: Path, data: bytes) -> None:
        if path.name == "step-0000005.pt":
            raise OSError(28, "No space left on device", str(path))
        original(path, data)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run_folder, "write_atomically", full)
        with pytest.raises(OSError, match="No space"):
            train(recipe(run, tiny_base, dataset_dir), Console(quiet=True))
    assert [path.name for path in (run / "checkpoint").glob("step-*")] == ["step-0000004.pt"]
    train(recipe(run, tiny_base, dataset_dir), Console(quiet=True), resume=True)
    found = (run / "adapter" / WEIGHTS).read_bytes()
    assert found == (whole / "adapter" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("written", ["adapter", "adapter and its record"])
def test_a_resumed_training_replaces_the_adapter_of_a_kill(tmp_path: Path, written: str) -> None:
    """Removing the checkpoint is the last step of a training. A finished adapter, or one that is
    not resumed, is kept."""
    run = tmp_path / "run"
    for name in ("adapter", "checkpoint"):
        (run / name).mkdir(parents=True)
    (run / "checkpoint" / "checkpoint.json").write_text("{}")
    with pytest.raises(BadInput, match="has a finished adapter"):
        open_run(run, resume=False, replace=False)
    if "record" in written:
        (run / "training.json").write_text("{}")
    open_run(run, resume=True, replace=False)
    assert not (run / "adapter").exists()
    assert has_checkpoint(run)
    (run / "adapter").mkdir()
    (run / "checkpoint" / "checkpoint.json").unlink()
    with pytest.raises(BadInput, match="has a finished adapter"):
        open_run(run, resume=True, replace=False)
