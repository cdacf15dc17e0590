"""Files as people have them, and what ``prepare`` says of each.

    python -m tests.nasty_files DIR            # makes the files, with a taxonomy
    python -m tests.nasty_files DIR --table    # and prints the table of docs/messy-files.md

Each file holds the same 120 messages of three labels, and one thing that goes wrong in practice. A
file is read at once, or refused with all its problems; ``fix`` is what the list asks for, after
which the file is read.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import datetime as dt
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LABELS = ("Lieferung", "Rückgabe", "Konto sperren")
_WORDS = """
    wo bleibt mein Päckchen ich warte schon seit Tagen auf die Größe falsch bestellt zurück
    Geld Rechnung doppelt Köln München Straße Bäckerei Tür Schlüssel Gerät kaputt möchte
    können bitte dringend Hilfe Konto Passwort vergessen Karte gestohlen Überweisung Betrag
    später früher nie wieder Grüße danke Antwort Kundendienst telefonisch erreichbar
    Wochenende Sendung Nachbar
    """.split()  # noqa: SIM905

_HEBREW_AND_ARABIC = """
    איפה החבילה שלי אני מחכה כבר שבוע בבקשה עזרה כרטיס נגנב
    סיסמה שכחתי החזר كلمة السر أين طلبي أنتظر منذ أسبوع أريد
    استرداد المال بطاقة مسروقة شكرا جزيلا المساعدة عاجل فاتورة
    خطأ المبلغ العنوان التوصيل
    """.split()  # noqa: SIM905

Row = tuple[str, str, str]
"""Id, message, label."""

HEADER = ("Ticket-ID", "Nachricht", "Kategorie")


def rows(count: int = 120, words: Sequence[str] = _WORDS) -> list[Row]:
    """Return messages that are no near-duplicates of each other."""
    rng = random.Random(7)
    return [
        (f"T-{number:04}", " ".join(rng.choices(words, k=14)) + ".", LABELS[number % len(LABELS)])
        for number in range(count)
    ]


def to_csv(
    lines: Sequence[Sequence[str]], *, delimiter: str = ",", end: str = "\r\n", **options: Any
) -> str:
    """Return lines as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, **options).writerows(lines)
    return text.getvalue()


def _plain(extra: Sequence[Sequence[str]] = ()) -> list[Sequence[str]]:
    return [HEADER, *rows(), *extra]


def _workbook(path: Path, sheets: dict[str, Sequence[Sequence[Any]]], *merged: str) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, lines in sheets.items():
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(list(line))
    for cells in merged:
        book.worksheets[0].merge_cells(cells)
    book.save(path)


@dataclass(frozen=True, slots=True)
class Nasty:
    """A file: how it is made, and what ``prepare`` must say. ``options`` are its first command's;
    with ``fix`` (None: it cannot be read as it is) a file that was refused is read."""

    name: str
    what: str
    make: Callable[[Path], None]
    said: tuple[str, ...] = ()
    refused: bool = False
    fix: tuple[str, ...] | None = None


NASTY: list[Nasty] = []


def nasty(
    name: str,
    what: str,
    *said: str,
    refused: bool = False,
    fix: tuple[str, ...] | None = None,
) -> Callable[[Callable[[Path], None]], None]:
    """Register a function that writes a file."""

    def add(make: Callable[[Path], None]) -> None:
        NASTY.append(Nasty(name, what, make, said, refused, fix))

    return add


def text(name: str, what: str, made: Callable[[], str | bytes], *said: str, **options: Any) -> None:
    """Register a file of the text or bytes that ``made`` returns."""

    def make(path: Path) -> None:
        data = made()
        path.write_bytes(data if isinstance(data, bytes) else data.encode())

    nasty(name, what, *said, **options)(make)


def _mixed() -> bytes:
    lines = to_csv(_plain()).split("\r\n")
    return b"\r\n".join(
        line.encode("cp1252" if number % 40 == 7 else "utf-8") for number, line in enumerate(lines)
    )


def _foreign(words: str, encoding: str) -> Callable[[], bytes]:
    return lambda: (
        to_csv([("id", "message", "label"), *rows(words=words.split())])
        .replace("Rückgabe", "Ruckgabe")
        .encode(encoding)
    )


# --- encodings
text("plain.csv", "UTF-8, commas", lambda: to_csv(_plain()), "Read 120 rows")
text(
    "semicolons.csv",
    "German Excel: cp1252, semicolons",
    lambda: to_csv(_plain(), delimiter=";").encode("cp1252"),
    "cp1252 (detected), separated by semicolons",
)
text("bom.csv", "a byte order mark", lambda: b"\xef\xbb\xbf" + to_csv(_plain()).encode())
text(
    "unicode_text.txt",
    "Excel's Unicode text: UTF-16, tabs",
    lambda: to_csv(_plain(), delimiter="\t").encode("utf-16"),
    "utf-16, separated by tabs",
)
text(
    "utf16_bare.csv",
    "UTF-16 without a byte order mark",
    lambda: to_csv(_plain()).encode("utf-16-le"),
    "utf-16-le",
)
text(
    "russian.csv",
    "cp1251",
    _foreign(
        "где мой заказ жду уже неделю верните деньги карта украдена пароль забыл доставка "
        "опоздала курьер звонил поддержка молчит срочно помогите пожалуйста спасибо чек "
        "ошибка сумма счёт товар сломан размер неверный обмен возврат адрес",
        "cp1251",
    ),
    "cp1251 (detected)",
)
text(
    "japanese.csv",
    "Shift JIS",
    _foreign(
        "荷物が 届きません 返金を お願いします パスワードを 忘れました カードが 盗まれました "
        "住所を 変更したい 商品が 壊れています サイズが 違います 連絡を ください 急いでいます "
        "請求書が 二重です 注文を 取り消したい 配達員が 来ない 電話が 通じない 先週から "
        "待っています 交換できますか 領収書を 送って 口座を 閉じたい",
        "cp932",
    ),
    "cp932 (detected)",
)
text(
    "mixed.csv", "UTF-8 with lines in cp1252", _mixed, "not in UTF-8 like the rest: read as cp1252"
)
text(
    "mojibake.csv",
    "UTF-8 that was read as cp1252 and saved",
    lambda: to_csv(_plain()).encode().decode("cp1252", "replace").replace("\ufffd", ""),
    "an earlier wrong encoding had garbled: repaired",
)
text(
    "lost.csv",
    "letters that were replaced by \ufffd",
    lambda: to_csv(_plain()).replace("ß", "\ufffd"),
    "look garbled and cannot be repaired",
)
text(
    "nul.csv",
    "NUL bytes",
    lambda: to_csv(_plain()).replace("Hilfe", "Hil\0fe"),
    "with NUL bytes: removed",
)

# --- lines and quotes
text(
    "sep.csv",
    "a line sep=; and empty columns",
    lambda: "sep=;\r\n" + to_csv([[*line, "", ""] for line in _plain()], delimiter=";"),
)
text("old_mac.csv", "CR line ends", lambda: to_csv(_plain(), end="\r"))
text("tabs.csv", "tabs in a file named .csv", lambda: to_csv(_plain(), delimiter="\t"))
text(
    "lines.csv",
    "line ends and quotes within messages",
    lambda: to_csv(
        [(id_, message.replace(" ", '\n"', 2), label) for id_, message, label in [HEADER, *rows()]]
    ),
)
text(
    "backslashes.csv",
    "quotes escaped by backslashes, as databases export them",
    lambda: to_csv(
        [(id_, f'er sagte "nein", {message}', label) for id_, message, label in rows()],
        doublequote=False,
        escapechar="\\",
        quoting=csv.QUOTE_ALL,
    ),
)
text(
    "open_quote.csv",
    "a quote that is never closed",
    lambda: to_csv(_plain()[:60]) + '"X-1,"nie geschlossen,Lieferung\r\n' + to_csv(rows()[60:]),
    "1 row with a quote that is not closed",
    refused=True,
    fix=("--broken-rows", "drop"),
)
text(
    "ragged.csv",
    "commas in messages without quotes",
    lambda: to_csv(_plain()) + "X-1,Hallo, wo bleibt es, bitte,Lieferung\r\nX-2,ab\r\n",
    "2 rows with another number of cells than the header has (lines 122, 123)",
    refused=True,
    fix=("--broken-rows", "drop"),
)

# --- headers
text(
    "titles.csv",
    "a title and a date above the header",
    lambda: to_csv([["Export der Tickets"], ["Stand: 3. Mai"], *_plain()]),
    "header in row 3",
)
text("no_header.csv", "no header", lambda: to_csv(rows()), "no header")
text(
    "doubled_header.csv",
    "the column of the label twice",
    lambda: to_csv([[*HEADER, "Kategorie"], *([*row, LABELS[0]] for row in rows())]),
    "the label may be the column 'Kategorie' or 'Kategorie (2)'",
    refused=True,
    fix=("--label-column", "Kategorie"),
)
text(
    "unnamed.csv",
    "columns named A, B, C, D",
    lambda: to_csv(
        [
            ["A", "B", "C", "D"],
            *([*row, "offen" if n % 2 else "zu"] for n, row in enumerate(rows())),
        ]
    ),
    "the label may be the column 'C' or 'D'",
    refused=True,
    fix=("--label-column", "C"),
)
text(
    "one_column.csv",
    "messages alone",
    lambda: to_csv([[row[1]] for row in _plain()]),
    "no column looks like the label",
    refused=True,
)
text("empty.csv", "nothing", lambda: b"", "the file is empty", refused=True)
text(
    "header_only.csv",
    "a header alone",
    lambda: to_csv([HEADER]),
    "a header and no rows",
    refused=True,
)

# --- cells
text(
    "right_to_left.csv",
    "Hebrew and Arabic, with marks of direction",
    lambda: to_csv(
        [
            ("id", "message", "label"),
            *((id_, f"\u202e{m}\u202c", label) for id_, m, label in rows(words=_HEBREW_AND_ARABIC)),
        ]
    ),
)
text(
    "emoji.csv",
    "emoji, also with joiners",
    lambda: to_csv(
        [HEADER, *((i, f"👩\u200d👩\u200d👧 {m} 🙏🏽", label) for i, m, label in rows())]
    ),
)
text(
    "formulas.csv",
    "cells that begin like formulas",
    lambda: to_csv(
        [HEADER, *((i, "=+-@"[n % 4] + m, label) for n, (i, m, label) in enumerate(rows()))]
    ),
)
text(
    "spellings.csv",
    "labels in other spellings",
    lambda: to_csv(
        [
            HEADER,
            *(
                (
                    i,
                    m,
                    (label, label.upper(), label.replace("ü", "u"), label.replace(" ", "-"))[n % 4],
                )
                for n, (i, m, label) in enumerate(rows())
            ),
        ]
    ),
    "the label 'KONTO SPERREN' was read as 'Konto sperren'",
    "'Ruckgabe' was read as 'Rückgabe'",
)
text(
    "unknown.csv",
    "labels that nobody knows, and none",
    lambda: to_csv(
        _plain(
            [
                ("X-1", "Ganz neu hier", "Liefrung"),
                ("X-2", "Und noch", "Sonstiges"),
                ("X-3", "Ohne alles", ""),
                ("X-4", "Auch ohne", "#N/A"),
            ]
        )
    ),
    "1 row with the unknown label 'Liefrung' (unknown.csv:122); did you mean 'Lieferung'?",
    "1 row with the unknown label 'Sonstiges' (unknown.csv:123)",
    "2 rows with no label (unknown.csv:124, unknown.csv:125)",
    refused=True,
    fix=("--unknown-label", "review"),
)
text(
    "empties.csv",
    "empty messages, #N/A, and rows that repeat another",
    lambda: to_csv(
        _plain(
            [
                ("X-1", "", LABELS[0]),
                ("X-2", " \u200b ", LABELS[1]),
                ("X-3", "#N/A", LABELS[2]),
                *rows()[:3],
            ]
        )
    ),
    "3 rows repeated another exactly: kept once",
    "3 rows with an empty message: dropped",
)
text(
    "doubled_ids.csv",
    "an id of several rows",
    lambda: to_csv(
        [
            ("id", "key", "message", "label"),
            *(
                (i, f"k{n}", m, label)
                for n, (i, m, label) in enumerate(
                    [*rows(), ("T-0003", "Noch eine andere Nachricht", LABELS[0])]
                )
            ),
        ]
    ),
    "2 rows have the id 'T-0003'",
    refused=True,
    fix=("--id-column", "key"),
)
text(
    "ten_megabytes.csv",
    "10 MB, most of it in a column that nobody needs",
    lambda: to_csv([(*HEADER, "Verlauf"), *((*row, "Anruf. " * 12_000) for row in rows())]),
)
text(
    "all_at_once.csv",
    "five problems in one file",
    lambda: (
        to_csv(
            _plain(
                [
                    ("X-1", "Ganz neu hier", "Liefrung"),
                    ("X-2", "Ohne alles", ""),
                    ("X-3", "", LABELS[0]),
                    ("T-0003", "Eine andere", LABELS[1]),
                    rows()[5],
                ]
            ),
            delimiter=";",
        ).encode("cp1252")
        + b"X-9;zu;viele;Zellen\r\n"
        + b'X-10;"offen;Lieferung\r\n'
        + "X-11;BÃ¤ckergasse 3;konto-SPERREN\r\n".encode("cp1252")
    ),
    "another number of cells",
    "a quote that is not closed",
    "have the id 'T-0003'",
    "'Liefrung'",
    "with no label",
    refused=True,
)

# --- JSON Lines, and files that are something else
text(
    "nested.jsonl",
    "objects within objects",
    lambda: "".join(
        json.dumps({"ticket": {"id": i, "message": {"body": m}}, "label": label}) + "\n"
        for i, m, label in rows()
    ),
    "message from 'ticket.message.body'",
)
text(
    "broken.jsonl",
    "lines that are cut off, and a list as a message",
    lambda: (
        "".join(
            json.dumps({"id": i, "message": m, "label": label}) + "\n" for i, m, label in rows()
        )
        + '{"id": "X-1", "mess\n{"id": "X-2", "message": ["a"], "label": "b"}'
    ),
    "1 row not a JSON object (line 121)",
    "where text belongs (line 122)",
    refused=True,
    fix=("--broken-rows", "drop"),
)
text(
    "list.jsonl",
    "one JSON list",
    lambda: json.dumps([{"message": m, "label": label} for _, m, label in rows()], indent=1),
    "is one JSON list, not an object a line",
    refused=True,
)
text(
    "page.csv",
    "a web page that is named .csv",
    lambda: "<html><table><tr><td>a</table>",
    "is an HTML page",
    refused=True,
)
text(
    "old.xlsx",
    "an old .xls, or a workbook with a password",
    lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "save it as .xlsx",
    refused=True,
)
text(
    "csv.xlsx",
    "CSV that is named .xlsx",
    lambda: to_csv(_plain()),
    "not a complete .xlsx workbook",
    refused=True,
)


# --- workbooks
@nasty("workbook.csv", "a workbook that is named .csv", "a workbook, sheet 'Tickets'")
def _(path: Path) -> None:
    _workbook(path.with_suffix(".xlsx"), {"Tickets": _plain()})
    path.with_suffix(".xlsx").rename(path)


@nasty("dates.xlsx", "dates, times, numbers and empty rows")
def _(path: Path) -> None:
    lines = [
        [number, dt.datetime(2026, 5, 1 + number % 28, 9, 30), message, label, 1.5]
        for number, (_, message, label) in enumerate(rows())
    ]
    header = ["Ticketnummer", "Eingang", "Nachricht", "Kategorie", "Preis"]
    _workbook(path, {"Mai": [header, *lines[:50], [], [], *lines[50:]]})


@nasty(
    "merged.xlsx",
    "a merged title, and labels merged over rows",
    "header in row 2",
    "in merged cells: each cell has the value of the first",
)
def _(path: Path) -> None:
    ordered = sorted(rows(), key=lambda row: row[2])
    blanked = [
        (id_, message, label if number % 40 == 0 else None)
        for number, (id_, message, label) in enumerate(ordered)
    ]
    merged = [f"C{first}:C{first + 39}" for first in (3, 43, 83)]
    _workbook(path, {"T": [["Tickets im Mai"], HEADER, *blanked]}, "A1:C1", *merged)


@nasty(
    "notes.xlsx", "a second sheet with notes", "has other sheets, which are not read ('Notizen')"
)
def _(path: Path) -> None:
    _workbook(path, {"Notizen": [["von Hand geprüft"]], "Tickets": _plain()})


@nasty(
    "two_tables.xlsx",
    "two sheets with tables",
    "has 2 sheets ('Mai', 'Juni')",
    refused=True,
    fix=("--sheet", "Juni"),
)
def _(path: Path) -> None:
    _workbook(path, {"Mai": _plain()[:40], "Juni": _plain()})


@nasty(
    "errors.xlsx",
    "a message that is #N/A",
    "2 rows with a spreadsheet's error such as #N/A: read as an empty cell",
)
def _(path: Path) -> None:
    _workbook(path, {"T": _plain([("X-1", "#N/A", LABELS[0]), ("X-2", "#REF!", LABELS[0])])})


@nasty(
    "formulas.xlsx",
    "a formula that was never computed",
    "1 row with a formula whose result was never saved (row 122)",
    refused=True,
    fix=("--broken-rows", "drop"),
)
def _(path: Path) -> None:
    _workbook(path, {"T": _plain([("X-1", "=CONCATENATE(B2,B3)", LABELS[0])])})


@nasty("zip_bomb.xlsx", "a zip bomb", "as in a zip bomb", refused=True)
def _(path: Path) -> None:
    _workbook(path, {"T": _plain()})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/sharedStrings2.xml", b" " * 40_000_000)


@nasty("half.xlsx", "half a workbook", "not a complete .xlsx workbook", refused=True)
def _(path: Path) -> None:
    _workbook(path, {"T": _plain()})
    path.write_bytes(path.read_bytes()[:3000])


@nasty(
    "nulls.parquet",
    "missing messages and labels",
    "1 row with no label",
    refused=True,
    fix=("--unknown-label", "drop"),
)
def _(path: Path) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    columns = [list(column) for column in zip(*rows(), strict=True)]
    columns[1][0] = None
    columns[2][1] = None
    parquet.write_table(pa.table(dict(zip(("id", "message", "label"), columns, strict=True))), path)


def write_taxonomy(directory: Path) -> Path:
    """Write the taxonomy of all files."""
    labels = "".join(f'[[labels]]\nname = "{label}"\n' for label in LABELS)
    path = directory / "taxonomy.toml"
    path.write_text(f'name = "shop"\nversion = "1"\n{labels}', encoding="utf-8")
    return path


def prepare(path: Path, taxonomy: Path, out: Path, *options: str) -> tuple[int, str]:
    """Run the command on a file; return its exit code and what it printed."""
    from typer.testing import CliRunner

    from trainer.cli.main import app

    paths = ["--input", str(path), "--taxonomy", str(taxonomy), "--out", str(out)]
    result = CliRunner().invoke(app, ["prepare", *paths, *options], env={"COLUMNS": "400"})
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout + result.stderr


def summary(code: int, output: str) -> list[str]:
    """Return what was said of a file: problems, or how it was read and the notes."""
    lines = output.splitlines()
    if code:
        return [
            line.removeprefix("clerk-trainer: ").removeprefix("  - ")
            for line in lines
            if not line.endswith(" problems:")
        ]
    return [
        line.strip()
        for line in lines
        if line.startswith(("Read ", "  ")) and not line.startswith("   ")
    ]


_USUAL = " (took message from 'Nachricht', label from 'Kategorie', id from 'Ticket-ID')"
_PLAIN = "(CSV, utf-8, separated by commas)"


def _shortened(line: str, name: str) -> str:
    """Leave out what the page says once: the file's name, the rows, and what is usual."""
    line = line.replace("|", "\\|").rstrip(".").removeprefix(f"{name}: ")
    if line.startswith("Read "):
        line = line.partition(f" of {name} ")[2].removesuffix(_USUAL)
    return "" if line == _PLAIN else line


def page_row(each: Nasty, code: int, output: str) -> str:
    """Return the file's row in docs/messy-files.md, in the table of files read or refused."""
    said = filter(None, (_shortened(line, each.name) for line in summary(code, output)))
    return f"| `{each.name}` | {each.what} | {'<br>'.join(said)} |"


def main() -> None:
    """Make the files, and with ``--table`` print what is said of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    taxonomy = write_taxonomy(arguments.directory)
    for each in sorted(NASTY, key=lambda each: each.refused):
        path = arguments.directory / each.name
        each.make(path)
        if arguments.table:
            out = arguments.directory / f"out-{each.name}"
            with contextlib.redirect_stderr(io.StringIO()):
                code, output = prepare(path, taxonomy, out)
            print(page_row(each, code, output))


if __name__ == "__main__":
    main()
