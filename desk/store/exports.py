"""Decided items, for the trainer; and what a change of the taxonomy does to them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from desk.core.export import ExportOpinion, ExportRow
from desk.core.items import TaxonomyChange
from desk.store.database import Tx
from desk.store.tables import batches, decisions, items, people, tasks, texts

_PAGE = 500


def export_rows(
    tx: Tx, *, batch_ids: Collection[int], by_message_id: bool, taxonomy_digest: str
) -> Iterator[ExportRow]:
    """Yield the items that were decided by this taxonomy: those of these batches, or what came from
    Kafka where there is none.

    The id is the sender's where ``by_message_id`` (items without one are left out), else the
    result's. Items whose digest was purged are left out.
    """
    query = (
        sa.select(
            items.c.id,
            items.c.result_id,
            items.c.message_id,
            items.c.message_sha256,
            items.c.label,
            items.c.outcome_decision_id,
            items.c.outcome_label,
            items.c.batch_id,
            items.c.origin,
            tasks.c.given_label,
            tasks.c.given_source,
            batches.c.name,
            batches.c.purpose,
            texts.c.text,
            (~_decided_again(batch_ids, taxonomy_digest) if by_message_id else sa.true()).label(
                "is_last"
            ),
        )
        .outerjoin(texts, texts.c.item_id == items.c.id)
        .outerjoin(tasks, tasks.c.item_id == items.c.id)
        .outerjoin(batches, batches.c.id == tasks.c.batch_id)
        .where(*_exported(items, batch_ids, taxonomy_digest))
        .order_by(items.c.id)
        .limit(_PAGE)
    )
    if by_message_id:
        query = query.where(items.c.message_id.is_not(None))
    drawn = _drawn(tx) if batch_ids else frozenset()
    after = 0
    # By id: with OFFSET the database would read all earlier rows again for each page.
    while rows := tx.execute(query.where(items.c.id > after)).all():
        holding = {row.outcome_decision_id: row.outcome_label for row in rows}
        said = _opinions(tx, [row.id for row in rows], holding, taxonomy_digest)
        for row in rows:
            is_task = row.batch_id is not None
            yield ExportRow(
                id=row.message_id if by_message_id else row.result_id,
                message_sha256=row.message_sha256,
                had=row.label,
                given=row.given_label,
                given_source=row.given_source,
                text=row.text,
                task_id=row.result_id if is_task else None,
                purpose="audit" if row.origin == "audit" else row.purpose,
                batch=row.name,
                opinions=said[row.id],
                is_last=bool(row.is_last)
                and not (row.purpose == "learn" and row.message_sha256 in drawn),
            )
        after = rows[-1].id


def _drawn(tx: Tx) -> frozenset[str]:
    """Return the digests of the audit sample's messages.

    The sample's own decision on such a message counts, not that on a ``learn`` task. The tasks are
    the hard messages: without them the hold-out that the sample adds to would be too easy.
    """
    query = sa.select(items.c.message_sha256).where(
        items.c.origin == "audit", items.c.message_sha256.is_not(None)
    )
    return frozenset(tx.execute(query).scalars())


def _exported(
    table: Any, batch_ids: Collection[int], taxonomy_digest: str
) -> tuple[sa.ColumnElement[bool], ...]:
    of_project = table.c.batch_id.in_(list(batch_ids)) if batch_ids else table.c.batch_id.is_(None)
    return (
        of_project,
        table.c.state == "decided",
        table.c.message_sha256.is_not(None),
        table.c.outcome_taxonomy_digest == taxonomy_digest,
    )


def _decided_again(batch_ids: Collection[int], taxonomy_digest: str) -> sa.Exists:
    """Whether another item of the same message counts: one of the audit sample, else the one that
    was decided later."""
    newer = items.alias("newer")
    drawn = [sa.case((table.c.origin == "audit", 1), else_=0) for table in (newer, items)]
    later = sa.tuple_(drawn[0], newer.c.outcome_ms, newer.c.id) > sa.tuple_(
        drawn[1], items.c.outcome_ms, items.c.id
    )
    return (
        sa.select(newer.c.id)
        .where(
            newer.c.message_id == items.c.message_id,
            later,
            *_exported(newer, batch_ids, taxonomy_digest),
        )
        .exists()
    )


def _opinions(
    tx: Tx, item_ids: Sequence[int], holding: Mapping[int, str | None], taxonomy_digest: str
) -> Mapping[int, tuple[ExportOpinion, ...]]:
    """Return by item what was said of it by this taxonomy and not taken back. ``holding`` are the
    decisions that hold, with the labels that they have come to by a change of the taxonomy."""
    query = (
        sa.select(
            decisions.c.id,
            decisions.c.item_id,
            decisions.c.label,
            decisions.c.note,
            decisions.c.decided_ms,
            decisions.c.guideline_version,
            people.c.pseudonym,
        )
        .join(people, people.c.id == decisions.c.person_id)
        .where(
            decisions.c.item_id.in_(item_ids),
            sa.or_(
                decisions.c.taxonomy_digest == taxonomy_digest, decisions.c.id.in_(list(holding))
            ),
            decisions.c.kind.in_(("label", "none")),
            decisions.c.undone_ms.is_(None),
        )
        .order_by(decisions.c.id)
    )
    found: dict[int, list[ExportOpinion]] = defaultdict(list)
    for row in tx.execute(query):
        holds = row.id in holding
        found[row.item_id].append(
            ExportOpinion(
                label=holding[row.id] if holds else row.label,
                note=row.note,
                decided_by=row.pseudonym,
                decided_ms=row.decided_ms,
                guideline_version=row.guideline_version,
                holds=holds,
            )
        )
    return {item_id: tuple(said) for item_id, said in found.items()}


def apply_change(
    tx: Tx, change: TaxonomyChange, old: str, new: str, now_ms: int
) -> tuple[dict[str, int], list[int]]:
    """Carry what was decided by the taxonomy ``old`` (a digest) over to ``new``, or open it again
    where its text is still here. Return how many of each (carried, reopened, left), and the ids of
    the reopened items."""
    decided = sa.and_(items.c.state == "decided", items.c.outcome_taxonomy_digest == old)
    counts = {"carried": 0}
    # A row that was carried over has the new digest, so a swap of two names does not rename it
    # twice.
    for before, after in sorted(change.carried.items()):
        done = tx.execute(
            items.update()
            .where(decided, items.c.outcome == "label", items.c.outcome_label == before)
            .values(outcome_label=after, outcome_taxonomy_digest=new)
        )
        counts["carried"] += done.rowcount
    none = sa.and_(decided, items.c.outcome == "none")
    if not change.reopen_none:
        kept = items.update().where(none).values(outcome_taxonomy_digest=new)
        counts["carried"] += tx.execute(kept).rowcount
    again: list[sa.ColumnElement[bool]] = [
        sa.and_(decided, items.c.outcome_label.in_(change.reopened))
    ]
    if change.reopen_none:
        again.append(none)
    reopened = _reopen(tx, sa.or_(*again), now_ms)
    # Opinions that wait for a second one, or for an adjudicator, were given by the old labels.
    waiting = items.c.state.in_(("second", "dispute"))
    reopened += _reopen(tx, waiting, now_ms)
    counts["reopened"] = len(reopened)
    left = sa.select(sa.func.count()).select_from(items).where(decided)
    counts["left"] = int(tx.execute(left).scalar_one())
    return counts, reopened


def _reopen(tx: Tx, which: sa.ColumnElement[bool], now_ms: int) -> list[int]:
    here = sa.select(items.c.id).where(which, items.c.text_state == "here")
    ids = list(tx.execute(here).scalars())
    nothing: dict[str, Any] = dict.fromkeys(
        ("outcome", "outcome_label", "outcome_ms", "outcome_decision_id", "outcome_taxonomy_digest")
    )
    # In parts: a statement takes a limited number of values (items._purge).
    for begin in range(0, len(ids), 500):
        some = ids[begin : begin + 500]
        held = sa.and_(decisions.c.item_id.in_(some), decisions.c.undone_ms.is_(None))
        tx.execute(decisions.update().where(held).values(undone_ms=now_ms))
        tx.execute(items.update().where(items.c.id.in_(some)).values(state="open", **nothing))
    return ids
