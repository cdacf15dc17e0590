"""The partitions assigned to this worker: what is held of each, and what may be published.

From the bottom up: which records of a partition are finished (``Watermark``), which may have
crashed the engine (``Suspects``, stored with the committed offset), a partition's state, the
assignment, and when to stop and resume fetching (``Backpressure``).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, TypeVar

from worker.core.arms import ShadowRequest
from worker.core.labeller import Prepared, ServingAdapter
from worker.engine.port import Answer
from worker.records.types import Outcome, Record, TopicPartition

T = TypeVar("T")


class Watermark(Generic[T]):
    """Records of one assignment of one partition, oldest first, and which are finished.

    Offsets come in rising order, with gaps where the log has them (compaction, transaction
    markers). Only a prefix without an unfinished record may be published: what lies behind one
    would be lost with it, or done twice, if the worker died now.
    """

    def __init__(self) -> None:
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._results: dict[int, T] = {}
        self._ready = 0
        self._last = -1

    def __len__(self) -> int:
        """Count the records that were added and not yet confirmed."""
        return len(self._order)

    @property
    def ready(self) -> int:
        """How many records, from the oldest on, are finished without a gap."""
        return self._ready

    @property
    def waiting(self) -> int:
        """How many finished records wait behind an unfinished one. Safe from any thread."""
        return max(0, len(self._results) - self._ready)

    def add(self, offset: int) -> None:
        """Add a record that was fetched. Raises ValueError if it is not a newer one."""
        if offset <= self._last:
            raise ValueError(f"offset {offset} after {self._last}")
        self._last = offset
        self._order.append(offset)
        self._open.add(offset)

    def forget_before(self, offset: int) -> int:
        """Forget records before ``offset`` that are not in the engine yet; return how many."""
        before = len(self._order)
        while self._order and self._order[0] < offset:
            self._open.remove(self._order.popleft())
        return before - len(self._order)

    def finish(self, offset: int, result: T) -> None:
        """Keep a record's result. Raises KeyError when it is unknown or already finished."""
        self._open.remove(offset)
        self._results[offset] = result
        while self._ready < len(self._order) and self._order[self._ready] not in self._open:
            self._ready += 1

    def replace(self, offset: int, result: T) -> None:
        """Give a finished record another result. Raises KeyError when it has none."""
        if offset not in self._results:
            raise KeyError(offset)
        self._results[offset] = result

    def peek(self, limit: int) -> list[tuple[int, T]]:
        """Return up to ``limit`` (offset, result) pairs of the finished prefix, oldest first."""
        count = min(limit, self._ready)
        return [(offset, self._results[offset]) for offset in islice(self._order, count)]

    def ready_below(self, offset: int) -> int:
        """Count the finished records, from the oldest on, that lie before ``offset``."""
        return sum(1 for ready in islice(self._order, self._ready) if ready < offset)

    def confirm(self, count: int) -> None:
        """Forget the first ``count`` records: they are published. Raises ValueError."""
        if count > self._ready:
            raise ValueError(f"{count} records confirmed and {self._ready} are finished")
        for _ in range(count):
            del self._results[self._order.popleft()]
        self._ready -= count


VERSION = 1

PROVEN_DEATHS = 3
"""A record is rejected after this many engine deaths while it was alone in the engine. Two would
do for a guilty one; an engine that dies of one record in 300 at random would then reject an
innocent one in about six of its crashes per thousand, with three in about two per 100,000."""

_MAX_DEATHS = 64
"""Records with proven deaths that a note has room for; each of them cost a crash."""


@dataclass(frozen=True, slots=True)
class OffsetNote:
    """What one owner of a partition leaves to the next: JSON, in the committed offset's metadata.

    Only the partition's owner can commit it, in the same step as its results, and the next owner
    reads it. So suspects survive a dead process and a takeover without another topic.
    Brokers take 4,096 bytes (``offset.metadata.max.bytes``). Its offsets are relative to the
    committed one.

    ``owner`` is the process that has the partition open, None once it closed it. ``suspects`` are
    the offsets that may have crashed the engine; ``deaths`` counts, by offset, the deaths of an
    engine that had nothing but this record.
    """

    owner: str | None = None
    suspects: range = range(0)
    deaths: Mapping[int, int] = field(default_factory=dict)

    def encode(self, offset: int) -> str:
        """Write the note for the committed ``offset``; empty if there is nothing to say."""
        fields: dict[str, Any] = {}
        if self.owner is not None:
            fields["by"] = self.owner
        if self.suspects:
            fields["suspects"] = [self.suspects.start - offset, len(self.suspects)]
        if self.deaths:
            newest = sorted(self.deaths.items())[:_MAX_DEATHS]
            fields["deaths"] = [number for at, count in newest for number in (at - offset, count)]
        return json.dumps({"v": VERSION, **fields}, separators=(",", ":")) if fields else ""


def read_note(text: str, offset: int) -> OffsetNote:
    """Read the note of the committed ``offset``. A note that is not ours is an empty note."""
    try:
        fields = json.loads(text) if text else None
        if not isinstance(fields, dict) or fields.get("v") != VERSION:
            return OffsetNote()
        owner = fields.get("by")
        first, length = _counts(fields.get("suspects", [0, 0]))
        deaths = _counts(fields.get("deaths", []))
        return OffsetNote(
            owner if isinstance(owner, str) else None,
            range(offset + first, offset + first + length),
            {offset + at: n for at, n in zip(deaths[::2], deaths[1::2], strict=True)},
        )
    except (ValueError, RecursionError):
        return OffsetNote()


class Suspects:
    """The suspects of one partition while it is assigned. ``committed`` is its committed offset.

    Without a ``process`` (crash isolation is off) nothing is suspected and nothing is noted.
    """

    def __init__(self, process: str | None, committed: int, note: OffsetNote) -> None:
        self.committed = committed
        self.reported = False
        """Whether suspects were reported to the listener and are not cleared yet."""
        self._process = process
        self._range = note.suspects
        self._deaths = dict(note.deaths)
        self._cleared: set[int] = set()

    @classmethod
    def take_over(cls, note: OffsetNote, committed: int, window: range, process: str) -> Suspects:
        """Take a partition over from the owner that left ``note``.

        A partition that another process left open makes all of ``window`` suspect: it may have
        crashed on any of them. It may also have lost the partition in good health, so an open note
        never counts as a death.
        """
        if note.owner not in (None, process):
            note = OffsetNote(suspects=window, deaths=note.deaths)
        return cls(process, committed, note)

    def __contains__(self, offset: int) -> bool:
        """Return whether the record at ``offset`` is suspect."""
        return offset in self._deaths or (offset in self._range and offset not in self._cleared)

    def __len__(self) -> int:
        """Count the suspect offsets; some may not be records."""
        certain = sum(offset not in self._range for offset in self._deaths)
        return certain + len(self._range) - len(self._cleared)

    @property
    def noted(self) -> bool:
        """Whether this partition's offsets are committed with notes."""
        return self._process is not None

    def deaths(self, offset: int) -> int:
        """Return how many proven deaths the record at ``offset`` has."""
        return self._deaths.get(offset, 0)

    @property
    def most_deaths(self) -> int:
        """Return the proven deaths of the record that has most."""
        return max(self._deaths.values(), default=0)

    def clear(self, offset: int) -> None:
        """The record at ``offset`` got an answer, alone in the engine."""
        self._deaths.pop(offset, None)
        if offset in self._range:
            self._cleared.add(offset)

    def blame(self, first: int, last: int) -> None:
        """The engine died with records from ``first`` to ``last``: these are the suspects now."""
        self._suspect(range(first, last + 1))

    def prove(self, offset: int, *, decides: bool = True) -> None:
        """The engine died while it had nothing but this record: that explains the last crash.

        A death that does not decide leaves the record one short of a conviction.
        """
        most = PROVEN_DEATHS if decides else PROVEN_DEATHS - 1
        self._deaths[offset] = max(self.deaths(offset), min(self.deaths(offset) + 1, most))
        self._suspect(range(0))

    def commit(self, offset: int) -> None:
        """``offset`` was committed: whatever lies before it has its result."""
        self.committed = offset
        if offset >= self._range.stop:
            self._suspect(range(0))
        if self._deaths:
            self._deaths = {at: count for at, count in self._deaths.items() if at >= offset}

    def note(self, offset: int, *, closing: bool = False) -> str:
        """Return what to commit with ``offset``, now or when the partition is closed."""
        left = self._range
        start = max(offset, left.start)
        while start in self._cleared:
            start += 1
        return OffsetNote(
            None if closing else self._process,
            range(start, max(start, left.stop)),
            {at: count for at, count in self._deaths.items() if at >= offset},
        ).encode(offset)

    def _suspect(self, offsets: range) -> None:
        self._range = offsets
        self._cleared.clear()


def _counts(value: object) -> list[int]:
    if not isinstance(value, list) or not all(
        type(each) is int and 0 <= each < 1 << 62 for each in value
    ):
        raise ValueError("not a list of counts")
    return value


@dataclass(frozen=True, slots=True)
class CompletedRecord:
    """A record, where it ended and which adapter decided that.

    ``without_payload``: its dead letter leaves key, value and headers out. ``shadows`` are what
    other adapters make of it, for comparison. Times are monotonic seconds: when it was fetched,
    and when its outcome was known.
    """

    record: Record
    outcome: Outcome
    adapter: ServingAdapter
    without_payload: bool = False
    fetched_at: float = 0.0
    finished_at: float = 0.0
    shadows: Sequence[ShadowRequest] = ()


@dataclass(slots=True, eq=False)
class WaitingRecord:
    """A record that is not in the engine yet. ``fetched_at`` in monotonic seconds."""

    record: Record
    partition: PartitionState
    fetched_at: float

    @property
    def deaths(self) -> int:
        """Deaths of an engine that had nothing but this record."""
        suspects = self.partition.suspects
        return suspects.deaths(self.record.offset) if suspects is not None else 0


@dataclass(slots=True, eq=False)
class PartitionState:
    """One assignment of one partition. Once it has ``ended``, whatever comes back is dropped.

    ``waiting`` are the records that are not in the engine yet, in order. Until it is known what the
    last owner left, ``suspects`` is None and none of them is admitted. What lies before
    ``starts_at`` was published by an owner before this one.
    """

    source: TopicPartition
    watermark: Watermark[CompletedRecord] = field(default_factory=Watermark)
    waiting: deque[WaitingRecord] = field(default_factory=deque)
    suspects: Suspects | None = None
    size_bytes: int = 0
    starts_at: int = 0
    ended: bool = False

    def start_at(self, offset: int) -> tuple[int, int]:
        """Leave out what lies before ``offset``, of a partition of which no record is admitted yet;
        return how many records and bytes are held no more."""
        self.starts_at = offset
        size_bytes = 0
        while self.waiting and self.waiting[0].record.offset < offset:
            size_bytes += self.waiting.popleft().record.size_bytes
        self.size_bytes -= size_bytes
        return self.watermark.forget_before(offset), size_bytes


@dataclass(slots=True, eq=False)
class InFlightRecord:
    """One record on its way through the engine. Times are monotonic seconds.

    ``adapter`` is the one that it was admitted with. It has another one only when that one's
    engine has died, and then all of it is done again.
    """

    record: Record
    partition: PartitionState
    adapter: ServingAdapter
    fetched_at: float
    prepared: Prepared | None = None
    future: Future[Answer] | None = None
    shadows: Sequence[ShadowRequest] = ()
    submitted_at: float = 0.0
    attempts: int = 0
    on_end: Callable[[], None] | None = None
    """Of a suspect, which is alone in the engine: called when that is over."""
    finished: bool = False


class Assignment:
    """The partitions assigned now. A partition that goes and comes back is a new state."""

    def __init__(self) -> None:
        self._states: dict[TopicPartition, PartitionState] = {}

    def __contains__(self, source: TopicPartition) -> bool:
        """Return whether a partition is assigned."""
        return source in self._states

    def __iter__(self) -> Iterator[PartitionState]:
        """Go through the partitions, in order of assignment."""
        return iter(tuple(self._states.values()))

    @property
    def sources(self) -> Sequence[TopicPartition]:
        """The partitions assigned now."""
        return tuple(self._states)

    @property
    def ready(self) -> int:
        """Records that are finished and may be published, over all partitions."""
        return sum(partition.watermark.ready for partition in self._states.values())

    def get(self, source: TopicPartition) -> PartitionState | None:
        """Return a partition's state, None when it is not assigned."""
        return self._states.get(source)

    def begin(self, sources: Iterable[TopicPartition]) -> list[PartitionState]:
        """Take these partitions on, each from a clean start."""
        begun = {source: PartitionState(source) for source in sources}
        self._states.update(begun)
        return list(begun.values())

    def end(self, sources: Iterable[TopicPartition]) -> list[PartitionState]:
        """Let these partitions go; return their states, marked as ended."""
        ended = [self._states.pop(source) for source in sources if source in self._states]
        for partition in ended:
            partition.ended = True
        return ended


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight at once: records and bytes fetched and not yet published.

    A partition's fetching resumes below ``resume_ratio`` of what would pause it.
    """

    max_records: int
    # A guard for the worker's memory: with the usual 512 records it is met first only where
    # messages are larger than 128 kB, and a support message has some kilobytes.
    max_bytes: int = 64 * 1024 * 1024
    # Each pause throws the client's prefetch away, so the two marks are kept far apart.
    resume_ratio: float = 0.5


class Backpressure:
    """Counts what is in flight and says which partitions to pause and to resume.

    A partition may hold as much as is still free (Choudhury and Hahne 1998, Dynamic queue length
    thresholds for shared-memory packet switches, with alpha = 1): one alone takes up to half of the
    bounds, and however many wait behind a message that is not answered, as much again as each of
    them holds is left for the others.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.records = 0
        self.bytes = 0
        self.paused: set[TopicPartition] = set()
        self.held: set[TopicPartition] = set()
        """Partitions that somebody else has paused, until it is somebody else who resumes them."""

    @property
    def room(self) -> tuple[int, int]:
        """How many more records and bytes may be fetched now, from whichever partition.

        Half of what is free, since one partition may give all of it; a last record is never cut.
        """
        records, size_bytes = self._free
        return -(-records // 2), -(-size_bytes // 2)

    @property
    def _free(self) -> tuple[int, int]:
        return (
            max(0, self.bounds.max_records - self.records),
            max(0, self.bounds.max_bytes - self.bytes),
        )

    def take(self, size_bytes: int) -> None:
        """Count one record in."""
        self.records += 1
        self.bytes += size_bytes

    def release(self, records: int, size_bytes: int) -> None:
        """Count records out."""
        self.records -= records
        self.bytes -= size_bytes

    def end(self, sources: Iterable[TopicPartition]) -> None:
        """Forget these partitions: their next assignment begins unpaused."""
        self.paused.difference_update(sources)
        self.held.difference_update(sources)

    def pause(self, sources: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Take these for paused; return those that were not."""
        new = [source for source in sources if source not in self.paused]
        self.paused.update(new)
        return new

    def decide(
        self, partitions: Iterable[PartitionState]
    ) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Say which to pause now and which to resume, and take it as done."""
        free_records, free_bytes = self._free
        ratio = self.bounds.resume_ratio
        pause, resume = [], []
        for partition in partitions:
            if partition.source in self.held:
                continue
            records, size_bytes = len(partition.watermark), partition.size_bytes
            full = records >= free_records or size_bytes >= free_bytes
            if full and partition.source not in self.paused:
                pause.append(partition.source)
            elif partition.source in self.paused and not full:
                low = records <= ratio * free_records and size_bytes <= ratio * free_bytes
                if low:
                    resume.append(partition.source)
        self.paused.update(pause)
        self.paused.difference_update(resume)
        return pause, resume
