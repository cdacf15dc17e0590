"""Read tables as people have them: CSV, JSON Lines, Parquet, Arrow, and workbooks (.xlsx).

Everything that a file can be read in spite of is found out and shown (``Found``), and all of its
problems come back at once (``Table.problems``), each with its count and first rows. Neither holds a
cell's text. Rows are read again at each pass, so a file is never held whole.

Standard library at import; the extra ``tables`` holds what encodings and workbooks need.
"""

from __future__ import annotations

import datetime as dt
import io
import json
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.util import find_spec
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO, Literal
from xml.etree.ElementTree import ParseError

from worker.common.csv_rows import MAX_COLUMNS, read_records, sniff
from worker.common.encodings import (
    Encoding,
    EncodingError,
    Opener,
    cells_mender,
    decoded_lines,
    find_encoding,
    join_mixed,
)

Format = Literal["csv", "jsonl", "parquet", "arrow", "xlsx"]

SUFFIXES: Mapping[str, Format] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".xlsx": "xlsx",
    ".xlsm": "xlsx",
}

SAMPLE_ROWS = 200
_HEAD_CHARS = 1 << 18
_FIRST_ROWS = 5


class TableError(Exception):
    """Nothing of a file can be read; one line that names the file, the problem and the fix."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may take: ``max_bytes`` as it is, ``max_unpacked_bytes`` and ``max_ratio`` of an
    archive's unpacked size to its packed one (text in a workbook packs to a twentieth)."""

    max_bytes: int | None = None
    max_unpacked_bytes: int = 1 << 30
    max_ratio: int = 250


@dataclass(frozen=True, slots=True)
class Found:
    """How a file was read. ``header`` is the line or row of the column names, None without one;
    ``skipped`` counts the rows above it. Fields that a format does not have are None."""

    format: Format
    encoding: str | None = None
    delimiter: str | None = None
    header: int | None = None
    skipped: int = 0
    sheet: str | None = None

    def words(self) -> str:
        """Return it as one phrase, such as "CSV, cp1252 (detected), separated by ';'"."""
        names = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
        parts = [{"csv": "CSV", "jsonl": "JSON Lines", "xlsx": "a workbook"}.get(self.format)
                 or self.format.capitalize()]  # fmt: skip
        if self.encoding:
            parts.append(self.encoding)
        if self.delimiter:
            parts.append(f"separated by {names.get(self.delimiter, repr(self.delimiter))}")
        if self.sheet is not None:
            parts.append(f"sheet {self.sheet!r}")
        if self.header is None and self.format in {"csv", "xlsx"}:
            parts.append("no header")
        elif self.skipped:
            parts.append(f"header in row {self.header}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about ``count`` rows (or, with ``rows`` empty, about the file): ``what`` ends the
    sentence "3 rows ..." (or "export.csv ..."), ``remedy`` says how to fix it.

    ``broken``: these rows could not be read and are left out. Otherwise the problem was dealt with,
    and ``what`` says how.
    """

    kind: str
    what: str
    count: int
    rows: tuple[int, ...] = ()
    remedy: str = ""
    broken: bool = False

    def sentence(self, unit: str = "line") -> str:
        """Return one line without the file's name."""
        text = self.what
        if self.rows:
            many = "s" if self.count > 1 else ""
            more = ", ..." if self.count > len(self.rows) else ""
            listed = ", ".join(map(str, self.rows))
            text = f"{self.count:,} row{many} {text} ({unit}{many} {listed}{more})"
        return f"{text}: {self.remedy}" if self.remedy else text


# kind -> (what, remedy, broken)
_KINDS = {
    "quotes": ("with a quote that is not closed or not doubled",
               "close it, or double quotes within a cell", True),
    "width": ("with another number of cells than the header has",
              "put cells that hold the delimiter in quotes", True),
    "json": ("not a JSON object", "write one object a line", True),
    "type": ("with a list, an object or bytes where text belongs",
             "write text, or name another column", True),
    "formula": ("with a formula whose result was never saved",
                "open the file in a spreadsheet program and save it", True),
    "mended": ("with characters that an earlier wrong encoding had garbled: repaired", "", False),
    "garbled": ("with characters that look garbled and cannot be repaired",
                "export the file again as UTF-8", False),
    "mixed": ("not in UTF-8 like the rest: read as cp1252", "", False),
    "nul": ("with NUL bytes: removed", "", False),
    "error": ("with a spreadsheet's error such as #N/A: read as an empty cell", "", False),
    "class": ("without a class (-1): read as an empty cell", "", False),
    "merged": ("in merged cells: each cell has the value of the first", "", False),
}  # fmt: skip

# As spreadsheets write them in English, German, French, Spanish and Portuguese.
_ERRORS = frozenset(
    "#N/A #NV #N/D #REF! #BEZUG! #REF #VALUE! #WERT! #VALEUR! #VALOR! #¡VALOR! #DIV/0! #¡DIV/0! "
    "#NAME? #NOM? #NOMBRE? #¿NOMBRE? #NOME? #NULL! #NULO! #NUM! #ZAHL! #NOMBRE! #NÚM! #¡REF! "
    "#SPILL! #CALC! #GETTING_DATA".split()
)


class _Tally:
    """Counts problems by kind during one pass."""

    def __init__(self) -> None:
        self._rows: dict[str, list[int]] = {}
        self._counts: dict[str, int] = {}

    def add(self, kind: str, row: int) -> None:
        first = self._rows.setdefault(kind, [])
        if first and first[-1] == row:
            return  # several cells of one row
        self._counts[kind] = self._counts.get(kind, 0) + 1
        if len(first) < _FIRST_ROWS:
            first.append(row)

    def problems(self) -> list[Problem]:
        return [
            Problem(kind, what, self._counts[kind], tuple(self._rows[kind]), remedy, broken)
            for kind, (what, remedy, broken) in _KINDS.items()
            if kind in self._counts
        ]


_Rows = Callable[[Sequence[str], _Tally], Iterator[tuple[int, list[str]]]]
"""One pass: the rows' numbers and their cells in the given columns, without mending."""


@dataclass(slots=True)
class Table:
    """A file that was opened. ``columns`` are the names of its columns; ``notes`` are about the
    file as a whole. ``problems`` holds those too, and after a pass by ``rows`` those of the rows in
    the columns that were read."""

    name: str
    columns: tuple[str, ...]
    found: Found
    notes: list[Problem]
    _read: _Rows
    problems: list[Problem] = field(default_factory=list)

    @property
    def unit(self) -> str:
        """What a row's number counts: lines, or rows."""
        return "line" if self.found.format in {"csv", "jsonl"} else "row"

    def where(self, number: int) -> str:
        """Return the place of a row, for errors."""
        if self.found.sheet is not None:
            return f"{self.name} sheet {self.found.sheet!r} row {number}"
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name} row {number}"

    def rows(self, columns: Sequence[str] | None = None) -> Iterator[tuple[int, list[str]]]:
        """Read the file: yield each row's number, as a person sees it in the file, and its cells in
        ``columns`` (all of them by default); a missing cell is empty.

        ``problems`` is complete when the iterator is exhausted. Raises TableError for a file that
        is damaged further down.
        """
        tally = _Tally()
        mend: Callable[[str], tuple[str, bool]] | None = None
        for number, cells in self._read(self.columns if columns is None else columns, tally):
            for at, cell in enumerate(cells):
                if cell.isascii():
                    if cell[:1] == "#" and cell.strip() in _ERRORS:
                        cells[at] = ""
                        tally.add("error", number)
                    continue
                mend = mend or _mender(self.name)
                mended, garbled = mend(cell)
                if mended != cell:
                    cells[at] = mended
                    tally.add("mended", number)
                if garbled:
                    tally.add("garbled", number)
                if cell[0] == "#" and cell.strip() in _ERRORS:
                    cells[at] = ""
                    tally.add("error", number)
            yield number, cells
        self.problems = [*self.notes, *tally.problems()]

    def sample(self, size: int = SAMPLE_ROWS) -> list[list[str]]:
        """Return the first rows, for a look at the columns; they leave ``problems`` as it is."""
        return [cells for _, cells in islice(self.rows(), size)]


def _mender(name: str) -> Callable[[str], tuple[str, bool]]:
    try:
        return cells_mender()
    except EncodingError as error:
        raise TableError(f"{name}: {error}") from error


def format_of(name: str) -> Format | None:
    """Return a file's format by its name, None if the name does not say."""
    return SUFFIXES.get(PurePath(name).suffix.casefold())


def read_table(
    source: Path | bytes,
    name: str,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    sheet: str | None = None,
    limits: Limits = Limits(),
) -> Table:
    """Open a file, or its bytes; ``name`` is for its format and for errors.

    ``encoding``, ``delimiter`` and ``sheet`` are the user's choices instead of what is found.
    Raises TableError if nothing of it can be read.
    """
    opener = _opener(source, name)
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if limits.max_bytes is not None and size > limits.max_bytes:
        raise TableError(
            f"{name}: has {size / 1e6:,.0f} MB, and {limits.max_bytes / 1e6:,.0f} MB are allowed: "
            "split the file"
        )
    with opener() as file:
        head = file.read(1 << 12)
    if size == len(head) and not head.strip(b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"):
        raise TableError(f"{name}: the file is empty")
    kind = _kind(head, name)
    try:
        if kind == "csv":
            return _open_csv(opener, name, encoding, delimiter)
        if kind == "jsonl":
            return _open_jsonl(opener, name, encoding)
        if kind == "xlsx":
            return _open_xlsx(opener, name, sheet, limits)
        return _open_arrow(opener, name, kind)
    except EncodingError as error:
        text = str(error)
        raise TableError(text if text.startswith((name, "--")) else f"{name}: {text}") from error


def _opener(source: Path | bytes, name: str) -> Opener:
    if isinstance(source, bytes):
        return lambda: io.BytesIO(source)
    try:
        source.open("rb").close()
    except OSError as error:
        raise TableError(f"{name}: cannot read it: {error.strerror}") from error
    return lambda: source.open("rb")


_MAGIC = (
    (b"\xd0\xcf\x11\xe0", "an old .xls workbook or one with a password: save it as .xlsx, without "
                          "a password"),
    (b"\x1f\x8b", "compressed: unpack it"),
    (b"7z\xbc\xaf", "compressed: unpack it"),
    (b"%PDF", "a PDF: export the table as CSV"),
    (b"SQLite format 3", "a database: export the table as CSV"),
)  # fmt: skip


def _kind(head: bytes, name: str) -> Format:
    """Return the format, by what the file begins with rather than by its name. Raises
    TableError."""
    for magic, what in _MAGIC:
        if head.startswith(magic):
            raise TableError(f"{name}: is {what}")
    if head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<html", b"<!doctype",
                                                                     b"<table")):  # fmt: skip
        raise TableError(f"{name}: is an HTML page: open it in a spreadsheet and save it as .xlsx")
    if head.startswith(b"PK\x03\x04"):
        return "xlsx"
    if head.startswith(b"PAR1"):
        return "parquet"
    kind = format_of(name)
    if kind is None:
        raise TableError(
            f"{name}: cannot tell the format: the name must end with {', '.join(SUFFIXES)}"
        )
    if kind == "xlsx":
        raise TableError(
            f"{name}: not a complete .xlsx workbook: save it again as .xlsx, without a password"
        )
    return kind


# --- CSV


def _open_csv(opener: Opener, name: str, given: str | None, delimiter: str | None) -> Table:
    encoding = find_encoding(opener, name, given)
    head, size = [], 0
    for line in decoded_lines(encoding, opener):
        head.append(line.replace("\0", ""))
        size += len(line)
        if size > _HEAD_CHARS:
            break
    dialect = sniff(head, delimiter)

    def raw(tally: _Tally) -> Iterator[tuple[int, list[str] | None]]:
        return read_records(_clean_lines(encoding, opener, tally), dialect)

    first = [(n, cells) for n, cells in read_records(iter(head), dialect) if cells is not None]
    top = _find_header(first[:SAMPLE_ROWS])
    found = Found("csv", encoding.words, dialect.delimiter, top.line, top.skipped)
    wanted_width = len(top.columns)

    def read(columns: Sequence[str], tally: _Tally) -> Iterator[tuple[int, list[str]]]:
        places = [top.columns.index(column) for column in columns]
        for number, cells in raw(tally):
            if number <= top.last:
                continue
            if cells is None:
                tally.add("quotes", number)
                continue
            if len(cells) != wanted_width and any(map(str.strip, cells[wanted_width:])):
                tally.add("width", number)
                continue
            if len(cells) < wanted_width:
                tally.add("width", number)
                continue
            yield number, [cells[at] for at in places]

    return Table(name, top.columns, found, top.notes(), read)


def _clean_lines(encoding: Encoding, opener: Opener, tally: _Tally) -> Iterator[str]:
    mixed = encoding.how == "mixed"
    for number, line in enumerate(decoded_lines(encoding, opener), start=1):
        if "\0" in line:
            tally.add("nul", number)
            line = line.replace("\0", "")
        if mixed and not line.isascii() and (joined := join_mixed(line)) != line:
            tally.add("mixed", number)
            line = joined
        yield line


# --- the header


@dataclass(frozen=True, slots=True)
class _Top:
    """What is above the rows. ``line`` is the header's, None without one; rows up to ``last`` are
    not data; ``twice`` are the columns that have a name again."""

    columns: tuple[str, ...]
    line: int | None
    last: int
    skipped: int = 0
    twice: tuple[str, ...] = ()

    def notes(self) -> list[Problem]:
        found = []
        if self.line is None:
            found.append(Problem("no header", "has no header: its columns are called "
                                 f"{self.columns[0]!r} and so on", 1))  # fmt: skip
        if self.twice:
            listed = ", ".join(map(repr, self.twice))
            found.append(Problem("twice", f"has column names twice; the later ones are called "
                                 f"{listed}", len(self.twice)))  # fmt: skip
        return found


_TITLES = 10
"""Rows above a header, such as "Export of 3 May"."""

_WORDS_IN_NAME = 6
_CHARS_IN_NAME = 60


def _find_header(rows: Sequence[tuple[int, Sequence[str]]]) -> _Top:
    """Find the column names in a file's first rows. Rows above with a single cell are skipped where
    the rows below have several."""
    if not rows:
        raise EncodingError("the file is empty")
    filled = [sum(bool(cell.strip()) for cell in cells) for _, cells in rows]
    skipped = 0
    if max(filled) > 1:
        skipped = next(at for at, count in enumerate(filled) if count > 1)
        skipped = skipped if skipped <= _TITLES else 0
    line, header = rows[skipped]
    below = [cells for _, cells in rows[skipped + 1 :]]
    if not _is_header(header, below):
        width = _width([header, *below])
        columns = tuple(f"column {at}" for at in range(1, width + 1))
        return _Top(columns, None, rows[skipped - 1][0] if skipped else 0, skipped)
    width = max(_width([header]), min(_width(below[:20]), len(header)))
    columns, twice = _names(header[:width])
    return _Top(columns, line, line, skipped, twice)


def _width(rows: Iterable[Sequence[str]]) -> int:
    """Return the width of the rows without columns that are empty in all of them."""
    return max(
        (at + 1 for cells in rows for at, cell in enumerate(cells) if cell.strip()), default=1
    )


def _names(header: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: list[str] = []
    twice = []
    for at, cell in enumerate(header, start=1):
        name = " ".join(cell.split()) or f"column {at}"
        name = name if name.isascii() else cells_mender()(name)[0]
        if name in names:
            number = 2
            while f"{name} ({number})" in names:
                number += 1
            name = f"{name} ({number})"
            twice.append(name)
        names.append(name)
    return tuple(names), tuple(twice)


def _is_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether a row names columns. It does not if a cell is empty-handed as a name: a long
    text, a number or a date, or a value that comes again below in the same column."""
    named = [(at, cell.strip()) for at, cell in enumerate(first) if cell.strip()]
    if any(cell.casefold() in COMMON_NAMES for _, cell in named):
        return True
    for at, cell in named:
        if len(cell) > _CHARS_IN_NAME or len(cell.split()) > _WORDS_IN_NAME:
            return False
        if _NUMBER_OR_DATE.fullmatch(cell):
            return False
        if any(at < len(row) and row[at].strip() == cell for row in below):
            return False
    return bool(named)


COMMON_NAMES = frozenset(
    "id message label text body content subject category class intent date time created status "
    "nachricht kategorie betreff datum anliegen mensaje etiqueta categoría asunto fecha catégorie "
    "objet étiquette messaggio etichetta categoria oggetto data mensagem bericht categorie".split()
)
"""Names of columns by which a header is recognized at once."""

_NUMBER_OR_DATE = re.compile(r"[-+]?\d[\d.,:/ TZ+-]*")


# --- JSON Lines


def _open_jsonl(opener: Opener, name: str, given: str | None) -> Table:
    encoding = find_encoding(opener, name, given)

    def objects(tally: _Tally) -> Iterator[tuple[int, dict[str, Any]]]:
        # Split at \n alone: strings may hold other line separators.
        mixed = encoding.how == "mixed"
        for number, line in enumerate(decoded_lines(encoding, opener, "\n"), start=1):
            if not line.strip():
                continue
            if mixed and (joined := join_mixed(line)) != line:
                tally.add("mixed", number)
                line = joined
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if isinstance(record, dict):
                yield number, record
            else:
                tally.add("json", number)

    # All objects decide the columns, since exports leave out keys without a value. Each line is
    # parsed at each pass: the parsed objects would take several times the file's size.
    keys: dict[str, None] = {}
    tally = _Tally()
    for _, record in objects(tally):
        keys.update(dict.fromkeys(_flat(record)))
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

    def read(columns: Sequence[str], tally: _Tally) -> Iterator[tuple[int, list[str]]]:
        for number, record in objects(tally):
            flat = _flat(record)
            try:
                cells = [_text(flat.get(column)) for column in columns]
            except _NotText:
                tally.add("type", number)
                continue
            yield number, cells

    return Table(name, tuple(keys), Found("jsonl", encoding.words), [], read)


def _flat(record: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return an object with nested objects' keys joined by dots."""
    if not any(isinstance(value, dict) for value in record.values()):
        return record
    flat: dict[str, Any] = {}
    waiting = [("", record)]
    while waiting:
        prefix, part = waiting.pop(0)
        for key, value in part.items():
            if isinstance(value, dict) and value:
                waiting.append((f"{prefix}{key}.", value))
            else:
                flat.setdefault(f"{prefix}{key}", value)
    return flat


class _NotText(Exception):
    pass


def _text(value: Any) -> str:
    """Return a value as a cell. Raises _NotText."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).upper()  # as spreadsheets show it
    if isinstance(value, float):
        if value != value:
            return ""
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else str(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, dt.datetime) and value.time() == dt.time() and value.tzinfo is None:
        return value.date().isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta | Decimal):
        return str(value)
    raise _NotText


# --- Parquet and Arrow. Files in which Hugging Face datasets saved classes have their names.

_FEATURES = b"huggingface"
"""The key under which Hugging Face datasets 5 stores its features in an Arrow schema's metadata."""

_BATCH_ROWS = 4096


def _open_arrow(opener: Opener, name: str, kind: Format) -> Table:
    _require(name, "pyarrow", "trainer", "reading it")
    import pyarrow as pa
    from pyarrow import parquet

    title = kind.capitalize()

    @contextmanager
    def damage() -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError) as error:
            raise TableError(f"{name}: not a complete {title} file: {error}") from error

    def batches(file: BinaryIO, columns: Sequence[str] | None) -> Iterator[Any]:
        if kind == "arrow":
            yield from pa.ipc.open_stream(file)
        else:
            yield from parquet.ParquetFile(file).iter_batches(_BATCH_ROWS, columns=columns)

    with damage(), opener() as file:
        if kind == "arrow":
            schema = pa.ipc.open_stream(file).schema
        else:
            schema = parquet.ParquetFile(file).schema_arrow
    names = _flatten(schema.empty_table()).column_names
    classes = _label_names(schema.metadata)
    doubled = sorted({each for each in names if names.count(each) > 1})
    if doubled:
        raise TableError(f"{name}: the column {doubled[0]!r} occurs twice: rename one")

    def read(columns: Sequence[str], tally: _Tally) -> Iterator[tuple[int, list[str]]]:
        roots = {field.name for field in schema}
        needed = [
            next((root for root in roots if each == root), each.split(".")[0]) for each in columns
        ]
        number = 0
        with opener() as file:
            found = batches(file, list(dict.fromkeys(needed)))
            while True:
                with damage():
                    if (batch := next(found, None)) is None:
                        return
                    table = _flatten(pa.Table.from_batches([batch])).select(list(columns))
                    values = [_to_microseconds(column).to_pylist() for column in table.columns]
                if not columns:
                    values = []
                for at in range(batch.num_rows):
                    number += 1
                    try:
                        yield (
                            number,
                            [
                                _class(column[at], classes.get(name), tally, number)
                                for name, column in zip(columns, values, strict=True)
                            ],
                        )
                    except _NotText:
                        tally.add("type", number)

    return Table(name, tuple(names), Found(kind), [], read)


def _flatten(table: Any) -> Any:
    """Return a table with structs as one column for each field, joined by dots."""
    import pyarrow as pa

    while any(pa.types.is_struct(field.type) for field in table.schema):
        table = table.flatten()
    return table


def _to_microseconds(column: Any) -> Any:
    """Truncate times to microseconds, since Python has none finer."""
    import pyarrow as pa

    if pa.types.is_timestamp(column.type):
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    return column


def _class(value: Any, names: Sequence[str] | None, tally: _Tally, row: int) -> str:
    """Return a value as a cell, a class number as the class's name."""
    if names is None or value is None:
        return _text(value)
    if isinstance(value, int) and 0 <= value < len(names):
        return names[value]
    tally.add("class", row)
    return ""


def _label_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    try:
        features = json.loads((metadata or {})[_FEATURES])["info"]["features"]
        return {
            column: [str(name) for name in feature["names"]]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (KeyError, TypeError, ValueError, AttributeError):
        return {}  # not written by datasets, or in an unknown form: numbers stay


def _require(name: str, package: str, extra: str, purpose: str) -> None:
    if find_spec(package) is None:
        raise TableError(f"{name}: {purpose} needs {package}: pip install 'filing-clerk[{extra}]'")


# --- workbooks

_CONTROL = re.compile(r"_x00([01][0-9A-Fa-f])_")
"""A control character in the file format (ECMA-376 part 1, 22.9.2.19)."""

_MERGED = re.compile(rb'<mergeCell\s[^>]*ref="([A-Z]{1,3})(\d+):([A-Z]{1,3})(\d+)"')
_SMALL_PART = 10_000_000
_MERGED_ROWS = 1_000_000


def _open_xlsx(opener: Opener, name: str, sheet: str | None, limits: Limits) -> Table:
    _require(name, "openpyxl", "tables", "reading a workbook")
    _check_archive(opener, name, limits)
    with opener() as file, _workbook(file, name, data_only=True) as book:
        if not book.worksheets:
            raise TableError(f"{name}: has no sheet with cells")
        page, notes = _choose_sheet(book, name, sheet)
        title, part = page.title, page._worksheet_path.lstrip("/")
        first = [
            (number, [_cell(cell) for cell in row])
            for number, row in islice(_filled(page), SAMPLE_ROWS)
        ]
    if not first:
        raise TableError(f"{name} sheet {title!r}: the sheet is empty")
    merged, has_formulas = _scan_part(opener, name, part)
    top = _find_header([(number, _fill(merged, number, cells)) for number, cells in first])
    if top.line is not None and top.line in merged:
        top = _find_header(first)  # a title over several columns is not their name

    def read(columns: Sequence[str], tally: _Tally) -> Iterator[tuple[int, list[str]]]:
        places = [top.columns.index(column) for column in columns]
        with opener() as file, _workbook(file, name, data_only=True) as book:
            rows = _filled(book[title])
            if has_formulas:
                rows = _with_formulas(rows, opener, name, title)
            for number, row in rows:
                if number <= top.last:
                    continue
                cells = [_cell(row[at]) if at < len(row) else "" for at in places]
                if any(at < len(row) and row[at] is _UNCOMPUTED for at in places):
                    tally.add("formula", number)
                    continue
                if number in merged:
                    cells = _fill_places(merged[number], places, cells, number, tally)
                yield number, cells

    found = Found("xlsx", None, None, top.line, top.skipped, title)
    return Table(name, top.columns, found, [*notes, *top.notes()], read)


def _check_archive(opener: Opener, name: str, limits: Limits) -> None:
    """Raise TableError for an archive that unpacks to too much, by its directory alone: zipfile
    reads no more of a part than the directory says."""
    try:
        with opener() as file, zipfile.ZipFile(file) as packed:
            parts = packed.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _damaged(name, error) from error
    size = sum(part.file_size for part in parts)
    if size > limits.max_unpacked_bytes:
        raise TableError(
            f"{name}: unpacked it has {size / 1e6:,.0f} MB, and "
            f"{limits.max_unpacked_bytes / 1e6:,.0f} MB are allowed: save it as CSV"
        )
    for part in parts:
        ratio = part.file_size / max(part.compress_size, 1)
        if part.file_size > _SMALL_PART and ratio > limits.max_ratio:
            raise TableError(
                f"{name}: a part of it unpacks to {ratio:,.0f} times its size, as in a zip bomb: "
                "save it as CSV if you trust it"
            )


def _damaged(name: str, error: BaseException) -> TableError:
    return TableError(
        f"{name}: not a complete .xlsx workbook ({type(error).__name__}): save it again as .xlsx, "
        "without a password"
    )


@contextmanager
def _workbook(file: BinaryIO, name: str, *, data_only: bool) -> Iterator[Any]:
    """Open a workbook for reading row by row, within the context, so that damage further down
    raises TableError too."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    damaged = (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, ParseError, EOFError)
    book = None
    with warnings.catch_warnings():
        # openpyxl warns about styles and validations that it ignores; none of them is a value.
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(file, read_only=True, data_only=data_only)
            yield book
        except damaged as error:
            raise _damaged(name, error) from error
        finally:
            if book is not None:
                book.close()


def _choose_sheet(book: Any, name: str, wanted: str | None) -> tuple[Any, list[Problem]]:
    """Return the sheet that was asked for, or the only one that holds a table, with a note about
    the others."""
    pages = book.worksheets
    listed = ", ".join(repr(page.title) for page in pages)
    if wanted is not None:
        for page in pages:
            if page.title == wanted:
                return page, []
        raise TableError(f"{name}: no sheet {wanted!r}; there are: {listed}. Name one by --sheet")
    if len(pages) == 1:
        return pages[0], []
    tables = [page for page in pages if page.sheet_state == "visible" and _is_table(page)]
    if len(tables) == 1:
        left = ", ".join(repr(page.title) for page in pages if page is not tables[0])
        note = Problem("sheets", f"has other sheets, which are not read ({left})", 1)
        return tables[0], [note]
    raise TableError(f"{name}: has {len(pages)} sheets ({listed}): name one by --sheet")


def _is_table(page: Any) -> bool:
    """Return whether a sheet has at least two rows with two cells."""
    rows = islice(_filled(page), SAMPLE_ROWS)
    wide = sum(sum(cell.value is not None for cell in row) > 1 for _, row in rows)
    return wide > 1


def _filled(page: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield (row number, cells) of the rows that are not empty."""
    page.reset_dimensions()  # some exporters declare the size A1, which would hide all other rows
    for number, row in enumerate(page.iter_rows(), start=1):
        if any(cell.value is not None for cell in row):
            yield number, row


_UNCOMPUTED = object()
"""A cell with a formula that has no result."""


def _with_formulas(
    rows: Iterator[tuple[int, Sequence[Any]]], opener: Opener, name: str, title: str
) -> Iterator[tuple[int, Sequence[Any]]]:
    """Put ``_UNCOMPUTED`` in the place of formulas without a result: they read as empty."""
    with opener() as file, _workbook(file, name, data_only=False) as book:
        results = dict[int, Sequence[Any]]()
        for number, formulas in _filled(book[title]):
            if not results:
                results = dict(islice(rows, 1))
            row = results.pop(number, ())
            yield number, [
                _UNCOMPUTED
                if cell.data_type == "f" and (at >= len(row) or row[at].value is None)
                else row[at] if at < len(row) else None
                for at, cell in enumerate(formulas)
            ]  # fmt: skip


def _cell(cell: Any) -> str:
    if cell is None or cell is _UNCOMPUTED or cell.value is None:
        return ""
    text = _text(cell.value)
    return _CONTROL.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


_Merged = Mapping[int, Sequence[tuple[int, int, int, list[str]]]]
"""row -> ranges of merged cells in it: first row, first and last column (from 0), and a list for
the value of the first cell once it was read."""


def _scan_part(opener: Opener, name: str, part: str) -> tuple[_Merged, bool]:
    """Return the merged cells of a sheet, and whether it has formulas: openpyxl does not say when
    it reads row by row."""
    merged: dict[int, list[tuple[int, int, int, list[str]]]] = {}
    formulas = False
    left = _MERGED_ROWS
    rest = b""
    try:
        with opener() as file, zipfile.ZipFile(file) as packed, packed.open(part) as sheet:
            while chunk := sheet.read(1 << 20):
                chunk = rest + chunk
                formulas = formulas or b"<f>" in chunk or b"<f " in chunk
                end = 0
                for found in _MERGED.finditer(chunk):
                    end = found.end()
                    first, last = int(found[2]), int(found[4])
                    left -= last - first + 1
                    if left < 0:
                        raise TableError(
                            f"{name}: has more than {_MERGED_ROWS:,} rows of merged cells: "
                            "unmerge them"
                        )
                    value: list[str] = []
                    for row in range(first, last + 1):
                        merged.setdefault(row, []).append(
                            (first, _column(found[1]), _column(found[3]), value)
                        )
                rest = chunk[max(end, len(chunk) - 200) :]
    except (KeyError, zipfile.BadZipFile, EOFError, OSError) as error:
        raise _damaged(name, error) from error
    return merged, formulas


def _column(letters: bytes) -> int:
    number = 0
    for letter in letters:
        number = number * 26 + letter - 64
    return number - 1


def _fill(merged: _Merged, number: int, cells: Sequence[str]) -> list[str]:
    filled = list(cells)
    for _, left, right, _ in merged.get(number, ()):
        for at in range(left + 1, min(right + 1, len(filled))):
            filled[at] = filled[at] or filled[left]
    return filled


def _fill_places(
    ranges: Sequence[tuple[int, int, int, list[str]]],
    places: Sequence[int],
    cells: list[str],
    number: int,
    tally: _Tally,
) -> list[str]:
    """Give merged cells of a row the value of the range's first cell: spreadsheets leave the others
    empty."""
    filled = list(cells)
    for first, left, right, value in ranges:
        for at, place in enumerate(places):
            if number == first and place == left:
                value[:] = [cells[at]]
            elif left <= place <= right and not filled[at] and value:
                filled[at] = value[0]
                tally.add("merged", number)
    return filled
