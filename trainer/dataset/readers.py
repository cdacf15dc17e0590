"""Read exports as rows: CSV, JSON Lines, Parquet, workbooks, and saved Hugging Face datasets.

Files are read strictly: a wrong encoding, a broken line or a missing column is an error with its
place. An error names the type of a bad value, never the value: if the user named the wrong column,
it may be a message's text.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from sys import intern
from typing import Any, cast, get_args

from trainer.dataset.arrow_files import Columns, find_shards, open_arrow, open_parquet
from trainer.dataset.folder import LabelOrigin, Row
from trainer.dataset.settings import ColumnNames
from trainer.dataset.text_files import open_csv, read_text
from trainer.dataset.xlsx import read_sheet
from trainer.errors import BadInput
from worker.contract.digest import sha256_file, sha256_json
from worker.contract.exchange import LabelSource
from worker.contract.taxonomy import label_name

FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A file that was read. ``name`` is without its folder, since the manifest is published."""

    name: str
    sha256: str
    rows: int
    columns: ChosenColumns


def read_source(
    path: Path,
    wanted: ColumnNames,
    *,
    encoding: str = "utf-8",
    sheet: str | None = None,
) -> tuple[list[Row], Source]:
    """Read one file by its suffix, or the folder of a saved dataset. Raises BadInput."""
    kind = FORMATS.get(path.suffix.casefold())
    no_suffix = not path.suffix[1:].isalpha()  # FOLDER/SPLIT, or the name of a dataset on the hub
    if path.is_dir() or (kind is None and no_suffix and not path.exists()):
        return _read_saved(path, wanted)
    if kind is None:
        known = ", ".join(FORMATS)
        raise BadInput(f"{path}: cannot tell the format: the name must end with {known}")
    if kind == "csv":
        rows, chosen = read_csv(path, wanted, encoding=encoding)
    elif kind == "jsonl":
        rows, chosen = read_jsonl(path, wanted, encoding=encoding)
    elif kind == "xlsx":
        rows, chosen = read_xlsx(path, wanted, sheet=sheet)
    else:
        rows, chosen = read_parquet(path, wanted)
    return rows, Source(path.name, sha256_file(path), len(rows), chosen)


def read_csv(
    path: Path, wanted: ColumnNames, *, encoding: str = "utf-8"
) -> tuple[list[Row], ChosenColumns]:
    """Read a CSV file with a header, from which the delimiter is detected. Raises BadInput that
    names the line."""
    names = (wanted.message or "message", wanted.label or "label")
    top, header, records = open_csv(path, encoding, columns=names)
    chosen = choose_columns(wanted, header, f"{path.name}:{top}")
    rows = [
        _row(dict(zip(header, cells, strict=True)), chosen, f"{path.name}:{line}")
        for line, cells in records
    ]
    if not rows:
        raise BadInput(f"{path.name}: a header and no rows")
    return rows, chosen


def read_jsonl(
    path: Path, wanted: ColumnNames, *, encoding: str = "utf-8"
) -> tuple[list[Row], ChosenColumns]:
    """Read a JSON Lines file. Raises BadInput that names the line."""
    # Not splitlines: it also splits at the line separators that JSON strings may hold raw.
    lines = [
        (f"{path.name}:{number}", line)
        for number, line in enumerate(read_text(path, encoding).split("\n"), start=1)
        if line.strip()
    ]
    # All objects decide the columns, since exports leave out keys without a value. Each line is
    # parsed twice: keeping the parsed objects would take several times the file's size.
    keys: dict[str, None] = {}
    for where, line in lines:
        keys.update(dict.fromkeys(_json_object(line, where)))
    if not lines:
        raise BadInput(f"{path.name}: the file is empty")
    chosen = choose_columns(wanted, list(keys), path.name)
    rows: list[Row] = []
    for where, line in lines:
        record = _json_object(line, where)
        for field in ("message", "label"):
            if chosen.of[field] not in record:
                raise BadInput(f"{where}: no {chosen.of[field]!r} ({field}) in this object")
        rows.append(_row(record, chosen, where))
    return rows, chosen


def read_parquet(path: Path, wanted: ColumnNames) -> tuple[list[Row], ChosenColumns]:
    """Read the needed columns of a Parquet file. Raises BadInput for a truncated file or a value of
    the wrong type."""
    rows, chosen = _read_columns(open_parquet, path, path.name, wanted)
    if not rows:
        raise BadInput(f"{path.name}: has no rows")
    return rows, chosen


def read_xlsx(
    path: Path, wanted: ColumnNames, *, sheet: str | None = None
) -> tuple[list[Row], ChosenColumns]:
    """Read a sheet of a workbook; None stands for the only one. Raises BadInput that names sheet,
    row and column."""
    chosen: ChosenColumns | None = None

    def choose(header: list[str], where: str) -> list[str]:
        nonlocal chosen
        chosen = choose_columns(wanted, header, where)
        return list(chosen.of.values())

    records = list(read_sheet(path, sheet, choose))
    if chosen is None or not records:
        raise BadInput(f"{path.name}: a header and no rows")
    return [_row(cells, chosen, where) for where, cells in records], chosen


def _read_saved(path: Path, wanted: ColumnNames) -> tuple[list[Row], Source]:
    """Read all files of a saved dataset. Raises BadInput if their columns differ."""
    rows: list[Row] = []
    first: ChosenColumns | None = None
    digests = {}
    for shard in find_shards(path):
        name = f"{shard.parent.name}/{shard.name}"
        if shard.suffix == ".jsonl":
            some, chosen = read_jsonl(shard, wanted)
        else:
            opener = open_arrow if shard.suffix == ".arrow" else open_parquet
            some, chosen = _read_columns(opener, shard, name, wanted)
        if chosen != (first := first or chosen):
            raise BadInput(f"{name}: has other columns than the previous files: save them again")
        rows += some
        digests[shard.name] = sha256_file(shard)
    if first is None or not rows:
        raise BadInput(f"{path}: has no rows")
    return rows, Source(path.name, sha256_json(digests), len(rows), first)


def _read_columns(
    opener: Callable[[Path, str], Columns], path: Path, name: str, wanted: ColumnNames
) -> tuple[list[Row], ChosenColumns]:
    file = opener(path, name)
    chosen = choose_columns(wanted, file.names, name)
    records = file.read(list(chosen.of.values()))
    rows = [
        _row(record, chosen, f"{name} row {number}")
        for number, record in enumerate(records, start=1)
    ]
    return rows, chosen


def _row(record: Mapping[str, Any], chosen: ChosenColumns, where: str) -> Row:
    of = chosen.of
    return Row(
        id=_label_text(record, of.get("id"), where),
        message=_message_text(record, of["message"], where),
        # Interned: there are a million rows and twenty labels.
        label=intern(label_name(_label_text(record, of["label"], where))),
        sublabel=label_name(_label_text(record, of.get("sublabel"), where)) or None,
        where=where,
        time=read_time(record.get(of["time"]), of["time"], where) if "time" in of else None,
        group=_label_text(record, of.get("group"), where),
        language=read_language(record.get(of["language"]), of["language"], where)
        if "language" in of
        else "",
        origin=_origin(record, of.get("source"), where),
    )


def _origin(record: Mapping[str, Any], column: str | None, where: str) -> LabelOrigin | None:
    """Return the origin of a row's label, None for an empty cell. Raises BadInput."""
    source = _label_text(record, column, where)
    if not source:
        return None
    if source not in get_args(LabelSource):
        known = ", ".join(get_args(LabelSource))
        raise BadInput(f"{where}: {column!r} must be one of {known}, or empty")
    return LabelOrigin(cast("LabelSource", source))


def _message_text(record: Mapping[str, Any], column: str, where: str) -> str:
    """Return a message, empty for null. Raises BadInput for another type."""
    value = record[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadInput(f"{where}: {column!r} must be text, not {type(value).__name__}")
    return value


def _label_text(record: Mapping[str, Any], column: str | None, where: str) -> str:
    """Return a label, an id or a group as text. Whole numbers are accepted, since class numbers and
    ticket numbers are common. Raises BadInput for other types."""
    value = record.get(column) if column else None
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise BadInput(
            f"{where}: {column!r} must be text or a whole number, not {type(value).__name__}"
        )
    return str(value).strip()


def _json_object(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where}: not valid JSON ({error}): one object a line") from error
    if not isinstance(record, dict):
        raise BadInput(f"{where}: must be a JSON object, one a line, not a list or a bare value")
    return record


# Tried in this order if the usual name is absent and the user named no column. Files for
# instruction tuning have "instruction" and "response".
_GUESSES = {
    "message": ("instruction", "text", "body", "content", "prompt", "input", "question", "query"),
    "label": ("response", "category", "class", "intent", "output", "completion", "target", "topic"),
    "id": ("ticket_id", "message_id"),
    "sublabel": ("subcategory",),
}
_ONLY_NAMED = frozenset({"time", "group", "language", "source"})
_OPTIONAL = frozenset({"id", "sublabel"}) | _ONLY_NAMED


@dataclass(frozen=True, slots=True)
class ChosenColumns:
    """``of`` maps the fields of ``ColumnNames`` to columns, without the fields that have none;
    ``guessed`` lists the fields whose column was guessed."""

    of: Mapping[str, str]
    guessed: tuple[str, ...] = ()

    def describe(self) -> dict[str, str | None]:
        """Return field -> column, for the manifest."""
        usual = ("message", "label", "id", "sublabel")
        return {field: self.of.get(field) for field in usual} | dict(self.of)


def choose_columns(wanted: ColumnNames, there: Sequence[str], where: str) -> ChosenColumns:
    """Match fields with the columns in the file. Raises BadInput for a missing column (listing the
    existing ones) or one that occurs twice."""
    doubled = sorted({name for name in there if there.count(name) > 1})
    if doubled:
        raise BadInput(f"{where}: the column {doubled[0]!r} occurs twice: rename one")
    taken: dict[str, str] = {}
    guessed = []
    for field, name in asdict(wanted).items():
        column = name
        if column is None and field not in _ONLY_NAMED:
            free = [
                each for each in _GUESSES[field] if each in there and each not in taken.values()
            ]
            column = field if field in there else next(iter(free), None)
        if column is None and field in _OPTIONAL:
            continue
        if column is None or column not in there:
            raise BadInput(_missing(field, name or field, there, where))
        if column in taken.values():
            raise BadInput(f"{where}: the column {column!r} is used for two fields: see --help")
        if name is None and column != field:
            guessed.append(field)
        taken[field] = column
    return ChosenColumns(taken, tuple(guessed))


def _missing(field: str, name: str, there: Sequence[str], where: str) -> str:
    columns = ", ".join(there) or "none"
    near = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"{where}: no column {name!r}{hint} There are: {columns}. Name one by --{field}-column"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DIGITS = re.compile(r"[0-9]{9,13}(?:\.[0-9]{1,9})?")
# Seconds from 1973 to 5138, or milliseconds from 1973. Below that, 20240506 would be read as 1970.
_FIRST_SECONDS, _FIRST_MILLISECONDS, _END = 1e8, 1e11, 1e13

_LANGUAGE = re.compile(r"[^\W\d_]+(?:[-_ ][^\W_]+)*")
_LANGUAGE_CHARS = 35
"""The length that RFC 5646, section 4.4.1, demands of a field for language tags."""

UNKNOWN_LANGUAGE = "unknown"


def read_time(value: Any, column: str, where: str) -> datetime:
    """Return a time as it is written, aware or naive.

    Accepts ISO 8601 and RFC 3339 (``2024-05-06``, ``2024-05-06 07:08:09``,
    ``2024-05-06T07:08:09.123Z``), Parquet's times and dates, and seconds or milliseconds since
    1970. Raises BadInput, also for an empty cell, and for ``05/06/2024``, which is ambiguous.
    """
    try:
        if isinstance(value, datetime):
            return value
        if isinstance(value, date):
            return datetime(value.year, value.month, value.day)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _since_1970(float(value))
        if isinstance(value, str) and _DIGITS.fullmatch(value.strip()):
            return _since_1970(float(value))
        if isinstance(value, str) and value.strip():
            return datetime.fromisoformat(value.strip())
    except (ValueError, OverflowError):
        pass  # raised below: the exception's message would quote the value
    raise BadInput(
        f"{where}: {column!r} is not a time ({_kind(value)}): write it as 2024-05-06T07:08:09Z, or "
        "as seconds or milliseconds since 1970"
    )


def read_language(value: Any, column: str, where: str) -> str:
    """Return a language's code or name, case folded, or ``UNKNOWN_LANGUAGE`` for an empty cell.
    Raises BadInput."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return UNKNOWN_LANGUAGE
    name = value.strip() if isinstance(value, str) else ""
    if len(name) > _LANGUAGE_CHARS or not _LANGUAGE.fullmatch(name):
        raise BadInput(
            f"{where}: {column!r} is not a language ({_kind(value)}): write a code or a name, such "
            "as de, pt-BR or french"
        )
    return name.casefold()


def _since_1970(number: float) -> datetime:
    if not _FIRST_SECONDS <= number < _END:
        raise ValueError("outside the range of seconds and of milliseconds")
    return _EPOCH + timedelta(seconds=number / 1000 if number >= _FIRST_MILLISECONDS else number)


def _kind(value: Any) -> str:
    if value is None or (isinstance(value, str) and not value.strip()):
        return "it is empty"
    if isinstance(value, str):
        return f"text of {len(value)} characters"
    return f"a value of type {type(value).__name__}"
