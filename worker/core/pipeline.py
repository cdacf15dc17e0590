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
from worker.records.types import Classified, Outcome, Record, Rejected, Timing

HUNG_RECORDS = 8
"""With so many records in the engine and no answer to any, it is the engine that is at fault."""


@dataclass(frozen=True, slots=True)
class _Answered:
    """A prompt that came back: whose it is, who was asked, and when it was (monotonic seconds)."""

    work: InFlightRecord
    served: ServingAdapter
    future: Future[Answer]
    at: float


class Pipeline:
    """Takes records in and puts each one's outcome into its partition's watermark.

    Everything but a future's completion runs on the caller's thread; a completion only notes the
    time and puts the work on a queue, from any thread.
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
        # Unfinished work, oldest first: a finished record must not stay in memory until the
        # oldest one's deadline has passed.
        self._by_deadline: dict[InFlightRecord, None] = {}
        self.in_engine = 0
        """Records whose answer has not been taken in yet."""
        self.engine_work = BusyTimer(clock)
        """Messages that the engine has and has not answered; safe from any thread."""
        self.prompt_tokens = 0
        """Tokens submitted so far, those of repeated attempts included."""

    def apply_pending(self) -> None:
        """Let another line-up of adapters serve, if one is waiting. Never between two steps of
        one record: what was accepted before keeps the adapter it has."""
        self._shadow_traffic.take_back()
        self._router.turn()

    def check_health(self) -> None:
        """Raise EngineDied when the main adapter's engine is gone.

        When another's is, its records are done again by the main adapter.
        """
        for served in (*self._router.split.members, *self._router.retired):
            try:
                served.engine.check_health()
            except EngineDied as error:
                self._fail_over(served, error)

    def accept(self, record: Record, held: PartitionState) -> None:
        """Start work on a record just fetched. Raises EngineDied or StreamFailed."""
        try:
            held.watermark.add(record.offset)
        except ValueError as error:
            raise StreamFailed(
                f"{record.source.topic}-{record.source.partition} went back to an offset that was "
                f"read before ({error}): its log was cut; start again from the committed offset"
            ) from error
        now = self._clock()
        served = self._router.choose(record)
        served.unfinished += 1
        work = InFlightRecord(record, held, served, fetched_at=now, deadline=now + self._deadline_s)
        self._begin(work)
        if not work.finished:
            work.shadow = self._shadow_traffic.begin(record)

    def collect(self, timeout_s: float) -> int:
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
            work = next(iter(self._by_deadline))
            if work.deadline > now:
                break
            served = work.served
            if served.in_engine >= HUNG_RECORDS and served.answered_at < work.submitted_at:
                hung = EngineDied(
                    f"the engine has answered none of {served.in_engine} messages within "
                    f"{self._deadline_s:g} s"
                )
                self._fail_over(served, hung)
                continue
            detail = f"no answer within {self._deadline_s:g} s"
            rejected = Rejected("deadline_exceeded", "engine", detail, work.attempts)
            self._finish(work, rejected, now)
            self._give_up(work)
            finished += 1
        return finished

    def abandon(self, gone: list[PartitionState]) -> None:
        """Give up all work of partitions that are held no more."""
        for work in [work for work in self._by_deadline if work.held in gone]:
            self._give_up(work)

    def _next(self) -> _Answered:
        return self._answered.get_nowait()

    def _begin(self, work: InFlightRecord) -> None:
        try:
            work.prepared = work.served.labeller.prepare(work.record)
        except MessageRejected as error:
            self._finish(work, Rejected(error.reason, "decode", error.detail), self._clock())
            return
        self._by_deadline[work] = None
        self._submit(work)

    def _submit(self, work: InFlightRecord) -> None:
        assert work.prepared is not None
        served = work.served
        work.attempts += 1
        work.submitted_at = self._clock()
        try:
            future = served.engine.submit(work.prepared.prompt_ids)
        except EngineDied as error:
            self._fail_over(served, error)
            return
        work.future = future
        self.in_engine += 1
        served.in_engine += 1
        self.prompt_tokens += len(work.prepared.prompt_ids)
        self.engine_work.enter()
        future.add_done_callback(lambda done: self._take_note(work, served, done))

    def _take_note(
        self, work: InFlightRecord, served: ServingAdapter, future: Future[Answer]
    ) -> None:
        at = self._clock()
        self.engine_work.leave()
        self._answered.put(_Answered(work, served, future, at))

    def _take_answer(self, answered: _Answered) -> int:
        """Finish a record by its answer; 0 when it is tried again or nobody wants it."""
        work, served = answered.work, answered.served
        self.in_engine -= 1
        served.in_engine -= 1
        served.answered_at = self._clock()
        if work.finished or work.held.gone or answered.future is not work.future:
            return 0
        try:
            decision = served.labeller.decide(answered.future.result(timeout=0))
        except MessageRejected as error:
            if work.attempts < self._max_attempts:
                self._submit(work)
                return 0
            rejected = Rejected(error.reason, "engine", error.detail, work.attempts)
            self._finish(work, rejected, answered.at)
            return 1
        except EngineDied as error:
            self._fail_over(served, error)
            return 0
        except CancelledError:
            return 0  # the engine gave it up by itself: the deadline ends it
        assert work.prepared is not None
        timing = Timing(
            queue_s=work.submitted_at - work.fetched_at, engine_s=answered.at - work.submitted_at
        )
        self._finish(
            work,
            Classified(
                decision,
                work.prepared.message_id,
                work.prepared.truncated,
                served.labeller.review_reasons(decision),
                timing,
            ),
            answered.at,
        )
        return 1

    def _fail_over(self, dead: ServingAdapter, error: EngineDied) -> None:
        """Have the main adapter do what a dead one beside it has begun; raise if it is that one."""
        self._router.fail(dead, error)
        main, now = self._router.main, self._clock()
        for work in [one for one in self._by_deadline if one.served is dead]:
            del self._by_deadline[work]  # in again at the end, with a deadline of its own
            if work.future is not None:
                work.future.cancel()
            dead.unfinished -= 1
            main.unfinished += 1
            work.served, work.future, work.attempts = main, None, 0
            work.deadline = now + self._deadline_s
            self._begin(work)

    def _finish(self, work: InFlightRecord, outcome: Outcome, at: float) -> None:
        self._end(work)
        work.prepared = None if isinstance(outcome, Rejected) else work.prepared
        finished = CompletedRecord(
            work.record,
            outcome,
            work.served,
            fetched_at=work.fetched_at,
            finished_at=at,
            shadow=work.shadow,
        )
        work.held.watermark.finish(work.record.offset, finished)

    def _give_up(self, work: InFlightRecord) -> None:
        self._end(work)
        if work.future is not None:
            work.future.cancel()
        if work.shadow is not None and work.held.gone:
            work.shadow.drop("not_published")

    def _end(self, work: InFlightRecord) -> None:
        if not work.finished:
            work.finished = True
            work.served.unfinished -= 1
        self._by_deadline.pop(work, None)
