"""Delayed retry: hold each retry partition's first record until it is due, and pause the partition.

All records of the topic wait equally long, so the first record (the head) of a partition is due
first. Only the head is held; the records behind it stay in Kafka. If the delay is shortened in the
settings, records behind an older head are late, but none is early.

A held head is not in flight: it does not count against the bounds, neither a drain nor a revoke
waits for it, and its offset is not committed. The partition's next owner reads it again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from worker.core.assignment import Assignment, Backpressure
from worker.records.encode import restore
from worker.records.types import Record, TopicPartition
from worker.stream.port import Stream

# Each pause discards the client's prefetch, so a partition pauses at most twice a second. Records
# that become due within half a second are released together.
_LEAST_PAUSE_S = 0.5


@dataclass(slots=True)
class _Head:
    """A partition's held head, and records that the client delivers in spite of the pause.

    ``due_ms`` is when the head is due (Unix time). The partition stays paused for at least
    ``_LEAST_PAUSE_S`` after ``since`` (monotonic seconds).
    """

    records: deque[Record]
    due_ms: int
    since: float


class RetryWaits:
    """Holds heads and pauses their partitions. For the loop's thread, except ``next_due_ms``."""

    def __init__(
        self,
        topic: str,
        *,
        stream: Stream,
        assignment: Assignment,
        pressure: Backpressure,
        clock: Callable[[], float],
        now: Callable[[], datetime],
    ) -> None:
        self.topic = topic
        self._stream = stream
        self._assignment = assignment
        self._pressure = pressure
        self._clock = clock
        self._now = now
        self._heads: dict[TopicPartition, _Head] = {}

    @property
    def next_due_ms(self) -> int | None:
        """When the first head is due (Unix time), None if none is held. Safe from any thread."""
        return min((head.due_ms for head in tuple(self._heads.values())), default=None)

    def poll(self, max_records: int, timeout_s: float, max_bytes: int) -> Iterator[Record]:
        """Poll the stream until the next head is due at the latest; yield records that are due.

        Records of the retry topic are restored to what they were in the input topic. Fetched
        records come first, then heads as far as there is room. Raises StreamFailed.
        """
        # ``stop_after`` is called for each record and needs the restored one: keep it for _sift.
        restored: dict[tuple[TopicPartition, int], Record] = {}

        def is_early(record: Record) -> bool:
            if record.source.topic != self.topic:
                return False
            restored[record.source, record.offset] = found = restore(record, self._now())
            return _due_ms(found) > self._now_ms

        fetched = self._stream.poll(
            max_records, self._limit(timeout_s), max_bytes=max_bytes, stop_after=is_early
        )
        return self._sift(fetched, restored)

    def forget(self, sources: Iterable[TopicPartition]) -> None:
        """Drop the heads of partitions that were revoked or lost."""
        for source in sources:
            self._heads.pop(source, None)

    def skip_to(self, source: TopicPartition, offset: int) -> bool:
        """Drop a partition's held records before ``offset``; return whether it has others."""
        head = self._heads.get(source)
        if head is None:
            return False
        while head.records and head.records[0].offset < offset:
            head.records.popleft()
        if head.records:
            head.due_ms = _due_ms(head.records[0])
        else:
            self._end(source)
        return bool(head.records)

    def _limit(self, timeout_s: float) -> float:
        if not self._heads:
            return timeout_s
        now_ms, clock = self._now_ms, self._clock()
        left_s = min(
            max((head.due_ms - now_ms) / 1000, head.since + _LEAST_PAUSE_S - clock)
            for head in self._heads.values()
        )
        return max(0.0, min(timeout_s, left_s))

    def _sift(
        self, records: Sequence[Record], restored: Mapping[tuple[TopicPartition, int], Record]
    ) -> Iterator[Record]:
        for record in records:
            if record.source.topic != self.topic:
                yield record
            elif record.source in self._assignment:
                found = restored[record.source, record.offset]
                if not self._hold(found):
                    yield found
        yield from self._release()

    def _hold(self, record: Record) -> bool:
        head = self._heads.get(record.source)
        if head is not None:
            head.records.append(record)
            return True
        due_ms = _due_ms(record)
        if due_ms <= self._now_ms:
            return False
        self._heads[record.source] = _Head(deque([record]), due_ms, self._clock())
        self._pressure.held.add(record.source)
        self._stream.pause([record.source])
        return True

    def _release(self) -> Iterator[Record]:
        if not self._heads:
            return
        now_ms, earliest = self._now_ms, self._clock() - _LEAST_PAUSE_S
        for source, head in tuple(self._heads.items()):
            if head.since > earliest or not self._pressure.room[0]:
                continue
            while head.records and _due_ms(head.records[0]) <= now_ms:
                yield head.records.popleft()
            if head.records:
                head.due_ms = _due_ms(head.records[0])
                continue
            self._end(source)

    def _end(self, source: TopicPartition) -> None:
        del self._heads[source]
        self._pressure.held.discard(source)
        if source not in self._pressure.paused:
            self._stream.resume([source])

    @property
    def _now_ms(self) -> float:
        return self._now().timestamp() * 1000


def _due_ms(record: Record) -> int:
    """Return when a record is due (Unix time); an unreadable record is rejected at once."""
    return 0 if record.retry is None else record.retry.not_before_ms
