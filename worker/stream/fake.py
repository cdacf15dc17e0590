"""Kafka in memory, for tests: partitions, committed offsets, transactions, rebalances.

Public and small, so that code that builds on the loop can be tested without a broker. It keeps the
promise that matters: outputs and offsets of a batch become visible together or not at all.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from worker.errors import StreamFailed
from worker.records.types import (
    Batch,
    CommittedOffset,
    NextOffset,
    Outgoing,
    Record,
    TopicPartition,
)
from worker.stream.port import AssignmentListener


class FakeStream:
    """See ``worker.stream.port.Stream``. Each poll runs the next function of ``script``."""

    def __init__(
        self,
        topic: str = "in",
        partitions: int = 1,
        retry_topic: str | None = None,
        *,
        urgent: int = 0,
    ) -> None:
        self.sources = [
            TopicPartition("urgent" if number < urgent else topic, number)
            for number in range(partitions)
        ]
        """The first ``urgent`` ones are of another topic. The retry topic's only partition is the
        last one; it gets the records published to it."""
        self._retry_source = None if retry_topic is None else TopicPartition(retry_topic, 0)
        if self._retry_source is not None:
            self.sources.append(self._retry_source)
        self.log: dict[TopicPartition, list[Record]] = {source: [] for source in self.sources}
        self.committed: dict[TopicPartition, int] = {}
        self.notes: dict[TopicPartition, str] = {}
        """The note committed with each offset."""
        self.outputs: list[Outgoing] = []
        self.publishes: list[Batch] = []
        self.failures: deque[Exception | None] = deque()
        """Raised by the next publishes, one each; None lets a publish succeed."""
        self.commits_before_failure = False
        """A failing publish publishes all the same, as if its answer were lost."""
        self.assigned: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        self.calls: list[str] = []
        self.script: deque[Callable[[], None]] = deque()
        self.closed = False
        self.ends: dict[TopicPartition, int] = {}
        """What ``take_ends`` returns next."""
        self.unreachable_since: float | None = None
        self.forgets_committed = False
        """Deliver assigned partitions from their beginning, as librdkafka may."""
        self.topic_id = "cluster/1/id"  # ids are base64, which has slashes
        self._ids: dict[TopicPartition, str] = {}
        self._unfounded: set[TopicPartition] = set()
        """Partitions whose committed offset belongs to a deleted topic."""
        self._listener: AssignmentListener | None = None
        self._position: dict[TopicPartition, int] = defaultdict(int)

    def add(self, value: bytes | None, partition: int = 0, key: bytes | None = None) -> Record:
        """Append a record to a partition and return it."""
        source = self.sources[partition]
        record = Record(source, len(self.log[source]), key, value, timestamp_ms=1_700_000_000_000)
        self.log[source].append(record)
        return record

    def recreate(self) -> None:
        """Delete the topic and create it again. The worker is stopped when it polls."""
        self.topic_id = f"cluster/{int(self.topic_id.split('/')[1]) + 1}/id"
        for source in self.sources:
            if source != self._retry_source:
                self.log[source].clear()
                self._unfounded.add(source)

    def assign(self, *partitions: int) -> None:
        """Assign partitions to the worker, from their committed offsets on."""
        ours = [self.sources[number] for number in partitions]
        for source in ours:
            known = 0 if self.forgets_committed else self.committed.get(source, 0)
            # Beyond the end, Kafka starts at the beginning.
            self._position[source] = known if known <= len(self.log[source]) else 0
            self._ids[source] = self._id_of(source)
        self.assigned.update(ours)
        assert self._listener is not None
        self._listener.on_assigned(ours)
        if doubtful := [source for source in ours if source in self._unfounded]:
            self.script.append(partial(self._listener.on_positioned, doubtful))

    def revoke(self, *partitions: int) -> None:
        """Revoke partitions; the worker may publish finished results first."""
        ours = [self.sources[number] for number in partitions]
        assert self._listener is not None
        self._listener.on_revoked(ours)
        self._unassign(ours)

    def lose(self, *partitions: int) -> None:
        """Take partitions away; the worker learns of it afterwards."""
        ours = [self.sources[number] for number in partitions]
        self._unassign(ours)
        assert self._listener is not None
        self._listener.on_lost(ours)

    def subscribe(self, listener: AssignmentListener) -> None:
        """Store the listener. ``assign`` assigns partitions."""
        self._listener = listener

    def poll(
        self,
        max_records: int,
        timeout_s: float,  # noqa: ARG002
        *,
        max_bytes: int | None = None,
        stop_after: Callable[[Record], bool] | None = None,
    ) -> Sequence[Record]:
        """Run one step of the script, then return the available records. Never waits."""
        if self.script:
            self.script.popleft()()
        if any(self._ids[source] != self._id_of(source) for source in self.assigned):
            raise StreamFailed("the topic was deleted and created again")
        records: list[Record] = []
        size_bytes = 0
        for source in sorted(self.assigned - self.paused, key=self.sources.index):
            start = self._position[source]
            for record in self.log[source][start : start + max_records - len(records)]:
                if max_bytes is not None and size_bytes >= max_bytes:
                    return records
                records.append(record)
                size_bytes += record.size_bytes
                self._position[source] = record.offset + 1
                if stop_after is not None and stop_after(record):
                    return records
        return records

    def pause(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver no more of these."""
        self.calls.append("pause")
        self.paused.update(partitions)

    def resume(self, partitions: Sequence[TopicPartition]) -> None:
        """Deliver these again."""
        self.calls.append("resume")
        self.paused.difference_update(partitions)

    def seek(self, source: TopicPartition, offset: int) -> None:
        """Continue at an offset."""
        self.calls.append("seek")
        self._position[source] = offset

    def seek_to_beginning(self, source: TopicPartition) -> None:
        """Continue at the first record."""
        self._position[source] = 0

    def publish(self, batch: Batch) -> None:
        """Publish a whole batch, or raise the next of ``failures``."""
        failure = self.failures.popleft() if self.failures else None
        if failure is None or self.commits_before_failure:
            self.publishes.append(batch)
            self.outputs.extend(batch.outputs)
            self._append_retries(batch.outputs)
            for following in batch.next_offsets:
                source, offset = following.source, following.offset
                assert source in self.assigned, "published for a partition that was lost"
                committed = self.committed.get(source, 0)
                repeated = offset == committed and not batch.outputs
                backwards = source in self._unfounded
                assert offset > committed or repeated or backwards, "an offset went backwards"
                if self._id_of(source) == self._ids[source]:
                    self._unfounded.discard(source)
                self.committed[source] = offset
                self.notes[source] = following.note
        if failure is not None:
            raise failure

    def resolve_unknown_commit(self, partitions: Sequence[TopicPartition]) -> Sequence[NextOffset]:
        """Return the committed offsets."""
        self.calls.append("resolve_unknown_commit")
        known = [source for source in partitions if source in self.committed]
        return [NextOffset(source, self.committed[source]) for source in known]

    def read_committed(self, partitions: Sequence[TopicPartition]) -> Sequence[CommittedOffset]:
        """Return the committed offsets with their notes, and the ends of the logs."""
        return [
            CommittedOffset(
                source,
                self.committed.get(source),
                self.notes.get(source, ""),
                len(self.log[source]),
                self._id_of(source),
            )
            for source in partitions
        ]

    def lag(self) -> Mapping[TopicPartition, int]:
        """Count the uncommitted records of each assigned partition."""
        committed = self.committed
        return {
            source: len(self.log[source]) - committed.get(source, 0) for source in self.assigned
        }

    def oldest_ms(self) -> Mapping[TopicPartition, int]:
        """Return the timestamp of each assigned partition's first uncommitted record."""
        waiting = {
            source: self.log[source][self.committed.get(source, 0) :] for source in self.assigned
        }
        return {
            source: records[0].timestamp_ms
            for source, records in waiting.items()
            if records and records[0].timestamp_ms is not None
        }

    def take_ends(self) -> Mapping[TopicPartition, int]:
        """Return ``ends``, once."""
        found, self.ends = self.ends, {}
        return found

    def close(self) -> None:
        """Set ``closed``."""
        self.closed = True

    def _id_of(self, source: TopicPartition) -> str:
        return "retry" if source == self._retry_source else self.topic_id

    def _append_retries(self, outputs: Sequence[Outgoing]) -> None:
        source = self._retry_source
        for outgoing in outputs:
            if source is not None and outgoing.topic == source.topic:
                log = self.log[source]
                log.append(Record(source, len(log), outgoing.key, outgoing.value, outgoing.headers))

    def _unassign(self, partitions: Sequence[TopicPartition]) -> None:
        self.assigned.difference_update(partitions)
        self.paused.difference_update(partitions)
