"""What stripping quotations and signatures cuts, and what it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.fuzz.slow import cpu_s
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


def test_a_long_message_is_stripped_in_linear_time() -> None:
    """A search that starts again at every line would take a minute for a fifth of a megabyte."""
    begun = time.process_time()
    pieces = ("On 2024 @\n", "On 2024 @ ", "> ", "From: a\n", "Thanks\n", "--\n", "\n", "- ")
    for piece in (*pieces, "On 2024 @ " * 25 + ":\n", "Od: 2024\n", "On 2024:\n", "Le 2024 a :\n"):
        text = piece * (200_000 // len(piece)) + "."
        strip_signature(strip_quotes(text))
    assert time.process_time() - begun < 15


@pytest.mark.parametrize(
    "line",
    [
        "sent from my iphone" + " 123" * 18 + " x!",
        "von meinem Galaxy " + "234111 lt" * 8,
        "gesendet von handy" + " 1a1a1" * 12 + "-",
    ],
    ids=lambda line: line[:10],
)
def test_the_name_of_a_device_is_read_in_one_way_only(line: str) -> None:
    """An ambiguous pattern took time that doubled with every digit."""
    assert cpu_s(strip_signature, f"thanks\n{line}") < 0.1
    assert strip_signature(f"thanks\n{line}").endswith(line[-4:])
