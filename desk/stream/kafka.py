"""The three ports on real Kafka. Everything runs on the caller's thread."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from typing import Any, TypeVar

import structlog
from confluent_kafka import (
    OFFSET_END,
    OFFSET_INVALID,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from desk.errors import DeskError, KafkaUnavailable, StreamFailed, Superseded
from desk.stream.config import ANSWER_S, PUBLISH_S, KafkaConfig
from desk.stream.port import Log, Outgoing, Place, Record
from worker.common.schema_registry import RegistryAway, SchemaRegistry
from worker.contract.errors import MessageRejected

_log = structlog.get_logger("desk.stream")
client_log = logging.getLogger("librdkafka")
client_log.setLevel(logging.ERROR)

_T = TypeVar("_T")

_HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "there is no such topic: create it, or look at [kafka]",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to use the topic: give the desk's user Read "
    "on the workers' topics, Write on kafka.corrections_topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to use the consumer group: give the desk's "
    "user Read on groups that begin with kafka.name",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to use the transactional.id: give "
    "the desk's user Write and Describe on ids that begin with kafka.name",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "no right to produce idempotently: give the desk's "
    "user IdempotentWrite on the cluster",
    KafkaError._AUTHENTICATION: "authentication failed: look at kafka.security_protocol and sasl_*",
}
_FENCES = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED)


def ensure_topic(config: KafkaConfig) -> None:
    """Create the corrections topic if it is missing and the settings ask for it. Raises
    StreamFailed if it is missing otherwise, KafkaUnavailable."""
    admin = AdminClient(_common(config), logger=client_log)
    topic, timeout_s = config.corrections_topic, ANSWER_S
    with translated_errors(config):
        about = admin.list_topics(topic, timeout=timeout_s).topics[topic]
        if about.error is None:
            return
        if about.error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART or not config.create_partitions:
            raise KafkaException(about.error)
        new = NewTopic(topic, config.create_partitions)  # replicas: the broker's default
        try:
            admin.create_topics([new])[topic].result(timeout=timeout_s)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise


def _common(config: KafkaConfig) -> dict[str, Any]:
    consumers_own = ("group.", "enable.", "isolation.", "auto.", "queued.", "fetch.", "session.")
    # librdkafka logs a warning for each property that belongs to another kind of client.
    return {
        key: value for key, value in config.consumer.items() if not key.startswith(consumers_own)
    }


def consumer(config: KafkaConfig, **more: Any) -> Consumer:
    """Create a consumer that is not in a group."""
    # Without an error callback, a fatal error surfaces as a SystemError in whichever call comes
    # next.
    return Consumer({**config.consumer, **more}, error_cb=on_error, logger=client_log)


def read_logs(client: Consumer, topic: str, timeout_s: float) -> Mapping[int, Log]:
    """Return the offsets that each partition of a topic holds. Raises KafkaUnavailable,
    StreamFailed."""

    def ask() -> Mapping[int, Log]:
        about = client.list_topics(topic, timeout=timeout_s).topics[topic]
        if about.error is not None:
            raise KafkaException(about.error)
        return {
            number: Log(
                *client.get_watermark_offsets(TopicPartition(topic, number), timeout=timeout_s)
            )
            for number in sorted(about.partitions)
        }

    try:
        return ask()
    except KafkaException as error:
        raise translate(error.args[0], topic) from error


def until_answered(call: Callable[[float], _T], timeout_s: float) -> _T:
    """Repeat a transactional call while its error is retriable and time is left.

    It is not repeated after a timeout: a second commit may then end the process (librdkafka 2.16
    takes the late answer for that to an abort, and asserts).
    """
    until = time.monotonic() + timeout_s
    while True:
        try:
            return call(max(0.1, until - time.monotonic()))
        except KafkaException as error:
            cause = error.args[0]
            if not cause.retriable() or cause.code() == KafkaError._TIMED_OUT:
                raise
            if time.monotonic() >= until:
                raise


@contextmanager
def translated_errors(config: KafkaConfig) -> Iterator[None]:
    """Raise the desk's errors for the client's."""
    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0], config.bootstrap_servers) from error
    except SystemError as error:  # raised in a callback, the error comes wrapped in another one
        if isinstance(error.__cause__, KafkaException):
            raise translate(error.__cause__.args[0], config.bootstrap_servers) from error
        raise


def translate(error: KafkaError, where: str) -> DeskError:
    """Return the desk's error for an error of the client."""
    said = f"{where}: {error.name()}: {error.str()}"
    if error.code() in _FENCES:
        return Superseded(f"another process of this desk publishes now ({said})")
    if hint := _HOPELESS.get(error.code()):
        return StreamFailed(f"{hint} ({said})")
    return KafkaUnavailable(said)


def is_end(message: Message) -> bool:
    """Whether a message says that a partition was read to its end."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def place_of_end(message: Message) -> tuple[tuple[str, int], int]:
    """Return the partition of such a message, and the next offset."""
    return (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)


def is_record(message: Message) -> bool:
    """Whether a message is a record. Raises for an error that will not pass."""
    error = message.error()
    if error is None:
        return True
    if error.code() in _HOPELESS:
        raise translate(error, str(message.topic()))
    if error.code() != KafkaError._PARTITION_EOF:
        _log.warning("stream.fetch_error", error=f"{error.name()}: {error.str()}")
    return False


def to_record(message: Message) -> Record:
    """Return a message without an error as a record."""
    kind, timestamp_ms = message.timestamp()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Record(
        Place(topic, partition, offset),
        _bytes(message.key()),
        _bytes(message.value()),
        timestamp_ms if kind else None,
    )


def with_schema(record: Record, registry: SchemaRegistry | None) -> Record:
    """Return a record with its value as plain JSON. One that cannot be read stays as it is: its
    reader refuses it. Raises KafkaUnavailable while the registry does not answer."""
    if registry is None:
        return record
    try:
        return replace(record, value=registry.look_up(record.place.topic, record.value))
    except MessageRejected:
        return record
    except RegistryAway as error:
        raise KafkaUnavailable(str(error)) from error


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def on_error(error: KafkaError) -> None:
    """Log an error of a client's background threads, which it goes on to repair by itself."""
    _log.warning("stream.client_error", error=f"{error.name()}: {error.str()}")


SEQUENCE_HEADER = "clerk.desk.sequence"
NAME_HEADER = "clerk.desk.name"

# Up to so many records between two wanted ones are read, which is cheaper than a seek.
_READ_THROUGH = 200


class KafkaResults:
    """A ``ResultSource``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        # A transaction's marker has an offset too: without the ends that are met, a partition that
        # was read whole would have a lag of 1 for ever.
        self._client = consumer(config, **{"enable.partition.eof": True})
        self._ends: dict[tuple[str, int], int] = {}

    def logs(self, topic: str) -> Mapping[int, Log]:
        """See ``ResultSource``."""
        return read_logs(self._client, topic, ANSWER_S)

    def assign(self, positions: Mapping[tuple[str, int], int]) -> None:
        """See ``ResultSource``."""
        self._ends = {}
        self._client.assign(
            [TopicPartition(*partition, offset) for partition, offset in positions.items()]
        )

    def poll(self, most: int, timeout_s: float) -> Sequence[Record]:
        """See ``ResultSource``."""
        with translated_errors(self._config):
            messages = self._client.consume(most, timeout_s)
        self._ends |= dict(map(place_of_end, filter(is_end, messages)))
        read = [to_record(message) for message in messages if is_record(message)]
        return [with_schema(record, self._config.registry) for record in read]

    def ends_met(self) -> Mapping[tuple[str, int], int]:
        """See ``ResultSource``."""
        return self._ends

    def close(self) -> None:
        """See ``ResultSource``."""
        self._client.close()


class KafkaTexts:
    """A ``TextSource``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._client = consumer(config)

    def fetch(self, places: Sequence[Place], timeout_s: float) -> Mapping[Place, Record | None]:
        """See ``TextSource``."""
        until = time.monotonic() + timeout_s
        found: dict[Place, Record | None] = {}
        for (topic, partition), some in groupby(
            sorted(set(places)), key=lambda place: (place.topic, place.partition)
        ):
            wanted = list(some)
            try:
                log = read_logs(self._client, topic, ANSWER_S).get(partition)
            except StreamFailed:  # the topic is gone, and all that was in it
                log = None
            if log is None:
                found |= dict.fromkeys(wanted)
                continue
            there = [place for place in wanted if log.start <= place.offset < log.end]
            found |= dict.fromkeys(place for place in wanted if place not in set(there))
            found |= self._read(topic, partition, there, until)
        return found

    def close(self) -> None:
        """See ``TextSource``."""
        self._client.close()

    def _read(
        self, topic: str, partition: int, wanted: list[Place], until: float
    ) -> dict[Place, Record | None]:
        """Read places of one partition, by offset."""
        found: dict[Place, Record | None] = {}
        at = -1  # nothing is assigned
        with translated_errors(self._config):
            while wanted and time.monotonic() < until:
                offset = wanted[0].offset
                if at < 0 or offset - at > _READ_THROUGH:
                    self._client.assign([TopicPartition(topic, partition, offset)])
                    at = offset
                for message in self._client.consume(_READ_THROUGH, 0.2):
                    if not is_record(message):
                        continue
                    record = to_record(message)
                    at = record.place.offset + 1
                    # Places before the record that came are gone: compacted, or deleted.
                    while wanted and wanted[0].offset < record.place.offset:
                        found[wanted.pop(0)] = None
                    if wanted and wanted[0] == record.place:
                        found[wanted.pop(0)] = with_schema(record, self._config.registry)
        return found


class KafkaCorrections:
    """A ``CorrectionSink``: a transactional producer, and a consumer group without members.

    The group's offset of partition 0 of the corrections topic is the last sequence number written.
    It is committed in the records' transaction, so either both are there or neither is.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._mark = consumer(config)
        self._producer: Producer | None = None
        self._refused: list[KafkaError] = []
        self._fatal: KafkaError | None = None

    def start(self) -> int | None:
        """See ``CorrectionSink``."""
        self._forget_producer()
        self._fatal = None
        ensure_topic(self._config)
        timeout_s = ANSWER_S
        with translated_errors(self._config):
            client = Producer(dict(self._config.producer), error_cb=self._heard, logger=client_log)
            # Aborts an open transaction of the last producer of this name, and fences it.
            until_answered(client.init_transactions, timeout_s)
            (found,) = self._mark.committed(
                [TopicPartition(self._config.corrections_topic, 0)], timeout=timeout_s
            )
            if found.error is not None:
                raise KafkaException(found.error)
        self._producer = client
        return None if found.offset == OFFSET_INVALID else int(found.offset)

    def last_written(self, since_ms: int) -> int | None:
        """See ``CorrectionSink``."""
        topic, timeout_s = self._config.corrections_topic, ANSWER_S
        client = consumer(self._config, **{"enable.partition.eof": True})
        last = None
        try:
            with translated_errors(self._config):
                logs = read_logs(client, topic, timeout_s)
                asked = [TopicPartition(topic, number, since_ms) for number in logs]
                starts = client.offsets_for_times(asked, timeout=timeout_s)
                # No offset: the partition has no record since then.
                reading = [each for each in starts if each.offset not in {OFFSET_END, -1}]
                client.assign(reading)
                left = len(reading)
                until = time.monotonic() + 10 * timeout_s
                while left:
                    if time.monotonic() > until:
                        raise KafkaUnavailable(f"{topic} cannot be read to its end")
                    for message in client.consume(1000, 0.2):
                        if is_end(message):
                            left -= 1
                        elif is_record(message):
                            last = max(last or 0, self._sequence_of(message)) or last
        finally:
            client.close()
        return last

    def publish(self, records: Sequence[Outgoing]) -> None:
        """See ``CorrectionSink``."""
        client = self._producer
        if client is None:
            raise KafkaUnavailable("the producer has not been started")
        mark = [TopicPartition(self._config.corrections_topic, 0, records[-1].sequence)]
        timeout_s = PUBLISH_S
        self._refused = []
        try:
            with translated_errors(self._config):
                client.begin_transaction()
                self._produce(client, records)
                # Before the commit, which would only say that some record failed.
                left = client.flush(timeout_s)
                if self._refused:
                    raise KafkaException(self._refused[0])
                if left:
                    raise KafkaUnavailable("corrections were not taken in time")
                group = self._mark.consumer_group_metadata()
                until_answered(
                    lambda s: client.send_offsets_to_transaction(mark, group, s), timeout_s
                )
                until_answered(client.commit_transaction, timeout_s)
        except DeskError:
            self._forget_producer()
            raise
        except SystemError as error:
            # The client (2.16) can lose a callback's exception; the fatal error was kept.
            self._forget_producer()
            if self._fatal is not None:
                raise translate(self._fatal, self._config.bootstrap_servers) from error
            raise KafkaUnavailable(
                "the client has failed within a call, and does not say why"
            ) from error

    def close(self) -> None:
        """See ``CorrectionSink``."""
        self._forget_producer()
        self._mark.close()

    def _produce(self, client: Producer, records: Sequence[Outgoing]) -> None:
        try:
            for record in records:
                client.produce(
                    self._config.corrections_topic,
                    record.value,
                    record.key,
                    # For last_written, in case the mark is gone.
                    headers=[
                        (SEQUENCE_HEADER, str(record.sequence).encode()),
                        (NAME_HEADER, self._config.name.encode()),
                    ],
                    on_delivery=self._delivered,
                )
        except KafkaException as error:
            if error.args[0].code() != KafkaError._STATE:
                raise
            # The transaction has failed for a record before this one: its delivery says why.
            client.flush(PUBLISH_S)
            if not self._refused:
                raise

    def _heard(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        on_error(error)

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is not None:
            self._refused.append(error)

    def _forget_producer(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            self._producer = None

    def _sequence_of(self, message: Message) -> int:
        headers: dict[str, Any] = dict(message.headers() or [])
        if headers.get(NAME_HEADER) != self._config.name.encode():
            return 0  # another desk's, or somebody else's
        return int(headers.get(SEQUENCE_HEADER) or 0)
