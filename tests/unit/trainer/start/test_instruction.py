"""The labels that a fine-tune's instruction lists, as such instructions are written."""

from __future__ import annotations

import pytest

from trainer.start.instruction import listed_labels

ANSWERS = ("lost_card", "Stolen card", "refund", "stores and business", "fees: abroad")
LOST, STOLEN = "the card is gone", "someone took it"

DESCRIBED = {
    "dashes and colons": "- lost_card: {lost}\n- Stolen card: {stolen}",
    "stars, bold, and dashes": "* **lost_card** - {lost}\n* **Stolen card** – {stolen}",
    "numbers and letters": "1) `lost_card`: {lost}\nb) Stolen card = {stolen}",
    "nothing before a name": "lost_card: {lost}\nstolen_card: {stolen}\nOutput: JSON",
    "brackets": "- lost_card ({lost})\n- stolen_card ({stolen}).",
    "on the next line": "- lost_card\n  {lost}\n- stolen_card\n  {stolen}",
    "headings": "## lost_card\n  {lost}\n\n## stolen_card\n  {stolen}",
    "blank lines and quotes": '- "lost_card": {lost}\n\n- "stolen_card": {stolen}',
    "among other words": (
        "You sort mail.\n\nRules:\n- Be brief: one word.\n- Never guess: ask.\n\nLabels:\n"
        "- lost_card: {lost}\n- stolen_card: {stolen}\n\nAnswer with the label."
    ),
}


@pytest.mark.parametrize("form", DESCRIBED)
def test_descriptions_are_read_in_each_form(form: str) -> None:
    listed = listed_labels(DESCRIBED[form].format(lost=LOST, stolen=STOLEN), ANSWERS)
    assert listed.describe(ANSWERS) == {"lost_card": LOST, "Stolen card": STOLEN}
    assert listed.unseen == []


@pytest.mark.parametrize(
    "instruction",
    [
        "Answer with one of these: lost_card, stolen card, stores and business or refund. Be brief",
        'The labels are ["lost_card", "stolen_card", "refund", "stores and business"].',
        "lost_card|stolen_card|refund|stores and business",
        "- lost_card\n- Stolen card\n- stores and business\n- refund",
    ],
)
def test_names_alone_are_a_list_without_descriptions(instruction: str) -> None:
    listed = listed_labels(instruction, ANSWERS)
    assert all(map(listed.has, ANSWERS[:4]))
    assert not listed.has("fees: abroad")
    assert (listed.describe(ANSWERS), listed.unseen) == ({}, [])


@pytest.mark.parametrize(
    "instruction",
    [
        "- lost_card: a\n- refund: b\n- press: journalists",
        "One of: lost_card, press or refund.",
    ],
)
def test_a_listed_name_that_no_answer_has_is_told(instruction: str) -> None:
    assert listed_labels(instruction, ANSWERS).unseen == ["press"]


def test_a_name_may_hold_the_mark_that_ends_one() -> None:
    listed = listed_labels("- fees: abroad: paid elsewhere\n- refund: money: back", ANSWERS)
    assert listed.describe(ANSWERS) == {"fees: abroad": "paid elsewhere", "refund": "money: back"}


@pytest.mark.parametrize(
    "instruction",
    [
        "",
        "Sort the message.",
        "If it is about a refund, say so.",
        # One name alone may be anything, and so may two among many.
        "Rules:\n- refund: never promise one\n- tone: friendly",
        "- tone: warm\n- length: short\n- form: JSON\n- refund: never\n- lost_card: block it",
    ],
)
def test_other_words_are_not_a_list_of_labels(instruction: str) -> None:
    listed = listed_labels(instruction, ANSWERS)
    assert (listed.descriptions, listed.unseen) == ({}, [])
