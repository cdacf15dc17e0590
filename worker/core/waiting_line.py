"""Records that wait for the engine: in their partitions, in order; the partitions take turns."""

from __future__ import annotations

from collections import deque

from worker.core.assignment import PartitionState
from worker.core.trials import Trials
from worker.records.types import Record


class WaitingLine:
    """Partitions with records that wait for the engine, the next one first.

    What may have killed the engine is kept apart, in ``trials``.
    """

    def __init__(self) -> None:
        self.partitions: deque[PartitionState] = deque()
        self.trials = Trials()

    def add(self, record: Record, partition: PartitionState, fetched_at: float) -> None:
        """Put a record at the end of its partition, fetched at that time (monotonic s)."""
        suspicion = partition.suspicion
        if suspicion is None:
            self.trials.unopened[partition] = None
        elif not suspicion.clear and self.trials.hold(record, partition, fetched_at):
            return
        elif not partition.waiting:
            self.partitions.append(partition)
        partition.waiting.append((record, fetched_at))

    def open(self, partition: PartitionState) -> None:
        """Go on with a partition's records, now that it is known what its last owner left."""
        waiting, partition.waiting = partition.waiting, deque()
        for record, fetched_at in waiting:
            self.add(record, partition, fetched_at)
