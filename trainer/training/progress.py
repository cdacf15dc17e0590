"""Progress for people: a live bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress

_LINE_EVERY_S = 20.0


class Progress(Protocol):
    """What the training loop reports to."""

    def start(self, epoch: int, epochs: int, examples: int) -> None:
        """Begin an epoch of so many examples."""

    def advance(self, done: int, loss: float, examples_per_s: float) -> None:
        """Tell that ``done`` examples of the epoch are through, and the last batch's loss."""

    def finish(self, line: str) -> None:
        """End the epoch with a line of its figures."""


def make_progress(console: Console) -> Progress:
    """Return the live bar where the console is a terminal, else plain lines."""
    return LiveProgress(console) if console.is_terminal else PlainProgress(console)


class PlainProgress:
    """A line every 20 s, for logs."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._head = ""
        self._examples = 0
        self._last = 0.0

    def start(self, epoch: int, epochs: int, examples: int) -> None:
        """Begin an epoch of so many examples."""
        self._head = f"epoch {epoch}/{epochs}"
        self._examples = examples
        self._last = time.monotonic()

    def advance(self, done: int, loss: float, examples_per_s: float) -> None:
        """Print a line when the last one is 20 s old."""
        if time.monotonic() - self._last >= _LINE_EVERY_S:
            self._last = time.monotonic()
            self._print(
                f"{done}/{self._examples}  loss {loss:.3f}  {examples_per_s:.1f} examples/s"
            )

    def finish(self, line: str) -> None:
        """End the epoch with a line of its figures."""
        self._print(line)

    def _print(self, text: str) -> None:
        self._console.print(f"{self._head}  {text}", markup=False, highlight=False, soft_wrap=True)


class LiveProgress:
    """A bar per epoch with the loss and the speed as they are."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar: RichProgress | None = None
        self._task = TaskID(0)
        self._head = ""

    def start(self, epoch: int, epochs: int, examples: int) -> None:
        """Begin an epoch of so many examples."""
        self._head = f"epoch {epoch}/{epochs}"
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(self._head, total=examples, figures="")
        self._bar.start()

    def advance(self, done: int, loss: float, examples_per_s: float) -> None:
        """Move the bar."""
        if self._bar is not None:
            figures = f"loss {loss:.3f}  {examples_per_s:.1f} examples/s"
            self._bar.update(self._task, completed=done, figures=figures)

    def finish(self, line: str) -> None:
        """Take the bar away and leave a line of the epoch's figures."""
        if self._bar is not None:
            self._bar.stop()
        self._console.print(f"{self._head}  {line}", markup=False, highlight=False)
