"""The worker's loop: fetch, label, publish, and be ready to let go at any moment."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from worker.core.assignment import Assignment, CompletedRecord, PartitionState
from worker.core.backpressure import Backpressure, Bounds
from worker.core.batch import (
    PartitionBatch,
    TopicRouter,
    build_batch,
    drop_shadows,
    replace_oversized,
    take,
)
from worker.core.events import Listener, TransactionResult
from worker.core.pipeline import Pipeline
from worker.core.state import LoopState
from worker.errors import OutcomeUnknown, PublishAborted, RecordTooLarge, StreamFailed
from worker.records.types import Record, TopicPartition
from worker.stream.port import Stream

MAX_BACKOFF_S = 5.0


@dataclass(frozen=True, slots=True)
class LoopPolicy:
    """Times in seconds, sizes in records. See ``config/worker.toml`` for what each is for."""

    bounds: Bounds = field(default_factory=Bounds)
    publish_interval_s: float = 0.05
    publish_max_records: int = 500
    publish_attempts: int = 5
    publish_backoff_s: float = 0.2
    idle_poll_s: float = 0.5
    result_wait_s: float = 0.01
    revoke_drain_s: float = 2.0
    drain_s: float = 30.0

    def backoff_s(self, failures: int) -> float:
        """Wait after so many failed publishes in a row: doubling, up to a bound."""
        return min(MAX_BACKOFF_S, self.publish_backoff_s * 2.0 ** (failures - 1))


class Loop:
    """One thread's work. ``run`` is only the guard around ``run_once``; tests call the latter.

    Every exception that leaves it is a reason to end the process; none of them loses a record,
    since nothing is committed but finished results.
    """

    def __init__(
        self,
        stream: Stream,
        *,
        pipeline: Pipeline,
        topic_router: TopicRouter,
        listener: Listener,
        policy: LoopPolicy,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        wait: Callable[[float], None],
    ) -> None:
        self._stream = stream
        self._pipeline = pipeline
        self._topic_router = topic_router
        self._listener = listener
        self._policy = policy
        self._clock = clock
        self._now = now
        self._wait = wait
        self._assignment = Assignment()
        self._pressure = Backpressure(policy.bounds)
        self._last_publish = clock()
        self._failed_publishes = 0
        self._unsettled = False
        self._stopping = False
        self._unpaused: list[TopicPartition] = []
        self._joined = False
        self._polled_at: float | None = None

    @property
    def held_records(self) -> int:
        """Records fetched and not yet published."""
        return self._pressure.records

    @property
    def partitions(self) -> Sequence[TopicPartition]:
        """Partitions assigned to this worker now."""
        return self._assignment.partitions

    @property
    def state(self) -> LoopState:
        """How things stand, each figure read whole, not all at one time. Safe from any thread."""
        held = tuple(self._assignment)
        return LoopState(
            polled_at=self._polled_at,
            joined=self._joined,
            stopping=self._stopping,
            in_flight_records=self._pressure.records,
            in_flight_bytes=self._pressure.bytes,
            in_engine_records=len(self._pipeline.engine_work),
            paused_partitions=len(held) if self._pressure.paused else 0,
            waiting={one.source: one.watermark.waiting for one in held},
            prompt_tokens=self._pipeline.prompt_tokens,
            engine_busy_s=self._pipeline.engine_work.busy_s,
        )

    def stop(self) -> None:
        """Ask ``run`` to drain and return. Safe to call from a signal handler or a thread."""
        self._stopping = True

    def run(self) -> None:
        """Join the group and work until ``stop``; then drain. Raises WorkerStopped."""
        self._stream.subscribe(self)
        self._polled_at = self._clock()
        while not self._stopping:
            self.run_once()
        self.drain()

    def run_once(self) -> None:
        """One turn: fetch what there is room for, take answers, publish what is due."""
        self._pipeline.apply_pending()
        busy = self._pressure.records > 0
        self._fetch(0.0 if busy else self._policy.idle_poll_s)
        self._pipeline.collect(self._busy_wait() if busy else 0.0)
        self._pipeline.check_health()
        self._pipeline.expire()
        if self._publish_is_due():
            self._try_publish(tuple(self._assignment))
        self._press()

    def drain(self) -> None:
        """Finish and publish what is held, within the bound; what is left will be done again."""
        until = self._clock() + self._policy.drain_s
        self._stream.pause(self._assignment.partitions)
        self._pressure.paused = True
        while self._pressure.records and self._clock() < until:
            self._poll(0, 0.0)
            self._pipeline.collect(self._policy.result_wait_s)
            self._pipeline.check_health()
            self._pipeline.expire()
            if self._assignment.ready:
                self._try_publish(tuple(self._assignment))
        self._drop(self._assignment.partitions)

    # Partitions come and go: called from within stream.poll, on this thread.

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Hold partitions from a clean start."""
        self._joined = True
        self._drop([one for one in partitions if one in self._assignment])
        self._assignment.begin(partitions)
        self._unpaused.extend(partitions)
        self._listener.rebalanced("assigned", partitions, 0)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Publish what is or gets finished within the bound, and drop the rest."""
        going = [held for source in partitions if (held := self._assignment.get(source))]
        until = self._clock() + self._policy.revoke_drain_s
        try:
            while any(len(held.watermark) for held in going):
                if any(held.watermark.ready for held in going):
                    self._publish(going)
                elif self._clock() >= until:
                    break
                else:
                    self._pipeline.collect(self._policy.result_wait_s)
                    self._pipeline.expire()
        except PublishAborted as error:
            # The next owner does these records again; nothing of them was published.
            self._listener.publish_failed(sum(len(held.watermark) for held in going), 1, error)
        self._listener.rebalanced("revoked", partitions, self._drop(partitions))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop everything: others may have done it already."""
        self._joined = False
        self._listener.rebalanced("lost", partitions, self._drop(partitions))

    # The steps of a turn.

    def _fetch(self, timeout_s: float) -> None:
        room = 0 if self._pressure.paused else self._pressure.room
        for record in self._poll(room, timeout_s):
            self._accept(record)
        if self._unpaused and self._pressure.paused:
            self._stream.pause([one for one in self._unpaused if one in self._assignment])
        self._unpaused = []

    def _poll(self, room: int, timeout_s: float) -> Sequence[Record]:
        records = self._stream.poll(room, timeout_s)
        self._polled_at = self._clock()
        return records

    def _accept(self, record: Record) -> None:
        held = self._assignment.get(record.source)
        if held is None:
            return  # fetched before its partition went away; its new owner reads it again
        held.size_bytes += record.size_bytes
        self._pressure.take(record.size_bytes)
        self._pipeline.accept(record, held)

    def _busy_wait(self) -> float:
        if self._assignment.ready:
            due = self._last_publish + self._policy.publish_interval_s - self._clock()
            return min(self._policy.result_wait_s, max(0.0, due))
        return self._policy.result_wait_s

    def _publish_is_due(self) -> bool:
        ready = self._assignment.ready
        if not ready:
            return False
        waited = self._clock() - self._last_publish
        return (
            waited >= self._policy.publish_interval_s
            or ready >= self._policy.publish_max_records
            or ready == self._pressure.records
        )

    def _try_publish(self, partitions: Sequence[PartitionState]) -> None:
        try:
            self._publish(partitions)
        except PublishAborted as error:
            self._failed_publishes += 1
            self._listener.publish_failed(self._assignment.ready, self._failed_publishes, error)
            if self._failed_publishes >= self._policy.publish_attempts:
                raise StreamFailed(
                    f"{self._failed_publishes} attempts to publish failed in a row: {error}"
                ) from error
            self._wait(self._policy.backoff_s(self._failed_publishes))

    def _publish(self, partitions: Sequence[PartitionState]) -> None:
        if self._unsettled:
            self._settle()
        started = self._clock()
        while True:
            taken = take(partitions, self._policy.publish_max_records)
            if not taken:
                return
            try:
                self._attempt(taken)
                break
            except RecordTooLarge as error:
                if not drop_shadows(taken):  # one of those may have been it
                    replace_oversized(taken, error.indexes, "larger than its topic takes")
            except PublishAborted as error:
                drop_shadows(taken)
                self._unsettled = isinstance(error, OutcomeUnknown)
                raise
        self._confirm(taken, started)

    def _attempt(self, taken: Sequence[PartitionBatch]) -> None:
        started = self._clock()
        self._listener.publishing([one for part in taken for one in part.finished])
        try:
            self._stream.publish(build_batch(taken, self._topic_router, self._now()))
        except (PublishAborted, StreamFailed) as error:
            result: TransactionResult = (
                "unknown" if isinstance(error, OutcomeUnknown) else "aborted"
            )
            self._listener.transaction(result, self._clock() - started)
            raise
        self._listener.transaction("committed", self._clock() - started)

    def _settle(self) -> None:
        """Find out which finished records an unanswered commit published after all."""
        started = self._clock()
        taken = []
        for committed in self._stream.settle(self._assignment.partitions):
            held = self._assignment.get(committed.source)
            if held is not None:
                count = held.watermark.ready_below(committed.offset)
                taken.append(
                    PartitionBatch(held, tuple(one for _, one in held.watermark.peek(count)))
                )
        self._unsettled = False
        # Nothing published is no success: the count of failures in a row goes on.
        if published := [part for part in taken if part.finished]:
            self._confirm(published, started)

    def _confirm(self, taken: Sequence[PartitionBatch], started: float) -> None:
        for part in taken:
            part.held.watermark.confirm(len(part.finished))
            self._release(part.held, part.finished)
        self._failed_publishes = 0
        self._last_publish = self._clock()
        done = [one for part in taken for one in part.finished]
        self._listener.published(done, self._last_publish - started)

    def _press(self) -> None:
        what = self._pressure.decide()
        if what is None:
            return
        held = (self._pressure.records, self._pressure.bytes)
        if what == "pause":
            self._stream.pause(self._assignment.partitions)
            self._listener.backpressure("paused", *held)
        else:
            self._stream.resume(self._assignment.partitions)
            self._listener.backpressure("resumed", *held)

    def _drop(self, partitions: Sequence[TopicPartition]) -> int:
        gone = self._assignment.end(partitions)
        dropped = sum(len(held.watermark) for held in gone)
        for held in gone:
            self._pressure.release(len(held.watermark), held.size_bytes)
        self._pipeline.abandon(gone)
        return dropped

    def _release(self, held: PartitionState, finished: Sequence[CompletedRecord]) -> None:
        size_bytes = sum(one.record.size_bytes for one in finished)
        held.size_bytes -= size_bytes
        self._pressure.release(len(finished), size_bytes)
