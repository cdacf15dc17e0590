"""One window after another of an adapter's answers, each judged when it is full."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from worker.observe.drift.baseline import DriftBaseline
from worker.observe.drift.statistics import psi_by_label

Signal = Literal["labels", "off_label"]

_MOST_OF_IT = 0.8


@dataclass(frozen=True, slots=True)
class LabelShift:
    """A label's share of a window, the share expected, and its part of the window's PSI."""

    label: str
    share: float
    expected: float
    psi: float


@dataclass(frozen=True, slots=True)
class Report:
    """One whole window. ``in_a_row`` counts, by signal, the drifted windows up to this one.

    ``moved`` are the labels that make up most of the PSI, largest part first. ``samples`` are ids
    of records to look at, by signal: of labels that came too often, or far from every label.
    Without a signal of off-label mass its share is None.
    """

    messages: int
    psi: float
    shifts: Sequence[LabelShift]
    moved: Sequence[LabelShift]
    off_label_share: float | None
    in_a_row: dict[Signal, int]
    samples: dict[Signal, tuple[str, ...]]


@dataclass(slots=True)
class _Sample:
    """So many of the ids seen, each as likely as any other (reservoir sampling, Vitter 1985)."""

    size: int
    draw: random.Random
    seen: int = 0
    kept: list[str] = field(default_factory=list)

    def add(self, one: str) -> None:
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append(one)
        elif (place := self.draw.randrange(self.seen)) < self.size:
            self.kept[place] = one


class DriftDetector:
    """Counts an adapter's answers and judges each window of so many: windows do not overlap, so
    that one says nothing of the next, and a second drifted one in a row is news."""

    def __init__(
        self, yardstick: DriftBaseline, window: int, sample_ids: int, draw: random.Random
    ) -> None:
        self.yardstick = yardstick
        self._window = window
        self._sample_ids = sample_ids
        self._draw = draw
        self._in_a_row: dict[Signal, int] = {"labels": 0}
        if yardstick.mass is not None:
            self._in_a_row["off_label"] = 0
        self._begin()

    @property
    def messages(self) -> int:
        """Answers in the window that is not full yet."""
        return self._messages

    def add(self, label: str, off_label_mass: float | None, record_id: str) -> Report | None:
        """Count an answer; return the report of the window that it fills. An answer with a label
        of another adapter's is not counted."""
        if label not in self._counts:
            return None
        self._messages += 1
        self._counts[label] += 1
        above = self.yardstick.mass
        strange = above is not None and off_label_mass is not None and off_label_mass > above
        self._off_label += strange
        if self._sample_ids:
            self._by_label[label].add(record_id)
            if strange:
                self._strange.add(record_id)
        if self._messages < self._window:
            return None
        report = self._judge()
        self._begin()
        return report

    def _begin(self) -> None:
        names = self.yardstick.shares
        self._messages = 0
        self._off_label = 0
        self._counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._by_label = {name: _Sample(self._sample_ids, self._draw) for name in names}
        self._strange = _Sample(self._sample_ids, self._draw)

    def _judge(self) -> Report:
        yardstick = self.yardstick
        parts = psi_by_label(self._counts, yardstick.shares)
        psi = sum(parts.values())
        shifts = [
            LabelShift(name, self._counts[name] / self._messages, expected, parts[name])
            for name, expected in yardstick.shares.items()
        ]
        moved = _most(shifts)
        drifted: dict[Signal, bool] = {"labels": psi > yardstick.psi_level}
        share = None
        if yardstick.mass is not None:
            share = self._off_label / self._messages
            drifted["off_label"] = share >= yardstick.off_label_level
        self._in_a_row = {
            signal: self._in_a_row[signal] + 1 if found else 0 for signal, found in drifted.items()
        }
        return Report(
            messages=self._messages,
            psi=psi,
            shifts=shifts,
            moved=moved,
            off_label_share=share,
            in_a_row=self._in_a_row,
            samples={
                "labels": self._of_labels(shifts) if drifted["labels"] else (),
                "off_label": tuple(self._strange.kept) if drifted.get("off_label") else (),
            },
        )

    def _of_labels(self, shifts: Sequence[LabelShift]) -> tuple[str, ...]:
        """Take ids of the labels that came too often, a label's turn after another's."""
        grown = _most([one for one in shifts if one.share > one.expected])
        kept = [self._by_label[one.label].kept for one in grown]
        turns = [ids[at] for at in range(self._sample_ids) for ids in kept if at < len(ids)]
        return tuple(turns[: self._sample_ids])


def _most(shifts: Sequence[LabelShift]) -> list[LabelShift]:
    """Return the fewest labels that make up most of what these have of the PSI."""
    wanted = _MOST_OF_IT * sum(one.psi for one in shifts)
    found: list[LabelShift] = []
    so_far = 0.0
    for one in sorted(shifts, key=lambda shift: -shift.psi):
        if so_far >= wanted:
            break
        found.append(one)
        so_far += one.psi
    return found
