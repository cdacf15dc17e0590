"""A comparison as tables on a terminal, as JSON, and its disagreements as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from worker.contract import Manifest
from worker.errors import SettingsError
from worker.offline.compare.agreement import (
    AdapterSummary,
    Comparison,
    Correctness,
    Labelled,
    Pair,
)
from worker.offline.compare.run import CompareResult

SHOWN = 15
"""Most disagreements and moves that are shown on a terminal; the file has all."""

_DIGEST_CHARS = 12
_COLUMNS = ("id", "first", "first_confidence", "second", "second_confidence", "first_review",
            "second_review")  # fmt: skip


def to_json(result: CompareResult) -> dict[str, Any]:
    """Return everything as plain JSON. Texts are included where they were kept."""
    comparison = asdict(result.comparison)
    comparison["moves"] = [
        {"first": first, "second": second, "messages": count}
        for first, second, count in result.comparison.moves
    ]
    return {
        "schema": "comparison/1",
        "adapters": {"first": _adapter(result.first), "second": _adapter(result.second)},
        "source": result.source,
        "without_label": result.unlabelled,
        "agreement": result.comparison.agreement,
        **comparison,
        "disagreements": [_row(pair) for pair in _by_confidence(result.pairs)],
    }


def write_csv(path: Path, pairs: Iterable[Pair]) -> int:
    """Write the disagreements, most confident first; return how many. Raises SettingsError.

    The columns ``truth`` and ``text`` are present where any message has them.
    """
    rows = [_row(pair) for pair in _by_confidence(pairs)]
    more = [name for name in ("truth", "text") if any(name in row for row in rows)]
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, [*_COLUMNS, *more], restval="")
            writer.writeheader()
            writer.writerows(rows)
    except OSError as error:
        raise SettingsError(f"--out {path}: {error.strerror}") from error
    return len(rows)


def show(result: CompareResult, console: Console) -> None:
    """Print what agrees, what moved, and which messages to look at."""
    comparison = result.comparison
    console.print(_head(result))
    if result.unlabelled:
        console.print(f"{result.unlabelled} more got no label from one or both", style="dim")
    console.print()
    console.print(_overall(comparison))
    if comparison.truth is not None:
        console.print(_correctness(comparison.truth))
    console.print()
    console.print(_summaries(comparison.first, comparison.second))
    console.print()
    console.print(_by_label(comparison))
    if comparison.moves:
        console.print()
        console.print(_moves(comparison))
        console.print()
        console.print(_disagreements(result.pairs))


def _head(result: CompareResult) -> Text:
    text = Text()
    for name, manifest in (("first ", result.first), ("second", result.second)):
        text.append(f"{name}  ", "bold").append(manifest.name)
        text.append(f"  {manifest.digest[:_DIGEST_CHARS]}  {manifest.created_at}\n", "dim")
    return text.append(f"{result.comparison.messages} messages from {result.source}")


def _overall(comparison: Comparison) -> Text:
    differ = comparison.messages - comparison.agreed
    text = Text().append(f"{comparison.agreement:.1%}", "bold")
    text.append(f" have the same label from both; {differ} do not")
    if comparison.kappa is not None:
        text.append(f". Cohen's kappa {comparison.kappa:.3f}")
    return text


def _correctness(truth: Correctness) -> Text:
    return Text(
        f"Of {truth.messages} with a true label, {truth.both} are correct by both, "
        f"{truth.first_only} by the first alone, {truth.second_only} by the second alone, "
        f"{truth.neither} by neither. McNemar's exact p = {truth.p_value:.3g}"
    )


def _summaries(first: AdapterSummary, second: AdapterSummary) -> Table:
    table = _table(("", "left"), ("first", "right"), ("second", "right"), ("shift", "right"))
    rows = [
        ("mean confidence", first.confidence, second.confidence),
        ("  where both agree", first.confidence_agreed, second.confidence_agreed),
        ("  where they do not", first.confidence_disagreed, second.confidence_disagreed),
        ("mean off-label mass", first.off_label_mass, second.off_label_mass),
        ("for review", first.review, second.review),
        ("accuracy", first.accuracy, second.accuracy),
    ]
    for name, before, after in rows:
        if before is not None and after is not None:
            table.add_row(name, f"{before:.1%}", f"{after:.1%}", f"{after - before:+.1%}")
    return table


def _by_label(comparison: Comparison) -> Table:
    table = _table(
        ("label", "left"), ("first", "right"), ("second", "right"), ("both", "right"),
        ("agreement", "right"),
    )  # fmt: skip
    for agreement in sorted(comparison.labels, key=lambda agreement: agreement.share):
        counts = (str(agreement.first), str(agreement.second), str(agreement.both))
        table.add_row(escape(agreement.label), *counts, f"{agreement.share:.1%}")
    return table


def _moves(comparison: Comparison) -> Table:
    table = _table(("moved from", "left"), ("to", "left"), ("messages", "right"))
    for first, second, count in comparison.moves[:SHOWN]:
        table.add_row(escape(first), escape(second), str(count))
    if len(comparison.moves) > SHOWN:
        table.add_row(f"... and {len(comparison.moves) - SHOWN} more", "", "")
    return table


def _disagreements(pairs: Sequence[Pair]) -> Table:
    differing = _by_confidence(pairs)
    table = _table(("message", "left"), ("first", "left"), ("second", "left"))
    for pair in differing[:SHOWN]:
        message = Text(pair.id)
        if pair.text is not None:
            message.append("\n" + pair.text, "dim")
        table.add_row(message, _answer(pair.first), _answer(pair.second))
    if len(differing) > SHOWN:
        table.add_row(f"... and {len(differing) - SHOWN} more (--out FILE)", "", "")
    return table


def _answer(answer: Labelled) -> Text:
    return Text(answer.label).append(f" {answer.confidence:.0%}", "dim")


def _table(*columns: tuple[str, Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, justify in columns:
        table.add_column(name, justify=justify, overflow="fold")
    return table


def _by_confidence(pairs: Iterable[Pair]) -> list[Pair]:
    """Return the disagreements, those first in which both adapters are confident: they are about
    the meaning of a label, not about a tie."""
    differing = [pair for pair in pairs if not pair.agrees]
    return sorted(differing, key=lambda pair: -min(pair.first.confidence, pair.second.confidence))


def _row(pair: Pair) -> dict[str, Any]:
    known = {"truth": pair.truth, "text": pair.text}
    return {
        "id": pair.id,
        "first": pair.first.label,
        "first_confidence": pair.first.confidence,
        "second": pair.second.label,
        "second_confidence": pair.second.confidence,
        "first_review": pair.first.review,
        "second_review": pair.second.review,
        **{name: value for name, value in known.items() if value is not None},
    }


def _adapter(manifest: Manifest) -> dict[str, str]:
    return {"name": manifest.name, "digest": manifest.digest, "created_at": manifest.created_at}
