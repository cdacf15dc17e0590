"""Guess which columns of a table hold message, label, id and time: by their names in many
languages, and by what the cells look like where a name does not say. Those of chats are known."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import islice
from typing import Literal

from worker.common.tables import Table

Field = Literal["message", "label", "id", "sublabel", "time"]

NO_LABELS = "without labels, give some first: clerk-desk label {file} --taxonomy FILE"
"""The remedy, where a file has messages alone (docs/labelling.md)."""


def _words_of(text: str) -> tuple[str, ...]:
    return tuple(text.split())


# By field, the most telling names first: of several that are there the first is taken. English and
# the words of instruction tuning, then German, French, Spanish, Italian, Portuguese, Dutch, Polish,
# Czech, Swedish, Danish, Turkish, Russian, Ukrainian, Greek, Hebrew, Arabic, Chinese, Japanese,
# Korean. Compared without case, accents, spaces and punctuation.
_NAMES: dict[Field, tuple[str, ...]] = {
    "message": _words_of(
        """message instruction text body messagetext messagebody ticketbody emailbody content
        customermessage customertext description comment prompt input question query utterance
        request nachricht nachrichtentext mitteilung kundennachricht inhalt anliegen anfrage
        beschreibung kommentar freitext meldung texte contenu corps commentaire demande mensaje
        texto cuerpo contenido descripcion comentario consulta messaggio testo corpo contenuto
        descrizione commento richiesta mensagem conteudo descricao bericht tekst inhoud omschrijving
        wiadomosc tresc opis zprava meddelande innehall beskrivning besked indhold mesaj metin
        icerik aciklama сообщение текст содержание обращение описание повідомлення μηνυμα κειμενο
        הודעה טקסט رسالة الرسالة نص النص 消息 内容 文本 訊息 留言 本文
        メッセージ 問い合わせ内容 내용 메시지 문의내용"""
    ),
    "label": _words_of(
        """label response category class intent output completion target topic queue
        labelname tickettype issuetype requesttype kategorie klasse thema etikett einordnung
        kennzeichnung anliegenart categorie etiquette classe sujet theme motif categoria
        etiqueta clase tema motivo etichetta tipologia assunto onderwerp kategoria etykieta temat
        stitek tagg kategori etiket konu категория метка тема категорія κατηγορια ετικετα קטגוריה
        תווית فئة الفئة تصنيف 类别 标签 分类 類別 標籤 分類 カテゴリ カテゴリー ラベル 카테고리 라벨
        분류"""
    ),
    "id": _words_of(
        """id ticketid messageid ticketnumber ticketno ticket caseid casenumber issueid key uuid
        guid number nummer ticketnummer vorgangsnummer vorgang fallnummer fallid numero
        numeroticket idticket nr identifiant identificador identificativo номер 编号 番号
        번호"""
    ),
    "sublabel": ("sublabel", "subcategory"),
    "time": _words_of(
        """time timestamp date datetime created createdat createdon receivedat received sentat
        messagetime zeit datum zeitstempel uhrzeit erstellt erstelltam eingang eingangsdatum
        empfangenam horodatage datecreation fecha fechacreacion hora data datacreazione
        datacriacao datumtijd utworzono vytvoreno skapad oprettet tarih дата время ημερομηνια
        תאריך تاريخ التاريخ 日期 时间 時間 日時 作成日 날짜 시간"""
    ),
}

_ROWS = 500
_SURE_ROWS = 20
"""Below, what a column holds is too little to contradict its name."""
_LABEL_CHARS, _MOST_LABELS = 60, 100
_MESSAGE_CHARS, _MESSAGE_WORDS = 15, 2.5


@dataclass(frozen=True, slots=True)
class Guess:
    """A column, and ``why`` in a few words."""

    column: str
    why: str


@dataclass(frozen=True, slots=True)
class ColumnGuess:
    """A guess for each field, None without one. A field whose column cannot be decided is in
    ``candidates`` with its columns."""

    message: Guess | None = None
    label: Guess | None = None
    id: Guess | None = None
    sublabel: Guess | None = None
    time: Guess | None = None
    candidates: dict[Field, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Look:
    """What the cells of a column look like. ``rows`` are those that are not empty; lengths are
    means."""

    column: str
    rows: int
    distinct: int
    chars: float
    words: float
    again: float
    times: float
    numbers: float

    @property
    def is_message(self) -> bool:
        return (
            self.chars >= _MESSAGE_CHARS
            and self.words >= _MESSAGE_WORDS
            and self.distinct > self.rows / 2
            and self.times < 0.5
        )

    @property
    def is_label(self) -> bool:
        """Few different short values, and nearly all occur again."""
        return (
            self.rows >= _SURE_ROWS
            and 2 <= self.distinct <= _MOST_LABELS
            and self.again >= 0.8
            and self.chars <= _LABEL_CHARS
            and self.times < 0.5
            and self.numbers < 0.5
        )

    @property
    def denies_label(self) -> bool:
        return self.chars > 2 * _LABEL_CHARS or (
            self.rows >= _SURE_ROWS and self.distinct > self.rows / 2
        )

    @property
    def names_rows(self) -> bool:
        """Nearly all different: a few ids may occur twice, which ``prepare`` reports."""
        return self.distinct >= 0.9 * self.rows or self.rows < _SURE_ROWS


def guess_columns(table: Table, taken: Collection[str] = ()) -> ColumnGuess:
    """Guess the columns from their names and the first rows. Columns in ``taken`` were named by the
    user, and stay out of it."""
    rows = [cells for _, cells in islice(table.rows(), _ROWS)]
    looks = [_look(name, [cells[at] for cells in rows]) for at, name in enumerate(table.columns)]
    free = {look.column: look for look in looks if look.column not in taken}
    twice = {name.rpartition(" (")[0] for note in table.notes if note.kind == "twice"
             for name in table.columns if re.search(r" \(\d+\)$", name)}  # fmt: skip
    made: dict[Field, Guess] = {}
    candidates: dict[Field, tuple[str, ...]] = {}

    def decide(what: Field, found: Sequence[Guess]) -> None:
        names = [guess.column for guess in found]
        if len(found) == 1 and found[0].column in twice:
            names += [name for name in table.columns if name.startswith(f"{names[0]} (")]
        if len(names) > 1:
            candidates[what] = tuple(names)
        elif found:
            made[what] = found[0]
            del free[names[0]]

    decide("sublabel", _by_name("sublabel", free)[:1])
    # Of a chat it is known, even if most answers are different texts.
    decide("message", _guess_chat("message", table, free) or _guess_message(free))
    decide("label", _guess_chat("label", table, free) or _guess_label(free))
    decide("time", _guess_time(free))
    decide("id", _guess_id(free))
    return ColumnGuess(**made, candidates=candidates)


def ambiguity(what: Field, names: Sequence[str]) -> str:
    """Return the sentence about a field whose column may be one of several."""
    quoted = [repr(name) for name in names]
    either = f"{', '.join(quoted[:-1])} or {quoted[-1]}"
    return f"the {what} may be the column {either}: name it by --{what}-column"


_OF_CHATS = {"message": "what the user wrote", "label": "the model's answer"}


def _guess_chat(what: str, table: Table, free: Collection[str]) -> list[Guess]:
    known = table.found.form is not None and what in free
    return [Guess(what, _OF_CHATS[what])] if known else []


def _by_name(what: Field, free: dict[str, _Look]) -> list[Guess]:
    """Return the columns with a name of this field, the most telling first, empty ones last."""
    names = {fold_name(name): place for place, name in enumerate(_NAMES[what])}
    found = []
    for column, look in free.items():
        parts = (fold_name(column), fold_name(column.rpartition(".")[2]))
        places = [names[part] for part in parts if part in names]
        if places:
            found.append((not look.rows, min(places), column))
    return [Guess(column, "by its name") for _, _, column in sorted(found)]


def _guess_message(free: dict[str, _Look]) -> list[Guess]:
    named = _by_name("message", free)
    # A name can mislead: a column "text" with three words for all rows next to one with mails.
    sure = [guess for guess in named if free[guess.column].is_message]
    if sure:
        return sure[:1]
    looks = sorted((look for look in free.values() if look.is_message), key=lambda x: -x.chars)
    close = [look for look in looks if look.chars >= 0.5 * looks[0].chars]
    found = [Guess(look.column, f"texts of {look.chars:.0f} characters") for look in close]
    return found or named[:1]


def _guess_label(free: dict[str, _Look]) -> list[Guess]:
    named = [guess for guess in _by_name("label", free) if not free[guess.column].denies_label]
    named = [guess for guess in named if free[guess.column].rows] or named[:1]
    usual = [guess for guess in named if fold_name(guess.column) == "label"]
    if named:
        return usual[:1] or named
    return [
        Guess(look.column, f"{look.distinct} short values that occur again")
        for look in free.values()
        if look.is_label
    ]


def _guess_time(free: dict[str, _Look]) -> list[Guess]:
    named = [guess for guess in _by_name("time", free) if free[guess.column].times > 0.5]
    looks = [look for look in free.values() if look.times > 0.9]
    return named[:1] or [Guess(look.column, "dates") for look in looks[:1]]


def _guess_id(free: dict[str, _Look]) -> list[Guess]:
    named = [guess for guess in _by_name("id", free) if free[guess.column].names_rows]
    return named[:1]


def fold_name(text: str) -> str:
    """Return a name without case, accents, spaces and punctuation: equal for spellings of one."""
    apart = unicodedata.normalize("NFKD", text.casefold())
    return "".join(each for each in apart if each.isalnum() and not unicodedata.combining(each))


_JOINING = frozenset({"and", "und", "et", "y"})  # also written "&"


def fold_label(text: str) -> str:
    """Return a label as ``fold_name`` does, and without "and"; ``ae``, ``oe`` and ``ue`` are
    umlauts. Empty if nothing is left."""
    words = [word for word in re.findall(r"[^\W_]+", text.casefold()) if word not in _JOINING]
    folded = fold_name("".join(words))
    return re.sub("([aou])e", r"\1", folded)


_DATE = re.compile(
    r"\d{4}-\d\d?-\d\d?([T ]\d\d?:\d\d.*)?|\d\d?[./-]\d\d?[./-]\d{2,4}([, ]+\d\d?:\d\d.*)?"
)


def _is_time(cell: str) -> bool:
    if len(cell) > 40:
        return False
    if _DATE.fullmatch(cell):
        return True
    try:
        return not cell.isdigit() and bool(datetime.fromisoformat(cell))
    except ValueError:
        return False


def _look(column: str, cells: Sequence[str]) -> _Look:
    there = [cell.strip() for cell in cells if cell.strip()]
    counts = Counter(there)
    size = len(there) or 1
    return _Look(
        column=column,
        rows=len(there),
        distinct=len(counts),
        chars=sum(map(len, there)) / size,
        words=sum(_words(cell) for cell in there) / size,
        again=sum(count for count in counts.values() if count > 1) / size,
        times=sum(map(_is_time, there)) / size,
        numbers=sum(cell.replace(".", "").replace(",", "").isdigit() for cell in there) / size,
    )


_UNSPACED = re.compile("[\u0e00-\u0e7f\u3040-\u30ff\u4e00-\u9fff]")


def _words(text: str) -> float:
    """Return the number of words; in scripts without spaces two characters count as one."""
    return max(len(text.split()), len(_UNSPACED.findall(text)) / 2)
