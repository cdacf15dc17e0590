"""A message that kills the engine is found out and put aside, whoever owns its partition by then.

An engine that dies takes the process along, and whoever starts next reads the same records again.
So what is known has to be in Kafka: each commit carries a note (``worker.core.offset_note``).

- While a partition is open its note says so. One that is found open was left by a process that was
  killed: any of its records from the committed offset on may have done it.
- A worker whose engine dies under it leaves the names of those that the engine had.
- Suspects are tried with nothing else in the engine, first some at a time, then one by one
  (``Trials.choose``); before each trial it is noted who is in it. Who is answered is acquitted.
- One that has killed the engine twice with nothing else in it is condemned: a dead letter, as soon
  as the engine has answered anything else. An engine that answers nothing at all is broken, and no
  record is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from worker.core.assignment import Assignment, PartitionState
from worker.core.events import Listener
from worker.core.offset_note import OffsetNote, to_ranges
from worker.core.pipeline import Pipeline
from worker.core.suspicion import Suspicion
from worker.core.trials import HeldRecord
from worker.errors import PublishAborted, StreamFailed
from worker.records.types import NextOffset, Rejected, TopicPartition
from worker.stream.port import Stream

_IDLE_S = 5.0
"""A condemned record is put aside without an answer to another if none has come for so long."""


@dataclass(frozen=True, slots=True)
class QuarantinePolicy:
    """``process`` names this process in its notes, unlike any other.

    ``reach`` is how many offsets after the committed one may have been in the engine of an owner
    that was killed: what a worker holds at most.
    """

    process: str
    reach: int


class Quarantine:
    """Opens partitions, tries suspects, puts the guilty aside. For the loop's thread.

    ``commit`` commits offsets and notes without results. Without a policy nothing is noted, nothing
    suspected, and an engine that dies dies again.
    """

    def __init__(
        self,
        policy: QuarantinePolicy | None,
        *,
        stream: Stream,
        pipeline: Pipeline,
        assignment: Assignment,
        listener: Callable[[], Listener],
        commit: Callable[[Callable[[], Sequence[NextOffset]]], None],
        start_at: Callable[[PartitionState, int], None],
        clock: Callable[[], float],
    ) -> None:
        self._policy = policy
        self._stream = stream
        self._pipeline = pipeline
        self._requests = pipeline.requests
        self._trials = pipeline.trials
        self._assignment = assignment
        self._listener = listener
        self._commit = commit
        self._start_at = start_at
        self._clock = clock
        self._suspected: dict[PartitionState, int] = {}
        self._proven = False

    def fetched(self) -> None:
        """Without a policy partitions open as soon as records have come. Raises PublishAborted."""
        if self._policy is None and self._trials.unopened:
            self._open()

    def holds_up(self, partitions: Iterable[PartitionState]) -> bool:
        """Tell whether records of these wait for something else than the engine's answer."""
        trials = self._trials
        return trials.active or any(
            partition in trials.unopened
            or any(held.partition is partition for held in trials.condemned)
            for partition in partitions
        )

    def step(self) -> bool:
        """Do what is to be done now; tell whether something was committed.

        Raises PublishAborted, StreamFailed, or EngineDied: in the middle of a trial.
        """
        trials = self._trials
        if not (trials.unopened or trials.active or trials.condemned or self._suspected):
            return False
        committed = self._open() if trials.unopened else False
        if self._requests.proven and not self._proven:
            self._proven = True
            for partition in self._assignment:
                if partition.suspicion is not None:
                    partition.suspicion.unproven = 0
        if trials.condemned:
            self._put_aside()
        idle = not trials.group and not self._requests.in_engine
        if idle and (trials.waiting or trials.noted):
            self._try_next()
            committed = True
        self._tell_acquitted()
        return committed

    def died(self) -> None:
        """Leave word of who was in the engine when it died. Never raises: it is a last act."""
        if self._policy is None:
            return
        suspects = self._requests.find_suspects()
        alone = len(suspects) == 1 and self._requests.in_engine <= 1
        by_partition: dict[PartitionState, list[int]] = {}
        for in_flight in suspects:
            by_partition.setdefault(in_flight.partition, []).append(in_flight.record.offset)
        for partition, offsets in by_partition.items():
            suspicion = partition.suspicion
            assert suspicion is not None
            tried = bool(suspicion.group)
            suspicion.blame(
                to_ranges(offsets), tried=tried, alone=alone and (suspicion.alone or not tried)
            )
            self._tell_suspected(partition, min(offsets))
        self.close(self._assignment)

    def close(self, partitions: Iterable[PartitionState]) -> None:
        """Note that these are let go in good order. Never raises: else their next owner is careful
        for nothing."""
        noted = [
            (partition.source, suspicion)
            for partition in partitions
            if (suspicion := partition.suspicion) is not None and suspicion.noted
        ]
        if not noted:
            return
        try:
            self._commit_notes(noted, closing=True)
        except (PublishAborted, StreamFailed) as error:
            self._listener().publish_failed(0, 1, error)

    def _open(self) -> bool:
        """Learn what the last owners left, and note that these partitions are ours; tell whether
        anything was noted."""
        trials, policy = self._trials, self._policy
        partitions = {partition.source: partition for partition in trials.unopened}
        suspicions: dict[PartitionState, Suspicion] = {}
        rewound: list[tuple[PartitionState, int, int]] = []
        for found in self._stream.read_committed(tuple(partitions)):
            partition = partitions[found.source]
            first = partition.waiting[0][0].offset
            committed = first if found.offset is None else found.offset
            # A committed offset beyond the end is of a log that was cut: the records are new.
            if first < committed and found.end is not None and committed <= found.end:
                rewound.append((partition, first, committed))
            if policy is None:
                suspicions[partition] = Suspicion(None, 0, OffsetNote())
                continue
            start = max(first, committed)  # what has expired is suspected of nothing
            stop = start + policy.reach
            window = range(start, stop if found.end is None else min(stop, found.end))
            suspicions[partition] = Suspicion.read(found.note, committed, window, policy.process)
        if policy is not None:
            self._commit_notes([(partition.source, kept) for partition, kept in suspicions.items()])
        for partition, first, committed in rewound:
            self._start_at(partition, committed)
            self._listener().rewound(partition.source, first, committed)
        for partition, suspicion in suspicions.items():
            if self._requests.proven:
                suspicion.unproven = 0
            partition.suspicion = suspicion
            self._pipeline.line.open(partition)
            trials.unopened.pop(partition, None)
            if not suspicion.clear:
                self._tell_suspected(partition, suspicion.committed)
        return policy is not None

    def _try_next(self) -> None:
        """Note who is tried next, and that others are no longer; then give them to the engine."""
        partitions = {
            held.partition: held.partition.suspicion
            for held in self._trials.waiting
            if held.partition.suspicion is not None
        }
        left = sum(suspicion.left for suspicion in partitions.values())
        group = self._trials.choose(self._requests.window, left) if partitions else ()
        tried: dict[PartitionState, list[int]] = {}
        for held in group:
            tried.setdefault(held.partition, []).append(held.offset)
        for partition, offsets in tried.items():
            partitions[partition].begin_trial(offsets, alone=len(group) == 1)
        stale = [partition for partition in self._trials.noted if partition not in tried]
        self._trials.noted.update(tried)  # also if the commit is not answered
        try:
            self._commit_notes(
                [
                    (partition.source, suspicion)
                    for partition in (*tried, *stale)
                    if (suspicion := partition.suspicion) is not None
                ]
            )
        except PublishAborted:
            for partition in tried:
                partitions[partition].begin_trial((), alone=False)
            raise
        self._trials.noted = set(tried)
        self._pipeline.try_alone(group)

    def _put_aside(self) -> None:
        kept = []
        for held in self._trials.condemned:
            suspicion = held.partition.suspicion
            assert suspicion is not None
            if not (self._proven or (self._is_idle(held) and not suspicion.unproven)):
                kept.append(held)
                continue
            suspicion.unproven += not self._proven
            deaths = suspicion.condemned[held.offset]
            detail = (
                f"the engine died {deaths} times with this message, at last with no other in it"
            )
            self._pipeline.reject(held, Rejected("killed_engine", "engine", detail, deaths))
            self._listener().suspicion("put_aside", held.partition.source, held.offset, 1, deaths)
            left = self._suspected.pop(held.partition, 1) - 1
            if left:
                self._suspected[held.partition] = left
        self._trials.condemned = kept

    def _is_idle(self, held: HeldRecord) -> bool:
        """Whether nothing else has come that the engine could be tried with."""
        others = sum(len(partition.watermark) for partition in self._assignment)
        alone = others == len(self._trials.condemned)
        return alone and self._clock() - held.fetched_at >= _IDLE_S

    def _tell_suspected(self, partition: PartitionState, offset: int) -> None:
        suspicion = partition.suspicion
        assert suspicion is not None
        listener = self._listener()
        if suspicion.released:
            listener.suspicion("released", partition.source, offset, suspicion.released, 0)
        records = suspicion.left + len(suspicion.condemned)
        if records:
            self._suspected[partition] = records
            deaths = max([suspicion.deaths, *suspicion.condemned.values()])
            listener.suspicion("suspected", partition.source, offset, records, deaths)

    def _tell_acquitted(self) -> None:
        for partition, records in tuple(self._suspected.items()):
            suspicion = partition.suspicion
            if partition.ended or suspicion is None:
                del self._suspected[partition]
            elif suspicion.clear:
                del self._suspected[partition]
                self._listener().suspicion(
                    "acquitted", partition.source, suspicion.committed, records, 0
                )

    def _commit_notes(
        self, noted: Sequence[tuple[TopicPartition, Suspicion]], *, closing: bool = False
    ) -> None:
        self._commit(
            lambda: [
                NextOffset(source, at, suspicion.note(at, closing=closing))
                for source, suspicion in noted
                for at in (suspicion.committed,)
            ]
        )
