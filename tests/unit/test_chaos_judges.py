"""The judges of stalls and of growth, by simulation."""

from __future__ import annotations

import random

import pytest

from tests.chaos.journal import Disturbance, Stall, StallWatch, longest_undisturbed_s
from tests.chaos.soak import Usage, trends


def watch(samples: list[tuple[float, int, int]]) -> list[Stall]:
    """Stalls of one partition: time, committed, end."""
    found = StallWatch(1)
    for now, committed, end in samples:
        found.take(now, {0: committed}, {0: end})
    return found.stalls


def test_a_stall_is_from_the_last_progress_to_the_next() -> None:
    """Where there was something to do; also where samples are missing, as when a broker is away."""
    moving = [(0.0, 1, 5), (0.2, 2, 6)]
    assert watch([*moving, (0.4, 2, 9), (9.2, 2, 20), (9.4, 8, 20)]) == [Stall(0, 0.2, 9.4)]
    assert watch([*moving, (9.2, 8, 20), (9.4, 9, 20)]) == [Stall(0, 0.2, 9.2)]
    # Nothing to do until 8 s: it counts from when there was.
    assert watch([(0.0, 5, 5), (8.0, 5, 9), (9.5, 9, 9)]) == [Stall(0, 8.0, 9.5)]


def test_what_a_fault_explains_is_no_stall_of_a_healthy_partition() -> None:
    """Only its partitions, only while it lasts."""
    stall = Stall(3, 10.0, 20.0)
    mine = frozenset({3})
    assert longest_undisturbed_s([stall], []) == 10.0
    assert longest_undisturbed_s([stall], [Disturbance(frozenset({2}), 0.0, 99.0)]) == 10.0
    assert longest_undisturbed_s([stall], [Disturbance(mine, 9.0, 21.0)]) == 0.0
    assert longest_undisturbed_s([stall], [Disturbance(mine, 12.0, 19.0)]) == 2.0
    two = [Disturbance(mine, 9.0, 13.0), Disturbance(mine, 17.0, 30.0)]
    assert longest_undisturbed_s([stall], two) == 4.0


def usages(per_hour: float, seed: int, minutes: int = 30) -> list[Usage]:
    """A process whose memory grows so, with noise and a warm-up of 30 MB."""
    rng = random.Random(seed)
    count = minutes * 6
    return [
        Usage(
            n * 10.0,
            120 - 30 * max(0.0, 1 - n / (count / 5)) + per_hour * n / 360 + rng.gauss(0, 0.7),
            40 + rng.choice((0, 0, 1)),
            12,
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("seed", range(50))
def test_a_steady_process_is_flat_and_a_leak_is_told(seed: int) -> None:
    """30 MB of warm-up and noise are no leak; 60 MB an hour are, within half an hour."""
    assert all(line.is_flat for line in trends(usages(0.0, seed)))
    told = {line.name: line.is_flat for line in trends(usages(60.0, seed))}
    assert told == {"rss_mb": False, "descriptors": True, "threads": True}
