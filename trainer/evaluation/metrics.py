"""Figures of merit of a labelling, from true and predicted label indexes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label's figures; ``support`` counts its true examples. 0 where there is nothing to
    divide by."""

    label: str
    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Figures:
    """How well a labelling does. ``interval`` is the accuracy's 95 % Wilson interval;
    ``confusion[i][j]`` counts messages of true label i that were given label j."""

    examples: int
    accuracy: float
    interval: tuple[float, float]
    macro_f1: float
    per_label: tuple[LabelFigures, ...]
    confusion: tuple[tuple[int, ...], ...]


def measure(truth: Ints, predicted: Ints, labels: Sequence[str]) -> Figures:
    """Compute every figure. Macro-F1 is the mean over the labels that occur in ``truth``."""
    confusion = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (truth, predicted), 1)
    per_label = []
    for at, label in enumerate(labels):
        hits = int(confusion[at, at])
        support, given = int(confusion[at].sum()), int(confusion[:, at].sum())
        precision, recall = _ratio(hits, given), _ratio(hits, support)
        f1 = _ratio(2 * precision * recall, precision + recall)
        per_label.append(LabelFigures(label, precision, recall, f1, support))
    right, total = int(np.trace(confusion)), len(truth)
    present = [one.f1 for one in per_label if one.support]
    return Figures(
        examples=total,
        accuracy=_ratio(right, total),
        interval=wilson(right, total),
        macro_f1=_ratio(sum(present), len(present)),
        per_label=tuple(per_label),
        confusion=tuple(tuple(int(one) for one in row) for row in confusion),
    )


def wilson(hits: int, total: int, z: float = 1.959964) -> tuple[float, float]:
    """Return the Wilson score interval of a share (Wilson 1927); z = 1.96 makes it 95 %."""
    if not total:
        return 0.0, 1.0
    share, extra = hits / total, z * z / total
    centre = (share + extra / 2) / (1 + extra)
    half = z / (1 + extra) * math.sqrt(share * (1 - share) / total + extra / (4 * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
