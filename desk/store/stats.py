"""Counts for pages and metrics."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import adjudications, facets, items


def by_state(tx: Tx) -> Mapping[str, int]:
    """Return how many items there are in each state."""
    query = sa.select(items.c.state, sa.func.count()).group_by(items.c.state)
    return dict(tx.execute(query).tuples().all())


def oldest_waiting_ms(tx: Tx) -> int | None:
    """Return when the item came from Kafka that waits longest for a decision, None where none
    waits. Batches of tasks have all the time they are given."""
    of_batches = sa.select(facets.c.id).where(facets.c.batch_id.is_not(None))
    query = sa.select(sa.func.min(items.c.received_ms)).where(
        items.c.state.in_(("open", "second", "dispute")), items.c.facet_id.not_in(of_batches)
    )
    oldest: int | None = tx.execute(query).scalar_one()
    return oldest


def open_disputes(tx: Tx) -> int:
    """Return how many items wait for an adjudicator."""
    query = sa.select(sa.func.count()).where(adjudications.c.closed_ms.is_(None))
    return int(tx.execute(query.select_from(adjudications)).scalar_one())
