"""What nobody looks at is right as often as was promised: against a known truth."""

from __future__ import annotations

import pytest

from tests.bench.cascade_promise import WORLDS, simulate

TRAININGS = 60


@pytest.mark.parametrize("promise", [0.9, 0.95])
@pytest.mark.parametrize("world", WORLDS)
def test_a_cascade_keeps_its_promise_in_nineteen_trainings_of_twenty(
    world: str, promise: float
) -> None:
    """Three standard errors are allowed for. What the first stage was sure enough of for the
    margin went to nobody, whatever it was worth: up to every training broke the promise. And a
    cascade that never binds, or leaves the first stage nothing, does not pass."""
    found = simulate(WORLDS[world], promise, TRAININGS, messages=600, seed=3)
    assert found.broken / TRAININGS <= 0.05 + 3 * (0.05 * 0.95 / TRAININGS) ** 0.5
    assert found.bound >= TRAININGS / 2
    assert found.first_share >= 0.2
