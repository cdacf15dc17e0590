"""What waits, by what a queue can choose, and what one person has done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import decisions, facets, items

_WAITS = items.c.state.in_(("open", "second"))


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many items of a facet wait; ``older`` counts those that came before each time asked."""

    label: str
    adapter_digest: str
    reason_bits: int
    origin: str
    waiting: int
    older: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """One decision, for the list of a person's own."""

    item_id: int
    kind: str
    label: str | None
    decided_ms: int
    undone: bool
    seconds: float


def waiting(tx: Tx, before_ms: Sequence[int]) -> list[FacetCount]:
    """Return what of the inbox waits for a decision by facet, and of it what came before each of
    these times."""
    older = [
        sa.func.sum(sa.case((items.c.received_ms < each, 1), else_=0)).label(f"older{at}")
        for at, each in enumerate(before_ms)
    ]
    counted = (
        sa.select(items.c.facet_id, sa.func.count().label("waiting"), *older)
        .where(_WAITS)
        .group_by(items.c.facet_id)
        .subquery()
    )
    query = sa.select(
        facets.c.label,
        facets.c.adapter_digest,
        facets.c.reason_bits,
        facets.c.origin,
        counted.c.waiting,
        *(counted.c[f"older{at}"] for at in range(len(before_ms))),
    ).join(counted, counted.c.facet_id == facets.c.id)
    query = query.where(facets.c.batch_id.is_(None))
    return [
        FacetCount(label, digest, bits, origin, count, tuple(int(n) for n in older_counts))
        for label, digest, bits, origin, count, *older_counts in tx.execute(query)
    ]


def adapter_name(tx: Tx, digest: str) -> str:
    """Return the name of an adapter of which items wait, "" where none does."""
    for facet_id in tx.execute(
        sa.select(facets.c.id).where(facets.c.adapter_digest == digest)
    ).scalars():
        query = sa.select(items.c.adapter_name).where(_WAITS, items.c.facet_id == facet_id)
        name = tx.execute(query.limit(1)).scalar_one_or_none()
        if name is not None:
            return str(name)
    return ""


def made_since(tx: Tx, person_id: int, since_ms: int) -> Mapping[str, tuple[int, int, float]]:
    """Return by kind what a person did since a time: how often, how often it was undone, and the
    seconds that went into what holds."""
    undone = sa.case((decisions.c.undone_ms.is_not(None), 1), else_=0)
    held_s = sa.case((decisions.c.undone_ms.is_(None), decisions.c.seconds), else_=0.0)
    query = (
        sa.select(decisions.c.kind, sa.func.count(), sa.func.sum(undone), sa.func.sum(held_s))
        .where(decisions.c.person_id == person_id, decisions.c.decided_ms >= since_ms)
        .group_by(decisions.c.kind)
    )
    return {kind: (int(n), int(gone), float(s)) for kind, n, gone, s in tx.execute(query)}


def newest_made(tx: Tx, person_id: int, limit: int) -> list[Made]:
    """Return a person's newest decisions, newest first."""
    query = (
        sa.select(
            decisions.c.item_id,
            decisions.c.kind,
            decisions.c.label,
            decisions.c.decided_ms,
            decisions.c.undone_ms.is_not(None),
            decisions.c.seconds,
        )
        .where(decisions.c.person_id == person_id)
        .order_by(decisions.c.decided_ms.desc(), decisions.c.id.desc())
        .limit(limit)
    )
    return [Made(row[0], row[1], row[2], row[3], bool(row[4]), row[5]) for row in tx.execute(query)]
