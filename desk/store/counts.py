"""Counts for pages and metrics, and the audit sample that accuracy is measured on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import decisions, facets, items, traffic

_WAITS = items.c.state.in_(("open", "second"))

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class FacetCount:
    """How many items of a facet wait; ``older`` counts those before each of the given times."""

    label: str
    adapter_digest: str
    reason_bits: int
    origin: str
    waiting: int
    older: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Made:
    """A decision, for the list of a person's own."""

    item_id: int
    kind: str
    label: str | None
    decided_ms: int
    undone: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class Audited:
    """An item of the audit sample. ``opinions`` are the reviewers' labels, oldest first, None if no
    label fits. If it is ``settled``, by them or an adjudicator, ``outcome_label`` holds.

    All labels are of the model's taxonomy: an item that was decided by another one counts as not
    decided.
    """

    item_id: int
    label: str
    adapter_digest: str
    doubtful: bool
    sample_share: float
    labelled_ms: int
    settled: bool
    outcome_label: str | None
    adjudicated: bool
    opinions: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class DayTraffic:
    """The number of results of a kind on a day (days since 1970)."""

    day: int
    label: str
    adapter_digest: str
    doubtful: bool
    results: int


@dataclass(frozen=True, slots=True)
class Waiting:
    """Items of an origin and a state that wait: how many, the age of the oldest, and how many have
    waited for more than a day and more than a week."""

    origin: str
    state: str
    items: int
    oldest_s: float
    over_a_day: int
    over_a_week: int


def waiting(tx: Tx, before_ms: Sequence[int]) -> list[FacetCount]:
    """Return how many items of the inbox wait by facet, and how many of them came before each of
    these times."""
    older = [
        sa.func.sum(sa.case((items.c.received_ms < each, 1), else_=0)).label(f"older{at}")
        for at, each in enumerate(before_ms)
    ]
    # Grouped by the facet's id alone, which the index has; the few groups are joined afterwards.
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
    """Return the name of an adapter with waiting items, "" if it has none."""
    # Facet by facet: an index lists each one's waiting items, and the first of them is enough. One
    # query by the digest would read every item of the adapter.
    for facet_id in tx.execute(
        sa.select(facets.c.id).where(facets.c.adapter_digest == digest)
    ).scalars():
        query = sa.select(items.c.adapter_name).where(_WAITS, items.c.facet_id == facet_id)
        name = tx.execute(query.limit(1)).scalar_one_or_none()
        if name is not None:
            return str(name)
    return ""


def made_since(tx: Tx, person_id: int, since_ms: int) -> Mapping[str, tuple[int, int, float]]:
    """Return a person's decisions since a time by kind: how many, how many were undone, and the
    seconds spent on the others."""
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


def by_state(tx: Tx) -> Mapping[str, int]:
    """Return how many items there are in each state."""
    query = sa.select(items.c.state, sa.func.count()).group_by(items.c.state)
    return dict(tx.execute(query).tuples().all())


def oldest_waiting_ms(tx: Tx) -> int | None:
    """Return when the item that waits longest came from Kafka, None if none waits. Tasks are not
    counted, because nobody expects them to be decided at once."""
    of_batches = sa.select(facets.c.id).where(facets.c.batch_id.is_not(None))
    query = sa.select(sa.func.min(items.c.received_ms)).where(
        items.c.state.in_(("open", "second", "dispute")), items.c.facet_id.not_in(of_batches)
    )
    oldest: int | None = tx.execute(query).scalar_one()
    return oldest


def audited(tx: Tx, since_ms: int) -> list[Audited]:
    """Return the audit sample of the results that were labelled since a time."""
    said = _said(tx, since_ms)
    query = (
        sa.select(
            items.c.id,
            items.c.label,
            items.c.adapter_digest,
            items.c.reasons,
            items.c.sample_share,
            items.c.labelled_ms,
            items.c.outcome_decision_id,
        )
        .where(items.c.origin == "audit", items.c.labelled_ms >= since_ms)
        .order_by(items.c.id)
    )
    found = []
    for row in tx.execute(query):
        made = said.get(row.id, {})
        holds = made.get(row.outcome_decision_id)
        found.append(
            Audited(
                item_id=row.id,
                label=row.label,
                adapter_digest=row.adapter_digest,
                doubtful=bool(row.reasons),
                sample_share=row.sample_share,
                labelled_ms=row.labelled_ms,
                settled=holds is not None,
                outcome_label=None if holds is None else holds[0],
                adjudicated=holds is not None and holds[1],
                opinions=tuple(label for label, final in made.values() if not final),
            )
        )
    return found


def traffic_by_day(tx: Tx, since_day: int) -> list[DayTraffic]:
    """Return all results by day since one, the day included."""
    query = sa.select(
        traffic.c.day,
        traffic.c.label,
        traffic.c.adapter_digest,
        traffic.c.doubtful,
        traffic.c.results,
    ).where(traffic.c.day >= since_day)
    return [DayTraffic(*row) for row in tx.execute(query.order_by(traffic.c.day))]


def waiting_by_origin(tx: Tx, now_ms: int) -> list[Waiting]:
    """Return what waits, by origin and state."""
    came = items.c.received_ms

    def older(age_ms: int) -> sa.ColumnElement[int]:
        return sa.func.sum(sa.case((came < now_ms - age_ms, 1), else_=0))

    kind = (items.c.origin, items.c.state)
    query = (
        sa.select(*kind, sa.func.count(), sa.func.min(came), older(_DAY_MS), older(7 * _DAY_MS))
        .where(items.c.state.in_(("open", "second", "dispute")))
        .group_by(*kind)
        .order_by(*kind)
    )
    return [
        Waiting(origin, state, int(count), (now_ms - oldest_ms) / 1000, int(day), int(week))
        for origin, state, count, oldest_ms, day, week in tx.execute(query)
    ]


def time_spent(tx: Tx, since_ms: int) -> Mapping[str, tuple[int, float]]:
    """Return by origin how many decisions were made since a time and the seconds they took,
    including those that were taken back."""
    query = (
        sa.select(items.c.origin, sa.func.count(), sa.func.sum(decisions.c.seconds))
        .join(items, items.c.id == decisions.c.item_id)
        .where(decisions.c.decided_ms >= since_ms)
        .group_by(items.c.origin)
    )
    return {origin: (int(count), float(seconds)) for origin, count, seconds in tx.execute(query)}


def adapter_names(tx: Tx, since_ms: int) -> Mapping[str, str]:
    """Return the names of the audit sample's adapters since a time, by digest. Of several names,
    the last in the alphabet."""
    query = (
        sa.select(items.c.adapter_digest, sa.func.max(items.c.adapter_name))
        .where(items.c.origin == "audit", items.c.labelled_ms >= since_ms)
        .group_by(items.c.adapter_digest)
    )
    return dict(tx.execute(query).tuples().all())


def _said(tx: Tx, since_ms: int) -> Mapping[int, Mapping[int, tuple[str | None, bool]]]:
    """Return (label, whether it is an adjudicator's) by item and decision, oldest first. Decisions
    that were taken back, or made by another taxonomy than the model's, are left out."""
    query = (
        sa.select(decisions.c.item_id, decisions.c.id, decisions.c.label, decisions.c.final)
        .join(items, items.c.id == decisions.c.item_id)
        .where(
            items.c.origin == "audit",
            items.c.labelled_ms >= since_ms,
            decisions.c.kind.in_(("label", "none")),
            decisions.c.undone_ms.is_(None),
            decisions.c.taxonomy_digest == items.c.taxonomy_digest,
        )
        .order_by(decisions.c.id)
    )
    found: dict[int, dict[int, tuple[str | None, bool]]] = {}
    for row in tx.execute(query):
        found.setdefault(row.item_id, {})[row.id] = (row.label, bool(row.final))
    return found
