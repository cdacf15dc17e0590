"""What the statistics come to: plain figures, without the libraries that compute them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

ThresholdRule = Literal["lower", "point"]
"""What has to reach the wanted precision: its lower bound, or the share that was found."""


def in_points(share: float) -> str:
    """Return a difference of two shares in words: 0.01 is "1 point"."""
    text = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return f"{text} point{'' if text == '1' else 's'}"


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label's figures; ``support`` counts its true examples, ``effect`` is the design effect of
    its recall. 0 where there is nothing to divide by."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    effect: float = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """How well a labelling does. ``interval`` is the accuracy's 95 % Wilson interval of as
    many independent messages as these count for (``effect`` of them as one); ``confusion[i][j]``
    counts messages of true label i that were given label j."""

    examples: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    per_label: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    effect: float = 1.0


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Messages of like confidence: their mean confidence, and the share of them that is right."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What would bring a promised precision within reach of validation, where it is not.

    ``fewest`` rows without an error prove it at all. About ``rows`` rows prove enough, and send
    the share ``review_at_rows`` to review; on the rows at hand a promise of ``lesser`` sends
    ``review_at_lesser``. None: nothing that was tried does.
    """

    precision: float
    fewest: int
    rows: int | None
    review_at_rows: float | None
    lesser: float | None
    review_at_lesser: float | None


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """What a confidence threshold accepts: its share of all messages, and how much of it is
    right (None of nothing)."""

    threshold: float
    coverage: float
    accuracy: float | None


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
