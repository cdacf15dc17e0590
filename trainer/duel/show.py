"""A duel for people: tables and the verdict on a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from trainer.artifacts.duel import DuelRecord


def show_duel(console: Console, record: DuelRecord) -> None:
    """Print ``duel.json`` as tables, the verdict last."""
    console.print(
        f"\n{record.adapter.name} {record.adapter.digest[:12]} against all, on "
        f"{record.examples} held-out messages of {record.dataset.name} (opening number "
        f"{record.dataset.openings})\n"
    )
    console.print(_candidates(record))
    console.print(_pairs(record))
    console.print(_learning_curve(record))
    console.print(
        f"\n[bold]{record.verdict}[/bold]\n\n[dim]The rules: {record.rules}[/dim]",
        soft_wrap=True,
    )


def _candidates(record: DuelRecord) -> Table:
    table = _table(
        "candidates", "candidate", "accuracy", "95 %", "macro-F1", "trained", "msg/s", "outside"
    )
    for figures in sorted(record.candidates, key=lambda figures: -figures.accuracy):
        low, high = figures.accuracy_interval_95
        seconds, speed, outside = (
            figures.train_seconds,
            figures.messages_per_s,
            figures.outside_labels,
        )
        table.add_row(
            figures.name,
            f"{figures.accuracy:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{figures.macro_f1:.3f}",
            "" if seconds is None else f"{seconds:.0f} s",
            "" if speed is None else f"{speed:.0f}",
            "" if outside is None else str(outside),
            style="bold" if figures.kind == "adapter" else "",
        )
    return table


def _pairs(record: DuelRecord) -> Table:
    table = _table(
        "\nthe adapter less the other",
        "candidate",
        "difference",
        "95 %",
        "right alone",
        "p",
        "p (Holm)",
    )
    for pair in record.pairs:
        low, high = pair.interval_95
        table.add_row(
            pair.b,
            f"{pair.difference:+.1%}",
            f"{low:+.1%} to {high:+.1%}",
            f"{pair.a_only} : {pair.b_only}",
            f"{pair.mcnemar_p:.2g}",
            f"{pair.p_holm:.2g}",
        )
    return table


def _learning_curve(record: DuelRecord) -> Table:
    points = record.learning_curve
    sizes = sorted({point.per_label for point in points})
    table = _table(
        "\nvalidation accuracy by training examples a label", "candidate", *map(str, sizes)
    )
    for name in dict.fromkeys(point.candidate for point in points):
        accuracies = {
            point.per_label: f"{point.validation_accuracy:.1%}"
            for point in points
            if point.candidate == name
        }
        table.add_row(name, *(accuracies.get(size, "") for size in sizes))
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left", no_wrap=True)
    return table
