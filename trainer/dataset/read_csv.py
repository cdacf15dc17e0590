"""Rows of a CSV file: strictly decoded, the delimiter found in the header."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

from trainer.dataset.columns import Chosen, Columns, choose_columns
from trainer.dataset.row import Row
from trainer.dataset.text_file import read_text
from trainer.errors import BadInput

_DELIMITERS = (",", ";", "\t", "|")
# The csv module refuses fields of more than 128 KiB; a long message is judged later, by name.
_FIELD_LIMIT = 2**31 - 1


def read_csv(
    path: Path, wanted: Columns, *, encoding: str = "utf-8", delimiter: str | None = None
) -> tuple[list[Row], Chosen]:
    """Read a CSV file with a header. ``delimiter`` None: the one that finds most of the columns
    in the header, or splits it most often. Raises BadInput with the line at fault."""
    text = read_text(path, encoding)
    csv.field_size_limit(_FIELD_LIMIT)
    if delimiter is None:
        delimiter = _sniff(text, wanted)
    records = _records(path, text, delimiter)
    header_at, header = next(records, (1, []))
    if not header:
        raise BadInput(f"{path.name}: the file is empty")
    chosen = choose_columns(wanted, [name.strip() for name in header], f"{path.name}:{header_at}")
    places = {name.strip(): place for place, name in enumerate(header)}
    rows = []
    for line, record in records:
        where = f"{path.name}:{line}"
        if len(record) != len(header):
            raise BadInput(
                f"{where}: {len(record)} fields where the header has {len(header)}: a quote or a "
                f"{delimiter!r} is not escaped, or --delimiter is wrong"
            )
        rows.append(
            Row(
                id=record[places[chosen.id]].strip() if chosen.id else "",
                message=record[places[chosen.message]],
                label=record[places[chosen.label]].strip(),
                sublabel=(record[places[chosen.sublabel]].strip() or None)
                if chosen.sublabel
                else None,
                where=where,
            )
        )
    if not rows:
        raise BadInput(f"{path.name}: a header and no rows")
    return rows, chosen


def _records(path: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line where the record begins, fields); blank lines are passed over."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for record in reader:
            if record:
                yield line, record
            line = reader.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path.name}:{line}: not valid CSV: {error}") from error


def _sniff(text: str, wanted: Columns) -> str:
    """csv.Sniffer looks at the messages too and is led astray by their commas; the header is
    enough."""
    names = {wanted.message or "message", wanted.label or "label"}

    def fit(delimiter: str) -> tuple[int, int]:
        try:
            header = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        except csv.Error:
            return 0, 0
        return len(names & {name.strip() for name in header}), len(header)

    return max(_DELIMITERS, key=fit)
