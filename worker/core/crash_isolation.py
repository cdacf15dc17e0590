"""Crash isolation: find the message that crashes the engine and send it to the dead-letter topic.

When the engine crashes, the process ends and the next owner of the partition reads the same
records again. Suspects are therefore stored in Kafka, in a note with the committed offset
(``worker.core.assignment``), where the next owner reads them.

An owner that leaves its note open makes its records suspects, no more: it may have crashed, may
have been killed for another reason, or may be alive and have lost the partition. Suspects are sent
to the engine alone, one at a time. A suspect that gets an answer is cleared. Only a proven death
counts against a record: the engine, or the whole process, died while the engine had nothing but
this record. There are two kinds of proof:

- The engine died and the worker survived: the worker saw it.
- The whole process died (killed for memory, or a crash inside the engine's library). Before each
  trial the process writes a file (``TrialWitness``), and it removes the file when the trial ends,
  also when the partition is lost. The next process on this host finds the file of a dead process.

A record with three proven deaths is rejected with ``killed_engine``. The third counts only if the
engine has answered another record quickly since its start: an engine that answers nothing is broken
or slow, and no record is to blame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from worker.core.assignment import (
    PROVEN_DEATHS,
    Assignment,
    OffsetNote,
    PartitionState,
    Suspects,
    read_note,
)
from worker.core.events import Listener, PublishFailed, Rewound, SuspicionChanged
from worker.core.pipeline import Pipeline
from worker.errors import OutcomeUnknown, PublishAborted, StreamFailed
from worker.records.types import CommittedOffset, NextOffset, Rejected, TopicPartition
from worker.stream.port import Stream


@dataclass(frozen=True, slots=True)
class ProvenDeath:
    """A process died while its engine had nothing but the record at ``offset``."""

    source: TopicPartition
    offset: int


class TrialWitness(Protocol):
    """Stores outside the process which record is alone in the engine."""

    def begin(self, source: TopicPartition, offset: int) -> None:
        """Store that this record is about to be alone in the engine. Must not raise."""
        ...

    def end(self) -> None:
        """Store that the trial is over and the process is alive. Must not raise."""
        ...

    def take_deaths(self) -> Sequence[ProvenDeath]:
        """Return and remove the trials of processes that died in one."""
        ...


@dataclass(frozen=True, slots=True)
class IsolationPolicy:
    """``process`` is this process's unique name in its notes.

    ``reach``: how many offsets after the committed one a dead owner may have had in its engine,
    which is the number of records that a worker may hold.
    """

    process: str
    reach: int
    witness: TrialWitness


class CrashIsolation:
    """Opens partitions, tries suspects, and rejects proven ones. For the loop's thread.

    ``commit`` commits offsets and notes without results. Without a policy no note is written: an
    engine that crashes on a message then crashes on it again and again.
    """

    def __init__(
        self,
        policy: IsolationPolicy | None,
        *,
        stream: Stream,
        pipeline: Pipeline,
        assignment: Assignment,
        listener: Listener,
        commit: Callable[[Callable[[], Sequence[NextOffset]]], None],
        start_at: Callable[[PartitionState, int], None],
        start_over: Callable[[PartitionState, CommittedOffset], None],
    ) -> None:
        self._policy = policy
        self._stream = stream
        self._pipeline = pipeline
        self._assignment = assignment
        self._listener = listener
        self._commit = commit
        self._start_at = start_at
        self._start_over = start_over
        self._reported: dict[PartitionState, Suspects] = {}
        """Partitions whose suspects the listener knows of, until they are cleared."""
        self._deaths = list(policy.witness.take_deaths()) if policy is not None else []

    def open_partitions(self) -> bool:
        """Read the notes of new partitions' last owners, and commit notes of our own.

        Returns whether anything was committed. Raises PublishAborted, StreamFailed.
        """
        if not self._pipeline.unopened:
            return False
        opened: list[tuple[PartitionState, Suspects, int]] = []
        for found in self._stream.read_committed([each.source for each in self._pipeline.unopened]):
            partition = self._assignment.get(found.source)
            assert partition is not None
            first = position = partition.waiting[0].record.offset
            note = read_note(found.note, found.offset or 0)
            committed = found.offset
            if not _is_trusted(found, note):
                if not partition.from_beginning:
                    self._start_over(partition, found)
                    continue
                committed, note = None, OffsetNote()
            # A committed offset beyond the end is from before the log was truncated: the records
            # are new.
            if committed is not None and found.end is not None and committed <= found.end:
                position = max(first, committed)
            note = replace(note, topic=found.topic_id or note.topic)
            at = first if committed is None else committed
            opened.append((partition, self._take_over(found, note, at, position), position))
        noted = {partition.source for partition, _, _ in opened}
        left = [death for death in self._deaths if death.source not in noted]
        # Before a record is admitted: if the engine crashed on it without a note, the next owner
        # would not know of any suspect.
        if self._policy is not None and opened:
            try:
                self._commit_notes([(partition, suspects) for partition, suspects, _ in opened])
            except OutcomeUnknown:
                self._deaths = left  # they may be in the committed note, and must not count twice
                raise
        self._deaths = left
        for partition, suspects, position in opened:
            source, first = partition.source, partition.waiting[0].record.offset
            if position > first:
                self._start_at(partition, position)
                self._listener(Rewound(source, first, position))
            partition.suspects = suspects
            self._pipeline.open(partition)
            self._report_suspects(partition, suspects)
        return self._policy is not None and bool(opened)

    def check_offsets(self, sources: Iterable[TopicPartition]) -> None:
        """Start those of these partitions over whose committed offset is not to be trusted.

        ``open_partitions`` does so with the first record. If the new topic of the name has as many
        records as are committed, that may be long after. Raises StreamFailed.
        """
        idle = [each for each in map(self._assignment.get, sources) if each and each.is_unread]
        try:
            found = self._stream.read_committed([each.source for each in idle]) if idle else ()
        except PublishAborted:
            return  # the first record is still to come
        for partition, committed in zip(idle, found, strict=True):
            if not _is_trusted(committed, read_note(committed.note, committed.offset or 0)):
                self._start_over(partition, committed)

    def holds_up(self, partitions: Iterable[PartitionState]) -> bool:
        """Return whether records of these partitions are held back from the engine."""
        pipeline = self._pipeline
        return pipeline.isolating or any(
            partition in pipeline.unopened
            or any(held.partition is partition for held in pipeline.suspects)
            for partition in partitions
        )

    def step(self) -> None:
        """Reject records with enough proven deaths; try the next suspect if the engine is empty."""
        pipeline = self._pipeline
        for held in [held for held in pipeline.suspects if held.deaths >= PROVEN_DEATHS]:
            detail = (
                f"the engine died {held.deaths} times with only this message in it, and answered "
                "other messages"
            )
            source, offset = held.partition.source, held.record.offset
            pipeline.reject(held, Rejected("killed_engine", "engine", detail, held.deaths))
            self._listener(SuspicionChanged("rejected", source, offset, 1, held.deaths))
        if pipeline.isolating and pipeline.engine_is_empty and self._policy is not None:
            held = pipeline.take_suspect()
            witness = self._policy.witness
            # A deciding trial in an engine that may be broken leaves no witness: a death of the
            # process would count as proof.
            if pipeline.requests.has_answered or held.deaths < PROVEN_DEATHS - 1:
                witness.begin(held.partition.source, held.record.offset)
            pipeline.try_alone(held, witness.end)
        for partition, suspects in tuple(self._reported.items()):
            if partition.ended or not len(suspects):
                del self._reported[partition]
            if not partition.ended and not len(suspects):
                source = partition.source
                self._listener(SuspicionChanged("cleared", source, suspects.committed, 0, 0))

    def engine_died(self) -> None:
        """Store which records the engine had. Never raises: the worker is about to exit."""
        if self._policy is None:
            return
        alone = self._pipeline.alone
        if alone is not None and alone.future is None:  # the engine died before the trial began
            self._policy.witness.end()
            alone = None
        if alone is not None and not alone.partition.ended:
            assert alone.partition.suspects is not None
            decides = self._pipeline.requests.has_answered
            alone.partition.suspects.prove(alone.record.offset, decides=decides)
            self._report_suspects(alone.partition, alone.partition.suspects)
        else:
            self._suspect_all_in_the_engine()
        if self.close(self._assignment):  # otherwise keep the witness's file: it is the only proof
            self._policy.witness.end()

    def close(self, partitions: Iterable[PartitionState]) -> bool:
        """Commit notes that close these partitions; return whether they may have reached Kafka.

        Never raises: if it fails, the next owner only tries innocent records one at a time.
        """
        opened = [
            (partition, partition.suspects)
            for partition in partitions
            if partition.suspects is not None and partition.suspects.noted
        ]
        try:
            if opened:
                self._commit_notes(opened, closing=True)
        except (PublishAborted, StreamFailed) as error:
            self._listener(PublishFailed(0, 1, error))
            return isinstance(error, OutcomeUnknown)
        return True

    def _suspect_all_in_the_engine(self) -> None:
        offsets: dict[PartitionState, list[int]] = {}
        for in_flight in self._pipeline.requests.in_flight():
            offsets.setdefault(in_flight.partition, []).append(in_flight.record.offset)
        for partition, those in offsets.items():
            if partition.suspects is not None:
                partition.suspects.blame(min(those), max(those))
                self._report_suspects(partition, partition.suspects)

    def _take_over(
        self, found: CommittedOffset, note: OffsetNote, committed: int, position: int
    ) -> Suspects:
        """Return the suspects of a partition that continues at ``position``."""
        if self._policy is None:
            return Suspects(None, committed, OffsetNote(topic=note.topic))
        stop = position + self._policy.reach
        window = range(position, stop if found.end is None else min(stop, found.end))
        suspects = Suspects.take_over(note, committed, window, self._policy.process)
        for death in self._deaths:
            if death.source == found.source and death.offset >= position:
                suspects.prove(death.offset)
        return suspects

    def _report_suspects(self, partition: PartitionState, suspects: Suspects) -> None:
        if len(suspects):
            self._reported[partition] = suspects
            at, records = suspects.committed, len(suspects)
            self._listener(
                SuspicionChanged("suspected", partition.source, at, records, suspects.most_deaths)
            )

    def _commit_notes(
        self, opened: Sequence[tuple[PartitionState, Suspects]], *, closing: bool = False
    ) -> None:
        # A callable: committing may first resolve an unknown commit, which moves ``committed``.
        def offsets() -> Sequence[NextOffset]:
            found = []
            for partition, suspects in opened:
                note = suspects.note(suspects.committed, closing=closing)
                found.append(NextOffset(partition.source, suspects.committed, note))
            return found

        self._commit(offsets)


def _is_trusted(found: CommittedOffset, note: OffsetNote) -> bool:
    """Return whether a committed offset belongs to the topic of today, as far as that is known.

    Ids are "cluster/topic", and a topic's may contain a slash (base64), unlike a cluster's. An
    offset that was mirrored from another cluster is trusted.
    """
    if not found.topic_id or not note.topic:
        return True
    now, noted = found.topic_id.partition("/"), note.topic.partition("/")
    return now == noted or now[0] != noted[0]
