"""Records that the client has delivered and the loop has not taken yet.

librdkafka discards what it has fetched of a partition when that partition is paused (its issue
5343). A worker with a backlog pauses all the time, and would download each record a hundred times.
So the loop's pauses only stop the delivery from this buffer. The client's partition is paused when
the buffer has no more room for it, which is seldom: it then has work for several seconds.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field

from worker.records.types import Record, TopicPartition

RECORD_BYTES = 500
"""The memory that a record takes beyond its content (CPython 3.11, measured with three headers)."""

RESUME_RATIO = 0.5
"""A partition's fetch resumes below this share of what it had buffered when it was paused. That is
early, because the client takes up to a second to fetch again (librdkafka 2.16)."""


@dataclass(slots=True)
class _Queue:
    records: deque[tuple[Record, int]] = field(default_factory=deque)
    """Each with its bytes."""
    size_bytes: int = 0


class FetchBuffer:
    """Buffers up to ``max_bytes``, plus what the client had queued when a partition became full.

    A partition may have as much as is still free, as in ``worker.core.assignment.Backpressure``.
    """

    def __init__(self, max_bytes: int) -> None:
        self._free = max_bytes
        self._queues: dict[TopicPartition, _Queue] = {}
        # Partitions that have records and are not stopped, the next one first.
        self._turns: OrderedDict[TopicPartition, _Queue] = OrderedDict()
        self._stopped: set[TopicPartition] = set()
        self._paused_at: dict[TopicPartition, int] = {}
        self._grown: set[TopicPartition] = set()

    def __bool__(self) -> bool:
        """Return whether there is a record to take."""
        return bool(self._turns)

    @property
    def is_full(self) -> bool:
        """Whether it has more than it should."""
        return self._free <= 0

    @property
    def paused(self) -> Collection[TopicPartition]:
        """The partitions whose fetch is paused."""
        return self._paused_at.keys()

    def add(self, record: Record) -> None:
        """Append a record to its partition."""
        source, size_bytes = record.source, record.size_bytes + RECORD_BYTES
        queue = self._queues.get(source)
        if queue is None:
            queue = self._queues[source] = _Queue()
        queue.records.append((record, size_bytes))
        queue.size_bytes += size_bytes
        self._free -= size_bytes
        self._grown.add(source)
        if source not in self._turns and source not in self._stopped:
            self._turns[source] = queue

    def take(
        self, max_records: int, max_bytes: int | None, stop_after: Callable[[Record], bool] | None
    ) -> list[Record]:
        """Take records as in ``worker.stream.port.Stream.poll``, from the partitions in turn."""
        taken: list[Record] = []
        size_bytes = 0
        while self._turns and len(taken) < max_records:
            source, queue = next(iter(self._turns.items()))
            record, record_bytes = queue.records.popleft()
            queue.size_bytes -= record_bytes
            self._free += record_bytes
            if queue.records:
                self._turns.move_to_end(source)
            else:
                del self._turns[source]
            taken.append(record)
            size_bytes += record_bytes - RECORD_BYTES
            if (stop_after is not None and stop_after(record)) or (
                max_bytes is not None and size_bytes >= max_bytes
            ):
                break
        return taken

    def stop(self, sources: Iterable[TopicPartition]) -> None:
        """Deliver nothing of these partitions."""
        for source in sources:
            self._stopped.add(source)
            self._turns.pop(source, None)

    def start(self, sources: Iterable[TopicPartition]) -> None:
        """Deliver these partitions again."""
        for source in sources:
            self._stopped.discard(source)
            queue = self._queues.get(source)
            if queue is not None and queue.records:
                self._turns[source] = queue

    def skip_to(self, source: TopicPartition, offset: int) -> bool:
        """Drop a partition's records before ``offset``; return whether it has others."""
        queue = self._queues.get(source, _Queue())
        while queue.records and queue.records[0][0].offset < offset:
            _, size_bytes = queue.records.popleft()
            queue.size_bytes -= size_bytes
            self._free += size_bytes
        if not queue.records:
            self._turns.pop(source, None)
        return bool(queue.records)

    def clear(self, sources: Iterable[TopicPartition]) -> None:
        """Forget these partitions: their assignment begins or ends."""
        for source in sources:
            self._free += self._queues.pop(source, _Queue()).size_bytes
            self._turns.pop(source, None)
            self._stopped.discard(source)
            self._grown.discard(source)
            self._paused_at.pop(source, None)

    def regulate(self, held: set[TopicPartition]) -> tuple[list[TopicPartition], ...]:
        """Return the partitions whose fetch to pause and to resume; record them as such.

        Those in ``held`` are paused whatever they have: the delayed retry holds them for minutes.
        """
        free = self._free
        pause = [
            source
            for source in self._grown | held
            if source not in self._paused_at and (source in held or self._buffered(source) >= free)
        ]
        self._grown.clear()
        resume = [
            source
            for source, paused_at in self._paused_at.items()
            if source not in held and self._buffered(source) <= RESUME_RATIO * paused_at
        ]
        for source in resume:
            del self._paused_at[source]
        self._paused_at |= {source: self._buffered(source) for source in pause}
        return pause, resume

    def _buffered(self, source: TopicPartition) -> int:
        queue = self._queues.get(source)
        return 0 if queue is None else queue.size_bytes
