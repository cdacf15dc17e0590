"""The demo's Kafka client: publishes the samples and reads the results, as a user would."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin import NewTopic as Topic  # type: ignore[attr-defined]

from worker.demo.kafka_files import BrokerError

# The client's log lines would disturb the screen; errors come as exceptions.
_QUIET: dict[str, str | int | float | bool] = {"log_level": 0}


@dataclass(frozen=True, slots=True)
class Seen:
    """A result, a correction, or a retraction. ``value`` is its record, None for a dead letter.

    Times are Unix seconds; a correction was published when a reviewer decided.
    """

    kind: str
    message_id: str
    value: dict[str, Any] | None
    headers: dict[str, str]
    published_at: float
    seen_at: float


def create_demo_topics(bootstrap_servers: str, topics: dict[str, int]) -> None:
    """Create missing topics (name to number of partitions), and wait until they can be used: a
    broker sees them a moment after the controller has created them. The worker may create them at
    the same time. Raises BrokerError."""
    admin = AdminClient({"bootstrap.servers": bootstrap_servers, **_QUIET})
    try:
        known = set(admin.list_topics(timeout=20).topics)
        wanted = [Topic(name, count) for name, count in topics.items() if name not in known]
        for future in (admin.create_topics(wanted) if wanted else {}).values():
            _created_by_somebody(future)
        until = time.monotonic() + 20
        while unknown := topics.keys() - admin.list_topics(timeout=20).topics.keys():
            if time.monotonic() > until:
                raise BrokerError(
                    f"Kafka at {bootstrap_servers}: topics are still unknown 20 s after their "
                    f"creation: {', '.join(sorted(unknown))}"
                )
            time.sleep(0.05)
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap_servers}: {error.args[0].str()}") from error


def _created_by_somebody(future: Future[None]) -> None:
    try:
        future.result(timeout=20)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def count_records(bootstrap_servers: str, topic: str) -> int:
    """Return the number of offsets in a topic. Raises BrokerError."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap_servers, "group.id": "demo-watch", **_QUIET}
    )
    try:
        found = consumer.list_topics(topic, timeout=20).topics[topic].partitions
        ends = (
            consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=20)
            for number in found
        )
        return sum(high - low for low, high in ends)
    except KafkaException as error:
        raise BrokerError(f"Kafka at {bootstrap_servers}: {error.args[0].str()}") from error
    finally:
        consumer.close()


class Publisher:
    """Publishes messages as the ticketing system would: one JSON record each."""

    def __init__(self, bootstrap_servers: str, topic: str, text_field: str = "message") -> None:
        self._topic = topic
        self._text_field = text_field
        self._producer = Producer(
            {"bootstrap.servers": bootstrap_servers, "linger.ms": 5, **_QUIET}
        )

    def publish(self, message_id: str, text: str) -> None:
        """Queue one message; its id is also the record's key."""
        value = json.dumps({"id": message_id, self._text_field: text}, ensure_ascii=False)
        self._producer.produce(self._topic, value=value, key=message_id)
        self._producer.poll(0)

    def flush(self) -> None:
        """Wait until all messages are acknowledged. Raises BrokerError after 30 s."""
        if left := self._producer.flush(30):
            raise BrokerError(f"{left} messages could not be published")


class Watcher:
    """Reads new committed records of the result topics, outside of a consumer group.

    ``kinds`` maps topics to output, review, dead letter or correction.
    """

    def __init__(self, bootstrap_servers: str, kinds: Mapping[str, str]) -> None:
        self._kinds = dict(kinds)
        self._consumer = Consumer(
            {
                "bootstrap.servers": bootstrap_servers,
                "group.id": "demo-watch",  # required by the client, never joined
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
                "fetch.wait.max.ms": 50,  # latencies are shown to the millisecond
                **_QUIET,
            }
        )
        self._consumer.assign([self._end(one) for one in self._partitions(kinds)])

    def poll(self, timeout_s: float) -> Iterator[Seen]:
        """Yield what has arrived, waiting up to ``timeout_s`` for a first record."""
        message = self._consumer.poll(timeout_s)
        while message is not None:
            if message.error() is None:
                yield _seen(message, self._kinds[str(message.topic())])
            message = self._consumer.poll(0)

    def _partitions(self, topics: Iterable[str]) -> list[TopicPartition]:
        found = self._consumer.list_topics(timeout=20).topics
        return [TopicPartition(one, number) for one in topics for number in found[one].partitions]

    def _end(self, partition: TopicPartition) -> TopicPartition:
        """Return a partition's current end; a new partition may take a moment."""
        until = time.monotonic() + 20
        while True:
            try:
                _, end = self._consumer.get_watermark_offsets(partition, timeout=5)
            except KafkaException as error:
                if time.monotonic() > until:
                    raise BrokerError(f"Kafka: {error.args[0].str()}") from error
                time.sleep(0.2)
            else:
                return TopicPartition(partition.topic, partition.partition, end)

    def close(self) -> None:
        """Close the client."""
        self._consumer.close()


def _seen(message: Any, kind: str) -> Seen:
    try:
        value = json.loads(message.value() or b"null")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        value = {}
    headers = {
        name: (content or b"").decode("utf-8", "replace")
        for name, content in message.headers() or []
    }
    if kind == "dead letter":
        published_at = float(headers.get("clerk.source.timestamp") or 0) / 1000
        return Seen(kind, str(value.get("id")), None, headers, published_at, time.time())
    if kind == "correction":
        since = value.get("decided_at") or value["retracted_at"]
    else:
        since = value["source"]["timestamp"]
    published_at = datetime.fromisoformat(since).timestamp()
    return Seen(kind, str(value["message_id"]), value, headers, published_at, time.time())
