"""What is completed is published, batch by batch, until it is known that it was committed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

from worker.core.assignment import Assignment, PartitionState
from worker.core.backpressure import Backpressure
from worker.core.batch import (
    PartitionBatch,
    TopicRouter,
    build_batch,
    drop_shadows,
    records_of,
    replace_refused,
    take_oldest,
    take_ready,
)
from worker.core.events import (
    Listener,
    Published,
    Publishing,
    TransactionEnded,
    TransactionResult,
)
from worker.core.loop_policy import LoopPolicy
from worker.core.publish_failures import PublishFailures
from worker.errors import (
    OutcomeUnknown,
    OutputRefused,
    PublishAborted,
    RecordTooLarge,
    StreamFailed,
)
from worker.records.types import Batch, NextOffset, Rejected
from worker.stream.port import Stream


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
        return self._failures.since

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
            or ready == self._pressure.records
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
        # Nothing published is no success: the count of failures in a row goes on.
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
