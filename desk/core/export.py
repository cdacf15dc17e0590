"""Decisions as the files that ``clerk-trainer prepare`` takes: messages, and a decision for each.

``--input messages.jsonl`` has the rows with the machine's label, ``--decisions decisions.csv`` what
people made of them: ``relabel`` to the label they chose (which may be the machine's own), ``drop``
where no label fits.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass

DECISION_COLUMNS = ("id", "message_sha256", "decision", "new_label", "note", "decided_by")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True, slots=True)
class ExportRow:
    """One decided item. ``label`` is None where no label fits; ``text`` where it was purged.

    ``message_sha256`` is that of ``worker.contract.text``.
    """

    id: str
    message_sha256: str
    machine_label: str
    label: str | None
    note: str
    decided_by: str
    text: str | None


def decisions_csv(rows: Iterable[ExportRow]) -> str:
    """Return the decisions as CSV, with a header."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(DECISION_COLUMNS)
    for row in rows:
        word = "drop" if row.label is None else "relabel"
        writer.writerow(
            (row.id, row.message_sha256, word, row.label or "", _guard(row.note), row.decided_by)
        )
    return text.getvalue()


def messages_jsonl(rows: Iterable[ExportRow]) -> str:
    """Return those whose text is here as JSON lines: ``id``, ``message``, ``label``."""
    return "".join(
        json.dumps(
            {"id": row.id, "message": row.text, "label": row.machine_label}, ensure_ascii=False
        )
        + "\n"
        for row in rows
        if row.text is not None
    )


def _guard(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text
