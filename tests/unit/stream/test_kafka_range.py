"""A range of a topic, on a broker in this process: the newest, a time, offsets, and failures."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Producer

from tests.support.mock_kafka import FETCH, MockKafka
from worker.errors import StreamFailed
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_range import read_range, reading_properties
from worker.stream.record_range import RecordRange

Configured = Callable[..., KafkaConfig]
Publish = Callable[..., None]


@pytest.fixture
def config(broker: MockKafka, configured: Configured, publish: Publish) -> KafkaConfig:
    """The topic in: three records of partition 0 at 1, 2 and 3 s, two of partition 1 at 1.5 s."""
    broker.create_topic("in", 2)
    publish("in", 0, [b"a", b"b", b"c"], at_ms=1000)
    publish("in", 1, [b"x", b"y"], at_ms=1500)
    return configured()


def read(config: KafkaConfig, limit: int = 100, **given: object) -> list[bytes | None]:
    found = read_range(config, "in", RecordRange(**given), limit)  # type: ignore[arg-type]
    return [record.value for record in found]


def test_the_newest_of_all_partitions(config: KafkaConfig) -> None:
    """In the order of their times, whatever partition they are in; never more than the limit."""
    assert read(config, last=3) == [b"b", b"y", b"c"]
    assert read(config, last=100) == [b"a", b"x", b"b", b"y", b"c"]
    assert read(config, limit=2, last=3) == [b"y", b"c"]


def test_markers_of_transactions_are_not_counted(broker: MockKafka, configured: Configured) -> None:
    """The newest two are two records, however many offsets lie between them."""
    broker.create_topic("in")
    producer = Producer(
        {"bootstrap.servers": broker.servers, "transactional.id": "t", "log_level": 0}
    )
    producer.init_transactions(5)
    for value in (b"a", b"b", b"c"):
        producer.begin_transaction()
        producer.produce("in", value, partition=0)
        producer.commit_transaction(5)
    assert read(configured(), last=2) == [b"b", b"c"]


def test_until_a_time(config: KafkaConfig) -> None:
    """That time is not included; of what is left the oldest, up to the limit."""
    assert read(config, until_ms=2500) == [b"a", b"x", b"b"]
    assert read(config, until_ms=1500) == [b"a"]
    assert read(config, until_ms=2500, limit=2) == [b"a", b"x"]
    assert read(config, since_ms=9000) == []


def test_by_offsets(config: KafkaConfig) -> None:
    """Both ends included; what the log does not have is left out."""
    assert read(config, offsets={0: (1, 1)}) == [b"b"]
    assert read(config, offsets={0: (1, None), 1: (0, 99)}) == [b"x", b"b", b"y", b"c"]
    assert read(config, offsets={0: (50, None)}) == []
    with pytest.raises(StreamFailed, match=r"^in has no partition 7: it has 2, from 0$"):
        read(config, offsets={7: (0, None)})


def test_a_topic_that_may_not_be_read(broker: MockKafka, config: KafkaConfig) -> None:
    """Told in one line, with the place, the reason, and what to check."""
    broker.fail_topic("in", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(StreamFailed) as caught:
        read(config, last=1)
    said = str(caught.value)
    assert said.startswith(f"in at {broker.servers} cannot be read (Broker: Topic authorization")
    assert said.endswith("and the right to read the topic")


def test_kafka_that_goes_away_meanwhile(
    broker: MockKafka, configured: Configured, publish: Publish
) -> None:
    """Not waited for for ever."""
    broker.create_topic("in")
    publish("in", 0, [b"a"])
    broker.fail_next(FETCH, *[KafkaError.NOT_LEADER_FOR_PARTITION] * 50)
    with pytest.raises(StreamFailed, match=r"^in: no answer from Kafka for 0\.2 s while reading$"):
        read(configured(start_timeout_s=0.2), last=1)


def test_a_reader_joins_no_group_and_waits_for_no_log_to_grow(configured: Configured) -> None:
    """Whatever the worker's own consumer is told: what has a use in a group alone is not taken."""
    own = {"group.instance.id": "one", "group.protocol": "classic", "fetch.min.bytes": 5}
    found = reading_properties(configured(consumer=own))
    assert "group.instance.id" not in found
    assert "partition.assignment.strategy" not in found
    assert found["enable.partition.eof"] is True
    assert found["enable.auto.commit"] is False
    assert found["isolation.level"] == "read_committed"
    assert found["fetch.min.bytes"] == 5
