"""A training's figures on their way to a tracker, which may fail without ending the training."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol, Self

from rich.console import Console
from rich.markup import escape

from trainer.artifacts.evaluation import EvaluationRecord
from trainer.artifacts.training import Epoch, Step, TrackedRun, TrainingRecord
from trainer.errors import require
from worker.contract.timestamps import rfc3339_now

# --- What a tracker takes: settings, tags and figures by step. No text of a message is among them.


Figures = Mapping[str, float]
"""Figures by their names, ``train/loss`` and the like."""


class Tracker(Protocol):
    """A client of one tracking service, and one run there at a time. What it raises is its own."""

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run and return what finds it again."""

    def resume(self, project: str, run: str, params: Mapping[str, Any]) -> None:
        """Go on with a run that was begun earlier, whose settings and tags ``params`` repeats."""

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        """Add figures, each with the optimizer step it belongs to, and tags."""

    def finish(self, *, failed: bool) -> None:
        """End the run."""


TrackerName = Literal["none", "mlflow", "trackio"]

_EVERY_S = 10.0
"""Steps go out together, so that a slow tracker costs little."""

_LONGEST = 200
_LOGIN = re.compile(r"//[^/@\s]*@")


def open_tracking(name: TrackerName, project: str, console: Console) -> Tracking:
    """Return a session with the named tracker; it begins nothing yet.

    Raises BadInput where the tracker's package is not installed: better now than after hours."""
    if name == "none":
        return Tracking(None, name, project, console)
    if name == "mlflow":
        require("mlflow", "mlflow", 'tracking = "mlflow"')
    else:
        require("trackio", "trackio", 'tracking = "trackio"')
    return Tracking(_client, name, project, console)


def track_evaluation(
    training: TrainingRecord | None, found: EvaluationRecord, console: Console
) -> None:
    """Send an evaluation of the whole hold-out to where its adapter's training is tracked, if it
    is. What fails is told and ends nothing, a package that is not installed here too."""
    if training is not None and training.tracking is not None and not found.limited:
        run = training.tracking
        tracking = Tracking(_client, run.tracker, run.project, console)
        tracking.add_evaluation(run, found, training)


def _client(name: str) -> Tracker:
    if name == "mlflow":
        from trainer.tracking.mlflow_client import MlflowTracker

        return MlflowTracker()
    from trainer.tracking.trackio_client import TrackioTracker

    return TrackioTracker()


class Tracking:
    """One run's figures. After the tracker's first failure, which is told, nothing more is sent.

    ``connect`` makes the tracker of a name when it is needed; None: nothing is tracked.
    """

    def __init__(
        self,
        connect: Callable[[str], Tracker] | None,
        name: TrackerName,
        project: str,
        console: Console,
    ) -> None:
        self._connect = connect
        self._name = name
        self._project = project
        self._console = console
        self._tracker: Tracker | None = None
        self._run: str | None = None
        self._rows: list[tuple[int, Figures]] = []
        self._epochs = 0
        self._step = 0
        self._sent = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def run(self) -> TrackedRun | None:
        """Where the run is found again, None where nothing is tracked."""
        if self._run is None:
            return None
        assert self._name != "none"
        return TrackedRun(tracker=self._name, project=self._project, run=self._run)

    def start(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], *, epochs_done: int = 0
    ) -> None:
        """Begin a run of its settings and of what it is made of. A training that goes on with a
        checkpoint after ``epochs_done`` epochs begins another."""
        self._epochs = epochs_done
        title = f"{name} {rfc3339_now()}"

        def begin() -> None:
            assert self._connect is not None
            tracker = self._connect(self._name)
            self._run = tracker.start(self._project, title, params, tags)
            self._tracker = tracker

        if self._connect is not None:
            self._try(begin)

    def on_step(self, step: Step) -> None:
        """Take a step's figures, and send what has gathered when it is time."""
        self._step = step.step
        if self._tracker is None:
            return
        names = ("loss", "sublabel_loss", "learning_rate", "gradient_norm", "examples_per_s")
        self._rows.append((step.step, _named("train", step, names)))
        if time.monotonic() - self._sent >= _EVERY_S:
            self._send({})

    def on_epochs(self, epochs: Sequence[Epoch]) -> None:
        """Take the validation figures of epochs that are new."""
        for epoch in epochs[self._epochs :]:
            found = {
                "validation/loss": epoch.validation_loss,
                "validation/calibrated_loss": epoch.validation_calibrated_loss,
                "validation/accuracy": epoch.validation_accuracy,
                "validation/macro_f1": epoch.validation_macro_f1,
                "train/epoch": float(epoch.number),
            }
            self._rows.append((self._step, found))
        self._epochs = len(epochs)

    def finish(self, record: TrainingRecord) -> None:
        """Send the rest, the figures of the kept weights and the adapter's digest; end the run."""
        names = ("accuracy", "macro_f1", "accepted_share", "accepted_precision")
        found = _named("kept", record.validation, names)
        found |= _named("kept", record.calibration, ("temperature", "nll", "ece"))
        self._rows.append((record.steps, found))
        self._send({"adapter_digest": record.adapter.digest})
        self._end(failed=False)

    def add_evaluation(
        self, run: TrackedRun, found: EvaluationRecord, training: TrainingRecord
    ) -> None:
        """Send the hold-out's figures to the run of the adapter's training."""
        dataset = training.dataset
        settings = training.recipe | {"dataset": dataset.name, "dataset_digest": dataset.digest}

        def begin() -> None:
            assert self._connect is not None
            tracker = self._connect(self._name)
            tracker.resume(run.project, run.run, settings)
            self._tracker = tracker

        self._try(begin)
        figures = _named("holdout", found, ("accuracy", "macro_f1"))
        figures |= _named("holdout", found.calibration, ("nll", "ece"))
        low, high = found.accuracy_interval_95
        figures |= {
            "holdout/accuracy_low": low,
            "holdout/accuracy_high": high,
            "holdout/review_share": found.review.share,
            "holdout/examples": float(found.examples),
            "holdout/openings": float(found.dataset.openings),
        }
        self._rows.append((training.steps, figures))
        self._send({"holdout_sha256": found.dataset.holdout_sha256})
        self._end(failed=False)

    def close(self) -> None:
        """End the run as failed where it has not ended."""
        if self._tracker is not None:
            self._send({})
            self._end(failed=True)

    def _send(self, tags: Mapping[str, str]) -> None:
        rows, self._rows = self._rows, []
        self._sent = time.monotonic()
        tracker = self._tracker
        if tracker is not None and (rows or tags):
            self._try(lambda: tracker.log(rows, tags))

    def _end(self, *, failed: bool) -> None:
        tracker = self._tracker
        if tracker is not None:
            self._try(lambda: tracker.finish(failed=failed))
        self._tracker = None

    def _try(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises, training goes on
            self._tracker = None
            lines = _LOGIN.sub("//", str(error)).splitlines() or [""]
            self._console.print(
                f"[yellow]note[/yellow] {self._name} takes no figures "
                f"({escape(f'{type(error).__name__}: {lines[0][:_LONGEST]}')}); going on without "
                "it: they are in the run folder",
                soft_wrap=True,
            )


def _named(prefix: str, record: object, names: Sequence[str]) -> dict[str, float]:
    """Return some fields of a record as figures; None is none."""
    values = ((name, getattr(record, name)) for name in names)
    return {f"{prefix}/{name}": float(value) for name, value in values if value is not None}
