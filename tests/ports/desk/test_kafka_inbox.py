"""The inbox on real Kafka: only committed results, from the position that the database holds, and
messages by their places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from desk.errors import StreamFailed
from desk.inbox import InboxReader, Sampling, TextFetcher
from desk.service import queues
from desk.stream.kafka import KafkaResults, KafkaTexts
from desk.stream.port import Place
from tests.support.desk_outbox_process import config_for
from tests.support.desk_results import result
from tests.support.desk_world import DeskWorld
from tests.support.topics import create_topics
from worker.contract.records import InputFormat


class Cluster:
    def __init__(self, servers: str, name: Callable[[str], str]) -> None:
        self.servers, self.input, self.review = servers, name("in"), name("review")
        self.admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        create_topics(servers, (self.input, self.review), 2)
        self.producer = Producer(
            {"bootstrap.servers": servers, "transactional.id": self.input, "log_level": 0}
        )
        self.producer.init_transactions(30)
        self.config = config_for(servers, name("corrections"), name("desk"))

    def publish(self, numbers: range, *, commit: bool = True) -> None:
        """Messages and their results, half in each partition, in one transaction each."""
        self.producer.begin_transaction()
        for n in numbers:
            value = b'{"message": "message number %d"}' % n
            self.producer.produce(self.input, value, partition=n % 2)
        self.producer.flush(30)
        self.producer.commit_transaction(30)
        self.producer.begin_transaction()
        for n in numbers:
            place = {"partition": n % 2, "offset": n // 2}
            value = result(self.input, **place, reasons=["low_confidence"])
            self.producer.produce(self.review, value, b"key-%d" % n, partition=n % 2)
        self.producer.flush(30)
        if commit:
            self.producer.commit_transaction(30)
        else:
            self.producer.abort_transaction(30)


@pytest.fixture
def cluster(bootstrap_servers: str, topic: Callable[[str], str]) -> Cluster:
    return Cluster(bootstrap_servers, topic)


@pytest.fixture
def texts(cluster: Cluster) -> Iterator[KafkaTexts]:
    client = KafkaTexts(cluster.config)
    yield client
    client.close()


@pytest.fixture
def opened(cluster: Cluster) -> Iterator[Callable[[], KafkaResults]]:
    clients: list[KafkaResults] = []

    def new() -> KafkaResults:
        clients.append(KafkaResults(cluster.config))
        return clients[-1]

    yield new
    for client in clients:
        client.close()


def read(world: DeskWorld, cluster: Cluster, results: KafkaResults, count: int) -> None:
    """Read until ``count`` records have come, and a little longer."""
    reader = InboxReader(
        world.database, results, [cluster.review], Sampling("seed", 0, 0, 0), world.clock, batch=7
    )
    came = quiet = 0
    while came < count or quiet < 3:
        taken = reader.run_once(0.5)
        came += taken
        quiet = 0 if taken else quiet + 1
        assert quiet < 60, f"{came} of {count} came"
    assert came == count


def test_committed_results_are_read_once(
    world: DeskWorld, cluster: Cluster, opened: Callable[[], KafkaResults]
) -> None:
    """Three processes in turn: each continues at the position in the database."""
    cluster.publish(range(20))
    read(world, cluster, opened(), 20)
    cluster.publish(range(20, 30), commit=False)
    read(world, cluster, opened(), 0)
    world.clock.move(60)
    cluster.producer.begin_transaction()
    for n in range(10, 15):
        value = result(cluster.input, n, reasons=["low_confidence"])
        cluster.producer.produce(cluster.review, value, partition=0)
    cluster.producer.commit_transaction(30)
    read(world, cluster, opened(), 5)
    assert sum(queues.overview(world.desk).items.values()) == 25


def test_an_inbox_at_the_end_has_no_lag(
    world: DeskWorld, cluster: Cluster, opened: Callable[[], KafkaResults]
) -> None:
    """After the last record come a transaction marker and aborted records, which no reader sees.
    Another process does not read them again, but reads what comes later."""
    cluster.publish(range(10))
    cluster.publish(range(10, 20), commit=False)
    read(world, cluster, opened(), 10)
    world.clock.move(60)
    read(world, cluster, opened(), 0)
    seen = queues.overview(world.desk)
    assert seen.lag == 0
    assert all(each.record_ms is not None for each in seen.reading)
    cluster.publish(range(20, 25))
    read(world, cluster, opened(), 5)


def test_messages_are_found_by_their_places(cluster: Cluster, texts: KafkaTexts) -> None:
    """In any order, near and far, in both partitions; places beyond the log give None."""
    cluster.publish(range(2000))
    wanted = [Place(cluster.input, n % 2, n // 2) for n in (1999, 3, 0, 1000, 998, 4, 2)]
    gone = [Place(cluster.input, 0, 5000), Place(cluster.input, 7, 0), Place("no.topic", 0, 0)]
    found = texts.fetch([*wanted, *gone], 30)
    assert all(found[place] is None for place in gone)
    for place in wanted:
        record: Any = found[place]
        number = place.offset * 2 + place.partition
        assert record.value == b'{"message": "message number %d"}' % number


def test_messages_that_were_deleted_have_expired(
    world: DeskWorld, cluster: Cluster, texts: KafkaTexts, opened: Callable[[], KafkaResults]
) -> None:
    """Below the low watermark the item is closed with the reason."""
    cluster.publish(range(20))
    read(world, cluster, opened(), 20)
    for future in cluster.admin.delete_records([TopicPartition(cluster.input, 0, 4)]).values():
        future.result(30)
    fetcher = TextFetcher(world.database, texts, InputFormat(), world.clock)
    while fetcher.run_once():
        pass
    assert queues.overview(world.desk).items == {"open": 16, "closed": 4}


def test_a_missing_topic_is_reported(
    world: DeskWorld, cluster: Cluster, opened: Callable[[], KafkaResults]
) -> None:
    reader = InboxReader(
        world.database, opened(), ["no.such.topic"], Sampling("seed", 0, 0, 0), world.clock
    )
    with pytest.raises(StreamFailed, match="no such topic: create it"):
        reader.run_once()
