"""Publish completed records and their next offsets together, and retry until they are committed.

The loop's policy is defined here, because most of it concerns publishing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from worker.contract.records import Headers, Replay, shadow_headers, without_worker_headers
from worker.core.arms import ShadowRequest
from worker.core.assignment import Assignment, Backpressure, Bounds, CompletedRecord, PartitionState
from worker.core.events import (
    BatchRefused,
    KafkaReachable,
    KafkaUnreachable,
    Listener,
    Published,
    PublishFailed,
    Publishing,
    TransactionEnded,
    TransactionResult,
)
from worker.core.urgency import NONE_URGENT, Urgency
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    StreamFailed,
)
from worker.records.encode import RetryPolicy
from worker.records.types import (
    Batch,
    Classified,
    NextOffset,
    Outgoing,
    Postponed,
    Record,
    Rejected,
    Tombstone,
    TopicPartition,
)
from worker.stream.port import Sink

PUBLISH_MAX_RECORDS = 500
"""Large enough that a transaction costs little per record, small enough to be repeated quickly."""


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Times in seconds, sizes in records.

    ``publish_attempts``: refusals in a row before the worker stops. ``publish_backoff_s``: the wait
    after the first of them. ``idle_poll_s``: the longest wait for a record when nothing is in
    flight. ``result_wait_s``: the longest wait for an answer. Only ``bounds``, ``drain_s`` and
    ``urgency`` are settings; the others are constants.
    """

    bounds: Bounds
    drain_s: float
    urgency: Urgency = NONE_URGENT
    # A transaction takes about 10 ms, so a quiet loop spends at most a fifth of its time on
    # transactions. A router does not notice the wait. Under load it grows: each transaction also
    # writes a marker to each partition that it touches, at 20 a second more than 250 results.
    publish_interval_s: float = 0.05
    longest_interval_s: float = 0.25
    publish_max_records: int = PUBLISH_MAX_RECORDS
    # With the backoff about half a minute: longer than the election of a new leader.
    publish_attempts: int = 10
    publish_backoff_s: float = 0.2
    # The next owner of the partition waits this long. Most answers come in time; the next owner
    # labels the other records again.
    revoke_drain_s: float = 2.0
    idle_poll_s: float = 0.5
    result_wait_s: float = 0.01


@dataclass(frozen=True, slots=True)
class TopicRouter:
    """Decides which topic each completed record goes to; the record's adapter encodes it.

    Outputs keep the input's headers, except those that a worker wrote. ``propagate_headers`` may
    change them (trace context). Results of a ``replay`` are marked with it.
    """

    output_topic: str
    review_topic: str | None
    shadow_topic: str | None = None
    propagate_headers: Callable[[CompletedRecord], Headers] | None = None
    retry: RetryPolicy | None = None
    replay: Replay | None = None
    serializers: Mapping[str, Callable[[bytes], bytes]] = field(default_factory=dict)
    """By topic, how a label's JSON is written with its registered schema."""

    def route(self, completed: CompletedRecord, now: datetime) -> Outgoing | None:
        """Return the one record to produce for the output, review, dead-letter, or retry topic.

        None if the record is skipped.
        """
        outcome = completed.outcome
        if isinstance(outcome, Postponed):
            assert self.retry is not None
            return self.retry.encode(completed.record, outcome, now)
        if isinstance(outcome, Rejected):
            return self._dead_letter(completed, outcome)
        record = self._with_headers(completed)
        if isinstance(outcome, Tombstone):
            if not outcome.forwarded:
                return None
            return Outgoing(self.output_topic, record.key, None, record.headers)
        topic = self.output_topic
        if outcome.review and self.review_topic is not None:
            topic = self.review_topic
        return self._framed(
            completed.adapter.outputs.encode(record, outcome, topic, now, self.replay)
        )

    def _framed(self, label: Outgoing) -> Outgoing:
        serialize = self.serializers.get(label.topic)
        if serialize is not None and label.value is not None:
            label.value = serialize(label.value)
        return label

    def _dead_letter(self, completed: CompletedRecord, rejected: Rejected) -> Outgoing:
        dead_letters = completed.adapter.dead_letters
        encode = dead_letters.without_payload if completed.without_payload else dead_letters.encode
        letter = encode(completed.record, rejected)
        if self.replay is None:
            return letter
        return replace(letter, headers=letter.headers + self.replay.headers())

    def _with_headers(self, completed: CompletedRecord) -> Record:
        """Return the record with the headers that its output gets."""
        record = completed.record
        kept = without_worker_headers(record.headers)
        if kept != record.headers:
            record = replace(record, headers=kept)
        if self.propagate_headers is not None:
            traced = self.propagate_headers(replace(completed, record=record))
            record = replace(record, headers=traced)
        return record

    def route_shadow(
        self, completed: CompletedRecord, shadow: ShadowRequest, now: datetime
    ) -> Outgoing | None:
        """Encode a shadow's label, with the real label and its adapter in headers.

        None if the shadow has no label yet, or if the record has none.
        """
        if self.shadow_topic is None:
            return None
        # Closed only now: an answer still counts that came while the record waited for its turn.
        shadow.close()
        outcome = completed.outcome
        if not isinstance(outcome, Classified):
            shadow.drop("no_label")
            return None
        if shadow.result is None:
            return None
        real = shadow_headers(outcome.decision.label, completed.adapter.digest)
        kept = without_worker_headers(completed.record.headers)
        record = replace(completed.record, headers=kept + real)
        return self._framed(
            shadow.adapter.outputs.encode(record, shadow.result, self.shadow_topic, now)
        )


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """One partition's part of a batch: its oldest completed records."""

    partition: PartitionState
    completed: Sequence[CompletedRecord]


def take_oldest(partition: PartitionState, count: int) -> PartitionBatch:
    """Return up to ``count`` records of a partition's completed prefix."""
    completed = [completed for _, completed in partition.watermark.peek(count)]
    return PartitionBatch(partition, completed)


def take_ready(partitions: Sequence[PartitionState], limit: int) -> list[PartitionBatch]:
    """Choose up to ``limit`` records, an equal share from each partition."""
    batches: list[PartitionBatch] = []
    left = limit
    ready = [partition for partition in partitions if partition.watermark.ready]
    # Smallest first: the unused part of their share goes to the others.
    ready.sort(key=lambda partition: partition.watermark.ready)
    for index, partition in enumerate(ready):
        share = -(-left // (len(ready) - index))  # rounded up: a small limit still takes a record
        batch = take_oldest(partition, share)
        if batch.completed:
            batches.append(batch)
            left -= len(batch.completed)
    return batches


def records_of(batches: Sequence[PartitionBatch]) -> list[CompletedRecord]:
    """Return all completed records in the order in which they are published."""
    return [completed for batch in batches for completed in batch.completed]


def build_batch(
    batches: Sequence[PartitionBatch], topic_router: TopicRouter, now: datetime
) -> Batch:
    """Encode these records and the offset after each partition's last one.

    Shadows' records come last, so that an index into the outputs finds the record
    (``replace_refused``).
    """
    completed_records = records_of(batches)
    routed = [topic_router.route(completed, now) for completed in completed_records]
    outputs = [outgoing for outgoing in routed if outgoing is not None]
    for completed in completed_records:
        for shadow in completed.shadows:
            outgoing = topic_router.route_shadow(completed, shadow, now)
            if outgoing is not None:
                outputs.append(outgoing)
    return Batch(outputs, [_next_offset(batch) for batch in batches])


def _next_offset(batch: PartitionBatch) -> NextOffset:
    offset, suspects = batch.completed[-1].record.offset + 1, batch.partition.suspects
    note = suspects.note(offset) if suspects is not None else ""
    return NextOffset(batch.partition.source, offset, note)


Part = Sequence[tuple[PartitionState, int]]
"""A part of a batch: how many of each partition's oldest records."""


def divide(batches: Sequence[PartitionBatch], index: int) -> tuple[Part, Part]:
    """Divide a batch after the record with the output ``index``; return the first part last."""
    first, rest, left = [], [], index + 1
    for batch in batches:
        taken = 0
        while left and taken < len(batch.completed):
            left -= batch.completed[taken].outcome.kind != "skipped"  # those have no output
            taken += 1
        first.append((batch.partition, taken))
        rest.append((batch.partition, len(batch.completed) - taken))
    return [each for each in rest if each[1]], [each for each in first if each[1]]


def drop_shadows(batches: Sequence[PartitionBatch]) -> bool:
    """Drop the shadows' labels of these records from the next attempt; return whether there were
    any."""
    found = False
    for shadow in (each for done in records_of(batches) for each in done.shadows):
        if shadow.result is not None:
            shadow.drop("not_published")
            found = True
    return found


def replace_refused(
    batches: Sequence[PartitionBatch], indexes: Sequence[int], rejected: Rejected
) -> None:
    """Replace the outcomes at ``indexes`` of the batch by ones that the broker may accept.

    A label or a retry becomes a dead letter, and a dead letter loses its payload. Raises
    StreamFailed if a dead letter without payload was refused.
    """
    placed = [
        (batch.partition, completed)
        for batch in batches
        for completed in batch.completed
        if completed.outcome.kind != "skipped"  # it has no output, so it is not indexed
    ]
    for index in indexes:
        partition, completed = placed[index]
        record, outcome = completed.record, completed.outcome
        if isinstance(outcome, Postponed):
            smaller = replace(completed, outcome=outcome.rejected)
        elif not isinstance(outcome, Rejected):
            smaller = replace(completed, outcome=rejected)
        elif not completed.without_payload:
            smaller = replace(completed, without_payload=True)
        else:
            raise StreamFailed(
                f"the dead letter of {record.id} cannot be written even without its payload "
                f"({rejected.detail}): raise max.message.bytes of the dead-letter topic, and do "
                "not compact it"
            )
        partition.watermark.replace(record.offset, smaller)


MAX_BACKOFF_S = 5.0
"""The wait after a failed publish doubles up to this, so that an outage does not end unnoticed."""


class BatchPublisher:
    """Publishes completed records and releases them. For the loop's thread, except
    ``outage_since``.

    After a commit without an answer nothing is published until its outcome is known: publishing the
    same records again could double them.
    """

    def __init__(
        self,
        stream: Sink,
        *,
        assignment: Assignment,
        pressure: Backpressure,
        topic_router: TopicRouter,
        listener: Listener,
        policy: LoopPolicy,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        wait: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._assignment = assignment
        self._pressure = pressure
        self._topic_router = topic_router
        self._listener = listener
        self._policy = policy
        self._clock = clock
        self._now = now
        self._wait = wait
        self._last_publish = clock()
        self._rate = 0.0
        """Published records a second, averaged over the last batches."""
        self._commit_unknown = False
        self._refusals = 0
        self._unreachable = 0
        self.outage_since: float | None = None
        """When Kafka was first found unreachable (the loop's clock), None while it is reachable.
        Safe to read from any thread."""
        self._parts: list[Part] = []
        """The parts of a refused batch that are published one by one, the next one last."""

    @property
    def due_in_s(self) -> float:
        """Seconds until ready records are published, however few; negative if overdue."""
        return self._last_publish + self._interval_s - self._clock()

    @property
    def is_due(self) -> bool:
        """Whether enough records are ready, or have waited long enough."""
        ready = self._assignment.ready
        if not ready:
            return False
        policy = self._policy
        if ready >= min(policy.publish_max_records, policy.bounds.max_records // 1.5):
            return True
        # A full partition gives the engine no more until its records are published, and one alone
        # may hold half of the bounds.
        eighth = policy.bounds.max_records // 8
        if ready >= eighth and self._pressure.is_full(self._assignment):
            return True
        if ready == self._pressure.records and self._interval_s <= policy.publish_interval_s:
            return True  # no record in flight could join the batch
        return self.due_in_s <= 0

    @property
    def _interval_s(self) -> float:
        """The wait for a batch: as long as 60 records take at 250 a second, shorter below and with
        an urgent one."""
        policy = self._policy
        if self._assignment.urgent_is_ready:
            return policy.publish_interval_s
        return max(policy.publish_interval_s, min(policy.longest_interval_s, self._rate / 1000))

    def try_publish(self) -> None:
        """Publish ready records of all partitions; if that fails, wait. Raises StreamFailed."""
        try:
            self.publish(tuple(self._assignment))
        except PublishAborted as error:
            self.failed(error)

    def failed(self, error: PublishAborted) -> None:
        """Wait before the next attempt. Raises StreamFailed after too many refusals in a row.

        There is no limit while Kafka is unreachable: a restart would load the model again and
        would not reach Kafka any sooner. The loop polls between attempts.
        """
        if error.unreachable:
            if self.outage_since is None:
                self.outage_since, self._unreachable = self._clock(), 0
                self._listener(KafkaUnreachable(error))
            self._unreachable += 1
            failures = self._unreachable
        else:
            self._refusals += 1
            failures = self._refusals
            self._listener(PublishFailed(self._assignment.ready, failures, error))
            if failures >= self._policy.publish_attempts:
                raise StreamFailed(
                    f"{failures} attempts to publish failed in a row: {error}"
                ) from error
        doublings = min(failures - 1, 32)  # a float overflows after 1,024, during a long outage
        self._wait(min(MAX_BACKOFF_S, self._policy.publish_backoff_s * 2.0**doublings))

    def publish(self, partitions: Sequence[PartitionState]) -> bool:
        """Publish one batch of these partitions' ready records, or the next part of a refused one.

        If the broker refuses records, replace their outcomes, or divide the batch to find them, and
        return False: that may take several attempts, and the loop must poll in between. Raises
        PublishAborted, StreamFailed.
        """
        if self._commit_unknown:
            self._resolve_unknown_commit()
        started = self._clock()
        batches = self._next_batches(partitions)
        if not batches:
            return True
        try:
            self._attempt(batches)
        except OutputRefused as error:
            replaced = 0
            if not drop_shadows(batches):  # the record to blame may be a shadow's
                replaced = self._replace_or_divide(batches, error)
            self._listener(BatchRefused(len(records_of(batches)), replaced, error))
            return False
        except PublishAborted as error:
            drop_shadows(batches)
            self._commit_unknown = isinstance(error, OutcomeUnknown)
            raise
        if self._parts:
            self._parts.pop()
        self._confirm(batches, started)
        return True

    def commit_notes(self, offsets: Callable[[], Sequence[NextOffset]]) -> None:
        """Commit offsets with their notes, without results. Raises PublishAborted, StreamFailed."""
        if self._commit_unknown:
            self._resolve_unknown_commit()  # first: it may advance the offsets
        self._stream.publish(Batch((), offsets()))

    def try_commit_ends(self, ends: Mapping[TopicPartition, int]) -> None:
        """Commit past the transaction markers after the last record; if that fails, wait."""
        idle = [
            (partition, partition.suspects, ends[partition.source])
            for partition in self._assignment
            if partition.suspects is not None and partition.source in ends
        ]
        try:
            if idle:
                self.commit_notes(
                    lambda: [
                        NextOffset(partition.source, end, suspects.note(end))
                        for partition, suspects, end in idle
                    ]
                )
        except PublishAborted as error:
            self.failed(error)
            return
        for _, suspects, end in idle:
            suspects.commit(end)

    def _attempt(self, batches: Sequence[PartitionBatch]) -> None:
        started = self._clock()
        self._listener(Publishing(records_of(batches)))
        # A transaction begins only now. One that stays open while the engine works would hold up
        # read_committed consumers for as long as the slowest message takes.
        try:
            self._stream.publish(build_batch(batches, self._topic_router, self._now()))
        except (PublishAborted, StreamFailed) as error:
            unknown = isinstance(error, OutcomeUnknown)
            result: TransactionResult = "unknown" if unknown else "aborted"
            self._listener(TransactionEnded(result, self._clock() - started))
            raise
        self._listener(TransactionEnded("committed", self._clock() - started))

    def _next_batches(self, partitions: Sequence[PartitionState]) -> list[PartitionBatch]:
        """Choose the records of the next attempt."""
        held = {partition for part in self._parts for partition, _ in part}
        if any(partition.ended for partition in held) or not held.issubset(partitions):
            self._parts.clear()
        if self._parts:  # taken again, because outcomes may have been replaced
            return [take_oldest(partition, count) for partition, count in self._parts[-1]]
        return take_ready(partitions, self._policy.publish_max_records)

    def _replace_or_divide(self, batches: Sequence[PartitionBatch], error: OutputRefused) -> int:
        """Replace the outcomes of records that are to blame, and return how many.

        While it is not certain which these are, divide the batch so that half of the suspects are
        in each part. A limit for all batches would not find them: with new records in each batch,
        the refused one always is in the next.
        """
        if not self._parts:
            self._parts.append([(batch.partition, len(batch.completed)) for batch in batches])
        written = [each for each in records_of(batches) if each.outcome.kind != "skipped"]
        suspects = error.indexes or range(len(written))
        if error.certain or len(suspects) == 1:
            replace_refused(batches, suspects, Rejected(error.reason, "encode", str(error)))
            return len(suspects)
        self._parts.pop()
        self._parts += divide(batches, suspects[(len(suspects) - 1) // 2])
        return 0

    def _resolve_unknown_commit(self) -> None:
        """Confirm the records that a commit without an answer did publish."""
        started = self._clock()
        self._parts.clear()
        published = []
        for committed in self._stream.resolve_unknown_commit(self._assignment.sources):
            partition = self._assignment.get(committed.source)
            if partition is not None:
                count = partition.watermark.ready_below(committed.offset)
                published.append(take_oldest(partition, count))
        self._commit_unknown = False
        # If nothing was published, this was not a success: the failures in a row still count.
        if published := [batch for batch in published if batch.completed]:
            self._confirm(published, started)

    def _confirm(self, batches: Sequence[PartitionBatch], started: float) -> None:
        for batch in batches:
            batch.partition.watermark.confirm(len(batch.completed))
            if batch.partition.suspects is not None:
                batch.partition.suspects.commit(batch.completed[-1].record.offset + 1)
            size_bytes = sum(completed.record.size_bytes for completed in batch.completed)
            batch.partition.size_bytes -= size_bytes
            self._pressure.release(len(batch.completed), size_bytes)
        now = self._clock()
        recent = len(records_of(batches)) / max(1e-3, now - self._last_publish)
        self._rate = (self._rate + recent) / 2
        self._last_publish = now
        self._refusals = 0
        if self.outage_since is not None:
            self._listener(KafkaReachable(now - self.outage_since))
            self.outage_since = None
        self._listener(Published(records_of(batches), now - started))
