"""Records on their way through the engine: submitted, answered, given up."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass

from worker.core.adapter_router import AdapterRouter
from worker.core.assignment import CompletedRecord, InFlightRecord, PartitionState
from worker.core.busy_timer import BusyTimer
from worker.core.serving_adapter import ServingAdapter
from worker.core.shadow import ShadowTraffic
from worker.engine.port import Answer
from worker.errors import EngineDied, MessageRejected, StreamFailed
from worker.records.types import Outcome, Record, Rejected, Timing

HUNG_RECORDS = 8
"""With so many records in the engine and no answer to any, it is the engine that is at fault."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """A prompt that came back: its record, the adapter that was asked, and when (monotonic s)."""

    in_flight: InFlightRecord
    adapter: ServingAdapter
    future: Future[Answer]
    at: float


class Pipeline:
    """Takes records in and puts each one's outcome into its partition's watermark.

    Everything but a future's completion runs on the caller's thread; a completion only notes the
    time and puts the record on a queue, from any thread.
    """

    def __init__(
        self,
        router: AdapterRouter,
        *,
        deadline_s: float,
        max_attempts: int,
        clock: Callable[[], float],
        max_shadows: int = 0,
    ) -> None:
        self._router = router
        self._shadow_traffic = ShadowTraffic(router, max_shadows, clock)
        self._deadline_s = deadline_s
        self._max_attempts = max_attempts
        self._clock = clock
        self._answered: queue.SimpleQueue[_Answered] = queue.SimpleQueue()
        # Unfinished records, oldest first: a finished one must not stay in memory until the
        # oldest one's deadline has passed.
        self._by_deadline: dict[InFlightRecord, None] = {}
        self.in_engine = 0
        """Records whose answer has not been processed yet."""
        self.busy_timer = BusyTimer(clock)
        """Messages that the engine has and has not answered; safe from any thread."""
        self.prompt_tokens = 0
        """Tokens submitted so far, those of repeated attempts included."""

    def apply_pending(self) -> None:
        """Let another split of the traffic serve, if one is pending.

        Never between two steps of one record: what was accepted before keeps its adapter.
        """
        self._shadow_traffic.poll()
        self._router.apply_pending()

    def check_health(self) -> None:
        """Raise EngineDied when the main adapter's engine is gone.

        When another's is, its records are done again by the adapter that it falls back on.
        """
        for adapter in (*self._router.split.adapters, *self._router.retired):
            try:
                adapter.engine.check_health()
            except EngineDied as error:
                self._fail_over(adapter, error)

    def submit(self, record: Record, partition: PartitionState) -> None:
        """Start work on a record just fetched. Raises EngineDied or StreamFailed."""
        try:
            partition.watermark.add(record.offset)
        except ValueError as error:
            raise StreamFailed(
                f"{record.source.topic}-{record.source.partition} went back to an offset that was "
                f"read before ({error}): its log was cut; start again from the committed offset"
            ) from error
        now = self._clock()
        adapter = self._router.choose(record)
        adapter.unfinished += 1
        in_flight = InFlightRecord(
            record, partition, adapter, fetched_at=now, deadline=now + self._deadline_s
        )
        self._begin(in_flight)
        if not in_flight.finished:
            in_flight.shadows = self._shadow_traffic.submit(record)

    def poll(self, timeout_s: float) -> int:
        """Take in answers, waiting up to ``timeout_s`` for a first one. Raises EngineDied.

        Returns how many records were finished by it.
        """
        finished = 0
        try:
            answered = self._answered.get(timeout=timeout_s) if timeout_s > 0 else self._next()
            while True:
                finished += self._take_answer(answered)
                answered = self._next()
        except queue.Empty:
            return finished

    def expire(self) -> int:
        """Reject what has passed its deadline. Returns how many records that finished.

        Raises EngineDied when nothing at all was answered meanwhile: the engine hangs, and the
        messages are not to blame.
        """
        finished = 0
        now = self._clock()
        while self._by_deadline:
            in_flight = next(iter(self._by_deadline))
            if in_flight.deadline > now:
                break
            adapter = in_flight.adapter
            if adapter.in_engine >= HUNG_RECORDS and adapter.answered_at < in_flight.submitted_at:
                hung = EngineDied(
                    f"the engine has answered none of {adapter.in_engine} messages within "
                    f"{self._deadline_s:g} s"
                )
                self._fail_over(adapter, hung)
                continue
            detail = f"no answer within {self._deadline_s:g} s"
            rejected = Rejected("deadline_exceeded", "engine", detail, in_flight.attempts)
            self._finish(in_flight, rejected, now)
            self._give_up(in_flight)
            finished += 1
        return finished

    def terminate(self, partitions: list[PartitionState]) -> None:
        """Give up everything that is in flight of partitions that are no longer assigned."""
        going = [record for record in self._by_deadline if record.partition in partitions]
        for in_flight in going:
            self._give_up(in_flight)

    def _next(self) -> _Answered:
        return self._answered.get_nowait()

    def _begin(self, in_flight: InFlightRecord) -> None:
        try:
            in_flight.prepared = in_flight.adapter.labeller.prepare(in_flight.record)
        except MessageRejected as error:
            ended = in_flight.adapter.labeller.give_up(in_flight.record, error)
            self._finish(in_flight, ended, self._clock())
            return
        self._by_deadline[in_flight] = None
        self._send(in_flight)

    def _send(self, in_flight: InFlightRecord) -> None:
        assert in_flight.prepared is not None
        adapter = in_flight.adapter
        in_flight.attempts += 1
        in_flight.submitted_at = self._clock()
        try:
            future = adapter.engine.submit(in_flight.prepared.prompt_ids)
        except EngineDied as error:
            self._fail_over(adapter, error)
            return
        in_flight.future = future
        self.in_engine += 1
        adapter.in_engine += 1
        self.prompt_tokens += len(in_flight.prepared.prompt_ids)
        self.busy_timer.enter()
        future.add_done_callback(lambda done: self._note_answer(in_flight, adapter, done))

    def _note_answer(
        self, in_flight: InFlightRecord, adapter: ServingAdapter, future: Future[Answer]
    ) -> None:
        at = self._clock()
        self.busy_timer.leave()
        self._answered.put(_Answered(in_flight, adapter, future, at))

    def _take_answer(self, answered: _Answered) -> int:
        """Finish a record by its answer; 0 when it is tried again or no longer wanted."""
        in_flight, adapter = answered.in_flight, answered.adapter
        self.in_engine -= 1
        adapter.in_engine -= 1
        adapter.answered_at = self._clock()
        late = answered.future is not in_flight.future
        if in_flight.finished or in_flight.partition.ended or late:
            return 0
        assert in_flight.prepared is not None
        timing = Timing(
            queue_s=in_flight.submitted_at - in_flight.fetched_at,
            engine_s=answered.at - in_flight.submitted_at,
        )
        outcome: Outcome
        try:
            answer = answered.future.result(timeout=0)
            outcome = adapter.labeller.classify(in_flight.prepared, answer, timing)
        except MessageRejected as error:
            if in_flight.attempts < self._max_attempts:
                self._send(in_flight)
                return 0
            outcome = Rejected(error.reason, "engine", error.detail, in_flight.attempts)
        except EngineDied as error:
            self._fail_over(adapter, error)
            return 0
        except CancelledError:
            return 0  # the engine gave it up by itself: the deadline ends it
        self._finish(in_flight, outcome, answered.at)
        return 1

    def _fail_over(self, dead: ServingAdapter, error: EngineDied) -> None:
        """Have a dead adapter's records done again by its fallback; raise if it has none."""
        fallback, now = self._router.fail(dead, error), self._clock()
        for in_flight in [record for record in self._by_deadline if record.adapter is dead]:
            del self._by_deadline[in_flight]  # in again at the end, with a deadline of its own
            if in_flight.future is not None:
                in_flight.future.cancel()
            dead.unfinished -= 1
            fallback.unfinished += 1
            in_flight.adapter, in_flight.future, in_flight.attempts = fallback, None, 0
            in_flight.deadline = now + self._deadline_s
            self._begin(in_flight)

    def _finish(self, in_flight: InFlightRecord, outcome: Outcome, at: float) -> None:
        self._end(in_flight)
        in_flight.prepared = None if isinstance(outcome, Rejected) else in_flight.prepared
        completed = CompletedRecord(
            in_flight.record,
            outcome,
            in_flight.adapter,
            fetched_at=in_flight.fetched_at,
            finished_at=at,
            shadows=in_flight.shadows,
        )
        in_flight.partition.watermark.finish(in_flight.record.offset, completed)

    def _give_up(self, in_flight: InFlightRecord) -> None:
        self._end(in_flight)
        if in_flight.future is not None:
            in_flight.future.cancel()
        if in_flight.partition.ended:
            for shadow in in_flight.shadows:
                shadow.drop("not_published")

    def _end(self, in_flight: InFlightRecord) -> None:
        if not in_flight.finished:
            in_flight.finished = True
            in_flight.adapter.unfinished -= 1
        self._by_deadline.pop(in_flight, None)
