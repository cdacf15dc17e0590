"""The demo's output: a line for each label, a rate, and a summary."""

from __future__ import annotations

import statistics
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from worker.demo.client import Publisher, Seen, Watcher
from worker.demo.models import Sample
from worker.demo.program import ProgramFailed

_TEXT_CHARS = 80
_PLAIN_WIDTH = 120
_RATE_OVER = 50


_LIVE_WINDOW = 4
_STALL_S = 120.0


@dataclass(slots=True)
class Tally:
    """Counts of the results so far."""

    outcomes: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    known: int = 0
    right: int = 0
    known_by_label: Counter[str] = field(default_factory=Counter)
    right_by_label: Counter[str] = field(default_factory=Counter)
    out_of_scope: int = 0
    out_of_scope_in_review: int = 0
    outside: int = 0
    corrections: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    """By the name of the cascade's stage."""

    @property
    def total(self) -> int:
        """Results of every outcome."""
        return sum(self.outcomes.values())


class Screen:
    """Prints in colour to a terminal, otherwise as plain lines."""

    def __init__(self, labels: Sequence[str], console: Console | None = None) -> None:
        self.console = console or _console()
        self.labels = tuple(labels)
        self._width = max(map(len, labels))
        self.tally = Tally()
        self._status: Status | None = None
        self._landed_at: deque[float] = deque(maxlen=_RATE_OVER)
        self._expected = 0

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show a spinner on a terminal; otherwise print the text once."""
        if not self.console.is_terminal:
            self.say(text)
            yield
            return
        with self.console.status(f"[dim]{escape(text)}[/dim]"):
            yield

    @contextmanager
    def streaming(self, expected: int) -> Iterator[None]:
        """Show progress towards ``expected`` results, and the rate, below the results."""
        self._expected = expected
        with self.console.status("") as status:
            self._status = status if self.console.is_terminal else None
            yield
        self._status = None

    def say(self, text: str) -> None:
        """Print a line of progress."""
        self.console.print(f"[dim]·[/dim] {escape(text)}")

    def landed(self, seen: Seen, sample: Sample | None) -> None:
        """Count one result and print its label, confidence and message."""
        tally, kind = self.tally, seen.kind
        tally.outcomes[kind] += 1
        self._show_rate(seen.seen_at)
        shown = _shorten(sample.message if sample else "(published by you)")
        if seen.value is None:
            reason = escape(seen.headers.get("clerk.reason", "?"))
            self.console.print(f"  [red]dead letter: {reason}[/red]  [dim]{escape(shown)}[/dim]")
            return
        label, confidence = str(seen.value["label"]), float(seen.value["confidence"])
        tally.labels[label] += 1
        if cascade := seen.value.get("cascade"):
            tally.answered[str(cascade["answered"]["name"])] += 1
        tally.outside += label not in self.labels
        self._judge(label, kind, sample)
        mark, style = _mark(label, sample)
        note = " (for review)" if kind == "review" else ""
        named = f"{label:<{self._width}} {confidence:4.0%}  "
        shown = _shorten(shown, self.console.width - len(f"  ✓ {named}{note}"))
        self.console.print(
            f"  {mark} [{style}]{escape(f'{label:<{self._width}}')}[/{style}] {confidence:4.0%}  "
            f"[dim]{escape(shown)}[/dim][yellow]{note}[/yellow]",
            overflow="ellipsis",  # one line for each message, whatever the terminal's width
            no_wrap=True,
        )

    def corrected(self, seen: Seen, sample: Sample | None) -> None:
        """Count and print a correction or a retraction."""
        self.tally.corrections += 1
        value = seen.value or {}
        shown = _shorten(sample.message if sample else "(published by you)")
        if value.get("kind") == "retraction":
            label, change = "taken back", str(value["reason"]).replace("_", " ")
        else:
            label, before = str(value["label"]), str(value["machine"]["label"])
            change = "confirmed" if label == before else f"was {before}"
        self.console.print(
            f"  [magenta]correction {self.tally.corrections}:[/magenta] "
            f"[bold]{escape(label)}[/bold] ({escape(change)})  [dim]{escape(shown)}[/dim]",
            overflow="ellipsis",
            no_wrap=True,
        )

    def _show_rate(self, now: float) -> None:
        self._landed_at.append(now)
        span = now - self._landed_at[0]
        rate = f"{(len(self._landed_at) - 1) / span:.0f} messages/s" if span > 0 else ""
        text = f"{self.tally.total} of {self._expected}  {rate}"
        if self._status is not None:
            self._status.update(text)
        elif self._expected and self.tally.total % 50 == 0:
            self.say(text)

    def summary(self, burst: int, burst_s: float, live_s: Sequence[float]) -> None:
        """Print the final tables: ``burst`` messages were published at once, ``live_s`` are the
        latencies of those published a few at a time."""
        tally = self.tally
        self.console.print()
        self.console.print(_label_table(self.labels, tally))
        self.console.print()
        for name, value in self._figures(burst, burst_s, live_s).items():
            self.console.print(f"  {name:<26} [bold]{value}[/bold]")

    def _figures(self, burst: int, burst_s: float, live_s: Sequence[float]) -> Mapping[str, str]:
        tally = self.tally
        figures = {
            "results": f"{tally.total} for {tally.total} messages: "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(tally.outcomes.items())),
        }
        if tally.known:
            share = tally.right / tally.known
            figures["accuracy"] = f"{share:.1%} ({tally.right} of {tally.known} known answers)"
        if tally.out_of_scope:
            figures["fit no label"] = (
                f"{tally.out_of_scope_in_review} of {tally.out_of_scope} went to review"
            )
        if tally.answered:
            shares = (
                f"{count / tally.answered.total():.0%} by {name}"
                for name, count in tally.answered.most_common()
            )
            figures["answered"] = ", ".join(shares)
        figures["outside the label set"] = str(tally.outside)
        if burst:
            figures["throughput"] = f"{burst / burst_s:.0f} messages/s ({burst} at once)"
        if len(live_s) >= 2:
            cuts = statistics.quantiles(live_s, n=100, method="inclusive")
            figures["latency, end to end"] = (
                f"p50 {cuts[49] * 1000:.0f} ms, p99 {cuts[98] * 1000:.0f} ms "
                f"({len(live_s)} sent a few at a time)"
            )
        return figures

    def _judge(self, label: str, kind: str, sample: Sample | None) -> None:
        if sample is None or not sample.known:
            return
        tally = self.tally
        if sample.label is None:
            tally.out_of_scope += 1
            tally.out_of_scope_in_review += kind == "review"
            return
        tally.known += 1
        tally.known_by_label[sample.label] += 1
        if label == sample.label:
            tally.right += 1
            tally.right_by_label[label] += 1


def _console() -> Console:
    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=_PLAIN_WIDTH)


def _mark(label: str, sample: Sample | None) -> tuple[str, str]:
    if sample is None or not sample.known:
        return "[cyan]>[/cyan]", "bold cyan"
    if sample.label is None:
        return "[yellow]?[/yellow]", "yellow"
    if sample.label == label:
        return "[green]✓[/green]", "green"
    return "[red]✗[/red]", "red"


def _shorten(text: str, room: int = _TEXT_CHARS) -> str:
    line, most = " ".join(text.split()), max(1, min(room, _TEXT_CHARS))
    return line if len(line) <= most else line[: most - 1] + "…"


def _label_table(labels: Sequence[str], tally: Tally) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=True)
    table.add_column("label")
    table.add_column("filed", justify="right")
    table.add_column("right, of known", justify="right")
    for label in labels:
        known = tally.known_by_label[label]
        right = f"{tally.right_by_label[label]} of {known}" if known else ""
        table.add_row(escape(label), str(tally.labels[label]), right)
    return table


class Streaming:
    """Publishes a few messages at a time, to show latency, or all at once, for throughput.

    ``check`` is called while waiting and raises if the worker has ended.
    """

    def __init__(
        self, screen: Screen, publisher: Publisher, watcher: Watcher, check: Callable[[], None]
    ) -> None:
        self._screen = screen
        self._publisher = publisher
        self._watcher = watcher
        self._check = check
        self._waiting: dict[str, Sample] = {}

    def live(self, samples: Sequence[Sample]) -> list[float]:
        """Publish with a few in flight at a time; return their latencies in seconds."""
        latencies: list[float] = []
        left = list(reversed(samples))
        while left or self._waiting:
            while left and len(self._waiting) < _LIVE_WINDOW:
                self._publish(left.pop())
            latencies.extend(self._take())
        return latencies

    def burst(self, samples: Sequence[Sample]) -> float:
        """Publish all at once; return the seconds until the last result was seen."""
        started = time.monotonic()
        for one in samples:
            self._publish(one)
        while self._waiting:
            self._take()
        return time.monotonic() - started

    def show(self, seen: Seen) -> float:
        """Show one result; return its latency in seconds."""
        sample = self._waiting.pop(seen.message_id, None)
        latency_s = max(0.0, seen.seen_at - seen.published_at)
        self._screen.landed(seen, sample)
        return latency_s

    def _publish(self, sample: Sample) -> None:
        self._waiting[sample.id] = sample
        self._publisher.publish(sample.id, sample.message)

    def _take(self) -> list[float]:
        until = time.monotonic() + _STALL_S
        while time.monotonic() < until:
            self._check()
            if found := [self.show(seen) for seen in self._watcher.poll(0.2)]:
                return found
        raise ProgramFailed(f"no result within {_STALL_S:.0f} s")
