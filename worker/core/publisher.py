"""Publish completed records with their next offsets, batch by batch, until each is committed.

The policy of the loop is here too, because the publisher takes most of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from worker.contract.records import Headers, shadow_headers, without_worker_headers
from worker.core.arms import ShadowRequest
from worker.core.assignment import Assignment, Backpressure, Bounds, CompletedRecord, PartitionState
from worker.core.events import (
    KafkaReachable,
    KafkaUnreachable,
    Listener,
    Published,
    PublishFailed,
    Publishing,
    TransactionEnded,
    TransactionResult,
)
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
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
)
from worker.stream.port import Stream

PUBLISH_MAX_RECORDS = 500
"""One transaction of so many costs little by the record, and is short enough to be repeated."""


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Times in seconds, sizes in records.

    ``publish_attempts`` are refusals in a row before the worker ends, ``publish_backoff_s`` the
    wait after the first of them. ``idle_poll_s`` and ``result_wait_s`` are the longest waits for a
    record when nothing is in flight, and for an answer when something is. A worker takes
    ``bounds`` and ``drain_s`` from its settings and the others as they are here.
    """

    bounds: Bounds
    drain_s: float
    # A transaction takes some 10 ms: with this interval a quiet loop spends a fifth of its time on
    # them at most, and no router notices the wait.
    publish_interval_s: float = 0.05
    publish_max_records: int = PUBLISH_MAX_RECORDS
    # With the backoff about half a minute: longer than the election of a new leader.
    publish_attempts: int = 10
    publish_backoff_s: float = 0.2
    # The next owner waits for it. Most answers come within it; the records of those that do not
    # are labelled again.
    revoke_drain_s: float = 2.0
    idle_poll_s: float = 0.5
    result_wait_s: float = 0.01


@dataclass(frozen=True, slots=True)
class TopicRouter:
    """Decides which topic each completed record goes to; its adapter says in which form.

    The input's headers go along, without those that a worker has put there; ``propagate_headers``
    may change them. ``retry`` writes what is tried again later; without it nothing is.
    """

    output_topic: str
    review_topic: str | None
    shadow_topic: str | None = None
    propagate_headers: Callable[[CompletedRecord], Headers] | None = None
    retry: RetryPolicy | None = None

    def route(self, completed: CompletedRecord, now: datetime) -> Outgoing | None:
        """Every record ends in one place: output, review or dead letters, unless it is skipped.

        Or it does not end yet, and goes to the retry topic.
        """
        outcome = completed.outcome
        if isinstance(outcome, Postponed):
            assert self.retry is not None
            return self.retry.encode(completed.record, outcome, now)
        if isinstance(outcome, Rejected):
            return _dead_letter(completed, outcome)
        record = self._with_headers(completed)
        if isinstance(outcome, Tombstone):
            if not outcome.forwarded:
                return None
            return Outgoing(self.output_topic, record.key, None, record.headers)
        topic = self.output_topic
        if outcome.review and self.review_topic is not None:
            topic = self.review_topic
        return completed.adapter.outputs.encode(record, outcome, topic, now)

    def _with_headers(self, completed: CompletedRecord) -> Record:
        """Return the record with the headers that go along."""
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
        """What a shadow made of the record, with the real label and its adapter in headers."""
        if self.shadow_topic is None:
            return None
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
        return shadow.adapter.outputs.encode(record, shadow.result, self.shadow_topic, now)


def _dead_letter(completed: CompletedRecord, rejected: Rejected) -> Outgoing:
    dead_letters = completed.adapter.dead_letters
    if completed.without_payload:
        return dead_letters.without_payload(completed.record, rejected)
    return dead_letters.encode(completed.record, rejected)


@dataclass(frozen=True, slots=True)
class PartitionBatch:
    """The part of a batch that one partition gives: its oldest completed records."""

    partition: PartitionState
    completed: Sequence[CompletedRecord]


def take_oldest(partition: PartitionState, count: int) -> PartitionBatch:
    """Return up to ``count`` records of a partition's completed prefix."""
    completed = [completed for _, completed in partition.watermark.peek(count)]
    return PartitionBatch(partition, completed)


def take_ready(partitions: Sequence[PartitionState], limit: int) -> list[PartitionBatch]:
    """Choose up to ``limit`` records, fairly: each partition gives its share of what is ready."""
    batches: list[PartitionBatch] = []
    left = limit
    ready = [partition for partition in partitions if partition.watermark.ready]
    # Those with least first: what they leave of their share is for the others.
    ready.sort(key=lambda partition: partition.watermark.ready)
    for index, partition in enumerate(ready):
        share = -(-left // (len(ready) - index))
        batch = take_oldest(partition, share)
        if batch.completed:
            batches.append(batch)
            left -= len(batch.completed)
    return batches


def records_of(batches: Sequence[PartitionBatch]) -> list[CompletedRecord]:
    """All completed records of these batches, in the order in which they are published."""
    return [completed for batch in batches for completed in batch.completed]


def build_batch(
    batches: Sequence[PartitionBatch], topic_router: TopicRouter, now: datetime
) -> Batch:
    """Encode these records, with the offset after each partition's last record.

    What shadows made of them comes after all of it.
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


def drop_shadows(batches: Sequence[PartitionBatch]) -> bool:
    """Leave what shadows made of these records out of the next try; tell if there was any."""
    found = False
    for shadow in (each for done in records_of(batches) for each in done.shadows):
        if shadow.result is not None:
            shadow.drop("not_published")
            found = True
    return found


def replace_refused(
    batches: Sequence[PartitionBatch], indexes: Sequence[int], rejected: Rejected
) -> None:
    """Make the records at ``indexes`` of the batch end as something that the broker may take.

    A label becomes a dead letter, as does what was to be tried again; a dead letter one without
    its payload. Raises StreamFailed when that is refused as well.
    """
    placed = [
        (batch.partition, completed)
        for batch in batches
        for completed in batch.completed
        if completed.outcome.kind != "skipped"  # it has no place in the batch's outputs
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


def backoff_s(first_s: float, failures: int) -> float:
    """Wait after so many failed publishes in a row: doubling, up to a bound."""
    return min(MAX_BACKOFF_S, first_s * 2.0 ** min(failures - 1, 32))


class PublishFailures:
    """Counts refusals, and waits as long as Kafka cannot be reached.

    ``unreachable_since`` is by the loop's clock, None while Kafka can be reached, and safe to read
    from any thread. Everything else is for the loop's thread.
    """

    def __init__(
        self,
        policy: LoopPolicy,
        listener: Listener,
        clock: Callable[[], float],
        wait: Callable[[float], None],
    ) -> None:
        self._policy = policy
        self._listener = listener
        self._clock = clock
        self._wait = wait
        self._refusals = 0
        self._unreachable = 0
        self.unreachable_since: float | None = None

    def failed(self, error: PublishAborted, records: int) -> None:
        """Wait before the next try. Raises StreamFailed after too many refusals in a row.

        An unreachable Kafka has no such limit: a restart would load the model again and reach it no
        sooner. The loop polls in between.
        """
        if error.unreachable:
            if self.unreachable_since is None:
                self.unreachable_since, self._unreachable = self._clock(), 0
                self._listener(KafkaUnreachable(error))
            self._unreachable += 1
            failures = self._unreachable
        else:
            self._refusals += 1
            failures = self._refusals
            self._listener(PublishFailed(records, failures, error))
            if failures >= self._policy.publish_attempts:
                raise StreamFailed(
                    f"{failures} attempts to publish failed in a row: {error}"
                ) from error
        self._wait(backoff_s(self._policy.publish_backoff_s, failures))

    def succeeded(self, now: float) -> None:
        """Reset the counts."""
        self._refusals = 0
        since, self.unreachable_since = self.unreachable_since, None
        if since is not None:
            self._listener(KafkaReachable(now - since))


class BatchPublisher:
    """Publishes completed records and lets go of them. For the loop's thread, but for
    ``outage_since``.

    Nothing is published after a commit that was not answered until that one is resolved.
    """

    def __init__(
        self,
        stream: Stream,
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
        self._failures = PublishFailures(policy, listener, clock, wait)
        self._last_publish = clock()
        self._commit_unknown = False
        self._limit = policy.publish_max_records
        """Largest batch now. Halved when the broker refuses a batch for a record in it, until that
        one is alone and known; then it doubles again."""

    @property
    def outage_since(self) -> float | None:
        """Since when Kafka cannot be reached, None if it can. Safe from any thread."""
        return self._failures.unreachable_since

    @property
    def due_in_s(self) -> float:
        """Seconds until what is ready is published, however little it is; negative: overdue."""
        return self._last_publish + self._policy.publish_interval_s - self._clock()

    @property
    def is_due(self) -> bool:
        """Whether enough is ready, or has waited for long enough."""
        ready = self._assignment.ready
        if not ready:
            return False
        waited = self._clock() - self._last_publish
        return (
            waited >= self._policy.publish_interval_s
            or ready >= self._policy.publish_max_records
            or ready == self._pressure.records  # nothing is in flight that could join the batch
        )

    def try_publish(self) -> None:
        """Publish what is ready of all partitions; if that fails, wait. Raises StreamFailed."""
        try:
            self.publish(tuple(self._assignment))
        except PublishAborted as error:
            self.failed(error)

    def failed(self, error: PublishAborted) -> None:
        """Wait after a commit that failed. Raises StreamFailed after too many in a row."""
        self._failures.failed(error, self._assignment.ready)

    def publish(self, partitions: Sequence[PartitionState]) -> None:
        """Publish one batch of what is ready of these, or find a record that cannot be published.

        Raises PublishAborted, StreamFailed.
        """
        if self._commit_unknown:
            self._resolve_unknown_commit()
        started = self._clock()
        while True:
            batches = take_ready(partitions, self._limit)
            if not batches:
                return
            try:
                self._attempt(batches)
                break
            except RecordTooLarge as error:
                if not drop_shadows(batches):  # a shadow's may have been the one
                    rejected = Rejected(error.reason, "encode", "larger than its topic takes")
                    replace_refused(batches, error.indexes, rejected)
            except OutputRefused as error:
                if not drop_shadows(batches):
                    self._find_refused(batches, error)
                return  # the search takes several attempts, and the loop has to poll in between
            except PublishAborted as error:
                drop_shadows(batches)
                self._commit_unknown = isinstance(error, OutcomeUnknown)
                raise
        self._limit = min(2 * self._limit, self._policy.publish_max_records)
        self._confirm(batches, started)

    def commit_notes(self, offsets: Callable[[], Sequence[NextOffset]]) -> None:
        """Commit these with their notes, and no results. Raises PublishAborted, StreamFailed."""
        if self._commit_unknown:
            self._resolve_unknown_commit()  # whatever was published has moved the offsets
        self._stream.publish(Batch((), offsets()))

    def _attempt(self, batches: Sequence[PartitionBatch]) -> None:
        started = self._clock()
        self._listener(Publishing(records_of(batches)))
        try:
            self._stream.publish(build_batch(batches, self._topic_router, self._now()))
        except (PublishAborted, StreamFailed) as error:
            unknown = isinstance(error, OutcomeUnknown)
            result: TransactionResult = "unknown" if unknown else "aborted"
            self._listener(TransactionEnded(result, self._clock() - started))
            raise
        self._listener(TransactionEnded("committed", self._clock() - started))

    def _find_refused(self, batches: Sequence[PartitionBatch], error: OutputRefused) -> None:
        """Try half of a batch next; what is refused alone is at fault and becomes a dead letter."""
        records = len(records_of(batches))
        if records == 1:
            replace_refused(batches, (0,), Rejected(error.reason, "encode", str(error)))
        else:
            self._limit = records // 2

    def _resolve_unknown_commit(self) -> None:
        """Find out which completed records an unanswered commit published after all."""
        started = self._clock()
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
            self._release(batch)
        self._last_publish = self._clock()
        self._failures.succeeded(self._last_publish)
        self._listener(Published(records_of(batches), self._last_publish - started))

    def _release(self, batch: PartitionBatch) -> None:
        size_bytes = sum(completed.record.size_bytes for completed in batch.completed)
        batch.partition.size_bytes -= size_bytes
        self._pressure.release(len(batch.completed), size_bytes)
