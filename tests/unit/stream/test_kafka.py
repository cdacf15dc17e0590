"""The consuming side of the Kafka stream: its lag, rebalances, and a lost membership."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError
from confluent_kafka import TopicPartition as KafkaPartition
from structlog.testing import capture_logs

from tests.support.mock_kafka import HEARTBEAT, MockKafka
from tests.support.rig import make_kafka_config, toy_record
from worker.errors import PublishAborted, StreamFailed
from worker.records.types import Batch, NextOffset, Outgoing, Record, TopicPartition
from worker.stream import kafka, kafka_publish, topic_ids
from worker.stream.kafka import KafkaStream, Lag
from worker.stream.kafka_config import KafkaConfig

SOURCE = TopicPartition("in", 0)


def record(offset: int) -> Record:
    return toy_record(source=SOURCE, offset=offset, timestamp_ms=1_700_000_000_000 + offset)


def statistics(**facts: int) -> dict[str, Any]:
    """The client's statistics of one partition, as far as they are used."""
    known = {
        "partition": 0,
        "lo_offset": -1001,
        "ls_offset": -1001,
        "committed_offset": -1001,
        "next_offset": 0,
        "fetchq_cnt": 0,
    }
    unassigned = {**known, "partition": -1}  # librdkafka's entry for records without a partition
    partitions = {"0": {**known, **facts}, "-1": unassigned}
    return {"topics": {"in": {"topic": "in", "partitions": partitions}}, "cgrp": {"state": "up"}}


def held() -> Lag:
    lag = Lag()
    lag.assigned([SOURCE])
    return lag


def test_the_lag_counts_from_the_next_offset_to_commit() -> None:
    lag = held()
    lag.delivered(record(n) for n in range(10, 30))
    lag.published([NextOffset(SOURCE, 20)])
    lag.update(statistics(ls_offset=50, committed_offset=5, next_offset=50, fetchq_cnt=20), set())
    assert lag.records == {SOURCE: 30}


def test_before_the_first_commit_the_lag_counts_from_the_groups_offset_or_the_logs_start() -> None:
    lag = held()
    lag.update(statistics(ls_offset=50, committed_offset=5, lo_offset=0, next_offset=5), set())
    assert lag.records == {SOURCE: 45}
    lag.update(statistics(ls_offset=50, lo_offset=3, next_offset=3), set())
    assert lag.records == {SOURCE: 47}


def test_the_oldest_message_is_the_first_that_is_delivered_and_not_published() -> None:
    lag = held()
    lag.delivered(record(n) for n in range(10, 13))
    lag.update(statistics(), set())
    assert lag.oldest_ms == {SOURCE: record(10).timestamp_ms}
    lag.published([NextOffset(SOURCE, 12)])
    lag.update(statistics(), set())
    assert lag.oldest_ms == {SOURCE: record(12).timestamp_ms}
    lag.delivered([record(11), record(12)])
    lag.update(statistics(), set())
    assert lag.oldest_ms == {SOURCE: record(12).timestamp_ms}
    lag.ended([SOURCE])
    assert lag.oldest_ms == {}
    lag.assigned([SOURCE])
    lag.update(statistics(), set())
    assert lag.oldest_ms == {}


def test_a_partition_delivered_from_its_beginning_keeps_nothing_of_what_is_published() -> None:
    """A million skipped records took 132 MB and counted as waiting."""
    lag = held()
    lag.delivered(record(n) for n in range(500))
    lag.published([NextOffset(SOURCE, 1_000)])
    lag.delivered(record(n) for n in range(500, 1_002))
    assert [offset for offset, _ in lag._waiting[SOURCE]] == [1_000, 1_001]
    lag.update(statistics(ls_offset=1_002, lo_offset=0, next_offset=1_002), set())
    assert lag.records == {SOURCE: 2}


def test_an_unknown_lag_is_left_out() -> None:
    lag = held()
    lag.update(statistics(ls_offset=50), set())
    assert lag.records == {}
    lag.update(statistics(committed_offset=5), set())
    assert lag.records == {}
    lag.update(statistics(ls_offset=0, lo_offset=0), set())
    assert lag.records == {SOURCE: 0}, "an empty partition has a known lag"


def test_transaction_markers_at_the_end_are_not_lag() -> None:
    lag = held()
    lag.delivered([record(7)])
    end = {"ls_offset": 9, "next_offset": 9, "committed_offset": 2}
    lag.update(statistics(**end), set())
    assert lag.records == {SOURCE: 7}, "the record is in flight"
    lag.published([NextOffset(SOURCE, 8)])
    lag.update(statistics(**end, fetchq_cnt=1), set())
    assert lag.records == {SOURCE: 1}, "another waits in the client"
    lag.update(statistics(**end), set())
    assert lag.records == {SOURCE: 0}
    lag.update(statistics(**{**end, "ls_offset": 12}), set())
    assert lag.records == {SOURCE: 4}, "more has come"


def test_transaction_markers_are_not_lag_for_a_worker_that_starts_at_the_end() -> None:
    lag = held()
    lag.update(statistics(ls_offset=9, committed_offset=8, next_offset=9), set())
    assert lag.records == {SOURCE: 0}


def test_the_lag_of_a_partition_starts_over_with_its_next_assignment() -> None:
    lag = held()
    lag.delivered([record(5)])
    lag.published([NextOffset(SOURCE, 6)])
    lag.update(statistics(ls_offset=50), set())
    assert lag.records == {SOURCE: 44}
    lag.ended([SOURCE])
    assert lag.records == {}
    lag.update(statistics(ls_offset=50), set())
    assert lag.records == {}
    lag.assigned([SOURCE])
    lag.update(statistics(ls_offset=50, committed_offset=40, next_offset=40), set())
    assert lag.records == {SOURCE: 10}


class Message:
    """The client's type for one record."""

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
    """Replaces Consumer and Producer: a poll runs the next callbacks and returns a message."""

    script: deque[Any]

    def __init__(self, *_: Any, stats_cb: Any = None, **__: Any) -> None:
        self.on_statistics = stats_cb
        self.script = deque()
        self.callbacks: dict[str, Callable[[Any, Any], None]] = {}

    def subscribe(self, topics: list[str], **callbacks: Callable[[Any, Any], None]) -> None:
        self.callbacks = callbacks

    def pause(self, partitions: Any) -> None:
        """Do nothing: the script decides which messages come."""

    resume = pause

    def poll(self, timeout: float) -> Message | None:
        while self.script and not isinstance(self.script[0], Message):
            what, partition = self.script.popleft()
            self.callbacks[what](self, [KafkaPartition("in", partition)])
        return self.script.popleft() if self.script else None


class Owner:
    """A listener that records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, list[TopicPartition]]] = []

    def __getattr__(self, name: str) -> Callable[[Any], None]:
        return lambda partitions: self.calls.append((name, list(partitions)))


class Cluster:
    """Answers requests for topics' ids: at once, unless it is ``slow``."""

    def __init__(self) -> None:
        self.id = "first"
        self.slow = False
        self.waiting: list[Future[Any]] = []

    def __call__(self, topics: Collection[str]) -> Mapping[str, Future[Any]]:
        asked: dict[str, Future[Any]] = {topic: Future() for topic in topics}
        self.waiting += asked.values()
        if not self.slow:
            self.answer()
        return asked

    def answer(self) -> None:
        for future in self.waiting:
            future.set_result(SimpleNamespace(topic_id=self.id))
        self.waiting.clear()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    made = Cluster()
    monkeypatch.setattr(kafka, "ask_cluster", lambda _: made)
    return made


@pytest.fixture
def stream(monkeypatch: pytest.MonkeyPatch, cluster: Cluster) -> KafkaStream:
    monkeypatch.setattr(kafka, "Consumer", Client)
    monkeypatch.setattr(kafka_publish, "Producer", Client)
    made = KafkaStream(make_kafka_config(delivery="at_least_once"))
    made.subscribe(Owner())
    return made


def polled(stream: KafkaStream, *script: Any, room: int = 10) -> list[tuple[int, int]]:
    client: Any = stream._client
    client.script.extend(script)
    return [(record.source.partition, record.offset) for record in stream.poll(room, 0.0)]


def test_a_poll_returns_at_most_the_records_that_fit(stream: KafkaStream) -> None:
    messages = [Message(0, 0), Message(1, 0), Message(0, 1)]
    assert polled(stream, ("on_assign", 0), *messages, room=2) == [(0, 0), (1, 0)]
    assert polled(stream) == [(0, 1)]
    client: Any = stream._client
    client.on_statistics('{"topics": {}}')
    assert set(stream.oldest_ms().values()) == {1_700_000_000_000}


@pytest.mark.parametrize("how", ["on_revoke", "on_lost"])
def test_records_of_an_assignment_that_ended_within_the_poll_are_dropped(
    stream: KafkaStream, how: str
) -> None:
    """If the partition is back when the poll returns, the loop cannot distinguish them from the new
    assignment's records: it would publish past records that it has just dropped, and lose them."""
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


def test_records_that_the_client_delivers_twice_are_dropped(
    stream: KafkaStream, cluster: Cluster
) -> None:
    """Nothing of the partition is delivered until the topic is known to be the same."""
    first = [Message(0, at) for at in range(3)]
    assert polled(stream, ("on_assign", 0), *first) == [(0, 0), (0, 1), (0, 2)]
    again = [Message(0, at) for at in range(5)]
    cluster.slow = True
    assert polled(stream, *again, Message(1, 0)) == [(1, 0)]
    stream.pause([TopicPartition("in", 0)])
    stream.resume([TopicPartition("in", 0)])
    assert polled(stream) == []
    cluster.answer()
    cluster.slow = False
    polled(stream)
    assert polled(stream) == []  # they were delivered by the poll before
    assert polled(stream, *again) == []
    assert polled(stream, ("on_revoke", 0), ("on_assign", 0), *first) == [(0, 0), (0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("found", "says"), [("second", "deleted and created again"), ("A" * 22, "cannot tell")]
)
@pytest.mark.parametrize("slow", [False, True])
def test_offsets_that_come_back_from_another_topic_end_the_worker(
    stream: KafkaStream, cluster: Cluster, found: str, says: str, slow: bool
) -> None:
    """And from a broker that has no ids of topics, which cannot tell."""
    cluster.id = "first" if found == "second" else found
    polled(stream, ("on_assign", 0), *[Message(0, at) for at in range(3)])
    polled(stream)
    cluster.slow, cluster.id = slow, found
    if slow:
        assert polled(stream, *[Message(0, at) for at in range(5)]) == []
        cluster.answer()
    with pytest.raises(StreamFailed, match=says):
        polled(stream, *([] if slow else [Message(0, 0)]))


def test_brokers_without_ids_next_to_others_are_not_a_new_topic(
    stream: KafkaStream, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in an upgrade from a Kafka before 2.8."""
    for number, found in enumerate(("A" * 22, "first", "A" * 22, "first")):
        cluster.id = found
        later = time.monotonic() + topic_ids.CHECK_S
        with monkeypatch.context() as patch:
            patch.setattr(time, "monotonic", lambda later=later: later)
            polled(stream, ("on_assign", 0), Message(0, number))
        polled(stream)


def test_a_topic_that_was_created_again_is_found_within_seconds(
    stream: KafkaStream, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    polled(stream, ("on_assign", 0), Message(0, 0))
    polled(stream)
    cluster.id = "second"
    polled(stream)
    later = time.monotonic() + topic_ids.CHECK_S
    monkeypatch.setattr(time, "monotonic", lambda: later)
    polled(stream)
    with pytest.raises(StreamFailed, match="reads the new topic from its beginning"):
        polled(stream)


@pytest.mark.parametrize("epoch", [5, None])
def test_new_records_under_old_offsets_are_delivered(
    stream: KafkaStream, epoch: int | None
) -> None:
    """The loop detects a truncated log. Without leader epochs, nothing proves a repetition."""
    old = [Message(0, at, 3 if epoch else None) for at in range(3)]
    assert len(polled(stream, ("on_assign", 0), *old)) == 3
    assert polled(stream, Message(0, 1, epoch)) == [(0, 1)]


def test_the_lag_includes_what_is_buffered_and_what_the_client_discarded(
    stream: KafkaStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: Any = stream._client
    source = TopicPartition("in", 0)
    known = {"lo_offset": 0, "committed_offset": 2, "fetchq_cnt": 0}
    facts = {"partition": 0, "ls_offset": 9, "next_offset": 9, **known}
    statistics = json.dumps({"topics": {"in": {"topic": "in", "partitions": {"0": facts}}}})

    def lag() -> dict[TopicPartition, int]:
        client.on_statistics(statistics)
        return dict(stream.lag())

    polled(stream, ("on_assign", 0))
    assert lag() == {source: 0}
    stream.pause([source])
    assert lag() == {source: 0}
    assert polled(stream, Message(0, 2), Message(0, 3)) == []
    assert lag() == {source: 7}
    polled(stream, ("on_revoke", 0))
    assert stream.lag() == {}
    polled(stream, ("on_assign", 0))
    assert lag() == {source: 0}
    monkeypatch.setattr(stream._buffer, "_free", 1)
    polled(stream, Message(0, 2))
    assert list(stream._buffer.paused) == [source]
    assert lag() == {source: 7}


def test_a_lost_connection_shows_although_nothing_is_published(stream: KafkaStream) -> None:
    client: Any = stream._client

    def report(*states: str) -> float | None:
        brokers = {str(number): {"state": state} for number, state in enumerate(states)}
        client.on_statistics(json.dumps({"topics": {}, "brokers": brokers}))
        return stream.unreachable_since

    assert report("UP", "DOWN") is None
    since = report("DOWN", "TRY_CONNECT")
    assert since is not None
    assert report("DOWN", "DOWN") == since
    assert report("DOWN", "UP") is None


def test_a_spare_member_learns_that_it_has_joined_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the broker's protocol, only the statistics say so: it would stay not ready for ever."""
    monkeypatch.setattr(kafka, "Consumer", Client)
    monkeypatch.setattr(kafka_publish, "Producer", Client)
    stream = KafkaStream(
        make_kafka_config(delivery="at_least_once", consumer={"group.protocol": "consumer"})
    )
    owner = Owner()
    stream.subscribe(owner)
    client: Any = stream._client
    away = json.dumps({"topics": {}, "cgrp": {"state": "query-coord"}})
    there = json.dumps({"topics": {}, "cgrp": {"state": "up"}})
    polled(stream, ("on_assign", 0), ("on_lost", 0))
    client.on_statistics(away)
    assert [kind for kind, _ in owner.calls] == ["on_assigned", "on_lost"]
    client.on_statistics(there)
    client.on_statistics(there)
    assert owner.calls[2:] == [("on_assigned", [])]


Configured = Callable[..., KafkaConfig]
Publish = Callable[..., None]


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
        stream.subscribe(Owner())
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
def test_a_member_that_the_group_has_removed_publishes_nothing(
    broker: MockKafka, member: tuple[KafkaStream, Batch], errors: tuple[int, ...]
) -> None:
    stream, held = member
    broker.fail_next(HEARTBEAT, *errors)
    time.sleep(1)  # the client sends heartbeats on its own threads, without a poll
    with pytest.raises(PublishAborted, match="the group has removed this member"):
        stream.publish(held)


def first_record(stream: KafkaStream) -> Record:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for record in stream.poll(1, 0.2):
            return record
    raise AssertionError("nothing was delivered")


def labelled(record: Record) -> Batch:
    outgoing = Outgoing("out", record.key, b"label", ())
    return Batch([outgoing], [NextOffset(record.source, record.offset + 1)])


def test_leaving_the_group_has_a_bound(
    stream: KafkaStream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose ``close`` does not return is abandoned, and the log says so."""
    client: Any = stream._client
    returned = threading.Event()
    monkeypatch.setattr(client, "assignment", lambda: ["in"], raising=False)
    monkeypatch.setattr(client, "close", lambda: returned.wait(20), raising=False)
    monkeypatch.setattr(stream._publisher, "close", lambda: None)
    monkeypatch.setattr(kafka, "_CLOSE_S", 0.05)
    with capture_logs() as logs:
        stream.close()
    returned.set()
    assert [each["event"] for each in logs] == ["stream.close_hangs"]
