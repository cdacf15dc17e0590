"""The duel's verdict against a known truth: how often is a baseline shipped, and is that right?"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from trainer.duel.candidates import Candidate
from trainer.duel.verdict import decide, pair_all
from trainer.statistics.paired import required_messages

pytestmark = pytest.mark.slow

RUNS = 120
ACCURACY = 0.95
DISCORDANCE = 0.05
"""Of the messages, so many are right with the adapter or with a baseline, not with both."""


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


@pytest.mark.parametrize("baselines", [1, 3, 6])
def test_a_baseline_two_points_worse_is_shipped_in_one_case_of_twenty_at_most(
    baselines: int,
) -> None:
    """However many there are: a lack of evidence against one is no evidence for it."""
    assert share_shipped(baselines=baselines, worse=0.02, messages=800) <= 0.05


def test_one_that_is_exactly_as_good_is_shipped_as_often_as_the_power_says() -> None:
    """A judge that never ships would be right about the others too."""
    messages = required_messages(DISCORDANCE, 0.01)
    for baselines in (1, 6):
        found = share_shipped(baselines=baselines, worse=0.0, messages=messages, runs=60)
        assert 0.66 < found < 0.95  # 0.8, and what 60 runs may be off by
