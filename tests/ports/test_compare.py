"""Reading a part of a real topic to compare adapters on, while a worker is in the group."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from tests.chaos.harness import Arena, messages
from tests.support.topics import create_topics
from worker.offline.records import read_range
from worker.policies import kafka_config
from worker.settings import KafkaSettings
from worker.stream.kafka_config import KafkaConfig
from worker.stream.topics import RecordRange

BEGIN_MS = 1_700_000_000_000
STEP_MS = 1000
COUNT = 60
PARTITIONS = 3

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def numbered(bootstrap_servers: str) -> tuple[KafkaConfig, str]:
    """A topic of numbers, a second apart, over three partitions in transactions of five, plus one
    aborted transaction."""
    topic = f"compare.{os.getpid()}"
    create_topics(bootstrap_servers, [topic], PARTITIONS)
    producer = Producer(
        {"bootstrap.servers": bootstrap_servers, "transactional.id": topic, "log_level": 0}
    )
    producer.init_transactions(30)
    for begin in range(0, COUNT, 5):
        producer.begin_transaction()
        for number in range(begin, begin + 5):
            producer.produce(
                topic, str(number), partition=number % PARTITIONS,
                timestamp=BEGIN_MS + STEP_MS * number,
            )  # fmt: skip
        producer.commit_transaction(30)
    producer.begin_transaction()
    for partition in range(PARTITIONS):
        producer.produce(topic, "aborted", partition=partition, timestamp=BEGIN_MS)
    assert producer.flush(30) == 0
    producer.abort_transaction(30)
    return config_of(bootstrap_servers), topic


def config_of(servers: str, group: str = "filing-clerk") -> KafkaConfig:
    return kafka_config(KafkaSettings(bootstrap_servers=servers, group_id=group))


Read = Callable[..., list[int]]


@pytest.fixture
def read(numbered: tuple[KafkaConfig, str]) -> Read:
    """Read the numbers in a range."""
    config, topic = numbered

    def numbers(stretch: RecordRange, most: int = 1000) -> list[int]:
        return [int(record.value or b"-1") for record in read_range(config, topic, stretch, most)]

    return numbers


def test_a_whole_topic_is_read_in_order_of_time(read: Read) -> None:
    """Without transaction markers and aborted records."""
    assert read(RecordRange()) == list(range(COUNT))


def test_the_newest_records(read: Read) -> None:
    """Over all partitions, whatever markers and aborted records lie between."""
    for last in (1, 2, 5, 30, 1000):
        assert read(RecordRange(last=last)) == list(range(max(0, COUNT - last), COUNT))
    assert read(RecordRange(last=30), 3) == list(range(COUNT - 3, COUNT))


def test_times_limit_the_range(read: Read) -> None:
    """The start is included, the end is not."""
    ten, twenty = BEGIN_MS + 10 * STEP_MS, BEGIN_MS + 20 * STEP_MS
    assert read(RecordRange(since_ms=ten, until_ms=twenty)) == list(range(10, 20))
    assert read(RecordRange(since_ms=ten)) == list(range(10, COUNT))
    assert read(RecordRange(since_ms=BEGIN_MS + COUNT * STEP_MS)) == []


def test_offsets_limit_the_range(read: Read) -> None:
    """Both ends are included; beyond the log there is nothing, and no wait."""
    found = read(RecordRange(offsets={1: (0, 1), 2: (0, None)}))
    assert [number for number in found if number % PARTITIONS == 1] == [1, 4]
    assert [number for number in found if number % PARTITIONS == 2] == list(
        range(2, COUNT, PARTITIONS)
    )
    assert read(RecordRange(offsets={0: (10_000, 20_000)})) == []


def test_no_more_than_the_limit(read: Read) -> None:
    """The oldest records of the range."""
    assert read(RecordRange(), 7) == list(range(7))
    assert read(RecordRange(since_ms=BEGIN_MS + 10 * STEP_MS), 5) == [10, 11, 12, 13, 14]


def test_a_running_worker_is_not_touched(bootstrap_servers: str) -> None:
    """With the same group id: no rebalance, and its committed offsets stay."""
    with ExitStack() as stack:
        arena = Arena(bootstrap_servers, stack)
        worker = arena.start_worker()
        worker.wait_until_ready("partitions.assigned")
        arena.publish(messages(40))
        arena.wait_for(40)
        arena.read_for(1)
        before = committed(arena)
        config = config_of(bootstrap_servers, arena.run)
        assert len(read_range(config, arena.topics["in"], RecordRange(last=100), 100)) == 40
        arena.publish(messages(8))
        arena.wait_for(48)
        log = worker.log_path.read_text(encoding="utf-8")
        assert log.count("partitions.assigned") == 1
        assert "partitions.revoked" not in log
        after = committed(arena)
    assert sum(before) == 40
    assert sum(after) == 48


def committed(arena: Arena) -> list[int]:
    consumer = Consumer({"bootstrap.servers": arena.servers, "group.id": arena.run, "log_level": 0})
    places = [KafkaPartition(arena.topics["in"], n) for n in range(arena.partitions)]
    found = [place.offset for place in consumer.committed(places, timeout=30)]
    consumer.close()
    return found
