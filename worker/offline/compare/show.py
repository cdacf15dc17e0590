"""A comparison as tables for people, as JSON, and its disagreements as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.contract import Manifest
from worker.errors import SettingsError
from worker.offline.compare.figures import Comparison, Labelled, Pair, Side, Truth
from worker.offline.compare.run import Outcome

SHOWN = 15
"""Disagreements and moves that are put on the screen; the rest is in the file."""

_DIGEST_CHARS = 12
_COLUMNS = ("id", "first", "first_confidence", "second", "second_confidence", "first_review",
            "second_review")  # fmt: skip


def to_json(outcome: Outcome) -> dict[str, Any]:
    """Return everything as JSON can carry it. Texts are in it where they were kept."""
    figures = asdict(outcome.figures)
    figures["moves"] = [
        {"first": a, "second": b, "messages": count} for a, b, count in outcome.figures.moves
    ]
    return {
        "schema": "comparison/1",
        "adapters": {"first": _adapter(outcome.first), "second": _adapter(outcome.second)},
        "source": outcome.source,
        "without_label": outcome.without,
        "agreement": outcome.figures.agreement,
        **figures,
        "disagreements": [_row(one) for one in _by_doubt(outcome.pairs)],
    }


def write_csv(path: Path, pairs: Iterable[Pair]) -> int:
    """Write the messages with two labels, the surest first; return how many. Raises SettingsError.

    The columns ``truth`` and ``text`` are there where any message has them.
    """
    rows = [_row(one) for one in _by_doubt(pairs)]
    more = [name for name in ("truth", "text") if any(name in row for row in rows)]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*_COLUMNS, *more], restval="")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise SettingsError(f"--out {path}: {error.strerror}") from error
    return len(rows)


def show(outcome: Outcome, console: Console) -> None:
    """Print for people: what agrees, what moved, and whom to look at."""
    figures = outcome.figures
    console.print(_head(outcome))
    if outcome.without:
        console.print(f"{outcome.without} more got no label from one or the other", style="dim")
    console.print()
    console.print(_overall(figures))
    if figures.truth is not None:
        console.print(_of_truth(figures.truth))
    console.print()
    console.print(_sides(figures.first, figures.second))
    console.print()
    console.print(_by_label(figures))
    if figures.moves:
        console.print()
        console.print(_moves(figures))
        console.print()
        console.print(_disagreements(outcome.pairs))


def _head(outcome: Outcome) -> Text:
    text = Text()
    for name, manifest in (("first ", outcome.first), ("second", outcome.second)):
        text.append(f"{name}  ", "bold").append(manifest.name)
        text.append(f"  {manifest.digest[:_DIGEST_CHARS]}  {manifest.created_at}\n", "dim")
    return text.append(f"{outcome.figures.messages} messages of {outcome.source}")


def _overall(figures: Comparison) -> Text:
    differ = figures.messages - figures.agreed
    text = (
        Text().append(f"{figures.agreement:.1%}", "bold").append(" have the same label from both")
    )
    text.append(f"; {differ} do not")
    if figures.kappa is not None:
        text.append(f". Cohen's kappa {figures.kappa:.3f}")
    return text


def _of_truth(truth: Truth) -> Text:
    return Text(
        f"Of {truth.messages} with a true label: {truth.both} right by both, {truth.first_only} by "
        f"the first alone, {truth.second_only} by the second alone, {truth.neither} by neither. "
        f"McNemar's exact p = {truth.p_value:.3g}"
    )


def _sides(first: Side, second: Side) -> Table:
    table = _table(("", "left"), ("first", "right"), ("second", "right"), ("shift", "right"))
    rows = [
        ("mean confidence", first.confidence, second.confidence),
        ("  where both agree", first.confidence_agreed, second.confidence_agreed),
        ("  where they do not", first.confidence_disagreed, second.confidence_disagreed),
        ("mean off-label mass", first.off_label_mass, second.off_label_mass),
        ("for review", first.review, second.review),
        ("accuracy", first.accuracy, second.accuracy),
    ]
    for name, a, b in rows:
        if a is not None and b is not None:
            table.add_row(name, f"{a:.1%}", f"{b:.1%}", f"{b - a:+.1%}")
    return table


def _by_label(figures: Comparison) -> Table:
    table = _table(
        ("label", "left"), ("first", "right"), ("second", "right"), ("both", "right"),
        ("agreement", "right"),
    )  # fmt: skip
    for one in sorted(figures.labels, key=lambda one: one.share):
        table.add_row(one.label, str(one.first), str(one.second), str(one.both), f"{one.share:.1%}")
    return table


def _moves(figures: Comparison) -> Table:
    table = _table(("moved from", "left"), ("to", "left"), ("messages", "right"))
    for a, b, count in figures.moves[:SHOWN]:
        table.add_row(a, b, str(count))
    if len(figures.moves) > SHOWN:
        table.add_row(f"... and {len(figures.moves) - SHOWN} more kinds", "", "")
    return table


def _disagreements(pairs: Sequence[Pair]) -> Table:
    found = _by_doubt(pairs)
    table = _table(("message", "left"), ("first", "left"), ("second", "left"))
    for one in found[:SHOWN]:
        told = Text(one.id)
        if one.text is not None:
            told.append("\n" + one.text, "dim")
        table.add_row(told, _answer(one.first), _answer(one.second))
    if len(found) > SHOWN:
        table.add_row(f"... and {len(found) - SHOWN} more (--out FILE)", "", "")
    return table


def _answer(one: Labelled) -> Text:
    return Text(one.label).append(f" {one.confidence:.0%}", "dim")


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _by_doubt(pairs: Iterable[Pair]) -> list[Pair]:
    """Disagreements in which both are sure first: those are about meaning, not about a tie."""
    differ = [one for one in pairs if not one.agrees]
    return sorted(differ, key=lambda one: -min(one.first.confidence, one.second.confidence))


def _row(one: Pair) -> dict[str, Any]:
    known = {"truth": one.truth, "text": one.text}
    return {
        "id": one.id,
        "first": one.first.label,
        "first_confidence": one.first.confidence,
        "second": one.second.label,
        "second_confidence": one.second.confidence,
        "first_review": one.first.review,
        "second_review": one.second.review,
        **{name: value for name, value in known.items() if value is not None},
    }


def _adapter(manifest: Manifest) -> dict[str, str]:
    return {"name": manifest.name, "digest": manifest.digest, "created_at": manifest.created_at}
