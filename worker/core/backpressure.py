"""When to stop fetching, and when to start again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much may be in flight at once: records and bytes fetched and not yet published.

    Fetching pauses at a high mark and resumes below ``resume_ratio`` of both: each pause throws the
    client's prefetch away, so the two are kept far apart.
    """

    max_records: int
    max_bytes: int
    resume_ratio: float


class Backpressure:
    """Counts what is in flight and says when to pause and resume."""

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        self.records = 0
        self.bytes = 0
        self.paused = False

    @property
    def room(self) -> int:
        """How many more records may be fetched now."""
        return max(0, self.bounds.max_records - self.records)

    def take(self, size_bytes: int) -> None:
        """Count one record in."""
        self.records += 1
        self.bytes += size_bytes

    def release(self, records: int, size_bytes: int) -> None:
        """Count records out."""
        self.records -= records
        self.bytes -= size_bytes

    def decide(self) -> Literal["pause", "resume"] | None:
        """Say what to do now, and take it as done."""
        full = self.records >= self.bounds.max_records or self.bytes >= self.bounds.max_bytes
        low = (
            self.records <= self.bounds.max_records * self.bounds.resume_ratio
            and self.bytes <= self.bounds.max_bytes * self.bounds.resume_ratio
        )
        if full and not self.paused:
            self.paused = True
            return "pause"
        if low and self.paused and not full:
            self.paused = False
            return "resume"
        return None
