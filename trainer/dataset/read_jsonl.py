"""Rows of a JSON Lines file: one object a line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer.dataset.cells import label_text, message_text
from trainer.dataset.columns import Chosen, Columns, choose_columns
from trainer.dataset.row import Row
from trainer.dataset.text_file import read_text
from trainer.errors import BadInput


def read_jsonl(path: Path, wanted: Columns, *, encoding: str = "utf-8") -> tuple[list[Row], Chosen]:
    """Read a JSON Lines file; the first object's keys decide the columns. Raises BadInput with
    the line at fault."""
    rows: list[Row] = []
    chosen: Chosen | None = None
    # Not splitlines: it also splits at the line separators that JSON strings may hold raw.
    for number, line in enumerate(read_text(path, encoding).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path.name}:{number}"
        record = _object(line, where)
        if chosen is None:
            chosen = choose_columns(wanted, list(record), where)
        for field, column in (("message", chosen.message), ("label", chosen.label)):
            if column not in record:
                raise BadInput(f"{where}: no {column!r} ({field}) in this object")
        rows.append(
            Row(
                id=label_text(record.get(chosen.id), where, chosen.id) if chosen.id else "",
                message=message_text(record[chosen.message], where, chosen.message),
                label=label_text(record[chosen.label], where, chosen.label),
                sublabel=(label_text(record.get(chosen.sublabel), where, chosen.sublabel) or None)
                if chosen.sublabel
                else None,
                where=where,
            )
        )
    assert chosen is not None
    return rows, chosen


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid JSON ({error}): one object a line") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: must be a JSON object, one a line, not a list or a bare value")
    return record
