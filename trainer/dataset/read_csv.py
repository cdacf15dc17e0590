"""Rows of a CSV file: strictly decoded, the delimiter found in the header."""

from __future__ import annotations

from pathlib import Path

from trainer.dataset.columns import Chosen, Columns, choose_columns
from trainer.dataset.csv_file import parse_csv
from trainer.dataset.row import Row
from trainer.dataset.text_file import read_text
from trainer.errors import BadInput


def read_csv(
    path: Path, wanted: Columns, *, encoding: str = "utf-8", delimiter: str | None = None
) -> tuple[list[Row], Chosen]:
    """Read a CSV file with a header. Raises BadInput with the line at fault."""
    names = (wanted.message or "message", wanted.label or "label")
    top, header, records = parse_csv(
        read_text(path, encoding), path.name, columns=names, delimiter=delimiter
    )
    chosen = choose_columns(wanted, header, f"{path.name}:{top}")
    message, label = header.index(chosen.message), header.index(chosen.label)
    id_ = header.index(chosen.id) if chosen.id else None
    sublabel = header.index(chosen.sublabel) if chosen.sublabel else None
    rows = [
        Row(
            id="" if id_ is None else cells[id_].strip(),
            message=cells[message],
            label=cells[label].strip(),
            sublabel=None if sublabel is None else cells[sublabel].strip() or None,
            where=f"{path.name}:{line}",
        )
        for line, cells in records
    ]
    if not rows:
        raise BadInput(f"{path.name}: a header and no rows")
    return rows, chosen
