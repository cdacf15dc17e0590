"""Files that an owner uploads: which kind a file is, and the tasks in one.

A file of tasks is read line by line, and no other JSON value may be large: parsed JSON takes up to
thirty times the memory of its text.
"""

from __future__ import annotations

import csv
import io
import json
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Literal
from xml.etree.ElementTree import ParseError

from desk.errors import Refused
from worker.contract.exchange import Task, task_id
from worker.contract.text import message_sha256

MAX_JSON_BYTES = 8_000_000
"""Largest JSON value that is parsed: a line of tasks, or a whole advice or proposal."""

MAX_SHEET_BYTES = 100_000_000
"""Largest workbook, unpacked. A few kilobytes can unpack to gigabytes."""

MAX_BATCH_NAME = 120

_COLUMNS = {"text": "text", "message": "text", "id": "id", "message_id": "id", "label": "label"}

UploadKind = Literal["tasks", "advice", "proposal", "table"]


def kind_of(content: bytes, name: str) -> UploadKind:
    """Return what a file holds, by its name and its JSON. Raises Refused if that is too large."""
    if PurePath(name.lower()).suffix in {".csv", ".tsv", ".xlsx"}:
        return "table"
    head = content.lstrip()[: MAX_JSON_BYTES + 1]
    first = head.partition(b"\n")[0]
    if _schema(first) == "tasks":
        return "tasks"
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
    except (ValueError, RecursionError):
        return ""
    return str(value.get("schema")).partition("/")[0] if isinstance(value, dict) else ""


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
    """Return the tasks of a CSV file or a workbook, one for each message.

    The header row names the columns: text (or message), and optionally id and label. A row with a
    label asks whether it is right, one without asks for a label. A message that is there twice is
    one task. Raises Refused with the row at fault.
    """
    is_sheet = name.lower().endswith(".xlsx")
    rows = iter(_sheet_rows(content, name) if is_sheet else _csv_rows(content, name))
    _, header = next(rows, (0, []))
    places = {
        _COLUMNS[cell.strip().lower()]: at
        for at, cell in reversed(list(enumerate(header)))  # of two columns the first counts
        if cell.strip().lower() in _COLUMNS
    }
    if "text" not in places:
        raise Refused(f"{name}: the first row names no column text: columns are text, id, label")
    batch = PurePath(name).stem[:MAX_BATCH_NAME] or "table"
    tasks: dict[str, Task] = {}
    for number, row in rows:
        cells = {each: row[at].strip() if at < len(row) else "" for each, at in places.items()}
        if not any(cells.values()):
            continue
        if not cells["text"]:
            raise Refused(f"{name} row {number}: the text is empty: nothing of it was loaded")
        label = cells.get("label") or None
        if label is not None and label not in labels:
            raise Refused(
                f"{name} row {number}: the label is not in this desk's taxonomy "
                f"({', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}): nothing was loaded"
            )
        sha256 = message_sha256(cells["text"])
        purpose: Literal["learn", "check"] = "learn" if label is None else "check"
        id_ = task_id(None, purpose, sha256)
        tasks.setdefault(
            id_,
            Task(
                schema="tasks/1",
                id=id_,
                message_id=cells.get("id", ""),
                message_sha256=sha256,
                text=cells["text"],
                purpose=purpose,
                dataset=None,
                batch=batch,
                label=label,
            ),
        )
    if not tasks:
        raise Refused(f"{name}: there is no message in it")
    return list(tasks.values())


def _csv_rows(content: bytes, name: str) -> Iterable[tuple[int, list[str]]]:
    text = text_of(content, name)
    head = text.partition("\n")[0]
    # Spreadsheets write semicolons where the comma is the decimal sign.
    delimiter = max(",;\t", key=head.count)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise Refused(f"{name} line {reader.line_num}: {error}: save it as CSV again") from None


def _sheet_rows(content: bytes, name: str) -> Iterable[tuple[int, list[str]]]:
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    damaged = (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, ParseError, EOFError)
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            size = sum(each.file_size for each in packed.infolist())
        if size > MAX_SHEET_BYTES:
            raise Refused(
                f"{name}: unpacked it has {size / 1e6:.0f} MB, and {MAX_SHEET_BYTES / 1e6:.0f} MB "
                "are allowed: save it as CSV"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and validations, which are not read
            book = openpyxl.load_workbook(io.BytesIO(content), read_only=True, data_only=True)
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # the size that a file claims may be wrong
        for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
            if any(value is not None for value in row):
                yield number, ["" if value is None else _cell(value) for value in row]
    except damaged as error:
        raise Refused(
            f"{name}: not a whole .xlsx workbook ({type(error).__name__}): save it again as .xlsx, "
            "without a password"
        ) from None


def _cell(value: object) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
