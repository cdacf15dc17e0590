"""Kafka through confluent-kafka: the worker's consumer, and its publisher next to it.

Each ``kafka_*`` module wraps a part of the client. Their callers see the worker's own types only.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import structlog
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import PublishAborted, StreamFailed
from worker.records.types import Batch, CommittedOffset, NextOffset, Record, TopicPartition
from worker.stream.fetch_buffer import FetchBuffer
from worker.stream.kafka_config import KafkaConfig, uses_brokers_protocol
from worker.stream.kafka_publish import BoundedCaller, KafkaPublisher
from worker.stream.kafka_types import (
    HOPELESS,
    client_log,
    describe,
    is_unreachable,
    to_kafka_offsets,
    to_kafka_partitions,
    to_record,
    to_source,
    without_errors,
)
from worker.stream.port import AssignmentListener
from worker.stream.topic_ids import TopicIds, ask_cluster

_log = structlog.get_logger("worker.stream")

_COMMITTED_S = 5.0
_CLOSE_S = 10.0
_NO_OFFSET = 1 << 63

_MOST_POLLS = 1000
_MOST_POLLS_IF_FULL = 20_000
"""The most messages to move into the buffer at once: about 10 ms of work. If it is full, all that
the client has, so that nothing is lost when partitions are paused."""

_Rebalance = Literal["on_assigned", "on_revoked", "on_lost"]


class KafkaStream:
    """Consumer and producer of one worker. See ``worker.stream.port.Stream``."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._topics = config.topics
        # Only the classic protocol calls back a member that gets no partition.
        self._quiet_protocol = uses_brokers_protocol(config.consumer)
        self._listener: AssignmentListener | None = None
        self._fatal: KafkaError | None = None
        self._buffer = FetchBuffer(config.max_buffered_bytes)
        self._paused: set[TopicPartition] = set()
        self._positioned: list[TopicPartition] = []
        self._ids = TopicIds(ask_cluster(config), config.cluster_id)
        self._doubted: set[TopicPartition] = set()
        """Partitions whose offsets came back: their records wait until the topic's id is known."""
        self._uncommitted: dict[TopicPartition, NextOffset] = {}
        self._lag = Lag()
        self._duplicates = DuplicateFilter()
        self._skipped = 0
        self.unreachable_since: float | None = None
        """When the last connection was found lost, as of the client's last statistics."""
        self._in_group = False
        self._own_results: set[str] = set()
        self._client = Consumer(
            dict(config.consumer),
            error_cb=self._on_error,
            stats_cb=self._on_statistics,
            logger=client_log,
        )
        self._publisher = KafkaPublisher(config, self)
        self._closed = False

    def subscribe(self, listener: AssignmentListener) -> None:
        """Start the producer, then join the group. Raises StreamFailed."""
        # In this order: a member that cannot publish would only hold partitions.
        self._publisher.start()
        self._listener = listener
        self._client.subscribe(
            list(self._topics.subscribed),
            on_assign=lambda _, partitions: self._rebalance("on_assigned", partitions),
            on_revoke=lambda _, partitions: self._rebalance("on_revoked", partitions),
            on_lost=lambda _, partitions: self._rebalance("on_lost", partitions),
        )

    def poll(
        self,
        max_records: int,
        timeout_s: float,
        *,
        max_bytes: int | None = None,
        stop_after: Callable[[Record], bool] | None = None,
    ) -> Sequence[Record]:
        """Serve both clients and return the records that have arrived. Raises StreamFailed."""
        # Also while nothing is published: the producer asks for a new token, and reports errors, in
        # callbacks that run within such calls.
        self._publisher.serve()
        self._fill(0.0 if self._buffer else timeout_s)
        self._ids.check(self._lag.topics)
        known = [source for source in self._positioned if self._ids.knows(source.topic)]
        if known and self._listener is not None:
            self._positioned = [each for each in self._positioned if each not in known]
            self._listener.on_positioned(known)
        if self._doubted:
            self._trust([source for source in self._doubted if source.topic in self._ids])
        if self._fatal is not None:
            raise StreamFailed(describe(self._fatal))
        if self._own_results:
            raise StreamFailed(
                f"kafka.input_topics match {', '.join(sorted(self._own_results))}, to which this "
                "worker writes: it would read its own results. Narrow the pattern"
            )
        if self._skipped:
            _log.warning("stream.rewound", records_skipped=self._skipped)
            self._skipped = 0
        return self._buffer.take(max_records, max_bytes, stop_after)

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop delivery of these partitions."""
        self._buffer.stop(partitions)
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Start delivery of these partitions again."""
        self._paused.difference_update(partitions)
        self._buffer.start([source for source in partitions if source not in self._doubted])

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Continue a partition at a committed offset, without reading the records before it."""
        self._lag.published([NextOffset(source, offset)])
        if self._buffer.skip_to(source, offset):
            return  # the client has read beyond ``offset``
        try:
            self._client.seek(KafkaPartition(source.topic, source.partition, offset))
        except KafkaException as error:
            # The caller skips earlier records anyway, so this only takes longer.
            _log.warning("stream.seek_failed", error=describe(error.args[0]))

    def seek_to_beginning(self, source: TopicPartition) -> None:
        """Continue a partition at its first record. Raises StreamFailed."""
        self._duplicates.begin([source])
        self._buffer.skip_to(source, _NO_OFFSET)
        try:
            self._client.seek(KafkaPartition(source.topic, source.partition, OFFSET_BEGINNING))
        except KafkaException as error:
            raise StreamFailed(
                f"cannot seek in {source.topic}: {describe(error.args[0])}"
            ) from error

    def group_metadata(self) -> Any:
        """Return the current group membership, for a transaction's offsets.

        Raises PublishAborted if the group has removed this member. The client knows that before the
        loop does, and its metadata then has no member id and sometimes no generation (librdkafka
        2.16). Kafka takes that for a client outside of the group, and would let it commit offsets
        of partitions that another member owns now.
        """
        metadata = self._client.consumer_group_metadata()
        if not self._client.memberid():  # asked second, so that it holds for ``metadata`` too
            raise PublishAborted("the group has removed this member")
        return metadata

    def commit(self, next_offsets: Sequence[NextOffset]) -> None:
        """Commit offsets outside of a transaction. Blocks. Raises KafkaException.

        Offsets that could not be committed are kept for ``commit_again`` while their partitions
        are assigned.
        """
        self._uncommitted.update({following.source: following for following in next_offsets})
        self._commit(next_offsets)

    def commit_again(self) -> None:
        """Commit the offsets that ``commit`` could not. Raises KafkaException."""
        if self._uncommitted:
            self._commit(tuple(self._uncommitted.values()))

    def publish(self, batch: Batch) -> None:
        """Publish a batch. Raises PublishAborted, OutputRefused, OutcomeUnknown, StreamFailed."""
        self._publisher.publish(batch)
        self._lag.published(batch.next_offsets)

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """End the transaction or commit in doubt, then read the committed offsets."""
        self._publisher.resolve()
        committed = [
            NextOffset(to_source(partition), partition.offset)
            for partition in self._ask_committed(partitions)
            if partition.offset >= 0
        ]
        self._lag.published(committed)
        return committed

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Read the committed offsets with their notes. Raises PublishAborted if unknown so far."""
        found = []
        ids = self._ids.wait_for({source.topic for source in partitions}, _COMMITTED_S)
        for partition in self._ask_committed(partitions):
            _, end = self._client.get_watermark_offsets(partition, cached=True)
            found.append(
                CommittedOffset(
                    to_source(partition),
                    partition.offset if partition.offset >= 0 else None,
                    partition.metadata or "",
                    end if end >= 0 else None,
                    ids.get(partition.topic),
                )
            )
        return found

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return the lag as of the client's last statistics. Safe from any thread."""
        return self._lag.records

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the timestamps of the oldest waiting records. Safe from any thread."""
        return self._lag.oldest_ms

    def take_ends(self) -> Mapping[TopicPartition, int]:
        """Return where partitions without waiting records end, as last reported."""
        return self._lag.take_ends()

    def close(self) -> None:
        """Leave the group without publishing anything more, and free both clients."""
        if self._closed:
            return
        self._closed = True
        self._publisher.close()
        self._listener = None
        # With close() alone, a member without a partition does not leave the group (librdkafka
        # 2.16, cooperative assignment): the next rebalance would wait until its session times out.
        if not self._client.assignment():
            self._client.unsubscribe()
        # It was seen to hang after the machine had stood still for minutes (librdkafka 2.16).
        calls = BoundedCaller("close")
        try:
            calls.call(self._client.close, _CLOSE_S)
        except TimeoutError:
            _log.warning("stream.close_hangs", waited_s=_CLOSE_S)
        finally:
            calls.close()

    def _ask_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[KafkaPartition]:
        asked = to_kafka_partitions(partitions)
        try:
            # The broker does not answer while the open transaction of another worker holds offsets
            # of these partitions. After a crash that lasts until transaction.timeout.ms.
            return without_errors(self._client.committed(asked, timeout=_COMMITTED_S))
        except KafkaException as error:
            cause = error.args[0]
            raise PublishAborted(
                f"the committed offsets are not known: {describe(cause)}",
                unreachable=is_unreachable(cause),
            ) from error

    def _commit(self, next_offsets: Sequence[NextOffset]) -> None:
        done = self._client.commit(offsets=to_kafka_offsets(next_offsets), asynchronous=False)
        without_errors(done or ())
        for following in next_offsets:
            self._uncommitted.pop(following.source, None)

    def _read(self, message: Message) -> Record | None:
        error = message.error()
        if error is None:
            record = to_record(message, self._config.cluster)
            if self._duplicates.has(record.source, record.offset, message.leader_epoch()):
                self._skipped += 1
                self._ids.doubt(record.source.topic)
                self._doubted.add(record.source)
                self._buffer.stop([record.source])
                return None
            return record
        # A topic that a pattern matched may be deleted again.
        passing = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and (
            message.topic() not in self._topics.subscribed
        )
        if error.fatal() or (error.code() in HOPELESS and not passing):
            where = f"{message.topic()}: " if message.topic() else ""  # the group has none
            raise StreamFailed(f"{where}{describe(error)}")
        _log.warning("stream.fetch_error", error=describe(error))
        return None

    def _fill(self, timeout_s: float) -> None:
        """Move what the client has fetched into the buffer; pause partitions that are full."""
        message = self._client.poll(timeout_s)
        polls = 0
        while message is not None:
            if (record := self._read(message)) is not None:
                self._lag.delivered((record,))
                self._buffer.add(record)
            polls += 1
            if polls >= (_MOST_POLLS_IF_FULL if self._buffer.is_full else _MOST_POLLS):
                break
            message = self._client.poll(0)
        # Not before the client's queue is empty: it discards what it has of a paused partition.
        if message is not None and not self._buffer.is_full:
            return
        retry = self._topics.retry
        held = {each for each in self._paused if each.topic == retry} if retry else set()
        pause, resume = self._buffer.regulate(held)
        if pause:
            self._client.pause(to_kafka_partitions(pause))
        if resume:
            self._client.resume(to_kafka_partitions(resume))

    def _trust(self, sources: Sequence[TopicPartition]) -> None:
        """Deliver partitions again whose topic is still the same: the client had gone back."""
        self._doubted.difference_update(sources)
        self._buffer.start([source for source in sources if source not in self._paused])

    def _rebalance(self, kind: _Rebalance, partitions: Sequence[KafkaPartition]) -> None:
        sources = [to_source(each) for each in partitions]
        self._duplicates.begin(sources)
        # The client keeps a pause after the assignment ends (librdkafka issue 5113). If the
        # partition came back, it would deliver nothing.
        if paused := [source for source in sources if source in self._buffer.paused]:
            self._client.resume(to_kafka_partitions(paused))
        self._buffer.clear(sources)
        self._paused.difference_update(sources)
        self._doubted.difference_update(sources)
        if kind == "on_assigned":
            self._in_group = True
            self._lag.assigned(sources)
            # The settings are checked too, but with Python's regular expressions, which may match
            # other topics than the client's.
            self._own_results.update(
                source.topic
                for source in sources
                if source.topic in self._topics.sinks and source.topic != self._topics.retry
            )
        else:
            self._in_group = kind != "on_lost"
        if self._listener is not None:
            getattr(self._listener, kind)(sources)
        if kind != "on_assigned":
            self._lag.ended(sources)
            for source in sources:  # the next owner may have committed a later offset
                self._uncommitted.pop(source, None)

    def _on_statistics(self, text: str) -> None:
        statistics: Mapping[str, Any] = json.loads(text)
        self._lag.update(statistics, self._buffer.paused)
        # An idle worker publishes nothing, so only this shows that it has lost its brokers.
        states = {broker["state"] for broker in statistics.get("brokers", {}).values()}
        if not states or "UP" in states:
            self.unreachable_since = None
        elif self.unreachable_since is None:
            self.unreachable_since = time.monotonic()
        self._positioned += self._lag.positioned()
        # A spare member would otherwise never learn that it has joined, and stay not ready.
        has_coordinator = statistics.get("cgrp", {}).get("state") == "up"
        if self._quiet_protocol and not self._in_group and has_coordinator:
            self._rebalance("on_assigned", [])

    def _on_error(self, error: KafkaError) -> None:
        # These stop the worker; the client recovers from all others. A refused login may pass: not
        # all brokers learn of a new user at once.
        if error.fatal() or (
            error.code() in HOPELESS and error.code() != KafkaError._AUTHENTICATION
        ):
            self._fatal = error
        _log.warning("stream.client_error", error=describe(error))


_NOTHING: deque[tuple[int, int | None]] = deque()


class Lag:
    """The lag of the assigned partitions, in records and in time.

    It is computed from the client's statistics, which come at an interval, so that nothing waits
    for a broker. The client's own lag is not used: it ignores offsets that are committed within
    transactions.

    The lag is a number of offsets, from the next one to commit to the last stable one (which
    ``read_committed`` may read), as of the last fetch. The end of a paused partition is therefore
    not updated. Transaction markers are offsets without a record: if the client has read to the end
    and everything it delivered is published, the lag is 0 in spite of them.

    The lag in time is the age of the oldest record that was delivered and is not yet published.
    Records that the client has not delivered are younger, or their age is unknown.
    """

    def __init__(self) -> None:
        self._delivered: dict[TopicPartition, int] = {}
        self._published: dict[TopicPartition, int] = {}
        self._held: set[TopicPartition] = set()
        # Those whose committed offset the client knows, and whether ``positioned`` has said so.
        self._committed: dict[TopicPartition, bool] = {}
        self._ends: dict[TopicPartition, int] = {}
        self.topics: Collection[str] = ()
        """The topics of the assigned partitions."""
        # Offset and timestamp of the records delivered and not published, in order.
        self._waiting: dict[TopicPartition, deque[tuple[int, int | None]]] = {}
        # Both are replaced and never changed, so that other threads may read them.
        self.records: Mapping[TopicPartition, int] = {}
        """The lag of each partition for which it is known."""
        self.oldest_ms: Mapping[TopicPartition, int] = {}
        """The timestamp (Unix milliseconds) of each partition's oldest waiting record, if any."""

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Track these partitions."""
        self._held.update(partitions)
        self.topics = {source.topic for source in self._held}

    def ended(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these partitions."""
        self._held.difference_update(partitions)
        self.topics = {source.topic for source in self._held}
        for source in partitions:
            self._committed.pop(source, None)
            self._ends.pop(source, None)
            self._delivered.pop(source, None)
            self._published.pop(source, None)
            self._waiting.pop(source, None)
        self.records = {at: lag for at, lag in self.records.items() if at in self._held}
        self.oldest_ms = {at: ms for at, ms in self.oldest_ms.items() if at in self._held}

    def delivered(self, records: Iterable[Record]) -> None:
        """Add delivered records, in order."""
        for record in records:
            source, offset = record.source, record.offset
            self._delivered[source] = offset + 1
            if offset < self._published.get(source, 0):
                continue  # delivered again, although its result is published
            waiting = self._waiting.get(source)
            if waiting is None:
                waiting = self._waiting[source] = deque()
            while waiting and waiting[-1][0] >= offset:  # after a rewind
                waiting.pop()
            waiting.append((offset, record.timestamp_ms))

    def take_ends(self) -> Mapping[TopicPartition, int]:
        """Return the ends of partitions with nothing to publish but markers to skip."""
        found = {at: end for at, end in self._ends.items() if end > self._published.get(at, -1)}
        self._ends = {}
        return found

    def positioned(self) -> list[TopicPartition]:
        """Return the partitions whose committed offset the client has come to know."""
        found = [source for source, said in self._committed.items() if not said]
        self._committed |= dict.fromkeys(found, True)
        return found

    def published(self, offsets: Iterable[NextOffset]) -> None:
        """Drop the records before these committed offsets."""
        for next_offset in offsets:
            self._published[next_offset.source] = next_offset.offset
            waiting = self._waiting.get(next_offset.source, _NOTHING)
            while waiting and waiting[0][0] < next_offset.offset:
                waiting.popleft()

    def update(self, statistics: Mapping[str, Any], paused: Collection[TopicPartition]) -> None:
        """Compute each lag from the client's statistics (librdkafka's STATISTICS.md).

        The client has discarded the records that it had prefetched from ``paused`` partitions.
        """
        found = {}
        for topic in statistics["topics"].values():
            for facts in topic["partitions"].values():
                source = TopicPartition(topic["topic"], facts["partition"])
                if source in self._held and facts["committed_offset"] >= 0:
                    self._committed.setdefault(source, False)
                if (
                    source in self._held
                    and (lag := self._of(source, facts, source in paused)) is not None
                ):
                    found[source] = lag
        self.records = found
        self.oldest_ms = {
            source: oldest
            for source, waiting in self._waiting.items()
            if waiting and (oldest := waiting[0][1]) is not None
        }

    def _of(self, source: TopicPartition, facts: Mapping[str, Any], paused: bool) -> int | None:
        end = facts["ls_offset"]
        # If nothing was published in this assignment: the group's offset, or the log's start.
        known = (self._published.get(source, -1), facts["committed_offset"], facts["lo_offset"])
        start = next((offset for offset in known if offset >= 0), None)
        if end < 0 or start is None:
            return None
        done = self._delivered.get(source, 0) <= start and not paused
        if done and facts["next_offset"] >= end and not facts["fetchq_cnt"]:
            if facts["next_offset"] > start:
                self._ends[source] = facts["next_offset"]
            return 0
        return max(0, int(end) - int(start))


class DuplicateFilter:
    """Finds records that the client delivers twice within an assignment.

    librdkafka may go back: if a partition without a committed offset is paused and resumed while
    the client asks for its first offset, the client discards the first answer, fetches by the
    second, and starts at the beginning again when its timer for the first one runs out (seen with
    2.16; similar: issues 4637 and 4686).
    """

    def __init__(self) -> None:
        self._last: dict[TopicPartition, tuple[int, int]] = {}

    def begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these partitions, whose assignment begins or ends."""
        for source in partitions:
            self._last.pop(source, None)

    def has(self, source: TopicPartition, offset: int, leader_epoch: int | None) -> bool:
        """Return whether this record was delivered before, and record that it is delivered now.

        A truncated log (unclean leader election) has new records under old offsets. Their leader
        epoch is later than that of all earlier records.
        """
        epoch = -1 if leader_epoch is None else leader_epoch
        last_offset, last_epoch = self._last.get(source, (-1, -1))
        if offset <= last_offset and 0 <= epoch <= last_epoch:
            return True
        self._last[source] = (offset, epoch)
        return False
