"""Two runs side by side: their records, and their answers to the same messages where there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from trainer.artifacts.evaluation import Prediction
from trainer.dataset.folder import Dataset, open_dataset, open_holdout
from trainer.errors import BadInput
from trainer.report import numbers
from trainer.report.build import read_sound_run
from trainer.report.records import Input, Run
from trainer.statistics.clusters import as_groups
from trainer.statistics.metrics import Discordance, count_discordant


@dataclass(frozen=True, slots=True)
class Both:
    """The answers of the two runs to one message, by its id; ``label`` is the true one."""

    id: str
    label: str | None
    mine: Prediction
    theirs: Prediction


@dataclass(frozen=True, slots=True)
class TwoRuns:
    """``mine`` is the run that the page is about, ``theirs`` the one it is set against.

    ``shared`` are the answers to the same hold-out, empty where ``apart`` says why there is none to
    compare on. ``texts`` maps ids of the hold-out to texts, and is None where they are left out.
    """

    mine: Run
    theirs: Run
    names: tuple[str, str]
    shared: tuple[Both, ...]
    apart: str
    texts: Mapping[str, str] | None = None

    @property
    def found(self) -> Discordance | None:
        """On how many shared messages exactly one run is right, mine as a."""
        if not self.shared:
            return None
        return discordance(self.shared)


def discordance(answers: tuple[Both, ...]) -> Discordance:
    """Count on how many messages exactly one run is right, mine as a."""
    mine, theirs = (
        np.array([found.predicted == each.label for each, found in pairs], dtype=np.bool_)
        for pairs in (
            [(each, each.mine) for each in answers],
            [(each, each.theirs) for each in answers],
        )
    )
    return count_discordant(mine, theirs, as_groups([each.mine.group for each in answers]))


def read_two_runs(
    mine: Path, theirs: Path, *, dataset: Path | None = None, texts: bool = False
) -> TwoRuns:
    """Read two run folders. ``dataset`` is the folder of the first one's dataset, by default the
    one that its training names. With ``texts`` the hold-out is opened, once, which is counted.

    Raises BadInput and ProofFailed where either run's records cannot be used.
    """
    if mine.resolve() == theirs.resolve():
        raise BadInput(f"--against {theirs}: is the same run: name another")
    runs = [read_sound_run(folder) for folder in (mine, theirs)]
    folders = (dataset or _named(runs[0]), _named(runs[1]))
    opened = [_open(run, folder) for run, folder in zip(runs, folders, strict=True)]
    runs = [
        replace(run, dataset=found.record) if found else run
        for run, found in zip(runs, opened, strict=True)
    ]
    shared, apart = _share(runs[0], runs[1])
    shown: dict[str, str] | None = None
    if texts and shared and opened[0] is not None:
        digest = runs[0].training.adapter.digest
        holdout = open_holdout(opened[0], purpose="report", subject=digest)
        shown = {example.id: example.message for example in holdout}
    return TwoRuns(runs[0], runs[1], _names(runs[0], runs[1]), shared, apart, shown)


def _named(run: Run) -> Path | None:
    folder = Path(run.training.dataset.directory)
    return folder if (folder / Input.DATASET.path).is_file() else None


def _open(run: Run, folder: Path | None) -> Dataset | None:
    if folder is None:
        return None
    dataset = open_dataset(folder)
    wanted = run.training.dataset.digest
    if dataset.digest != wanted:
        raise BadInput(
            f"{folder}: dataset {numbers.short(dataset.digest)}, the run in {run.directory} was "
            f"trained on {numbers.short(wanted)}: give that one's folder with --dataset"
        )
    return dataset


def _share(mine: Run, theirs: Run) -> tuple[tuple[Both, ...], str]:
    """Return both runs' answers to the same hold-out, or why there is none."""
    holdouts = []
    for run in (mine, theirs):
        if run.evaluation is None or not run.predictions:
            return (), f"{run.directory} was not evaluated"
        holdouts.append(run.evaluation.dataset.holdout_sha256)
    first, second = holdouts
    if first != second:
        return (), (
            f"they were measured on different hold-outs ({numbers.short(first)} and "
            f"{numbers.short(second)})"
        )
    other = {(answer.id, answer.label): answer for answer in theirs.predictions}
    shared = tuple(
        Both(answer.id, answer.label, answer, other[answer.id, answer.label])
        for answer in mine.predictions
        if (answer.id, answer.label) in other
    )
    if len(shared) != len(mine.predictions) or len(shared) != len(theirs.predictions):
        return (), "they were measured on different parts of the hold-out"
    return shared, ""


def _names(mine: Run, theirs: Run) -> tuple[str, str]:
    """Return how the page calls the runs: by their names, or their folders', whichever differ."""
    for names in (
        (mine.training.name, theirs.training.name),
        (mine.directory.resolve().name, theirs.directory.resolve().name),
    ):
        if names[0] != names[1]:
            return names
    return str(mine.directory), str(theirs.directory)


def setting(record: Mapping[str, Any] | None, *path: str) -> Any:
    """Return a value deep in a record, None where something on the way is not there."""
    found: Any = record
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found
