"""The review queue: a CSV file that a person fills in and ``prepare --decisions`` applies."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.check.suspects import SIMILAR, Suspect
from trainer.errors import BadInput
from worker.contract.digest import write_atomically
from worker.contract.text import message_sha256

COLUMNS = (
    "rank",
    "id",
    "message_sha256",
    "message",
    "label",
    "suggested_label",
    "confidence",
    "reason",
    *(f"similar_{number}" for number in range(1, SIMILAR + 1)),
    "decision",
    "new_label",
    "note",
    "decided_by",
)
BY_HAND = ("decision", "new_label", "note", "decided_by")
_IDENTITY = ("id", "message_sha256")
# What a spreadsheet takes for a formula at the start of a cell (OWASP, CSV injection).
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def write_queue(path: Path, suspects: Sequence[Suspect], *, update: bool) -> int:
    """Write the queue and return how many earlier decisions it carries on.

    A queue with something filled in is never overwritten: raises BadInput, or with ``update``
    keeps what people wrote, at the row with the same id and text; rows that are no longer
    suspected but were decided on stay, at the end.
    """
    kept = refuse_overwriting(path, update=update)
    rows = [_row(rank, one) for rank, one in enumerate(suspects, start=1)]
    for row in rows:
        if old := kept.pop((row["id"], row["message_sha256"]), None):
            row |= {name: old[name] for name in BY_HAND}
    carried = sum(any(row[name] for name in BY_HAND) for row in rows) + len(kept)
    for rank, old in enumerate(kept.values(), start=len(rows) + 1):
        rows.append({**old, "rank": str(rank), "reason": "decided earlier; no longer suspected"})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(rows)
    # The byte order mark tells spreadsheets that this is UTF-8.
    write_atomically(path, text.getvalue().encode("utf-8-sig"))
    return carried


def refuse_overwriting(path: Path, *, update: bool) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the rows of an existing queue that somebody filled in, by id and text. Raises
    BadInput when there are some and ``update`` was not asked for."""
    kept = _read_decided(path) if path.exists() else {}
    if kept and not update:
        raise BadInput(
            f"{path}: holds {len(kept)} rows that somebody filled in: apply it first "
            "(clerk-trainer prepare --decisions), name another --queue, or give --update to keep "
            "them"
        )
    return kept


def _row(rank: int, one: Suspect) -> dict[str, str]:
    row = {
        "rank": str(rank),
        "id": one.example.id,
        "message_sha256": message_sha256(one.example.message),
        "message": guard(one.example.message),
        "label": one.example.label,
        "suggested_label": one.suggested,
        "confidence": f"{one.confidence:.4f}",
        "reason": guard(one.reason),
    }
    for number in range(SIMILAR):
        similar = one.similar[number : number + 1]
        text = f"{similar[0].id} [{similar[0].label}] {similar[0].message}" if similar else ""
        row[f"similar_{number + 1}"] = guard(text)
    return row | dict.fromkeys(BY_HAND, "")


def guard(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def _read_decided(path: Path) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the rows in which a person wrote something, by id and text. Raises BadInput."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot read the queue that is there: {error}") from error
    missing = [name for name in (*_IDENTITY, *BY_HAND) if name not in (reader.fieldnames or ())]
    if missing:
        raise BadInput(f"{path}: no column {missing[0]!r}: this is no review queue; name another")
    odd = next((n for n, row in enumerate(rows, start=1) if None in row or None in row.values()), 0)
    if odd:
        raise BadInput(f"{path}: row {odd} has not as many cells as the header: mend it")
    return {
        (row["id"], row["message_sha256"]): {name: row.get(name, "") for name in COLUMNS}
        for row in rows
        if any(row[name].strip() for name in BY_HAND)
    }
