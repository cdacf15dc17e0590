"""The columns of message, label, id and time, by name and by content."""

from __future__ import annotations

import pytest

from tests.nasty_files import rows, to_csv
from trainer.dataset.guess import fold_label, guess_columns
from worker.common.tables import read_table

MESSAGES = rows(60)


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
    lines = [(id_, f"2026-05-{at % 28 + 1:02}", *rest) for at, (id_, *rest) in enumerate(MESSAGES)]
    guess = guess_columns(read_table(to_csv([names, *lines]).encode(), "x.csv"))
    assert guess.candidates == {}
    found = [guess.id, guess.time, guess.message, guess.label]
    assert [each and each.column for each in found] == list(names)


def test_a_column_of_different_texts_is_no_label_whatever_its_name() -> None:
    lines = [(message, f"answer {number} to it", label)
             for number, (_, message, label) in enumerate(MESSAGES)]  # fmt: skip
    text = to_csv([("instruction", "response", "intent"), *lines])
    guess = guess_columns(read_table(text.encode(), "x.csv"))
    assert guess.label is not None
    assert guess.label.column == "intent"


def test_a_column_that_reads_like_messages_wins_over_a_name() -> None:
    lines = [(("Frage", "AW: Anfrage")[at % 2], message, label)
             for at, (_, message, label) in enumerate(MESSAGES)]  # fmt: skip
    guess = guess_columns(read_table(to_csv([("Inhalt", "C 7", "Art"), *lines]).encode(), "x.csv"))
    assert guess.message is not None
    assert guess.message.column == "C 7"


@pytest.mark.parametrize(
    "spellings",
    [
        ("Störung", "Stoerung", "STORUNG", "störung "),
        ("Größe & Farbe", "Groesse und Farbe", "grosse_farbe"),
        ("Terms and conditions", "terms & conditions", "Terms-Conditions"),
        ("Prêt et crédit", "pret & credit"),
        ("stores_and_business", "Stores And Business", "stores & business"),
    ],
)
def test_spellings_of_one_label_are_folded_alike(spellings: tuple[str, ...]) -> None:
    assert len(set(map(fold_label, spellings))) == 1
    assert fold_label("Rechnung") != fold_label("Rechnungen")
    assert fold_label("und") == fold_label("&") == ""
