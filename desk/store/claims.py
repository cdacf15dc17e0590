"""Find the next item of a queue, and hold it for one reviewer.

The next item is found through the facets, the few combinations of label, adapter, reasons and
origin that queues choose by. An index lists each facet's items in order, so the first item of a
facet costs one step into it, however many items there are.
"""

from __future__ import annotations

import random
from collections.abc import Collection
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from desk.core.items import BLIND_ORIGINS, Order, Queue, values_with
from desk.store import items as items_store
from desk.store.database import Tx
from desk.store.tables import claims, decisions, facets, items
from desk.store.types import ITEM, Item, read_row

_ATTEMPTS = 25

# Statements are built once: building one, and looking it up in SQLAlchemy's cache, takes longer
# than running it.
_QUEUES = 128
"""Statements are kept for so many queues."""

_ITEM = sa.bindparam("item", type_=items.c.id.type)
_PERSON = sa.bindparam("person_id", type_=items.c.id.type)
_NOW = sa.bindparam("now_ms", type_=claims.c.until_ms.type)
_HOLDER = sa.select(claims).where(claims.c.item_id == _ITEM)
_HOLD = claims.insert()
_HOLD_ON = claims.update().where(claims.c.item_id == _ITEM)
_RELEASE = claims.delete().where(claims.c.item_id == _ITEM)
_RELEASE_MINE = _RELEASE.where(claims.c.person_id == _PERSON)


def held_by(
    tx: Tx, person_id: int, now_ms: int, *, beside: Collection[int] = (), queue: Queue
) -> Item | None:
    """Return an item of a queue that the person holds, the oldest claim first, except those of
    ``beside``."""
    given = {"person_id": person_id, "now_ms": now_ms, "beside": list(beside)}
    row = tx.execute(_held_by(queue), given).first()
    return None if row is None else read_row(Item, row)


@lru_cache(_QUEUES)
def _held_by(queue: Queue) -> sa.Select[Any]:
    return (
        sa.select(*ITEM)
        .join(claims, claims.c.item_id == items.c.id)
        .join(facets, facets.c.id == items.c.facet_id)
        .where(
            claims.c.person_id == _PERSON,
            claims.c.until_ms > _NOW,
            items.c.id.not_in(sa.bindparam("beside", expanding=True)),
            items.c.state.in_(("open", "second")),
            *_of_queue(queue),
            *_of_age(queue),
        )
        .order_by(claims.c.since_ms, claims.c.item_id)
        .limit(1)
    )


def claim_next(tx: Tx, person_id: int, queue: Queue, now_ms: int, until_ms: int) -> Item | None:
    """Hold the next item of a queue for a person; None if there is none for them.

    Items that are held, and items that this person has decided, skipped or flagged, are left out.
    Several at once get different items.
    """
    for attempt in range(_ATTEMPTS):
        # Others took the same candidates: look a random way further, or all meet again.
        skip = random.randrange(4 * attempt) if attempt else 0  # noqa: S311 - no secret
        given = {"person_id": person_id, "now_ms": now_ms, "skip": skip}
        found = list(tx.execute(candidates(queue), given).scalars())
        if not found and not skip:
            return None
        for item_id in found:
            item = claim(tx, item_id, person_id, now_ms, until_ms, wait=False)
            if item is not None:
                return item
    return None


def claim(
    tx: Tx, item_id: int, person_id: int, now_ms: int, until_ms: int, *, wait: bool = True
) -> Item | None:
    """Hold this item for a person, or prolong their claim; None if they may not decide it.

    They may not if somebody else holds it, if they have given an opinion on it, or if it does not
    wait for an opinion.
    """
    item = items_store.lock(tx, item_id, wait=wait)
    if item is None or item.state not in {"open", "second"}:
        return None
    return _hold(tx, item, person_id, now_ms, until_ms)


def claim_dispute(
    tx: Tx, person_id: int, now_ms: int, until_ms: int, query: sa.Select[Any]
) -> Item | None:
    """Hold the first of these disputed items (a query of their ids) for an adjudicator."""
    for item_id in tx.execute(query).scalars().all():
        item = items_store.lock(tx, item_id, wait=False)
        if item is not None and item.state == "dispute":
            held = _hold(tx, item, person_id, now_ms, until_ms, spoken_is_fine=True)
            if held is not None:
                return held
    return None


def hold_again(tx: Tx, item: Item, person_id: int, now_ms: int, until_ms: int) -> bool:
    """Hold a locked item for a person who took back their decision; return False if somebody else
    holds it."""
    return _hold(tx, item, person_id, now_ms, until_ms, spoken_is_fine=True) is not None


def holds(tx: Tx, item_id: int, person_id: int, now_ms: int) -> bool:
    """Whether an item is held for a person. Ask with the item locked."""
    holder = tx.execute(_HOLDER, {"item": item_id}).first()
    return holder is not None and holder.person_id == person_id and holder.until_ms > now_ms


def release(tx: Tx, item_id: int, person_id: int | None = None) -> None:
    """Release a claim: this person's, or anybody's if no person is given."""
    if person_id is None:
        tx.execute(_RELEASE, {"item": item_id})
    else:
        tx.execute(_RELEASE_MINE, {"item": item_id, "person_id": person_id})


def release_all(tx: Tx, person_id: int) -> None:
    """Release all claims of a person who signs out."""
    tx.execute(claims.delete().where(claims.c.person_id == person_id))


def _hold(
    tx: Tx,
    item: Item,
    person_id: int,
    now_ms: int,
    until_ms: int,
    *,
    spoken_is_fine: bool = False,
) -> Item | None:
    holder = tx.execute(_HOLDER, {"item": item.id}).first()
    if holder is not None and holder.person_id == person_id and holder.until_ms > now_ms:
        tx.execute(_HOLD_ON, {"item": item.id, "until_ms": until_ms})
        return item
    if holder is not None and holder.until_ms > now_ms:
        return None
    mine = {"item": item.id, "person_id": person_id}
    if not spoken_is_fine and tx.execute(_SPOKEN, mine).scalar():
        return None
    if holder is not None:
        release(tx, item.id)
    times = {"since_ms": now_ms, "until_ms": until_ms}
    tx.execute(_HOLD, {"item_id": item.id, "person_id": person_id, **times})
    return item


@lru_cache(_QUEUES)
def candidates(queue: Queue) -> sa.Select[Any]:
    """Return a query of ids: the first item of each facet and state in the queue. Its parameters
    are ``person_id``, ``now_ms``, and how many items to ``skip`` in each."""
    order = _order(queue.order)
    firsts = []
    for state in ("open", "second"):
        held = (
            sa.select(claims.c.item_id)
            .where(claims.c.item_id == items.c.id, claims.c.until_ms > _NOW)
            .exists()
        )
        first = (
            sa.select(items.c.id)
            .where(
                items.c.state == state,
                items.c.facet_id == facets.c.id,
                *_of_age(queue),
                ~held,
                ~_spoken(items.c.id),
            )
            .order_by(*order)
            .limit(1)
            .offset(sa.bindparam("skip", type_=sa.Integer))
            .correlate(facets)
            .scalar_subquery()
        )
        # Explicit: without a condition the query would not select from the facets at all.
        from_facets = sa.select(first.label("item_id")).select_from(facets)
        firsts.append(from_facets.where(*_of_queue(queue)))
    found = sa.union_all(*firsts).subquery("firsts")
    return (
        sa.select(items.c.id).join(found, found.c.item_id == items.c.id).order_by(*order).limit(8)
    )


def _spoken(item_id: Any) -> sa.Exists:
    return (
        sa.select(decisions.c.id)
        .where(
            decisions.c.item_id == item_id,
            decisions.c.person_id == _PERSON,
            decisions.c.undone_ms.is_(None),
        )
        .exists()
    )


_SPOKEN = sa.select(_spoken(_ITEM))


def _of_queue(queue: Queue) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = [
        # "IS NULL" for None, which leaves out all batches.
        facets.c.batch_id == queue.batch_id
    ]
    if queue.label is not None:
        conditions.append(facets.c.label == queue.label)
    if queue.adapter_digest is not None:
        conditions.append(facets.c.adapter_digest == queue.adapter_digest)
    if queue.reason is not None:
        conditions.append(facets.c.reason_bits.in_(values_with(queue.reason)))
    if queue.origin is not None:
        conditions.append(facets.c.origin == queue.origin)
    if queue.tells_the_label:
        conditions.append(facets.c.origin.not_in(BLIND_ORIGINS))
    return conditions


def _of_age(queue: Queue) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if queue.min_age_s is not None:
        conditions.append(items.c.received_ms <= _NOW - int(queue.min_age_s * 1000))
    if queue.max_age_s is not None:
        conditions.append(items.c.received_ms >= _NOW - int(queue.max_age_s * 1000))
    return conditions


def _order(order: Order) -> tuple[sa.ColumnElement[Any], ...]:
    if order == "newest":
        return items.c.received_ms.desc(), items.c.id.desc()
    if order == "doubtful":
        return items.c.confidence, items.c.id
    return items.c.received_ms, items.c.id
