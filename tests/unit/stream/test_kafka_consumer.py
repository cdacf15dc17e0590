"""How far behind a partition is, from the statistics of the client."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.mock_kafka import HEARTBEAT, MockKafka
from tests.support.rig import make_kafka_config, toy_record
from tests.support.topics import read_all
from worker.errors import PublishAborted
from worker.records.types import Batch, NextOffset, Outgoing, Record, TopicPartition
from worker.stream import kafka_consumer, kafka_publish
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_consumer import Lag, has_coordinator, read_statistics

SOURCE = TopicPartition("in", 0)


def record(offset: int) -> Record:
    return toy_record(source=SOURCE, offset=offset, timestamp_ms=1_700_000_000_000 + offset)


def statistics(**facts: int) -> dict[str, Any]:
    """What the client says of one partition, as far as anybody here asks."""
    known = {
        "partition": 0,
        "lo_offset": -1001,
        "ls_offset": -1001,
        "committed_offset": -1001,
        "next_offset": 0,
        "fetchq_cnt": 0,
    }
    nobody = {**known, "partition": -1}
    partitions = {"0": {**known, **facts}, "-1": nobody}
    return {"topics": {"in": {"topic": "in", "partitions": partitions}}, "cgrp": {"state": "up"}}


def held() -> Lag:
    lag = Lag()
    lag.assigned([SOURCE])
    return lag


def test_it_is_counted_from_the_next_offset_to_be_committed() -> None:
    """Records in flight are not done."""
    lag = held()
    lag.delivered(record(n) for n in range(10, 30))
    lag.published([NextOffset(SOURCE, 20)])
    lag.update(statistics(ls_offset=50, committed_offset=5, next_offset=50, fetchq_cnt=20), set())
    assert lag.read() == {SOURCE: 30}


def test_before_the_first_commit_it_begins_where_the_group_left_off_or_at_the_beginning() -> None:
    """A backlog is seen before anything of it is done."""
    lag = held()
    lag.update(statistics(ls_offset=50, committed_offset=5, lo_offset=0, next_offset=5), set())
    assert lag.read() == {SOURCE: 45}
    lag.update(statistics(ls_offset=50, lo_offset=3, next_offset=3), set())
    assert lag.read() == {SOURCE: 47}


def test_the_oldest_message_is_the_first_that_is_delivered_and_not_published() -> None:
    """Records before the committed offset do not count, and partitions of others do not."""
    lag = held()
    lag.delivered(record(n) for n in range(10, 13))
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {SOURCE: record(10).timestamp_ms}
    lag.published([NextOffset(SOURCE, 12)])
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {SOURCE: record(12).timestamp_ms}
    lag.delivered([record(11), record(12)])
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {SOURCE: record(12).timestamp_ms}
    lag.ended([SOURCE])
    assert lag.oldest_ms() == {}
    lag.assigned([SOURCE])
    lag.update(statistics(), set())
    assert lag.oldest_ms() == {}


def test_a_partition_delivered_from_its_beginning_keeps_nothing_of_what_is_published() -> None:
    """A million records that are skipped took 132 MB, and counted as waiting."""
    lag = held()
    lag.delivered(record(n) for n in range(500))
    lag.published([NextOffset(SOURCE, 1_000)])
    lag.delivered(record(n) for n in range(500, 1_002))
    assert [offset for offset, _ in lag._waiting[SOURCE]] == [1_000, 1_001]
    lag.update(statistics(ls_offset=1_002, lo_offset=0, next_offset=1_002), set())
    assert lag.read() == {SOURCE: 2}


def test_nothing_is_said_of_what_is_not_known() -> None:
    """No made-up zero."""
    lag = held()
    lag.update(statistics(ls_offset=50), set())
    assert lag.read() == {}
    lag.update(statistics(committed_offset=5), set())
    assert lag.read() == {}


def test_transaction_markers_at_the_end_are_no_lag() -> None:
    """Read to the end, all delivered is published, nothing waits in the client: 0."""
    lag = held()
    lag.delivered([record(7)])
    end = {"ls_offset": 9, "next_offset": 9, "committed_offset": 2}
    lag.update(statistics(**end), set())
    assert lag.read() == {SOURCE: 7}, "the record is in flight"
    lag.published([NextOffset(SOURCE, 8)])
    lag.update(statistics(**end, fetchq_cnt=1), set())
    assert lag.read() == {SOURCE: 1}, "another waits in the client"
    lag.update(statistics(**end), set())
    assert lag.read() == {SOURCE: 0}
    lag.update(statistics(**{**end, "ls_offset": 12}), set())
    assert lag.read() == {SOURCE: 4}, "more has come"


def test_what_the_client_had_read_ahead_counts_while_it_is_paused() -> None:
    """A pause throws it away: that the client has been at the end says nothing."""
    lag = held()
    lag.delivered([record(7)])
    lag.published([NextOffset(SOURCE, 8)])
    lag.update(statistics(ls_offset=20, next_offset=20), {SOURCE})
    assert lag.read() == {SOURCE: 12}
    lag.update(statistics(ls_offset=20, next_offset=20), set())
    assert lag.read() == {SOURCE: 0}


def test_markers_before_the_first_record_are_no_lag_either() -> None:
    """A worker that starts on a partition which is done."""
    lag = held()
    lag.update(statistics(ls_offset=9, committed_offset=8, next_offset=9), set())
    assert lag.read() == {SOURCE: 0}


def test_a_partition_that_goes_takes_its_lag_along() -> None:
    """And comes back without what was known of it: others have worked on it since."""
    lag = held()
    lag.delivered([record(5)])
    lag.published([NextOffset(SOURCE, 6)])
    lag.update(statistics(ls_offset=50), set())
    assert lag.read() == {SOURCE: 44}
    lag.ended([SOURCE])
    assert lag.read() == {}
    lag.update(statistics(ls_offset=50), set())
    assert lag.read() == {}
    lag.assigned([SOURCE])
    lag.update(statistics(ls_offset=50, committed_offset=40, next_offset=40), set())
    assert lag.read() == {SOURCE: 10}


def test_what_was_read_keeps_still() -> None:
    """Anyone who reads on another thread never sees it half made."""
    lag = held()
    lag.update(statistics(ls_offset=50, committed_offset=5), set())
    before = lag.read()
    lag.update(statistics(ls_offset=60, committed_offset=5), set())
    assert before == {SOURCE: 45}


def test_the_coordinator_is_heard_of() -> None:
    """By a member that is told nothing else."""
    assert has_coordinator(read_statistics('{"cgrp": {"state": "up"}}'))
    assert not has_coordinator(read_statistics('{"cgrp": {"state": "wait-coord"}}'))
    assert not has_coordinator(read_statistics("{}"))


# A rebalance in the middle of the Kafka edge's poll, on a client made of a script.


class Message:
    """What the client gives for one record."""

    def __init__(self, partition: int, offset: int, leader_epoch: int | None = 0) -> None:
        self._at = (partition, offset)
        self._leader_epoch = leader_epoch

    def leader_epoch(self) -> int | None:
        return self._leader_epoch

    def error(self) -> None:
        return None

    def topic(self) -> str:
        return "in"

    def partition(self) -> int:
        return self._at[0]

    def offset(self) -> int:
        return self._at[1]

    def timestamp(self) -> tuple[int, int]:
        return (1, 1_700_000_000_000)

    def headers(self) -> None:
        return None

    def key(self) -> None:
        return None

    def value(self) -> bytes:
        return b"x"


class Client:
    """Stands in for Consumer and Producer: each poll runs the callbacks due and gives a message."""

    script: deque[Any]

    def __init__(self, *_: Any, stats_cb: Any = None, **__: Any) -> None:
        self.tell_statistics = stats_cb
        self.script = deque()
        self.told: dict[str, Callable[[Any, Any], None]] = {}

    def subscribe(self, topics: list[str], **callbacks: Callable[[Any, Any], None]) -> None:
        self.told = callbacks

    def pause(self, partitions: Any) -> None:
        """Nothing comes in a script anyway."""

    resume = pause

    def poll(self, timeout: float) -> Message | None:
        while self.script and not isinstance(self.script[0], Message):
            what, partition = self.script.popleft()
            self.told[what](self, [KafkaPartition("in", partition)])
        return self.script.popleft() if self.script else None


class Owner:
    """Takes note of what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, list[TopicPartition]]] = []

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        return lambda partitions: self.told.append((name, list(partitions)))


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch) -> KafkaStream:
    monkeypatch.setattr(kafka_consumer, "Consumer", Client)
    monkeypatch.setattr(kafka_publish, "Producer", Client)
    made = KafkaStream(make_kafka_config(delivery="at_least_once"))
    made.subscribe(Owner())
    return made


def polled(stream: KafkaStream, *script: Any, room: int = 10) -> list[tuple[int, int]]:
    client: Any = stream._consumer._client
    client.script.extend(script)
    return [(record.source.partition, record.offset) for record in stream.poll(room, 0.0)]


def test_a_poll_gives_what_there_is_up_to_the_room(stream: KafkaStream) -> None:
    """In the client's order; the rest comes with the next poll."""
    messages = [Message(0, 0), Message(1, 0), Message(0, 1)]
    assert polled(stream, ("on_assign", 0), *messages, room=2) == [(0, 0), (1, 0)]
    assert polled(stream) == [(0, 1)]


@pytest.mark.parametrize("how", ["on_revoke", "on_lost"])
def test_records_of_an_assignment_that_ended_within_the_poll_are_not_given(
    stream: KafkaStream, how: str
) -> None:
    """If the partition is back when the poll returns, the loop cannot tell them from the new
    assignment's: it would publish past records that it has just dropped, and lose them."""
    found = polled(
        stream,
        ("on_assign", 0),
        Message(0, 2),
        Message(1, 7),
        (how, 0),
        ("on_assign", 0),
        Message(0, 0),
        Message(0, 1),
    )
    assert found == [(1, 7), (0, 0), (0, 1)]


def test_what_the_client_gives_a_second_time_is_left_out(stream: KafkaStream) -> None:
    """Within one assignment each record comes once, however often the client goes back."""
    first = [Message(0, at) for at in range(3)]
    assert polled(stream, ("on_assign", 0), *first) == [(0, 0), (0, 1), (0, 2)]
    again = [Message(0, at) for at in range(5)]
    assert polled(stream, *again, Message(1, 0)) == [(0, 3), (0, 4), (1, 0)]
    assert polled(stream, *again) == []
    assert polled(stream, ("on_revoke", 0), ("on_assign", 0), *first) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize("epoch", [5, None])
def test_other_records_under_old_offsets_are_given(stream: KafkaStream, epoch: int | None) -> None:
    """A log that was cut is for the loop to find; a broker that tells no epochs proves nothing."""
    old = [Message(0, at, 3 if epoch else None) for at in range(3)]
    assert len(polled(stream, ("on_assign", 0), *old)) == 3
    assert polled(stream, Message(0, 1, epoch)) == [(0, 1)]


def test_while_a_partition_is_paused_its_lag_is_up_to_the_end(stream: KafkaStream) -> None:
    """What the client had read ahead was thrown away; a pause ends with the assignment."""
    client: Any = stream._consumer._client
    source = TopicPartition("in", 0)
    known = {"lo_offset": 0, "committed_offset": 2, "fetchq_cnt": 0}
    facts = {"partition": 0, "ls_offset": 9, "next_offset": 9, **known}
    statistics = json.dumps({"topics": {"in": {"topic": "in", "partitions": {"0": facts}}}})

    def lag() -> dict[TopicPartition, int]:
        client.tell_statistics(statistics)
        return dict(stream.lag())

    polled(stream, ("on_assign", 0))
    assert lag() == {source: 0}
    stream.pause([source])
    assert lag() == {source: 7}
    stream.resume([source])
    assert lag() == {source: 0}
    stream.pause([source])
    polled(stream, ("on_revoke", 0), ("on_assign", 0))
    assert lag() == {source: 0}


def test_a_member_that_lost_its_partitions_is_told_when_it_is_in_the_group_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the broker's protocol nobody else tells a spare, and it would stay not ready for good."""
    monkeypatch.setattr(kafka_consumer, "Consumer", Client)
    monkeypatch.setattr(kafka_publish, "Producer", Client)
    stream = KafkaStream(
        make_kafka_config(delivery="at_least_once", consumer={"group.protocol": "consumer"})
    )
    owner = Owner()
    stream.subscribe(owner)
    client: Any = stream._consumer._client
    away = json.dumps({"topics": {}, "cgrp": {"state": "query-coord"}})
    there = json.dumps({"topics": {}, "cgrp": {"state": "up"}})
    polled(stream, ("on_assign", 0), ("on_lost", 0))
    client.tell_statistics(away)
    assert [kind for kind, _ in owner.told] == ["on_assigned", "on_lost"]
    client.tell_statistics(there)
    client.tell_statistics(there)
    assert owner.told[2:] == [("on_assigned", [])]


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


@pytest.mark.slow
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


@pytest.mark.slow
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
