"""Files that reviewers fill in: safe in a spreadsheet, and read whatever it made of them."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import openpyxl
import pytest

from worker.common.review_files import (
    guard,
    read_answers,
    read_review,
    save_answers,
    unguard,
    write_review,
)
from worker.contract.errors import RecordRefused
from worker.contract.exchange import Answer

COLUMNS = ("id", "message_sha256", "message", "decision", "new_label", "note")
NEEDED = ("id", "message_sha256", "decision")
ODD = 'Grüße, "Anführung"; ein Komma\nzweite Zeile = 1; - 5 Euro'
IDS = (
    "1234567890123456", "007", "3-4", "2024-05-06", "12E5", "MAR-17", "5 Mai 24", "1.10", "=1+1",
    "-17", "@x", "T-1", "88213", "'quoted'",
)  # fmt: skip
ROWS = [
    {"id": id_, "message_sha256": f"{n:064x}", "message": ODD, "note": f"-note {n} für Ann"}
    for n, id_ in enumerate(IDS)
]
STARTS = ("=", "+", "-", "@", "\t", "\r", "\uff1d")


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "queue.csv"
    path.write_bytes(write_review(COLUMNS, ROWS))
    return path


def grid(path: Path) -> list[list[str]]:
    return list(csv.reader(io.StringIO(path.read_text("utf-8-sig"), newline="")))


def ids_and_notes(path: Path) -> list[tuple[str, str]]:
    file = read_review(path, NEEDED)
    file.check()
    return [(cells["id"], cells["note"]) for _, cells in file.rows]


EXPECTED = [(row["id"], row["note"]) for row in ROWS]


def test_no_cell_begins_as_a_formula(written: Path) -> None:
    assert written.read_bytes().startswith(b"\xef\xbb\xbf")
    assert [cell for row in grid(written) for cell in row if cell.startswith(STARTS)] == []


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_no_cell_begins_as_a_formula_where_another_delimiter_splits_the_file(
    delimiter: str,
) -> None:
    """Excel in most of Europe splits a file with commas at its semicolons."""
    text = f"hello{delimiter}=HYPERLINK(1){delimiter} +2{delimiter}-3\n@SUM(A1)"
    data = write_review(("id", "message"), [{"id": "1", "message": text}]).decode("utf-8-sig")
    cells = [
        cell for line in data.splitlines() for cell in next(csv.reader([line], delimiter=delimiter))
    ]
    assert [cell for cell in cells if cell.strip().startswith(STARTS)] == []


def test_a_guarded_text_reads_back_as_it_was() -> None:
    dice = random.Random(1)
    for _ in range(20_000):
        text = "".join(dice.choices("'=+-@;\t\n\r a\uff1d", k=dice.randrange(8)))
        assert unguard(guard(text)) == text, repr(text)
    assert guard("Hello,\n- a list\n-- \nAnn") == "Hello,\n- a list\n-- \nAnn"


# --- Excel's part


def semicolons(path: Path, encoding: str) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerows(grid(path))
    path.write_bytes(text.getvalue().encode(encoding))


def in_one_column(path: Path) -> None:
    """Open with the semicolon as delimiter, and save, as Excel does."""
    lines = path.read_text("utf-8-sig").splitlines()
    rows = [next(csv.reader([line], delimiter=";"), []) for line in lines]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=";").writerows(rows)
    path.write_bytes(text.getvalue().encode("utf-8-sig"))


def unicode_text(path: Path) -> None:
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="\t").writerows(grid(path))
    path.write_bytes(text.getvalue().encode("utf-16"))


def sep_line(path: Path) -> None:
    semicolons(path, "utf-8")
    path.write_bytes(b"sep=;\r\n" + path.read_bytes())


def quotes_and_columns(path: Path) -> None:
    """Quote every cell, reverse the columns, and add empty ones and an own one."""
    rows = [[*reversed(row), "", ""] for row in grid(path)]
    rows[0][-1] = "Meine Notiz"
    rows[0] = [name.upper() for name in rows[0]]
    text = io.StringIO(newline="")
    csv.writer(text, quoting=csv.QUOTE_ALL).writerows(rows)
    path.write_text(text.getvalue(), "utf-8")


@pytest.mark.parametrize(
    "save",
    [
        lambda path: semicolons(path, "cp1252"),
        lambda path: semicolons(path, "utf-8-sig"),
        in_one_column,
        unicode_text,
        sep_line,
        quotes_and_columns,
    ],
    ids=["cp1252", "utf-8", "one column", "utf-16", "sep", "columns"],
)
def test_a_file_that_a_spreadsheet_saved_is_read(
    written: Path, save: Callable[[Path], None]
) -> None:
    save(written)
    assert ids_and_notes(written) == EXPECTED


def test_a_workbook_saved_from_the_file_is_read(written: Path, tmp_path: Path) -> None:
    """Excel turns what looks like a number into one."""
    book = openpyxl.Workbook()
    assert book.active is not None
    for row in grid(written):
        book.active.append([int(c) if c.isdecimal() and len(c) < 12 else c or None for c in row])
    book.save(tmp_path / "queue.xlsx")
    assert ids_and_notes(tmp_path / "queue.xlsx") == EXPECTED


def edited(path: Path, changes: Sequence[tuple[int, str, str]]) -> None:
    rows = grid(path)
    for line, column, cell in changes:
        rows[line][COLUMNS.index(column)] = cell
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    path.write_text(text.getvalue(), "utf-8")


def test_ids_that_a_spreadsheet_shortened_are_listed(written: Path) -> None:
    edited(written, [(1, "id", "1.23457E+15"), (5, "id", "1,2E+15")])
    with pytest.raises(RecordRefused) as refused:
        read_review(written, NEEDED).check()
    said = str(refused.value)
    assert "changed the id to 1.23457E+15: format the column as text" in said
    assert "1,2E+15" in said


def test_decisions_come_back_as_they_were_written(tmp_path: Path) -> None:
    answers = tuple(
        Answer(
            id_,
            "ab" * 32,
            "relabel",
            "+pay",
            f"={id_}: schön",
            "@ann",
            batch="=b",
            guideline="1.10",
        )
        for id_ in IDS
    )
    save_answers(tmp_path / "a.csv", answers)
    assert [
        cell for row in grid(tmp_path / "a.csv") for cell in row if cell.startswith(STARTS)
    ] == []
    semicolons(tmp_path / "a.csv", "cp1252")
    assert read_answers(tmp_path / "a.csv") == answers


def test_all_problems_of_a_file_are_reported_at_once(written: Path) -> None:
    changes = [(n, "decision", "accept") for n in range(1, 8)]
    changes += [(2, "decision", "yes"), (3, "decision", "relabel"), (4, "decision", "yes")]
    edited(written, [*changes, (6, "id", "1E+15")])
    with pytest.raises(RecordRefused) as refused:
        read_answers(written)
    _, *lines = str(refused.value).splitlines()
    assert len(lines) == 3, lines
    assert lines[1] == "  - queue.csv lines 4, 8: decision must be one of accept, relabel, drop"


def test_a_file_without_the_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("id,message\n1,hello\n", "utf-8")
    with pytest.raises(RecordRefused, match=r"q.csv: no column 'message_sha256', 'decision'"):
        read_review(path, NEEDED)
    with pytest.raises(RecordRefused, match=r"none.csv: cannot read it"):
        read_review(tmp_path / "none.csv", NEEDED)
