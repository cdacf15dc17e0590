"""Files that reviewers open in a spreadsheet, fill in and send back, and the decisions in them.

They are written as CSV in UTF-8 with a byte order mark, without which Excel shows other letters. A
cell that a spreadsheet would run, or turn into another number or a date, begins with an apostrophe,
which reading removes. They come back as whatever the spreadsheet saved: another delimiter or
encoding, other columns in another order, or a workbook.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from worker.common.encodings import EncodingError, decoded_file
from worker.common.tables import TableError, format_of, read_table
from worker.contract.digest import write_atomically
from worker.contract.errors import RecordRefused
from worker.contract.exchange import ANSWER_COLUMNS, PRIVATE, Answer, answer_cells, parse_answer

BYTE_ORDER_MARK = "\ufeff"

# OWASP, CSV injection; the last four are full-width forms, which Excel reads as the others in East
# Asian locales. A spreadsheet whose delimiter is the semicolon splits a file with commas inside of
# its cells, so what follows a semicolon, a tab or a line end is guarded too. After a line end a
# hyphen begins a list or a signature far more often than a formula.
_SIGNS = r"[=+\-@\uff1d\uff0b\uff0d\uff20]"
_RUN = re.compile(
    rf"(\A(?='*[\t\r\n]|[\s']*{_SIGNS})|[;\t](?='* *{_SIGNS})|[\r\n](?='*[=@\uff1d\uff20]))"
)
_GUARDED = re.compile(rf"{_RUN.pattern}'")

# In these columns a changed character makes a row unknown.
_VERBATIM = frozenset({"id", "message_sha256", "task_id", "sample", "batch", "guideline"})
_MONTHS = (
    "(?:jan|ene|gen|feb|fev|f\xe9v|mar|mrt|mrz|m\xe4r|apr|avr|abr|mai|may|mei|mag|maj|jun|jui|giu|"
    r"jul|lug|aug|aou|ao\xfb|ago|sep|set|oct|okt|out|ott|nov|dec|d\xe9c|dez|dic)[^\W\d_]*\.?"
)
# Excel keeps whole numbers up to eleven digits. It drops leading zeros, shortens longer numbers to
# 1.2E+15, and makes dates of 3-4 and MAR-17.
_CHANGED = re.compile(
    rf"'*(?:(?!(?:0|[1-9][0-9]{{0,10}})\Z)[0-9][0-9.,:/% -]*|[0-9.,]+e[+-]?[0-9]+"
    rf"|{_MONTHS}[ ./-]?[0-9]{{1,4}}|[0-9]{{1,4}}[ ./-]?{_MONTHS}(?:[ ./-]?[0-9]{{1,4}})?)",
    re.IGNORECASE,
)
_MANGLED = re.compile(r"[0-9](?:[.,][0-9]+)?e\+[0-9]+", re.IGNORECASE)


def guard(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would run as a formula."""
    return _RUN.sub(r"\1'", text)


def unguard(text: str) -> str:
    """Return the text that ``guard`` was given."""
    return _GUARDED.sub(r"\1", text)


def write_review(columns: Sequence[str], rows: Iterable[Mapping[str, str]]) -> bytes:
    """Return a review file; cells that a row lacks are empty."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(columns)
    for row in rows:
        writer.writerow(_to_cell(name, row.get(name, "")) for name in columns)
    return (BYTE_ORDER_MARK + text.getvalue()).encode("utf-8")


def _to_cell(column: str, text: str) -> str:
    if column in _VERBATIM and _CHANGED.fullmatch(text):
        return f"'{text}"
    return guard(text)


def _from_cell(column: str, text: str) -> str:
    if column in _VERBATIM and text.startswith("'") and _CHANGED.fullmatch(text):
        return text[1:]
    return unguard(text)


@dataclass(frozen=True, slots=True)
class ReviewFile:
    """A returned file: its rows' lines and cells by column, and what is wrong with it."""

    name: str
    columns: frozenset[str]
    rows: tuple[tuple[int, Mapping[str, str]], ...]
    _problems: dict[str, list[int]] = field(default_factory=dict)

    def where(self, line: int) -> str:
        """Return the place of a row, for messages."""
        return f"{self.name}:{line}"

    def note(self, line: int, problem: str) -> None:
        """Add a problem of a row, or with the line 0 of the file. It quotes no message."""
        self._problems.setdefault(problem, []).append(line)

    def check(self) -> None:
        """Raise RecordRefused that lists all problems."""
        if not self._problems:
            return
        if list(map(len, self._problems.values())) == [1]:
            problem, (line,) = next(iter(self._problems.items()))
            raise RecordRefused(self.where(line) if line else self.name, problem)
        listed = "".join(
            f"\n  {_listed(lines)}{problem}" for problem, lines in self._problems.items()
        )
        raise RecordRefused(self.name, f"these problems, and no others:{listed}")


_LISTED = 10


def _listed(lines: Sequence[int]) -> str:
    if lines == [0]:
        return ""
    more = f" and {len(lines) - _LISTED} more" if len(lines) > _LISTED else ""
    named = ", ".join(map(str, lines[:_LISTED]))
    return f"line{'s' if len(lines) > 1 else ''} {named}{more}: "


def read_review(path: Path, needed: Collection[str]) -> ReviewFile:
    """Read a returned file, also a workbook.

    Columns are known by their names, whatever their order and case. Raises RecordRefused for a file
    that cannot be read or lacks a ``needed`` column. Problems of its rows are only noted.
    """
    try:
        source, delimiter = _as_written(path, needed)
        table = read_table(source, path.name, delimiter=delimiter, may_be_short=True)
        names = [name.casefold() for name in table.columns]
        read = list(table.rows())
    except TableError as error:
        where, _, problem = str(error).partition(": ")
        raise RecordRefused(where, problem) from None
    missing = [name for name in needed if name not in names]
    if missing:
        raise RecordRefused(
            path.name,
            f"no column {', '.join(map(repr, missing))}: a review file has {', '.join(needed)}",
        )
    file = ReviewFile(
        path.name,
        frozenset(names),
        tuple(
            (line, {name: _from_cell(name, cell) for name, cell in zip(names, row, strict=True)})
            for line, row in read
            if any(map(str.strip, row))
        ),
    )
    for problem in table.problems:
        if problem.broken:
            file.note(0, problem.sentence(table.unit))
    verbatim = [(at, name) for at, name in enumerate(names) if name in _VERBATIM]
    for line, row in read:
        for at, name in verbatim:
            if _MANGLED.fullmatch(row[at].strip()):
                file.note(
                    line,
                    f"a spreadsheet changed the {name} to {row[at].strip()}: format the column as "
                    "text, and paste it again from the file that was written",
                )
    return file


def _as_written(path: Path, needed: Collection[str]) -> tuple[Path | bytes, str | None]:
    """Return the file and its delimiter, None if the reader is to find it.

    The delimiter is the one that finds the columns in the header. If a spreadsheet kept each line
    in one cell, the lines as they were written are returned: where the delimiter is the semicolon,
    Excel opens a file with commas so. It splits a line at semicolons and line ends, and quotes what
    has quotes when it saves.
    """
    if format_of(path.name) != "csv" or not path.is_file():
        return path, None
    try:
        text = "".join(decoded_file(path))
    except EncodingError:
        return path, None  # reading it reports the problem
    header = text.partition("\n")[0].casefold().strip()

    def names(delimiter: str) -> int:
        found = next(csv.reader([header], delimiter=delimiter), [])
        return len(set(needed) & {name.strip() for name in found})

    delimiter = max(",;\t|", key=names)
    if not names(delimiter):
        return path, None
    csv.field_size_limit(len(text) + 1)
    records = csv.reader(io.StringIO(text, newline=""))
    if delimiter != "," or not any(
        len(cells) == 1 and '"' in cells[0] and "," in cells[0] for cells in records
    ):
        return path, delimiter
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=";")
    return "\n".join(";".join(cells) for cells in lines).encode("utf-8"), ","


# --- Decisions (``worker.contract.exchange``) ---


def write_answers(answers: Iterable[Answer]) -> bytes:
    """Return a file of decisions."""
    return write_review(ANSWER_COLUMNS, map(answer_cells, answers))


def save_answers(path: Path, answers: Iterable[Answer]) -> None:
    """Write a file of decisions, for its owner and group: notes may quote messages."""
    write_atomically(path, write_answers(answers), mode=PRIVATE)


ANSWERS_NEED = ("id", "message_sha256", "decision")


def read_answers(path: Path) -> tuple[Answer, ...]:
    """Read a file of decisions; rows without a decision are still open and skipped. Raises
    RecordRefused that lists all problems, without quoting a message."""
    file = read_review(path, ANSWERS_NEED)
    found = [answer_of(file, line, cells) for line, cells in file.rows if cells["decision"].strip()]
    file.check()
    return tuple(answer for answer in found if answer is not None)


def answer_of(file: ReviewFile, line: int, cells: Mapping[str, str]) -> Answer | None:
    """Return a row's decision; None, and the problem is noted, if it cannot be read."""
    try:
        return parse_answer(cells, file.where(line))
    except RecordRefused as error:
        file.note(line, error.problem)
        return None
