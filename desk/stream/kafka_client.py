"""What the Kafka clients share: how they are made, records, the desk's errors for theirs."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]

from desk.errors import DeskError, KafkaAway, StreamFailed, Superseded
from desk.stream.config import ANSWER_S, KafkaConfig
from desk.stream.port import Log, Place, Record

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
    """Make the corrections topic where it is missing and that is wanted. Raises StreamFailed where
    it is not there, KafkaAway."""
    admin = AdminClient(_common(config), logger=client_log)
    topic, timeout_s = config.corrections_topic, ANSWER_S
    with told_as(config):
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
    return {
        key: value for key, value in config.consumer.items() if not key.startswith(consumers_own)
    }


def consumer(config: KafkaConfig, **more: Any) -> Consumer:
    """Make a consumer that belongs to no group yet."""
    return Consumer({**config.consumer, **more}, error_cb=on_error, logger=client_log)


def read_logs(client: Consumer, topic: str, timeout_s: float) -> Mapping[int, Log]:
    """Return what each partition of a topic holds. Raises KafkaAway, StreamFailed."""

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
    """Make a transactional call again while its error is retriable and time is left.

    Not after it timed out, which is after all of the time: a commit that is called again then may
    end the process (librdkafka 2.16 takes the late answer to it for an abort's, and asserts).
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
def told_as(config: KafkaConfig) -> Iterator[None]:
    """Raise the desk's errors for the client's."""
    try:
        yield
    except KafkaException as error:
        raise translate(error.args[0], config.bootstrap_servers) from error
    except SystemError as error:  # the client raises within a callback, and again around it
        if isinstance(error.__cause__, KafkaException):
            raise translate(error.__cause__.args[0], config.bootstrap_servers) from error
        raise


def translate(error: KafkaError, where: str) -> DeskError:
    """Return what the caller is told of an error of the client."""
    said = f"{where}: {error.name()}: {error.str()}"
    if error.code() in _FENCES:
        return Superseded(f"another process of this desk publishes now ({said})")
    if hint := _HOPELESS.get(error.code()):
        return StreamFailed(f"{hint} ({said})")
    return KafkaAway(said)


def is_end(message: Message) -> bool:
    """Tell whether a message says that a partition was read to its end."""
    error = message.error()
    return error is not None and error.code() == KafkaError._PARTITION_EOF


def place_of_end(message: Message) -> tuple[tuple[str, int], int]:
    """Return of a message that says so the partition, and the offset that is read next."""
    return (str(message.topic()), int(message.partition() or 0)), int(message.offset() or 0)


def is_record(message: Message) -> bool:
    """Tell whether a message is a record. Raises for an error that does not pass."""
    error = message.error()
    if error is None:
        return True
    if error.code() in _HOPELESS:
        raise translate(error, str(message.topic()))
    if error.code() != KafkaError._PARTITION_EOF:
        _log.warning("stream.fetch_error", error=f"{error.name()}: {error.str()}")
    return False


def to_record(message: Message) -> Record:
    """Return what is known of a message that came without an error."""
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


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def on_error(error: KafkaError) -> None:
    """Log what a client says by itself."""
    _log.warning("stream.client_error", error=f"{error.name()}: {error.str()}")
