"""Open CSV and JSON Lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from worker.common.csv_rows import MAX_COLUMNS, read_records, sniff
from worker.common.encodings import Encoding, Opener, decoded_lines, find_encoding, join_mixed
from worker.common.tables.chat import form_of, open_chat
from worker.common.tables.header import find_header
from worker.common.tables.table import (
    SAMPLE_ROWS,
    Found,
    NotText,
    Table,
    TableError,
    Tally,
    flatten,
    to_text,
)

_HEAD_CHARS = 1 << 18


def open_csv(
    opener: Opener, name: str, given: str | None, delimiter: str | None, may_be_short: bool
) -> Table:
    """Open CSV in the encoding and with the delimiter that are given, or found. Raises
    TableError."""
    encoding = find_encoding(opener, name, given)
    head, size = [], 0
    for line in _clean_lines(encoding, opener, Tally()):
        head.append(line)
        size += len(line)
        if size > _HEAD_CHARS:
            break
    dialect = sniff(head, delimiter)
    first = [(n, cells) for n, cells in read_records(iter(head), dialect) if cells is not None]
    top = find_header(first[:SAMPLE_ROWS])
    found = Found("csv", encoding.words, dialect.delimiter, top.line, top.skipped)
    wanted_width = len(top.columns)

    def read(columns: Sequence[str], tally: Tally) -> Iterator[tuple[int, list[str]]]:
        at = {column: place for place, column in enumerate(top.columns)}
        places = [at[column] for column in columns]
        needed = 0 if may_be_short else max(places, default=0) + 1
        for number, cells in read_records(_clean_lines(encoding, opener, tally), dialect):
            if number <= top.last:
                continue
            if cells is None:
                tally.add("quotes", number)
                continue
            if len(cells) < needed or any(map(str.strip, cells[wanted_width:])):
                tally.add("width", number)
                continue
            cells.extend([""] * (wanted_width - len(cells)))
            yield number, [cells[place] for place in places]

    return Table(name, top.columns, found, top.notes(), read)


def _clean_lines(
    encoding: Encoding, opener: Opener, tally: Tally, newline: str = ""
) -> Iterator[str]:
    """Yield a file's lines without what is not text in them."""
    mixed = encoding.how == "mixed"
    for number, line in enumerate(decoded_lines(encoding, opener, newline), start=1):
        clean = join_mixed(line) if mixed else line
        if clean != line:
            tally.add("mixed", number)
        if "\0" in clean:
            tally.add("nul", number)
            clean = clean.replace("\0", "")
        yield clean


def open_jsonl(opener: Opener, name: str, given: str | None) -> Table:
    """Open JSON Lines: chats (``worker.common.tables.chat``), or objects whose keys are columns,
    those of nested objects joined by dots. Raises TableError."""
    encoding = find_encoding(opener, name, given)
    first = next((record for _, record in _objects(encoding, opener, Tally())), {})
    if form := form_of(first):
        return open_chat(partial(_objects, encoding, opener), name, form, encoding.words)
    # All objects decide the columns, since exports leave out keys without a value. Each line is
    # parsed at each pass: the parsed objects would take several times the file's size.
    keys: dict[str, None] = {}
    for _, record in _objects(encoding, opener, Tally()):
        keys.update(dict.fromkeys(flatten(record)))
        if len(keys) > MAX_COLUMNS:
            raise TableError(f"{name}: has more than {MAX_COLUMNS:,} different keys")
    if not keys:
        with opener() as file:
            is_list = file.read(64).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        if is_list:
            raise TableError(
                f"{name}: is one JSON list, not an object a line: jq -c '.[]' {name} > lines.jsonl"
            )
        raise TableError(f"{name}: no line is a JSON object: write one object a line")

    def read(columns: Sequence[str], tally: Tally) -> Iterator[tuple[int, list[str]]]:
        for number, record in _objects(encoding, opener, tally):
            flat = flatten(record)
            try:
                cells = [to_text(flat.get(column)) for column in columns]
            except NotText:
                tally.add("type", number)
                continue
            yield number, cells

    return Table(name, tuple(keys), Found("jsonl", encoding.words), [], read)


def _objects(
    encoding: Encoding, opener: Opener, tally: Tally
) -> Iterator[tuple[int, dict[str, Any]]]:
    # Split at \n alone: strings may hold other line separators.
    for number, line in enumerate(_clean_lines(encoding, opener, tally, "\n"), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield number, record
        else:
            tally.add("json", number)
