"""The figures of drift: what they are, and how often chance alone exceeds their thresholds."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
from scipy.stats import beta, binom, chi2, ncx2

from worker.observe.drift.statistics import (
    count_threshold,
    psi_by_label,
    psi_threshold,
    share_bound,
)

ELEVEN = {f"label-{n}": 1 / 11 for n in range(11)}


def test_psi_is_the_sum_of_its_parts_and_zero_without_a_shift() -> None:
    """As Siddiqi has it, up to the half message in each cell."""
    shares = {"a": 0.5, "b": 0.3, "c": 0.2}
    assert sum(psi_by_label({"a": 500, "b": 300, "c": 200}, shares).values()) == 0
    parts = psi_by_label({"a": 50_000, "b": 20_000, "c": 30_000}, shares)
    assert parts["a"] == 0
    assert parts["b"] == pytest.approx((0.2 - 0.3) * math.log(0.2 / 0.3), rel=1e-3)
    assert parts["c"] == pytest.approx((0.3 - 0.2) * math.log(0.3 / 0.2), rel=1e-3)
    assert all(part >= 0 for part in parts.values())


def test_an_empty_cell_on_either_side_is_finite() -> None:
    """A label that never came, one that was never expected, and no message at all."""
    parts = psi_by_label({"a": 90, "new": 10}, {"a": 0.9, "gone": 0.1})
    assert parts.keys() == {"a", "gone", "new"}
    assert parts["gone"] == parts["new"] > 0.1
    assert parts["a"] == 0
    assert set(psi_by_label({}, {"a": 0.4, "b": 0.6}).values()) == {0}


@pytest.mark.parametrize("labels", [2, 3, 5, 11, 30, 77])
@pytest.mark.parametrize("window", [100, 1000, 10_000])
@pytest.mark.parametrize("tolerated", [0.0, 0.01])
def test_the_threshold_is_the_quantile_it_stands_for(
    labels: int, window: int, tolerated: float
) -> None:
    """Within 1 % below and 2.5 % above the exact one: alarms are as rare as said, or rarer."""
    for share in (0.01, 0.005):
        exact = (
            ncx2.ppf(1 - share, labels - 1, window * tolerated)
            if tolerated
            else chi2.ppf(1 - share, labels - 1)
        )
        found = psi_threshold(window, labels, tolerated, share) * window
        assert 0.99 * exact < found < 1.025 * exact


def test_one_label_cannot_drift() -> None:
    """Its share is 1 whatever comes."""
    assert psi_threshold(1000, 1, 0.01, 0.01) == math.inf


def test_windows_without_drift_exceed_the_threshold_as_rarely_as_said() -> None:
    """Two thousand windows of a natural mix, drawn message by message."""
    draw = random.Random(1)
    shares = {name: (n + 1) / 66 for n, name in enumerate(ELEVEN)}
    threshold = psi_threshold(200, 11, 0.0, 0.05)
    over = 0
    for _ in range(2000):
        counts = Counter(draw.choices([*shares], [*shares.values()], k=200))
        over += sum(psi_by_label(counts, shares).values()) > threshold
    assert 0.03 < over / 2000 < 0.07


@pytest.mark.parametrize(("above", "examples"), [(40, 800), (2, 198), (0, 50), (5, 100)])
def test_the_bound_of_a_share_is_the_exact_one(above: int, examples: int) -> None:
    """Clopper and Pearson's, from a beta distribution."""
    exact = beta.ppf(0.95, above + 1, examples - above)
    assert share_bound(above / examples, examples, 0.95) == pytest.approx(exact, rel=1e-9)
    assert share_bound(1.0, examples, 0.95) == 1


@pytest.mark.parametrize("window", [50, 1000, 5000])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.07, 0.5, 1.0])
def test_the_threshold_of_a_count_is_the_smallest_that_is_rare_enough(
    window: int, share: float
) -> None:
    """One less would be reached too often."""
    found = count_threshold(window, share, 0.005)
    assert binom.sf(found - 1, window, share) <= 0.005
    if share:
        assert binom.sf(found - 2, window, share) > 0.005
