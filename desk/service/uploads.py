"""Files that an owner uploads: which kind a file is, and the tasks in one.

A file of tasks is read line by line, and no other JSON value may be large: parsed JSON takes up to
thirty times the memory of its text.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Literal

from desk.errors import Refused
from worker.common.tables import Limits, Table, TableError, format_of, read_table
from worker.contract.exchange import Task, task_id
from worker.contract.text import message_sha256

# Parsing 56 MB of JSON took 1.5 GB of memory.
MAX_JSON_BYTES = 8_000_000
"""Largest JSON value that is parsed: a line of tasks, or a whole advice or proposal."""

MAX_SHEET_BYTES = 100_000_000
"""Largest workbook, unpacked. A few kilobytes can unpack to gigabytes."""

MAX_BATCH_NAME = 120

_COLUMNS = {"text": "text", "message": "text", "id": "id", "message_id": "id", "label": "label"}

UploadKind = Literal["tasks", "advice", "proposal", "table"]


def kind_of(content: bytes, name: str) -> UploadKind:
    """Return what a file holds, by its name and its JSON. Raises Refused if that is too large."""
    if format_of(name) in {"csv", "xlsx", "parquet"}:
        return "table"
    # Only so much is parsed to find out: a larger file can still be tasks, read line by line.
    head = content.lstrip()[: MAX_JSON_BYTES + 1]
    first = head.partition(b"\n")[0]
    if _schema(first) == "tasks":
        return "tasks"
    if _schema(first) == _NO_SCHEMA and format_of(name) == "jsonl":
        return "table"
    if len(content) > MAX_JSON_BYTES:
        raise Refused(
            f"{name}: a file of {len(content) / 1e6:.0f} MB must be tasks, one JSON object a line; "
            f"advice and proposals have up to {MAX_JSON_BYTES / 1e6:.0f} MB"
        )
    schema = _schema(content)
    if schema in {"advice", "proposal"}:
        return schema  # type: ignore[return-value]
    return "tasks"  # reading it reports the line at fault


def _schema(content: bytes) -> str:
    if len(content) > MAX_JSON_BYTES:
        return ""
    try:
        value = json.loads(content.decode("utf-8-sig"))
    # A few kilobytes of opening brackets are nested too deep for the parser.
    except (ValueError, RecursionError):
        return ""
    return str(value.get("schema", _NO_SCHEMA)).partition("/")[0] if isinstance(value, dict) else ""


_NO_SCHEMA = "no schema"


def lines_of(content: bytes, name: str) -> Iterator[str]:
    """Yield the lines of a file. Raises Refused if it is not UTF-8 or a line is too long."""
    start = 3 if content.startswith(b"\xef\xbb\xbf") else 0
    while start < len(content):
        end = content.find(b"\n", start)
        end = len(content) if end < 0 else end
        if end - start > MAX_JSON_BYTES:
            raise Refused(
                f"{name}: a line has more than {MAX_JSON_BYTES / 1e6:.0f} MB: write one task a line"
            )
        yield text_of(content[start:end], name, before=start)
        start = end + 1


def text_of(content: bytes, name: str, *, before: int = 0) -> str:
    """Decode a file, or a part with so many bytes before it. Raises Refused if it is not UTF-8."""
    try:
        return content.decode("utf-8-sig" if before == 0 else "utf-8")
    except UnicodeDecodeError as error:
        raise Refused(
            f"{name}: not UTF-8 from byte {before + error.start} on: save it as UTF-8 (in a "
            "spreadsheet: CSV UTF-8)"
        ) from None


def table_tasks(content: bytes, name: str, labels: Sequence[str]) -> list[Task]:
    """Return the tasks of a table (``worker.common.tables``), one for each message.

    Its columns are text (or message), and optionally id and label. A row with a label asks whether
    it is right, one without asks for a label. A message that is there twice is one task. Raises
    Refused with all problems and their rows.
    """
    try:
        table = read_table(content, name, limits=Limits(max_unpacked_bytes=MAX_SHEET_BYTES))
        places: dict[str, str] = {}
        for column in table.columns:
            if (field := _COLUMNS.get(column.casefold())) is not None:
                places.setdefault(field, column)  # of two columns the first counts
        if "text" not in places:
            raise Refused(
                f"{name}: the first row names no column text: columns are text, id, label"
            )
        rows = [
            (number, {field: cell.strip() for field, cell in zip(places, cells, strict=True)})
            for number, cells in table.rows(list(places.values()))
        ]
    except TableError as error:
        # An upload has no options.
        words = str(error).replace("name one by --sheet", "leave one with a table")
        raise Refused(words) from None
    rows = [(number, cells) for number, cells in rows if any(cells.values())]
    _check_rows(table, rows, labels)
    batch = PurePath(name).stem[:MAX_BATCH_NAME] or "table"
    tasks: dict[str, Task] = {}
    for _, cells in rows:
        task = _task(cells, batch)
        tasks.setdefault(task.id, task)
    return list(tasks.values())


def _task(cells: Mapping[str, str], batch: str) -> Task:
    label = cells.get("label") or None
    sha256 = message_sha256(cells["text"])
    purpose: Literal["learn", "check"] = "learn" if label is None else "check"
    return Task(
        schema="tasks/1",
        id=task_id(None, purpose, sha256),
        message_id=cells.get("id", ""),
        message_sha256=sha256,
        text=cells["text"],
        purpose=purpose,
        dataset=None,
        batch=batch,
        label=label,
    )


_Rows = Sequence[tuple[int, Mapping[str, str]]]


def _check_rows(table: Table, rows: _Rows, labels: Sequence[str]) -> None:
    """Raise Refused that lists all problems of the rows."""
    problems = [each.sentence(table.unit) for each in table.problems if each.broken]
    known = f"{', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}"
    for wrong, what in (
        ([number for number, cells in rows if not cells["text"]], "the text is empty"),
        (
            [number for number, cells in rows if cells.get("label", "") not in {"", *labels}],
            f"the label is not in this desk's taxonomy ({known})",
        ),
    ):
        if wrong:
            more = f" and {len(wrong) - _LISTED} more" if len(wrong) > _LISTED else ""
            listed = ", ".join(map(str, wrong[:_LISTED]))
            unit = table.unit if len(wrong) == 1 else f"{table.unit}s"
            problems.append(f"{unit} {listed}{more}: {what}")
    if problems:
        raise Refused(f"{table.name}: {'; '.join(problems)}: nothing was loaded")
    if not rows:
        raise Refused(f"{table.name}: there is no message in it")


_LISTED = 10
