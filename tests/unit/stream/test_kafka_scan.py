"""Reading whole topics from a broker in this process: ranges, times, notes, and failures."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError, Producer

from tests.support.mock_kafka import OFFSET_FETCH, MockKafka
from worker.errors import StreamFailed
from worker.records.types import NextOffset, TopicPartition
from worker.stream import kafka_scan
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_scan import LogSpan, TopicScanner, reading_properties

FIRST, SECOND = TopicPartition("in", 0), TopicPartition("in", 1)

Configured = Callable[..., KafkaConfig]
Publish = Callable[..., None]


def test_a_topic_is_read_to_its_end_at_the_start(
    broker: MockKafka, configured: Configured, publish: Publish
) -> None:
    broker.create_topic("in", 2)
    publish("in", 0, [b"a", b"b", b"c"])
    publish("in", 1, [b"x"])
    with TopicScanner(configured()) as scanner:
        spans = scanner.spans("in")
        assert spans == {FIRST: LogSpan(0, 3), SECOND: LogSpan(0, 1)}
        publish("in", 0, [b"too late"])
        ranges = {FIRST: (1, 3), SECOND: (0, 1)}
        found = list(scanner.records(ranges))
        assert [(r.offset, r.value) for r in found if r.source == FIRST] == [(1, b"b"), (2, b"c")]
        assert [r.value for r in found if r.source == SECOND] == [b"x"]
        assert list(scanner.records({FIRST: (2, 2)})) == []
        assert scanner.committed([FIRST, SECOND]) == {}


def test_a_range_may_end_with_the_marker_of_a_transaction(
    broker: MockKafka, configured: Configured
) -> None:
    broker.create_topic("in")
    producer = Producer(
        {"bootstrap.servers": broker.servers, "transactional.id": "t", "log_level": 0}
    )
    producer.init_transactions(5)
    producer.begin_transaction()
    producer.produce("in", b"a", partition=0)
    producer.commit_transaction(5)
    with TopicScanner(configured()) as scanner:
        (span,) = scanner.spans("in").values()
        assert span.end == 2
        assert [r.value for r in scanner.records({FIRST: (0, span.end)})] == [b"a"]


def test_a_group_without_members_stores_offsets_and_a_note(
    broker: MockKafka, configured: Configured
) -> None:
    broker.create_topic("in", 2)
    broker.create_topic("dead")
    with TopicScanner(configured()) as scanner:
        assert scanner.read_note("dead") is None
        scanner.commit([NextOffset(FIRST, 0), NextOffset(SECOND, 7)])
        scanner.write_note("dead", "begun on a Monday")
        assert scanner.committed([FIRST, SECOND]) == {FIRST: 0, SECOND: 7}
    with TopicScanner(configured()) as later:
        assert later.read_note("dead") == "begun on a Monday"
    with TopicScanner(configured(group_id="another")) as stranger:
        assert stranger.read_note("dead") is None


def test_a_missing_coordinator_is_waited_for(broker: MockKafka, configured: Configured) -> None:
    broker.create_topic("in")
    broker.fail_next(OFFSET_FETCH, KafkaError.COORDINATOR_LOAD_IN_PROGRESS)
    with TopicScanner(configured()) as scanner:
        assert scanner.committed([FIRST]) == {}


def test_a_missing_right_is_reported_in_one_line(broker: MockKafka, configured: Configured) -> None:
    broker.create_topic("in")
    broker.fail_topic("in", KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with TopicScanner(configured()) as scanner:
        with pytest.raises(StreamFailed) as caught:
            scanner.spans("in")
        said = str(caught.value)
        assert said.startswith(f"in at {broker.servers} cannot be read (")
        assert "no right to use the topic" in said
        assert "the rights to read the topics and to describe the group" in said
        assert "\n" not in said
        broker.fail_next(OFFSET_FETCH, KafkaError.GROUP_AUTHORIZATION_FAILED)
        with pytest.raises(
            StreamFailed, match=r"^the group's offsets at .*no right to use the con"
        ):
            scanner.read_note("in")


def test_a_reader_that_is_stuck_reports_its_partition_and_offset(
    broker: MockKafka, configured: Configured, publish: Publish, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_scan, "_OPEN_TRANSACTION_S", 0.2)
    broker.create_topic("in")
    publish("in", 0, [b"a"])
    with TopicScanner(configured(start_timeout_s=0.2)) as scanner:
        reader = scanner.records({FIRST: (0, 2)})
        assert next(reader).value == b"a"
        broker.go_away()
        begin = time.monotonic()
        with pytest.raises(StreamFailed, match=r"^in, partition 0: cannot be read up to offset 2 "):
            next(reader)
        assert time.monotonic() - begin < 5


def test_a_reader_takes_the_users_properties_but_joins_no_group(configured: Configured) -> None:
    own = {"group.instance.id": "one", "group.protocol": "classic", "fetch.min.bytes": 5}
    found = reading_properties(configured(consumer=own))
    assert "group.instance.id" not in found
    assert "partition.assignment.strategy" not in found
    assert found["enable.partition.eof"] is True
    assert found["enable.auto.commit"] is False
    assert found["isolation.level"] == "read_committed"
    assert found["fetch.min.bytes"] == 5
