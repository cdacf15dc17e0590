"""Convert between the client's and the worker's records, partitions, offsets, and errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

import structlog
from confluent_kafka import KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from worker.records.types import NextOffset, Record, TopicPartition

_log = structlog.get_logger("worker.stream")

client_log = logging.getLogger("librdkafka")
"""The log of every client. Only errors: warnings also arrive as callbacks, which are shorter."""
client_log.setLevel(logging.ERROR)

HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic does not exist any more",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to use the topic: give the worker's user "
    "Read on the input topics, Write on the others",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to use the consumer group: give the "
    "worker's user Read on kafka.group_id",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to use the transactional.id: give "
    "the worker's user Write and Describe on the ids that begin with kafka.group_id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "no right to produce idempotently: give the "
    "worker's user IdempotentWrite on the cluster",
    KafkaError._AUTHENTICATION: "authentication failed",
    KafkaError._AUTO_OFFSET_RESET: "the group has no committed offset, and auto.offset.reset=error",
}
"""Error codes that retries do not fix, and their meaning."""

OF_A_RECORD = {
    KafkaError.MSG_SIZE_TOO_LARGE: "the topic does not accept a record of this size",
    KafkaError.INVALID_RECORD: "the topic does not accept this record; a compacted topic needs "
    "a key",
    KafkaError.INVALID_MSG: "the topic does not accept this record",
    KafkaError.INVALID_MSG_SIZE: "the topic does not accept a record of this size",
    KafkaError.INVALID_TIMESTAMP: "the topic does not accept this timestamp: check this host's "
    "clock",
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: "the topic's message format does not allow it",
    KafkaError.POLICY_VIOLATION: "a policy of the broker does not allow it",
    KafkaError.RECORD_LIST_TOO_LARGE: "the batch is larger than a segment of the topic",
}
"""Error codes for which a record is to blame, and their meaning. The broker returns them for all
records of a partition that were sent together. For any other code the cluster is to blame."""

UNREACHABLE = {
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._RESOLVE,
    KafkaError._TIMED_OUT,
    KafkaError._TIMED_OUT_QUEUE,
    KafkaError._MSG_TIMED_OUT,
    KafkaError._WAIT_COORD,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.BROKER_NOT_AVAILABLE,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
    KafkaError.NOT_COORDINATOR,
    KafkaError.NOT_ENOUGH_REPLICAS,
    KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
}
"""Error codes of an outage: no broker answers, or not the one in charge."""

_LOST_TRANSACTION = KafkaError.INVALID_TXN_STATE
_FENCES = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


def to_record(message: Message, cluster: str | None = None) -> Record:
    """Convert a message without an error. ``cluster`` is the cluster's configured name."""
    kind, timestamp_ms = message.timestamp()
    try:
        pairs = cast("list[tuple[str, str | bytes | None]]", message.headers() or [])
        headers = tuple((name, _bytes(value)) for name, value in pairs)
    except UnicodeDecodeError:
        # The client cannot return header names that are not UTF-8, not even as bytes.
        _log.warning("stream.headers_unreadable", offset=message.offset())
        headers = ()
    topic, partition, offset = message.topic(), message.partition(), message.offset()
    assert topic is not None
    assert partition is not None
    assert offset is not None
    return Record(
        source=TopicPartition(topic, partition),
        offset=offset,
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=headers,
        timestamp_ms=timestamp_ms if kind else None,
        cluster=cluster,
    )


def to_source(partition: KafkaPartition) -> TopicPartition:
    """Convert the client's type of a partition."""
    return TopicPartition(partition.topic, partition.partition)


def without_errors(partitions: Sequence[KafkaPartition]) -> Sequence[KafkaPartition]:
    """Return these partitions. Raises KafkaException for the first one with an error."""
    for partition in partitions:
        if partition.error is not None:
            raise KafkaException(partition.error)
    return partitions


def to_kafka_partitions(sources: Sequence[TopicPartition]) -> list[KafkaPartition]:
    """Convert partitions to the client's type."""
    return [KafkaPartition(source.topic, source.partition) for source in sources]


def to_kafka_offsets(next_offsets: Sequence[NextOffset]) -> list[KafkaPartition]:
    """Convert next offsets and their notes to the client's type."""
    return [
        KafkaPartition(
            following.source.topic,
            following.source.partition,
            following.offset,
            metadata=following.note,
        )
        for following in next_offsets
    ]


def describe(error: KafkaError) -> str:
    """Describe an error for operators: its meaning if known, and the client's own words."""
    hint = HOPELESS.get(error.code()) or OF_A_RECORD.get(error.code())
    if error.code() in _FENCES:
        hint = "another worker has taken over this one's transactional.id"
    said = f"{error.name()}: {error.str()}"
    return f"{hint} ({said})" if hint else said


@contextmanager
def client_callbacks() -> Iterator[None]:
    """Wrap a call that runs a client's callbacks. Raises KafkaException for a fatal error.

    The Python client (2.16) raises fatal errors inside the call. If more callbacks follow at once,
    the exception arrives only as the cause of a SystemError.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from error
        raise


def ends_the_worker(error: KafkaError, *, timed_out: bool) -> bool:
    """Return whether a transaction's error must stop the worker.

    Errors that are fatal for the producer do, with two exceptions. If the broker ended the
    transaction by itself, the next producer starts from a known state. The broker then reports an
    invalid state (librdkafka issues 3297 and 4849) or, after ``transaction.timeout.ms``
    (``timed_out``), a fenced producer, as if another worker had taken the transactional.id.
    """
    if not error.fatal() or error.code() == _LOST_TRANSACTION:
        return False
    return not (timed_out and error.code() in _FENCES)


def is_unreachable(error: KafkaError) -> bool:
    """Return whether an error will pass once the cluster is back."""
    return error.code() in UNREACHABLE or error.retriable()


def describe_exception(error: Exception) -> str:
    """Describe an exception, the client's or our own."""
    return describe(error.args[0]) if isinstance(error, KafkaException) else str(error)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
