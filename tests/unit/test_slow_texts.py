"""No text of a customer makes a function slow, in short; ``python -m tests.fuzz slow`` is the rest.

Each function of ``tests.fuzz.texts`` gets the same hostile texts, once and four times as long.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable

import pytest

from tests.fuzz.slow import Recipe, cpu_s, search, steps
from tests.fuzz.texts import ENTRIES

pytestmark = pytest.mark.slow

_UNITS = [
    *("00 ", "a@", "<", "&#", "((", " ", "\n", "\r\n"),
    *("> ", "\u200b", "\u0301", "\u0344", "\ufb2c"),
    *("1-1", "0170 ", "01 ", "4111 ", "DE89 ", "a.", "1"),
    *("é", "\u202ea", "\U0001f468\u200d", "a@b.io "),
    *("<a ", "<!--", '<a x="', "<p>", "</p>", "<br>", "<p hidden>", "&lt;", "<pre>\n", "<![CDATA["),
    *("0", "a='", "a ", "a:b;"),
    *("order 01 01 ", "Ann[mail] ", '"', "\\", "[", '{"a":', "On 3 Jun 2024 wrote: x:\n", "--\n"),
]
RECIPES = [Recipe(start, (unit,), end) for unit in _UNITS for start, end in (("", ""), ("a", "!"))]
"""The kinds of text that have been slow somewhere, and some of each family of characters."""

every_so_many = pytest.mark.parametrize("every", [7, pytest.param(3, marks=pytest.mark.long)])
"""One in so many of them; more at night."""


@every_so_many
@pytest.mark.parametrize("name", ENTRIES)
def test_four_times_the_text_takes_four_times_the_steps(name: str, every: int) -> None:
    """Counted, not timed: instructions of Python, which are the same on any machine."""
    run = ENTRIES[name].run
    for recipe in RECIPES[::every]:
        run(recipe.text(600))  # what is made once is made
        once, four_times = (steps(run, recipe.text(chars)) for chars in (150, 600))
        assert four_times < 5.5 * once + 1_000, recipe


@every_so_many
@pytest.mark.parametrize("name", ENTRIES)
def test_four_times_the_text_takes_four_times_as_long(name: str, every: int) -> None:
    """And twice that for noise: what is quadratic takes sixteen times as long. What is done in
    milliseconds is too short to be compared, and harmless."""
    run = ENTRIES[name].run
    for recipe in RECIPES[::every]:
        long = cpu_s(run, recipe.text(16_000))
        if long < 0.04:
            continue
        once, four_times = (cpu_s(run, recipe.text(n), repeats=3) for n in (4_000, 16_000))
        assert four_times < 8 * max(once, 0.005), recipe


def _count_each(text: str) -> None:
    for _ in range(text.count("@")):
        sorted(text[::20])


def _wait(text: str) -> None:
    end = time.thread_time() + len(text) * 5e-6
    while time.thread_time() < end:
        pass


SLOW: dict[str, Callable[[str], object]] = {
    "all before what is not there": lambda text: re.search(r"(?:.|\n)+\x07", text[::4]),
    "each at sign reads all": _count_each,
    "digits in several ways": lambda text: re.fullmatch(r"(?:\w+ ?)*", text[-20:]),
    "linear, and long": _wait,
}


@pytest.mark.parametrize("name", SLOW)
def test_the_search_finds_what_is_slow(name: str) -> None:
    """Squares and worse in patterns and in loops, and what takes too long for each character."""
    found = _searched(SLOW[name])
    assert found


def test_the_search_accuses_nothing_that_is_linear() -> None:
    """However busy the machine is: a growth is measured again before it is believed."""
    assert _searched(lambda text: [character.upper() for character in text.split(" ")]) == []


def _searched(run: Callable[[str], object]) -> list[str]:
    return search(
        "planted", run, [], 0.004, rng=random.Random(1), more=lambda tried: tried < 240,
        sizes=(90, 2_000), proof_sizes=(2_000, 4_000, 8_000),
    ).slow  # fmt: skip
