"""At least once: records are written and their offsets not committed, on a scripted client."""

from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.policies import make_kafka_config
from worker.errors import OutcomeUnknown, StreamFailed
from worker.records.types import Batch, NextOffset, Outgoing, TopicPartition
from worker.stream import kafka_consumer, kafka_producer
from worker.stream.kafka import KafkaStream

SOURCE = TopicPartition("in", 0)
BATCH = Batch([Outgoing("out", None, b"x", ())], [NextOffset(SOURCE, 1)])


class Client:
    """Stands in for Consumer and Producer; ``commit_errors`` are what the next commits end with."""

    produced: list[Any]
    commits: list[list[tuple[int, int]]]
    commit_errors: list[int]
    told: dict[str, Callable[[Any, Any], None]]

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __getattr__(self, name: str) -> Callable[..., int]:
        return lambda *_, **__: 0

    def subscribe(self, _: Any, **told: Callable[[Any, Any], None]) -> None:
        type(self).told = told

    def produce(self, *given: Any, **_: Any) -> None:
        self.produced.append(given)

    def commit(self, offsets: list[KafkaPartition], **_: Any) -> list[KafkaPartition]:
        if self.commit_errors:
            raise KafkaException(KafkaError(self.commit_errors.pop(0)))
        self.commits.append([(each.partition, each.offset) for each in offsets])
        return offsets

    def committed(self, partitions: list[KafkaPartition], **_: Any) -> list[KafkaPartition]:
        known = dict(pair for commit in self.commits for pair in commit)
        return [
            KafkaPartition(each.topic, each.partition, known.get(each.partition, -1001))
            for each in partitions
        ]


class Owner:
    """Hears of rebalances and does nothing."""

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        return lambda _: None


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> KafkaStream:
    monkeypatch.setattr(kafka_consumer, "Consumer", Client)
    monkeypatch.setattr(kafka_producer, "Producer", Client)
    Client.produced, Client.commits, Client.commit_errors = [], [], []
    made = KafkaStream(make_kafka_config(delivery="at_least_once"))
    made.subscribe(Owner())
    return made


def test_only_the_commit_is_repeated_when_only_the_commit_failed(stream: KafkaStream) -> None:
    """What is written is not written again."""
    Client.commit_errors = [KafkaError.REQUEST_TIMED_OUT, KafkaError.COORDINATOR_NOT_AVAILABLE]
    with pytest.raises(OutcomeUnknown, match="written, and the offsets are not committed"):
        stream.publish(BATCH)
    with pytest.raises(OutcomeUnknown):
        stream.resolve_unknown_commit([SOURCE])
    assert stream.resolve_unknown_commit([SOURCE]) == [NextOffset(SOURCE, 1)]
    assert len(Client.produced) == 1
    assert Client.commits == [[(0, 1)]]


@pytest.mark.parametrize("how", ["on_revoke", "on_lost"])
def test_an_offset_of_a_partition_that_went_away_is_never_committed(
    stream: KafkaStream, how: str
) -> None:
    """Its next owner may be further on: the commit would take the group back."""
    Client.commit_errors = [KafkaError.REQUEST_TIMED_OUT]
    with pytest.raises(OutcomeUnknown):
        stream.publish(BATCH)
    Client.told[how](None, [KafkaPartition("in", 0)])
    assert stream.resolve_unknown_commit([]) == []
    assert Client.commits == []


def test_a_commit_without_the_right_to_it_ends_the_worker(stream: KafkaStream) -> None:
    """It would fail in the same way for ever."""
    Client.commit_errors = [KafkaError.GROUP_AUTHORIZATION_FAILED]
    with pytest.raises(StreamFailed, match="no right to use the consumer group"):
        stream.publish(BATCH)
