"""Which topics' messages go first, and what the others keep."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from worker.core.assignment import PartitionState


@dataclass(frozen=True, slots=True)
class Urgency:
    """``is_urgent`` tells a topic whose messages go first. ``rest_share``: at least this share of
    the messages in the engine is of the other topics, while both kinds wait."""

    is_urgent: Callable[[str], bool] = lambda _: False
    rest_share: float = 0.1


NONE_URGENT = Urgency()


class Lines:
    """Partitions with waiting records, urgent ones apart. Those of a kind take turns."""

    def __init__(self) -> None:
        self._urgent: deque[PartitionState] = deque()
        self._rest: deque[PartitionState] = deque()

    def add(self, partition: PartitionState) -> None:
        """Put a partition at the end of its line."""
        self._line(partition).append(partition)

    def add_first(self, partition: PartitionState) -> None:
        """Put it back at the head of its line."""
        self._line(partition).appendleft(partition)

    def take(self, *, rest_first: bool) -> Iterator[PartitionState]:
        """Take out each partition once, those of one kind before the others."""
        lines = (self._rest, self._urgent) if rest_first else (self._urgent, self._rest)
        for line in lines:
            for _ in range(len(line)):
                yield line.popleft()

    def _line(self, partition: PartitionState) -> deque[PartitionState]:
        return self._urgent if partition.urgent else self._rest
