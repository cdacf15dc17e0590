"""A member that the group has given up publishes nothing, before it has been told so itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError

from tests.support.mock_kafka import HEARTBEAT, MockKafka
from tests.support.topics import read_all
from worker.errors import PublishAborted
from worker.records.types import Batch, NextOffset, Outgoing, Record
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig

pytestmark = pytest.mark.slow

Configured = Callable[..., KafkaConfig]
Publish = Callable[..., None]


class Deaf:
    """Takes no note of assignments."""

    def on_assigned(self, partitions: object) -> None: ...

    def on_revoked(self, partitions: object) -> None: ...

    def on_lost(self, partitions: object) -> None: ...


@pytest.fixture
def member(
    broker: MockKafka, configured: Configured, publish: Publish
) -> Iterator[tuple[KafkaStream, Batch]]:
    """A member that holds the label of the only message there is."""
    for topic in ("in", "out"):
        broker.create_topic(topic)
    publish("in", 0, [b"text"])
    stream = KafkaStream(configured(consumer={"heartbeat.interval.ms": 50}))
    try:
        stream.subscribe(Deaf())
        yield stream, labelled(first_record(stream))
    finally:
        stream.close()


@pytest.mark.parametrize(
    "errors",
    [
        (KafkaError.UNKNOWN_MEMBER_ID,),
        # After these its membership is as empty as that of a client without a group.
        (KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID),
    ],
)
def test_a_member_that_was_given_up_publishes_nothing(
    broker: MockKafka, member: tuple[KafkaStream, Batch], errors: tuple[int, ...]
) -> None:
    stream, held = member
    broker.fail_next(HEARTBEAT, *errors)
    time.sleep(1)  # heartbeats go on in the client's threads; nobody polls
    with pytest.raises(PublishAborted, match="the group has given this member up"):
        stream.publish(held)


def test_a_member_publishes(broker: MockKafka, member: tuple[KafkaStream, Batch]) -> None:
    """The same without that."""
    stream, held = member
    stream.publish(held)
    assert read_all(broker.servers, "out") == [b"label"]


def first_record(stream: KafkaStream) -> Record:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for record in stream.poll(1, 0.2):
            return record
    raise AssertionError("nothing was delivered")


def labelled(record: Record) -> Batch:
    outgoing = Outgoing("out", record.key, b"label", ())
    return Batch([outgoing], [NextOffset(record.source, record.offset + 1)])
