"""The consuming side of ``KafkaStream``: records, rebalances, committed offsets, lag."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as KafkaPartition

from worker.errors import PublishAborted, StreamFailed
from worker.records.types import CommittedOffset, NextOffset, Record, TopicPartition
from worker.stream.kafka_config import KafkaConfig, uses_brokers_protocol
from worker.stream.kafka_types import (
    HOPELESS,
    client_log,
    describe,
    is_unreachable,
    to_kafka_offsets,
    to_kafka_partitions,
    to_record,
)
from worker.stream.port import AssignmentListener

_log = structlog.get_logger("worker.stream")

_COMMITTED_S = 5.0

_Rebalance = Literal["on_assigned", "on_revoked", "on_lost"]


class KafkaConsumer:
    """A member of the worker's group. All of it but ``lag`` is for the loop's thread."""

    def __init__(self, config: KafkaConfig) -> None:
        self._topics = config.topics
        # Only the classic protocols tell a member that there is no partition for it.
        self._quiet_protocol = uses_brokers_protocol(config.consumer)
        self._listener: AssignmentListener | None = None
        self._fatal: KafkaError | None = None
        self._ended: set[TopicPartition] = set()
        self._paused: set[TopicPartition] = set()
        self._uncommitted: dict[TopicPartition, NextOffset] = {}
        self._cluster = config.cluster
        self._lag = Lag()
        self._duplicates = DuplicateFilter()
        self._skipped = 0
        self._in_group = False
        self._own_results: set[str] = set()
        self._client = Consumer(
            dict(config.consumer),
            error_cb=self._on_error,
            stats_cb=self._on_statistics,
            logger=client_log,
        )

    def subscribe(self, listener: AssignmentListener) -> None:
        """Join the group."""
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
        """Serve the client and return what has arrived. Raises StreamFailed."""
        records: list[Record] = []
        size_bytes = 0
        # One message at a time, so that it is known which records came before a rebalance.
        message = self._client.poll(timeout_s)
        while message is not None:
            records = self._still_assigned(records)
            if (record := self._read(message)) is not None:
                records.append(record)
                size_bytes += record.size_bytes
                if stop_after is not None and stop_after(record):
                    break
            if len(records) >= max_records or (max_bytes is not None and size_bytes >= max_bytes):
                break
            message = self._client.poll(0)
        records = self._still_assigned(records)
        if self._fatal is not None:
            raise StreamFailed(describe(self._fatal))
        if self._own_results:
            raise StreamFailed(
                f"kafka.input_topics match {', '.join(sorted(self._own_results))}, which is "
                "written to: the worker would feed itself"
            )
        if self._skipped:
            _log.warning("stream.rewound", records_skipped=self._skipped)
            self._skipped = 0
        self._lag.delivered(records)
        return records

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Stop delivery of these partitions."""
        if partitions:
            self._client.pause(to_kafka_partitions(partitions))
            self._paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Start delivery of these partitions again."""
        if partitions:
            self._client.resume(to_kafka_partitions(partitions))
            self._paused.difference_update(partitions)

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Go on with a partition at a committed offset, without reading what lies before it."""
        self._lag.published([NextOffset(source, offset)])
        try:
            self._client.seek(KafkaPartition(source.topic, source.partition, offset))
        except KafkaException as error:
            # The caller leaves earlier records out all the same: it takes longer, no more.
            _log.warning("stream.seek_failed", error=describe(error.args[0]))

    def group_metadata(self) -> Any:
        """Return the membership as the producer's transaction wants it, as of this moment.

        Raises PublishAborted when the group has given this member up. Its client knows that before
        the loop does, and then names no member and sometimes no generation either (librdkafka
        2.16), which Kafka takes for a client that has nothing to do with the group: it would let it
        commit offsets of partitions that another member has now.
        """
        metadata = self._client.consumer_group_metadata()
        if not self._client.memberid():  # asked second, so that it is true of the membership too
            raise PublishAborted("the group has given this member up")
        return metadata

    def commit(self, next_offsets: Sequence[NextOffset]) -> None:
        """Commit offsets outside of a transaction. Blocks. Raises KafkaException.

        What could not be committed is kept for ``commit_again``, while its partition is ours.
        """
        self._uncommitted.update({following.source: following for following in next_offsets})
        self._commit(next_offsets)

    def commit_again(self) -> None:
        """Commit what the last ``commit`` could not. Raises KafkaException."""
        if self._uncommitted:
            self._commit(tuple(self._uncommitted.values()))

    def published(self, next_offsets: Sequence[NextOffset]) -> None:
        """Update the lag with offsets that were committed."""
        self._lag.published(next_offsets)

    def committed(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """Read the committed offsets of these partitions. Raises PublishAborted: not known yet."""
        committed = [
            NextOffset(TopicPartition(partition.topic, partition.partition), partition.offset)
            for partition in self._ask_committed(partitions)
            if partition.offset >= 0
        ]
        self._lag.published(committed)
        return committed

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Read the committed offsets with their notes. Raises PublishAborted: not known yet."""
        found = []
        for partition in self._ask_committed(partitions):
            _, end = self._client.get_watermark_offsets(partition, cached=True)
            found.append(
                CommittedOffset(
                    TopicPartition(partition.topic, partition.partition),
                    partition.offset if partition.offset >= 0 else None,
                    partition.metadata or "",
                    end if end >= 0 else None,
                )
            )
        return found

    def lag(self) -> Mapping[TopicPartition, int]:
        """Return what the client's statistics last said. Safe from any thread."""
        return self._lag.read()

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the timestamps of the oldest waiting records. Safe from any thread."""
        return self._lag.oldest_ms()

    def close(self) -> None:
        """Leave the group and free the client."""
        self._listener = None
        # By close() alone a member without a partition does not leave (librdkafka 2.16, cooperative
        # assignment): the next rebalance would wait for it until its session ends.
        if not self._client.assignment():
            self._client.unsubscribe()
        self._client.close()

    def _ask_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[KafkaPartition]:
        try:
            found = self._client.committed(to_kafka_partitions(partitions), timeout=_COMMITTED_S)
        except KafkaException as error:
            raise _not_known(error.args[0]) from error
        for partition in found:
            if partition.error is not None:
                raise _not_known(partition.error)
        return found

    def _commit(self, next_offsets: Sequence[NextOffset]) -> None:
        done = self._client.commit(offsets=to_kafka_offsets(next_offsets), asynchronous=False)
        for partition in done or ():
            if partition.error is not None:
                raise KafkaException(partition.error)
        for following in next_offsets:
            self._uncommitted.pop(following.source, None)

    def _read(self, message: Message) -> Record | None:
        error = message.error()
        if error is None:
            record = to_record(message, self._cluster)
            if self._duplicates.has(record.source, record.offset, message.leader_epoch()):
                self._skipped += 1
                return None
            return record
        # A topic that a pattern matched may go as it came.
        passing = error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART and (
            message.topic() not in self._topics.subscribed
        )
        if error.fatal() or (error.code() in HOPELESS and not passing):
            where = f"{message.topic()}: " if message.topic() else ""  # the group has none
            raise StreamFailed(f"{where}{describe(error)}")
        _log.warning("stream.fetch_error", error=describe(error))
        return None

    def _still_assigned(self, records: list[Record]) -> list[Record]:
        """Leave out what was read before its partition went away, even if it came back since."""
        if self._ended:
            records = [record for record in records if record.source not in self._ended]
            self._ended.clear()
        return records

    def _rebalance(self, kind: _Rebalance, partitions: Sequence[KafkaPartition]) -> None:
        sources = [TopicPartition(each.topic, each.partition) for each in partitions]
        self._duplicates.begin(sources)
        if kind == "on_assigned":
            self._in_group = True
            self._lag.assigned(sources)
            # The settings were checked, by a regular expression that is not the client's own.
            self._own_results.update(
                source.topic
                for source in sources
                if source.topic in self._topics.sinks and source.topic != self._topics.retry
            )
        else:
            self._ended.update(sources)
            self._in_group = kind != "on_lost"
        if self._listener is not None:
            getattr(self._listener, kind)(sources)
        if kind != "on_assigned":
            self._lag.ended(sources)
            for source in sources:  # the next owner may have committed a later offset
                self._uncommitted.pop(source, None)
            # The client keeps a pause beyond the assignment it was made in (librdkafka issue 5113),
            # and would deliver nothing of the partition if it came back.
            self.resume([source for source in sources if source in self._paused])

    def _on_statistics(self, text: str) -> None:
        statistics = read_statistics(text)
        self._lag.update(statistics, self._paused)
        if self._quiet_protocol and not self._in_group and has_coordinator(statistics):
            self._rebalance("on_assigned", [])

    def _on_error(self, error: KafkaError) -> None:
        # These end the worker; the client recovers from all others by itself.
        if error.fatal() or (
            error.code() in HOPELESS and error.code() != KafkaError._AUTHENTICATION
        ):
            self._fatal = error
        _log.warning("stream.client_error", error=describe(error))


def _not_known(error: KafkaError) -> PublishAborted:
    return PublishAborted(
        f"committed offsets not known: {describe(error)}", unreachable=is_unreachable(error)
    )


_NOTHING: deque[tuple[int, int | None]] = deque()


class Lag:
    """Keeps the lag of the partitions that are assigned. ``read`` is safe from any thread.

    It is read from the client's statistics, which come at an interval, so nothing waits for a
    broker. The client's own figure for the lag is not used: it does not see offsets that are
    committed within transactions.

    The lag is counted in offsets, from the next one to be committed to the last stable one (what
    ``read_committed`` may read), as of the last fetch: while a partition is paused the end is not
    looked at. Transaction markers in the input are offsets without a record; where the client has
    read to the end and everything it delivered is published, the lag is 0 in spite of them.

    The lag in time is the age of the oldest record that was delivered and is not
    published. Records that the client has not handed out are younger, or of unknown age.
    """

    def __init__(self) -> None:
        self._delivered: dict[TopicPartition, int] = {}
        self._published: dict[TopicPartition, int] = {}
        self._held: set[TopicPartition] = set()
        self._lag: Mapping[TopicPartition, int] = {}
        # Offset and timestamp of what is delivered and not published, in order.
        self._waiting: dict[TopicPartition, deque[tuple[int, int | None]]] = {}
        self._oldest_ms: Mapping[TopicPartition, int] = {}

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the oldest waiting record's timestamp (Unix milliseconds) of each partition that
        has one with a timestamp. As of the last statistics, and safe from any thread."""
        return self._oldest_ms

    def read(self) -> Mapping[TopicPartition, int]:
        """Return the lag of each partition it is known of."""
        return self._lag

    def assigned(self, partitions: Iterable[TopicPartition]) -> None:
        """Track these partitions."""
        self._held.update(partitions)

    def ended(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these partitions."""
        self._held.difference_update(partitions)
        for source in partitions:
            self._delivered.pop(source, None)
            self._published.pop(source, None)
            self._waiting.pop(source, None)
        self._lag = {source: lag for source, lag in self._lag.items() if source in self._held}
        self._oldest_ms = {at: ms for at, ms in self._oldest_ms.items() if at in self._held}

    def delivered(self, records: Iterable[Record]) -> None:
        """Add records that were handed out, in order."""
        for record in records:
            source, offset = record.source, record.offset
            self._delivered[source] = offset + 1
            if offset < self._published.get(source, 0):
                continue  # delivered once more: its result is published
            waiting = self._waiting.get(source)
            if waiting is None:
                waiting = self._waiting[source] = deque()
            while waiting and waiting[-1][0] >= offset:  # after a rewind
                waiting.pop()
            waiting.append((offset, record.timestamp_ms))

    def published(self, offsets: Iterable[NextOffset]) -> None:
        """Drop records that are committed."""
        for next_offset in offsets:
            self._published[next_offset.source] = next_offset.offset
            waiting = self._waiting.get(next_offset.source, _NOTHING)
            while waiting and waiting[0][0] < next_offset.offset:
                waiting.popleft()

    def update(self, statistics: Mapping[str, Any], paused: Collection[TopicPartition]) -> None:
        """Compute each lag from the client's statistics (librdkafka's STATISTICS.md).

        ``paused`` partitions are not fetched: what the client had read ahead of them is gone.
        """
        found = {}
        for topic in statistics["topics"].values():
            for facts in topic["partitions"].values():
                source = TopicPartition(topic["topic"], facts["partition"])
                if (
                    source in self._held
                    and (lag := self._of(source, facts, source in paused)) is not None
                ):
                    found[source] = lag
        self._lag = found
        self._oldest_ms = {
            source: oldest
            for source, waiting in self._waiting.items()
            if waiting and (oldest := waiting[0][1]) is not None
        }

    def _of(self, source: TopicPartition, facts: Mapping[str, Any], paused: bool) -> int | None:
        end = facts["ls_offset"]
        # Nothing published since it was assigned: what the group had committed, or the beginning.
        known = (self._published.get(source, -1), facts["committed_offset"], facts["lo_offset"])
        start = next((offset for offset in known if offset >= 0), None)
        if end < 0 or start is None:
            return None
        done = self._delivered.get(source, 0) <= start and not paused
        if done and facts["next_offset"] >= end and not facts["fetchq_cnt"]:
            return 0
        return max(0, int(end) - int(start))


def read_statistics(text: str) -> Mapping[str, Any]:
    """Parse what the client hands to its ``stats_cb``."""
    found: Mapping[str, Any] = json.loads(text)
    return found


def has_coordinator(statistics: Mapping[str, Any]) -> bool:
    """Return whether the client talks to its group's coordinator."""
    return bool(statistics.get("cgrp", {}).get("state") == "up")


class DuplicateFilter:
    """Knows how far each partition was delivered since it was assigned.

    librdkafka may go back within an assignment: paused and resumed while it asks for the first
    offset of a partition without a committed one, it takes the first answer for outdated, begins
    to fetch by the second, and starts at the beginning once more when its timer for the first
    runs out (seen with 2.16; issues 4637 and 4686 tell of others).
    """

    def __init__(self) -> None:
        self._last: dict[TopicPartition, tuple[int, int]] = {}

    def begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these: they were assigned, or are assigned no more."""
        for source in partitions:
            self._last.pop(source, None)

    def has(self, source: TopicPartition, offset: int, leader_epoch: int | None) -> bool:
        """Return whether this record was delivered before, and if not take it for delivered now.

        A log that was cut (an unclean election) has other records under the old offsets, of a
        later leader epoch than all that were there before. They are new.
        """
        epoch = -1 if leader_epoch is None else leader_epoch
        last_offset, last_epoch = self._last.get(source, (-1, -1))
        if offset <= last_offset and 0 <= epoch <= last_epoch:
            return True
        self._last[source] = (offset, epoch)
        return False
