"""Send a training's figures to a tracker. A failing tracker does not stop the training."""

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

# A tracker gets settings, tags and figures by step, never a message's text.

Figures = Mapping[str, float]
"""Figures by name, such as ``train/loss``."""


class Tracker(Protocol):
    """A client of a tracking service, with one run at a time. May raise any exception."""

    def start(
        self, project: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str]
    ) -> str:
        """Begin a run and return its id or name."""

    def resume(self, run: str) -> None:
        """Continue an earlier run."""

    def log(self, rows: Sequence[tuple[int, Figures]], tags: Mapping[str, str]) -> None:
        """Add figures, each with its optimizer step, and tags."""

    def finish(self, *, failed: bool) -> None:
        """End the run."""


TrackerName = Literal["none", "mlflow", "tensorboard"]

_EVERY_S = 10.0
"""Steps are sent together, so that a slow tracker does not slow the training."""

_LONGEST = 200
# An error quotes the tracker's address, which may contain a password.
_LOGIN = re.compile(r"//[^/@\s]*@")


def open_tracking(name: TrackerName, project: str, console: Console) -> Tracking:
    """Return a session with the named tracker, without a run yet. Raises BadInput if the tracker's
    package is not installed."""
    if name == "none":
        return Tracking(None, name, project, console)
    require(name, name, f'tracking = "{name}"')
    return Tracking(_CLIENTS[name], name, project, console)


def track_evaluation(
    training: TrainingRecord | None, found: EvaluationRecord, console: Console
) -> None:
    """Send an evaluation to the tracked run of the adapter's training, if
    any. Failures, a missing package included, are printed and otherwise ignored."""
    if training is not None and training.tracking is not None:
        run = training.tracking
        tracking = Tracking(_CLIENTS[run.tracker], run.tracker, run.project, console)
        tracking.add_evaluation(run, found, training)


def _mlflow() -> Tracker:
    from trainer.tracking.mlflow_client import MlflowTracker

    return MlflowTracker()


def _tensorboard() -> Tracker:
    from trainer.tracking.tensorboard_files import TensorboardTracker

    return TensorboardTracker()


_CLIENTS: Mapping[str, Callable[[], Tracker]] = {"mlflow": _mlflow, "tensorboard": _tensorboard}


class Tracking:
    """One run's figures. After the tracker's first failure, which is printed, nothing more is sent.

    ``connect`` returns the tracker; None: nothing is tracked.
    """

    def __init__(
        self,
        connect: Callable[[], Tracker] | None,
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
        """The tracker, project and run; None if nothing is tracked."""
        if self._run is None:
            return None
        assert self._name != "none"
        return TrackedRun(tracker=self._name, project=self._project, run=self._run)

    def start(
        self, name: str, params: Mapping[str, Any], tags: Mapping[str, str], *, epochs_done: int = 0
    ) -> None:
        """Begin a run with its settings (``params``) and ``tags``. A training that continues from a
        checkpoint, after ``epochs_done`` epochs, begins a new run."""
        self._epochs = epochs_done
        title = f"{name} {rfc3339_now()}"

        def begin() -> None:
            assert self._connect is not None
            tracker = self._connect()
            self._run = tracker.start(self._project, title, params, tags)
            self._tracker = tracker

        if self._connect is not None:
            self._try(begin)

    def on_step(self, step: Step) -> None:
        """Add a step's figures, and send the collected ones every ten seconds."""
        self._step = step.step
        if self._tracker is None:
            return
        names = ("loss", "sublabel_loss", "learning_rate", "gradient_norm", "examples_per_s")
        self._rows.append((step.step, _named("train", step, names)))
        if time.monotonic() - self._sent >= _EVERY_S:
            self._send({})

    def on_epochs(self, epochs: Sequence[Epoch]) -> None:
        """Add the validation figures of new epochs."""
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
        """Send the rest, the figures of the kept weights, and the adapter's digest; end the run."""
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

        def begin() -> None:
            assert self._connect is not None
            tracker = self._connect()
            tracker.resume(run.run)
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
        """End the run as failed if it has not ended."""
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
        except Exception as error:  # noqa: BLE001 - any failure of a tracker must not stop training
            self._tracker = None
            lines = _LOGIN.sub("//", str(error)).splitlines() or [""]
            self._console.print(
                f"[yellow]note[/yellow] {self._name} failed "
                f"({escape(f'{type(error).__name__}: {lines[0][:_LONGEST]}')}); continuing without "
                "it: the figures are in the run folder",
                soft_wrap=True,
            )


def _named(prefix: str, record: object, names: Sequence[str]) -> dict[str, float]:
    """Return fields of a record as figures, without those that are None."""
    values = ((name, getattr(record, name)) for name in names)
    return {f"{prefix}/{name}": float(value) for name, value in values if value is not None}
