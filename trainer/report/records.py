"""A run folder's records, each None where the command that makes it has not run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from trainer.artifacts import cost, duel, evaluation, training
from trainer.artifacts.cost import CostRecord
from trainer.artifacts.duel import DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord, Prediction
from trainer.artifacts.training import Step, SweepRecord, TrainingRecord
from trainer.check import finding
from trainer.check.finding import CheckRecord
from trainer.errors import BadInput


class Input(Enum):
    """An input of the page: where it is in its folder, and the command that makes it."""

    TRAINING = (training.TRAINING.name, training.TRAINING.command)
    STEPS = (training.STEPS.name, training.STEPS.command)
    SWEEP = (training.SWEEP.name, training.SWEEP.command)
    EVALUATION = (
        f"{evaluation.EVALUATION_FOLDER}/{evaluation.EVALUATION.name}",
        evaluation.EVALUATION.command,
    )
    PREDICTIONS = (
        f"{evaluation.EVALUATION_FOLDER}/{evaluation.PREDICTIONS.name}",
        evaluation.PREDICTIONS.command,
    )
    DUEL = (f"{duel.DUEL_FOLDER}/{duel.DUEL.name}", duel.DUEL.command)
    COST = (cost.COST.name, cost.COST.command)
    DATASET = ("dataset.json", "clerk-trainer prepare")
    CHECK = (finding.CHECK.name, finding.CHECK.command)

    def __init__(self, path: str, command: str) -> None:
        self.path = path
        self.command = command


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
    made = Input.TRAINING
    if not (directory / made.path).is_file():
        raise BadInput(f"{directory}: no {made.path}: give the run folder of {made.command}")
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
