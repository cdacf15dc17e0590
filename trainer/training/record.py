"""What a run folder says about its training: every step, and one record at the end.

steps.jsonl                   a line a step
validation_predictions.jsonl  raw scores of the validation set, by message id
training.json                 written last
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import psutil
from rich.console import Console
from rich.table import Table

from trainer.dataset.examples import Example
from trainer.evaluation.calibration import Floats
from trainer.training.schedule import Epoch
from worker.contract.digest import write_atomically

TRAINING = "training.json"
STEPS = "steps.jsonl"
PREDICTIONS = "validation_predictions.jsonl"

_BAR = 12  # the table fits 80 columns


class StepLog:
    """``steps.jsonl``, open for the length of a training. Going on from a checkpoint drops the
    lines of steps that will be made again."""

    def __init__(self, run: Path, *, last_step: int, enabled: bool = True) -> None:
        self._file: TextIO | None = None
        if not enabled:
            return
        path = run / STEPS
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

    def write(self, figures: Mapping[str, Any]) -> None:
        """Append a step."""
        if self._file is not None:
            rounded = {
                key: float(f"{one:.6g}") if isinstance(one, float) else one
                for key, one in figures.items()
            }
            self._file.write(json.dumps(rounded) + "\n")
            self._file.flush()


def write_predictions(
    run: Path, examples: Sequence[Example], labels: Sequence[str], logprobs: Floats
) -> None:
    """Write the raw log-probability of each label's code for every example; no text."""
    lines = (
        {"id": one.id, "label": one.label, "logprobs": dict(zip(labels, row, strict=True))}
        for one, row in zip(examples, logprobs.tolist(), strict=True)
    )
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    write_atomically(run / PREDICTIONS, text.encode("utf-8"))


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write ``training.json``."""
    text = json.dumps(record, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(run / TRAINING, text.encode("utf-8"))


def machine(device: str, threads: int, processes: int) -> dict[str, Any]:
    """Return what a figure of speed needs beside it."""
    return {
        "cpu": _cpu(),
        "cores": psutil.cpu_count(),
        "threads": threads,
        "device": device,
        "processes": processes,
        "memory_bytes": psutil.virtual_memory().total,
        "system": f"{platform.system()} {platform.machine()}",
    }


def print_curves(console: Console, epochs: Sequence[Epoch], best: int) -> None:
    """Print the epochs as a table with a bar for the validation loss."""
    table = Table(title="learning curve")
    for name in ("epoch", "training loss", "validation loss", "", "accuracy", "macro-F1"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=not name)
    top = max(one.validation_loss for one in epochs)
    for one in epochs:
        bar = "█" * max(1, round(_BAR * one.validation_loss / top)) if top else ""
        table.add_row(
            f"{one.number}{' kept' if one.number == best else ''}",
            f"{one.train_loss:.3f}",
            f"{one.validation_loss:.3f}",
            bar,
            f"{one.validation_accuracy:.1%}",
            f"{one.validation_macro_f1:.3f}",
        )
    console.print(table)


def _lines_up_to(path: Path, last_step: int) -> list[str]:
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []:
        try:
            if json.loads(line)["step"] <= last_step:
                kept.append(line)
        except (ValueError, KeyError):
            continue  # a line cut short by the kill
    return kept


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
