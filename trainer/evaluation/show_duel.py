"""A duel for people: tables and the verdict on a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table


def show_duel(console: Console, record: Mapping[str, Any]) -> None:
    """Print ``duel.json`` as tables, the verdict last."""
    console.print(
        f"\n{record['adapter']['name']} {record['adapter']['digest'][:12]} against all, on "
        f"{record['examples']} held-out messages of {record['dataset']['name']} (opening number "
        f"{record['dataset']['openings']})\n"
    )
    console.print(_contenders(record))
    console.print(_pairs(record))
    console.print(_curve(record))
    console.print(
        f"\n[bold]{record['verdict']}[/bold]\n\n[dim]The rules: {record['rules']}[/dim]",
        soft_wrap=True,
    )


def _contenders(record: Mapping[str, Any]) -> Table:
    table = _table(
        "contenders", "contender", "accuracy", "95 %", "macro-F1", "trained", "msg/s", "outside"
    )
    for one in sorted(record["contenders"], key=lambda one: -one["accuracy"]):
        low, high = one["accuracy_interval_95"]
        bold = "bold" if one["kind"] == "adapter" else ""
        seconds, speed = one["train_seconds"], one["messages_per_s"]
        table.add_row(
            one["name"],
            f"{one['accuracy']:.1%}",
            f"{low:.1%} to {high:.1%}",
            f"{one['macro_f1']:.3f}",
            "" if seconds is None else f"{seconds:.0f} s",
            "" if speed is None else f"{speed:.0f}",
            "" if one["outside_labels"] is None else str(one["outside_labels"]),
            style=bold,
        )
    return table


def _pairs(record: Mapping[str, Any]) -> Table:
    table = _table(
        "\nthe adapter less the other",
        "contender",
        "difference",
        "95 %",
        "right alone",
        "p",
        "p (Holm)",
    )
    for one in record["pairs"]:
        low, high = one["interval_95"]
        table.add_row(
            one["b"],
            f"{one['difference']:+.1%}",
            f"{low:+.1%} to {high:+.1%}",
            f"{one['a_only']} : {one['b_only']}",
            f"{one['mcnemar_p']:.2g}",
            f"{one['p_holm']:.2g}",
        )
    return table


def _curve(record: Mapping[str, Any]) -> Table:
    points = record["learning_curve"]
    sizes = sorted({one["per_label"] for one in points})
    table = _table(
        "\nvalidation accuracy by training examples a label", "contender", *map(str, sizes)
    )
    for name in dict.fromkeys(one["contender"] for one in points):
        row = {one["per_label"]: one for one in points if one["contender"] == name}
        table.add_row(
            name,
            *(f"{row[size]['validation_accuracy']:.1%}" if size in row else "" for size in sizes),
        )
    return table


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    for at, name in enumerate(columns):
        table.add_column(name, justify="right" if at else "left", no_wrap=True)
    return table
