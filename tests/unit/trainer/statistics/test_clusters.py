"""What messages that belong together are worth."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.judges_worlds import draw_right, make_groups
from trainer.statistics.clusters import as_groups, design_effect
from trainer.statistics.metrics import interval_of, wilson
from trainer.statistics.spending import alpha_of
from trainer.statistics.thresholds import review_threshold

RUNS = 400


def test_independent_messages_count_as_they_are() -> None:
    """Without groups, and where every message is its own."""
    right = np.arange(300) % 7 > 0
    assert design_effect(right, None) == 1.0
    assert design_effect(right, np.arange(300)) == pytest.approx(1.0)
    assert as_groups([None, None]) is None
    assert interval_of(right, None) == wilson(int(right.sum()), 300)


def test_copies_count_as_one() -> None:
    """Groups of ten that are right or wrong together are worth a tenth."""
    groups = np.arange(3000) // 10
    assert design_effect(groups % 5 > 0, groups) == pytest.approx(10, rel=0.02)


def test_what_nothing_shows_is_taken_at_its_worst() -> None:
    """Where all are right, and nearly so where one of a group is wrong."""
    groups = np.arange(300) // 10
    right = np.ones(300, dtype=np.bool_)
    assert design_effect(right, groups) == pytest.approx(10)
    right[5] = False
    assert design_effect(right, groups) > 8


def test_messages_that_are_alone_get_numbers_of_their_own() -> None:
    found = as_groups([4, None, 4, None])
    assert found is not None
    assert found[0] == found[2]
    assert len(set(found.tolist())) == 3


def test_an_interval_of_messages_in_groups_covers_the_truth() -> None:
    """Counted as independent, the same intervals cover it in 86 %."""
    rng = np.random.default_rng(1)
    now = before = 0
    for _ in range(RUNS):
        groups = make_groups(rng, 800)
        right = draw_right(rng, 0.9, 800, groups)
        for_groups, plain = interval_of(right, groups), wilson(int(right.sum()), 800)
        now += for_groups[0] <= 0.9 <= for_groups[1]
        before += plain[0] <= 0.9 <= plain[1]
    assert now / RUNS > 0.93
    assert before / RUNS < 0.9


def test_a_threshold_of_rows_in_groups_is_higher() -> None:
    """The same rows prove less where they belong together."""
    rng = np.random.default_rng(2)
    groups = make_groups(rng, 800)
    confidence = 0.5 + 0.5 * rng.random(800) ** 0.3
    right = rng.random(800) < confidence
    found = [
        review_threshold(confidence, right, 0.9, floor=0.0, groups=known)
        for known in (None, groups)
    ]
    assert found[0] < found[1]


def test_what_is_spent_over_a_sequence_adds_up() -> None:
    """The first proposal gets half of it."""
    assert alpha_of(1) == pytest.approx(0.025)
    assert sum(alpha_of(turn) for turn in range(1, 10_000)) < 0.05
