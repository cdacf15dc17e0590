"""A group's committed offsets when the broker that keeps them is killed. Needs nothing running."""

import re
from pathlib import Path
from typing import Any

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from worker.demo.broker import LocalBroker

QUIET: dict[str, Any] = {"log_level": 0, "error_cb": lambda _error: None}
COMMITS = 10_000

# With these reading 10,000 commits takes two seconds, as that of a long run's log does.
SLOW_LOADING = {"offsets.load.buffer.size": 1, "log.index.interval.bytes": 65_536}


def test_offsets_are_loaded_in_peace_after_a_kill(tmp_path: Path) -> None:
    """The load that a broker begins as the leader it was ends before it leads again: Kafka 4.4
    takes the end of one load for that of another, and then tells offsets of long ago."""
    log = tmp_path / "broker.log"
    with LocalBroker(log_path=log, properties=SLOW_LOADING) as broker:
        client = {"bootstrap.servers": broker.bootstrap_servers, **QUIET}
        admin = AdminClient(client)
        admin.create_topics([NewTopic("letters", 1, 1)])["letters"].result(10)
        consumer = Consumer({**client, "group.id": "readers", "enable.auto.commit": False})
        for offset in range(1, COMMITS + 1):
            there = [TopicPartition("letters", 0, offset)]
            if offset % 1000:
                consumer.commit(offsets=there)
            else:
                consumer.commit(offsets=there, asynchronous=False)

        broker.kill()
        before = log.stat().st_size
        broker.restart()

        asked = consumer.committed([TopicPartition("letters", 0)], timeout=30)
        assert asked[0].offset == COMMITS
        consumer.close()
    said = log.read_text(encoding="utf-8")[before:]
    steps = "Scheduling loading|Finished loading|Failed to load|Ignored load completion"
    loads = [line for line in said.splitlines() if "__consumer_offsets-0" in line]
    found = [match[0] for line in loads if (match := re.search(steps, line))]
    # The first may fail, since the broker is the leader no longer; it has ended all the same.
    assert found[1] in ("Finished loading", "Failed to load")
    assert [found[0], *found[2:]] == [
        "Scheduling loading",
        "Scheduling loading",
        "Finished loading",
    ]
