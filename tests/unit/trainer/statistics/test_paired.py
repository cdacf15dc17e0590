"""The paired tests agree with textbooks, with scipy and with simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, norm

from trainer.statistics.metrics import (
    Discordance,
    bootstrap_difference,
    count_discordant,
    holm,
    mcnemar_exact,
    minimum_detectable_difference,
)


def test_discordant_messages_are_those_that_exactly_one_gets_right() -> None:
    a = np.array([True, True, False, False, True])
    b = np.array([True, False, True, False, False])
    assert count_discordant(a, b) == Discordance(2, 1, 5)
    assert count_discordant(a, b).difference == pytest.approx(a.mean() - b.mean())


def test_mcnemar_of_a_textbook_table() -> None:
    """Agresti's approval ratings (Categorical Data Analysis, table 10.1): 150 and 86 discordant,
    z = 4.17; the exact p agrees with scipy's binomial test."""
    found = mcnemar_exact(Discordance(150, 86, 1600))
    assert found == pytest.approx(binomtest(150, 236, 0.5).pvalue, rel=1e-9)
    assert found == pytest.approx(2 * norm.sf(4.17), rel=0.35)


@pytest.mark.parametrize(("a", "b"), [(0, 0), (1, 0), (0, 5), (7, 7), (9, 2), (2000, 2100)])
def test_mcnemar_is_the_exact_binomial_test(a: int, b: int) -> None:
    found = mcnemar_exact(Discordance(a, b, 9000))
    assert found == pytest.approx(binomtest(a, a + b, 0.5).pvalue if a + b else 1.0, rel=1e-9)
    tail = sum(math.comb(a + b, k) for k in range(min(a, b) + 1))  # whole numbers: exact
    assert found == pytest.approx(min(1.0, 2 * tail / (1 << (a + b))), rel=1e-9)


def test_the_bootstrap_interval_holds_the_true_difference_19_times_in_20() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(300):
        kind = rng.choice(3, size=300, p=[0.15, 0.10, 0.75])
        low, high = bootstrap_difference(kind == 0, kind == 1, seed=trial, resamples=1000)
        held += low <= 0.05 <= high
    assert 0.91 <= held / 300 <= 0.985


def test_the_bootstrap_is_that_of_drawing_messages_and_repeats_itself() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(200) < 0.8, rng.random(200) < 0.7
    drawn = rng.integers(0, 200, size=(20_000, 200))
    wanted = np.quantile(a[drawn].mean(axis=1) - b[drawn].mean(axis=1), [0.025, 0.975])
    found = bootstrap_difference(a, b, seed=3)
    assert found == pytest.approx(wanted, abs=0.006)
    assert found == bootstrap_difference(a, b, seed=3)


def test_holm_on_the_known_example() -> None:
    """Holm's own kind of example: 0.01, 0.04, 0.03, 0.005 (as R's p.adjust gives it)."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_the_minimum_detectable_difference_solves_connors_formula() -> None:
    difference = minimum_detectable_difference(0.2, 500)
    need = (1.959964 * math.sqrt(0.2) + 0.841621 * math.sqrt(0.2 - difference**2)) ** 2
    assert need / difference**2 == pytest.approx(500, rel=1e-4)


def test_the_minimum_detectable_difference_is_found_four_times_in_five() -> None:
    total, share = 1000, 0.1
    difference = minimum_detectable_difference(share, total)
    p = np.array([(share + difference) / 2, (share - difference) / 2, 1 - share])
    counts = np.random.default_rng(2).multinomial(total, p, size=2000)
    found = [mcnemar_exact(Discordance(int(a), int(b), total)) < 0.05 for a, b, _ in counts]
    # The exact test is a little cautious: the formula is the asymptotic one.
    assert 0.74 < np.mean(found) < 0.83


def test_without_any_discordance_a_difference_can_still_be_resolved() -> None:
    assert 0.0 < minimum_detectable_difference(0.0, 1000) < 0.02
