"""How far what the outbox has published was delivered to the web address."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.items import insert_ignore
from desk.store.tables import counters, outbox

_COUNTER = "webhook"


@dataclass(frozen=True, slots=True)
class Published:
    """A correction that is in Kafka, by its place there; when it was published (Unix time, ms)."""

    sequence: int
    value: bytes
    published_ms: int


def begin(tx: Tx) -> None:
    """Begin to deliver, the first time with what is published from now on."""
    newest = sa.select(sa.func.max(outbox.c.sequence)).where(outbox.c.published_ms.is_not(None))
    start = sa.func.coalesce(newest.scalar_subquery(), 0)
    tx.execute(insert_ignore(tx, counters).values(name=_COUNTER, value=start))


def waiting(tx: Tx, limit: int) -> list[Published]:
    """Return what was published and not delivered, in order."""
    rows = tx.execute(
        sa.select(outbox.c.sequence, outbox.c.value, outbox.c.published_ms)
        .where(outbox.c.sequence > _mark(), outbox.c.published_ms.is_not(None))
        .order_by(outbox.c.sequence)
        .limit(limit)
    )
    return [Published(row.sequence, bytes(row.value), row.published_ms) for row in rows]


def delivered(tx: Tx, sequence: int) -> None:
    """Note that all up to this number were delivered, or given up."""
    tx.execute(
        counters.update()
        .where(counters.c.name == _COUNTER, counters.c.value < sequence)
        .values(value=sequence)
    )


def backlog(tx: Tx) -> int | None:
    """Return how many wait to be delivered; None where nothing ever was to be."""
    if tx.execute(_mark_query()).scalar() is None:
        return None
    count = sa.select(sa.func.count()).where(
        outbox.c.sequence > _mark(), outbox.c.published_ms.is_not(None)
    )
    return int(tx.execute(count).scalar_one())


def _mark_query() -> sa.Select[tuple[int]]:
    return sa.select(counters.c.value).where(counters.c.name == _COUNTER)


def _mark() -> sa.ScalarSelect[int]:
    return _mark_query().scalar_subquery()
