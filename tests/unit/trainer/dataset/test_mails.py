"""What is cut from a mail, and above all what is not; by our phrases and by a library's too."""

from __future__ import annotations

import sys
import time
from functools import partial

import pytest

from tests.fuzz.slow import cpu_s
from tests.unit.trainer.dataset.mails import (
    ASK,
    FOREIGN_NEITHER,
    FOREIGN_QUOTED,
    FOREIGN_SIGNED,
    NOT_QUOTED,
    NOT_SIGNED,
    QUOTED,
    SIGNED,
)
from trainer.dataset.mail_library import LANGUAGES, load_phrases
from trainer.dataset.mails import OWN, Phrases, strip_quotes, strip_signature
from trainer.errors import BadInput

pytestmark = pytest.mark.slow

LIBRARY, _ = load_phrases()
BOTH = pytest.mark.parametrize("phrases", [OWN, LIBRARY], ids=["own", "library"])


@BOTH
@pytest.mark.parametrize(("text", "left"), QUOTED)
def test_a_quoted_mail_is_cut(text: str, left: str, phrases: Phrases) -> None:
    """Only the customer's own words are left."""
    assert strip_quotes(text, phrases) == left


@BOTH
@pytest.mark.parametrize("text", NOT_QUOTED + FOREIGN_NEITHER)
def test_words_that_look_like_a_quotation_stay(text: str, phrases: Phrases) -> None:
    """A message without a quoted mail is left as it is."""
    assert strip_quotes(text, phrases) == text


@BOTH
@pytest.mark.parametrize(("text", "left"), SIGNED)
def test_a_signature_is_cut(text: str, left: str, phrases: Phrases) -> None:
    """Closing words, name and device line go."""
    assert strip_signature(text, phrases) == left


@BOTH
@pytest.mark.parametrize("text", NOT_SIGNED + FOREIGN_NEITHER)
def test_words_that_look_like_a_signature_stay(text: str, phrases: Phrases) -> None:
    """Thanks in a sentence, or a question after closing words, are part of the message."""
    assert strip_signature(text, phrases) == text


@pytest.mark.parametrize(("own", "mail"), FOREIGN_QUOTED)
def test_the_library_knows_quotations_of_further_languages(own: str, mail: str) -> None:
    """Of mail clients in twelve languages."""
    assert strip_quotes(f"{own}\n\n{mail}", LIBRARY) == own


@pytest.mark.parametrize(("own", "signature"), FOREIGN_SIGNED)
def test_the_library_knows_signatures_of_further_languages(own: str, signature: str) -> None:
    """Closing words and devices."""
    assert strip_signature(f"{own}\n\n{signature}", LIBRARY) == own


@BOTH
@pytest.mark.parametrize("strip", [strip_quotes, strip_signature])
@pytest.mark.parametrize(
    "text", [one for one, _ in QUOTED + SIGNED] + NOT_QUOTED + NOT_SIGNED
    + [f"{own}\n\n{mail}" for own, mail in FOREIGN_QUOTED + FOREIGN_SIGNED],
)  # fmt: skip
def test_stripping_twice_changes_nothing_more(
    strip: partial[str], text: str, phrases: Phrases
) -> None:
    """The result is stable, so that a dataset prepared from a dataset is the same."""
    once = strip(text, phrases)
    assert strip(once, phrases) == once


@BOTH
def test_a_long_message_is_stripped_in_linear_time(phrases: Phrases) -> None:
    """A fifth of a megabyte of what nearly matches is read in no time, where a search that starts
    again at every line would need a minute, and so would the library by itself."""
    begun = time.process_time()
    pieces = ("On 2024 @\n", "On 2024 @ ", "> ", "From: a\n", "Thanks\n", "--\n", "\n", "- ")
    for piece in (*pieces, "On 2024 @ " * 25 + ":\n", "Od: 2024\n", "On 2024:\n", "Le 2024 a :\n"):
        text = piece * (200_000 // len(piece)) + "."
        strip_signature(strip_quotes(text, phrases), phrases)
    assert time.process_time() - begun < 15


@pytest.mark.parametrize("phrases", [OWN, LIBRARY], ids=["own", "library"])
@pytest.mark.parametrize(
    "line",
    [
        "sent from my iphone" + " 123" * 18 + " x!",
        "von meinem Galaxy " + "234111 lt" * 8,
        "gesendet von handy" + " 1a1a1" * 12 + "-",
    ],
    ids=lambda line: line[:10],
)
def test_the_name_of_a_device_is_read_in_one_way_only(line: str, phrases: Phrases) -> None:
    """A line that is nearly one is given up at once: digits that could be divided in several ways
    took longer than anybody waits."""
    assert cpu_s(partial(strip_signature, phrases=phrases), f"thanks\n{line}") < 0.1
    assert strip_signature(f"thanks\n{line}", phrases).endswith(line[-4:])


def test_without_the_library_it_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line."""
    monkeypatch.setitem(sys.modules, "mailparser_reply.constants", None)
    with pytest.raises(BadInput, match=r"install filing-clerk\[mail\]"):
        load_phrases()


def test_what_the_library_knows_is_what_the_page_says() -> None:
    """Each language has phrases, and a message without any is left alone."""
    assert len(LIBRARY.introductions) == len(LIBRARY.headers) == len(LANGUAGES)
    assert strip_signature(strip_quotes(ASK, LIBRARY), LIBRARY) == ASK
