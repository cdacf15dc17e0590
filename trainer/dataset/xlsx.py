"""Workbooks (.xlsx): a sheet's cells as text. The only file that imports openpyxl.

Values are those that a person sees, but for their format: of a formula the result that was saved
with it, of a date ISO 8601, of a number its shortest decimal. Errors name sheet, row and column.
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
"""How the format writes a control character (ECMA-376 part 1, 22.9.2.19)."""


def read_sheet(
    path: Path, sheet: str | None, choose: Callable[[list[str], str], Collection[str]]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield of each row of a sheet where it stands and its cells by their column.

    ``sheet`` None: the only one there is. The header is the first row with anything in it;
    ``choose`` is called with the names in it and where they stand, and returns those to read.
    Rows without anything are passed over. Raises BadInput for a file that is no workbook, a
    sheet that is not there, a cell that holds a spreadsheet error, or a formula whose result was
    never saved.
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
        raise BadInput(f"{path.name}: holds {len(there)} sheets ({listed}): name one by --sheet")
    if wanted not in there:
        raise BadInput(
            f"{path.name}: no sheet {wanted!r}; there are: {listed}. Name one by --sheet"
        )
    return wanted


@contextmanager
def _workbook(path: Path, *, data_only: bool) -> Iterator[Any]:
    """Open a workbook row by row. Its rows are read within the context, so that a file that is
    damaged further down is told of in the same way."""
    import openpyxl
    from openpyxl.utils.exceptions import InvalidFileException

    damaged = (InvalidFileException, zipfile.BadZipFile, KeyError, ValueError, ParseError, EOFError)
    book = None
    with warnings.catch_warnings():
        # Of styles, headers and validations that it leaves out: none of them is a value.
        warnings.simplefilter("ignore")
        try:
            book = openpyxl.load_workbook(path, read_only=True, data_only=data_only)
            yield book
        except damaged as error:
            raise BadInput(
                f"{path.name}: not a whole .xlsx workbook ({type(error).__name__}): save it again "
                "as .xlsx, without a password"
            ) from error
        finally:
            if book is not None:
                book.close()


def _rows(table: Any) -> Iterator[tuple[int, Sequence[Any]]]:
    """Yield (row number, cells) of the rows that hold anything."""
    table.reset_dimensions()  # what a writer claims of its size would cut the sheet short
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
        raise BadInput(f"{where} column {cell.column_letter}: holds the spreadsheet error {value}")
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
    """Raise BadInput where a cell that reads as empty is a formula: a program wrote it and none
    has computed it."""
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
