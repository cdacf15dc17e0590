"""The assigned partitions: which of their records are held, and which may be published.

From the bottom up: which records of a partition are finished (``Watermark``), which may have
crashed the engine (``Suspects``, stored with the committed offset), the state of a partition, the
assignment, and when to pause and resume fetching (``Backpressure``).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Generic, TypeVar

from worker.core.arms import ShadowRequest
from worker.core.labeller import Prepared, ServingAdapter
from worker.engine.port import Answer
from worker.records.types import Outcome, Record, TopicPartition

T = TypeVar("T")


@dataclass(slots=True)
class Total:
    """Finished records that may be published, over all partitions."""

    ready: int = 0


class Watermark(Generic[T]):
    """The records of one assignment of a partition, oldest first, and which are finished.

    Offsets rise, with gaps where the log has them (compaction, transaction markers). Only the
    prefix before the first unfinished record may be published: a committed offset covers everything
    before it, so a result behind an unfinished record would lose that record or be published twice.
    """

    def __init__(self, total: Total | None = None) -> None:
        self._order: deque[int] = deque()
        self._open: set[int] = set()
        self._results: dict[int, T] = {}
        self._ready = 0
        self._total = total or Total()
        self._last = -1

    def __len__(self) -> int:
        """Count the records that are not yet confirmed."""
        return len(self._order)

    @property
    def ready(self) -> int:
        """How many records are finished without a gap, counted from the oldest."""
        return self._ready

    @property
    def waiting(self) -> int:
        """How many finished records wait behind an unfinished one. Safe from any thread."""
        return max(0, len(self._results) - self._ready)

    def add(self, offset: int) -> None:
        """Add a fetched record. Raises ValueError if its offset is not higher than the last."""
        if offset <= self._last:
            raise ValueError(f"offset {offset} after {self._last}")
        self._last = offset
        self._order.append(offset)
        self._open.add(offset)

    def forget_before(self, offset: int) -> int:
        """Drop unfinished records before ``offset``; return how many."""
        before = len(self._order)
        while self._order and self._order[0] < offset:
            self._open.remove(self._order.popleft())
        return before - len(self._order)

    def finish(self, offset: int, result: T) -> None:
        """Store a record's result. Raises KeyError if it is unknown or already finished."""
        self._open.remove(offset)
        self._results[offset] = result
        # Each record is passed once, so finishing one costs O(1) on average.
        before = self._ready
        while self._ready < len(self._order) and self._order[self._ready] not in self._open:
            self._ready += 1
        self._total.ready += self._ready - before

    def replace(self, offset: int, result: T) -> None:
        """Replace a finished record's result."""
        self._results[offset] = result

    def peek(self, limit: int) -> list[tuple[int, T]]:
        """Return up to ``limit`` (offset, result) pairs of the finished prefix, oldest first."""
        count = min(limit, self._ready)
        return [(offset, self._results[offset]) for offset in islice(self._order, count)]

    def ready_below(self, offset: int) -> int:
        """Count the records of the finished prefix with an offset below ``offset``."""
        return sum(1 for ready in islice(self._order, self._ready) if ready < offset)

    def detach(self) -> None:
        """Stop counting in the total: the assignment has ended, and late answers may still come."""
        self._total = Total()

    def confirm(self, count: int) -> None:
        """Drop the first ``count`` records of the finished prefix: they are published."""
        for _ in range(count):
            del self._results[self._order.popleft()]
        self._ready -= count
        self._total.ready -= count


VERSION = 1

PROVEN_DEATHS = 3
"""A record is rejected after this many engine deaths while it was alone in the engine. If an engine
dies at random of one record in 300, it rejects an innocent record in about six of a thousand
crashes with a limit of two, and in about two of 100,000 with three."""

# Records with proven deaths that fit into a note; each of them cost a crash.
_MAX_DEATHS = 64


@dataclass(frozen=True, slots=True)
class OffsetNote:
    """A note from a partition's owner to the next one: JSON in the committed offset's metadata.

    Only the partition's owner can commit it, together with its results, and the next owner reads
    it. Suspects thus survive a crash and a takeover without another topic. Brokers accept 4,096
    bytes (``offset.metadata.max.bytes``). Encoded offsets are relative to the committed one.

    - ``owner``: the process that has the partition open, None after it has closed it.
    - ``suspects``: the offsets that may have crashed the engine.
    - ``deaths``: by offset, how often the engine died with only this record in it.
    - ``topic``: the id of the topic that the offset belongs to, None if it is unknown.
    """

    owner: str | None = None
    suspects: range = range(0)
    deaths: Mapping[int, int] = field(default_factory=dict)
    topic: str | None = None

    def encode(self, offset: int) -> str:
        """Return the note for the committed ``offset``; an empty note is an empty text."""
        fields: dict[str, Any] = {}
        if self.owner is not None:
            fields["by"] = self.owner
        if self.topic is not None:
            fields["topic"] = self.topic
        if self.suspects:
            fields["suspects"] = [self.suspects.start - offset, len(self.suspects)]
        if self.deaths:
            kept = sorted(self.deaths.items())[:_MAX_DEATHS]
            fields["deaths"] = [number for at, count in kept for number in (at - offset, count)]
        return json.dumps({"v": VERSION, **fields}, separators=(",", ":")) if fields else ""


def read_note(text: str, offset: int) -> OffsetNote:
    """Read the note of the committed ``offset``. Other programs' metadata is an empty note."""
    try:
        fields = json.loads(text) if text else None
        if not isinstance(fields, dict) or fields.get("v") != VERSION:
            return OffsetNote()
        owner, topic = fields.get("by"), fields.get("topic")
        first, length = _counts(fields.get("suspects", [0, 0]))
        deaths = _counts(fields.get("deaths", []))
        return OffsetNote(
            owner if isinstance(owner, str) else None,
            range(offset + first, offset + first + length),
            {offset + at: n for at, n in zip(deaths[::2], deaths[1::2], strict=True)},
            topic if isinstance(topic, str) else None,
        )
    except (ValueError, RecursionError):  # the latter from deeply nested JSON
        return OffsetNote()


class Suspects:
    """The suspects of an assigned partition. ``committed`` is its committed offset.

    Without a ``process`` (crash isolation is off) there are no suspects, and notes contain only the
    topic's id.
    """

    def __init__(self, process: str | None, committed: int, note: OffsetNote) -> None:
        self.committed = committed
        self._process = process
        self._range = note.suspects
        self._deaths = dict(note.deaths)
        self._topic = note.topic
        self._cleared: set[int] = set()

    @classmethod
    def take_over(cls, note: OffsetNote, committed: int, window: range, process: str) -> Suspects:
        """Take a partition over from the owner that left ``note``.

        If another process left it open, all of ``window`` is suspect: that process may have crashed
        on any of these records. It may also have lost the partition in good health, so an open note
        never counts as a death.
        """
        if note.owner not in (None, process):
            note = replace(note, suspects=window)
        return cls(process, committed, note)

    def __contains__(self, offset: int) -> bool:
        """Return whether the record at ``offset`` is a suspect."""
        return offset in self._deaths or (offset in self._range and offset not in self._cleared)

    def __len__(self) -> int:
        """Count the suspect offsets, including gaps in the log."""
        outside = sum(offset not in self._range for offset in self._deaths)
        return outside + len(self._range) - len(self._cleared)

    @property
    def noted(self) -> bool:
        """Whether this partition's offsets are committed with notes."""
        return self._process is not None

    def deaths(self, offset: int) -> int:
        """Return the proven deaths of the record at ``offset``."""
        return self._deaths.get(offset, 0)

    @property
    def most_deaths(self) -> int:
        """The highest number of proven deaths of one record."""
        return max(self._deaths.values(), default=0)

    def clear(self, offset: int) -> None:
        """Clear the record at ``offset``: it got an answer while alone in the engine."""
        self._deaths.pop(offset, None)
        if offset in self._range:
            self._cleared.add(offset)

    def blame(self, first: int, last: int) -> None:
        """Make offsets ``first`` to ``last`` the suspects: the engine died with them."""
        self._suspect(range(first, last + 1))

    def prove(self, offset: int, *, decides: bool = True) -> None:
        """Count a death of the engine with only this record in it.

        It explains the last crash, so all other suspects are cleared. A death that does not decide
        leaves the record one death short of rejection.
        """
        most = PROVEN_DEATHS if decides else PROVEN_DEATHS - 1
        self._deaths[offset] = max(self.deaths(offset), min(self.deaths(offset) + 1, most))
        self._suspect(range(0))

    def commit(self, offset: int) -> None:
        """Drop suspects before the committed ``offset``: they have results."""
        self.committed = offset
        if offset >= self._range.stop:
            self._suspect(range(0))
        if self._deaths:
            self._deaths = {at: count for at, count in self._deaths.items() if at >= offset}

    def note(self, offset: int, *, closing: bool = False) -> str:
        """Return the note to commit with ``offset``; ``closing`` leaves the owner out."""
        left = self._range
        # The note has a single range, so cleared offsets can be left out only at its start.
        start = max(offset, left.start)
        while start in self._cleared:
            start += 1
        return OffsetNote(
            None if closing else self._process,
            range(start, max(start, left.stop)),
            {at: count for at, count in self._deaths.items() if at >= offset},
            self._topic,
        ).encode(offset)

    def _suspect(self, offsets: range) -> None:
        self._range = offsets
        self._cleared.clear()


def _counts(value: object) -> list[int]:
    if not isinstance(value, list) or not all(
        type(each) is int and 0 <= each < 1 << 62
        for each in value  # isinstance() accepts True
    ):
        raise ValueError("not a list of counts")
    return value


# Not frozen: one is made for each record (``worker/records/types.py``).
@dataclass(slots=True)
class CompletedRecord:
    """A record, its outcome, and the adapter that decided it. Times are monotonic seconds.

    ``without_payload``: its dead letter leaves out key, value, and headers. ``shadows``: the same
    record in other adapters, for comparison.
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
    """A record that is not in the engine yet. ``fetched_at`` is in monotonic seconds."""

    record: Record
    partition: PartitionState
    fetched_at: float

    @property
    def deaths(self) -> int:
        """Deaths of the engine with only this record in it."""
        suspects = self.partition.suspects
        return suspects.deaths(self.record.offset) if suspects is not None else 0


# Compared by identity: a partition that comes back is another assignment, to which the answers of
# the one before do not belong.
@dataclass(slots=True, eq=False)
class PartitionState:
    """One assignment of a partition. Answers that arrive after it has ``ended`` are dropped.

    ``waiting``: records that are not in the engine yet, in order. They are admitted once the last
    owner's note has been read; until then ``suspects`` is None. Records before ``starts_at`` were
    published by an earlier owner. ``from_beginning``: it was read from the beginning of its log,
    because the committed offset belongs to a deleted topic of the same name. ``urgent``: its
    messages go before those of other topics.
    """

    source: TopicPartition
    watermark: Watermark[CompletedRecord] = field(default_factory=Watermark)
    waiting: deque[WaitingRecord] = field(default_factory=deque)
    suspects: Suspects | None = None
    size_bytes: int = 0
    starts_at: int = 0
    from_beginning: bool = False
    urgent: bool = False
    ended: bool = False

    @property
    def is_unread(self) -> bool:
        """Whether none of its records was delivered in this assignment."""
        return self.suspects is None and not self.waiting and not self.from_beginning

    def start_at(self, offset: int) -> tuple[int, int]:
        """Drop the records before ``offset``; return how many, and their bytes. Call it before any
        record is admitted."""
        self.starts_at = offset
        size_bytes = 0
        while self.waiting and self.waiting[0].record.offset < offset:
            size_bytes += self.waiting.popleft().record.size_bytes
        self.size_bytes -= size_bytes
        return self.watermark.forget_before(offset), size_bytes


@dataclass(slots=True, eq=False)
class InFlightRecord:
    """One record in the engine. Times are monotonic seconds.

    ``adapter`` is the one that it was admitted with. When that adapter's engine dies, it is the
    fallback, which starts over with the record.
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
    """Called when a suspect's trial ends."""
    finished: bool = False


class Assignment:
    """The assigned partitions. A partition that is assigned again gets a new state, so that answers
    from its earlier assignment are recognized."""

    def __init__(self, is_urgent: Callable[[str], bool] = lambda _: False) -> None:
        self._is_urgent = is_urgent
        self._states: dict[TopicPartition, PartitionState] = {}
        self._totals = {True: Total(), False: Total()}
        """By whether the partitions are urgent."""

    def __contains__(self, source: TopicPartition) -> bool:
        """Return whether a partition is assigned."""
        return source in self._states

    def __iter__(self) -> Iterator[PartitionState]:
        """Iterate over a copy of the partitions, in order of assignment."""
        return iter(tuple(self._states.values()))

    @property
    def sources(self) -> Sequence[TopicPartition]:
        """The assigned partitions."""
        return tuple(self._states)

    @property
    def ready(self) -> int:
        """Number of records that may be published, over all partitions."""
        return self._totals[True].ready + self._totals[False].ready

    @property
    def urgent_is_ready(self) -> bool:
        """Whether an urgent record may be published."""
        return self._totals[True].ready > 0

    @property
    def has_urgent(self) -> bool:
        """Whether a partition is urgent."""
        return any(state.urgent for state in self._states.values())

    def get(self, source: TopicPartition) -> PartitionState | None:
        """Return a partition's state, None if it is not assigned."""
        return self._states.get(source)

    def begin(self, sources: Iterable[TopicPartition], *, from_beginning: bool = False) -> None:
        """Add these partitions, each with a new state."""
        for source in sources:
            urgent = self._is_urgent(source.topic)
            self._states[source] = PartitionState(
                source,
                Watermark(self._totals[urgent]),
                from_beginning=from_beginning,
                urgent=urgent,
            )

    def end(self, sources: Iterable[TopicPartition]) -> list[PartitionState]:
        """Remove these partitions; return their states, marked as ended."""
        ended = [self._states.pop(source) for source in sources if source in self._states]
        for partition in ended:
            partition.ended = True
            self._totals[partition.urgent].ready -= partition.watermark.ready
            partition.watermark.detach()
        return ended


RESUME_RATIO = 0.5
"""A partition resumes below this share of what would pause it, so that it does not do so with each
record."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight at once: records and bytes fetched and not yet published."""

    max_records: int
    # Protects the worker's memory. With the usual 512 records it matters only for messages larger
    # than 128 kB; a support message has a few kilobytes.
    max_bytes: int = 64 * 1024 * 1024


class Backpressure:
    """Counts records in flight and decides which partitions to pause and to resume.

    A partition may hold as much as is still free (Choudhury and Hahne 1998, Dynamic queue length
    thresholds for shared-memory packet switches, with alpha = 1). One partition alone may take half
    of the bounds. However many partitions are blocked by an unanswered message, as much as each of
    them holds stays free for the others. Urgent partitions, if there are any, and the others share
    half of the bounds each.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.records = 0
        self.bytes = 0
        self.paused: set[TopicPartition] = set()
        self.held: set[TopicPartition] = set()
        """Partitions paused by the delayed retry, which also resumes them (``RetryWaits``)."""

    @property
    def room(self) -> tuple[int, int]:
        """How many more records and bytes may be fetched now.

        Half of what is free, because all of them may come from one partition.
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
        """Forget these partitions: their next assignment starts unpaused."""
        self.paused.difference_update(sources)
        self.held.difference_update(sources)

    def pause(self, sources: Iterable[TopicPartition]) -> list[TopicPartition]:
        """Record these as paused; return those that were not."""
        new = [source for source in sources if source not in self.paused]
        self.paused.update(new)
        return new

    def is_full(self, partitions: Iterable[PartitionState]) -> bool:
        """Whether a partition is paused, or should be."""
        if self.paused:
            return True
        states = tuple(partitions)
        free = self._free_by_kind(states)
        return any(_is_above(partition, free[partition.urgent]) for partition in states)

    def _free_by_kind(self, states: Sequence[PartitionState]) -> Mapping[bool, tuple[int, int]]:
        """Return how many records and bytes are free for urgent partitions, and for others."""
        if not any(state.urgent for state in states):
            return {False: self._free}
        found, bounds = {}, self.bounds
        for urgent in (True, False):
            kind = [state for state in states if state.urgent == urgent]
            half_records, half_bytes = -(-bounds.max_records // 2), -(-bounds.max_bytes // 2)
            records = half_records - sum(len(state.watermark) for state in kind)
            size_bytes = half_bytes - sum(state.size_bytes for state in kind)
            free_records, free_bytes = self._free
            found[urgent] = max(0, min(records, free_records)), max(0, min(size_bytes, free_bytes))
        return found

    def decide(
        self, partitions: Iterable[PartitionState]
    ) -> tuple[list[TopicPartition], list[TopicPartition]]:
        """Return which partitions to pause and which to resume; record them as such."""
        free_records, free_bytes = (each // 2 for each in self._free)
        if not self.paused and self.records < free_records and self.bytes < free_bytes:
            return [], []  # no partition can have more than all of them; a kind has half
        pause, resume = [], []
        states = tuple(partitions)
        free = self._free_by_kind(states)
        for partition in states:
            # The delayed retry resumes it when its head is due. Resumed here, it would deliver
            # early.
            if partition.source in self.held:
                continue
            full = _is_above(partition, free[partition.urgent])
            if full and partition.source not in self.paused:
                pause.append(partition.source)
            elif partition.source in self.paused and not full:
                low_records, low_bytes = (RESUME_RATIO * each for each in free[partition.urgent])
                if len(partition.watermark) <= low_records and partition.size_bytes <= low_bytes:
                    resume.append(partition.source)
        self.paused.update(pause)
        self.paused.difference_update(resume)
        return pause, resume


def _is_above(partition: PartitionState, free: tuple[int, int]) -> bool:
    return len(partition.watermark) >= free[0] or partition.size_bytes >= free[1]
