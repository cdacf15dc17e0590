"""Decided items, for the trainer; and what a change of the taxonomy does to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa

from desk.core.export import ExportRow
from desk.core.taxonomy_change import TaxonomyChange
from desk.store.database import Tx
from desk.store.tables import adjudications, decisions, items, people, texts

_PAGE = 1000


def export_rows(tx: Tx, *, by_message_id: bool, taxonomy_digest: str) -> Iterator[ExportRow]:
    """Yield the items that were decided by this taxonomy, of one id the last one.

    The id is the sender's where ``by_message_id`` (items without one are left out), else the
    result's. Items whose digest was purged are left out.
    """
    by = (
        sa.select(
            items.c.id,
            items.c.result_id,
            items.c.message_id,
            items.c.message_sha256,
            items.c.label,
            items.c.outcome,
            items.c.outcome_label,
            decisions.c.note,
            people.c.pseudonym,
            texts.c.text,
        )
        .join(decisions, decisions.c.id == items.c.outcome_decision_id)
        .join(people, people.c.id == decisions.c.person_id)
        .outerjoin(texts, texts.c.item_id == items.c.id)
        .where(
            items.c.state == "decided",
            items.c.message_sha256.is_not(None),
            items.c.outcome_taxonomy_digest == taxonomy_digest,
        )
    )
    if by_message_id:
        newer = items.alias("newer")
        later = (
            sa.select(newer.c.id)
            .where(
                newer.c.message_id == items.c.message_id,
                newer.c.id > items.c.id,
                newer.c.state == "decided",
            )
            .exists()
        )
        by = by.where(items.c.message_id.is_not(None), ~later)
    after = 0
    while rows := tx.execute(by.where(items.c.id > after).order_by(items.c.id).limit(_PAGE)).all():
        for row in rows:
            yield ExportRow(
                id=row.message_id if by_message_id else row.result_id,
                message_sha256=row.message_sha256,
                machine_label=row.label,
                label=row.outcome_label if row.outcome == "label" else None,
                note=row.note,
                decided_by=row.pseudonym,
                text=row.text,
            )
        after = rows[-1].id


def apply_change(tx: Tx, change: TaxonomyChange, old: str, new: str, now_ms: int) -> dict[str, int]:
    """Carry what was decided by the taxonomy ``old`` (a digest) over to ``new``, or open it again
    where its text is still here. Return how many of each: carried, reopened, left."""
    decided = sa.and_(items.c.state == "decided", items.c.outcome_taxonomy_digest == old)
    counts = {"carried": 0, "reopened": 0}
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
    counts["reopened"] = _reopen(tx, sa.or_(*again), now_ms)
    # Opinions that wait for a second one, or for an adjudicator, were given by the old labels.
    waiting = items.c.state.in_(("second", "dispute"))
    counts["reopened"] += _reopen(tx, waiting, now_ms)
    left = sa.select(sa.func.count()).select_from(items).where(decided)
    counts["left"] = int(tx.execute(left).scalar_one())
    return counts


def _reopen(tx: Tx, which: sa.ColumnElement[bool], now_ms: int) -> int:
    here = sa.select(items.c.id).where(which, items.c.text_state == "here")
    ids = list(tx.execute(here).scalars())
    nothing: dict[str, Any] = dict.fromkeys(
        ("outcome", "outcome_label", "outcome_ms", "outcome_decision_id", "outcome_taxonomy_digest")
    )
    for begin in range(0, len(ids), 500):
        some = ids[begin : begin + 500]
        held = sa.and_(decisions.c.item_id.in_(some), decisions.c.undone_ms.is_(None))
        tx.execute(decisions.update().where(held).values(undone_ms=now_ms))
        tx.execute(items.update().where(items.c.id.in_(some)).values(state="open", **nothing))
        open_ = sa.and_(adjudications.c.item_id.in_(some), adjudications.c.closed_ms.is_(None))
        tx.execute(adjudications.update().where(open_).values(closed_ms=now_ms))
    return len(ids)
