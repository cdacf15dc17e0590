"""How far a long piece of work is: a bar on a terminal, and a line every 20 s in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

_Item = TypeVar("_Item")

_LINE_EVERY_S = 20.0
_DRAWN_EVERY_S = 0.1
_LEAST_S = 1.0  # before that the pace says nothing


@dataclass(slots=True)
class Work:
    """Work of ``total`` items. ``first`` were done before it began; ``figures`` is what else to
    show."""

    title: str
    total: int
    first: int = 0
    done: int = 0
    figures: str = ""
    began: float = field(default_factory=time.monotonic)

    @property
    def rate(self) -> float | None:
        """Items per second; None until it is known."""
        elapsed = time.monotonic() - self.began
        return (self.done - self.first) / elapsed if elapsed >= _LEAST_S else None

    @property
    def left(self) -> float | None:
        """Seconds left at this rate; None until that is known, and at the end."""
        return (
            (self.total - self.done) / self.rate if self.rate and self.done < self.total else None
        )

    def __str__(self) -> str:
        parts = [f"{self.title}: {self.done:,} of {self.total:,}", self.figures]
        if self.rate and self.left:
            parts += [f"{self.rate:,.{self.rate < 10:d}f}/s", describe_left(self.left)]
        return ", ".join(filter(None, parts))


Advance = Callable[..., None]
"""Called with the number of items that are newly done (1), ``figures``, and a new ``title``."""

_shown: list[Work] = []
_watched: list[bool] = []


@contextmanager
def progress(title: str, total: int, *, done: int = 0) -> Iterator[Advance]:
    """Yield a function that says that more of ``total`` items are done, and show how far the work
    is on standard error; ``done`` were done before. Work inside other work is not shown."""
    work = Work(title, total, first=done, done=done)
    console = Console(stderr=True)
    outermost = not _shown
    with ExitStack() as stack:
        bar = None
        if outermost:
            _shown.append(work)
            stack.callback(_shown.clear)
            if console.is_terminal and not console.is_dumb_terminal and not _watched:
                columns = (BarColumn(20), TextColumn("{task.fields[text]}", markup=False))
                bar = stack.enter_context(
                    # Rich would send a standard output that is a file to the terminal.
                    Progress(*columns, console=console, transient=True, auto_refresh=False,
                             redirect_stdout=sys.stdout.isatty())
                )  # fmt: skip
                task = bar.add_task("", total=total, completed=done, text=str(work))
        drawn = work.began

        def advance(more: int = 1, figures: str = "", title: str = "") -> None:
            nonlocal drawn
            work.done += more
            work.title, work.figures = title or work.title, figures
            now = time.monotonic()
            if now - drawn < (_LINE_EVERY_S if bar is None else _DRAWN_EVERY_S):
                return
            drawn = now
            if bar is not None:
                bar.update(task, completed=work.done, text=str(work))
                bar.refresh()
            elif outermost and not _watched:
                print(work, file=sys.stderr, flush=True)

        yield advance


def track(title: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """Yield the items, and show how far the work on them is."""
    with progress(title, len(items)) as advance:
        for item in items:
            yield item
            advance()


@contextmanager
def watch() -> Iterator[Callable[[], Work | None]]:
    """Yield a function that returns the work that is under way, and show none here until the end:
    the caller shows it."""
    _watched.append(True)
    try:
        yield lambda: next(iter(_shown), None)
    finally:
        _watched.pop()


def describe_left(seconds: float) -> str:
    """Return the time left in words."""
    if seconds < 90:
        return f"about {max(10, round(seconds, -1)):.0f} s left"
    return f"about {seconds / 60:.0f} min left"
