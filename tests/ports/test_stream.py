"""One suite for every stream: what the loop relies on holds for the fake and for real Kafka."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, cast

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer
from confluent_kafka import TopicPartition as KafkaPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from tests.support.processes import wait_until
from tests.support.rig import make_kafka_config
from tests.support.topics import Slowly, create_topics, java_partition, read_all, read_messages
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    StreamFailed,
)
from worker.records.types import Batch, NextOffset, Outgoing, Record, TopicPartition
from worker.stream.fake import FakeStream
from worker.stream.kafka import KafkaStream
from worker.stream.kafka_config import KafkaConfig
from worker.stream.kafka_topics import prepare_topics
from worker.stream.port import Stream
from worker.stream.topics import Topics

PARTITIONS = 2


@dataclass
class Listener:
    """Records its calls."""

    assigned: list[TopicPartition] = field(default_factory=list)
    events: list[tuple[str, tuple[TopicPartition, ...]]] = field(default_factory=list)

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned.extend(partitions)
        self.events.append(("assigned", tuple(partitions)))

    def on_positioned(self, partitions: Sequence[TopicPartition]) -> None:
        pass

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        self._gone("revoked", partitions)

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        self._gone("lost", partitions)

    def _gone(self, kind: str, partitions: Sequence[TopicPartition]) -> None:
        self.events.append((kind, tuple(partitions)))
        self.assigned = [partition for partition in self.assigned if partition not in partitions]


class Bench(Protocol):
    """A stream, with ways to feed it and to see what other clients see."""

    topics: Topics

    def open(self) -> Stream: ...

    def subscribe(self, stream: Stream, listener: Listener) -> None: ...

    def send(self, value: bytes | None, partition: int = 0, key: bytes | None = None) -> None: ...

    def visible(self, topic: str) -> list[bytes | None]: ...

    def committed(self, partition: int) -> int | None: ...


class FakeBench:
    def __init__(self, names: Topics) -> None:
        self.topics = names
        self.stream = FakeStream(names.inputs[0], PARTITIONS)

    def open(self) -> FakeStream:
        return self.stream

    def subscribe(self, stream: Stream, listener: Listener) -> None:
        stream.subscribe(listener)
        self.stream.assign(*range(PARTITIONS))

    def send(self, value: bytes | None, partition: int = 0, key: bytes | None = None) -> None:
        self.stream.add(value, partition, key)

    def visible(self, topic: str) -> list[bytes | None]:
        return [output.value for output in self.stream.outputs if output.topic == topic]

    def committed(self, partition: int) -> int | None:
        return self.stream.committed.get(self.stream.sources[partition])


class KafkaBench:
    def __init__(self, servers: str, names: Topics, **settings: object) -> None:
        self.servers = servers
        self.topics = names
        self.config = kafka_config(servers, names, **settings)
        self._opened: list[KafkaStream] = []
        self._producer = Producer({"bootstrap.servers": servers, "log_level": 0})

    def open(self, *, prepared: bool = True) -> KafkaStream:
        if prepared:
            self.config = prepare_topics(self.config)
        stream = KafkaStream(self.config)
        self._opened.append(stream)
        return stream

    def subscribe(self, stream: Stream, listener: Listener) -> None:
        stream.subscribe(listener)
        poll_until(lambda: len(listener.assigned) == PARTITIONS, stream)

    def send(self, value: bytes | None, partition: int = 0, key: bytes | None = None) -> None:
        self._producer.produce(self.topics.inputs[0], value=value, partition=partition, key=key)
        assert self._producer.flush(20) == 0

    def visible(self, topic: str) -> list[bytes | None]:
        return read_all(self.servers, topic)

    def committed(self, partition: int) -> int | None:
        consumer = Consumer(
            {"bootstrap.servers": self.servers, "group.id": str(self.config.consumer["group.id"])}
        )
        [found] = consumer.committed([KafkaPartition(self.topics.inputs[0], partition)], timeout=20)
        consumer.close()
        return found.offset if found.offset >= 0 else None

    def close(self) -> None:
        for stream in self._opened:
            stream.close()


def kafka_config(servers: str, names: Topics, **settings: object) -> KafkaConfig:
    defaults: dict[str, object] = {
        "topics": names,
        "group_id": names.inputs[0],
        "transactional_id": names.inputs[0],
        "delivery": "exactly_once",
        "create_topics": True,
        "topic_partitions": PARTITIONS,
        "consumer": {"session.timeout.ms": 6000, "statistics.interval.ms": 200},
    }
    return make_kafka_config(bootstrap_servers=servers, **{**defaults, **settings})


def fetch(stream: Stream, count: int, timeout_s: float = 30) -> list[Record]:
    """Poll until ``count`` records have come."""
    records: list[Record] = []
    until = time.monotonic() + timeout_s
    while len(records) < count and time.monotonic() < until:
        records.extend(stream.poll(count - len(records), 0.2))
    return records


def batch(records: Sequence[Record], topic: str, value: bytes = b"label") -> Batch:
    """One output for each record, with the offsets that account for them."""
    last = {record.source: record.offset + 1 for record in records}
    return Batch(
        [Outgoing(topic, record.key, value, record.headers) for record in records],
        [NextOffset(source, offset) for source, offset in last.items()],
    )


@pytest.fixture
def names(topic: Callable[[str], str]) -> Topics:
    return Topics((topic("in"),), topic("out"), topic("review"), topic("dead"))


@pytest.fixture(params=["fake", "kafka", "kafka-consumer-protocol", "kafka-at-least-once"])
def bench(request: pytest.FixtureRequest, names: Topics) -> Iterator[Bench]:
    if request.param == "fake":
        yield FakeBench(names)
        return
    settings: dict[str, dict[str, object]] = {
        "kafka": {},
        "kafka-consumer-protocol": {
            "consumer": {"group.protocol": "consumer", "statistics.interval.ms": 200}
        },
        "kafka-at-least-once": {"delivery": "at_least_once"},
    }
    servers = request.getfixturevalue("bootstrap_servers")
    made = KafkaBench(servers, names, **settings[request.param])
    yield made
    made.close()


def test_records_come_in_order_with_their_bytes(bench: Bench) -> None:
    values = [b"one", None, b"", b"\xff\x00raw", "zwölf".encode()]
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    for value in values:
        bench.send(value, partition=1, key=b"\x00key")
    records = fetch(stream, len(values))
    assert [record.value for record in records] == values
    assert [record.offset for record in records] == list(range(len(values)))
    assert {record.source for record in records} == {TopicPartition(bench.topics.inputs[0], 1)}
    assert {record.key for record in records} == {b"\x00key"}


def test_outputs_and_offsets_are_published_together(bench: Bench) -> None:
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    for number in range(6):
        bench.send(b"%d" % number, partition=number % 2)
    records = fetch(stream, 6)
    stream.publish(batch(records, bench.topics.output))
    assert bench.visible(bench.topics.output) == [b"label"] * 6
    assert [bench.committed(0), bench.committed(1)] == [3, 3]
    committed = stream.resolve_unknown_commit(listener.assigned)
    assert {(place.source.partition, place.offset) for place in committed} == {(0, 3), (1, 3)}
    bench.send(None)
    [skipped] = fetch(stream, 1)
    stream.publish(Batch([], [NextOffset(skipped.source, 4)]))
    assert bench.committed(0) == 4
    assert len(bench.visible(bench.topics.output)) == 6


def test_a_paused_partition_delivers_nothing_and_loses_nothing(bench: Bench) -> None:
    """Resume continues at the very next record."""
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    bench.send(b"before")
    assert [record.value for record in fetch(stream, 1)] == [b"before"]
    stream.pause(listener.assigned)
    bench.send(b"during")
    assert fetch(stream, 1, timeout_s=1) == []
    stream.resume(listener.assigned)
    bench.send(b"after")
    assert [record.value for record in fetch(stream, 2)] == [b"during", b"after"]


def test_a_partition_continues_at_the_sought_offset(bench: Bench) -> None:
    """Records before it are neither delivered nor counted as lag, even while the partition is
    paused."""
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    for number in range(100):
        bench.send(str(number).encode(), partition=0)
    [first] = fetch(stream, 1)
    stream.publish(Batch([], [NextOffset(first.source, 60)]))
    stream.seek(first.source, 60)
    assert [record.offset for record in fetch(stream, 10)] == list(range(60, 70))
    stream.publish(Batch([], [NextOffset(first.source, 80)]))
    stream.pause([first.source])
    stream.seek(first.source, 80)
    stream.resume([first.source])
    assert [record.offset for record in fetch(stream, 20)] == list(range(80, 100))
    wait_for_lag(stream, {source: 20 * (source == first.source) for source in listener.assigned})


def test_nothing_is_fetched_beyond_a_record_that_stops_it(bench: Bench) -> None:
    """Its partition is paused before more of it comes, and nothing is lost."""
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    for number in range(6):
        bench.send(str(number).encode(), partition=0)
    stops = {b"1", b"2"}
    seen: list[bytes | None] = []
    until = time.monotonic() + 30
    while len(seen) < 6 and time.monotonic() < until:
        got = stream.poll(10, 0.2, stop_after=lambda record: record.value in stops)
        assert not stops & {record.value for record in got[:-1]}
        seen += [record.value for record in got]
        if got and got[-1].value in stops:
            stream.pause([got[-1].source])
            assert [record.value for record in stream.poll(10, 0.3)] == []
            stream.resume([got[-1].source])
    assert seen == [str(number).encode() for number in range(6)]


def test_many_publishes_follow_each_other(bench: Bench) -> None:
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    for number in range(20):
        bench.send(b"%d" % number)
    few = fetch(stream, 7)
    assert len(few) == 7, "more than were asked for"
    for record in [*few, *fetch(stream, 13)]:
        stream.publish(batch([record], bench.topics.output, record.value or b""))
    found = sorted(int(value or b"-1") for value in bench.visible(bench.topics.output))
    assert found == list(range(20))
    assert bench.committed(0) == 20


def test_the_lag_grows_with_the_input_and_ends_at_zero(bench: Bench) -> None:
    """Delivered but unpublished records count, without a request to the broker."""
    stream, listener = bench.open(), Listener()
    bench.subscribe(stream, listener)
    first, second = sorted(listener.assigned, key=lambda source: source.partition)
    wait_for_lag(stream, {first: 0, second: 0})
    for _ in range(3):
        bench.send(b"x", partition=0)
    records = fetch(stream, 3)
    wait_for_lag(stream, {first: 3, second: 0})
    assert stream.oldest_ms() == {first: records[0].timestamp_ms}
    stream.publish(batch(records[:2], bench.topics.output))
    wait_for_lag(stream, {first: 1, second: 0})
    assert stream.oldest_ms() == {first: records[2].timestamp_ms}
    stream.publish(batch(records[2:], bench.topics.output))
    wait_for_lag(stream, {first: 0, second: 0})
    assert stream.oldest_ms() == {}


def wait_for_lag(stream: Stream, expected: dict[TopicPartition, int]) -> None:
    poll_until(lambda: stream.lag() == expected, stream)


def poll_until(reached: Callable[[], object], *streams: Stream, timeout_s: float = 40) -> None:
    until = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < until
        for stream in streams:
            assert not stream.poll(0, 0.05)


def poll_for(stream: Stream, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stream.poll(1, 0.2)


# What can go wrong only on a real cluster.


@pytest.fixture
def make_kafka(bootstrap_servers: str, names: Topics) -> Iterator[Callable[..., KafkaBench]]:
    """Closes all clients at the end: an open one would hang the run."""
    made: list[KafkaBench] = []

    def make(**settings: object) -> KafkaBench:
        made.append(KafkaBench(bootstrap_servers, names, **settings))
        return made[-1]

    yield make
    for bench in made:
        bench.close()


@pytest.fixture
def kafka(make_kafka: Callable[..., KafkaBench]) -> KafkaBench:
    return make_kafka()


def configure(kafka: KafkaBench, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    for future in admin.incremental_alter_configs([resource]).values():
        future.result(timeout=20)


def property_of(kafka: KafkaBench, topic: str, name: str) -> str:
    """A property of a topic; a change takes effect a moment later."""
    resource = ConfigResource(ResourceType.TOPIC, topic)
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    found = admin.describe_configs([resource])[resource].result(timeout=20)
    return str(found[name].value)


def test_each_topic_has_its_own_limit(kafka: KafkaBench) -> None:
    """A record too large for the output may fit the dead-letter topic."""
    stream, listener = kafka.open(), Listener()
    configure(kafka, kafka.topics.output, "max.message.bytes", "100000")
    stream.close()
    poll_until(lambda: property_of(kafka, kafka.topics.output, "max.message.bytes") == "100000")
    stream = kafka.open()
    kafka.subscribe(stream, listener)
    kafka.send(b"x")
    kafka.send(b"y")
    good = batch(fetch(stream, 2), kafka.topics.output)
    large = os.urandom(200_000)
    output, dead = (
        Outgoing(topic, None, large) for topic in (kafka.topics.output, kafka.topics.dead_letter)
    )
    with pytest.raises(RecordTooLarge) as caught:
        stream.publish(Batch([dead, output], good.next_offsets))
    assert caught.value.indexes == (1,)
    stream.publish(Batch([dead, good.outputs[1]], good.next_offsets))
    assert kafka.visible(kafka.topics.dead_letter) == [large]


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_record_that_only_the_broker_finds_too_large(
    make_kafka: Callable[..., KafkaBench], names: Topics, delivery: str
) -> None:
    """Also if the topic's limit is unknown, because it may not be read or has changed."""
    kafka = make_kafka(producer={"message.max.bytes": 10_000_000}, delivery=delivery)
    prepare_topics(kafka.config)
    stream, listener = kafka.open(prepared=False), Listener()
    kafka.subscribe(stream, listener)
    for _ in range(3):
        kafka.send(b"x")
    good = batch(fetch(stream, 3), names.output)
    large = Outgoing(names.output, None, os.urandom(2_000_000))
    bad = Batch([good.outputs[0], large, good.outputs[2]], good.next_offsets)
    indexes: tuple[int, ...] = ()
    for _ in range(10):  # librdkafka may report a follow-up error as the reason: try once more
        try:
            stream.publish(bad)
        except RecordTooLarge as error:
            indexes = error.indexes
            break
        except PublishAborted:
            continue
    assert indexes == (1,)
    if delivery == "exactly_once":
        assert kafka.visible(names.output) == []
    stream.publish(good)
    if delivery == "exactly_once":
        assert kafka.visible(names.output) == [b"label"] * 3


@pytest.mark.parametrize("delivery", ["exactly_once", "at_least_once"])
def test_a_large_record_that_fits_compressed_is_published(
    make_kafka: Callable[..., KafkaBench], names: Topics, delivery: str
) -> None:
    """The broker's limit applies to compressed records. Next to it is one that does not fit."""
    kafka = make_kafka(delivery=delivery)
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    for _ in range(3):
        kafka.send(b"x")
    records = fetch(stream, 3)
    good = batch(records, names.output)
    text = b"Where is my parcel? It has been two weeks. " * 50_000  # 2 MB
    fits = Outgoing(names.dead_letter, None, text)
    stream.publish(Batch([fits], [NextOffset(records[0].source, 1)]))
    assert kafka.visible(names.dead_letter) == [text]
    too_large = Outgoing(names.dead_letter, None, os.urandom(2_000_000))
    huge = Outgoing(names.dead_letter, None, bytes(80_000_000))  # more than it is worth sending
    outputs = [good.outputs[0], fits, too_large, good.outputs[1]]
    with pytest.raises(RecordTooLarge) as caught:
        stream.publish(Batch(outputs, good.next_offsets))
    assert caught.value.indexes == (2,)
    with pytest.raises(RecordTooLarge) as caught:
        stream.publish(Batch([fits, huge], good.next_offsets))
    assert caught.value.indexes == (1,)
    stream.publish(Batch([good.outputs[0], fits, good.outputs[1]], good.next_offsets))
    if delivery == "exactly_once":
        assert kafka.visible(names.dead_letter) == [text, text]


def test_a_record_that_is_refused_while_others_are_queued_is_found(kafka: KafkaBench) -> None:
    """Then the client takes no more records, and its error does not name the refused one."""
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    for _ in range(3):
        kafka.send(b"x")
    good = batch(fetch(stream, 3), kafka.topics.output)
    outputs = Slowly(good.outputs)
    outputs[1] = Outgoing(kafka.topics.dead_letter, None, os.urandom(2_000_000))
    with pytest.raises(RecordTooLarge) as caught:
        stream.publish(Batch(outputs, good.next_offsets))
    assert caught.value.indexes == (1,)
    outputs[1] = Outgoing(kafka.topics.dead_letter, None, None)
    stream.publish(Batch(outputs, good.next_offsets))
    assert kafka.visible(kafka.topics.output) == [b"label"] * 2
    assert kafka.visible(kafka.topics.dead_letter) == [None]


def test_every_record_that_is_too_large_is_found(kafka: KafkaBench) -> None:
    """The others are published, and no other record is blamed."""
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    for _ in range(60):
        kafka.send(b"x")
    good = batch(fetch(stream, 60), kafka.topics.output)
    outputs = list(good.outputs)
    wanted = set(range(5, 60, 10))
    for index in wanted:
        outputs[index] = Outgoing(kafka.topics.dead_letter, None, os.urandom(2_000_000))
    found: set[int] = set()
    for _ in range(20):
        try:
            stream.publish(Batch(outputs, good.next_offsets))
            break
        except RecordTooLarge as error:
            found.update(error.indexes)
            for index in error.indexes:
                outputs[index] = Outgoing(kafka.topics.dead_letter, None, None)
        except PublishAborted:
            continue
    assert found == wanted
    assert len(kafka.visible(kafka.topics.output)) == 54
    assert kafka.visible(kafka.topics.dead_letter) == [None] * 6


@pytest.mark.parametrize("prepared", [True, False])
@pytest.mark.parametrize("bad", [{17}, set(range(5, 60, 10)) | {6}])
def test_every_record_that_a_compacted_topic_refuses_is_found(
    kafka: KafkaBench, bad: set[int], prepared: bool
) -> None:
    """At once if the topic's policy is known; otherwise no record is blamed without certainty."""
    prepare_topics(kafka.config)
    configure(kafka, kafka.topics.output, "cleanup.policy", "compact")
    poll_until(lambda: property_of(kafka, kafka.topics.output, "cleanup.policy") == "compact")
    stream, listener = kafka.open(prepared=prepared), Listener()
    kafka.subscribe(stream, listener)
    for _ in range(60):
        kafka.send(b"x")
    good = batch(fetch(stream, 60), kafka.topics.output)
    outputs = [
        replace(each, key=None if at in bad else b"k") for at, each in enumerate(good.outputs)
    ]
    with pytest.raises(OutputRefused, match="a compacted topic needs a key") as caught:
        stream.publish(Batch(outputs, good.next_offsets))
    if caught.value.certain:
        assert bad.issuperset(caught.value.indexes)
    else:
        assert not caught.value.indexes or bad.intersection(caught.value.indexes)
    if prepared:
        assert set(caught.value.indexes) == bad
    accepted = [each for at, each in enumerate(outputs) if at not in bad]
    stream.publish(Batch(accepted, good.next_offsets))
    assert len(kafka.visible(kafka.topics.output)) == 60 - len(bad)


def test_a_second_worker_under_the_same_name_fences_the_first(kafka: KafkaBench) -> None:
    """Two producers share a transactional.id."""
    first, listener = kafka.open(), Listener()
    kafka.subscribe(first, listener)
    kafka.send(b"x")
    records = fetch(first, 1)
    second = kafka.open()
    second.subscribe(Listener())
    with pytest.raises(StreamFailed, match="another worker has taken"):
        first.publish(batch(records, kafka.topics.output))
    assert kafka.visible(kafka.topics.output) == []


def test_a_worker_continues_after_a_pause_longer_than_a_transaction(
    make_kafka: Callable[..., KafkaBench], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker aborted its transaction and fenced it only for that: no other worker has its
    id."""
    settings = {"transaction.timeout.ms": 2000}
    kafka = make_kafka(producer=settings, publish_timeout_s=1.5)
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    kafka.send(b"x")
    records = fetch(stream, 1)
    with monkeypatch.context() as patched:
        flush = stream._publisher._flush

        def away(client: Producer, until: float) -> None:
            flush(client, until)
            time.sleep(6)  # like a stopped process

        patched.setattr(stream._publisher, "_flush", away)
        with pytest.raises(PublishAborted):
            stream.publish(batch(records, kafka.topics.output, b"away"))
    assert stream.resolve_unknown_commit(listener.assigned) == []
    stream.publish(batch(records, kafka.topics.output, b"back"))
    assert kafka.visible(kafka.topics.output) == [b"back"]
    assert kafka.committed(0) == 1


def test_partitions_move_and_the_old_owner_publishes_first(
    make_kafka: Callable[..., KafkaBench], names: Topics
) -> None:
    """The new worker starts at the committed offset, once the old one lets go."""
    first = make_kafka(transactional_id=f"{names.inputs[0]}-1")
    second = make_kafka(transactional_id=f"{names.inputs[0]}-2")
    stream, listener = first.open(), Listener()
    first.subscribe(stream, listener)
    for partition in (0, 1):
        for number in range(3):
            first.send(b"%d" % number, partition)
    records = fetch(stream, 6)
    stream.publish(batch(records, names.output))
    joining, other = second.open(), Listener()
    joining.subscribe(other)
    until = time.monotonic() + 30
    while not (len(other.assigned) == 1 and len(listener.assigned) == 1):
        assert time.monotonic() < until
        stream.poll(0, 0.1)
        assert not joining.poll(10, 0.1), "the new owner read committed records"
    kinds = [kind for kind, partitions in listener.events if partitions]
    assert kinds == ["assigned", "revoked"]
    # A revoked partition has no lag any more.
    poll_until(lambda: stream.lag() == dict.fromkeys(listener.assigned, 0), stream, joining)


def test_a_paused_partition_is_delivered_after_it_left_and_returned(
    make_kafka: Callable[..., KafkaBench], names: Topics
) -> None:
    """A pause ends with the assignment."""
    quick = {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
    first = make_kafka(transactional_id=f"{names.inputs[0]}-1", consumer=quick)
    second = make_kafka(transactional_id=f"{names.inputs[0]}-2", consumer=quick)
    stream, listener = first.open(), Listener()
    first.subscribe(stream, listener)
    stream.pause(listener.assigned)
    passing, other = second.open(), Listener()
    passing.subscribe(other)
    poll_until(lambda: len(other.assigned) == len(listener.assigned) == 1, stream, passing)
    stream.resume(listener.assigned)
    passing.close()
    poll_until(lambda: len(listener.assigned) == PARTITIONS, stream)
    for partition in range(PARTITIONS):
        first.send(b"1", partition)
    assert len(fetch(stream, PARTITIONS)) == PARTITIONS


def test_the_markers_of_a_transactional_sender_leave_no_lag(kafka: KafkaBench) -> None:
    """The end of the log is a marker, which nobody reads. An open transaction is not counted."""
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    first, second = sorted(listener.assigned, key=lambda source: source.partition)
    sender = Producer({"bootstrap.servers": kafka.servers, "transactional.id": f"{first.topic}-s"})
    sender.init_transactions(20)
    for _ in range(2):
        sender.begin_transaction()
        sender.produce(first.topic, b"x", partition=0)
        sender.commit_transaction(20)
    records = fetch(stream, 2)
    stream.publish(batch(records, kafka.topics.output))
    wait_for_lag(stream, {first: 0, second: 0})
    ends = stream.take_ends()
    assert ends == {first: 4}
    stream.publish(Batch((), [NextOffset(first, ends[first])]))
    assert kafka.committed(0) == 4
    sender.begin_transaction()
    sender.produce(first.topic, b"y", partition=0)
    assert sender.flush(20) == 0
    assert fetch(stream, 1, timeout_s=2) == []
    wait_for_lag(stream, {first: 0, second: 0})
    sender.commit_transaction(20)
    [record] = fetch(stream, 1)
    wait_for_lag(stream, {first: 2, second: 0})  # the record, and the marker after it
    stream.publish(batch([record], kafka.topics.output))
    wait_for_lag(stream, {first: 0, second: 0})


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_a_spare_worker_hears_that_it_has_joined_and_leaves_at_once(
    make_kafka: Callable[..., KafkaBench], names: Topics, protocol: str
) -> None:
    """Otherwise it would never be ready, and the next rebalance would wait 45 s for the end of its
    session."""
    consumer = {"group.protocol": protocol, "statistics.interval.ms": 200}
    benches = [
        make_kafka(transactional_id=f"{names.inputs[0]}-{n}", consumer=consumer)
        for n in range(PARTITIONS + 1)
    ]
    pairs = [(bench.open(), Listener()) for bench in benches]
    for stream, listener in pairs:
        stream.subscribe(listener)
    poll_until(
        lambda: (
            all(listener.events for _, listener in pairs)
            and sum(len(listener.assigned) == 1 for _, listener in pairs) == PARTITIONS
        ),
        *(stream for stream, _ in pairs),
    )
    [spare] = [stream for stream, listener in pairs if not listener.assigned]
    spare.close()
    group = str(benches[0].config.consumer["group.id"])
    admin = AdminClient({"bootstrap.servers": benches[0].servers})

    def members() -> int:
        return len(admin.describe_consumer_groups([group])[group].result(timeout=10).members)

    wait_until(lambda: members() == PARTITIONS, 10)


def test_a_worker_that_lost_its_partitions_hears_that_it_is_a_spare(
    make_kafka: Callable[..., KafkaBench], names: Topics
) -> None:
    """With the broker's protocol a member without partitions gets no callback: it would stay not
    ready until it got one."""
    consumer = {"group.protocol": "consumer", "statistics.interval.ms": 200}
    slow = make_kafka(transactional_id="s0", consumer={**consumer, "max.poll.interval.ms": 4000})
    stream, listener = slow.open(), Listener()
    slow.subscribe(stream, listener)
    heirs = []
    for number in (1, 2):
        heir = make_kafka(transactional_id=f"s{number}", consumer=consumer).open()
        heirs.append((heir, Listener()))
        heir.subscribe(heirs[-1][1])
    streams = [heir for heir, _ in heirs]  # the first one hangs and does not poll
    poll_until(lambda: all(heard.assigned for _, heard in heirs), *streams, timeout_s=150)
    poll_until(
        lambda: "lost" in dict(listener.events) and listener.events[-1] == ("assigned", ()),
        stream,
        *streams,
    )


def test_a_failed_offset_commit_is_repeated_without_its_outputs(
    make_kafka: Callable[..., KafkaBench],
) -> None:
    """At least once, but exactly once if only the commit failed."""
    kafka = make_kafka(delivery="at_least_once")
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    kafka.send(b"x")
    records = fetch(stream, 1)
    client = stream._client

    class FirstCommitFails:
        def __getattr__(self, name: str) -> object:
            return getattr(client, name)

        def commit(self, **_: object) -> None:
            stream._client = client
            raise KafkaException(KafkaError(KafkaError.REQUEST_TIMED_OUT))

    stream._client = cast("Consumer", FirstCommitFails())
    with pytest.raises(OutcomeUnknown):
        stream.publish(batch(records, kafka.topics.output))
    assert kafka.committed(0) is None
    [source] = {record.source for record in records}
    assert stream.resolve_unknown_commit([source]) == [NextOffset(source, 1)]
    assert kafka.committed(0) == 1
    assert kafka.visible(kafka.topics.output) == [b"label"]


def test_a_zombies_offsets_are_refused(
    make_kafka: Callable[..., KafkaBench], names: Topics
) -> None:
    """A worker that was silent too long cannot publish after its successor."""
    slow = {"session.timeout.ms": 3000, "max.poll.interval.ms": 3000}
    first = make_kafka(transactional_id="z1", consumer=slow)
    stream, listener = first.open(), Listener()
    first.subscribe(stream, listener)
    first.send(b"x")
    records = fetch(stream, 1)
    second = make_kafka(transactional_id="z2")
    heir, other = second.open(), Listener()
    heir.subscribe(other)
    until = time.monotonic() + 40
    while len(other.assigned) < PARTITIONS:  # the first worker hangs and does not poll
        assert time.monotonic() < until
        got = heir.poll(1, 0.2)
    again = list(got) or fetch(heir, 1)
    assert [record.value for record in again] == [b"x"]
    heir.publish(batch(again, names.output, b"heir"))
    with pytest.raises(PublishAborted):
        stream.publish(batch(records, names.output, b"zombie"))
    assert second.visible(names.output) == [b"heir"]
    until = time.monotonic() + 20
    while listener.assigned and time.monotonic() < until:
        stream.poll(0, 0.1)
    assert listener.events[-1][0] == "lost"


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_topics_by_name_and_by_pattern_are_read_together(
    make_kafka: Callable[..., KafkaBench], names: Topics, protocol: str
) -> None:
    """A new topic is read too, and a deleted one that matched the pattern is not an error."""
    servers = make_kafka().servers
    mail = [f"{names.inputs[0]}.mail.{number}" for number in range(3)]

    create_topics(servers, mail[:2])
    pattern = rf"^{names.inputs[0]}\.mail\..*"
    both = Topics((names.inputs[0], pattern), names.output, None, names.dead_letter)
    consumer = {"topic.metadata.refresh.interval.ms": 500, "statistics.interval.ms": 200}
    kafka = make_kafka(
        topics=both,
        group_id=f"{names.inputs[0]}.{protocol}",
        consumer={**consumer, "group.protocol": protocol},
    )
    kafka.config = prepare_topics(kafka.config)
    stream, listener = KafkaStream(kafka.config), Listener()
    stream.subscribe(listener)
    kafka.send(b"in")
    sender = Producer({"bootstrap.servers": kafka.servers})
    try:
        for topic in mail[:2]:
            sender.produce(topic, topic.encode())
        assert sender.flush(20) == 0
        records = fetch(stream, 3)
        assert {record.value for record in records} == {b"in", *(t.encode() for t in mail[:2])}
        create_topics(servers, [mail[2]])
        sender.produce(mail[2], b"later")
        assert sender.flush(20) == 0
        later = fetch(stream, 1)
        assert [record.source.topic for record in later] == [mail[2]]
        stream.publish(batch([*records, *later], names.output))
        assert stream.resolve_unknown_commit(listener.assigned)
        admin = AdminClient({"bootstrap.servers": servers})
        for future in admin.delete_topics([mail[0]]).values():
            future.result(timeout=20)
        poll_for(stream, 3)
        sender.produce(mail[1], b"still there")
        assert sender.flush(20) == 0
        assert [record.value for record in fetch(stream, 1)] == [b"still there"]
    finally:
        stream.close()


def test_the_worker_ends_if_its_pattern_matches_its_results(kafka: KafkaBench) -> None:
    """Even if the client interprets a pattern differently, results are not labelled again."""
    kafka.config = prepare_topics(kafka.config)
    fed = replace(kafka.topics, inputs=(f"^{re.escape(kafka.topics.output)}$",))
    stream = KafkaStream(replace(kafka.config, topics=fed))
    stream.subscribe(Listener())
    try:
        with pytest.raises(StreamFailed, match="it would read its own results"):
            poll_for(stream, 30)
    finally:
        stream.close()


def test_topics_are_created_when_the_settings_say_so(bootstrap_servers: str, names: Topics) -> None:
    """Everything that a worker needs to know about them is known, although the broker hears of them
    a moment after the controller has created them (6 of 60 starts on a quiet machine asked too
    early)."""
    names = replace(names, retry=f"{names.inputs[0]}.retry")
    config = prepare_topics(kafka_config(bootstrap_servers, names))
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    found = admin.list_topics(timeout=20).topics
    made = {name: len(found[name].partitions) for name in (names.inputs[0], *names.sinks)}
    # More partitions of the retry topic would be assigned in exchange for the input's.
    assert made == dict.fromkeys(made, PARTITIONS) | {names.retry: 1}
    assert int(config.producer["message.max.bytes"]) > 1_000_000
    assert {*config.max_record_bytes} == {*names.sinks}
    assert {*config.retention_s} == {*names.inputs}


def test_a_deleted_input_topic_ends_the_worker(make_kafka: Callable[..., KafkaBench]) -> None:
    sooner = {
        "topic.metadata.refresh.interval.ms": 500,
        "topic.metadata.propagation.max.ms": 1000,
    }
    kafka = make_kafka(consumer=sooner)
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    admin = AdminClient({"bootstrap.servers": kafka.servers})
    for future in admin.delete_topics([kafka.topics.inputs[0]]).values():
        future.result(timeout=20)
    with pytest.raises(StreamFailed, match="topic does not exist any more"):
        poll_for(stream, 60)


def test_results_have_the_time_of_writing_and_javas_partition(kafka: KafkaBench) -> None:
    """So a topic can be joined with another by key."""
    stream, listener = kafka.open(), Listener()
    kafka.subscribe(stream, listener)
    kafka.send(b"x", partition=0)
    [record] = fetch(stream, 1)
    before_ms = int(time.time() * 1000) - 5
    keys = (b"customer-7", b"\xff\x00", b"k" * 33)
    outputs = [Outgoing(kafka.topics.output, key, value) for key in keys for value in (b"v", None)]
    stream.publish(Batch(outputs, [NextOffset(record.source, 1)]))
    found = read_messages(kafka.servers, kafka.topics.output)
    assert {(each.partition(), each.key()) for each in found} == {
        (java_partition(key, PARTITIONS), key) for key in keys
    }
    assert [each.value() for each in found if each.key() == keys[0]] == [b"v", None]
    assert all(each.timestamp()[1] >= before_ms for each in found)


def test_without_an_offset_the_worker_ends_if_configured(
    make_kafka: Callable[..., KafkaBench],
) -> None:
    """With ``auto.offset.reset=error``."""
    kafka = make_kafka(consumer={"auto.offset.reset": "error", "session.timeout.ms": 6000})
    stream = kafka.open()
    stream.subscribe(Listener())
    with pytest.raises(StreamFailed, match="the group has no committed offset"):
        poll_for(stream, 30)
