"""Read a workbook's sheet (.xlsx) as text. The only file that imports openpyxl.

A formula is the result that was saved with it, a date is ISO 8601, and a number its shortest
decimal. Errors name sheet, row and column.
"""

from __future__ import annotations

import datetime as dt
import re
import warnings
import zipfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import ParseError

from trainer.dataset.text_files import read_bytes
from trainer.errors import BadInput, require

_CONTROL = re.compile(r"_x00([01][0-9A-Fa-f])_")
"""A control character in the file format (ECMA-376 part 1, 22.9.2.19)."""


def read_sheet(
    path: Path, sheet: str | None, choose: Callable[[list[str], str], Collection[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the place and the cells, by column, of each row of a sheet.

    ``sheet`` None stands for the only one. The header is the first row that is not empty;
    ``choose`` is called with its names and its place, and returns the columns to read. Empty rows
    are skipped. Raises BadInput for a file that is not a workbook, a missing sheet, a cell with a
    spreadsheet error, or a formula whose result was never saved.
    """
    require("openpyxl", "xlsx", f"{path.name}: reading a workbook")
    read_bytes(path)
    with _workbook(path, data_only=True) as book:
        title = _choose_sheet(path, [page.title for page in book.worksheets], sheet)
        where = f"{path.name} sheet {title!r}"
        rows = _rows(book[title])
        number, top = next(rows, (0, ()))
        if not top:
            raise BadInput(f"{where}: the sheet is empty")
        names = [_text(cell, f"{where} row {number}").strip() for cell in top]
        wanted = choose([name for name in names if name], where)
        places = {name: names.index(name) for name in wanted}
        found = [(number, _cells(row, places, f"{where} row {number}")) for number, row in rows]
    _refuse_uncomputed(path, title, found, places)
    for number, cells in found:
        yield f"{where} row {number}", cells


def _choose_sheet(path: Path, there: Sequence[str], wanted: str | None) -> str:
    listed = ", ".join(repr(name) for name in there)
    if wanted is None and len(there) == 1:
        return there[0]
    if wanted is None:
        raise BadInput(f"{path.name}: has {len(there)} sheets ({listed}): name one by --sheet")
    if wanted not in there:
        raise BadInput(
            f"{path.name}: no sheet {wanted!r}; there are: {listed}. Name one by --sheet"
        )
    return wanted


@contextmanager
def _workbook(path: Path, *, data_only: bool) -> Iterator[Any]:
    """Open a workbook for reading row by row, within the context, so that damage further down
    raises BadInput too."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    damaged = (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, ParseError, EOFError)
    book = None
    with warnings.catch_warnings():
        # openpyxl warns about styles and validations that it ignores; none of them is a value.
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=data_only)
            yield book
        except damaged as error:
            raise BadInput(
                f"{path.name}: not a complete .xlsx workbook ({type(error).__name__}): save it "
                "again as .xlsx, without a password"
            ) from error
        finally:
            if book is not None:
                book.close()


def _rows(table: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield (row number, cells) of the rows that are not empty."""
    table.reset_dimensions()  # some exporters declare the size A1, which would hide all other rows
    for number, row in enumerate(table.iter_rows(), start=1):
        if any(cell.value is not None for cell in row):
            yield number, row


def _cells(row: Sequence[Any], places: Mapping[str, int], where: str) -> dict[str, str]:
    return {name: _text(row[at], where) if at < len(row) else "" for name, at in places.items()}


def _text(cell: Any, where: str) -> str:
    value = cell.value
    if value is None:
        return ""
    if cell.data_type == "e":
        raise BadInput(
            f"{where} column {cell.column_letter}: has the spreadsheet error {value}: fix the cell"
        )
    if isinstance(value, bool):
        return str(value).upper()  # as spreadsheets show it
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return str(int(value))
    if isinstance(value, dt.datetime) and value.time() == dt.time():
        return value.date().isoformat()
    if isinstance(value, dt.date | dt.time):
        return value.isoformat()
    return _CONTROL.sub(lambda found: chr(int(found[1], 16)), str(value))


def _refuse_uncomputed(
    path: Path,
    title: str,
    found: Sequence[tuple[int, Mapping[str, str]]],
    places: Mapping[str, int],
) -> None:
    """Raise BadInput if a cell that reads as empty is a formula: the program that wrote the file
    did not compute it."""
    empty = {
        (number, places[name])
        for number, cells in found
        for name, text in cells.items()
        if not text
    }
    if not empty:
        return
    with _workbook(path, data_only=False) as book:
        for number, row in _rows(book[title]):
            for at, cell in enumerate(row):
                if (number, at) in empty and cell.data_type == "f":
                    raise BadInput(
                        f"{path.name} sheet {title!r} row {number} column {cell.column_letter}: a "
                        "formula whose result was never saved: open the file in a spreadsheet "
                        "program and save it"
                    )
