"""Accuracy weighted by traffic, on simulated messages with a known accuracy."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.judges_worlds import draw_right, make_groups
from trainer.statistics.metrics import weighted_accuracy, wilson

pytestmark = pytest.mark.slow


def test_without_copies_it_is_the_accuracy() -> None:
    right = np.arange(100) < 93
    share, interval = weighted_accuracy(right, np.ones(100, dtype=np.int64))
    assert share == pytest.approx(0.93)
    assert interval == pytest.approx(wilson(93, 100), abs=0.005)


@pytest.mark.parametrize("tilt", [-0.4, 0.0, 0.6])
def test_the_interval_holds_the_share_of_all_rows_that_is_right(tilt: float) -> None:
    """In 93 % of hold-outs or more, whether frequent messages are harder or easier (``tilt``).
    Frequencies are skewed, as in real mail."""
    draw = np.random.default_rng(7)
    messages = 200_000
    rows = np.minimum(draw.zipf(2.2, messages), 40).astype(np.int64)
    chance = 1 / (1 + np.exp(-(2.2 + tilt * np.log(rows))))
    right = draw.random(messages) < chance
    true = (rows * right).sum() / rows.sum()
    plain = held = 0
    for _ in range(500):
        chosen = draw.integers(messages, size=600)
        low, high = weighted_accuracy(right[chosen], rows[chosen])[1]
        held += low <= true <= high
        copies = wilson(int((rows * right)[chosen].sum()), int(rows[chosen].sum()))
        plain += copies[0] <= true <= copies[1]
    assert held / 500 >= 0.93
    assert plain < held - 25, "copies are not further evidence"


def test_of_threads_the_interval_is_wider() -> None:
    """Messages in groups of five to ten, which are right or wrong together."""
    draw, truth = np.random.default_rng(9), 0.9
    held = [0, 0]
    for _ in range(400):
        groups = make_groups(draw, 900)
        right = draw_right(draw, truth, 900, groups)
        rows = np.minimum(draw.zipf(2.2, 900), 40).astype(np.int64)
        for at, known in enumerate((None, groups)):
            low, high = weighted_accuracy(right, rows, known)[1]
            held[at] += low <= truth <= high
    assert held[0] / 400 < 0.92
    assert 0.93 <= held[1] / 400 < 0.99
