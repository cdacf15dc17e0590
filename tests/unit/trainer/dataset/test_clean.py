"""What is cut from a mail, and above all what is not."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from trainer.dataset.clean import clean, strip_quotes, strip_signature
from trainer.dataset.folder import Row

ASK = "Where is my parcel?"

QUOTED = [
    (f"{ASK}\n> We sent it on Monday.\n> Regards", ASK),
    (f"> We sent it.\n{ASK}", ASK),
    (f"{ASK}\n\nOn Mon, 3 Jun 2024 at 10:12, Ann <ann@shop.example> wrote:\n> Hello\n> Ann", ASK),
    (f"{ASK}\n\nOn Mon, 3 Jun 2024 at 10:12,\nAnn <ann@shop.example>\nwrote:\n> Hello", ASK),
    (f"{ASK}\n\nOn 3 Jun 2024, Ann wrote:\nHello, not quoted by a sign", ASK),
    (f"{ASK}\nAm 03.06.2024 um 10:12 schrieb Ann <ann@shop.example>:\n> Hallo", ASK),
    (f"{ASK}\nLe 3 juin 2024 à 10:12, Ann a écrit :\n> Bonjour", ASK),
    (f"{ASK}\n-----Original Message-----\nFrom: Ann\nHello", ASK),
    (f"{ASK}\n---- Forwarded message ----\nHello", ASK),
    (f"{ASK}\nBegin forwarded message:\nHello", ASK),
    (f"{ASK}\n\nFrom: Ann <a@shop.example>\nSent: Monday\nTo: Me\nSubject: Parcel\n\nHello", ASK),
    # Answered line by line: what is not quoted stays.
    ("On 3 Jun 2024, Ann wrote:\n> Which one?\nNumber 12.\n> When?\nNow.", "Number 12.\nNow."),
]  # fmt: skip

NOT_QUOTED = [
    "On Monday my landlord wrote:\nyou owe me 20",
    "My balance is > 100 but the card was declined",
    "I paid\nFrom: London\nand got nothing",
    "The original message was lost, can you send it again?",
    "On my statement it says 12:30, who wrote: that?",
]

SIGNED = [
    (f"{ASK}\n-- \nAnn Example\nShop Ltd", ASK),
    (f"{ASK}\n--\nAnn", ASK),
    (f"{ASK}\n\nSent from my iPhone", ASK),
    (f"{ASK}\nSent from my Samsung Galaxy S22 Ultra.", ASK),
    (f"{ASK}\nSent from Mail for Windows", ASK),
    (f"{ASK}\nGet Outlook for Android", ASK),
    (f"{ASK}\nVon meinem iPhone gesendet", ASK),
    (f"{ASK}\n\nBest regards,\nAnn Example\n+44 20 7946 0000", ASK),
    (f"{ASK}\nKind regards\nAnn\n\nSent from my Galaxy", ASK),
    (f"{ASK}\nThanks in advance!\nAnn", ASK),
    (f"{ASK}\nMit freundlichen Grüßen\nAnn", ASK),
    (f"{ASK}\nCheers", ASK),
]

NOT_SIGNED = [
    "Thanks, but where is my parcel?",
    "Best regards,\nand one more thing: where is my parcel?",
    "Thank you\nI still wait for the refund of last month which you promised me on Friday",
    "Sent from my old address, the parcel never came",
    "No answer yet.\nSent from my phone but nothing came",
    "Was ist los?\nVon meinem Handy kann ich nicht bezahlen",
    "I sent from my iPhone\nSent from my iPhone\nand nothing happened",
    "First this.\n--\n" + "A long second half." * 40,
    "The best\nway to reach you?",
    "Regards\n" + "\n".join(["line"] * 7),
]


@pytest.mark.parametrize(("text", "left"), QUOTED)
def test_a_quoted_mail_is_cut(text: str, left: str) -> None:
    """Only the customer's own words are left."""
    assert strip_quotes(text) == left


@pytest.mark.parametrize("text", NOT_QUOTED)
def test_words_that_look_like_a_quotation_stay(text: str) -> None:
    """A message without a quoted mail is left as it is."""
    assert strip_quotes(text) == text


@pytest.mark.parametrize(("text", "left"), SIGNED)
def test_a_signature_is_cut(text: str, left: str) -> None:
    """Closing words, name and device line go."""
    assert strip_signature(text) == left


@pytest.mark.parametrize("text", NOT_SIGNED)
def test_words_that_look_like_a_signature_stay(text: str) -> None:
    """Thanks in a sentence, or a question after closing words, are part of the message."""
    assert strip_signature(text) == text


@pytest.mark.parametrize("strip", [strip_quotes, strip_signature])
@pytest.mark.parametrize("text", [one for one, _ in QUOTED + SIGNED] + NOT_QUOTED + NOT_SIGNED)
def test_stripping_twice_changes_nothing_more(strip: Callable[[str], str], text: str) -> None:
    """The result is stable, so that a dataset prepared from a dataset is the same."""
    once = strip(text)
    assert strip(once) == once


def test_a_message_that_is_all_quotation_stays_whole() -> None:
    """Emptied, it would be lost; serving would see it whole. It is counted."""
    row = Row("a", "> Hello\r\n> there", "refund", None, "x:1")
    done = clean([row], quotes=True)
    assert done.rows[0].message == "> Hello\n> there"
    assert done.left_whole == 1
    assert done.changed == {"normalized": 1}


def test_a_long_message_is_stripped_in_linear_time() -> None:
    """A fifth of a megabyte of what nearly matches is read in no time, where a search that starts
    again at every line would need a minute."""
    begun = time.process_time()
    for piece in ("On 2024 @\n", "On 2024 @ ", "> ", "From: a\n", "Thanks\n", "--\n", "\n", "- "):
        text = piece * (200_000 // len(piece)) + "."
        strip_signature(strip_quotes(text))
    assert time.process_time() - begun < 10
