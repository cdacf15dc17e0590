"""The run folder before and after: what may be written over, and what may not."""

from __future__ import annotations

import shutil
from pathlib import Path

from trainer.errors import BadInput
from trainer.training import checkpoint
from trainer.training.record import PREDICTIONS, STEPS, TRAINING

ADAPTER = "adapter"
DRAFT = ".adapter.draft"

_OURS = frozenset({ADAPTER, DRAFT, PREDICTIONS, STEPS, TRAINING, checkpoint.DIRECTORY})
_LATER = frozenset({"evaluation", "duel", "cost.json", "report.html", "sweep.json"})


def open_run(run: Path, *, resume: bool, replace: bool) -> None:
    """Make the folder ready. Raises BadInput when it holds an adapter or a checkpoint that
    nobody asked to replace or to go on from, or anything that is not a run's."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"{run}: exists and is no directory")
    found = {one.name for one in run.iterdir()} if run.exists() else set()
    strange = sorted(one for one in found - _OURS - _LATER if not one.startswith("."))
    if strange:
        raise BadInput(f"{run}: holds {strange[0]!r}, which is no run's: choose another --out")
    if replace:
        for name in found & (_OURS | _LATER):
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        found = set()
    if ADAPTER in found:
        raise BadInput(f"{run}: holds a finished adapter; choose another --out or add --replace")
    if checkpoint.exists(run) and not resume:
        raise BadInput(f"{run}: holds a checkpoint; add --resume to go on, or --replace")
    run.mkdir(parents=True, exist_ok=True)
