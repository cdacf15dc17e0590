"""No customer's sentence and no personal data gets into the taxonomy that ``start`` writes."""

from __future__ import annotations

import re
import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.start.terms import taxonomy_text, typical_terms

ITEMS = ("kettle", "lamp", "coat", "chair", "rug", "mug", "tent", "vase", "desk", "shelf")


def rows() -> list[tuple[str, str]]:
    """Twenty messages of two labels, each with personal data that comes again in every one."""
    made = []
    for at, item in enumerate(ITEMS):
        sign = f"Kind regards\nGretel Umbridge\nmobile 0171 555 {at}22 gretel@umbridge.example"
        late = f"my parcel with the {item} never came and Horst saw no courier at 17 Acacia Avenue"
        made.append((f"Dear Otilia, {late}, order A-{at}93. Ask Horst Wimmer.\n{sign}", "delivery"))
        refund = (
            f"I want a refund for the {item}, 49{at} paid by card, write to otilia@shop.example"
        )
        made.append((f"Hello Otilia Brandvold, {refund} or +44 20 7946 0{at}58.\n{sign}", "refund"))
    return made


def test_terms_are_what_tells_a_label_from_the_others() -> None:
    terms = typical_terms(rows())
    assert {"parcel", "courier"} & set(terms["delivery"])
    assert "refund" in terms["refund"]


@pytest.mark.parametrize(
    "private",
    ["otilia", "brandvold", "gretel", "umbridge", "horst", "wimmer", "0171", "acacia", "example"],
)
def test_what_a_person_or_an_address_is_called_is_left_out(private: str) -> None:
    """Even if it is in every message of a label."""
    text = taxonomy_text("shop", ["a.csv"], typical_terms(rows()))
    assert private not in text.casefold()


def test_no_digit_and_no_more_than_two_words_of_a_message_are_in_a_description() -> None:
    data = tomllib.loads(taxonomy_text("shop", ["a.csv"], typical_terms(rows())))
    for label in data["labels"]:
        terms = label["description"].removeprefix("Typical words: ").rstrip(".").split(", ")
        assert all(len(term.split()) <= 2 for term in terms)
        assert not re.search(r"[\d@]", label["description"])


def test_a_name_of_few_messages_is_left_out_in_a_language_with_capital_nouns() -> None:
    """A term occurs in three different messages of its label. Copies of one message are one."""
    german = [
        (f"Mein Paket mit der Lampe Nummer {at} ist nicht da, sagt der Bote", "paket")
        for at in range(6)
    ]
    german += [("Die Rechnung von Kunigunde ist falsch", "rechnung")] * 9
    german += [(f"Die Rechnung ist falsch, Betrag {at}", "rechnung") for at in range(6)]
    terms = typical_terms(german)
    assert "paket" in terms["paket"]
    assert "rechnung" in terms["rechnung"]
    assert "kunigunde" not in terms["rechnung"]


def test_a_sentence_without_spaces_is_never_one_term() -> None:
    chinese = [(f"我的包裹还没有到{mark}", "包裹") for mark in "。！？~"] * 2
    chinese += [(f"我想要退款谢谢{mark}", "退款") for mark in "。！？~"]
    thai = [(f"พัสดุของฉันยังไม่มาถึง {at}", "thai") for at in range(5)]
    terms = typical_terms(chinese + thai)
    assert all(len(term) <= 2 for term in (*terms["包裹"], *terms["退款"]))
    assert terms["thai"] == ()


@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=4), st.text(max_size=20))
def test_any_label_and_file_name_gives_toml(labels: list[str], file: str) -> None:
    """A name that a taxonomy refuses is refused by the taxonomy, not by the TOML parser."""
    text = taxonomy_text("t", [file], dict.fromkeys(labels, ("word",)))
    assert [label["name"] for label in tomllib.loads(text)["labels"]] == list(dict.fromkeys(labels))
