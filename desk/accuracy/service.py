"""What the page and the metrics ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from desk.accuracy.figures import DAY_MS, HISTORY_DAYS, RECENT_DAYS, Measured, measure
from desk.service.context import Desk
from desk.service.figures import Agreement, agreement
from desk.store import audits
from desk.store.audits import Waiting


@dataclass(frozen=True, slots=True)
class Cost:
    """What review took within the last ``days``: decisions and hours, by why the item was there
    ("review", "audit"). As long as items were on screen, an hour each at most."""

    days: int
    decisions: Mapping[str, int]
    hours: Mapping[str, float]

    @property
    def hours_a_week(self) -> float:
        """All hours, for a week."""
        return sum(self.hours.values()) * 7 / self.days


@dataclass(frozen=True, slots=True)
class AccuracyFigures:
    """Everything that the accuracy page shows. ``adapter_names`` are by digest."""

    at_ms: int
    measured: Measured
    waiting: tuple[Waiting, ...]
    cost: Cost
    agreement: Agreement
    adapter_names: Mapping[str, str]


def accuracy_figures(desk: Desk) -> AccuracyFigures:
    """Return all figures as of now. Reads the audit sample of 119 days; keep what it returns for a
    minute or more. Raises DatabaseAway."""
    now_ms = desk.clock()
    since_ms = (now_ms // DAY_MS - HISTORY_DAYS) * DAY_MS
    recent_ms = now_ms - RECENT_DAYS * DAY_MS
    with desk.database.read() as tx:
        sample = audits.audited(tx, since_ms)
        traffic = audits.traffic_by_day(tx, since_ms // DAY_MS)
        waiting = tuple(audits.waiting(tx, now_ms))
        spent = audits.time_spent(tx, recent_ms)
        names = audits.adapter_names(tx, since_ms)
    return AccuracyFigures(
        at_ms=now_ms,
        measured=measure(sample, traffic, now_ms),
        waiting=waiting,
        cost=Cost(
            RECENT_DAYS,
            {origin: count for origin, (count, _) in spent.items()},
            {origin: seconds / 3600 for origin, (_, seconds) in spent.items()},
        ),
        agreement=agreement(desk, since_ms=since_ms),
        adapter_names=names,
    )
