"""How many labels are wrong is told as truly as models can know it."""

from __future__ import annotations

import numpy as np
import pytest

from tests.bench.wrong_share import Desk, draw_answers, judge_answers, judge_desk
from trainer.statistics.label_noise import wrong_share

pytestmark = pytest.mark.slow

RUNS = 20


@pytest.mark.parametrize(
    ("wrong", "temperature"), [(0.0, 1.0), (0.02, 1.0), (0.05, 1.6), (0.15, 0.7)]
)
def test_the_interval_of_slips_holds_the_truth(wrong: float, temperature: float) -> None:
    """Of models that are too sure or not sure enough too, for the temperature is fitted beside it.
    The long simulation is ``python -m tests.bench.wrong_share``."""
    held, values, truths = [], [], []
    for seed in range(RUNS):
        truth, found = judge_answers(wrong, temperature, rows=300, seed=seed)
        held.append(found.low <= truth <= found.high)
        values.append(found.value)
        truths.append(truth)
        assert found.low <= found.value <= found.high <= found.most
    assert np.mean(held) >= 0.85
    assert np.mean(values) == pytest.approx(np.mean(truths), abs=0.01)


def test_slips_are_counted_where_models_are_weak() -> None:
    """Real models on folds, which err far more often than the labels do: they tell their own
    mistakes from slips, and without a slip they claim next to none."""
    for desk in (Desk("none", 0.0, apart=3.0, rows=500), Desk("some", 0.1, apart=3.0, rows=500)):
        truth, found = judge_desk(desk, seed=2)
        assert found.low <= truth <= found.high
        assert found.value == pytest.approx(truth, abs=0.04)
        assert found.most > 0.2


def test_mistakes_between_labels_that_are_alike_are_below_the_upper_bound() -> None:
    """They are no slips: the text makes them likely. The bound holds them."""
    desk = Desk("alike", 0.08, rows=500, borderline=True)
    truth, found = judge_desk(desk, seed=3)
    assert found.value < truth < found.most


def test_what_a_person_vouched_for_counts_as_right() -> None:
    """Half of the labels decided: shares are of all, and only the rest is in doubt."""
    labels, found = draw_answers(0.2, 1.0, rows=400, seed=1)
    alone = wrong_share(labels[200:], found[200:])
    vouched = np.arange(400) < 200
    both = wrong_share(labels, found, vouched=vouched)
    assert both.value == pytest.approx(alone.value / 2)
    assert both.most == pytest.approx(alone.most / 2)
    assert wrong_share(labels, found, vouched=np.ones(400, dtype=np.bool_)).most == 0
