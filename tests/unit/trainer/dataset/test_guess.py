"""The columns of message, label, id and time, by name and by content."""

from __future__ import annotations

import random

import pytest

from tests.nasty_files import rows, to_csv
from trainer.dataset.guess import guess_columns
from worker.common.tables import Table, read_table

MESSAGES = rows(60)


def table(*names: str, status: bool = False) -> Table:
    """Return a table of id, time, message, label, and perhaps a status."""
    rng = random.Random(1)
    lines = [
        [id_, f"2026-05-{rng.randint(1, 28):02}", message, label, *(["open"] if status else [])]
        for id_, message, label in MESSAGES
    ]
    for line in lines[::2] if status else []:
        line[4] = "closed"
    return read_table(to_csv([names, *lines]).encode(), "x.csv")


@pytest.mark.parametrize(
    "names",
    [
        ("id", "created_at", "message", "label"),
        ("Ticket-Nummer", "Datum", "Nachricht", "Kategorie"),
        ("Numéro", "Date de création", "Texte", "Catégorie"),
        ("Número", "Fecha", "Mensaje", "Etiqueta"),
        ("номер", "дата", "Сообщение", "Категория"),
        ("番号", "日時", "本文", "カテゴリ"),
        ("번호", "날짜", "메시지", "카테고리"),
    ],
)
def test_names_in_many_languages_are_known(names: tuple[str, ...]) -> None:
    guess = guess_columns(table(*names))
    assert guess.ambiguous == []
    found = [guess.id, guess.time, guess.message, guess.label]
    assert [each and each.column for each in found] == list(names)


def test_names_that_say_nothing_leave_it_to_the_cells() -> None:
    guess = guess_columns(table("a", "b", "c", "d"))
    assert guess.message is not None
    assert guess.label is not None
    assert (guess.message.column, guess.label.column) == ("c", "d")
    assert guess.label.why == "3 short values that occur again"
    assert guess.time is not None
    assert guess.time.column == "b"


def test_two_columns_that_may_be_the_label_are_an_ambiguity_that_names_the_flag() -> None:
    guess = guess_columns(table("a", "b", "c", "d", "e", status=True))
    assert guess.label is None
    assert guess.ambiguous == ["the label may be the column 'd' or 'e': name it by --label-column"]
    named = guess_columns(table("a", "b", "c", "d", "e", status=True), taken=["e"])
    assert named.label is not None
    assert named.label.column == "d"


def test_a_column_of_different_texts_is_no_label_whatever_its_name() -> None:
    lines = [(message, f"answer {number} to it", label)
             for number, (_, message, label) in enumerate(MESSAGES)]  # fmt: skip
    text = to_csv([("instruction", "response", "intent"), *lines])
    guess = guess_columns(read_table(text.encode(), "x.csv"))
    assert guess.label is not None
    assert guess.label.column == "intent"
