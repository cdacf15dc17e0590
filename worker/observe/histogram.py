"""A histogram that takes in a batch at a time.

The Prometheus client's own takes one value at a time, under two locks and by a walk through its
buckets; the loop knows what it published batch by batch.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import accumulate


@dataclass(slots=True)
class _Series:
    """How many values each bucket has by itself, and the sum of all of them."""

    counts: list[int]
    total: float = 0.0


@dataclass(slots=True)
class Histogram:
    """Counts values by bucket, for each combination of label values. Safe from any thread.

    ``bounds`` are the buckets' upper bounds, rising, which belong to them; one more bucket has what
    is above them all.
    """

    bounds: Sequence[float]
    _series: dict[tuple[str, ...], _Series] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, labels: tuple[str, ...]) -> None:
        """Have a series with these label values, without a value so far."""
        with self._lock:
            self._of(labels)

    def observe(self, values: Sequence[float], labels: tuple[str, ...]) -> None:
        """Take in these values, none of them NaN."""
        places = [bisect_left(self.bounds, value) for value in values]
        with self._lock:
            series = self._of(labels)
            for place in places:
                series.counts[place] += 1
            series.total += sum(values)

    def forget(self, place: int, value: str) -> None:
        """Remove the series whose label at ``place`` has this value."""
        with self._lock:
            for labels in [labels for labels in self._series if labels[place] == value]:
                del self._series[labels]

    def read(self) -> Iterator[tuple[tuple[str, ...], list[int], float]]:
        """Yield each series: its label values, how many values are in each bucket or below it (of
        the last, all of them), and their sum."""
        with self._lock:
            found = [
                (labels, list(accumulate(series.counts)), series.total)
                for labels, series in self._series.items()
            ]
        yield from found

    def _of(self, labels: tuple[str, ...]) -> _Series:
        series = self._series.get(labels)
        if series is None:
            series = self._series[labels] = _Series([0] * (len(self.bounds) + 1))
        return series
