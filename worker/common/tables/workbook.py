"""Open a sheet of a workbook (.xlsx). The only file that imports openpyxl.

A formula is the result that was saved with it, a date is ISO 8601, and a number its shortest
decimal. Merged cells all have the value of the first.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO
from xml.etree.ElementTree import ParseError

from worker.common.encodings import Opener
from worker.common.tables.header import find_header
from worker.common.tables.table import (
    SAMPLE_ROWS,
    Found,
    Problem,
    Table,
    TableError,
    Tally,
    require,
    to_text,
)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a file may take: ``max_bytes`` as it is, ``max_unpacked_bytes`` and ``max_ratio`` of an
    archive's unpacked size to its packed one (text in a workbook packs to a twentieth)."""

    max_bytes: int | None = None
    max_unpacked_bytes: int = 1 << 30
    max_ratio: int = 250


_CONTROL = re.compile(r"_x00([01][0-9A-Fa-f])_")
"""A control character in the file format (ECMA-376 part 1, 22.9.2.19)."""

_MERGED = re.compile(rb'<mergeCell\s[^>]*ref="([A-Z]{1,3})(\d+):([A-Z]{1,3})(\d+)"')
_SMALL_PART = 10_000_000
_MERGED_ROWS = 1_000_000


def open_workbook(opener: Opener, name: str, sheet: str | None, limits: Limits) -> Table:
    """Open the sheet that is named, or the only one with a table. Raises TableError."""
    require(name, "openpyxl", "tables", "reading a workbook")
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
    top = find_header([(number, _fill(merged, number, cells)) for number, cells in first])
    if top.line is not None and top.line in merged:
        top = find_header(first)  # a title over several columns is not their name

    def read(columns: Sequence[str], tally: Tally) -> Iterator[tuple[int, list[str]]]:
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
    text = to_text(cell.value)
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
    tally: Tally,
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
