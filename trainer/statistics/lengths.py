"""Lengths counted into bins that double, for a distribution with a long tail."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Messages longer than ``above`` and at most ``upto`` long; ``cut`` of them are shortened."""

    above: int
    upto: int
    count: int
    cut: int = 0


def length_bins(lengths: Sequence[int], cut: Collection[int] = ()) -> list[LengthBin]:
    """Count lengths into bins that end at 1, 2, 3, 4, 6, 8, 12, 16 and so on, from the first that
    holds one to the last. ``cut`` are the places in ``lengths`` of messages that are shortened."""
    if not lengths:
        return []
    ends = [1]
    while ends[-1] < max(lengths):
        step = len(ends)
        power = 1 << (step // 2)
        ends.append(2 * power if step % 2 else 3 * power // 2)
    counts, cuts = [0] * len(ends), [0] * len(ends)
    shortened = frozenset(cut)
    for place, length in enumerate(lengths):
        at = bisect_left(ends, length)
        counts[at] += 1
        cuts[at] += place in shortened
    first = next(at for at, count in enumerate(counts) if count)
    starts = [0, *ends]
    return [LengthBin(starts[at], ends[at], counts[at], cuts[at]) for at in range(first, len(ends))]
