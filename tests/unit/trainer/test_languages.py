"""The languages of messages, and those that a base knows."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.languages import (
    UNKNOWN,
    count_languages,
    foreign_languages,
    language_names,
    language_of,
    language_shares,
)
from trainer.model.base_card import find_languages


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("Mein Abschlag ist zu hoch", "de"),
        ("Wo bleibt meine Bestellung?", "de"),
        ("Where is my order?", "en"),
        ("Ma facture est trop élevée", "fr"),
        ("Quiero que me devuelvan el dinero", "es"),
        ("T-0003", UNKNOWN),
        ("", UNKNOWN),
    ],
)
def test_short_messages_are_named_or_left_unnamed(text: str, language: str) -> None:
    assert language_of(text) == language


def test_shares_are_counted_evenly_and_rare_guesses_are_not_languages() -> None:
    german, english = ["Wann kommt der Techniker zu mir?"] * 9000, ["Where is my order?"] * 3000
    texts = [*german, *english, "Ma facture est trop élevée"]
    found = count_languages(texts)
    assert found.keys() <= {"de", "en", UNKNOWN}
    assert found["de"] == pytest.approx(3 * found["en"], rel=0.02)
    assert language_shares({"de": 82, "en": 10, UNKNOWN: 8}) == (
        "German 82%, English 10%, not recognized 8%"
    )


def test_what_a_base_does_not_know_is_named() -> None:
    counts = {"de": 80, "en": 15, "fr": 1, UNKNOWN: 4}
    assert foreign_languages(counts, ("en",)) == "German 80%"
    assert foreign_languages(counts, ("en-GB", "de")) == ""
    assert foreign_languages(counts, ("multilingual",)) == ""
    assert foreign_languages(counts, ()) == "", "a base that does not say may know any"
    assert language_names(("en", "de", "fr")) == "English, German and French"


@pytest.mark.parametrize(
    ("front_matter", "languages"),
    [
        ("language: en", ("en",)),
        ("language: [en, 'de', pt-BR]", ("en", "de", "pt-BR")),
        ("language:\n- en\n- multilingual\nlicense: mit", ("en", "multilingual")),
        ("language:\n  - de\n", ("de",)),
        ("license: mit", ()),
    ],
)
def test_a_bases_folder_says_which_languages_it_knows(
    tmp_path: Path, front_matter: str, languages: tuple[str, ...]
) -> None:
    (tmp_path / "README.md").write_text(f"---\n{front_matter}\n---\n# A base\nlanguage: xx\n")
    assert find_languages(tmp_path) == languages
    assert find_languages(tmp_path / "none") == ()
