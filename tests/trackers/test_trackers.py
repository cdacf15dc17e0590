"""MLflow itself, on a database in a temporary folder: what arrives there.

Run by make test-trackers, in its own environment.
"""

from __future__ import annotations

import importlib.util
import io
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.trainer_world import evaluation_json, training_json
from trainer.artifacts.evaluation import EVALUATION, EvaluationRecord
from trainer.artifacts.training import TRAINING, Step, TrainingRecord
from trainer.tracking.session import TrackerName, open_tracking, track_evaluation

RECIPE = {"name": "toy", "lora_rank": 8, "learning_rate": 1e-3, "instruction": "x" * 2000}
TAGS = {"dataset": "tickets", "dataset_digest": "cd" * 32}
ADAPTER = "ab" * 32


def need(package: str) -> None:
    """Skip if the package is missing; in CI that is a failure."""
    if importlib.util.find_spec(package) is None:
        assert not os.environ.get("CI"), f"{package} is not installed"
        pytest.skip(f"{package} is not here: make test-trackers installs it")


def steps() -> list[Step]:
    return [
        Step(
            step=number,
            epoch=1,
            examples=16 * number,
            loss=2.0 / number,
            sublabel_loss=None,
            learning_rate=1e-3,
            gradient_norm=0.5,
            examples_per_s=11.0,
        )
        for number in range(1, 6)
    ]


def training(**changes: Any) -> TrainingRecord:
    record = training_json(recipe=RECIPE)
    record["validation"] |= {"accuracy": 0.91}
    return TRAINING.validate(record | changes, Path("training.json"))


def evaluation() -> EvaluationRecord:
    record = evaluation_json(accuracy=0.88, accuracy_interval_95=[0.84, 0.91])
    return EVALUATION.validate(record, Path("evaluation.json"))


def track(name: TrackerName = "mlflow", project: str = "bank") -> tuple[TrainingRecord, str]:
    """Send a training and its evaluation; return the record and the output."""
    printed = Console(file=io.StringIO(), width=200)
    tracking = open_tracking(name, project, printed)
    tracking.start("toy", RECIPE, TAGS)
    for step in steps():
        tracking.on_step(step)
    tracking.on_epochs(training().epochs)
    assert isinstance(printed.file, io.StringIO)
    assert tracking.run is not None, printed.file.getvalue()
    record = training(tracking=tracking.run.to_json())
    tracking.finish(record)
    tracking.close()
    track_evaluation(record, evaluation(), printed)
    return record, printed.file.getvalue()


# About MLflow's own use of SQLAlchemy.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_mlflow_has_recipe_losses_figures_and_digests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one finished run of the experiment, evaluation included."""
    need("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    record, printed = track()
    assert printed == ""
    from mlflow.tracking import MlflowClient

    client = MlflowClient()
    experiment = client.get_experiment_by_name("bank")
    (run,) = client.search_runs([experiment.experiment_id])
    assert record.tracking is not None
    assert run.info.run_id == record.tracking.run
    assert run.info.status == "FINISHED"
    assert run.data.params["lora_rank"] == "8"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(metric.step, metric.value) for metric in losses] == [
        (number, 2.0 / number) for number in range(1, 6)
    ]
    assert run.data.metrics["validation/accuracy"] == 0.9
    assert run.data.metrics["kept/accuracy"] == 0.91
    assert run.data.metrics["holdout/accuracy"] == 0.88
    assert run.data.metrics["holdout/accuracy_low"] == 0.84
    tags = run.data.tags
    assert tags["adapter_digest"] == ADAPTER
    assert tags["dataset_digest"] == "cd" * 32
    assert tags["holdout_sha256"] == "ef" * 32


def test_an_unreachable_mlflow_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its address and without the login; the training continues."""
    need("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://someone:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    printed = Console(file=io.StringIO(), width=200)
    tracking = open_tracking("mlflow", "bank", printed)
    tracking.start("toy", RECIPE, TAGS)
    for step in steps():
        tracking.on_step(step)
    assert tracking.run is None
    tracking.finish(training())
    assert isinstance(printed.file, io.StringIO)
    text = printed.file.getvalue()
    assert text.count("mlflow failed") == 1
    assert "secret" not in text


def test_tensorboard_reads_the_figures(tmp_path: Path) -> None:
    """By its own reader, the evaluation's from a second file of the same run."""
    need("tensorboard")
    record, printed = track("tensorboard", str(tmp_path / "bank"))
    assert printed == ""
    assert record.tracking is not None
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (folder,) = (tmp_path / "bank").iterdir()
    assert record.tracking.run == str(folder)
    assert len(list(folder.iterdir())) == 2
    read = EventAccumulator(str(folder)).Reload()
    losses = [(each.step, each.value) for each in read.Scalars("train/loss")]
    assert losses == [(number, pytest.approx(2.0 / number)) for number in range(1, 6)]
    for name, value in (("validation/accuracy", 0.9), ("holdout/accuracy", 0.88)):
        (found,) = read.Scalars(name)
        assert found.value == pytest.approx(value)
