"""Between the Kafka client's types and the worker's own: records, partitions, offsets, errors."""

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
"""What every client logs to. Its warnings also come by callbacks, in fewer words."""
client_log.setLevel(logging.ERROR)

HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic is gone",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to use the topic: give the worker's user "
    "Read on the input topics, Write on the others",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to use the consumer group: give the "
    "worker's user Read on kafka.group_id",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to use the transactional.id: give "
    "the worker's user Write and Describe on the ids that begin with kafka.group_id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "no right to produce idempotently: give the "
    "worker's user IdempotentWrite on the cluster",
    KafkaError._AUTHENTICATION: "authentication failed",
    KafkaError._AUTO_OFFSET_RESET: "no committed offset to go on from, and auto.offset.reset=error",
}
"""Codes of errors that do not pass by themselves, and what each means."""

OF_A_RECORD = {
    KafkaError.INVALID_RECORD: "the topic takes no such record; a compacted topic takes none "
    "without a key",
    KafkaError.INVALID_MSG: "the topic takes no such record",
    KafkaError.INVALID_MSG_SIZE: "the topic takes no record of this size",
    KafkaError.INVALID_TIMESTAMP: "the topic takes no record of that time: set the clock here",
    KafkaError.UNSUPPORTED_FOR_MESSAGE_FORMAT: "the topic's message format does not allow it",
    KafkaError.POLICY_VIOLATION: "a policy of the broker does not allow it",
    KafkaError.RECORD_LIST_TOO_LARGE: "the batch is larger than a segment of the topic",
}
"""Codes of refusals for which a record is to blame, and what each means. The broker gives them for
all records of a partition that were sent together. With any other code the cluster is to blame."""

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
"""Codes of errors that say: no broker answers, or none that may, for now."""

_LOST_TRANSACTION = KafkaError.INVALID_TXN_STATE
_FENCES = (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH)


def to_record(message: Message, cluster: str | None = None) -> Record:
    """Return what is known of a message that came without an error, from a cluster of this name."""
    kind, timestamp_ms = message.timestamp()
    try:
        pairs = cast("list[tuple[str, str | bytes | None]]", message.headers() or [])
        headers = tuple((name, _bytes(value)) for name, value in pairs)
    except UnicodeDecodeError:
        # The client cannot give headers whose names are not UTF-8, not even as bytes.
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


def to_kafka_partitions(sources: Sequence[TopicPartition]) -> list[KafkaPartition]:
    """Return these partitions as the client takes them."""
    return [KafkaPartition(source.topic, source.partition) for source in sources]


def to_kafka_offsets(next_offsets: Sequence[NextOffset]) -> list[KafkaPartition]:
    """Return these offsets as the client takes them."""
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
    """Say what an error is, for people: the client's words, and what they mean where we know."""
    hint = HOPELESS.get(error.code()) or OF_A_RECORD.get(error.code())
    if error.code() in _FENCES:
        hint = "another worker has taken over this one's transactional.id"
    said = f"{error.name()}: {error.str()}"
    return f"{hint} ({said})" if hint else said


@contextmanager
def client_callbacks() -> Iterator[None]:
    """Around a call that lets a client call back: raises KafkaException for what is fatal to it.

    The Python client (2.16) raises that from within, and where more callbacks follow at once they
    meet the exception, which then arrives as the cause of a SystemError.
    """
    try:
        yield
    except SystemError as error:
        if isinstance(error.__cause__, KafkaException):
            raise error.__cause__ from error
        raise


def ends_the_worker(error: KafkaError, *, timed_out: bool) -> bool:
    """Return whether a transaction's error is a reason for the worker to end.

    What is fatal for a producer is, but where the broker ended the transaction by itself, while it
    was away or we were: the next producer finds a settled state. It says then that the transaction
    is lost (librdkafka issues 3297 and 4849) or, where the time of ``transaction.timeout.ms`` had
    run out (``timed_out``), that the producer is fenced, as it is by another of its name.
    """
    if not error.fatal() or error.code() == _LOST_TRANSACTION:
        return False
    return not (timed_out and error.code() in _FENCES)


def is_unreachable(error: KafkaError) -> bool:
    """Return whether an error passes when the cluster is back, whatever is done meanwhile."""
    return error.code() in UNREACHABLE or error.retriable()


def describe_exception(error: Exception) -> str:
    """Say what an exception is, the client's or our own."""
    return describe(error.args[0]) if isinstance(error, KafkaException) else str(error)


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
