"""Records that the client gives a second time."""

from __future__ import annotations

from collections.abc import Sequence

from worker.records.types import TopicPartition


class DuplicateFilter:
    """Knows how far each partition was delivered since it was assigned.

    librdkafka may go back within an assignment: paused and resumed while it asks for the first
    offset of a partition without a committed one, it takes the first answer for outdated, begins
    to fetch by the second, and starts at the beginning once more when its timer for the first
    runs out (seen with 2.16; issues 4637 and 4686 tell of others).
    """

    def __init__(self) -> None:
        self._last: dict[TopicPartition, tuple[int, int]] = {}

    def begin(self, partitions: Sequence[TopicPartition]) -> None:
        """Forget these: they were assigned, or are assigned no more."""
        for source in partitions:
            self._last.pop(source, None)

    def has(self, source: TopicPartition, offset: int, leader_epoch: int | None) -> bool:
        """Tell whether this record was delivered before, and if not take it for delivered now.

        A log that was cut (an unclean election) has other records under the old offsets, of a
        later leader epoch than all that were there before. They are new.
        """
        epoch = -1 if leader_epoch is None else leader_epoch
        last_offset, last_epoch = self._last.get(source, (-1, -1))
        if offset <= last_offset and 0 <= epoch <= last_epoch:
            return True
        self._last[source] = (offset, epoch)
        return False
