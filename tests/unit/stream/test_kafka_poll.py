"""A rebalance in the middle of the Kafka edge's poll, on a client made of a script."""

import json
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import TopicPartition as KafkaPartition

from tests.support.policies import make_kafka_config
from worker.records.types import TopicPartition
from worker.stream import kafka_consumer, kafka_producer
from worker.stream.kafka import KafkaStream


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
    monkeypatch.setattr(kafka_producer, "Producer", Client)
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
    monkeypatch.setattr(kafka_producer, "Producer", Client)
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
