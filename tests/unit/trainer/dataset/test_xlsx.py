"""Workbooks as exports: cells as text, and errors that name the cell."""

from __future__ import annotations

import datetime as dt
import importlib.util
import re
import zipfile
from pathlib import Path
from typing import Any

import pytest

from trainer.dataset.findings import Findings
from trainer.dataset.folder import Row
from trainer.dataset.readers import read_source
from trainer.dataset.settings import ColumnNames
from trainer.errors import BadInput

needs_openpyxl = pytest.mark.skipif(
    importlib.util.find_spec("openpyxl") is None, reason="openpyxl is not here: the extra xlsx"
)


def write(path: Path, **sheets: list[list[Any]]) -> Path:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
    book.save(path)
    return path


def edit_sheet(path: Path, old: str, new: str) -> None:
    """Put ``new`` in the place of ``old`` in the first sheet's XML, as other programs write it."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    name = "xl/worksheets/sheet1.xml"
    assert old.encode() in parts[name]
    parts[name] = parts[name].replace(old.encode(), new.encode())
    with zipfile.ZipFile(path, "w") as archive:
        for part, data in parts.items():
            archive.writestr(part, data)


@needs_openpyxl
def test_cells_of_every_kind_are_text(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.xlsx",
        Tickets=[
            [],
            [" id ", "message", None, "label", "sublabel"],
            [7.0, "Hello", "no column", "a", True],
            [],
            [1.5, dt.datetime(2026, 11, 26), None, dt.datetime(2026, 11, 26, 9, 30), None],
            ["x", 1234567890123],
        ],
    )
    rows, source = read_source(path, ColumnNames(), Findings())
    where = "x.xlsx sheet 'Tickets' row"
    assert rows == [
        Row("7", "Hello", "a", "TRUE", f"{where} 3"),
        Row("1.5", "2026-11-26", "2026-11-26T09:30:00", None, f"{where} 5"),
        Row("x", "1234567890123", "", None, f"{where} 6"),
    ]
    assert source.rows == 3
    assert source.columns.guessed == ()


@needs_openpyxl
def test_a_formula_is_the_value_that_was_saved_with_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.xlsx", S=[["message", "label"], ['=CONCATENATE("Hel","lo")', "a"]])
    findings = Findings()
    assert read_source(path, ColumnNames(), findings)[0] == []
    assert "1 row with a formula whose result was never saved (row 2)" in findings.wrong[0]
    edit_sheet(path, '<c r="A2"><f>', '<c r="A2" t="str"><f>')
    with zipfile.ZipFile(path) as archive:
        sheet = archive.read("xl/worksheets/sheet1.xml").decode()
    (formula,) = re.findall(r"<f>.*?</f><v\s*/>|<f>.*?</f><v></v>", sheet)
    edit_sheet(path, formula, formula.partition("<v")[0] + "<v>Hello</v>")
    rows, _ = read_source(path, ColumnNames(), Findings())
    assert [row.message for row in rows] == ["Hello"]


@needs_openpyxl
def test_a_spreadsheet_error_is_an_empty_cell_as_in_csv(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        ["message", "label", "price"],
        ["Hello", "a", "#DIV/0!"],
        ["Secret words", "#N/A", 1],
    ]
    path = write(tmp_path / "x.xlsx", S=rows)
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "x.csv").write_text(text, encoding="utf-8")
    for name in ("x.xlsx", "x.csv"):
        findings = Findings()
        found, _ = read_source(path.with_name(name), ColumnNames(), findings)
        assert [row.label for row in found] == ["a", ""]
        [note] = findings.notes
        assert "1 row with a spreadsheet's error such as #N/A: read as an empty cell" in note


@needs_openpyxl
def test_the_sheet_is_named_where_there_are_several(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.xlsx",
        Notes=[["what"], ["nothing"]],
        Tickets=[["message", "label"], ["Hello", "a"]],
        Empty=[],
    )
    assert read_source(path, ColumnNames(), Findings())[0][0].message == "Hello"
    path = write(
        tmp_path / "x.xlsx",
        Notes=[["what", "why"], ["nothing", "so"]],
        Tickets=[["message", "label"], ["Hello", "a"]],
        Empty=[],
    )
    with pytest.raises(BadInput, match=r"3 sheets \('Notes', 'Tickets', 'Empty'\).*--sheet"):
        read_source(path, ColumnNames(), Findings())
    with pytest.raises(BadInput, match="no sheet 'tickets'; there are: 'Notes'"):
        read_source(path, ColumnNames(), Findings(), sheet="tickets")
    with pytest.raises(BadInput, match="sheet 'Empty': the sheet is empty"):
        read_source(path, ColumnNames(), Findings(), sheet="Empty")
    with pytest.raises(BadInput, match=r"x\.xlsx: no column looks like the message"):
        read_source(path, ColumnNames(), Findings(), sheet="Notes")
    assert read_source(path, ColumnNames(), Findings(), sheet="Tickets")[0][0].message == "Hello"


@needs_openpyxl
def test_a_size_that_is_claimed_wrongly_hides_no_row(tmp_path: Path) -> None:
    """Some exporters write A1 as the size of every sheet."""
    path = write(tmp_path / "x.xlsx", S=[["message", "label"], ["Hello", "a"]])
    edit_sheet(path, '<dimension ref="A1:B2"', '<dimension ref="A1"')
    assert len(read_source(path, ColumnNames(), Findings())[0]) == 1


@needs_openpyxl
def test_line_ends_are_characters(tmp_path: Path) -> None:
    """Spreadsheets write a carriage return as _x000D_."""
    path = write(tmp_path / "x.xlsx", S=[["message", "label"], ["one_x000D_\ntwo", "a"]])
    assert read_source(path, ColumnNames(), Findings())[0][0].message == "one\r\ntwo"


@needs_openpyxl
@pytest.mark.parametrize("data", [b"", b"message,label\n", b"\xd0\xcf\x11\xe0" * 9, b"half"])
def test_what_is_no_workbook_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.xlsx"
    if data == b"half":
        data = write(path, S=[["message", "label"], ["Hello", "a"]]).read_bytes()
        data = data[: len(data) // 2]
    path.write_bytes(data)
    with pytest.raises(
        BadInput, match=r"x\.xlsx: (the file is empty|not a complete|is an old)"
    ) as error:
        read_source(path, ColumnNames(), Findings())
    assert "\n" not in str(error.value)


def test_without_openpyxl_one_line_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.common.tables.table.find_spec", lambda name: None)
    path = tmp_path / "x.xlsx"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(BadInput, match=r"pip install 'filing-clerk\[tables\]'"):
        read_source(path, ColumnNames(), Findings())
