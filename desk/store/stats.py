"""Counts for pages and metrics."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import adjudications, decisions, facets, items, traffic


@dataclass(frozen=True, slots=True)
class AuditOutcome:
    """One decided item of the audit sample. ``outcome_label`` is None where no label fits;
    ``sample_share`` is the probability with which it was drawn."""

    label: str
    outcome_label: str | None
    adapter_digest: str
    doubtful: bool
    sample_share: float
    outcome_ms: int


@dataclass(frozen=True, slots=True)
class Work:
    """What a person has done: opinions, and the seconds they took."""

    person_id: int
    opinions: int
    seconds: float


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


def work(tx: Tx, since_ms: int) -> list[Work]:
    """Return what each person has done since a time."""
    query = (
        sa.select(
            decisions.c.person_id,
            sa.func.count(),
            sa.func.coalesce(sa.func.sum(decisions.c.seconds), 0.0),
        )
        .where(decisions.c.decided_ms >= since_ms, decisions.c.undone_ms.is_(None))
        .group_by(decisions.c.person_id)
        .order_by(decisions.c.person_id)
    )
    return [Work(*row) for row in tx.execute(query)]


def audit_outcomes(tx: Tx, since_ms: int) -> list[AuditOutcome]:
    """Return what people came to on the audit sample since a time."""
    query = (
        sa.select(
            items.c.label,
            items.c.outcome_label,
            items.c.adapter_digest,
            items.c.reasons,
            items.c.sample_share,
            items.c.outcome_ms,
        )
        .where(
            items.c.origin == "audit", items.c.outcome_ms >= since_ms, items.c.state == "decided"
        )
        .order_by(items.c.id)
    )
    return [
        AuditOutcome(
            row.label,
            row.outcome_label,
            row.adapter_digest,
            bool(row.reasons),
            row.sample_share,
            row.outcome_ms,
        )
        for row in tx.execute(query)
    ]


def traffic_since(tx: Tx, day: int) -> Mapping[tuple[str, str, bool], int]:
    """Return all results since a day (days since 1970), by (label, adapter's digest, doubtful)."""
    keys = (traffic.c.label, traffic.c.adapter_digest, traffic.c.doubtful)
    query = sa.select(*keys, sa.func.sum(traffic.c.results)).where(traffic.c.day >= day)
    return {
        (label, digest, bool(doubtful)): int(results)
        for label, digest, doubtful, results in tx.execute(query.group_by(*keys))
    }
