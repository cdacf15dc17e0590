"""A run's folder and its checkpoint."""

from __future__ import annotations

import io
import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import torch
from torch import Tensor

from trainer.artifacts.duel import BASELINES_FOLDER, COST, DUEL_FOLDER
from trainer.artifacts.evaluation import EVALUATION_FOLDER
from trainer.artifacts.training import STEPS, TRAINING, VALIDATION_SCORES, Epoch, Step
from trainer.errors import BadInput
from trainer.model_card import CARD
from worker.contract.digest import sha256_bytes, write_atomically
from worker.contract.verify import SUFFIX

Metric = Literal["loss", "macro_f1"]

CHECKPOINT_DIRECTORY = "checkpoint"
_RECORD = "checkpoint.json"


@dataclass(slots=True)
class TrainState:
    """The progress of a training. Sums are over the current epoch: losses in nats, ``seconds``
    without validation, ``tokens`` of prompts. ``best`` are the weights of the best epoch."""

    epoch: int = 1
    batches: int = 0
    step: int = 0
    loss_sum: float = 0.0
    sublabel_sum: float = 0.0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0
    epochs: list[Epoch] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    resumed: int = 0

    def begin_epoch(self) -> None:
        """Move on to the next epoch."""
        self.epoch += 1
        self.batches = self.rows = self.tokens = 0
        self.loss_sum = self.sublabel_sum = self.seconds = 0.0


def best_epoch(epochs: Sequence[Epoch], metric: Metric) -> int:
    """Return the number of the best epoch: the lowest validation loss with the fitted temperature,
    or the highest macro-F1 (then the lower loss, then the earlier epoch)."""

    # With the temperature, as it is served: without it, a more accurate but overconfident epoch
    # loses to a less accurate one.
    def rank(epoch: Epoch) -> tuple[float, float, int]:
        macro_f1 = epoch.validation_macro_f1 if metric == "macro_f1" else 0.0
        return -macro_f1, epoch.validation_calibrated_loss, epoch.number

    return min(epochs, key=rank).number


def should_stop(epochs: Sequence[Epoch], patience: int) -> bool:
    """Whether ``patience`` epochs in a row improved neither the lowest validation loss (with the
    temperature) nor the highest macro-F1. Both, because the loss often rises while the labels still
    improve."""
    loss, f1, stale = math.inf, -math.inf, 0
    for epoch in epochs:
        better = epoch.validation_calibrated_loss < loss or epoch.validation_macro_f1 > f1
        loss, f1 = min(loss, epoch.validation_calibrated_loss), max(f1, epoch.validation_macro_f1)
        stale = 0 if better else stale + 1
    return stale >= patience


Save = Callable[[TrainState, Any], None]
"""Saves a state with the state dicts that belong to it."""


def save_checkpoint(
    run: Path, identity: Mapping[str, Any], state: TrainState, state_dicts: Any
) -> None:
    """Write a checkpoint: the state's file, then the record with its name and digest.

    ``state_dicts`` holds tensors and plain values only. The earlier checkpoint is removed when the
    new one is complete, so a full disk (OSError) leaves the earlier one.
    """
    directory = run / CHECKPOINT_DIRECTORY
    directory.mkdir(parents=True, exist_ok=True)
    # In memory first: the record needs the digest of exactly the bytes that are written.
    buffer = io.BytesIO()
    fields = {name: getattr(state, name) for name in TrainState.__slots__}
    fields["epochs"] = [epoch.to_json() for epoch in state.epochs]
    torch.save({"state": fields, "state_dicts": state_dicts}, buffer)
    data = buffer.getvalue()
    name = f"step-{state.step:07d}.pt"
    write_atomically(directory / name, data)
    # The record last: a kill between the two leaves the earlier checkpoint in force.
    record = {"file": name, "sha256": sha256_bytes(data), "identity": dict(identity)}
    write_atomically(
        directory / _RECORD, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode()
    )
    for old in directory.glob("step-*.pt"):
        if old.name != name:
            old.unlink()


def has_checkpoint(run: Path) -> bool:
    """Whether a run folder holds a checkpoint."""
    return (run / CHECKPOINT_DIRECTORY / _RECORD).exists()


def checkpoint_identity(run: Path) -> Mapping[str, Any] | None:
    """Return the identity of the training that wrote the run's checkpoint; None if there is none
    or it cannot be read."""
    try:
        record = json.loads((run / CHECKPOINT_DIRECTORY / _RECORD).read_text(encoding="utf-8"))
        identity: Mapping[str, Any] = record["identity"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return identity


def load_checkpoint(run: Path, identity: Mapping[str, Any]) -> tuple[TrainState, Any]:
    """Read a run's checkpoint. Raises BadInput if it is corrupt or of another training
    (``identity``: settings, dataset, base)."""
    directory = run / CHECKPOINT_DIRECTORY
    remedy = f"remove {directory} to train from the start"
    try:
        record = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
        name, digest, before = record["file"], record["sha256"], record["identity"]
        data = (directory / name).read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{directory}: the checkpoint is corrupt ({error}): {remedy}") from error
    if sha256_bytes(data) != digest:
        raise BadInput(f"{directory / name}: the checkpoint is corrupt (its digest): {remedy}")
    _require_same(before, identity, f"{directory}: belongs to another training", remedy)
    # To the CPU: the process that wrote it may have had another device.
    # weights_only, because unpickling arbitrary objects runs code from the file.
    saved = torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    fields = saved["state"]
    fields["epochs"] = [Epoch(**epoch) for epoch in fields["epochs"]]
    return TrainState(**fields), saved["state_dicts"]


def _require_same(
    before: Mapping[str, Any], now: Mapping[str, Any], problem: str, remedy: str
) -> None:
    """Raise BadInput that lists the settings in which two trainings differ, if any."""
    changed = sorted(key for key in {*now, *before} if now.get(key) != before.get(key))
    if changed:
        what = ", ".join(f"{k} was {before.get(k)!r}, is {now.get(k)!r}" for k in changed)
        raise BadInput(f"{problem}: {what}: restore it, or {remedy}")


def remove_checkpoint(run: Path) -> None:
    """Remove a finished run's checkpoint."""
    shutil.rmtree(run / CHECKPOINT_DIRECTORY, ignore_errors=True)


ADAPTER = "adapter"
DRAFT = ".adapter.draft"

PROBES = f"{ADAPTER}{SUFFIX}"

_OURS = frozenset(
    {ADAPTER, DRAFT, PROBES, CARD, VALIDATION_SCORES.name, STEPS.name, TRAINING.name}
    | {CHECKPOINT_DIRECTORY}
)
# Made from an adapter by later commands. --replace removes them too, or they would describe the
# adapter that was there before.
_LATER = frozenset({EVALUATION_FOLDER, DUEL_FOLDER, BASELINES_FOLDER, COST.name, "report.html"})


def open_run(run: Path, *, resume: bool, replace: bool) -> None:
    """Prepare the run folder. Raises BadInput if it has an adapter or a checkpoint and neither
    ``replace`` nor ``resume`` allows it, or if it has other files."""
    if run.exists() and not run.is_dir():
        raise BadInput(f"{run}: exists and is not a directory")
    found = {path.name for path in run.iterdir()} if run.exists() else set()
    strange = sorted(name for name in found - _OURS - _LATER if not name.startswith("."))
    if strange:
        raise BadInput(
            f"{run}: has {strange[0]!r}, which does not belong in a run folder: choose another "
            "--out"
        )
    if replace:
        for name in found & (_OURS | _LATER):
            path = run / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        found = set()
    if ADAPTER in found and resume and has_checkpoint(run):
        # Killed after writing the adapter and before removing the checkpoint, the last step: the
        # resumed training writes it again, with its record and card.
        shutil.rmtree(run / ADAPTER)
    elif ADAPTER in found:
        raise BadInput(f"{run}: has a finished adapter: choose another --out or add --replace")
    if has_checkpoint(run) and not resume:
        raise BadInput(f"{run}: has a checkpoint: add --resume to continue, or --replace")
    run.mkdir(parents=True, exist_ok=True)


class StepLog:
    """``steps.jsonl``, open during a training. A resumed training drops the lines of steps that it
    repeats."""

    def __init__(self, run: Path, *, last_step: int) -> None:
        path = run / STEPS.name
        kept = _lines_up_to(path, last_step) if last_step else []
        write_atomically(path, "".join(kept).encode("utf-8"))
        self._file: TextIO = path.open("a", encoding="utf-8")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def write(self, step: Step) -> None:
        """Append a step, its figures rounded to six digits."""
        rounded = {
            key: float(f"{value:.6g}") if isinstance(value, float) else value
            for key, value in step.to_json().items()
        }
        self._file.write(json.dumps(rounded) + "\n")
        self._file.flush()  # so that a kill loses no finished step


def _lines_up_to(path: Path, last_step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line)
        except (ValueError, KeyError):
            continue  # cut short by a kill
    return kept
