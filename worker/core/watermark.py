"""Per partition: results in any order in, the contiguous finished prefix out."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Generic, TypeVar

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
        """Take note of a record that was fetched. Raises ValueError if it is not a newer one."""
        if offset <= self._last:
            raise ValueError(f"offset {offset} after {self._last}")
        self._last = offset
        self._order.append(offset)
        self._open.add(offset)

    def forget_before(self, offset: int) -> int:
        """Forget records before ``offset`` that nobody has begun with; return how many."""
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
