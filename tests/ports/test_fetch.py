"""What a worker with a backlog receives from Kafka (``tests/bench/fetch.py`` measures it)."""

from __future__ import annotations

from contextlib import ExitStack

from tests.bench import fetch
from tests.chaos.harness import Arena


def test_a_backlog_is_downloaded_once(bootstrap_servers: str) -> None:
    """The client discards what it has fetched of a paused partition: without the worker's own
    buffer, it received a hundred times what the worker took."""
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack, partitions=12)
        fetch.send_backlog(arena, 60_000, 12)
        found = fetch.measure(arena, rate=500, seconds=5)
    assert found.taken[0] > 1000
    assert max(found.ratios) < 2
