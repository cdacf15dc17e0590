"""Files as people have them: each holds the same 120 messages of three labels, and one thing that
goes wrong in practice. docs/messy-files.md says what each is, and what ``prepare`` says of it."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import random
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LABELS = ("Lieferung", "Rückgabe", "Konto sperren")
HEADER = ("Ticket-ID", "Nachricht", "Kategorie")
_GERMAN = """
    wo bleibt mein Päckchen ich warte schon seit Tagen auf die Größe falsch bestellt zurück
    Geld Rechnung doppelt Köln München Straße Bäckerei Tür Schlüssel Gerät kaputt möchte
    können bitte dringend Hilfe Konto Passwort vergessen Karte gestohlen Überweisung Betrag
    später früher nie wieder Grüße danke Antwort Kundendienst telefonisch erreichbar
    Wochenende Sendung Nachbar
"""
_HEBREW_AND_ARABIC = """
    איפה החבילה שלי אני מחכה כבר שבוע בבקשה עזרה כרטיס נגנב
    סיסמה שכחתי החזר كلمة السر أين طلبي أنتظر منذ أسبوع أريد
    استرداد المال بطاقة مسروقة شكرا جزيلا المساعدة عاجل فاتورة
    خطأ المبلغ العنوان التوصيل
"""
_RUSSIAN = """
    где мой заказ жду уже неделю верните деньги карта украдена пароль забыл доставка опоздала
    курьер звонил поддержка молчит срочно помогите пожалуйста спасибо чек ошибка сумма счёт
    товар сломан размер неверный обмен возврат адрес
"""
_FRENCH = """
    où est mon colis je l'attends depuis une semaine remboursez moi svp carte bloquée mot de passe
    oublié facture erreur montant débité deux fois livraison en retard le livreur n'a pas sonné
    échange taille trop petite merci d'avance réponse urgente compte fermé adresse changée
"""
_SPANISH = """
    dónde está mi pedido llevo una semana esperando quiero la devolución del dinero tarjeta
    bloqueada contraseña olvidada factura con error me cobraron dos veces el repartidor no llamó
    cambio de talla demasiado pequeña gracias por su ayuda respuesta urgente cuenta dirección
"""
_ENGLISH = """
    where is my parcel waiting for a week now please refund the money card blocked password
    forgotten invoice wrong amount charged twice courier never rang the bell exchange size too
    small thanks for your help urgent reply account closed address changed
"""
_JAPANESE = """
    荷物が 届きません 返金を お願いします パスワードを 忘れました カードが 盗まれました
    住所を 変更したい 商品が 壊れています サイズが 違います 連絡を ください 急いでいます
    請求書が 二重です 注文を 取り消したい 配達員が 来ない 電話が 通じない 先週から
    待っています 交換できますか 領収書を 送って 口座を 閉じたい
"""

Row = tuple[str, str, str]
"""Id, message, label."""


def rows(count: int = 120, words: str = _GERMAN) -> list[Row]:
    """Return messages that are no near-duplicates of each other."""
    rng = random.Random(7)
    return [
        (
            f"T-{number:04}",
            " ".join(rng.choices(words.split(), k=14)) + ".",
            LABELS[number % len(LABELS)],
        )
        for number in range(count)
    ]


def to_csv(
    lines: Sequence[Sequence[str]], *, delimiter: str = ",", end: str = "\r\n", **options: Any
) -> str:
    """Return lines as CSV."""
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=delimiter, lineterminator=end, **options).writerows(lines)
    return text.getvalue()


ROWS = rows()
PLAIN: list[Sequence[str]] = [HEADER, *ROWS]
_UNKNOWN = ("Liefrung", "Sonstiges", "", "#N/A")
_DOUBLED = ("T-0003", "Noch eine andere Nachricht", LABELS[0])
_FAULTS = [
    ("X-1", "Ganz neu hier", "Liefrung"),
    ("X-2", "Ohne alles", ""),
    ("X-3", "", LABELS[0]),
    ("T-0003", "Eine andere", LABELS[1]),
    ROWS[5],
]
_BROKEN = 'X-9;zu;viele;Zellen\r\nX-10;"offen;Lieferung\r\nX-11;BÃ¤ckergasse 3;konto-SPERREN\r\n'
_SPELL: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda label: label.replace("ü", "u"),
    lambda label: label.replace(" ", "-"),
]


def _foreign(words: str) -> str:
    lines = [("id", "message", "label"), *rows(words=words)]
    return to_csv(lines).replace("Rückgabe", "Ruckgabe")


def _mixed() -> list[Row]:
    """Return every fourth message in another language."""
    every = [rows(words=words) for words in (_GERMAN, _FRENCH, _SPANISH, _ENGLISH)]
    return [every[n % 4][n] for n in range(len(ROWS))]


def _json(form: Callable[[str, str, str], Any]) -> str:
    """Return a line for each message."""
    return "".join(json.dumps(form(*row)) + "\n" for row in ROWS)


TEXTS: dict[str, Callable[[], str | bytes]] = {
    # Encodings.
    "plain.csv": lambda: to_csv(PLAIN),
    "semicolons.csv": lambda: to_csv(PLAIN, delimiter=";").encode("cp1252"),
    "bom.csv": lambda: to_csv(PLAIN).encode("utf-8-sig"),
    "unicode_text.txt": lambda: to_csv(PLAIN, delimiter="\t").encode("utf-16"),
    "utf16_bare.csv": lambda: to_csv(PLAIN).encode("utf-16-le"),
    "russian.csv": lambda: _foreign(_RUSSIAN).encode("cp1251"),
    "japanese.csv": lambda: _foreign(_JAPANESE).encode("cp932"),
    "mixed.csv": lambda: b"\r\n".join(
        line.encode("cp1252" if at % 40 == 7 else "utf-8")
        for at, line in enumerate(to_csv(PLAIN).split("\r\n"))
    ),
    "mojibake.csv": lambda: (
        to_csv(PLAIN).encode().decode("cp1252", "replace").replace("\ufffd", "")
    ),
    "lost.csv": lambda: to_csv(PLAIN).replace("ß", "\ufffd"),
    "nul.csv": lambda: to_csv(PLAIN).replace("Hilfe", "Hil\0fe"),
    # Lines and quotes.
    "sep.csv": lambda: "sep=;\r\n" + to_csv([[*line, "", ""] for line in PLAIN], delimiter=";"),
    "old_mac.csv": lambda: to_csv(PLAIN, end="\r"),
    "tabs.csv": lambda: to_csv(PLAIN, delimiter="\t"),
    "lines.csv": lambda: to_csv([(i, m.replace(" ", '\n"', 2), label) for i, m, label in PLAIN]),
    "backslashes.csv": lambda: to_csv(
        [(i, f'er sagte "nein", {m}', label) for i, m, label in ROWS],
        doublequote=False,
        escapechar="\\",
        quoting=csv.QUOTE_ALL,
    ),
    "open_quote.csv": lambda: (
        to_csv(PLAIN[:60]) + '"X-1,"nie geschlossen,Lieferung\r\n' + to_csv(ROWS[60:])
    ),
    "ragged.csv": lambda: to_csv(PLAIN) + "X-1,Hallo, wo bleibt es, bitte,Lieferung\r\nX-2,ab\r\n",
    # Headers.
    "titles.csv": lambda: to_csv([["Export der Tickets"], ["Stand: 3. Mai"], *PLAIN]),
    "no_header.csv": lambda: to_csv(ROWS),
    "doubled_header.csv": lambda: to_csv(
        [[*HEADER, "Kategorie"], *([*row, LABELS[0]] for row in ROWS)]
    ),
    "unnamed.csv": lambda: to_csv(
        [["A", "B", "C", "D"], *([*row, ("zu", "offen")[n % 2]] for n, row in enumerate(ROWS))]
    ),
    "one_column.csv": lambda: to_csv([[row[1]] for row in PLAIN]),
    "empty.csv": lambda: "",
    "header_only.csv": lambda: to_csv([HEADER]),
    # Cells.
    "right_to_left.csv": lambda: to_csv(
        [
            ("id", "message", "label"),
            *((i, f"\u202e{m}\u202c", label) for i, m, label in rows(words=_HEBREW_AND_ARABIC)),
        ]
    ),
    "emoji.csv": lambda: to_csv(
        [HEADER, *((i, f"👩\u200d👩\u200d👧 {m} 🙏🏽", label) for i, m, label in ROWS)]
    ),
    "formulas.csv": lambda: to_csv(
        [HEADER, *((i, "=+-@"[n % 4] + m, label) for n, (i, m, label) in enumerate(ROWS))]
    ),
    "spellings.csv": lambda: to_csv(
        [HEADER, *((i, m, _SPELL[n % 4](label)) for n, (i, m, label) in enumerate(ROWS))]
    ),
    "french.csv": lambda: to_csv(
        [("Numéro", "Message du client", "Catégorie"), *rows(words=_FRENCH)], delimiter=";"
    ).encode("cp1252"),
    "spanish.csv": lambda: to_csv(
        [("Número", "Mensaje", "Categoría"), *rows(words=_SPANISH)], delimiter=";"
    ).encode("utf-8-sig"),
    "helpdesk.csv": lambda: to_csv(
        [
            ("Ticket #", "Subject", "Description", "Category"),
            *(
                (i, ("Help", "RE: order")[n % 2], m, label)
                for n, (i, m, label) in enumerate(rows(words=_ENGLISH))
            ),
        ]
    ),
    "four_languages.csv": lambda: to_csv([HEADER, *_mixed()]),
    "umlauts.csv": lambda: to_csv(PLAIN).replace("Rückgabe", "Rueckgabe"),
    "plurals.csv": lambda: to_csv(
        [HEADER, *((i, m, label + "en" * (n % 6 == 0)) for n, (i, m, label) in enumerate(ROWS))]
    ),
    "two_headers.csv": lambda: to_csv(
        [("Ticket", "", "Einordnung"), ("Ticket-ID", "Nachricht", "Kategorie"), *ROWS]
    ),
    "filed_again.csv": lambda: to_csv(
        [*PLAIN, *((i, m, LABELS[0]) for i, m, label in ROWS[:12] if label != LABELS[0])]
    ),
    "customers.csv": lambda: to_csv(
        [
            ("Kundennummer", "Nachricht", "Kategorie"),
            *((f"K-{n // 3}", m, label) for n, (_, m, label) in enumerate(ROWS)),
        ]
    ),
    "unknown.csv": lambda: to_csv(
        [*PLAIN, *((f"X-{at}", f"Ganz neu {at}", label) for at, label in enumerate(_UNKNOWN))]
    ),
    "empties.csv": lambda: to_csv(
        [*PLAIN, *((f"X-{text}", text, LABELS[0]) for text in ("", " \u200b ", "#N/A")), *ROWS[:3]]
    ),
    "doubled_ids.csv": lambda: to_csv(
        [
            ("id", "key", "message", "label"),
            *((i, f"k{n}", m, label) for n, (i, m, label) in enumerate([*ROWS, _DOUBLED])),
        ]
    ),
    "ten_megabytes.csv": lambda: to_csv(
        [(*HEADER, "Verlauf"), *((*row, "Anruf. " * 12_000) for row in ROWS)]
    ),
    "all_at_once.csv": lambda: (to_csv([*PLAIN, *_FAULTS], delimiter=";") + _BROKEN).encode(
        "cp1252"
    ),
    # JSON Lines, and files that are something else.
    "nested.jsonl": lambda: _json(
        lambda i, m, label: {"ticket": {"id": i, "message": {"body": m}}, "label": label}
    ),
    "broken.jsonl": lambda: (
        _json(lambda i, m, label: {"id": i, "message": m, "label": label})
        + '{"id": "X-1", "mess\n{"id": "X-2", "message": ["a"], "label": "b"}'
    ),
    "list.jsonl": lambda: json.dumps(
        [{"message": m, "label": label} for _, m, label in ROWS], indent=1
    ),
    "page.csv": lambda: "<html><table><tr><td>a</table>",
    "old.xlsx": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600),
    "csv.xlsx": lambda: to_csv(PLAIN),
}
_DATED = [
    [number, dt.datetime(2026, 5, 1 + number % 28, 9, 30), message, label, 1.5]
    for number, (_, message, label) in enumerate(ROWS)
]
_BLANKED = [
    (id_, message, None if number % 40 else label)
    for number, (id_, message, label) in enumerate(sorted(ROWS, key=lambda row: row[2]))
]
WORKBOOKS: dict[str, dict[str, Sequence[Sequence[Any]]]] = {
    "workbook.csv": {"Tickets": PLAIN},
    "dates.xlsx": {
        "Mai": [
            ["Ticketnummer", "Eingang", "Nachricht", "Kategorie", "Preis"],
            *_DATED[:50], [], [], *_DATED[50:],
        ]
    },
    "merged.xlsx": {"T": [["Tickets im Mai"], HEADER, *_BLANKED]},
    "two_headers.xlsx": {
        "T": [
            ["Ticket", None, "Inhalt", None, "Einordnung"],
            ["Ticket-ID", "Status", "Betreff", "Beschreibung", "Kategorie"],
            *((i, "offen", ("Frage", "AW: Anfrage")[n % 2], m, label)
              for n, (i, m, label) in enumerate(ROWS)),
        ]
    },
    "three_headers.xlsx": {
        "T": [
            ["Export Mai", None, None, None],
            ["Ticket", None, "Einordnung", None],
            ["Ticket-ID", "Nachricht", "Kategorie", "Kanal"],
            *((*row, "Web") for row in ROWS),
        ]
    },
    "notes.xlsx": {"Notizen": [["von Hand geprüft"]], "Tickets": PLAIN},
    "two_tables.xlsx": {"Mai": PLAIN[:40], "Juni": PLAIN},
    "errors.xlsx": {"T": [*PLAIN, ("X-1", "#N/A", LABELS[0]), ("X-2", "#REF!", LABELS[0])]},
    "formulas.xlsx": {"T": [*PLAIN, ("X-1", "=CONCATENATE(B2,B3)", LABELS[0])]},
    "zip_bomb.xlsx": {"T": PLAIN},
    "half.xlsx": {"T": PLAIN},
}  # fmt: skip


_MERGED = {
    "merged.xlsx": ("A1:C1", "C3:C42", "C43:C82", "C83:C122"),
    "two_headers.xlsx": ("A1:B1", "C1:D1"),
    "three_headers.xlsx": ("A1:D1", "A2:B2", "C2:D2"),
}


def _workbook(name: str) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, lines in WORKBOOKS[name].items():
        sheet = book.create_sheet(title)
        for line in lines:
            sheet.append(list(line))
    for cells in _MERGED.get(name, ()):
        book.worksheets[0].merge_cells(cells)
    data = io.BytesIO()
    book.save(data)
    if name == "zip_bomb.xlsx":
        with zipfile.ZipFile(data, "a", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("xl/sharedStrings2.xml", b" " * 40_000_000)
    return data.getvalue()[: 3000 if name == "half.xlsx" else None]


def _parquet() -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    ids, messages, labels = (list(column) for column in zip(*ROWS, strict=True))
    messages[0] = labels[1] = None
    data = io.BytesIO()
    parquet.write_table(pa.table({"id": ids, "message": messages, "label": labels}), data)
    return data.getvalue()


def write_file(path: Path) -> None:
    """Write the file of this name."""
    if path.name in TEXTS:
        text = TEXTS[path.name]()
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    else:
        path.write_bytes(_parquet() if path.suffix == ".parquet" else _workbook(path.name))


def write_taxonomy(directory: Path) -> Path:
    """Write the taxonomy of all files."""
    labels = "".join(f'[[labels]]\nname = "{label}"\n' for label in LABELS)
    path = directory / "taxonomy.toml"
    path.write_text(f'name = "shop"\nversion = "1"\n{labels}', encoding="utf-8")
    return path
