"""Suspects that wait to be tried by the engine, and the group of them that it has now."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isqrt

from worker.core.assignment import InFlightRecord, PartitionState
from worker.records.types import Record


@dataclass(frozen=True, slots=True, eq=False)
class HeldRecord:
    """A record that is kept from the engine for now. ``fetched_at`` in monotonic seconds."""

    record: Record
    partition: PartitionState
    fetched_at: float

    @property
    def offset(self) -> int:
        """The record's place in its partition."""
        return self.record.offset


class Trials:
    """Holds what must not go to the engine as usual, and chooses whom to try next.

    While any suspect is here the engine is given trials alone: whatever dies in one is to blame.
    """

    def __init__(self) -> None:
        self.unopened: dict[PartitionState, None] = {}
        """Partitions with records, of which it is not known yet what their last owner left."""
        self.waiting: deque[HeldRecord] = deque()
        self.condemned: list[HeldRecord] = []
        self.group: set[tuple[PartitionState, int]] = set()
        self.noted: set[PartitionState] = set()
        """Partitions whose committed note names a trial. Until that is taken back nothing else may
        be in the engine: what it died of would be blamed on who was tried."""

    @property
    def active(self) -> bool:
        """Whether the engine is for suspects alone."""
        return bool(self.waiting or self.group or self.noted)

    @property
    def suspects(self) -> int:
        """How many records are held for trial, or being tried. Safe from any thread."""
        return len(self.waiting) + len(self.group)

    def hold(self, record: Record, partition: PartitionState, fetched_at: float) -> bool:
        """Keep a record here if it is suspect or condemned; tell whether it was."""
        suspicion = partition.suspicion
        assert suspicion is not None
        suspected = suspicion.suspects(record.offset)
        if suspected:
            self.waiting.append(HeldRecord(record, partition, fetched_at))
        elif record.offset in suspicion.condemned:
            self.condemned.append(HeldRecord(record, partition, fetched_at))
            return True
        elif not self.has(partition):
            suspicion.acquit()
        return suspected

    def has(self, partition: PartitionState) -> bool:
        """Tell whether suspects of this partition are here."""
        return any(partition is held.partition for held in self.waiting) or any(
            partition is tried for tried, _ in self.group
        )

    def choose(self, limit: int, suspects: int) -> Sequence[HeldRecord]:
        """Choose whom to try next, of so many ``suspects`` in all: at most ``limit``.

        After one death about the square root of them: it may have been nobody's fault, and then
        that many quick trials acquit them all. After a second death, in a trial, one at a time. An
        answered trial costs the time of an answer and a commit, a death the loading of the model:
        so a message is found out by four deaths however many were in flight, where halving them
        would take the logarithm of that number and two. (In two stages, as Dorfman 1943.)
        """
        worst = max(self.waiting, key=_deaths)
        if _deaths(worst) >= 2:
            return [worst]
        size = max(1, min(limit, isqrt(max(suspects, len(self.waiting)))))
        return [held for held, _ in zip(self.waiting, range(size), strict=False)]

    def begin(self, group: Sequence[HeldRecord]) -> None:
        """These are given to the engine now."""
        chosen = set(group)
        self.waiting = deque(held for held in self.waiting if held not in chosen)
        self.group = {(held.partition, held.offset) for held in group}

    def finish(self, in_flight: InFlightRecord) -> None:
        """One that was tried was answered, or its partition is gone."""
        partition, offset = in_flight.partition, in_flight.record.offset
        self.group.discard((partition, offset))
        suspicion = partition.suspicion
        if suspicion is not None and not partition.ended:
            suspicion.answer(offset)
            if not self.has(partition):
                suspicion.acquit()

    def forget(self, partitions: Iterable[PartitionState]) -> None:
        """Drop what is held of partitions that are no longer assigned."""
        ended = set(partitions)
        for partition in ended:
            self.unopened.pop(partition, None)
        self.noted -= ended
        if self.waiting or self.condemned or self.group:
            self.waiting = deque(held for held in self.waiting if held.partition not in ended)
            self.condemned = [held for held in self.condemned if held.partition not in ended]
            self.group = {tried for tried in self.group if tried[0] not in ended}


def _deaths(held: HeldRecord) -> int:
    assert held.partition.suspicion is not None
    return held.partition.suspicion.deaths
