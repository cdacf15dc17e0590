"""The worker's loop: fetch records, have them labelled, publish results and offsets together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.core.assignment import Assignment, Backpressure, PartitionState
from worker.core.crash_isolation import CrashIsolation, IsolationPolicy
from worker.core.events import Distrusted, Listener, PressureChanged, PublishFailed, Rebalanced
from worker.core.pipeline import Pipeline
from worker.core.publisher import BatchPublisher, LoopPolicy, TopicRouter
from worker.core.retry_waits import RetryWaits
from worker.errors import EngineDied, PublishAborted, WorkerStopped
from worker.records.types import CommittedOffset, Record, TopicPartition
from worker.stream.port import Stream


class Loop:
    """Runs on one thread. ``run`` only guards ``run_once``, which tests call directly.

    Every exception that leaves it should end the process. None of them loses a record, because
    only finished results are committed.
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
        isolation: IsolationPolicy | None = None,
        retry_topic: str | None = None,
    ) -> None:
        self._stream = stream
        self._pipeline = pipeline
        self._requests = pipeline.requests
        self._listener = listener
        self._policy = policy
        self._clock = clock
        self._assignment = Assignment(policy.urgency.is_urgent)
        self._pressure = Backpressure(policy.bounds)
        self._publisher = BatchPublisher(
            stream,
            assignment=self._assignment,
            pressure=self._pressure,
            topic_router=topic_router,
            listener=listener,
            policy=policy,
            clock=clock,
            now=now,
            wait=wait,
        )
        self._isolation = CrashIsolation(
            isolation,
            stream=stream,
            pipeline=pipeline,
            assignment=self._assignment,
            listener=listener,
            commit=self._publisher.commit_notes,
            start_at=self._start_at,
            start_over=self._start_over,
        )
        self._retries: RetryWaits | None = None
        if retry_topic is not None:
            self._retries = RetryWaits(
                retry_topic,
                stream=stream,
                assignment=self._assignment,
                pressure=self._pressure,
                clock=clock,
                now=now,
            )
        self._opened = False
        self._stopping = False
        self._joined = False
        self._polled_at: float | None = None

    @property
    def state(self) -> LoopState:
        """A snapshot for any thread. Each figure is consistent; they are not read atomically."""
        partitions = tuple(self._assignment)
        outages = (self._publisher.outage_since, self._stream.unreachable_since)
        return LoopState(
            polled_at=self._polled_at,
            joined=self._joined,
            stopping=self._stopping,
            in_flight_records=self._pressure.records,
            in_flight_bytes=self._pressure.bytes,
            in_engine_records=len(self._requests.busy_timer),
            paused_partitions=len(self._pressure.paused),
            engine_window=self._requests.window,
            waiting={state.source: state.watermark.waiting for state in partitions},
            prompt_tokens=self._requests.prompt_tokens,
            engine_busy_s=self._requests.busy_timer.busy_s,
            outage_since=min(filter(None, outages), default=None),
            registry_away_since=self._pipeline.registry_away_since,
            suspect_records=self._pipeline.suspect_records,
            retry_topic=self._retries.topic if self._retries else None,
            retry_due_ms=self._retries.next_due_ms if self._retries else None,
        )

    def stop(self) -> None:
        """Ask ``run`` to drain and return. Safe from a signal handler or another thread."""
        self._stopping = True

    def run(self) -> None:
        """Join the group, work until ``stop``, then drain. Raises WorkerStopped."""
        self._stream.subscribe(self)
        # Liveness counts from here: otherwise a first poll that never returns would not show.
        self._polled_at = self._clock()
        try:
            while not self._stopping:
                self.run_once()
            self.drain()
        except EngineDied:
            self._isolation.engine_died()
            raise
        except WorkerStopped:  # the engine is healthy, so none of its records is a suspect
            self._isolation.close(self._assignment)
            raise

    def run_once(self) -> None:
        """One iteration: fetch as many records as fit, collect answers, publish what is due."""
        self._pipeline.apply_pending()
        busy = self._pressure.records > 0
        self._fetch(0.0 if busy else self._policy.idle_poll_s)
        self._pipeline.poll(self._result_wait() if busy else 0.0)
        self._requests.check_health()
        self._requests.expire()
        self._isolation.step()
        if not self._opened and self._publisher.is_due:
            self._publisher.try_publish()
        if not self._pressure.records and (ends := self._stream.take_ends()):
            self._publisher.try_commit_ends(ends)
        self._apply_backpressure()

    def drain(self) -> None:
        """Finish and publish records in flight, for ``drain_s`` at most. The next owner of the
        partitions labels the others."""
        until = self._clock() + self._policy.drain_s
        while self._pressure.records and self._clock() < until:
            # In each round: a rebalance during the drain may assign further partitions.
            self._stream.pause(self._pressure.pause(self._assignment.sources))
            self._stream.poll(0, 0.0)
            self._polled_at = self._clock()
            self._open_partitions()
            self._pipeline.poll(self._policy.result_wait_s)
            self._requests.check_health()
            self._requests.expire()
            self._isolation.step()
            if not self._opened and self._assignment.ready:
                self._publisher.try_publish()
        self._isolation.close(self._assignment)
        self._drop(self._assignment.sources)

    # Rebalances: called from within stream.poll, on this thread.

    def on_assigned(self, partitions: Sequence[TopicPartition]) -> None:
        """Start these partitions with fresh state."""
        self._joined = True
        # If an assignment is repeated without a revoke, its records must not count twice.
        self._drop([source for source in partitions if source in self._assignment])
        self._assignment.begin(partitions)
        self._listener(Rebalanced("assigned", partitions))

    def on_positioned(self, partitions: Sequence[TopicPartition]) -> None:
        """Start over those whose committed offset belongs to a deleted topic of the same name."""
        self._isolation.check_offsets(partitions)

    def on_revoked(self, partitions: Sequence[TopicPartition]) -> None:
        """Publish what is finished within ``revoke_drain_s``, and drop the rest."""
        going = [state for source in partitions if (state := self._assignment.get(source))]
        until = self._clock()
        if not self._isolation.holds_up(going):  # else these records would not be answered anyway
            until += self._policy.revoke_drain_s
        try:
            while any(len(partition.watermark) for partition in going):
                if any(partition.watermark.ready for partition in going):
                    # A search for refused records may take longer than the next owner should wait.
                    if not self._publisher.publish(going) and self._clock() >= until:
                        break
                elif self._clock() >= until:
                    break
                else:
                    self._pipeline.poll(self._policy.result_wait_s)
                    self._requests.expire()
        except PublishAborted as error:
            # The next owner labels these records again; none of their results was published.
            dropped = sum(len(partition.watermark) for partition in going)
            self._listener(PublishFailed(dropped, 1, error))
        else:
            self._isolation.close(going)
        self._listener(Rebalanced("revoked", partitions, self._drop(partitions)))

    def on_lost(self, partitions: Sequence[TopicPartition]) -> None:
        """Drop everything: the new owner may have published the same records already."""
        # Until the client has joined again, which assigns something, if only no partition.
        self._joined = False
        self._listener(Rebalanced("lost", partitions, self._drop(partitions)))

    # The steps of an iteration.

    def _fetch(self, timeout_s: float) -> None:
        max_records, max_bytes = self._pressure.room
        records: Iterable[Record]
        if self._retries is None:
            records = self._stream.poll(max_records, timeout_s, max_bytes=max_bytes)
        else:
            records = self._retries.poll(max_records, timeout_s, max_bytes)
        self._polled_at = self._clock()
        for record in records:
            self._accept(record)
        self._open_partitions()
        self._pipeline.has_urgent = self._assignment.has_urgent
        self._pipeline.admit()

    def _accept(self, record: Record) -> None:
        partition = self._assignment.get(record.source)
        if partition is None or record.offset < partition.starts_at:
            return  # its partition was revoked after the fetch, or an earlier owner published it
        size_bytes = record.size_bytes
        partition.size_bytes += size_bytes
        self._pressure.take(size_bytes)
        self._pipeline.submit(record, partition)

    def _result_wait(self) -> float:
        if self._assignment.ready:
            return min(self._policy.result_wait_s, max(0.0, self._publisher.due_in_s))
        return self._policy.result_wait_s

    def _open_partitions(self) -> None:
        """Start new partitions; ``_opened`` is set if that committed something."""
        # An iteration either opens partitions or publishes: each may block for a whole publish
        # timeout, and both together would exceed the time between two polls (max_iteration_s).
        if self._opened:
            self._opened = False
            return
        try:
            self._opened = self._isolation.open_partitions()
        except PublishAborted as error:
            self._publisher.failed(error)
            self._opened = True

    def _apply_backpressure(self) -> None:
        pause, resume = self._pressure.decide(self._assignment)
        in_flight = (self._pressure.records, self._pressure.bytes)
        if pause:
            self._stream.pause(pause)
        for _ in pause:  # one event each: metrics count paused partitions as paused minus resumed
            self._listener(PressureChanged("paused", *in_flight))
        if resume:
            self._stream.resume(resume)
        for _ in resume:
            self._listener(PressureChanged("resumed", *in_flight))

    def _drop(self, sources: Sequence[TopicPartition]) -> int:
        ended = self._assignment.end(sources)
        dropped = sum(len(partition.watermark) for partition in ended)
        for partition in ended:
            self._pressure.release(len(partition.watermark), partition.size_bytes)
        self._pressure.end(sources)
        if self._retries is not None:
            self._retries.forget(sources)
        self._pipeline.terminate(ended)
        return dropped

    def _start_at(self, partition: PartitionState, offset: int) -> None:
        self._pressure.release(*partition.start_at(offset))
        held = self._retries is not None and self._retries.skip_to(partition.source, offset)
        if not partition.waiting and not held:  # else the client has read past ``offset``
            self._stream.seek(partition.source, offset)

    def _start_over(self, partition: PartitionState, found: CommittedOffset) -> None:
        """Read a partition from its beginning, whatever its committed offset."""
        source, waiting = partition.source, partition.waiting
        first = waiting[0].record.offset if waiting else found.offset
        self._drop([source])
        self._assignment.begin([source], from_beginning=True)
        self._stream.resume([source])
        self._stream.seek_to_beginning(source)
        self._listener(Distrusted(source, first, found.offset))


@dataclass(frozen=True, slots=True)
class LoopState:
    """One snapshot of a running loop. Times are seconds of the loop's clock.

    - ``polled_at``: when Kafka was last polled, None before the first poll.
    - ``joined``: whether the worker is a member of its group, with or without partitions.
    - ``waiting``: finished records behind an unfinished one, by partition.
    - ``engine_window``: how many records the main adapter's engine may have now.
    - ``prompt_tokens``, ``engine_busy_s``: counters, never reset.
    - ``outage_since``: when Kafka was first found unreachable, to publish or to read; None if it is
      reachable.
    - ``registry_away_since``: when look-ups of schemas began to fail; None if they do not.
    - ``suspect_records``: records that may have crashed the engine and are tried one at a time.
    - ``retry_topic``: None if delayed retry is off.
    - ``retry_due_ms``: when the first held record of the retry topic is due (Unix time), if any.
    """

    polled_at: float | None
    joined: bool
    stopping: bool
    in_flight_records: int
    in_flight_bytes: int
    in_engine_records: int
    engine_window: int
    paused_partitions: int
    waiting: Mapping[TopicPartition, int]
    prompt_tokens: int
    engine_busy_s: float
    outage_since: float | None = None
    registry_away_since: float | None = None
    suspect_records: int = 0
    retry_topic: str | None = None
    retry_due_ms: int | None = None
