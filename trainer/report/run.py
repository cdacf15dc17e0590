"""What the report reads of a run folder: its records, and the gate's verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import wraps
from pathlib import Path
from typing import Any

from trainer.artifacts import duel, evaluation, training
from trainer.artifacts import evaluation as audit
from trainer.artifacts.duel import CostRecord, DuelRecord
from trainer.artifacts.evaluation import (
    EVALUATION,
    EVALUATION_FOLDER,
    AuditRecord,
    EvaluationRecord,
    Prediction,
)
from trainer.artifacts.training import Step, TrainingRecord
from trainer.check.findings import CHECK, CheckRecord
from trainer.errors import BadInput
from trainer.report.page import Content
from trainer.store.gate import judge
from trainer.store.publish import plan_publication
from trainer.store.record import read_evidence
from trainer.store.rules import GateRules, GateVerdict
from worker.contract import MANIFEST_NAME, read_manifest

ADAPTER_FOLDER = "adapter"


@dataclass(frozen=True, slots=True)
class GateChoice:
    """The gate's rules, and the store whose current adapter the run is compared with (None: no
    comparison)."""

    store: Path | None = None
    rules: GateRules = field(default_factory=GateRules)


@dataclass(frozen=True, slots=True)
class Judged:
    """The gate's verdict. Without ``store`` it is that of a first adapter. ``hint`` says how to
    make a comparison possible; ``has_current`` is whether the store has a current adapter."""

    verdict: GateVerdict
    rules: GateRules
    store: Path | None
    hint: str | None = None
    has_current: bool = False


def judge_run(directory: Path, choice: GateChoice) -> Judged | None:
    """Judge a run folder; None if it has no adapter or no evaluation.

    Raises AdapterRefused and BadInput as ``publish`` does.
    """
    adapter, evaluated = directory / ADAPTER_FOLDER, directory / EVALUATION_FOLDER
    if not (adapter / MANIFEST_NAME).is_file() or not (evaluated / EVALUATION.name).is_file():
        return None
    if choice.store is not None:
        plan = plan_publication(directory, choice.store, rules=choice.rules)
        current = plan.current is not None
        return Judged(plan.verdict, choice.rules, choice.store, plan.way_to_compare, current)
    verdict = judge(read_manifest(adapter), read_evidence(evaluated), choice.rules, None)
    return Judged(verdict, choice.rules, None)


class Input(Enum):
    """An input of the page: its path in the folder, and the command that makes it."""

    TRAINING = (training.TRAINING.name, training.TRAINING.command)
    STEPS = (training.STEPS.name, training.STEPS.command)
    EVALUATION = (
        f"{evaluation.EVALUATION_FOLDER}/{evaluation.EVALUATION.name}",
        evaluation.EVALUATION.command,
    )
    PREDICTIONS = (
        f"{evaluation.EVALUATION_FOLDER}/{evaluation.PREDICTIONS.name}",
        evaluation.PREDICTIONS.command,
    )
    AUDIT = (f"{evaluation.EVALUATION_FOLDER}/{audit.AUDIT.name}", audit.AUDIT.command)
    DUEL = (f"{duel.DUEL_FOLDER}/{duel.DUEL.name}", duel.DUEL.command)
    COST = (duel.COST.name, duel.COST.command)
    DATASET = ("dataset.json", "clerk-trainer prepare")
    CHECK = (CHECK.name, CHECK.command)

    def __init__(self, path: str, command: str) -> None:
        self.path = path
        self.command = command


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report may show.

    ``dataset`` is the dataset's manifest; ``openings`` counts the hold-out's openings, this
    report's included. ``texts`` maps message ids to texts; None if the page shows no texts.
    ``copies`` is how often repeated held-out messages occurred; None if that was not counted.
    """

    directory: Path
    training: TrainingRecord
    steps: tuple[Step, ...] = ()
    evaluation: EvaluationRecord | None = None
    predictions: tuple[Prediction, ...] = ()
    audit: AuditRecord | None = None
    duel: DuelRecord | None = None
    cost: CostRecord | None = None
    dataset: Mapping[str, Any] | None = None
    check: CheckRecord | None = None
    openings: int | None = None
    gate: Judged | None = None
    texts: Mapping[str, str] | None = None
    copies: Mapping[str, int] | None = None

    @property
    def mistakes(self) -> Sequence[Prediction]:
        """The wrong answers, the most confident first."""
        wrong = (each for each in self.predictions if each.label != each.predicted)
        return sorted(wrong, key=lambda each: (-each.confidence, each.id))


def read_run(directory: Path) -> Run:
    """Read a run folder. Raises BadInput, naming the file and the command that makes it, if there
    is not a training record or a file has another schema."""
    made = Input.TRAINING
    if not (directory / made.path).is_file():
        raise BadInput(
            f"{directory}: no {made.path}: give the run folder of {made.command}, "
            "or a dataset folder of clerk-trainer prepare"
        )
    evaluated = directory / evaluation.EVALUATION_FOLDER
    return Run(
        directory=directory,
        training=training.TRAINING.read(directory),
        steps=training.STEPS.read_if_present(directory) or (),
        evaluation=evaluation.EVALUATION.read_if_present(evaluated),
        predictions=evaluation.PREDICTIONS.read_if_present(evaluated) or (),
        audit=audit.AUDIT.read_if_present(evaluated),
        duel=duel.DUEL.read_if_present(directory / duel.DUEL_FOLDER),
        cost=duel.COST.read_if_present(directory),
    )


def lacks(source: Input, folder: str = "the run folder") -> str:
    """Return why a section is empty whose record does not exist yet."""
    return f"There is no {source.path} in {folder} yet; {source.command} makes it."


def of_evaluation(make: Callable[[EvaluationRecord], Content]) -> Callable[[Run], Content]:
    """Return the maker of a section that shows an evaluation alone."""

    @wraps(make)
    def of_run(run: Run) -> Content:
        return lacks(Input.EVALUATION) if run.evaluation is None else make(run.evaluation)

    return of_run
