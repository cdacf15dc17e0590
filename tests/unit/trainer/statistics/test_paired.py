"""Intervals of a difference of two accuracies contain the truth as often as they claim."""

from __future__ import annotations

import numpy as np
import pytest

from trainer.statistics.metrics import ALPHA, Discordance, mcnemar_exact
from trainer.statistics.paired import paired_interval

pytestmark = pytest.mark.slow

RUNS = 2000


@pytest.mark.parametrize(
    ("total", "a_only", "b_only"),
    [(660, 0.03, 0.02), (660, 0.02, 0.02), (200, 0.05, 0.01), (100, 0.0, 0.01), (1500, 0.08, 0.05)],
)
def test_the_paired_interval_holds_the_truth(total: int, a_only: float, b_only: float) -> None:
    """In 95 % of 2,000 draws, also with few or no discordant messages."""
    rng = np.random.default_rng(7)
    draws = rng.multinomial(total, (a_only, b_only, 1 - a_only - b_only), size=RUNS)
    known = {
        (int(a), int(b)): paired_interval(Discordance(int(a), int(b), total))
        for a, b in np.unique(draws[:, :2], axis=0)
    }
    truth = a_only - b_only
    held = [known[int(a), int(b)][0] <= truth <= known[int(a), int(b)][1] for a, b, _ in draws]
    assert np.mean(held) >= 0.935


def test_the_paired_interval_turns_with_its_sides_and_is_never_empty() -> None:
    low, high = paired_interval(Discordance(18, 7, 660))
    turned = paired_interval(Discordance(7, 18, 660))
    assert turned == pytest.approx((-high, -low))
    assert low < 11 / 660 < high
    low, high = paired_interval(Discordance(0, 0, 300))
    assert -0.02 < low < 0 < high < 0.02


def test_interval_and_test_say_the_same_where_it_is_clear() -> None:
    """If McNemar's exact test rejects, the interval excludes zero."""
    for a_only in range(41):
        found = Discordance(a_only, 12, 660)
        low, high = paired_interval(found)
        if mcnemar_exact(found) < ALPHA:
            assert low > 0 or high < 0
