"""Records on their way to an engine: they wait, take turns, and are admitted."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from worker.core.adapter_router import AdapterRouter
from worker.core.assignment import CompletedRecord, InFlightRecord, PartitionState, WaitingRecord
from worker.core.engine_requests import MAX_ATTEMPTS, EngineRequests
from worker.core.shadow import ShadowTraffic
from worker.core.suspects import PROVEN_DEATHS
from worker.engine.pacing import AdmissionPolicy
from worker.errors import StreamFailed
from worker.records.retry import RetryPolicy
from worker.records.types import Record, Rejected

ADMISSION_S = 0.1
"""Preparing messages costs CPU time, a long or hostile one a hundred times as much as another.
After so long the loop goes on, so that Kafka is polled and ``/livez`` answers; the rest follows in
the next iteration."""

SLOWEST_MESSAGE_S = 1.0
"""The longest that one message may take to prepare. The worst texts known take 0.15 s at 10 MB and
0.04 s at 1 MB, what Kafka takes by default (``python -m tests.fuzz slow`` looks for worse)."""

LONE_TRIAL_S = 600.0
"""A suspect that waits for the engine to answer something else is tried after so long all the same:
it may be the one that all others wait behind. That trial can clear it and cannot convict it."""


class Pipeline:
    """Holds records until the engine has room, and then gives each to its adapter's.

    Records wait in their partitions, in order; the partitions take turns. An adapter is chosen, and
    the deadline begins, when a record is admitted to the engine. Suspects (records that may have
    crashed the engine) wait apart and are given to an empty engine one at a time; meanwhile nothing
    else is admitted.
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
    ) -> None:
        self._router = router
        self._shadow_traffic = ShadowTraffic(router, max_shadows, clock)
        self._clock = clock
        self._line: deque[PartitionState] = deque()
        """Partitions with records that wait, the next one first."""
        self._alone: InFlightRecord | None = None
        self.unopened: dict[PartitionState, None] = {}
        """Partitions with records, of which it is not known yet what their last owner left."""
        self.suspects: deque[WaitingRecord] = deque()
        self.requests = EngineRequests(
            router, admission=admission, max_attempts=max_attempts, clock=clock, retry=retry
        )
        """What was admitted."""

    @property
    def alone(self) -> InFlightRecord | None:
        """The suspect that the engine has now, if any."""
        return None if self._alone is None or self._alone.finished else self._alone

    @property
    def isolating(self) -> bool:
        """Whether the engine is kept for suspects."""
        if not self.suspects and self._alone is None:
            return False
        return self.alone is not None or any(map(self._may_try, self.suspects))

    @property
    def engine_is_empty(self) -> bool:
        """Whether no engine has a prompt, not even one that nobody waits for, or a shadow's."""
        return not (
            self.alone is not None
            or self.requests.in_engine
            or self.requests.is_repeating
            or self._shadow_traffic.in_flight
        )

    @property
    def suspect_records(self) -> int:
        """How many records are held as suspects. Safe from any thread."""
        return len(self.suspects) + (self.alone is not None)

    def apply_pending(self) -> None:
        """Let another split of the traffic serve, if one is pending.

        Never between two steps of one record: what was admitted before keeps its adapter.
        """
        self._shadow_traffic.poll()
        self._router.apply_pending()
        self.requests.forget_idle()

    def submit(self, record: Record, partition: PartitionState) -> None:
        """Hold a record just fetched until ``admit`` finds room for it. Raises StreamFailed."""
        try:
            partition.watermark.add(record.offset)
        except ValueError as error:
            raise StreamFailed(
                f"{record.source.topic}-{record.source.partition} went back to an offset that was "
                f"read before ({error}): its log was cut; start again from the committed offset"
            ) from error
        if partition.suspects is None:
            self.unopened[partition] = None
        elif not partition.waiting:
            self._line.append(partition)
        partition.waiting.append(WaitingRecord(record, partition, self._clock()))

    def open(self, partition: PartitionState) -> None:
        """Go on with a partition's records, now that it is known what its last owner left."""
        self.unopened.pop(partition, None)
        if partition.waiting:
            self._line.append(partition)

    def admit(self) -> None:
        """Give the engine what it has room for, from each partition in turn.

        Takes ``ADMISSION_S`` at most, and the time of one more message. Raises EngineDied.
        """
        until = self._clock() + ADMISSION_S
        while self.requests.begin_again():
            if self._clock() >= until:
                return
        refused = 0
        while refused < len(self._line) and not self.isolating:
            partition = self._line.popleft()
            self._hold_suspects(partition)
            if not partition.waiting:
                continue
            if self.isolating:
                self._line.appendleft(partition)
                return
            refused = 0 if self._admit_next(partition) else refused + 1
            if partition.waiting:
                self._line.append(partition)
            if self._clock() >= until:
                return

    def take_suspect(self) -> WaitingRecord:
        """Take the suspect that is tried next: the one with most deaths.

        An innocent one is so cleared early in the life of a worker that keeps being killed for some
        other reason, and does not collect deaths.
        """
        held = max(filter(self._may_try, self.suspects), key=lambda each: each.deaths)
        self.suspects.remove(held)
        return held

    def try_alone(self, held: WaitingRecord, on_end: Callable[[], None]) -> None:
        """Give an empty engine this suspect, without shadows. Raises EngineDied."""
        adapter = self._router.choose(held.record)
        self._alone = InFlightRecord(
            held.record, held.partition, adapter, held.fetched_at, on_end=on_end
        )
        self.requests.begin(self._alone)

    def reject(self, held: WaitingRecord, rejected: Rejected) -> None:
        """End a suspect without giving it to the engine."""
        self.suspects.remove(held)
        completed = CompletedRecord(
            held.record,
            rejected,
            self._router.choose(held.record),
            fetched_at=held.fetched_at,
            finished_at=self._clock(),
        )
        held.partition.watermark.finish(held.record.offset, completed)

    def poll(self, timeout_s: float) -> int:
        """Take in answers, waiting up to ``timeout_s`` for a first one, and admit what waits.

        Returns how many records were finished by the answers. Raises EngineDied.
        """
        finished = self.requests.poll(timeout_s)
        self.admit()
        return finished

    def terminate(self, partitions: Sequence[PartitionState]) -> None:
        """Give up everything that is in flight of partitions that are no longer assigned."""
        self.requests.terminate(partitions)
        for partition in partitions:
            partition.waiting.clear()
            self.unopened.pop(partition, None)
        if self.suspects:
            self.suspects = deque(held for held in self.suspects if not held.partition.ended)

    def _admit_next(self, partition: PartitionState) -> bool:
        """Give the engine a partition's next record, if there is room; tell whether there was."""
        waiting = partition.waiting[0]
        monitor = self.requests.monitor(self._router.choose(waiting.record))
        if not monitor.has_room():
            return False
        partition.waiting.popleft()
        in_flight = InFlightRecord(waiting.record, partition, monitor.adapter, waiting.fetched_at)
        self.requests.begin(in_flight)
        if not in_flight.finished:
            in_flight.shadows = self._shadow_traffic.submit(waiting.record)
        return True

    def _hold_suspects(self, partition: PartitionState) -> None:
        """Put the suspects that come next in a partition apart."""
        suspects, waiting = partition.suspects, partition.waiting
        while suspects and waiting and waiting[0].record.offset in suspects:
            self.suspects.append(waiting.popleft())

    def _may_try(self, held: WaitingRecord) -> bool:
        """Tell whether a suspect may be tried now: the deciding trial needs a working engine."""
        if held.deaths >= PROVEN_DEATHS:
            return False
        if held.deaths < PROVEN_DEATHS - 1 or self.requests.has_answered:
            return True
        return self._clock() - held.fetched_at >= LONE_TRIAL_S
