"""From a fetched record to its outcome.

``Pipeline`` holds records until the engine has room for them. Partitions take turns, and suspects
wait separately. ``EngineRequests`` tracks the records that an engine has: it submits, repeats,
times out, and cancels them.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass
from functools import partial

from worker.contract.errors import MessageRejected
from worker.core.arms import AdapterRouter, ShadowTraffic
from worker.core.assignment import (
    PROVEN_DEATHS,
    CompletedRecord,
    InFlightRecord,
    PartitionState,
    Suspects,
    WaitingRecord,
)
from worker.core.labeller import ServingAdapter
from worker.core.schema_waits import SchemaWaits
from worker.core.urgency import Lines
from worker.engine.pacing import AdmissionPolicy, Lane, WindowBehind
from worker.engine.port import Answer, SelfLimitingEngine, StageDecisions
from worker.errors import EngineDied, StreamFailed
from worker.records.encode import RetryPolicy
from worker.records.types import Outcome, Record, Rejected, Timing

ADMISSION_S = 0.1
"""Time for preparing messages in one iteration. A long or hostile message takes a hundred times as
much CPU as an ordinary one; without a budget the loop would stop polling Kafka and ``/livez`` would
fail. The remaining messages follow in the next iteration."""

SLOWEST_MESSAGE_S = 1.0
"""The longest that preparing one message may take. The worst known texts take 0.15 s at 10 MB and
0.04 s at 1 MB, Kafka's default limit (``python -m tests.fuzz slow`` searches for worse)."""

LONE_TRIAL_S = 600.0
"""A suspect whose next trial decides waits until the engine has answered another record, but no
longer than this: all other records may be waiting behind it. A trial after this wait can clear the
suspect; it cannot reject it."""

MAX_ATTEMPTS = 2
"""Attempts before a message is rejected. One answer that is not a label may be an accident; two in
a row are the message's fault."""


class Pipeline:
    """Holds records until the engine has room, then submits each to its adapter's engine.

    Records wait in their partitions, in order. The partitions take turns, urgent ones first; the
    others keep at least ``rest_share`` of the engine. A record gets its adapter and its deadline
    starts when it is admitted, not when it is fetched, so a slow engine rejects no good messages.
    Suspects (records that may have crashed the engine) wait separately and are submitted to an
    empty engine, one at a time; nothing else is admitted meanwhile.
    """

    def __init__(
        self,
        router: AdapterRouter,
        *,
        admission: AdmissionPolicy,
        clock: Callable[[], float],
        max_attempts: int = MAX_ATTEMPTS,
        max_shadows: int = 0,
        retry: RetryPolicy | None = None,
        rest_share: float = 0.0,
        schemas: SchemaWaits | None = None,
    ) -> None:
        self._router = router
        self._shadow_traffic = ShadowTraffic(router, max_shadows, clock)
        self._clock = clock
        self._lines = Lines()
        self._rest_share = rest_share
        self._schemas = schemas
        self.has_urgent = False
        """Whether urgent messages may come: others then leave room for them in the engine."""
        self._alone: InFlightRecord | None = None
        self.unopened: dict[PartitionState, None] = {}
        """Partitions with records whose last owner's note has not been read yet."""
        self.suspects: deque[WaitingRecord] = deque()
        self.requests = EngineRequests(
            router, admission=admission, max_attempts=max_attempts, clock=clock, retry=retry
        )
        """The admitted records."""

    @property
    def alone(self) -> InFlightRecord | None:
        """The suspect that is in the engine now, if any."""
        return None if self._alone is None or self._alone.finished else self._alone

    @property
    def isolating(self) -> bool:
        """Whether the engine is reserved for suspects."""
        if not self.suspects and self._alone is None:
            return False
        return self.alone is not None or any(map(self._may_try, self.suspects))

    @property
    def engine_is_empty(self) -> bool:
        """Whether no engine has a prompt, including cancelled ones and those of shadows."""
        return not (
            self.alone is not None
            or self.requests.in_engine
            or self.requests.is_repeating
            or self._shadow_traffic.in_flight
        )

    @property
    def registry_away_since(self) -> float | None:
        """Since when look-ups of schemas fail, if they do. Safe from any thread."""
        return None if self._schemas is None else self._schemas.away_since

    @property
    def suspect_records(self) -> int:
        """Number of suspects held. Safe from any thread."""
        return len(self.suspects) + (self.alone is not None)

    def apply_pending(self) -> None:
        """Switch to the pending traffic split, if there is one. Admitted records keep their
        adapter."""
        self._shadow_traffic.poll()
        self._router.apply_pending()
        self.requests.forget_idle()

    def submit(self, record: Record, partition: PartitionState) -> None:
        """Hold a fetched record until ``admit`` finds room for it. Raises StreamFailed."""
        try:
            partition.watermark.add(record.offset)
        except ValueError as error:
            raise StreamFailed(
                f"{record.source.topic}-{record.source.partition} delivered an offset a second "
                f"time ({error}): its log was truncated. Restart the worker; it continues at the "
                "committed offset"
            ) from error
        if partition.suspects is None:
            self.unopened[partition] = None
        elif not partition.waiting:
            self._lines.add(partition)
        partition.waiting.append(WaitingRecord(record, partition, self._clock()))

    def open(self, partition: PartitionState) -> None:
        """Start admitting a partition's records: its last owner's note has been read."""
        self.unopened.pop(partition, None)
        if partition.waiting:
            self._lines.add(partition)

    def admit(self) -> None:
        """Fill the engine, from urgent partitions first and from each in turn. Raises EngineDied.

        Takes at most ``ADMISSION_S`` plus the time of one message.
        """
        until = self._clock() + ADMISSION_S
        while self.requests.begin_again():
            if self._clock() >= until:
                return
        while not self.isolating and self._admit_one():
            if self._clock() >= until:
                return

    def take_suspect(self) -> WaitingRecord:
        """Take the suspect with the most deaths, which is tried next.

        If the worker keeps being killed for another reason, an innocent suspect is thus cleared
        early in the worker's life and does not collect more deaths.
        """
        held = max(filter(self._may_try, self.suspects), key=lambda each: each.deaths)
        self.suspects.remove(held)
        return held

    def try_alone(self, held: WaitingRecord, on_end: Callable[[], None]) -> None:
        """Submit this suspect to the empty engine, without shadows. Raises EngineDied."""
        adapter = self._router.choose(held.record)
        self._alone = InFlightRecord(
            held.record, held.partition, adapter, held.fetched_at, on_end=on_end
        )
        self.requests.begin(self._alone)

    def reject(self, held: WaitingRecord, rejected: Rejected) -> None:
        """Reject a suspect without submitting it."""
        self.suspects.remove(held)
        completed = CompletedRecord(
            held.record,
            rejected,
            self._router.choose(held.record),
            fetched_at=held.fetched_at,
            finished_at=self._clock(),
        )
        held.partition.watermark.finish(held.record.offset, completed)

    def poll(self, timeout_s: float) -> None:
        """Process answers, waiting up to ``timeout_s`` for the first, then admit waiting records.

        Raises EngineDied.
        """
        self.requests.poll(timeout_s)
        self.admit()

    def terminate(self, partitions: Sequence[PartitionState]) -> None:
        """Give up all records of partitions that are no longer assigned."""
        self.requests.terminate(partitions)
        for partition in partitions:
            partition.waiting.clear()
            self.unopened.pop(partition, None)
        if self.suspects:
            self.suspects = deque(held for held in self.suspects if not held.partition.ended)

    def _admit_one(self) -> bool:
        """Submit the first record for whose adapter an engine has room; return whether one had."""
        owed = self.requests.behind < self._rest_share * self.requests.in_engine
        for partition in self._lines.take(rest_first=owed):
            if partition.suspects:
                self._hold_suspects(partition.waiting, partition.suspects)
                if self.isolating and partition.waiting:
                    self._lines.add_first(partition)
                    return False
            if not partition.waiting:
                continue
            admitted = self._admit_next(partition, owed=owed)
            if partition.waiting:
                self._lines.add(partition)
            if admitted:
                return True
        return False

    def _admit_next(self, partition: PartitionState, *, owed: bool) -> bool:
        """Submit a partition's next record if its engine has room; return whether it had. Urgent
        messages may come and wait behind others, so these get less, unless it is ``owed`` them."""
        waiting = partition.waiting[0]
        monitor = self.requests.monitor(self._router.choose(waiting.record))
        behind = self.has_urgent and not partition.urgent and not owed
        if (behind and not monitor.has_room_behind()) or not monitor.has_room():
            return False
        if not self._is_read(waiting):
            return False
        partition.waiting.popleft()
        in_flight = InFlightRecord(waiting.record, partition, monitor.adapter, waiting.fetched_at)
        self.requests.begin(in_flight)
        # Not for a record that was rejected at once: there is no label to compare with.
        if not in_flight.finished:
            in_flight.shadows = self._shadow_traffic.submit(waiting.record)
        return True

    def _is_read(self, held: WaitingRecord) -> bool:
        return self._schemas is None or self._schemas.read(held.record, held.fetched_at)

    def _hold_suspects(self, waiting: deque[WaitingRecord], suspects: Suspects) -> None:
        """Move suspects from the head of a partition's records to ``suspects``."""
        while waiting and waiting[0].record.offset in suspects:
            self.suspects.append(waiting.popleft())

    def _may_try(self, held: WaitingRecord) -> bool:
        """Return whether a suspect may be tried now. The deciding trial needs an engine that is
        known to work: otherwise a broken engine would have innocent records rejected."""
        if held.deaths >= PROVEN_DEATHS or not self._is_read(held):
            return False
        if held.deaths < PROVEN_DEATHS - 1 or self.requests.has_answered:
            return True
        return self._clock() - held.fetched_at >= LONE_TRIAL_S


# Not frozen: one is made for each record (``worker/records/types.py``).
@dataclass(slots=True)
class _Answered:
    """An answered prompt. Times are monotonic seconds."""

    in_flight: InFlightRecord
    adapter: ServingAdapter
    submitted_at: float
    future: Future[Answer]
    at: float


class EngineRequests:
    """Tracks the records in the engines and stores each outcome in the record's partition.

    Runs on the caller's thread. Only a future's completion may run on another one; it notes the
    time and puts the answer on a queue.
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
        # A SimpleQueue, because callbacks of futures put answers into it and must not block.
        self._answered: queue.SimpleQueue[_Answered] = queue.SimpleQueue()
        self._monitors: dict[ServingAdapter, EngineMonitor] = {}
        self._again: deque[InFlightRecord] = deque()
        """Records of an adapter that died, which its fallback labels."""
        self.has_answered = False
        """Whether the main adapter's engine has answered a record since the start, fast enough.
        From a slow engine, silence proves nothing. In a cascade, the last stage has answered."""
        self.in_engine = 0
        """Records whose answer has not been processed yet."""
        self.busy_timer = BusyTimer(clock)
        """Unanswered messages in the engine. Safe from any thread."""
        self.prompt_tokens = 0
        """Tokens submitted so far, including repeated attempts."""

    @property
    def window(self) -> int:
        """How many records the main adapter's engine may have now. Safe from any thread."""
        monitor = self._monitors.get(self._router.main)
        return self._admission.max_in_engine if monitor is None else monitor.window

    @property
    def behind(self) -> int:
        """How many records in the engines are not urgent."""
        return sum(monitor.behind for monitor in self._monitors.values())

    @property
    def is_repeating(self) -> bool:
        """Whether records of an adapter that died wait for their fallback."""
        return bool(self._again)

    def monitor(self, adapter: ServingAdapter) -> EngineMonitor:
        """Return the monitor of an adapter's engine."""
        monitor = self._monitors.get(adapter)
        if monitor is None:
            monitor = EngineMonitor(adapter, self._admission, self._clock())
            self._monitors[adapter] = monitor
        return monitor

    def forget_idle(self) -> None:
        """Drop the monitors of adapters that no longer serve and have nothing in flight."""
        serving = self._router.split.adapters
        if len(self._monitors) > len(serving):
            for adapter in [adapter for adapter in self._monitors if adapter.idle]:
                if adapter not in serving:
                    del self._monitors[adapter]

    def check_health(self) -> None:
        """Raise EngineDied when the main adapter's engine has died.

        When another adapter's engine has died, its fallback labels its records.
        """
        # Retired ones too: records that were admitted with them still wait for their answers.
        for adapter in (*self._router.split.adapters, *self._router.retired):
            try:
                adapter.engine.check_health()
            except EngineDied as error:
                self._fail_over(adapter, error)

    def in_flight(self) -> list[InFlightRecord]:
        """Return the records that are in an engine, or were when it died.

        Adapters may share an engine process, and one may be found dead before the others.
        """
        given = [each for monitor in self._monitors.values() for each in monitor.lane.requests]
        return [each for each in (*given, *self._again) if not each.partition.ended]

    def begin(self, in_flight: InFlightRecord) -> None:
        """Submit a record to its adapter's engine; reject it at once if it has no prompt.

        Raises EngineDied.
        """
        in_flight.adapter.unfinished += 1
        self._prepare(in_flight)

    def begin_again(self) -> bool:
        """Submit one record of an adapter that died to its fallback; return whether there was one.

        One per call, because preparing counts against ``ADMISSION_S``. Raises EngineDied.
        """
        if not self._again:
            return False
        in_flight = self._again.popleft()
        if not in_flight.finished:
            self._prepare(in_flight)
        return True

    def poll(self, timeout_s: float) -> None:
        """Process answers, waiting up to ``timeout_s`` for the first one. Raises EngineDied."""
        try:
            answered = self._answered.get(block=timeout_s > 0, timeout=timeout_s)
            while True:
                self._take_answer(answered)
                answered = self._answered.get_nowait()
        except queue.Empty:
            return

    def expire(self) -> None:
        """Reject records that are past their deadline while later ones were answered.

        Raises EngineDied when the engine answers nothing at all: no message is to blame then.
        """
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

    def terminate(self, partitions: Collection[PartitionState]) -> None:
        """Cancel the requests of partitions that are no longer assigned."""
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
        self.monitor(adapter).behind += not in_flight.partition.urgent
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

    def _take_answer(self, answered: _Answered) -> None:
        """Finish a record with its answer, or submit it again."""
        in_flight, adapter = answered.in_flight, answered.adapter
        self.in_engine -= 1
        adapter.in_engine -= 1
        monitor = self.monitor(adapter)
        monitor.behind -= not in_flight.partition.urgent
        answer = _read(answered.future)
        if not isinstance(answer, Exception) or isinstance(answer, MessageRejected):
            # The engine spoke: this is neither its death nor our cancellation.
            monitor.answered(answered.submitted_at, answered.at, self._clock())
            if adapter is self._router.main and not self.has_answered:
                self.has_answered = self._is_well(answered, answer)
        # Late: the engine that answers was given up meanwhile, and the record went to its fallback,
        # with another future.
        late = answered.future is not in_flight.future
        if in_flight.finished or in_flight.partition.ended or late:
            return
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
                return
            outcome = Rejected(error.reason, "engine", error.detail, in_flight.attempts)
        except EngineDied as error:
            self._fail_over(adapter, error)
            return
        except CancelledError:
            return  # the engine cancelled it; the record ends at its deadline
        self._finish(in_flight, outcome, answered.at)

    def _is_well(self, answered: _Answered, answer: Answer | MessageRejected) -> bool:
        """Return whether an answer shows that every stage of the engine works."""
        seconds, stages = answered.at - answered.submitted_at, 0
        if isinstance(answer, StageDecisions):
            seconds, stages = answer.seconds[-1], len(answer.seconds)
        wanted = len(answered.adapter.labeller.stages)
        return stages == wanted and seconds <= self._admission.target_s

    def _fail_over(self, dead: ServingAdapter, error: EngineDied) -> None:
        """Queue a dead adapter's records for its fallback. Raises EngineDied if it has none."""
        fallback = self._router.fail(dead, error)
        lane = self.monitor(dead).lane
        for in_flight in lane.requests:
            lane.remove(in_flight)
            if in_flight.future is not None:
                in_flight.future.cancel()
            dead.unfinished -= 1
            fallback.unfinished += 1
            # Attempts start over: those in an engine that died were not answered wrongly.
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
                # Not if the partition was lost: a trial that was cut off has shown nothing.
                if not in_flight.partition.ended and in_flight.partition.suspects is not None:
                    in_flight.partition.suspects.clear(in_flight.record.offset)
        self.monitor(in_flight.adapter).lane.remove(in_flight)


def _read(future: Future[Answer]) -> Answer | Exception:
    """Return the result of a completed future, or its exception."""
    # One call: each method of a future takes its lock, and this runs for every record.
    try:
        return future.result(timeout=0)
    except Exception as error:  # noqa: BLE001 - raised again if the record is still wanted
        return error


class EngineMonitor:
    """The records in one adapter's engine, oldest first, and whether that engine is alive.

    A cascade has a lane for each of its stages: it decides itself whether it has room, rejects
    overdue records, and reports stages that hang.
    """

    def __init__(self, adapter: ServingAdapter, policy: AdmissionPolicy, now: float) -> None:
        self.adapter = adapter
        self.lane: Lane[InFlightRecord] = Lane(self._ask, policy, now)
        engine = adapter.engine
        self._stages = engine if isinstance(engine, SelfLimitingEngine) else None
        self._window_behind = WindowBehind(policy, now)
        self.behind = 0
        """Messages in the engine that are not urgent."""
        self._orphaned_at: float | None = None
        """When the engine was first seen with nothing but cancelled requests."""

    @property
    def window(self) -> int:
        """How many records the engine may have now; in a cascade, its first stage."""
        return self._stages.window if self._stages else self.lane.window.limit

    def has_room(self) -> bool:
        """Return whether another record may be submitted now."""
        if self._stages is not None:
            return self._stages.has_room()
        return self.lane.window.has_room(self.adapter.in_engine)

    def has_room_behind(self) -> bool:
        """Return whether another record that is not urgent may be submitted now."""
        return self._window_behind.has_room(self.behind)

    def answered(self, submitted_at: float, answered_at: float, now: float) -> None:
        """Record a real answer to a request submitted at ``submitted_at``."""
        self.lane.answered(submitted_at, answered_at, now)
        self._window_behind.answered(answered_at - submitted_at, now)

    def overdue(self, now: float) -> list[InFlightRecord]:
        """Return the records that are past their deadline although later ones were answered."""
        return [] if self._stages else self.lane.overdue(now)

    def find_death(self, now: float) -> EngineDied | None:
        """Return an error if the engine hangs or has died. In doubt, submit a golden prompt.

        Cancelled requests count too: suspects wait until the engine is empty.
        """
        if self._stages is not None:
            return None  # a cascade's check_health finds that
        held = max(len(self.lane), self.adapter.in_engine)
        return self.lane.find_death(now, self._find_oldest(now), held)

    def _ask(self) -> Future[Answer]:
        return self.adapter.engine.submit(self.adapter.manifest.golden[0].ids)

    def _find_oldest(self, now: float) -> float | None:
        """Return when the engine got its oldest request, as far as that is known here."""
        if (oldest := self.lane.oldest_at) is not None:
            self._orphaned_at = None
            return oldest
        if not self.adapter.in_engine:
            self._orphaned_at = None
        elif self._orphaned_at is None:
            self._orphaned_at = now
        return self._orphaned_at


class BusyTimer:
    """Measures the wall time with at least one message in the engine. Safe from any thread."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._count = 0
        self._since = 0.0
        self._total_s = 0.0

    def __len__(self) -> int:
        """Count the messages in the engine."""
        return self._count

    @property
    def busy_s(self) -> float:
        """Seconds with at least one message in the engine, up to now."""
        with self._lock:
            return self._total_s + (self._clock() - self._since if self._count else 0.0)

    def enter(self) -> None:
        """Count a message in."""
        with self._lock:
            if not self._count:
                self._since = self._clock()
            self._count += 1

    def leave(self) -> None:
        """Count a message out."""
        with self._lock:
            self._count -= 1
            if not self._count:
                self._total_s += self._clock() - self._since
