"""Ranges of records: times, offsets, and logs that are shorter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import pytest
from confluent_kafka import KafkaError, Producer

from tests.support.mock_kafka import MockKafka
from tests.support.rig import make_kafka_config
from worker.errors import SettingsError, StreamFailed
from worker.offline.records import Offsets, read_range, wanted_offsets
from worker.records.types import TopicPartition
from worker.stream.kafka_scan import LogSpan, TopicScanner
from worker.stream.topics import RecordRange

ONE, TWO = TopicPartition("in", 0), TopicPartition("in", 1)
LOGS = {ONE: LogSpan(100, 200), TWO: LogSpan(0, 50)}


class Scanner:
    """Stands in for a cluster that knows the times of its records."""

    def __init__(self, at: Mapping[int, Mapping[TopicPartition, int]]) -> None:
        self.at = at

    def at_time(
        self, partitions: Sequence[TopicPartition], at_ms: int
    ) -> Mapping[TopicPartition, int]:
        assert set(partitions) == set(LOGS)
        return self.at[at_ms]


def wanted(
    given: RecordRange | None, at: Mapping[int, Mapping[TopicPartition, int]] | None = None
) -> Offsets:
    return wanted_offsets(cast("TopicScanner", Scanner(at or {})), given, LOGS)


def test_no_range_is_everything_that_there_is() -> None:
    assert wanted(None) == {ONE: (100, 200), TWO: (0, 50)}


def test_a_time_begins_at_its_first_record_and_ends_before_that_of_the_other() -> None:
    at = {10: {ONE: 150, TWO: 20}, 20: {ONE: 180}, 30: {}}
    assert wanted(RecordRange(since_ms=10), at) == {ONE: (150, 200), TWO: (20, 50)}
    assert wanted(RecordRange(since_ms=10, until_ms=20), at) == {ONE: (150, 180), TWO: (20, 50)}
    assert wanted(RecordRange(since_ms=20), at) == {ONE: (180, 200), TWO: (50, 50)}
    assert wanted(RecordRange(since_ms=30), at) == {ONE: (200, 200), TWO: (50, 50)}


def test_offsets_are_cut_to_what_the_log_has() -> None:
    for first, last, found in (
        (120, 129, (120, 130)),
        (0, 129, (100, 130)),
        (120, None, (120, 200)),
        (120, 900, (120, 200)),
        (0, 50, (100, 100)),
        (900, 950, (200, 200)),
        (130, 120, (130, 130)),
    ):
        assert wanted(RecordRange(offsets={0: (first, last)})) == {ONE: found}


@pytest.fixture
def full(broker: MockKafka) -> MockKafka:
    """The topic in: three records of partition 0 at 1, 2 and 3 s, two of partition 1 at 1.5 s."""
    broker.create_topic("in", 2)
    producer = Producer({"bootstrap.servers": broker.servers, "linger.ms": 0, "log_level": 0})
    for partition, begin_ms, values in ((0, 1000, b"abc"), (1, 1500, b"xy")):
        for number, value in enumerate(values):
            at_ms = begin_ms + 1000 * number
            producer.produce("in", bytes([value]), partition=partition, timestamp=at_ms)
    assert producer.flush(10) == 0
    return broker


def read(broker: MockKafka, limit: int = 100, **given: object) -> list[bytes | None]:
    config = make_kafka_config(bootstrap_servers=broker.servers, start_timeout_s=5.0)
    found = read_range(config, "in", RecordRange(**given), limit)  # type: ignore[arg-type]
    return [record.value for record in found]


def test_the_newest_of_all_partitions(full: MockKafka) -> None:
    assert read(full, last=3) == [b"b", b"y", b"c"]
    assert read(full, last=100) == [b"a", b"x", b"b", b"y", b"c"]
    assert read(full, limit=2, last=3) == [b"y", b"c"]


def test_markers_of_transactions_are_not_counted(broker: MockKafka) -> None:
    broker.create_topic("in")
    producer = Producer(
        {"bootstrap.servers": broker.servers, "transactional.id": "t", "log_level": 0}
    )
    producer.init_transactions(5)
    for value in (b"a", b"b", b"c"):
        producer.begin_transaction()
        producer.produce("in", value, partition=0)
        producer.commit_transaction(5)
    assert read(broker, last=2) == [b"b", b"c"]


def test_by_offsets(full: MockKafka) -> None:
    assert read(full, offsets={0: (1, 1)}) == [b"b"]
    assert read(full, offsets={0: (1, None), 1: (0, 99)}) == [b"x", b"b", b"y", b"c"]
    assert read(full, offsets={0: (50, None)}) == []
    with pytest.raises(SettingsError, match=r"the input has no partition 7: use 0 to 1$"):
        read(full, offsets={7: (0, None)})


def test_a_topic_that_may_not_be_read(full: MockKafka) -> None:
    full.fail_topic("in", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(StreamFailed) as caught:
        read(full, last=1)
    said = str(caught.value)
    assert said.startswith(f"in at {full.servers} cannot be read (no right to use the topic")


SOURCE, EMPTY = TopicPartition("support.messages", 0), TopicPartition("support.messages", 1)
