"""Messages from a file or standard input: CSV, JSON lines, or one message per line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from worker.contract.records import InputFormat as Layout
from worker.contract.records import SupportMessage
from worker.contract.records.decode import extract_message, look_up
from worker.errors import MessageRejected, SettingsError

FileFormat = Literal["csv", "jsonl", "text"]

_ENDINGS: dict[str, FileFormat] = {
    ".csv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".txt": "text",
}


@dataclass(frozen=True, slots=True)
class MessageFile:
    """Where messages are and how to find them. ``source`` is a path, or - for standard input.

    ``format`` None is told by the file name's ending. ``field`` is the CSV column or JSON path of
    the message, ``label_field`` that of its true label, where there is one.
    """

    source: str
    format: FileFormat | None = None
    field: str | None = None
    label_field: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One message of the input: its fields unchanged, its text or why there is none, and its true
    label where it was requested and is there."""

    fields: dict[str, Any]
    message: SupportMessage | MessageRejected
    label: str | None = None


def file_format(file: MessageFile) -> FileFormat:
    """Return the format that is given, or that the ending implies. Raises SettingsError."""
    found = file.format or _ENDINGS.get(Path(file.source).suffix.lower())
    if found is None:
        raise SettingsError(f"--input {file.source}: give its format with --format")
    return found


def read_rows(file: MessageFile, layout: Layout) -> Iterator[Row]:
    """Yield every message, in order. ``layout`` names the JSON fields where ``file`` names none.

    Raises SettingsError when the file cannot be read or lacks a column.
    """
    kind = file_format(file)
    with _open(file.source) as lines:
        try:
            if kind == "csv":
                yield from _read_csv(lines, file)
            elif kind == "jsonl":
                yield from _read_jsonl(lines, file, layout)
            else:
                yield from (
                    Row({"line": number}, SupportMessage(line.rstrip("\r\n"), None))
                    for number, line in enumerate(lines, 1)
                )
        except (UnicodeDecodeError, csv.Error) as error:
            raise SettingsError(f"--input {file.source}: is not readable: {error}") from error


def _read_csv(lines: IO[str], file: MessageFile) -> Iterator[Row]:
    reader = csv.DictReader(lines)
    columns = list(reader.fieldnames or [])
    column = file.field or "message"
    for name, option in ((column, "--field"), (file.label_field, "--label-field")):
        if name is not None and name not in columns:
            raise SettingsError(
                f"--input {file.source}: has no column {name!r} (its columns: "
                f"{', '.join(columns) or 'none'}); choose one with {option}"
            )
    for fields in reader:
        label = fields[file.label_field] if file.label_field else None
        yield Row(fields, SupportMessage(fields[column] or "", None), label or None)


def _read_jsonl(lines: IO[str], file: MessageFile, layout: Layout) -> Iterator[Row]:
    if file.field:
        layout = Layout("json", (file.field,), layout.id_field)
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = json.loads(line)
        except (ValueError, RecursionError):
            yield Row({"line": number}, MessageRejected("not_json", "the line is not JSON"))
            continue
        label = look_up(data, file.label_field) if file.label_field else None
        label = label if isinstance(label, str) and label else None
        try:
            message = extract_message(data, layout)
        except MessageRejected as error:
            yield Row({"line": number}, error, label)
            continue
        yield Row({"line": number, "message_id": message.message_id}, message, label)


@contextmanager
def _open(source: str) -> Iterator[IO[str]]:
    if source == "-":
        # Not sys.stdin: at exit, Python waits for the thread that reads it.
        with open(0, encoding="utf-8-sig", newline="", closefd=False) as file:
            yield file
        return
    try:
        with Path(source).open(encoding="utf-8-sig", newline="") as file:
            yield file
    except OSError as error:
        raise SettingsError(f"--input {source}: {error.strerror}") from error
