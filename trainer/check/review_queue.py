"""The review queue: a CSV file that a person fills in and ``prepare --decisions`` applies."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from trainer.check.suspects import SIMILAR, Suspect
from trainer.dataset.decisions import BY_HAND, IDENTITY, guard, write_review_csv
from trainer.errors import BadInput
from worker.contract.digest import write_atomically
from worker.contract.text import message_sha256

COLUMNS = (
    "rank",
    *IDENTITY,
    "message",
    "label",
    "suggested_label",
    "confidence",
    "reason",
    *(f"similar_{number}" for number in range(1, SIMILAR + 1)),
    *BY_HAND,
)


def write_queue(path: Path, suspects: Sequence[Suspect], *, update: bool) -> int:
    """Write the queue and return how many earlier decisions it keeps.

    A queue with something filled in is never overwritten: raises BadInput, or with ``update``
    keeps what people wrote, at the row with the same id and text; rows that are no longer
    suspected but were decided on stay, at the end.
    """
    kept = refuse_overwriting(path, update=update)
    rows = [_row(rank, suspect) for rank, suspect in enumerate(suspects, start=1)]
    for row in rows:
        if old := kept.pop((row["id"], row["message_sha256"]), None):
            row |= {name: old[name] for name in BY_HAND}
    decided = sum(any(row[name] for name in BY_HAND) for row in rows) + len(kept)
    for rank, old in enumerate(kept.values(), start=len(rows) + 1):
        rows.append({**old, "rank": str(rank), "reason": "decided earlier; no longer suspected"})
    # The byte order mark tells spreadsheets that this is UTF-8.
    write_atomically(path, write_review_csv(COLUMNS, rows).encode("utf-8-sig"))
    return decided


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


def _row(rank: int, suspect: Suspect) -> dict[str, str]:
    row = {
        "rank": str(rank),
        "id": suspect.example.id,
        "message_sha256": message_sha256(suspect.example.message),
        "message": guard(suspect.example.message),
        "label": suspect.example.label,
        "suggested_label": suspect.suggested,
        "confidence": f"{suspect.confidence:.4f}",
        "reason": guard(suspect.reason),
    }
    for number, example in enumerate(suspect.similar, start=1):
        row[f"similar_{number}"] = guard(f"{example.id} [{example.label}] {example.message}")
    return row | dict.fromkeys(BY_HAND, "")


def _read_decided(path: Path) -> dict[tuple[str, str], Mapping[str, str]]:
    """Return the rows in which a person wrote something, by id and text. Raises BadInput."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"{path}: cannot read the queue that is there: {error}") from error
    missing = [name for name in (*IDENTITY, *BY_HAND) if name not in (reader.fieldnames or ())]
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
