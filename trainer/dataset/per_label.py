"""At most so many of each label: the one rule behind capped datasets and learning curves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def first_of_each(labels: Sequence[str], places: Sequence[str | int], most: int) -> list[int]:
    """Return the indexes, ascending, of at most ``most`` items of each label: those with the
    lowest places. Of the same places a smaller ``most`` takes a part of what a larger one takes."""
    taken: Counter[str] = Counter()
    chosen = []
    for at in sorted(range(len(labels)), key=lambda at: places[at]):
        if taken[labels[at]] < most:
            taken[labels[at]] += 1
            chosen.append(at)
    return sorted(chosen)
