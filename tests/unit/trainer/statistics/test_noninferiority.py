"""Tango's test: published figures, and its exact level and power."""

from __future__ import annotations

import pytest
from scipy.stats import norm

from tests.bench.judges_worlds import exact_share_passed
from trainer.statistics.metrics import ALPHA, Discordance
from trainer.statistics.paired import (
    largest_discordance,
    lowest_difference,
    non_inferiority_p,
    power,
    required_messages,
    smallest_margin,
)


def test_the_published_example() -> None:
    """Tango (1998), two ways to disinfect contact lenses: 43 effective by both, one only by the old
    one; within 10 points with p = 0.044, the 90 % interval from -9.6 points."""
    lenses = Discordance(0, 1, 44)
    assert non_inferiority_p(lenses, 0.1) == pytest.approx(0.044, abs=5e-4)
    assert lowest_difference(lenses) == pytest.approx(-0.096, abs=5e-4)
    assert lowest_difference(lenses, 0.025) == pytest.approx(-0.118, abs=5e-4)


def test_identical_answers_are_proof_once_there_are_enough() -> None:
    """267 messages without a difference do not exclude one point, 268 do."""
    assert non_inferiority_p(Discordance(0, 0, 267), 0.01) > 0.05
    assert non_inferiority_p(Discordance(0, 0, 268), 0.01) < 0.05
    assert required_messages(0.0, 0.01) == 268


@pytest.mark.parametrize(
    "found",
    [
        Discordance(30, 45, 1500),
        Discordance(0, 9, 300),
        Discordance(40, 2, 330),
        Discordance(0, 0, 9),
    ],
)
def test_the_interval_ends_where_the_test_turns(found: Discordance) -> None:
    low = lowest_difference(found)
    if low < 0:
        assert non_inferiority_p(found, -low) == pytest.approx(0.05, abs=1e-6)
    else:
        assert non_inferiority_p(found, 1e-9) < 0.05
    assert low <= found.difference


@pytest.mark.parametrize("discordance", [0.012, 0.03, 0.08])
@pytest.mark.parametrize(("total", "margin"), [(800, 0.01), (1500, 0.01), (800, 0.02)])
def test_a_labelling_worse_by_the_margin_passes_once_in_twenty_times(
    total: int, margin: float, discordance: float
) -> None:
    """The level, at the worst case of the null hypothesis."""
    passed = exact_share_passed(
        total, -margin, max(discordance, margin), lambda it: non_inferiority_p(it, margin) < ALPHA
    )
    assert passed < 0.056


@pytest.mark.parametrize(("total", "discordance"), [(800, 0.03), (1500, 0.05), (3200, 0.05)])
def test_an_equal_labelling_passes_as_often_as_the_power_says(
    total: int, discordance: float
) -> None:
    exact = exact_share_passed(
        total, 0.0, discordance, lambda it: non_inferiority_p(it, 0.01) < ALPHA
    )
    assert power(total, discordance, 0.01) == pytest.approx(exact, abs=0.03)


def test_messages_margin_and_discordance_belong_together() -> None:
    """Each solves the same power for another variable."""
    needed = required_messages(0.05, 0.01)
    assert power(needed, 0.05, 0.01) == pytest.approx(0.8, abs=1e-3)
    assert smallest_margin(needed, 0.05) == pytest.approx(0.01, rel=1e-3)
    assert largest_discordance(needed, 0.01) == pytest.approx(0.05, rel=1e-2)
    assert largest_discordance(100, 0.01) == pytest.approx(0.0, abs=1e-9)
    naive = (norm.isf(0.05) + norm.ppf(0.8)) ** 2 * 0.05 / 0.01**2
    assert needed == pytest.approx(naive, rel=0.05)
