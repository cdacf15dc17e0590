"""How often the duel ships a baseline, simulated with a known truth."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.duel.candidates import Candidate
from trainer.duel.verdict import decide, judge_replacements, pair_all
from trainer.statistics.paired import required_messages

pytestmark = pytest.mark.slow

RUNS = 120
ACCURACY = 0.95
DISCORDANCE = 0.05
"""The share of messages on which exactly one of adapter and baseline is right."""


def candidate(
    name: str, right: NDArray[np.bool_], validation_accuracy: float | None = None
) -> Candidate:
    return Candidate(
        name=name,
        kind="adapter" if validation_accuracy is None else "baseline",
        answers=tuple(np.where(right, "yes", "no")),
        validation_accuracy=validation_accuracy,
    )


def share_shipped(*, baselines: int, worse: float, messages: int, runs: int = RUNS) -> float:
    """Return how often a baseline is shipped where each is truly ``worse`` than the adapter."""
    rng = np.random.default_rng(7)
    lost = (DISCORDANCE + worse) / 2 / ACCURACY
    won = (DISCORDANCE - worse) / 2 / (1 - ACCURACY)
    truth = ("yes",) * messages
    shipped = 0
    for _ in range(runs):
        adapter = rng.random(messages) < ACCURACY
        candidates = [candidate("adapter", adapter)]
        for number in range(baselines):
            draw = rng.random(messages)
            right = np.where(adapter, draw >= lost, draw < won)
            validated = float(rng.binomial(800, ACCURACY - worse) / 800)
            candidates.append(candidate(f"baseline-{number}", right, validated))
        name, _ = decide(pair_all(candidates, truth, margin=0.01))
        shipped += name != "adapter"
    return shipped / runs


def share_replaced(*, models: int, worse: float, messages: int, runs: int) -> float:
    """Return how often the adapter is said to replace any of ``models`` models that run elsewhere,
    where it is truly ``worse`` than each of them."""
    rng = np.random.default_rng(11)
    better = ACCURACY + worse
    lost = (DISCORDANCE - worse) / 2 / ACCURACY
    won = (DISCORDANCE + worse) / 2 / (1 - ACCURACY)
    assert better * (1 - better) > 0
    truth = ("yes",) * messages
    replaced = 0
    for _ in range(runs):
        adapter = rng.random(messages) < ACCURACY
        candidates = [candidate("adapter", adapter)]
        for number in range(models):
            draw = rng.random(messages)
            right = np.where(adapter, draw >= lost, draw < won)
            other = candidate(f"hosted-{number}", right)
            candidates.append(replace(other, kind="recorded"))
        found = judge_replacements(pair_all(candidates, truth, 0.01), float(adapter.mean()), 0.01)
        replaced += any(each.conclusion in {"better", "not_worse"} for each in found)
    return replaced / runs


@pytest.mark.parametrize("models", [1, 4])
def test_a_model_that_is_better_by_the_margin_is_replaced_in_one_case_of_twenty_at_most(
    models: int,
) -> None:
    """However many there are. 400 runs of a true 5 % have a standard deviation of 1.1 %."""
    found = share_replaced(models=models, worse=0.01, messages=1500, runs=400)
    assert found <= 0.05 + 2.5 * 0.011
    if models == 1:
        assert found >= 0.05 - 2.5 * 0.011  # the test is not so cautious that it proves nothing


def test_an_equally_good_model_is_replaced_as_often_as_the_power_says() -> None:
    """A judge that never says so would pass the other test."""
    messages = required_messages(DISCORDANCE, 0.01)
    found = share_replaced(models=1, worse=0.0, messages=messages, runs=100)
    assert 0.68 < found < 0.92  # 0.8, and what 100 runs may be off by


@pytest.mark.parametrize("baselines", [1, 3, 6])
def test_a_baseline_two_points_worse_is_shipped_in_one_case_of_twenty_at_most(
    baselines: int,
) -> None:
    """However many baselines there are."""
    assert share_shipped(baselines=baselines, worse=0.02, messages=800) <= 0.05


def test_an_equally_good_baseline_is_shipped_as_often_as_the_power_says() -> None:
    """A judge that never ships would pass the other test."""
    messages = required_messages(DISCORDANCE, 0.01)
    for baselines in (1, 6):
        found = share_shipped(baselines=baselines, worse=0.0, messages=messages, runs=60)
        assert 0.66 < found < 0.95  # 0.8, and what 60 runs may be off by
