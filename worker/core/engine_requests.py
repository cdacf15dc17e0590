"""Records that an engine was given: asked, answered, asked again, given up."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable, Collection
from concurrent.futures import CancelledError, Future
from functools import partial
from typing import NamedTuple

from worker.core.adapter_router import AdapterRouter
from worker.core.assignment import CompletedRecord, InFlightRecord, PartitionState
from worker.core.busy_timer import BusyTimer
from worker.core.engine_monitor import EngineMonitor
from worker.core.serving_adapter import ServingAdapter
from worker.engine.pacing import AdmissionPolicy
from worker.engine.port import Answer, StageDecisions
from worker.errors import EngineDied, MessageRejected
from worker.records.retry import RetryPolicy
from worker.records.types import Outcome, Rejected, Timing

MAX_ATTEMPTS = 2
"""How often the engine is asked before a message is rejected: an answer that is no label may be an
accident once, and is the message's own fault the second time."""


class _Answered(NamedTuple):
    """A prompt that came back: its record, the adapter that was asked, and when (monotonic s)."""

    in_flight: InFlightRecord
    adapter: ServingAdapter
    submitted_at: float
    future: Future[Answer]
    at: float


class EngineRequests:
    """Puts the outcome of each record that an engine was given into the record's partition.

    Everything but a future's completion runs on the caller's thread; a completion only notes the
    time and puts the record on a queue, from any thread.
    """

    def __init__(
        self,
        router: AdapterRouter,
        *,
        admission: AdmissionPolicy,
        max_attempts: int,
        clock: Callable[[], float],
        retry: RetryPolicy | None,
    ) -> None:
        self._router = router
        self._admission = admission
        self._max_attempts = max_attempts
        self._clock = clock
        self._retry = retry
        self._answered: queue.SimpleQueue[_Answered] = queue.SimpleQueue()
        self._monitors: dict[ServingAdapter, EngineMonitor] = {}
        self._again: deque[InFlightRecord] = deque()
        """Records of an adapter that died, which its fallback does again."""
        self.has_answered = False
        """Whether the main adapter's engine has answered a record since the start, and in good
        time: in an engine as slow as the limits allow, silence proves nothing. Of a cascade, its
        last stage."""
        self.in_engine = 0
        """Records whose answer has not been processed yet."""
        self.busy_timer = BusyTimer(clock)
        """Messages that the engine has and has not answered; safe from any thread."""
        self.prompt_tokens = 0
        """Tokens submitted so far, those of repeated attempts included."""

    @property
    def window(self) -> int:
        """How many records the main adapter's engine may be given now. Safe from any thread."""
        monitor = self._monitors.get(self._router.main)
        return self._admission.max_in_engine if monitor is None else monitor.window

    @property
    def is_repeating(self) -> bool:
        """Whether records of an adapter that died wait to be begun again."""
        return bool(self._again)

    def monitor(self, adapter: ServingAdapter) -> EngineMonitor:
        """Return what is known of an adapter's engine."""
        monitor = self._monitors.get(adapter)
        if monitor is None:
            monitor = EngineMonitor(adapter, self._admission, self._clock())
            self._monitors[adapter] = monitor
        return monitor

    def forget_idle(self) -> None:
        """Forget the engines of adapters that serve no more and have nothing in flight."""
        serving = self._router.split.adapters
        if len(self._monitors) > len(serving):
            for adapter in [adapter for adapter in self._monitors if adapter.idle]:
                if adapter not in serving:
                    del self._monitors[adapter]

    def check_health(self) -> None:
        """Raise EngineDied when the main adapter's engine is gone.

        When another's is, its records are done again by the adapter that it falls back on.
        """
        for adapter in (*self._router.split.adapters, *self._router.retired):
            try:
                adapter.engine.check_health()
            except EngineDied as error:
                self._fail_over(adapter, error)

    def in_flight(self) -> list[InFlightRecord]:
        """Return the records that any engine has, or had when it died: adapters may share one
        process, and one of them may be found dead before the others."""
        given = [each for monitor in self._monitors.values() for each in monitor.lane.requests]
        return [each for each in (*given, *self._again) if not each.partition.ended]

    def begin(self, in_flight: InFlightRecord) -> None:
        """Give a record to its adapter's engine; one without a prompt ends at once.

        Raises EngineDied.
        """
        in_flight.adapter.unfinished += 1
        self._prepare(in_flight)

    def begin_again(self) -> bool:
        """Prepare one record of an adapter that died for its fallback; tell if there was one.

        One at a time: preparing takes the loop's time. Raises EngineDied.
        """
        if not self._again:
            return False
        in_flight = self._again.popleft()
        if not in_flight.finished:
            self._prepare(in_flight)
        return True

    def poll(self, timeout_s: float) -> int:
        """Take in answers, waiting up to ``timeout_s`` for a first one.

        Returns how many records were finished by it. Raises EngineDied.
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
        """Reject what is past its deadline by its own fault.

        Returns how many records that finished. Raises EngineDied when the engine answers nothing at
        all: no message is to blame then.
        """
        finished = 0
        now = self._clock()
        for monitor in tuple(self._monitors.values()):
            death = monitor.find_death(now)
            if death is not None:
                self._fail_over(monitor.adapter, death)
                continue
            for in_flight in monitor.overdue(now):
                detail = monitor.lane.overdue_detail
                rejected = Rejected("deadline_exceeded", "engine", detail, in_flight.attempts)
                self._finish(in_flight, rejected, now)
                self._give_up(in_flight)
                finished += 1
        return finished

    def terminate(self, partitions: Collection[PartitionState]) -> None:
        """Give up what the engines have of partitions that are no longer assigned."""
        for monitor in self._monitors.values():
            for in_flight in monitor.lane.requests:
                if in_flight.partition in partitions:
                    self._give_up(in_flight)
        for in_flight in self._again:
            if in_flight.partition in partitions:
                self._give_up(in_flight)

    def _prepare(self, in_flight: InFlightRecord) -> None:
        try:
            in_flight.prepared = in_flight.adapter.labeller.prepare(in_flight.record)
        except MessageRejected as error:
            ended = in_flight.adapter.labeller.give_up(in_flight.record, error)
            self._finish(in_flight, ended, self._clock())
            return
        self._send(in_flight)

    def _send(self, in_flight: InFlightRecord) -> None:
        assert in_flight.prepared is not None
        adapter = in_flight.adapter
        in_flight.attempts += 1
        in_flight.submitted_at = submitted_at = self._clock()
        self.monitor(adapter).lane.give(in_flight, submitted_at)
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
        future.add_done_callback(partial(self._note_answer, in_flight, adapter, submitted_at))

    def _note_answer(
        self,
        in_flight: InFlightRecord,
        adapter: ServingAdapter,
        submitted_at: float,
        future: Future[Answer],
    ) -> None:
        at = self._clock()
        self.busy_timer.leave()
        self._answered.put(_Answered(in_flight, adapter, submitted_at, future, at))

    def _next(self) -> _Answered:
        return self._answered.get_nowait()

    def _take_answer(self, answered: _Answered) -> int:
        """Finish a record by its answer; 0 when it is tried again or no longer wanted."""
        in_flight, adapter = answered.in_flight, answered.adapter
        self.in_engine -= 1
        adapter.in_engine -= 1
        answer = _read(answered.future)
        if not isinstance(answer, Exception) or isinstance(answer, MessageRejected):
            # The engine's own word: not its death, and not called off by us.
            self.monitor(adapter).lane.answered(answered.submitted_at, answered.at, self._clock())
            if adapter is self._router.main and not self.has_answered:
                self.has_answered = self._is_well(answered, answer)
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
            if isinstance(answer, Exception):
                raise answer
            outcome = adapter.labeller.classify(in_flight.prepared, answer, timing)
        except MessageRejected as error:
            again = in_flight.attempts < self._max_attempts
            if again and error.reason != "deadline_exceeded":
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

    def _is_well(self, answered: _Answered, answer: Answer | MessageRejected) -> bool:
        """Tell whether an answer shows that all of an engine works as it should."""
        seconds, stages = answered.at - answered.submitted_at, 0
        if isinstance(answer, StageDecisions):
            seconds, stages = answer.seconds[-1], len(answer.seconds)
        wanted = len(answered.adapter.labeller.stages)
        return stages == wanted and seconds <= self._admission.target_s

    def _fail_over(self, dead: ServingAdapter, error: EngineDied) -> None:
        """Have a dead adapter's records done again by its fallback; raise if it has none."""
        fallback = self._router.fail(dead, error)
        lane = self.monitor(dead).lane
        for in_flight in lane.requests:
            lane.remove(in_flight)
            if in_flight.future is not None:
                in_flight.future.cancel()
            dead.unfinished -= 1
            fallback.unfinished += 1
            in_flight.adapter, in_flight.future, in_flight.attempts = fallback, None, 0
            self._again.append(in_flight)

    def _finish(self, in_flight: InFlightRecord, outcome: Outcome, at: float) -> None:
        self._end(in_flight)
        if isinstance(outcome, Rejected):
            in_flight.prepared = None
            if self._retry is not None:
                outcome = self._retry.judge(in_flight.record, outcome)
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
            if in_flight.on_end is not None:
                in_flight.on_end()
                if not in_flight.partition.ended and in_flight.partition.suspects is not None:
                    in_flight.partition.suspects.clear(in_flight.record.offset)
        self.monitor(in_flight.adapter).lane.remove(in_flight)


def _read(future: Future[Answer]) -> Answer | Exception:
    """Return what a future that is done holds. Each look at one takes its lock: one look is all."""
    try:
        return future.result(timeout=0)
    except Exception as error:  # noqa: BLE001 - raised again where the record still wants it
        return error
