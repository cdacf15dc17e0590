"""The run folder: what may be written over, and the steps that are written as they are made.

steps.jsonl                   a line a step
validation_predictions.jsonl  raw scores of the validation set, by message id
training.json                 written last
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from trainer.artifacts.cost import COST
from trainer.artifacts.duel import DUEL_FOLDER
from trainer.artifacts.evaluation import EVALUATION_FOLDER
from trainer.artifacts.training import STEPS, SWEEP, TRAINING, VALIDATION_SCORES, Step
from trainer.errors import BadInput
from trainer.training import checkpoint
from worker.contract.digest import write_atomically

ADAPTER = "adapter"
DRAFT = ".adapter.draft"

_OURS = frozenset(
    {ADAPTER, DRAFT, VALIDATION_SCORES.name, STEPS.name, TRAINING.name, checkpoint.DIRECTORY}
)
_LATER = frozenset({EVALUATION_FOLDER, DUEL_FOLDER, COST.name, "report.html", SWEEP.name})


def open_run(run: Path, *, resume: bool, replace: bool) -> None:
    """Make the folder ready. Raises BadInput when it holds an adapter or a checkpoint that
    nobody asked to replace or to continue from, or anything that does not belong in a run."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"{run}: exists and is not a directory")
    found = {path.name for path in run.iterdir()} if run.exists() else set()
    strange = sorted(name for name in found - _OURS - _LATER if not name.startswith("."))
    if strange:
        raise BadInput(
            f"{run}: holds {strange[0]!r}, which does not belong in a run folder: choose another "
            "--out"
        )
    if replace:
        for name in found & (_OURS | _LATER):
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        found = set()
    if ADAPTER in found:
        raise BadInput(f"{run}: holds a finished adapter; choose another --out or add --replace")
    if checkpoint.exists(run) and not resume:
        raise BadInput(f"{run}: holds a checkpoint; add --resume to continue, or --replace")
    run.mkdir(parents=True, exist_ok=True)


class StepLog:
    """``steps.jsonl``, open for the length of a training. Continuing from a checkpoint drops the
    lines of steps that will be made again."""

    def __init__(self, run: Path, *, last_step: int, enabled: bool = True) -> None:
        self._file: TextIO | None = None
        if not enabled:
            return
        path = run / STEPS.name
        kept = _lines_up_to(path, last_step) if last_step else []
        write_atomically(path, "".join(kept).encode("utf-8"))
        self._file = path.open("a", encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, step: Step) -> None:
        """Append a step, its figures rounded to six digits."""
        if self._file is not None:
            rounded = {
                key: float(f"{value:.6g}") if isinstance(value, float) else value
                for key, value in step.to_json().items()
            }
            self._file.write(json.dumps(rounded) + "\n")
            self._file.flush()


def _lines_up_to(path: Path, last_step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line)
        except (ValueError, KeyError):
            continue  # a line cut short by the kill
    return kept
