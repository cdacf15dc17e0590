"""How much of a message a page shows, and what of it is marked."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from desk.service.viewing import SHOWN_CHARS
from desk.web.shown_text import (
    CHUNK_CHARS,
    MOST_MARKS,
    chunks,
    names,
    pieces,
    shown_text,
)
from tests.support.desk_browser import NewBrowser, field
from tests.support.desk_world import DeskWorld

LARGE = 300_000
"""Thirty times of what is shown at most; ``tests/desk`` has a megabyte in a browser."""
GIANTS = {
    "zero_width": "My parcel is late" + "\u200b" * LARGE + " please help",
    "alternating": "a\u200b" * (LARGE // 2),
    "alternating_kinds": "a\u200b\u2066\u202e\u00ad" * (LARGE // 5),
    "selectors": "parcel\U000e0101" * (LARGE // 7),
    "joiners": "👩\u200d" * (LARGE // 2),
    "plain": "my lamp is late and wet. " * (LARGE // 25),
    "one_word": "x" * LARGE,
    "lines": "a\r\n" * (LARGE // 3),
    "combining": "z" + "\u0301" * LARGE,
    "tags": "<b>" * (LARGE // 3),
    "controls": "\x1b[31m" * (LARGE // 5),
}


@pytest.mark.parametrize("name", GIANTS)
def test_a_lot_of_anything_is_shown_in_few_pieces(name: str) -> None:
    shown = shown_text(GIANTS[name])
    assert len(shown.pieces) <= 2 * MOST_MARKS + 1
    assert sum(len(each.text) for each in shown.pieces if not each.hidden) <= SHOWN_CHARS


@pytest.mark.parametrize("name", ["alternating_kinds", "combining", "one_word", "tags"])
def test_a_lot_of_anything_gives_a_bounded_page(
    world: DeskWorld, browser: NewBrowser, name: str
) -> None:
    """Few elements and few bytes, on the page and in the part that the script fetches early; one
    element for each hidden character stopped the browser."""
    text = GIANTS[name]
    shown = shown_text(text)
    world.add("Another one")
    item = world.add(text, message_id=text[:LARGE])
    ada = browser("ada")
    first = ada.open("/review").text
    assert "Another one" in first
    part = ada.post(
        "/review", {"part": "1", "action": "next", "excluding": field(first, "item")}
    ).text
    assert f'data-item="{item.id}"' in part
    for page in (part, ada.open(f"/review?item={item.id}").text):
        assert len(page.encode()) < 200_000
        assert page.count("<") < 1_000
    if shown.cut or shown.left_out:
        assert f'href="/message?item={item.id}"' in part


def test_show_all_shows_all(world: DeskWorld, browser: NewBrowser) -> None:
    """In chunks that a browser lays out one by one, with hidden characters as text."""
    text = "The beginning.\n" + "a\u200b" * 11_000 + " the end <b>\u200b"
    item = world.add(text)
    ada = browser("ada")
    page = ada.open("/review").text
    assert "the end" not in page
    assert "hidden characters are not shown: zero width space" in page
    whole = ada.get(f"/message?item={item.id}").text
    assert "The beginning." in whole
    assert "the end &lt;b&gt;" in whole
    assert whole.count("[U+200B]") > 10_950  # the others are cut in two between chunks
    assert whole.count("<") < 400
    assert browser().get(f"/message?item={item.id}").status_code == 303
    assert ada.get("/message?item=12345").status_code == 409


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("pass\u200bword", ["U+200B"]),
        ("pass\u200b\u200b\u200bword", ["U+200B ×3"]),
        ("\u200b\u200c\u200d x", ["3 hidden"]),
        ("soft\u00adhyphen", ["U+00AD"]),
        ("\ufeffbegin", ["U+FEFF"]),
        ("zero\u200dwidth", ["U+200D"]),
        ("می\u200cخواهم", []),
        ("क्\u200dष", []),
        ("👩\u200d👧 👍🏽 ❤\ufe0f ❤\ufe0f\u200d🔥 1\ufe0f\u20e3 葛\U000e0100", []),
        ("secret\U000e0153\U000e0154", ["2 hidden"]),
        ("😀\U000e0153\U000e0154", ["U+E0154"]),
        ("a\u034fb", ["U+034F"]),
        ("tab\tand\r\nline\n", []),
        ("tag\U000e0041", ["U+E0041"]),
        ("\ud800", ["U+D800"]),
        ("\u3164", ["U+3164"]),
    ],
)
def test_runs_of_what_cannot_be_seen_are_one_mark(text: str, marks: list[str]) -> None:
    """With a count. Joiners and selectors that scripts and emoji need are left alone."""
    assert [each.mark for each in pieces(text) if each.hidden] == marks


@given(st.text(max_size=300))
def test_nothing_is_lost_or_added(text: str) -> None:
    """The pieces are the message, and so are the chunks but for the marks."""
    found = list(pieces(text))
    plain = text.replace("\r\n", "\n")
    assert "".join(each.text for each in found) == plain
    assert all(each.mark and each.names for each in found if each.hidden)
    assert not any(one.hidden and two.hidden for one, two in pairwise(found))


@given(st.lists(st.tuples(st.sampled_from("ab \n"), st.integers(1, CHUNK_CHARS)), max_size=6))
def test_chunks_are_short_and_whole(runs: list[tuple[str, int]]) -> None:
    """A line's end between two chunks is the one thing that they leave out."""
    text = "".join(char * count for char, count in runs)
    made = list(chunks(text))
    assert all(len(each) <= CHUNK_CHARS for each in made)
    assert re.sub(r"\n", "", "".join(made)) == text.replace("\n", "")


def test_what_is_left_out_is_said() -> None:
    """How many characters of which kinds, and how many are not shown at all."""
    shown = shown_text("a\u200b" * 200 + "\u202e" + "b" * SHOWN_CHARS)
    assert sum(shown.left_out.values()) == 201
    assert names(shown.left_out) == "zero width space ×200, right-to-left override"
    assert shown.cut == 200
    assert shown_text("short \u200b one").cut == 0
