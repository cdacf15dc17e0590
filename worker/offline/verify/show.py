"""A verification as text for a terminal and as JSON. Ids and counts, never message text."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from worker.offline.verify.run import Verification
from worker.offline.verify.verdict import FAULTS, Fault

_DIGEST_CHARS = 12

MEANING: dict[Fault, str] = {
    "missing": "input records without a result",
    "twice": "results beyond the first for one input record, in one run",
    "out_of_order": "results after that of a later record of the same input partition",
    "foreign": "results for input records that do not exist",
    "unreadable": "records on a result topic that no worker writes",
    "unknown_adapter": "results by an adapter that was not in service",
}


def to_json(verification: Verification) -> dict[str, Any]:
    """Return everything as plain JSON."""
    verdict = asdict(verification.verdict)
    return {
        "schema": "verification/1",
        "proven": verification.verdict.is_proven,
        "topic": verification.topic,
        "group": verification.group,
        "offsets": {
            str(number): {"from": start, "before": stop}
            for number, (start, stop) in verification.offsets.items()
        },
        "pending": verification.pending,
        "allowed_adapters": verification.adapters,
        **verdict,
        "offenders": [asdict(offender) for offender in verification.verdict.offenders],
    }


def show(verification: Verification, console: Console) -> None:
    """Print the counts, the first offenders, and the verdict last."""
    verdict = verification.verdict
    ranges = ", ".join(
        f"{number}:{start}-{stop - 1}"
        for number, (start, stop) in verification.offsets.items()
        if start < stop
    )
    console.print(f"{verification.topic} ({ranges or 'empty'}), group {verification.group}")
    console.print(f"  input records   {verdict.inputs:>12,}")
    for topic, count in verdict.by_topic.items():
        console.print(f"  {topic:<15} {count:>12,} results")
    for what, count in (
        ("of replays", verdict.replayed),
        ("records of the retry topic", verdict.retries),
        ("input records that wait there for another attempt (pending)", verdict.waiting),
        ("repeated, which at_least_once allows", verdict.repeated),
        ("not judged: outside of the range", verdict.outside),
        ("not judged: the input is compacted", verdict.compacted),
        ("offsets not committed yet (pending)", verification.pending),
    ):
        if count:
            console.print(f"  {what}: {count:,}")
    if verdict.adapters:
        by = (
            f"{each.digest[:_DIGEST_CHARS]} in {each.precision} {each.results:,}"
            if each.precision
            else f"{each.digest[:_DIGEST_CHARS]} (dead letters) {each.results:,}"
            for each in verdict.adapters
        )
        allowed = "" if verification.adapters is not None else " (any is allowed)"
        console.print(f"  adapters: {', '.join(by)}{allowed}")
    if verdict.is_proven:
        waits = ", or waits for another attempt" if verdict.waiting else ""
        order = "in order" if not verdict.retries else "in order but for those tried again later"
        console.print(
            f"[green]proven[/green]: every input record has exactly one result{waits}, {order}"
        )
        return
    table = Table("fault", "id", "result at", "problem", box=None)
    for offender in verdict.offenders:
        known = (offender.id, offender.place, offender.problem)
        table.add_row(offender.fault, *(text and escape(text) for text in known))
    console.print(table)
    for fault in FAULTS:
        if count := verdict.faults[fault]:
            console.print(f"[red]{fault}[/red]: {count:,} {MEANING[fault]}")
