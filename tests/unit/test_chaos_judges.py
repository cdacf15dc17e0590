"""The judge of growth, by simulation."""

from __future__ import annotations

import random

import pytest

from tests.chaos.soak import Usage, trends


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
