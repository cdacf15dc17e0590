"""Random worlds of the loop: no record is lost, doubled or stuck, and no good one is a dead letter.

A thousand of them: ``pytest tests/unit/core/test_worlds.py -m long``.
"""

from __future__ import annotations

import pytest

from tests.support.worlds import World


def live_through(seed: int) -> None:
    """One world from its beginning to its end."""
    world = World(seed)
    world.run(steps=world.draw.randint(50, 600))
    assert world.finish(), f"seed {seed}: a record is stuck"
    world.verify()


@pytest.mark.parametrize("seed", range(20))
def test_each_record_has_its_one_right_end(seed: int) -> None:
    """Whatever the pace of a stage, and whatever is refused, fails, goes or is killed."""
    live_through(seed)


@pytest.mark.long  # a quarter of an hour
@pytest.mark.timeout(3600)
def test_each_record_has_its_one_right_end_in_a_thousand_worlds() -> None:
    """The same, of other seeds."""
    for seed in range(1_000, 2_000):
        live_through(seed)
