"""Find the row with the names of a table's columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from worker.common.encodings import EncodingError, make_repairer
from worker.common.tables.table import Problem


@dataclass(frozen=True, slots=True)
class Top:
    """What is above the rows. ``line`` is the header's, None without one; rows up to ``last`` are
    not data; ``twice`` are the columns that have a name again."""

    columns: tuple[str, ...]
    line: int | None
    last: int
    skipped: int = 0
    twice: tuple[str, ...] = ()

    def notes(self) -> list[Problem]:
        """Return what a user should know about the header."""
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

_LEAST_ROWS = 5
"""Fewer rows of data do not show that a second row of names is not data."""

_WORDS_IN_NAME = 6
_CHARS_IN_NAME = 60


def find_header(rows: Sequence[tuple[int, Sequence[str]]]) -> Top:
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
        return Top(columns, None, rows[skipped - 1][0] if skipped else 0, skipped)
    while _is_above_names(header, below):
        skipped += 1
        line, header = rows[skipped]
        below = below[1:]
    width = max(_width([header]), min(_width(below[:20]), len(header)))
    columns, twice = _names(header[:width])
    return Top(columns, line, line, skipped, twice)


def _width(rows: Iterable[Sequence[str]]) -> int:
    """Return the width of the rows without columns that are empty in all of them."""
    return max(
        (at + 1 for cells in rows for at, cell in enumerate(cells) if cell.strip()), default=1
    )


def _names(header: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    names: dict[str, int] = {}
    twice = []
    for at, cell in enumerate(header, start=1):
        name = " ".join(cell.split()) or f"column {at}"
        name = name if name.isascii() else make_repairer()(name)[0]
        first = name
        while name in names:
            names[first] += 1
            name = f"{first} ({names[first]})"
        if name != first:
            twice.append(name)
        names[name] = 1
    return tuple(names), tuple(twice)


def _is_above_names(header: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether a row names groups of columns, and the row below it the columns: it has more
    different names, and none of them comes again below."""
    if len(below) <= _LEAST_ROWS:
        return False
    groups = {cell.strip() for cell in header} - {""}
    names = [cell.strip() for cell in below[0] if cell.strip()]
    several = len(groups) < len(set(names)) == len(names)
    return several and _differs_from_data(below[0], below[1:])


def _is_header(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    """Return whether a row names columns. It does not if a cell is empty-handed as a name: a long
    text, a number or a date, or a value that comes again below in the same column."""
    named = [(at, cell.strip()) for at, cell in enumerate(first) if cell.strip()]
    if any(cell.casefold() in COMMON_NAMES for _, cell in named):
        return True
    return _differs_from_data(first, below)


def _differs_from_data(first: Sequence[str], below: Sequence[Sequence[str]]) -> bool:
    named = [(at, cell.strip()) for at, cell in enumerate(first) if cell.strip()]
    for at, cell in named:
        if len(cell) > _CHARS_IN_NAME or len(cell.split()) > _WORDS_IN_NAME:
            return False
        if _NUMBER_OR_DATE.fullmatch(cell):
            return False
        if any(at < len(row) and row[at].strip() == cell for row in below):
            return False
    return bool(named)


COMMON_NAMES = frozenset(
    """id message label text body content subject category class intent date time created status
    nachricht kategorie betreff datum anliegen mensaje etiqueta categoría asunto fecha catégorie
    objet étiquette messaggio etichetta categoria oggetto data mensagem bericht categorie""".split()  # noqa: SIM905
)
"""Names of columns by which a header is recognized at once."""

_NUMBER_OR_DATE = re.compile(r"[-+]?\d[\d.,:/ TZ+-]*")
