"""A failing tracker is reported once and does not stop a training."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.support.trainer_world import training_json
from trainer.artifacts.training import TRAINING, Step, TrainingRecord
from trainer.errors import BadInput
from trainer.tracking.session import Figures, Tracker, Tracking, open_tracking


class Recorder:
    """Records its calls; ``fails_at`` names the call that raises."""

    def __init__(self, fails_at: str | None = None) -> None:
        self.fails_at = fails_at
        self.calls: list[str] = []
        self.rows: list[tuple[int, Figures]] = []
        self.tags: dict[str, str] = {}

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        self._call("start")
        self.tags |= tags
        return "run-1"

    def resume(self, run: str) -> None:
        self._call("resume")

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        self._call("log")
        self.rows += rows
        self.tags |= tags

    def finish(self, *, failed: bool) -> None:
        self._call("failed" if failed else "finish")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if name == self.fails_at:
            raise ConnectionError("http://me:secret@tracker/ is down\nsecond line")


def session(tracker: Tracker) -> tuple[Tracking, io.StringIO]:
    printed = io.StringIO()
    return Tracking(lambda: tracker, "mlflow", "p", Console(file=printed, width=200)), printed


def step(number: int) -> Step:
    return Step(
        step=number,
        epoch=1,
        examples=number,
        loss=1.0,
        sublabel_loss=None,
        learning_rate=1e-3,
        gradient_norm=1.0,
        examples_per_s=1.0,
    )


def record() -> TrainingRecord:
    return TRAINING.validate(training_json(), Path("training.json"))


def run_all(tracking: Tracking) -> None:
    tracking.start("toy", {"lora_rank": 8}, {"dataset_digest": "cd"})
    for number in (1, 2, 3):
        tracking.on_step(step(number))
    tracking.on_epochs(record().epochs)
    tracking.on_epochs(record().epochs)
    tracking.finish(record())
    tracking.close()


def test_every_figure_goes_out_once_and_steps_go_together() -> None:
    tracker = Recorder()
    tracking, printed = session(tracker)
    run_all(tracking)
    assert tracker.calls == ["start", "log", "log", "finish"]
    assert [at for at, row in tracker.rows if "train/loss" in row] == [1, 2, 3]
    assert [row["validation/loss"] for _, row in tracker.rows if "validation/loss" in row] == [0.3]
    assert tracker.tags == {"dataset_digest": "cd", "adapter_digest": "ab" * 32}
    assert tracking.run is not None
    assert tracking.run.run == "run-1"
    assert printed.getvalue() == ""


@pytest.mark.parametrize("call", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_told_of_once(call: str) -> None:
    tracker = Recorder(fails_at=call)
    tracking, printed = session(tracker)
    run_all(tracking)
    assert printed.getvalue().count("\n") == 1
    assert "ConnectionError: http://tracker/ is down" in printed.getvalue()
    assert "secret" not in printed.getvalue()
    assert tracker.calls[-1] == call
    assert tracker.calls.count(call) == 1


def test_a_training_that_ends_badly_is_a_failed_run() -> None:
    tracker = Recorder()
    tracking, _ = session(tracker)
    tracking.start("toy", {}, {})
    tracking.on_step(step(1))
    tracking.on_step(step(2))
    tracking.close()
    assert tracker.calls == ["start", "log", "log", "failed"]


def test_epochs_of_before_a_checkpoint_are_not_sent_again() -> None:
    tracker = Recorder()
    tracking, _ = session(tracker)
    tracking.start("toy", {}, {}, epochs_done=1)
    tracking.on_epochs(record().epochs)
    tracking.close()
    assert tracker.rows == []


def test_a_tracker_that_is_not_installed_is_refused_before_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("trainer.errors.find_spec", lambda _: None)
    with pytest.raises(BadInput, match=r"pip install -e '\.\[mlflow\]'"):
        open_tracking("mlflow", "p", Console())
