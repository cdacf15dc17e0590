"""What is going on, in numbers: for pages and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from desk.core.agreement import krippendorffs_alpha
from desk.service.context import Desk
from desk.store import decisions, deliveries, offsets, outbox, stats
from desk.store.offsets import Progress
from desk.store.outbox import Backlog


@dataclass(frozen=True, slots=True)
class Overview:
    """How things stand. Ages are in seconds, None where there is nothing to be old.

    ``undelivered`` are decisions that wait for the webhook's receiver; None where there is none.
    """

    items: Mapping[str, int]
    disputes: int
    oldest_waiting_s: float | None
    reading: tuple[Progress, ...]
    lag: int
    backlog: Backlog
    undelivered: int | None = None


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree beyond chance on what several decided.

    ``alpha`` is Krippendorff's over all, None where it is not defined.
    """

    items: int
    agreed: int
    alpha: float | None


def overview(desk: Desk) -> Overview:
    """Return how things stand now."""
    now_ms = desk.clock()
    with desk.database.read() as tx:
        oldest_ms = stats.oldest_waiting_ms(tx)
        reading = tuple(offsets.progress(tx))
        return Overview(
            items=stats.by_state(tx),
            disputes=stats.open_disputes(tx),
            oldest_waiting_s=None if oldest_ms is None else (now_ms - oldest_ms) / 1000,
            reading=reading,
            lag=sum(each.lag for each in reading),
            backlog=outbox.backlog(tx),
            undelivered=deliveries.backlog(tx),
        )


def agreement(desk: Desk, *, since_ms: int = 0) -> Agreement:
    """Return how far people agree, over opinions given since a time (Unix, ms)."""
    with desk.database.read() as tx:
        units = decisions.double_decided(tx, since_ms)
    return Agreement(
        items=len(units),
        agreed=sum(len(set(unit)) == 1 for unit in units),
        alpha=krippendorffs_alpha(units),
    )
