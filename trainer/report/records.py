"""A run folder's records, each None where the command that makes it has not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.artifacts import cost, duel, evaluation, training
from trainer.artifacts.cost import CostRecord
from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord, Prediction
from trainer.artifacts.files import LinesFile, RecordFile
from trainer.artifacts.training import Step, SweepRecord, TrainingRecord
from trainer.check import finding
from trainer.check.finding import CheckRecord
from trainer.errors import BadInput


@dataclass(frozen=True, slots=True)
class Source:
    """One input of the page: where it is in its folder, and the command that makes it."""

    path: str
    command: str


def _source(file: RecordFile[Any] | LinesFile[Any], folder: str = "") -> Source:
    return Source(f"{folder}/{file.name}" if folder else file.name, file.command)


TRAINING = _source(training.TRAINING)
STEPS = _source(training.STEPS)
SWEEP = _source(training.SWEEP)
EVALUATION = _source(evaluation.EVALUATION, evaluation.EVALUATION_FOLDER)
PREDICTIONS = _source(evaluation.PREDICTIONS, evaluation.EVALUATION_FOLDER)
DUEL = _source(duel.DUEL, duel.DUEL_FOLDER)
COST = _source(cost.COST)
DATASET = Source("dataset.json", "clerk-trainer prepare")
CHECK = _source(finding.CHECK)


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report may show. ``dataset`` is the dataset's manifest, ``openings`` counts the
    hold-out's openings, this report's included; ``texts`` maps message ids to texts and is None
    where they are left out."""

    directory: Path
    training: TrainingRecord
    steps: tuple[Step, ...] = ()
    evaluation: EvaluationRecord | None = None
    predictions: tuple[Prediction, ...] = ()
    duel: DuelRecord | None = None
    cost: CostRecord | None = None
    sweep: SweepRecord | None = None
    dataset: Mapping[str, Any] | None = None
    check: CheckRecord | None = None
    openings: int | None = None
    texts: Mapping[str, str] | None = None


def read_run(directory: Path) -> Run:
    """Read a run folder. Raises BadInput without a training record, or where a file is not what
    this version writes, with the file and the command that makes it anew."""
    if not (directory / TRAINING.path).is_file():
        raise BadInput(
            f"{directory}: no {TRAINING.path}: give the run folder of {TRAINING.command}"
        )
    evaluated = directory / evaluation.EVALUATION_FOLDER
    return Run(
        directory=directory,
        training=training.TRAINING.read(directory),
        steps=training.STEPS.read_if_present(directory) or (),
        evaluation=evaluation.EVALUATION.read_if_present(evaluated),
        predictions=evaluation.PREDICTIONS.read_if_present(evaluated) or (),
        duel=duel.DUEL.read_if_present(directory / duel.DUEL_FOLDER),
        cost=cost.COST.read_if_present(directory),
        sweep=training.SWEEP.read_if_present(directory) or _read_sweep_of(directory.resolve()),
    )


def read_check(dataset: Path) -> CheckRecord | None:
    """Read what the check of a dataset folder found, None where it was not checked."""
    return finding.CHECK.read_if_present(dataset)


def _read_sweep_of(directory: Path) -> SweepRecord | None:
    """Return the sweep that this run is a trial of: its record lies beside its runs."""
    found = training.SWEEP.read_if_present(directory.parent)
    if found and any(trial.run == directory.name for trial in found.trials):
        return found
    return None
