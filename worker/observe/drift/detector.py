"""An adapter's answers in consecutive windows, each judged when it is full."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.observe.drift.baseline import DriftBaseline
from worker.observe.drift.metrics import Signal
from worker.observe.drift.statistics import psi_by_label

_MOST = 0.8
"""Labels are named as moved until they account for this part of the PSI."""


@dataclass(frozen=True, slots=True)
class LabelShift:
    """A label's share of a window, its expected share, and its part of the window's PSI."""

    label: str
    share: float
    expected: float
    psi: float


@dataclass(frozen=True, slots=True)
class WindowReport:
    """One full window. ``consecutive`` counts the drifted windows up to this one, by signal.

    ``moved`` are the labels that account for most of the PSI, largest part first. ``samples`` are
    ids of records to look at, by signal: of labels that are too frequent, or far from every label.
    ``off_label_ratio`` is None where there is no off-label mass.
    """

    messages: int
    psi: float
    shifts: Sequence[LabelShift]
    moved: Sequence[LabelShift]
    off_label_ratio: float | None
    consecutive: dict[Signal, int]
    samples: dict[Signal, tuple[str, ...]]


@dataclass(slots=True)
class _Reservoir:
    """A uniform sample of ``size`` of the record ids added (reservoir sampling, Vitter 1985)."""

    size: int
    draw: random.Random
    seen: int = 0
    kept: list[str] = field(default_factory=list)

    def add(self, record_id: str) -> None:
        self.seen += 1
        if len(self.kept) < self.size:
            self.kept.append(record_id)
        elif (place := self.draw.randrange(self.seen)) < self.size:
            self.kept[place] = record_id


class DriftDetector:
    """Counts an adapter's answers and judges each window of ``window`` of them.

    Windows do not overlap, so they are independent: a second consecutive drifted one is news.
    """

    def __init__(
        self, baseline: DriftBaseline, window: int, sample_ids: int, draw: random.Random
    ) -> None:
        self.baseline = baseline
        self._window = window
        self._sample_ids = sample_ids
        self._draw = draw
        self._consecutive: dict[Signal, int] = {"labels": 0}
        if baseline.mass is not None:
            self._consecutive["off_label"] = 0
        self._begin()

    @property
    def messages(self) -> int:
        """Number of answers in the current window, which is not full yet."""
        return self._messages

    def add(self, label: str, off_label_mass: float | None, record_id: str) -> WindowReport | None:
        """Count an answer; return the report of the window that it completes.

        An answer whose label belongs to another adapter's taxonomy is not counted.
        """
        if label not in self._counts:
            return None
        self._messages += 1
        self._counts[label] += 1
        limit = self.baseline.mass
        off_label = limit is not None and off_label_mass is not None and off_label_mass > limit
        self._off_label += off_label
        if self._sample_ids:
            self._label_samples[label].add(record_id)
            if off_label:
                self._off_label_sample.add(record_id)
        if self._messages < self._window:
            return None
        report = self._judge()
        self._begin()
        return report

    def _begin(self) -> None:
        names = self.baseline.shares
        self._messages = 0
        self._off_label = 0
        self._counts: Counter[str] = Counter(dict.fromkeys(names, 0))
        self._label_samples = {name: _Reservoir(self._sample_ids, self._draw) for name in names}
        self._off_label_sample = _Reservoir(self._sample_ids, self._draw)

    def _judge(self) -> WindowReport:
        baseline = self.baseline
        parts = psi_by_label(self._counts, baseline.shares)
        psi = sum(parts.values())
        shifts = [
            LabelShift(name, self._counts[name] / self._messages, expected, parts[name])
            for name, expected in baseline.shares.items()
        ]
        drifted: dict[Signal, bool] = {"labels": psi > baseline.psi_threshold}
        off_label_ratio = None
        if baseline.mass is not None:
            off_label_ratio = self._off_label / self._messages
            drifted["off_label"] = off_label_ratio >= baseline.off_label_threshold
        self._consecutive = {
            signal: self._consecutive[signal] + 1 if is_drifted else 0
            for signal, is_drifted in drifted.items()
        }
        return WindowReport(
            messages=self._messages,
            psi=psi,
            shifts=shifts,
            moved=_largest(shifts),
            off_label_ratio=off_label_ratio,
            consecutive=self._consecutive,
            samples={
                "labels": self._sample_grown(shifts) if drifted["labels"] else (),
                "off_label": tuple(self._off_label_sample.kept) if drifted.get("off_label") else (),
            },
        )

    def _sample_grown(self, shifts: Sequence[LabelShift]) -> tuple[str, ...]:
        """Take ids of the labels that are too frequent, from each label in turn."""
        grown = _largest([shift for shift in shifts if shift.share > shift.expected])
        kept = [self._label_samples[shift.label].kept for shift in grown]
        in_turn = [ids[at] for at in range(self._sample_ids) for ids in kept if at < len(ids)]
        return tuple(in_turn[: self._sample_ids])


def _largest(shifts: Sequence[LabelShift]) -> list[LabelShift]:
    """Return the fewest labels that account for most of the PSI that these labels have."""
    wanted = _MOST * sum(shift.psi for shift in shifts)
    found: list[LabelShift] = []
    so_far = 0.0
    for shift in sorted(shifts, key=lambda shift: -shift.psi):
        if so_far >= wanted:
            break
        found.append(shift)
        so_far += shift.psi
    return found
