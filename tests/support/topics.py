"""Topics for tests: create, read with a separate client, and Java's choice of partition."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from worker.contract.records import Correction, Retraction, read_correction

T = TypeVar("T")

_SETTLED_S = 3.0


class Slowly(list[T]):
    """Records to publish: comes to the last one when the broker has judged those before it."""

    def __iter__(self) -> Iterator[T]:
        for at in range(len(self)):
            if at == len(self) - 1:
                time.sleep(1)
            yield self[at]


def topic_settings(servers: str, group: str, topics: Mapping[str, str]) -> dict[str, str]:
    """The worker's settings for topics by short name: in, out, review, dead, retry."""
    names = {"in": "input_topics", "out": "output_topic", "review": "review_topic",
             "dead": "dead_letter_topic", "retry": "retry_topic"}  # fmt: skip
    return {
        "kafka.bootstrap_servers": servers,
        "kafka.group_id": group,
        **{f"kafka.{names[short]}": topic for short, topic in topics.items()},
    }


def create_topics(servers: str, names: Iterable[str], partitions: int = 1) -> None:
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    new = [NewTopic(name, partitions, 1) for name in names]
    for future in admin.create_topics(new).values():
        future.result(timeout=60)


def read_all(servers: str, topic: str) -> list[bytes | None]:
    """The values of all committed records of a topic."""
    return [record.value() for record in read_messages(servers, topic)]


def read_corrections(servers: str, topic: str) -> list[Correction]:
    """Return the corrections of a topic that has nothing else."""
    records = [read_correction(value) for value in read_all(servers, topic)]
    assert not [each for each in records if isinstance(each, Retraction)]
    return [each for each in records if isinstance(each, Correction)]


def labels_of(records: Iterable[Correction | Retraction]) -> dict[str, str]:
    """Return the reviewers' labels by id, as a router knows them (docs/records.md)."""
    known: dict[str, str] = {}
    for record in records:
        if isinstance(record, Correction):
            known[record.id] = record.label
        else:
            known.pop(record.id, None)
    return known


def read_messages(servers: str, topic: str) -> list[Message]:
    """All committed records of a topic. A commit is answered before the topic has its marker, so
    the end of an open transaction is waited for, within ``_SETTLED_S``."""
    written = _ends(servers, topic)
    until = time.monotonic() + _SETTLED_S
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "reader",
            "isolation.level": "read_committed",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
            "log_level": 0,
        }
    )
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, 0) for number in partitions])
    found: list[Message] = []
    ended: dict[int | None, int] = {}
    while len(ended) < len(partitions) or (
        time.monotonic() < until
        and any(end < written[at] for at, end in ended.items() if at in written)
    ):
        message = consumer.poll(20 if len(ended) < len(partitions) else 0.1)
        if message is None:
            assert len(ended) == len(partitions)
        elif message.error():
            ended[message.partition()] = message.offset() or 0
        else:
            found.append(message)
    consumer.close()
    return found


def _ends(servers: str, topic: str) -> dict[int | None, int]:
    """The end of each partition, open transactions included."""
    consumer = Consumer(
        {
            "bootstrap.servers": servers,
            "group.id": "reader",
            "isolation.level": "read_uncommitted",
            "log_level": 0,
        }
    )
    partitions = consumer.list_topics(topic, timeout=20).topics[topic].partitions
    ends = {
        number: consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)[1]
        for number in partitions
    }
    consumer.close()
    return dict(ends)


# The hash by which Java clients choose a key's partition, implemented independently of librdkafka.
#
# After Austin Appleby's MurmurHash2 (32 bits, seed 0x9747b28c), as in Kafka's ``Utils.murmur2`` and
# ``BuiltInPartitioner.partitionForKey``.


_MASK = 0xFFFFFFFF
_M = 0x5BD1E995


def murmur2(key: bytes) -> int:
    """The hash as Java has it: a signed 32-bit number."""
    hashed = 0x9747B28C ^ len(key)
    whole = len(key) - len(key) % 4
    for at in range(0, whole, 4):
        block = int.from_bytes(key[at : at + 4], "little") * _M & _MASK
        block = (block ^ (block >> 24)) * _M & _MASK
        hashed = (hashed * _M & _MASK) ^ block
    if rest := key[whole:]:
        hashed = (hashed ^ int.from_bytes(rest, "little")) * _M & _MASK
    hashed = (hashed ^ (hashed >> 13)) * _M & _MASK
    hashed ^= hashed >> 15
    return hashed - (1 << 32) if hashed >> 31 else hashed


def java_partition(key: bytes, partitions: int) -> int:
    """The partition in which a Java producer puts a record with this key."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions
