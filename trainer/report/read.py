"""A run folder's records, each None where the command that makes it has not run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.errors import BadInput

Record = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """One input of the page: where it lies, and the command that makes it."""

    path: str
    command: str
    schema: str | None = None
    keys: tuple[str, ...] = ()


TRAINING = Source(
    "training.json",
    "clerk-trainer train",
    "training/2",
    ("name", "adapter", "dataset", "recipe", "epochs", "best_epoch", "steps", "seconds"),
)
STEPS = Source("steps.jsonl", "clerk-trainer train", keys=("step", "epoch", "loss"))
EVALUATION = Source(
    "evaluation/evaluation.json",
    "clerk-trainer evaluate",
    "evaluation/1",
    ("labels", "examples", "accuracy", "accuracy_interval_95", "macro_f1", "per_label",
     "confusion", "dataset", "adapter"),
)  # fmt: skip
PREDICTIONS = Source(
    "evaluation/predictions.jsonl",
    "clerk-trainer evaluate",
    keys=("id", "label", "predicted", "confidence"),
)
DUEL = Source("duel/duel.json", "clerk-trainer duel", "duel/2", ("candidates", "pairs"))
COST = Source(
    "cost.json",
    "clerk-trainer cost",
    "cost/1",
    ("currency", "inputs", "training", "labelling", "one_off", "planned", "by_volume",
     "per_thousand_messages", "hosted_per_thousand"),
)  # fmt: skip
SWEEP = Source("sweep.json", "clerk-trainer sweep", "sweep/2", ("trials",))
DATASET = Source("dataset.json", "clerk-trainer prepare")
CHECK = Source("check.json", "clerk-trainer check", "check/1", ("verdict", "findings"))


@dataclass(frozen=True, slots=True)
class Run:
    """Everything a report may show. ``openings`` counts the hold-out's openings, this report's
    included; ``texts`` maps message ids to texts and is None where they are left out."""

    directory: Path
    training: Record
    steps: tuple[Record, ...]
    evaluation: Record | None = None
    predictions: tuple[Record, ...] = ()
    duel: Record | None = None
    cost: Record | None = None
    sweep: Record | None = None
    dataset: Record | None = None
    check: Record | None = None
    openings: int | None = None
    texts: Mapping[str, str] | None = None


def read_run(directory: Path) -> Run:
    """Read a run folder. Raises BadInput without a training record, or where a file is not what
    this version writes, with the file and the command that makes it anew."""
    training = read_record(directory, TRAINING)
    if training is None:
        raise BadInput(
            f"{directory}: no {TRAINING.path}: give the run folder of {TRAINING.command}"
        )
    return Run(
        directory=directory,
        training=training,
        steps=read_lines(directory, STEPS),
        evaluation=read_record(directory, EVALUATION),
        predictions=read_lines(directory, PREDICTIONS),
        duel=read_record(directory, DUEL),
        cost=read_record(directory, COST),
        sweep=read_record(directory, SWEEP) or _read_sweep_of(directory),
    )


def _read_sweep_of(directory: Path) -> Record | None:
    """Return the sweep that this run is a trial of: its record lies beside its runs."""
    found = read_record(directory.resolve().parent, SWEEP)
    if found and any(one.get("run") == directory.resolve().name for one in found["trials"]):
        return found
    return None


def read_record(directory: Path, source: Source) -> Record | None:
    """Read one JSON object, None where there is no file. Raises BadInput."""
    path = directory / source.path
    if not path.is_file():
        return None
    record = _parse(path, path.read_bytes(), path.name, source)
    if source.schema is not None and record.get("schema") != source.schema:
        raise BadInput(
            f"{path}: its schema is {record.get('schema')!r}, not {source.schema!r}: "
            f"make it again with {source.command}"
        )
    _check_keys(record, path, source)
    return record


def read_lines(directory: Path, source: Source) -> tuple[Record, ...]:
    """Read a JSON Lines file, nothing where there is none. Raises BadInput with the line."""
    path = directory / source.path
    if not path.is_file():
        return ()
    records = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if line.strip():
            where = f"{path}:{number}"
            record = _parse(path, line, where, source)
            _check_keys(record, Path(where), source)
            records.append(record)
    return tuple(records)


def _parse(path: Path, data: bytes, where: str, source: Source) -> Record:
    try:
        record = json.loads(data)
    except ValueError as error:
        raise BadInput(
            f"{path}: {where} is not JSON ({error}): make it again with {source.command}"
        ) from error
    if not isinstance(record, dict):
        raise BadInput(f"{path}: {where} is not a JSON object: make it again with {source.command}")
    return record


def _check_keys(record: Record, path: Path, source: Source) -> None:
    missing = [key for key in source.keys if key not in record]
    if missing:
        raise BadInput(f"{path}: without {', '.join(missing)}: make it again with {source.command}")
