"""Kafka through confluent-kafka: all that knows the client, with ``kafka_topics`` and ``_range``.

Everything runs on the thread that calls ``poll`` and ``publish``, but for the transactional calls:
those may hang beyond their time limit (librdkafka issues 5456 and 5511, open in 2.16: after the
group's coordinator went away), so they are made on a second thread, while the first waits for a
bounded time. A producer that hangs is left behind; the next one, under the same transactional.id,
settles what it left open.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import cast

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import OutcomeUnknown, PublishAborted, RecordTooLarge, StreamFailed
from worker.records.types import Batch, NextOffset, Outgoing, Record, TopicPartition
from worker.stream.bounded import BoundedCaller
from worker.stream.duplicate_filter import DuplicateFilter
from worker.stream.kafka_config import KafkaConfig
from worker.stream.lag import Lag, has_coordinator, read_statistics
from worker.stream.port import AssignmentListener

_log = structlog.get_logger("worker.stream")
_client_log = logging.getLogger("librdkafka")
_client_log.setLevel(logging.ERROR)

_CALL_S = 5.0  # one blocking call; longer waits are made of repeated ones
_HANG_S = 2.0  # a call that takes so much longer than it was told to does not come back

_HOPELESS = {
    KafkaError.UNKNOWN_TOPIC_OR_PART: "the topic is gone",
    KafkaError.TOPIC_AUTHORIZATION_FAILED: "no right to use the topic",
    KafkaError.GROUP_AUTHORIZATION_FAILED: "no right to use the consumer group",
    KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED: "no right to use the transactional.id",
    KafkaError.CLUSTER_AUTHORIZATION_FAILED: "no right to produce idempotently",
    KafkaError._AUTHENTICATION: "authentication failed",
}

# The transaction is no longer open: the broker ended it by itself while it was away or we were. It
# is fatal for the producer (librdkafka issues 3297 and 4849), and no reason for the worker to end:
# the next producer finds a settled state.
_LOST_TRANSACTION = KafkaError.INVALID_TXN_STATE

# Bytes around a record and each of its headers in a batch, generously; brokers limit the batch.
_FRAMING = 16
_NO_LIMIT = 1 << 62

# Records that were never judged: they went with a failed transaction or an old producer.
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}


class KafkaStream:
    """Consumer and producer of one worker. See ``worker.stream.port.Stream``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._listener: AssignmentListener | None = None
        self._fatal: KafkaError | None = None
        self._ended: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._producer: Producer | None = None
        self._calls: BoundedCaller | None = None
        self._failed: list[tuple[int, KafkaError]] = []
        self._lag = Lag()
        self._again = DuplicateFilter()
        self._repeated = 0
        self._in_group = False
        self._closed = False
        self._consumer = Consumer(
            dict(config.consumer),
            error_cb=self._on_error,
            stats_cb=self._on_statistics,
            logger=_client_log,
        )
        self._transactional = config.delivery == "exactly_once"

    def subscribe(self, listener: AssignmentListener) -> None:
        """Make the producer ready, then join the group. Raises StreamFailed."""
        try:
            self._ready_producer(self._config.start_timeout_s)
        except PublishAborted as error:
            raise StreamFailed(
                f"the producer could not start within {self._config.start_timeout_s:g} s: {error}"
            ) from error
        self._listener = listener
        self._consumer.subscribe(
            [self._config.topics.input],
            on_assign=lambda _, partitions: self._tell("on_assigned", partitions),
            on_revoke=lambda _, partitions: self._tell("on_revoked", partitions),
            on_lost=lambda _, partitions: self._tell("on_lost", partitions),
        )

    def poll(self, max_records: int, timeout_s: float) -> Sequence[Record]:
        """Serve both clients and return what has arrived. Raises StreamFailed."""
        if self._producer is not None:
            self._producer.poll(0)
        records: list[Record] = []
        # One at a time, so that it is known which records came before a rebalance.
        message = self._consumer.poll(timeout_s)
        while message is not None:
            records = self._still_ours(records)
            if (record := self._take(message)) is not None:
                records.append(record)
            if len(records) >= max_records:
                break
            message = self._consumer.poll(0)
        records = self._still_ours(records)
        if self._fatal is not None:
            raise StreamFailed(_say(self._fatal))
        if self._repeated:
            _log.warning("stream.rewound", records_skipped=self._repeated)
            self._repeated = 0
        self._lag.delivered(records)
        return records

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop delivery of these partitions."""
        if partitions:
            self._consumer.pause(_to_kafka(partitions))
            self._paused.update(partitions)
            self._lag.paused(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Start delivery of these partitions again."""
        if partitions:
            self._consumer.resume(_to_kafka(partitions))
            self._paused.difference_update(partitions)
            self._lag.resumed(partitions)

    def publish(self, batch: Batch) -> None:
        """Publish a batch. Raises PublishAborted, RecordTooLarge, OutcomeUnknown, StreamFailed."""
        if too_large := self._too_large(batch.outputs):
            raise RecordTooLarge(too_large)
        until = time.monotonic() + self._config.publish_timeout_s
        producer = self._ready_producer(self._config.publish_timeout_s)
        self._failed = []
        if self._transactional:
            self._publish_transaction(producer, batch, until)
        else:
            self._publish_then_commit(producer, batch, until)
        self._lag.published(batch.next_offsets)

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """Resolve the transaction in doubt, then read what is committed."""
        self._ready_producer(self._config.publish_timeout_s)
        try:
            found = self._consumer.committed(_to_kafka(partitions), timeout=_CALL_S)
        except KafkaException as error:
            raise PublishAborted(f"committed offsets not known: {_say(error.args[0])}") from error
        for one in found:
            if one.error is not None:
                raise PublishAborted(f"committed offsets not known: {_say(one.error)}")
        committed = [
            NextOffset(TopicPartition(one.topic, one.partition), one.offset)
            for one in found
            if one.offset >= 0
        ]
        self._lag.published(committed)
        return committed

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return what the client's statistics last said, every ``statistics.interval.ms``."""
        return self._lag.read()

    def close(self) -> None:
        """Leave the group without publishing anything more, and free both clients."""
        if self._closed:
            return
        self._closed = True
        self._listener = None
        self._discard_producer()
        # By close() alone a member without a partition does not leave (librdkafka 2.16, cooperative
        # assignment): the next rebalance would wait for it until its session ends.
        if not self._consumer.assignment():
            self._consumer.unsubscribe()
        self._consumer.close()

    # Consuming.

    def _take(self, message: Message) -> Record | None:
        error = message.error()
        if error is None:
            record = to_record(message)
            if self._again.has(record.source, record.offset, message.leader_epoch()):
                self._repeated += 1
                return None
            return record
        if error.fatal() or error.code() in _HOPELESS:
            raise StreamFailed(f"{message.topic()}: {_say(error)}")
        _log.warning("stream.fetch_error", error=_say(error))
        return None

    def _still_ours(self, records: list[Record]) -> list[Record]:
        """Leave out what was read before its partition went away, even if it came back since."""
        if self._ended:
            records = [one for one in records if one.source not in self._ended]
            self._ended.clear()
        return records

    def _tell(self, what: str, partitions: Sequence[KafkaPartition]) -> None:
        ours = [TopicPartition(one.topic, one.partition) for one in partitions]
        self._again.begin(ours)
        if what == "on_assigned":
            self._in_group = True
            self._lag.assigned(ours)
        else:
            self._ended.update(ours)
        if self._listener is not None:
            getattr(self._listener, what)(ours)
        if what != "on_assigned":
            self._lag.ended(ours)
            # The client keeps a pause beyond the assignment it was made in (librdkafka issue 5113),
            # and would deliver nothing of the partition if it came back.
            self.resume([one for one in ours if one in self._paused])

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._lag.heard(statistics)
        # A member for which there is no partition is told so by the classic protocols alone.
        quiet = self._config.consumer.get("group.protocol") == "consumer"
        if quiet and not self._in_group and has_coordinator(statistics):
            self._tell("on_assigned", [])

    def _on_error(self, error: KafkaError) -> None:
        # What ends the worker for good; anything else the client mends by itself.
        if error.fatal() or (
            error.code() in _HOPELESS and error.code() != KafkaError._AUTHENTICATION
        ):
            self._fatal = error
        _log.warning("stream.client_error", error=_say(error))

    def _on_producer_error(self, error: KafkaError) -> None:
        # A fenced or failed producer says so in its own calls; one left behind must not be heard.
        _log.warning("stream.client_error", error=_say(error))

    # Publishing.

    def _publish_transaction(self, producer: Producer, batch: Batch, until: float) -> None:
        offsets = _offsets(batch)
        committing = False
        try:
            producer.begin_transaction()
            self._produce(producer, batch.outputs, until)
            self._flush(producer, until)
            # Also after a record was refused: it then fails, with the transaction's own reason.
            group = self._consumer.consumer_group_metadata()
            self._repeat(lambda s: producer.send_offsets_to_transaction(offsets, group, s), until)
            self._expect_no_refusal()
            committing = True
            self._repeat(producer.commit_transaction, until)
        except TimeoutError as error:
            self._producer = self._calls = None  # it hangs: left behind, not touched again
            _log.warning("stream.producer_hangs", committing=committing)
            hung = "a transactional call does not come back"
            raise (OutcomeUnknown(hung) if committing else PublishAborted(hung)) from error
        except (KafkaException, _Refused, PublishAborted) as error:
            cause = error.args[0] if isinstance(error, KafkaException) else None
            if cause is not None and cause.fatal() and cause.code() != _LOST_TRANSACTION:
                raise StreamFailed(_say(cause)) from error
            refusal = self._refusal(error, batch)
            abortable = cause is None or cause.txn_requires_abort()
            aborted = abortable and self._abort(producer)
            # What was sent after a record that the broker refused is answered with a gap in the
            # sequence, sometimes only within the next transaction: a new producer has none.
            if aborted and not isinstance(refusal, RecordTooLarge):
                raise refusal from error
            self._discard_producer()
            if committing and not abortable:
                raise OutcomeUnknown(f"commit not answered: {_text(error)}") from error
            raise refusal from error

    def _publish_then_commit(self, producer: Producer, batch: Batch, until: float) -> None:
        offsets = _offsets(batch)
        try:
            self._produce(producer, batch.outputs, until)
            self._flush(producer, until)
            self._expect_no_refusal()
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except (KafkaException, _Refused, PublishAborted) as error:
            cause = error.args[0] if isinstance(error, KafkaException) else None
            if cause is not None and cause.fatal():
                raise StreamFailed(_say(cause)) from error
            refusal = self._refusal(error, batch)
            if not isinstance(refusal, RecordTooLarge):
                self._discard_producer()  # with whatever is still queued in it
            raise refusal from error

    def _produce(self, producer: Producer, outputs: Sequence[Outgoing], until: float) -> None:
        for index, one in enumerate(outputs):
            while True:
                try:
                    producer.produce(
                        one.topic,
                        value=one.value,
                        key=one.key,
                        headers=list(one.headers),
                        on_delivery=self._delivery(index),
                    )
                    break
                except BufferError:
                    if time.monotonic() > until:
                        raise PublishAborted("the producer's queue stays full") from None
                    producer.poll(0.05)
                except KafkaException as error:
                    # Too large for the client's own limit: told at once, the record is not queued.
                    if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                        raise
                    self._failed.append((index, error.args[0]))
                    break

    def _delivery(self, index: int) -> Callable[[KafkaError | None, Message], None]:
        def delivered(error: KafkaError | None, _: Message) -> None:
            if error is not None:
                self._failed.append((index, error))

        return delivered

    def _flush(self, producer: Producer, until: float) -> None:
        left = producer.flush(max(0.1, until - time.monotonic()))
        if left and not self._failed:
            raise PublishAborted(f"{left} records not acknowledged in time")

    def _too_large(self, outputs: Sequence[Outgoing]) -> list[int]:
        """Find what no topic of these would take, before a transaction is spoiled by it."""
        limits = self._config.max_record_bytes
        return [
            index
            for index, one in enumerate(outputs)
            if one.size_bytes + _FRAMING * (len(one.headers) + 8) > limits.get(one.topic, _NO_LIMIT)
        ]

    def _expect_no_refusal(self) -> None:
        if self._failed:
            raise _Refused

    def _refusal(self, error: Exception, batch: Batch) -> PublishAborted:
        """Name the reason nothing was published; records the broker finds too large, by place."""
        too_large = [i for i, one in self._failed if one.code() == KafkaError.MSG_SIZE_TOO_LARGE]
        if too_large:
            return RecordTooLarge(sorted(set(too_large)))
        reasons = [one for _, one in self._failed if one.code() not in _PURGED]
        if isinstance(error, KafkaException):
            reasons.append(error.args[0])
        for one in reasons:
            if one.code() in _HOPELESS:
                raise StreamFailed(f"producing: {_say(one)}") from error
            if one.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                # A transaction that failed for it takes every record down and names none.
                sizes = [outgoing.size_bytes for outgoing in batch.outputs]
                return RecordTooLarge([sizes.index(max(sizes))])
        return PublishAborted(_say(reasons[0]) if reasons else _text(error))

    def _abort(self, producer: Producer) -> bool:
        try:
            self._repeat(producer.abort_transaction, time.monotonic() + _CALL_S)
        except TimeoutError:
            self._producer = self._calls = None
            return False
        except KafkaException as error:
            if error.args[0].fatal() and error.args[0].code() != _LOST_TRANSACTION:
                raise StreamFailed(_say(error.args[0])) from error
            return False
        return True

    def _ready_producer(self, timeout_s: float) -> Producer:
        """Return the producer, a new one if the last was thrown away.

        Initialising a transactional.id ends whatever its last holder left open, so that a new
        producer starts from a settled state (librdkafka issue 5423 asks for just this after a
        commit that was not answered).
        """
        if self._producer is None:
            producer = self._producer = Producer(
                dict(self._config.producer), error_cb=self._on_producer_error, logger=_client_log
            )
            if self._transactional:
                self._calls = BoundedCaller("transactions")
                try:
                    self._repeat(producer.init_transactions, time.monotonic() + timeout_s)
                except TimeoutError as error:
                    self._producer = self._calls = None
                    raise PublishAborted("init_transactions does not come back") from error
                except KafkaException as error:
                    self._discard_producer()
                    if error.args[0].fatal() or error.args[0].code() in _HOPELESS:
                        raise StreamFailed(_say(error.args[0])) from error
                    raise PublishAborted(_say(error.args[0])) from error
        return self._producer

    def _discard_producer(self) -> None:
        if self._producer is not None:
            self._producer.purge()
            try:
                self._producer.poll(0)
            except KafkaException as error:  # what was fatal for it is told once more
                _log.debug("stream.producer_discarded", error=_say(error.args[0]))
            self._producer = None
        if self._calls is not None:
            self._calls.close()
            self._calls = None

    def _repeat(self, call: Callable[[float], object], until: float) -> None:
        """Make a resumable librdkafka call again while its error is retriable and time is left.

        Raises TimeoutError when one does not come back.
        """
        assert self._calls is not None
        while True:
            seconds = max(0.1, min(_CALL_S, until - time.monotonic()))
            try:
                self._calls.call(partial(call, seconds), seconds + _HANG_S)
            except KafkaException as error:
                if not error.args[0].retriable() or time.monotonic() >= until:
                    raise
            else:
                return


class _Refused(Exception):
    """Some records of a batch were not taken; ``_failed`` says which."""


def to_record(message: Message) -> Record:
    """Return what is known of a message that came without an error."""
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
    )


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _offsets(batch: Batch) -> list[KafkaPartition]:
    return [
        KafkaPartition(one.source.topic, one.source.partition, one.offset)
        for one in batch.next_offsets
    ]


def _to_kafka(partitions: Sequence[TopicPartition]) -> list[KafkaPartition]:
    return [KafkaPartition(one.topic, one.partition) for one in partitions]


def _say(error: KafkaError) -> str:
    hint = _HOPELESS.get(error.code())
    if error.code() in (KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH):
        hint = "another worker has taken this one's transactional.id over"
    return f"{hint} ({error.name()}: {error.str()})" if hint else f"{error.name()}: {error.str()}"


def _text(error: Exception) -> str:
    return _say(error.args[0]) if isinstance(error, KafkaException) else str(error)
