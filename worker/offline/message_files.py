"""Read messages from a file or standard input, for ``classify`` and ``compare``.

Tables (CSV, TSV, XLSX, Parquet) are read as the trainer's ``prepare`` reads them. A line of JSON
Lines is the value of a Kafka record.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from worker.common.encodings import EncodingError, decoded_file
from worker.common.tables import Table, TableError, read_table
from worker.contract.errors import MessageRejected
from worker.contract.records import InputFormat, SupportMessage, decode_value
from worker.contract.records.decode import extract_message, join_fields, look_up
from worker.contract.taxonomy import label_name
from worker.errors import SettingsError
from worker.records.types import Record, TopicPartition

FileFormat = Literal["csv", "tsv", "xlsx", "parquet", "jsonl", "text"]
TABLES: frozenset[FileFormat] = frozenset({"csv", "tsv", "xlsx", "parquet"})

_ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
}
# Usual names of id columns in exports.
_IDS = ("id", "message_id", "ticket_id")


@dataclass(frozen=True, slots=True)
class MessageFile:
    """An input file. ``source`` is a path, or - for standard input.

    Without ``format`` the file name's ending decides. ``field`` is the column or JSON path of the
    message, ``label_field`` that of its true label, if any. Of several files in a ``folder``, names
    are relative to it. ``keep_broken``: rows that cannot be read come after the others, with their
    reason; else the file is refused for them.
    """

    source: str
    format: FileFormat | None = None
    field: str | None = None
    label_field: str | None = None
    folder: str | None = None
    keep_broken: bool = False

    @property
    def kind(self) -> FileFormat:
        """The given format, or that of the file name's ending. Raises SettingsError."""
        found = self.format or _ENDINGS.get(Path(self.source).suffix.lower())
        if found is None:
            raise SettingsError(f"--input {self.source}: unknown file type: give its --format")
        return found

    @property
    def suffix(self) -> str:
        """The suffix that the file's name lacks for its format."""
        return (
            "" if _ENDINGS.get(Path(self.source).suffix.lower()) == self.kind else f".{self.kind}"
        )

    @property
    def name(self) -> str:
        """The file's name, without its folder."""
        if self.folder is not None:
            return Path(self.source).relative_to(self.folder).as_posix()
        return "stdin" if self.source == "-" else Path(self.source).name


@dataclass(frozen=True, slots=True)
class Row:
    """One message: the record that it is or would be, its text or why it has none, its true label,
    if requested and present, and the cells of a table's row by column.

    ``name`` is what a person finds it by: the message's id, or its line.
    """

    name: str
    record: Record
    message: SupportMessage | MessageRejected
    label: str | None = None
    cells: Mapping[str, str | None] = field(default_factory=dict)


def file_row(
    file: str,
    line: int,
    message: SupportMessage | MessageRejected,
    label: str | None = None,
    cells: Mapping[str, str | None] | None = None,
) -> Row:
    """Return the row at a line of a file."""
    id_ = message.message_id if isinstance(message, SupportMessage) else None
    record = Record(TopicPartition(file, 0), line, None, None)
    truth = label_name(label or "") or None
    return Row(id_ or f"line {line}", record, message, truth, cells or {})


def record_row(record: Record, layout: InputFormat) -> Row:
    """Return the row of a record that was read from Kafka."""
    message: SupportMessage | MessageRejected
    try:
        message = decode_value(record.content, layout)
    except MessageRejected as error:
        message = error
    return Row(record.id, record, message)


def read_rows(file: MessageFile, layout: InputFormat) -> Iterator[Row]:
    """Yield every message in order. ``layout`` has the fields if ``file`` names none. Raises
    SettingsError for an unreadable file or a missing column."""
    if file.field:
        layout = InputFormat("json", (file.field,), layout.id_field)
    if file.kind in TABLES:
        yield from _read_table(file, layout)
        return
    try:
        for number, line in enumerate(_lines(file), 1):
            if file.kind == "text":
                yield file_row(file.name, number, SupportMessage(line.rstrip("\r\n"), None))
            elif line.strip():
                yield _json_row(line, number, file, layout)
    except (EncodingError, OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"--input {file.source}: not readable: {error}") from error


def _json_row(line: str, number: int, file: MessageFile, layout: InputFormat) -> Row:
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return file_row(file.name, number, MessageRejected("not_json", "the line is not JSON"))
    found = look_up(data, file.label_field) if file.label_field else None
    label = found if isinstance(found, str) else None
    try:
        return file_row(file.name, number, extract_message(data, layout), label)
    except MessageRejected as error:
        return file_row(file.name, number, error, label)


def _read_table(file: MessageFile, layout: InputFormat) -> Iterator[Row]:
    try:
        if file.source == "-":
            with open(0, "rb", closefd=False) as stdin:  # not sys.stdin: see _lines
                table = read_table(stdin.read(), f"stdin.{file.kind}")
        else:
            table = read_table(Path(file.source), f"{file.name}{file.suffix}")
        texts = [column for each in layout.text_fields if (column := _column(table, each))]
        if not texts:
            raise _no_column(file, table, layout.text_fields[0], "--field")
        label = _column(table, file.label_field) if file.label_field else None
        if file.label_field and label is None:
            raise _no_column(file, table, file.label_field, "--label-field")
        usual = (layout.id_field, *_IDS) if layout.id_field else _IDS
        id_ = next((column for each in usual if (column := _column(table, each))), None)
        for number, row in table.rows():
            cells = dict(zip(table.columns, row, strict=True))
            text = join_fields([cell for each in texts if (cell := cells[each])])
            message = SupportMessage(text, (cells[id_] or None) if id_ else None)
            truth = cells[label] if label else None
            yield file_row(file.name, number, message, truth, cells)
    except TableError as error:
        raise SettingsError(f"--input {error}") from None
    if file.keep_broken:
        for number, what in table.broken.items():
            yield file_row(file.name, number, MessageRejected("field_missing", f"a row {what}"))
        return
    if broken := [each for each in table.problems if each.broken]:
        listed = "; ".join(each.sentence(table.unit) for each in broken)
        raise SettingsError(f"--input {file.source}: {listed}")


def _column(table: Table, name: str) -> str | None:
    """Return the table's column of this name, or of this name in another case."""
    if name in table.columns:
        return name
    return next((each for each in table.columns if each.casefold() == name.casefold()), None)


def _no_column(file: MessageFile, table: Table, name: str, option: str) -> SettingsError:
    return SettingsError(
        f"--input {file.source}: no column {name!r}, only {', '.join(table.columns)}: choose one "
        f"with {option}"
    )


def _lines(file: MessageFile) -> Iterator[str]:
    if file.source != "-":
        yield from decoded_file(Path(file.source))
        return
    # Not sys.stdin: at exit Python waits for a thread that reads it, so Ctrl-C would hang.
    with open(0, encoding="utf-8-sig", newline="", closefd=False) as stdin:
        yield from stdin
