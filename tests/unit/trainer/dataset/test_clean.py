"""What stripping quotations and signatures cuts, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.unit.trainer.dataset.mails import NEITHER, NOT_QUOTED, NOT_SIGNED, QUOTED, SIGNED
from trainer.dataset.clean import Cleaner, strip_quotes, strip_signature


def test_a_message_that_is_all_quotation_stays_whole() -> None:
    done = Cleaner(quotes=True).clean("> Hello\r\n> there")
    assert done.text == "> Hello\n> there"
    assert (done.left_whole, done.changed) == (1, ("normalized",))


@pytest.mark.parametrize(("text", "left"), QUOTED)
def test_a_quoted_mail_is_cut(text: str, left: str) -> None:
    assert strip_quotes(text) == left


@pytest.mark.parametrize("text", NOT_QUOTED + NEITHER)
def test_words_that_look_like_a_quotation_stay(text: str) -> None:
    assert strip_quotes(text) == text


@pytest.mark.parametrize(("text", "left"), SIGNED)
def test_a_signature_is_cut(text: str, left: str) -> None:
    assert strip_signature(text) == left


@pytest.mark.parametrize("text", NOT_SIGNED + NEITHER)
def test_words_that_look_like_a_signature_stay(text: str) -> None:
    assert strip_signature(text) == text


@pytest.mark.parametrize("strip", [strip_quotes, strip_signature])
@pytest.mark.parametrize(
    "text", [one for one, _ in QUOTED + SIGNED] + NOT_QUOTED + NOT_SIGNED + NEITHER,
)  # fmt: skip
def test_stripping_twice_changes_nothing_more(strip: Callable[[str], str], text: str) -> None:
    once = strip(text)
    assert strip(once) == once
