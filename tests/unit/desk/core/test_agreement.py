"""Agreement, against values that were published."""

from __future__ import annotations

import random

import pytest

from desk.core.agreement import krippendorffs_alpha

# K. Krippendorff, Computing Krippendorff's Alpha-Reliability (2011), section C: four observers,
# twelve units, 0 for a value that is missing; nominal alpha is 0.743.
_OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, 0, 0, 0),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, 0, 3),
    (0, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, 0),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, 0),
)
# Section B: two observers, ten units, binary; alpha is 0.095.
_BINARY = ((0, 1, 0, 0, 0, 0, 0, 0, 1, 0), (1, 1, 1, 0, 0, 1, 0, 0, 0, 0))


def test_alpha_is_that_of_the_paper() -> None:
    """With several observers and missing values, and with two."""
    units = [[value for value in unit if value] for unit in zip(*_OBSERVERS, strict=True)]
    assert krippendorffs_alpha(units) == pytest.approx(0.743, abs=0.0005)
    assert krippendorffs_alpha(list(zip(*_BINARY, strict=True))) == pytest.approx(0.095, abs=5e-4)


def test_it_is_one_for_agreement_and_zero_by_chance() -> None:
    """Perfect, and drawn at random."""
    same = [(label, label) for label in "abcab"]
    assert krippendorffs_alpha(same) == pytest.approx(1)
    draw = random.Random(1)
    chance = [(draw.choice("abc"), draw.choice("abc")) for _ in range(20_000)]
    assert krippendorffs_alpha(chance) == pytest.approx(0, abs=0.02)


def test_what_is_not_defined_is_none() -> None:
    """Nothing was said twice; one and the same was said always."""
    assert krippendorffs_alpha([["a"], []]) is None
    assert krippendorffs_alpha([["a", "a"]]) is None
