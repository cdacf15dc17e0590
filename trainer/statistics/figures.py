"""Results of the statistics as plain values, importable without numpy and scipy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

ThresholdRule = Literal["lower", "point"]
"""The value that has to reach the wanted precision: its lower bound, or the observed share."""


def in_points(share: float) -> str:
    """Return a difference of two shares in points: 0.01 is "1 point"."""
    text = f"{100 * share:.2f}".rstrip("0").rstrip(".")
    return f"{text} point{'' if text == '1' else 's'}"


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """A label's figures, 0 where undefined. ``support`` counts its true examples; ``effect`` is the
    design effect of its recall."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int
    effect: float = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a classification. ``interval`` is the accuracy's 95 % Wilson interval, in
    which ``effect`` messages count as one; ``confusion[i][j]`` counts messages of true label i that
    were given label j."""

    examples: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    per_label: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]
    effect: float = 1.0


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Messages with similar confidence: their mean confidence and their accuracy."""

    confidence: float
    accuracy: float
    count: int


@dataclass(frozen=True, slots=True)
class Promise:
    """What would bring a promised precision within reach of the validation set.

    At least ``fewest`` rows without a mistake prove the precision. About ``rows`` rows would prove
    it with a share ``review_at_rows`` sent to review. With the present rows a promise of ``lesser``
    sends ``review_at_lesser`` to review. None if no tried value is enough.
    """

    precision: float
    fewest: int
    rows: int | None
    review_at_rows: float | None
    lesser: float | None
    review_at_lesser: float | None


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """The messages that a confidence threshold accepts: their share, and their accuracy (None if it
    accepts none)."""

    threshold: float
    coverage: float
    accuracy: float | None
