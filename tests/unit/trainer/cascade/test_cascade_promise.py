"""A cascade keeps its promised precision without review, simulated with a known truth."""

from __future__ import annotations

import pytest

from tests.bench.cascade_promise import WORLDS, simulate

TRAININGS = 60


@pytest.mark.parametrize("promise", [0.9, 0.95])
@pytest.mark.parametrize("world", WORLDS)
def test_a_cascade_keeps_its_promise_in_nineteen_trainings_of_twenty(
    world: str, promise: float
) -> None:
    """Plus three standard errors. Once the first stage answered everything that the margin allowed,
    and up to every training broke the promise. A judge that never builds a cascade does not
    pass."""
    found = simulate(WORLDS[world], promise, TRAININGS, messages=600, seed=3)
    assert found.broken / TRAININGS <= 0.05 + 3 * (0.05 * 0.95 / TRAININGS) ** 0.5
    assert found.bound >= TRAININGS / 2
    assert found.first_share >= 0.2
