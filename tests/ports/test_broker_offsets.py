"""A group's committed offsets when the broker that keeps them is killed."""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.support.topics import create_topics
from worker.demo.broker import LocalBroker

QUIET: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}

# With these, reading 10,000 commits takes two seconds, like a long run's log.
SLOW_LOADING = {"offsets.load.buffer.size": 1, "log.index.interval.bytes": 65_536}
SCHEDULED = "Scheduling loading"
ENDED = ("Finished loading", "Failed to load")
"""A load may fail because the broker is no longer the leader; it has ended all the same."""
QUICK_START_S = 4.5
"""Half of the broker's session. A start that takes longer uses the session up: it then runs out
during the first load, which is slow here on purpose, and not long after it."""


@pytest.mark.long  # thousands of commits, loaded slowly on purpose
def test_offsets_are_loaded_undisturbed_after_a_kill(tmp_path: Path) -> None:
    """The load of offsets that a restarted broker begins must end before it leads again: Kafka 4.4
    mistakes the end of one load for another's and then returns old offsets. On a machine so busy
    that the start is slow, a shorter log is tried."""
    for commits in (10_000, 2_500, 600):
        offset, steps, start_s = _after_a_kill(tmp_path / f"{commits}.log", commits)
        if start_s < QUICK_START_S:
            break
    assert offset == commits, steps
    assert len(steps) >= 4
    assert set(steps[::2]) == {SCHEDULED}, steps
    assert set(steps[1::2]) <= {*ENDED}, steps
    assert steps[-1] == ENDED[0]


def _after_a_kill(log: Path, commits: int) -> tuple[int | None, list[str], float]:
    """Kill a broker with so many commits and restart it. Return the committed offset (None: no
    answer), the steps of loading in its log, and the seconds until the first load began."""
    with LocalBroker(log_path=log, properties=SLOW_LOADING) as broker:
        client = {"bootstrap.servers": broker.bootstrap_servers, **QUIET}
        create_topics(broker.bootstrap_servers, ["letters"])
        consumer = Consumer({**client, "group.id": "readers", "enable.auto.commit": False})
        for offset in range(1, commits + 1):
            there = [TopicPartition("letters", 0, offset)]
            if offset % 500 and offset < commits:
                consumer.commit(offsets=there)
            else:
                consumer.commit(offsets=there, asynchronous=False)

        broker.kill()
        before, began = log.stat().st_size, datetime.now()
        broker.restart()

        try:
            asked = consumer.committed([TopicPartition("letters", 0)], timeout=30)[0].offset
        except KafkaException:
            asked = None
        consumer.close()
    lines = log.read_text(encoding="utf-8")[before:].splitlines()
    loads = [line for line in lines if "__consumer_offsets-0" in line]
    pattern = "|".join((SCHEDULED, *ENDED, "Ignored load completion"))
    steps = [match[0] for line in loads if (match := re.search(pattern, line))]
    first = next(line for line in loads if SCHEDULED in line).partition(" ")[0]
    loading = datetime.strptime(f"{began:%Y%m%d} {first}", "%Y%m%d %H:%M:%S.%f")
    return asked, steps, (loading - began).total_seconds()
