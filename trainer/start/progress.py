"""How far ``start`` is, and about how long the rest takes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live
from rich.text import Text

from trainer.progress import describe_left, watch

_LINE_EVERY_S = 30.0

# Seconds on two cores for a start, for each message, and for each message of an epoch, with the
# default base on messages of a shop. The pace of the machine corrects them.
_SECONDS = {
    "prepare": (1.0, 0.001, 0.0),
    "check": (6.0, 0.02, 0.0),
    "train": (8.0, 0.02, 0.016),
    "evaluate": (20.0, 0.004, 0.0),  # most of it for sentences that name a label
    "duel": (6.0, 0.02, 0.0),
    "report": (1.0, 0.0003, 0.0),
    "publish": (1.0, 0.0, 0.0),
}


@dataclass
class Estimate:
    """Estimates the time left from the number of messages and epochs, and from how long the
    finished steps took."""

    messages: int
    epochs: int = 1
    _expected: float = 0.0
    _taken: float = 0.0

    def seconds(self, step: str) -> float:
        """Return how long a step is expected to take."""
        start, each, epoch = _SECONDS[step.split(maxsplit=1)[0]]
        return (start + (each + epoch * self.epochs) * self.messages) * self._pace

    def took(self, step: str, seconds: float) -> None:
        """Learn from a finished step."""
        pace, self._expected, self._taken = self._pace, self._expected, self._taken + seconds
        self._expected += self.seconds(step) / pace

    @property
    def _pace(self) -> float:
        # Five seconds at the expected pace, so that a first step of a second decides little.
        return (self._taken + 5.0) / (self._expected + 5.0)

    def left(self, step: str, elapsed: float, known: float | None, rest: Sequence[str]) -> float:
        """Return the seconds left. ``known`` is what is left of the work that the present step is
        at, by its own pace: a part of the step, so no less is left of it."""
        expected = self.seconds(step)
        whole = max(expected, 1.1 * elapsed if known is None else elapsed + known)
        # A step that takes longer than expected says that the machine is slower than expected.
        pace = max(1.0, whole / expected)
        return whole - elapsed + pace * sum(map(self.seconds, rest))


def clock(seconds: float) -> str:
    """Return a time as minutes and seconds."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@contextmanager
def ticking(console: Console, line: Callable[[], str]) -> Iterator[None]:
    """Show a line of progress until the end: one that changes each second on a terminal, else a new
    one every 30 seconds, for logs and dumb terminals."""
    is_live = console.is_terminal and not console.is_dumb_terminal
    over = threading.Event()
    live = None
    if is_live:
        live = Live(
            console=console,
            transient=True,
            auto_refresh=False,
            redirect_stdout=False,  # the step's output goes to the log
            redirect_stderr=False,
        )

    def tick() -> None:
        while not over.wait(1.0 if is_live else _LINE_EVERY_S):
            show()

    def show() -> None:
        text = Text(f"    {line()}", no_wrap=True, overflow="ellipsis")
        if live is None:
            console.print(text)
        else:
            live.update(text, refresh=True)

    ticker = threading.Thread(target=tick, name="progress", daemon=True)
    if live is not None:
        live.start()
        show()
    ticker.start()
    try:
        yield
    finally:
        over.set()
        ticker.join()
        if live is not None:
            live.stop()


@contextmanager
def step_progress(
    console: Console,
    estimate: Estimate,
    step: str,
    rest: Sequence[str],
) -> Iterator[None]:
    """Show the progress of a step, and add the time that it took to the estimate."""
    began = time.monotonic()
    with watch() as working:

        def line() -> str:
            elapsed, work = time.monotonic() - began, working()
            where = f"{work.title}: {work.done:,} of {work.total:,}" if work else ""
            left = estimate.left(step, elapsed, work.left if work else None, rest)
            return ", ".join(filter(None, (clock(elapsed), where, describe_left(left))))

        with ticking(console, line):
            yield
    estimate.took(step, time.monotonic() - began)
