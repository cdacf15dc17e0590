"""Evidence that may be looked at after every block."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.lifecycle.sequential import Evidence, marked_lowest


def hypergeometric(first: int, second: int, marked: int) -> dict[int, float]:
    total = math.comb(first + second, marked)
    return {
        in_first: math.comb(first, in_first) * math.comb(second, marked - in_first) / total
        for in_first in range(max(0, marked - second), min(first, marked) + 1)
    }


@given(st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_bet_is_fair_whatever_is_marked(first: int, second: int, data: st.DataObject) -> None:
    """While the arms do not differ the evidence is 1 on average after a block: exactly."""
    marked = data.draw(st.integers(0, first + second))
    mean = 0.0
    for in_first, chance in hypergeometric(first, second, marked).items():
        evidence = Evidence()
        evidence.add(first, in_first, second, marked - in_first)
        mean += chance * evidence.value
    assert mean == pytest.approx(1.0)


def test_it_grows_when_the_first_arm_has_more_marks_and_falls_when_it_has_fewer() -> None:
    """It is about worse, not about different."""
    worse, better, same = Evidence(), Evidence(), Evidence()
    for _ in range(50):
        worse.add(5, 2, 15, 2)
        better.add(5, 0, 15, 4)
        same.add(5, 1, 15, 3)
    assert worse.value > 1000
    assert better.value < 0.1
    assert same.value < 1


def test_blocks_that_tell_nothing_change_nothing() -> None:
    """None marked, all marked, or one arm alone."""
    evidence = Evidence()
    evidence.add(5, 0, 15, 0)
    evidence.add(5, 5, 15, 15)
    evidence.add(0, 0, 20, 7)
    evidence.add(20, 7, 0, 0)
    assert evidence.value == pytest.approx(1.0)


def test_it_does_not_overflow() -> None:
    """A canary that sends everything to review for days."""
    evidence = Evidence()
    for _ in range(3000):
        evidence.add(10, 10, 10, 0)
    assert math.isfinite(evidence.value)


def test_the_lowest_are_marked() -> None:
    """A share of the block, and ties by their order."""
    assert marked_lowest([0.9, 0.1, 0.5, 0.2], 0.5) == [False, True, False, True]
    assert marked_lowest([0.5, 0.5, 0.5], 0.1) == [True, False, False]


def test_few_are_stopped_wrongly_though_looked_at_after_every_block() -> None:
    """300 comparisons of 100 blocks between arms that do not differ, at one in twenty."""
    rng = random.Random(7)
    crossed = 0
    for _ in range(300):
        evidence, highest = Evidence(), 0.0
        for _ in range(100):
            first = sum(rng.random() < 0.3 for _ in range(20))
            a = sum(rng.random() < 0.2 for _ in range(first))
            b = sum(rng.random() < 0.2 for _ in range(20 - first))
            evidence.add(first, a, 20 - first, b)
            highest = max(highest, evidence.value)
        crossed += highest >= 20
    assert crossed / 300 < 0.05
