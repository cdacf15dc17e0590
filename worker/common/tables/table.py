"""A table that was opened: how it was read, its rows, and what is wrong with them."""

from __future__ import annotations

import datetime as dt
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal

from worker.common.encodings import EncodingError, make_repairer

Format = Literal["csv", "jsonl", "parquet", "arrow", "xlsx"]

SAMPLE_ROWS = 200
_FIRST_ROWS = 5


class TableError(Exception):
    """Nothing of a file can be read; one line that names the file, the problem and the fix."""


@dataclass(frozen=True, slots=True)
class Found:
    """How a file was read. ``header`` is the line or row of the column names, None without one;
    ``skipped`` counts the rows above it. ``form`` is that of JSON Lines that hold chats. Fields
    that a format does not have are None."""

    format: Format
    encoding: str | None = None
    delimiter: str | None = None
    header: int | None = None
    skipped: int = 0
    sheet: str | None = None
    form: str | None = None

    def words(self) -> str:
        """Return it as one phrase, such as "CSV, cp1252 (detected), separated by ';'"."""
        names = {"\t": "tabs", ",": "commas", ";": "semicolons", "|": "bars"}
        formats = {"csv": "CSV", "jsonl": "JSON Lines", "xlsx": "a workbook"}
        parts = [self.form or formats.get(self.format) or self.format.capitalize()]
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
    and ``what`` says how; ``left_out``: by leaving out rows that can be read and not used.
    """

    kind: str
    what: str
    count: int
    rows: tuple[int, ...] = ()
    remedy: str = ""
    broken: bool = False
    left_out: bool = False

    def sentence(self, unit: str = "line") -> str:
        """Return one line without the file's name."""
        text = self.what
        if self.rows:
            many = "s" if self.count > 1 else ""
            more = ", ..." if self.count > len(self.rows) else ""
            listed = ", ".join(map(str, self.rows))
            text = f"{self.count:,} row{many} {text} ({unit}{many} {listed}{more})"
        return f"{text}: {self.remedy}" if self.remedy else text


_LEFT_OUT = "left out"

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
    "repaired": ("with characters that an earlier wrong encoding had garbled: repaired", "", False),
    "garbled": ("with characters that look garbled and cannot be repaired",
                "export the file again as UTF-8", False),
    "mixed": ("not in UTF-8 like the rest: read as cp1252", "", False),
    "nul": ("with NUL bytes: removed", "", False),
    "error": ("with a spreadsheet's error such as #N/A: read as an empty cell", "", False),
    "class": ("without a class (-1): read as an empty cell", "", False),
    "merged": ("in merged cells: each cell has the value of the first", "", False),
    "chat": ("not a chat like the first line", "write one example a line", True),
    "answers": ("with several answers: the last is the label", "", False),
    "weight": ("whose answers all have weight 0", _LEFT_OUT, False),
    "tools": ("with a call of a tool", _LEFT_OUT, False),
    "media": ("with an image, audio or a file", _LEFT_OUT, False),
    "unasked": ("without a text of the user", _LEFT_OUT, False),
    "labels": ("with several labels in one answer", _LEFT_OUT, False),
    "prose": ("whose answer is a text and not a label", _LEFT_OUT, False),
    "failed": ("whose request failed", _LEFT_OUT, False),
}  # fmt: skip

# As spreadsheets write them in English, German, French, Spanish and Portuguese.
_ERRORS = frozenset(
    """#N/A #NV #N/D #REF! #BEZUG! #REF #VALUE! #WERT! #VALEUR! #VALOR! #¡VALOR! #DIV/0! #¡DIV/0!
    #NAME? #NOM? #NOMBRE? #¿NOMBRE? #NOME? #NULL! #NULO! #NUM! #ZAHL! #NOMBRE! #NÚM! #¡REF! #SPILL!
    #CALC! #GETTING_DATA""".split()  # noqa: SIM905
)


class Tally:
    """Counts problems by kind during one pass."""

    def __init__(self) -> None:
        self._first: dict[str, list[int]] = {}
        self._last: dict[str, int] = {}
        self._counts: Counter[str] = Counter()
        self.broken: dict[int, str] = {}
        """What is wrong with each row that could not be read."""

    def add(self, kind: str, row: int) -> None:
        """Count a row; it may be given again for other cells."""
        if self._last.get(kind) == row:
            return
        self._last[kind] = row
        self._counts[kind] += 1
        what, _, is_broken = _KINDS[kind]
        if is_broken:
            self.broken.setdefault(row, what)
        if self._counts[kind] <= _FIRST_ROWS:
            self._first.setdefault(kind, []).append(row)

    def problems(self) -> list[Problem]:
        """Return what was counted."""
        return [
            Problem(
                kind,
                what,
                self._counts[kind],
                tuple(self._first[kind]),
                remedy,
                broken,
                left_out=remedy == _LEFT_OUT,
            )
            for kind, (what, remedy, broken) in _KINDS.items()
            if kind in self._counts
        ]


Rows = Callable[[Sequence[str], Tally], Iterator[tuple[int, list[str]]]]
"""One pass: the rows' numbers and their cells in the given columns, before repair."""


@dataclass(slots=True)
class Table:
    """A file that was opened. ``columns`` are the names of its columns; ``notes`` are about the
    file as a whole. ``problems`` holds those too, and after a pass by ``rows`` those of the rows in
    the columns that were read, and ``broken`` what is wrong with each row that was left out as
    unreadable. ``instruction`` is what a file of chats tells a model to do with its
    messages."""

    name: str
    columns: tuple[str, ...]
    found: Found
    notes: list[Problem]
    _read: Rows
    problems: list[Problem] = field(default_factory=list)
    broken: Mapping[int, str] = field(default_factory=dict)
    instruction: str = ""

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
        tally = Tally()
        repair: Callable[[str], tuple[str, bool]] | None = None
        for number, cells in self._read(self.columns if columns is None else columns, tally):
            for at, cell in enumerate(cells):
                if cell.isascii():
                    if cell[:1] == "#" and cell.strip() in _ERRORS:
                        cells[at] = ""
                        tally.add("error", number)
                    continue
                repair = repair or _repairer(self.name)
                repaired, garbled = repair(cell)
                if repaired != cell:
                    cells[at] = repaired
                    tally.add("repaired", number)
                if garbled:
                    tally.add("garbled", number)
                if cell[0] == "#" and cell.strip() in _ERRORS:
                    cells[at] = ""
                    tally.add("error", number)
            yield number, cells
        self.problems, self.broken = [*self.notes, *tally.problems()], tally.broken

    def sample(self, size: int = SAMPLE_ROWS) -> list[list[str]]:
        """Return the first rows, for a look at the columns; they leave ``problems`` as it is."""
        return [cells for _, cells in islice(self.rows(), size)]


def _repairer(name: str) -> Callable[[str], tuple[str, bool]]:
    try:
        return make_repairer()
    except EncodingError as error:
        raise TableError(f"{name}: {error}") from error


class NotText(Exception):
    """A value that is not one cell's text."""


def to_text(value: Any) -> str:
    """Return a value as a cell. Raises NotText."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).upper()  # as spreadsheets show it
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time() and value.tzinfo is None:
        return value.date().isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, str | int | float | dt.timedelta | Decimal):
        return str(value)
    raise NotText


def require(name: str, package: str, extra: str, purpose: str) -> None:
    """Raise TableError, with the command that installs it, if a package is missing."""
    if find_spec(package) is None:
        raise TableError(
            f"{name}: {purpose} needs {package}: in the checkout, pip install -e '.[{extra}]'"
        )


def flatten(record: Mapping[str, Any]) -> Mapping[str, Any]:
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
