"""The demo's output."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from worker.demo.client import Seen
from worker.demo.models import Sample
from worker.demo.screen import Screen

LABELS = ("billing", "delivery [urgent]")


def make_screen(*, terminal: bool = False, width: int = 120) -> Screen:
    console = Console(
        file=io.StringIO(),
        width=width,
        force_terminal=terminal,
        color_system=None,
        highlight=False,
        _environ={"TERM": "xterm"},  # a dumb one moves nothing, whatever runs the tests
    )
    return Screen(LABELS, console)


def shown(screen: Screen) -> list[str]:
    file = screen.console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


def seen(label: str | None, kind: str = "output", at: float = 0.0, reason: str = "") -> Seen:
    value: dict[str, Any] | None = None
    if label is not None:
        value = {"label": label, "confidence": 0.914}
    return Seen(kind, "1", value, {"clerk.reason": reason}, at, at)


def test_each_label_is_a_line_with_its_correctness() -> None:
    screen = make_screen()
    long = "where is\nmy   parcel " + "x" * 100
    screen.landed(seen("billing"), Sample("1", "my invoice", "billing"))
    screen.landed(seen("billing"), Sample("2", long, "delivery [urgent]"))
    screen.landed(seen("billing", "review"), Sample("3", "[/b] blah", None))
    screen.landed(seen("delivery [urgent]"), None)
    right, wrong, strange, own = shown(screen)
    assert right == "  ✓ billing            91%  my invoice"
    assert wrong.startswith("  ✗ billing            91%  where is my parcel xxx")
    assert wrong.endswith("…")
    assert strange == "  ? billing            91%  [/b] blah (for review)"
    assert own == "  > delivery [urgent]  91%  (published by you)"


def test_the_summary_counts_what_was_shown() -> None:
    screen = make_screen()
    for number in range(4):
        label = "billing" if number else "delivery [urgent]"
        screen.landed(seen(label), Sample("1", "my invoice", "billing"))
    screen.landed(seen("billing", "review"), Sample("2", "blah", None))
    screen.landed(seen("billing"), Sample("3", "blah", None))
    screen.landed(seen("weather"), None)
    before = len(shown(screen))
    screen.summary(burst=100, burst_s=4.0, live_s=[0.010, 0.020, 0.030])
    printed = "\n".join(line.rstrip() for line in shown(screen)[before:])
    for line in (
        "  results                    7 for 7 messages: 6 output, 1 review",
        "  accuracy                   75.0% (3 of 4 known answers)",
        "  fit no label               1 of 2 went to review",
        "  outside the label set      1",
        "  throughput                 25 messages/s (100 at once)",
        "  latency, end to end        p50 20 ms, p99 30 ms (3 sent a few at a time)",
    ):
        assert line in printed
    (billing,) = [line.split() for line in printed.splitlines() if line.startswith(" billing")]
    assert billing == ["billing", "5", "3", "of", "4"]


def test_each_correction_says_what_a_person_made_of_the_label() -> None:
    """Counted, with the machine's label and the message's first words; so is one that was taken
    back."""
    screen = make_screen()
    for label in ("billing", "delivery [urgent]"):
        value = {"label": label, "machine": {"label": "billing"}}
        screen.corrected(
            Seen("correction", "1", value, {}, 0.0, 0.0), Sample("1", "my [b] invoice", None)
        )
    screen.corrected(
        Seen("correction", "2", {"label": "billing", "machine": {"label": "x"}}, {}, 0, 0), None
    )
    taken_back = {"kind": "retraction", "reason": "no_label_fits"}
    screen.corrected(Seen("correction", "2", taken_back, {}, 0, 0), None)
    assert shown(screen) == [
        "  correction 1: billing (confirmed)  my [b] invoice",
        "  correction 2: delivery [urgent] (was billing)  my [b] invoice",
        "  correction 3: billing (was x)  (published by you)",
        "  correction 4: taken back (no label fits)  (published by you)",
    ]
