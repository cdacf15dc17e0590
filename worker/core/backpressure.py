"""When to stop fetching, and from which partitions, and when to start again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from worker.core.assignment import PartitionState
from worker.records.types import TopicPartition


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight at once: records and bytes fetched and not yet published.

    A partition's fetching resumes below ``resume_ratio`` of what would pause it.
    """

    max_records: int
    max_bytes: int = 64 * 1024 * 1024
    # A guard for the worker's memory: a support message has some kilobytes, so ``max_records`` is
    # met first unless messages are larger than 128 kB.
    resume_ratio: float = 0.5
    # Each pause throws the client's prefetch away, so the two marks are kept far apart.


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
