"""Results as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from trainer import facts
from trainer.artifacts.duel import CostRecord, DuelRecord
from trainer.artifacts.evaluation import EvaluationRecord


def show_evaluation(console: Console, record: EvaluationRecord) -> None:
    """Print ``evaluation.json``, the headline first."""
    console.print(
        f"\n[bold]{escape(record.adapter.name)}[/bold] {record.adapter.digest[:12]} on the "
        f"hold-out of {escape(record.dataset.name)} (opening number {record.dataset.openings}), "
        f"95 % intervals in brackets",
        soft_wrap=True,
    )
    _print_facts(console, facts.overall(record))
    print_table(console, "by label", facts.labels(record))
    print_table(console, "most often mistaken", facts.confusions(record))
    print_table(console, "engines", facts.engines(record))
    if record.steering:
        title = "answers that a sentence in the message flips to the label that it names"
        print_table(console, title, facts.steering(record))
    console.print("\nmeasured", style="italic")
    for found in (facts.outside_labels, facts.calibration, facts.review, facts.agreement):
        _print_facts(console, found(record))


def show_duel(console: Console, record: DuelRecord) -> None:
    """Print ``duel.json``, the verdict last."""
    console.print(
        f"\n{escape(record.adapter.name)} {record.adapter.digest[:12]} against all, on "
        f"{record.examples} held-out messages of {escape(record.dataset.name)} (opening number "
        f"{record.dataset.openings})"
    )
    print_table(console, "candidates", facts.candidates(record))
    print_table(console, "paired differences", facts.pairs(record))
    if (table := facts.elsewhere(record)) is not None:
        print_table(console, "models that run elsewhere (money as their answers give it)", table)
    curve = facts.learning_curve(record)
    print_table(console, "validation accuracy by training examples per label", curve)
    for each in record.replacements:
        console.print(f"\n[bold]{escape(each.reason)}[/bold]", soft_wrap=True)
    console.print(
        f"\n[bold]{escape(record.verdict)}[/bold]\n\n[dim]The rules: {escape(record.rules)}[/dim]",
        soft_wrap=True,
    )


def show_cost(console: Console, record: CostRecord) -> None:
    """Print ``cost.json``, the inputs first."""
    print_table(console, "inputs", facts.cost_inputs(record))
    title = f"by volume, in {record.currency} a month"
    print_table(console, title, facts.cost_by_volume(record))
    title = f"by way to serve, in {record.currency} (the first of two: what favours the adapter)"
    print_table(console, title, facts.cost_by_kind(record))
    console.print()
    _print_facts(console, facts.cost(record))


def print_table(console: Console, title: str, table: facts.Table) -> None:
    """Print a table. Numbers are never cut off; on a narrow terminal names wrap instead."""
    drawn = RichTable(box=None, pad_edge=False)
    for at, name in enumerate(table.columns):
        number = at >= table.words
        drawn.add_column(
            name,
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
            vertical="top",
        )
    for at, row in enumerate(table.rows):
        drawn.add_row(*map(escape, row), style="bold" if at in table.marked else "")
    console.print(f"\n{title}", style="italic")
    console.print(drawn)


def _print_facts(console: Console, found: Iterable[tuple[str, str]]) -> None:
    table = RichTable(box=None, pad_edge=False, show_header=False)
    table.add_column(style="dim", min_width=30)
    table.add_column()
    for row in found:
        table.add_row(*map(escape, row))
    console.print(table)
