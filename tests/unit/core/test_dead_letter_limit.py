"""Too many dead letters stop the worker; a healthy feed never does."""

import random

import pytest
from pydantic import ValidationError

from tests.support.rig import started, toy_completed, toy_record
from worker.core.dead_letter_limit import WINDOW, DeadLetterLimit, stops_at
from worker.core.events import Published
from worker.errors import FeedBroken
from worker.records.types import Rejected, Tombstone
from worker.settings import LoopSettings

pytestmark = pytest.mark.slow

DEAD = toy_completed(toy_record(), Rejected("not_json", "decode", ""))
DONE = toy_completed(toy_record(), Tombstone(forwarded=True))


def feed(limit: DeadLetterLimit, rate: float, records: int, seed: int) -> int | None:
    """Feed independent records in batches of 100; return how many it took to stop."""
    numbers = random.Random(seed)
    exceeded: list[bool] = []
    limit.stop = lambda: exceeded.append(True)
    for done in range(0, records, 100):
        limit(Published([DEAD if numbers.random() < rate else DONE for _ in range(100)], 0.0))
        if exceeded:
            return done + 100
    return None


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("ratio", "window"), [(0.5, 1000), (0.1, 1000), (0.5, 100), (0.02, 5000)])
def test_a_feed_that_is_just_within_the_limit_is_not_stopped(
    ratio: float, window: int, seed: int
) -> None:
    for rate in (ratio, ratio / 3):
        assert feed(DeadLetterLimit(ratio, window), rate, 200_000, seed) is None


@pytest.mark.parametrize("ratio", [0.1, 0.5])
def test_false_stops_are_no_more_frequent_than_the_bound_says(ratio: float) -> None:
    chance, window, tries = 0.01, 200, 2000
    stopped = sum(
        feed(DeadLetterLimit(ratio, window, chance), ratio, window, seed) is not None
        for seed in range(tries)
    )
    assert stopped <= chance * tries
    assert stopped > 0, "the level is so high that it stops nothing"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("rate", "within"), [(1.0, 700), (0.9, 800), (0.75, 1500)])
def test_a_broken_feed_is_stopped_within_a_window_or_two(
    rate: float, within: int, seed: int
) -> None:
    for before in (0, 20_000):
        limit = DeadLetterLimit(0.5, 1000)
        assert feed(limit, 0.01, before, seed) is None
        found = feed(limit, rate, 5000, seed)
        assert found is not None
        assert found <= within


def test_every_ratio_that_can_be_set_can_be_exceeded() -> None:
    assert 500 < stops_at(0.5) < 650
    assert LoopSettings(max_dead_letter_ratio=0.95)
    with pytest.raises(ValidationError, match="less than or equal to"):
        LoopSettings(max_dead_letter_ratio=0.951)
    assert stops_at(0.95) <= WINDOW


def test_the_worker_stops_with_the_reason_after_it_has_published_what_is_in_flight() -> None:
    rig = started()
    limit = DeadLetterLimit(0.5, 100)
    limit.stop = rig.loop.stop
    rig.on_published(lambda batch: limit(Published(batch, 0.0)))
    for _ in range(200):
        rig.stream.add(None)
    rig.add("m")
    while not rig.loop.state.stopping:
        rig.iterate()
    assert rig.engine.pending == ["m"]
    rig.engine.answer("m")
    rig.loop.drain()
    assert rig.committed() == len(rig.stream.outputs) == 201
    with pytest.raises(FeedBroken, match=r"of the last \d+ records are dead letters.*tombstone"):
        limit.check()
    assert FeedBroken.exit_code == 6
