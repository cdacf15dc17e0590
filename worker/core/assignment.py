"""The partitions assigned to this worker, and the records of each on their way through."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from worker.core.labeller import Prepared
from worker.core.serving_adapter import ServingAdapter
from worker.core.shadow import ShadowRequest
from worker.core.suspects import Suspects
from worker.core.watermark import Watermark
from worker.engine.port import Answer
from worker.records.types import Outcome, Record, TopicPartition


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
        """Tell whether a partition is assigned."""
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
