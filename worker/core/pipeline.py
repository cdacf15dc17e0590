"""Records on their way through the engine: submitted, answered, given up."""

from __future__ import annotations

import queue
from collections.abc import Callable
from concurrent.futures import CancelledError

from worker.core.assignment import Finished, Held, Work
from worker.core.in_engine import InEngine
from worker.core.labeller import Labeller
from worker.engine.port import Engine
from worker.errors import EngineDied, MessageRejected, StreamFailed
from worker.records.types import Classified, Outcome, Record, Rejected, Timing

HUNG_RECORDS = 8
"""With so many records in the engine and no answer to any, it is the engine that is at fault."""


class Pipeline:
    """Takes records in and puts each one's outcome into its partition's watermark.

    Everything but a future's completion runs on the caller's thread; a completion only notes the
    time and puts the work on a queue, from any thread.
    """

    def __init__(
        self,
        labeller: Labeller,
        engine: Engine,
        *,
        deadline_s: float,
        max_attempts: int,
        clock: Callable[[], float],
    ) -> None:
        self._labeller = labeller
        self._engine = engine
        self._deadline_s = deadline_s
        self._max_attempts = max_attempts
        self._clock = clock
        self._answered: queue.SimpleQueue[Work] = queue.SimpleQueue()
        # Unfinished work, oldest first: a finished record must not stay in memory until the
        # oldest one's deadline has passed.
        self._by_deadline: dict[Work, None] = {}
        self._answered_at = clock()
        self.in_engine = 0
        """Records whose answer has not been taken in yet."""
        self.engine_work = InEngine(clock)
        """Messages that the engine has and has not answered; safe from any thread."""
        self.prompt_tokens = 0
        """Tokens submitted so far, those of repeated attempts included."""

    def accept(self, record: Record, held: Held) -> None:
        """Start work on a record just fetched. Raises EngineDied or StreamFailed."""
        try:
            held.watermark.add(record.offset)
        except ValueError as error:
            raise StreamFailed(
                f"{record.source.topic}-{record.source.partition} went back to an offset that was "
                f"read before ({error}): its log was cut; start again from the committed offset"
            ) from error
        now = self._clock()
        work = Work(record, held, fetched_at=now, deadline=now + self._deadline_s)
        try:
            work.prepared = self._labeller.prepare(record)
        except MessageRejected as error:
            self._finish(work, Rejected(error.reason, "decode", error.detail), self._clock())
            return
        self._by_deadline[work] = None
        self._submit(work)

    def collect(self, timeout_s: float) -> int:
        """Take in answers, waiting up to ``timeout_s`` for a first one. Raises EngineDied.

        Returns how many records were finished by it.
        """
        finished = 0
        try:
            work = self._answered.get(timeout=timeout_s) if timeout_s > 0 else self._next()
            while True:
                finished += self._take_answer(work)
                work = self._next()
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
            if self.in_engine >= HUNG_RECORDS and self._answered_at < work.submitted_at:
                raise EngineDied(
                    f"the engine has answered none of {self.in_engine} messages within "
                    f"{self._deadline_s:g} s"
                )
            detail = f"no answer within {self._deadline_s:g} s"
            rejected = Rejected("deadline_exceeded", "engine", detail, work.attempts)
            self._finish(work, rejected, now)
            self._give_up(work)
            finished += 1
        return finished

    def abandon(self, gone: list[Held]) -> None:
        """Give up all work of partitions that are held no more."""
        for work in [work for work in self._by_deadline if work.held in gone]:
            self._give_up(work)

    def _next(self) -> Work:
        return self._answered.get_nowait()

    def _submit(self, work: Work) -> None:
        assert work.prepared is not None
        work.attempts += 1
        work.submitted_at = self._clock()
        future = self._engine.submit(work.prepared.prompt_ids)
        work.future = future
        self.in_engine += 1
        self.prompt_tokens += len(work.prepared.prompt_ids)
        self.engine_work.enter()
        future.add_done_callback(lambda _: self._take_note(work))

    def _take_note(self, work: Work) -> None:
        work.answered_at = self._clock()
        self.engine_work.leave()
        self._answered.put(work)

    def _take_answer(self, work: Work) -> int:
        """Finish a record by its answer; 0 when it is tried again or nobody wants it."""
        self.in_engine -= 1
        self._answered_at = self._clock()
        if work.finished or work.held.gone:
            return 0
        assert work.future is not None
        try:
            answer = work.future.result(timeout=0)
            decision = self._labeller.decide(answer)
        except MessageRejected as error:
            if work.attempts < self._max_attempts:
                self._submit(work)
                return 0
            rejected = Rejected(error.reason, "engine", error.detail, work.attempts)
            self._finish(work, rejected, work.answered_at)
            return 1
        except CancelledError:
            return 0  # the engine gave it up by itself: the deadline ends it
        assert work.prepared is not None
        timing = Timing(
            queue_s=work.submitted_at - work.fetched_at,
            engine_s=work.answered_at - work.submitted_at,
        )
        self._finish(
            work,
            Classified(
                decision,
                work.prepared.message_id,
                work.prepared.truncated,
                self._labeller.review_reasons(decision),
                timing,
            ),
            work.answered_at,
        )
        return 1

    def _finish(self, work: Work, outcome: Outcome, at: float) -> None:
        work.finished = True
        self._by_deadline.pop(work, None)
        work.prepared = None if isinstance(outcome, Rejected) else work.prepared
        finished = Finished(work.record, outcome, fetched_at=work.fetched_at, finished_at=at)
        work.held.watermark.finish(work.record.offset, finished)

    def _give_up(self, work: Work) -> None:
        work.finished = True
        self._by_deadline.pop(work, None)
        if work.future is not None:
            work.future.cancel()
