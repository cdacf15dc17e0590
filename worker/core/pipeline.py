"""Records on their way to an engine: they wait, take turns, and are admitted."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from worker.core.adapter_router import AdapterRouter
from worker.core.assignment import CompletedRecord, InFlightRecord, PartitionState
from worker.core.engine_monitor import AdmissionPolicy
from worker.core.engine_requests import EngineRequests
from worker.core.serving_adapter import ServingAdapter
from worker.core.shadow import ShadowTraffic
from worker.core.trials import HeldRecord
from worker.core.waiting_line import WaitingLine
from worker.errors import StreamFailed
from worker.records.retry import RetryPolicy
from worker.records.types import Record, Rejected


class Pipeline:
    """Holds records until the engine has room, and then gives each to its adapter's.

    Records wait in their partitions, in order; the partitions take turns. An adapter is chosen, and
    the deadline begins, when a record is admitted to the engine.
    """

    def __init__(
        self,
        router: AdapterRouter,
        *,
        admission: AdmissionPolicy,
        max_attempts: int,
        clock: Callable[[], float],
        max_shadows: int = 0,
        retry: RetryPolicy | None = None,
    ) -> None:
        self._router = router
        self._shadow_traffic = ShadowTraffic(router, max_shadows, clock)
        self._clock = clock
        self.line = WaitingLine()
        self.trials = self.line.trials
        """Records that may have killed the engine, kept from it until they are tried."""
        self.requests = EngineRequests(
            router,
            self.trials,
            admission=admission,
            max_attempts=max_attempts,
            clock=clock,
            retry=retry,
        )
        """What was admitted."""

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
        self.line.add(record, partition, self._clock())

    def admit(self) -> None:
        """Give the engine what it has room for, from each partition in turn. Raises EngineDied."""
        if self.trials.active:
            return
        refused, line = 0, self.line.partitions
        while refused < len(line):
            partition = line.popleft()
            if partition.ended or not partition.waiting:
                continue
            record, fetched_at = partition.waiting[0]
            monitor = self.requests.monitor(self._router.choose(record))
            if monitor.has_room:
                partition.waiting.popleft()
                self._admit(record, partition, fetched_at, monitor.adapter)
                refused = 0
            else:
                monitor.window.refuse()
                refused += 1
            if partition.waiting:
                line.append(partition)

    def try_alone(self, group: Sequence[HeldRecord]) -> None:
        """Give an empty engine these suspects, without shadows. Raises EngineDied."""
        self.trials.begin(group)
        for held in group:
            adapter = self._router.choose(held.record)
            self._admit(held.record, held.partition, held.fetched_at, adapter, tried=True)

    def reject(self, held: HeldRecord, rejected: Rejected) -> None:
        """End a record without giving it to the engine."""
        completed = CompletedRecord(
            held.record,
            rejected,
            self._router.choose(held.record),
            fetched_at=held.fetched_at,
            finished_at=self._clock(),
        )
        held.partition.watermark.finish(held.offset, completed)

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
        self.trials.forget(partitions)

    def _admit(
        self,
        record: Record,
        partition: PartitionState,
        fetched_at: float,
        adapter: ServingAdapter,
        *,
        tried: bool = False,
    ) -> None:
        in_flight = InFlightRecord(record, partition, adapter, fetched_at, tried=tried)
        self.requests.begin(in_flight)
        if not in_flight.finished and not tried:
            in_flight.shadows = self._shadow_traffic.submit(record)
