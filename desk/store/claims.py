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

from desk.core.items import BLIND_ORIGINS, DecisionKind, Order, Queue, values_with
from desk.store import items as items_store
from desk.store.database import Tx
from desk.store.tables import claims, decisions, facets, items
from desk.store.types import ITEM, Item, read_row

# Each attempt finds up to eight items, all of which others may take before they are locked here.
# Without a bound a crowd on a short queue would keep a request for ever.
_ATTEMPTS = 25

# Statements are built once: building one, and looking it up in SQLAlchemy's cache, takes longer
# than running it.
_QUEUES = 128
"""Statements are kept for so many queues."""

Among = Collection[int] | None
"""The items with the words of a queue, if it has some."""

_ITEM = sa.bindparam("item", type_=items.c.id.type)
_PERSON = sa.bindparam("person_id", type_=items.c.id.type)
_NOW = sa.bindparam("now_ms", type_=claims.c.until_ms.type)
_HOLDER = sa.select(claims).where(claims.c.item_id == _ITEM)
_HOLD = claims.insert()
_HOLD_ON = claims.update().where(claims.c.item_id == _ITEM)
_RELEASE = claims.delete().where(claims.c.item_id == _ITEM)
_RELEASE_MINE = _RELEASE.where(claims.c.person_id == _PERSON)


def held_by(
    tx: Tx,
    person_id: int,
    now_ms: int,
    *,
    excluding: Collection[int] = (),
    queue: Queue,
    among: Among = None,
) -> Item | None:
    """Return an item of a queue that the person holds, the oldest claim first, except those of
    ``excluding``."""
    given = {"person_id": person_id, "now_ms": now_ms, "excluding": list(excluding)}
    given |= _of_words(queue, among)
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
            items.c.id.not_in(sa.bindparam("excluding", expanding=True)),
            items.c.state.in_(("open", "second")),
            *_of_queue(queue),
            *_of_items(queue),
        )
        .order_by(claims.c.since_ms, claims.c.item_id)
        .limit(1)
    )


def held_dispute(tx: Tx, person_id: int, now_ms: int, item_id: int | None = None) -> Item | None:
    """Return the disputed item that a person holds, this one if one is given; None if there is
    none."""
    query = (
        sa.select(*ITEM)
        .join(claims, claims.c.item_id == items.c.id)
        .where(
            claims.c.person_id == person_id, claims.c.until_ms > now_ms, items.c.state == "dispute"
        )
        .order_by(claims.c.since_ms, claims.c.item_id)
        .limit(1)
    )
    if item_id is not None:
        query = query.where(items.c.id == item_id)
    row = tx.execute(query).first()
    return None if row is None else read_row(Item, row)


def is_waiting(tx: Tx, person_id: int, queue: Queue, now_ms: int, *, among: Among = None) -> bool:
    """Tell whether a queue has an item that a person could claim."""
    given = {"person_id": person_id, "now_ms": now_ms, "skip": 0} | _of_words(queue, among)
    queries = (candidates(queue), _skipped(queue))
    return any(tx.execute(query, given).first() is not None for query in queries)


def is_free(tx: Tx, item_id: int, person_id: int, now_ms: int) -> bool:
    """Tell whether a person could claim this item."""
    item = items_store.get(tx, item_id)
    if item is None or item.state not in {"open", "second"}:
        return False
    holder = _holder(tx, item_id, now_ms)
    if holder is not None:
        return holder == person_id
    return not tx.execute(_GAVE_OPINION, {"item": item_id, "person_id": person_id}).scalar()


def is_dispute_free(tx: Tx, person_id: int, now_ms: int, query: sa.Select[Any]) -> bool:
    """Tell whether nobody else holds one of these disputed items (a query of their ids)."""
    waiting = tx.execute(query).scalars().all()
    return any(_holder(tx, item_id, now_ms) in {None, person_id} for item_id in waiting)


def claim_next(
    tx: Tx, person_id: int, queue: Queue, now_ms: int, until_ms: int, *, among: Among = None
) -> Item | None:
    """Hold the next item of a queue for a person; None if there is none for them.

    Items that are held, and items that this person has decided, skipped or flagged, are left out.
    If nothing else is left, the items that they skipped come back, the oldest skip first. Several
    at once get different items.
    """
    for attempt in range(_ATTEMPTS):
        # Others took the same candidates: look a random way further, or all meet again.
        skip = random.randrange(4 * attempt) if attempt else 0  # noqa: S311 - no secret
        given = {"person_id": person_id, "now_ms": now_ms, "skip": skip} | _of_words(queue, among)
        found = list(tx.execute(candidates(queue), given).scalars())
        if not found and not skip:
            found = list(tx.execute(_skipped(queue), given).scalars())
            if not found:
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
            held = _hold(tx, item, person_id, now_ms, until_ms, opinion_is_fine=True)
            if held is not None:
                return held
    return None


def hold_again(tx: Tx, item: Item, person_id: int, now_ms: int, until_ms: int) -> bool:
    """Hold a locked item for a person who took back their decision; return False if somebody else
    holds it."""
    return _hold(tx, item, person_id, now_ms, until_ms, opinion_is_fine=True) is not None


def is_kept(tx: Tx, item_id: int, person_id: int) -> bool:
    """Whether an item was last held for this person: also after the time ran out, until somebody
    else takes it, so that a pause loses no decision. Ask with the item locked."""
    holder = tx.execute(_HOLDER, {"item": item_id}).first()
    return holder is not None and holder.person_id == person_id


def has_skipped(tx: Tx, item_id: int, person_id: int) -> bool:
    """Tell whether a person has skipped an item."""
    return bool(tx.execute(_HAS_SKIPPED, {"item": item_id, "person_id": person_id}).scalar())


def count_left(
    tx: Tx,
    person_id: int,
    queue: Queue,
    now_ms: int,
    *,
    excluding: Collection[int],
    most: int,
    among: Among = None,
) -> int:
    """Return how many items of a queue are left for a person, without those of ``excluding``;
    counting stops at ``most``, so that its time does not grow with the queue."""
    given = {"person_id": person_id, "now_ms": now_ms, "excluding": list(excluding), "most": most}
    given |= _of_words(queue, among)
    return int(tx.execute(_count_left(queue), given).scalar_one())


def holds(tx: Tx, item_id: int, person_id: int, now_ms: int) -> bool:
    """Whether an item is held for a person. Ask with the item locked."""
    return _holder(tx, item_id, now_ms) == person_id


def _holder(tx: Tx, item_id: int, now_ms: int) -> int | None:
    """Return the person who holds an item now, None if nobody does."""
    found = tx.execute(_HOLDER, {"item": item_id}).first()
    return found.person_id if found is not None and found.until_ms > now_ms else None


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
    opinion_is_fine: bool = False,
) -> Item | None:
    holder = tx.execute(_HOLDER, {"item": item.id}).first()
    if holder is not None and holder.person_id == person_id and holder.until_ms > now_ms:
        tx.execute(_HOLD_ON, {"item": item.id, "until_ms": until_ms})
        return item
    if holder is not None and holder.until_ms > now_ms:
        return None
    mine = {"item": item.id, "person_id": person_id}
    if not opinion_is_fine and tx.execute(_GAVE_OPINION, mine).scalar():
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
    # By facet, each of which has an index in this order: one query over all items would sort every
    # open item for a queue without conditions.
    order = _order(queue.order)
    firsts = []
    for state in ("open", "second"):
        first = (
            sa.select(items.c.id)
            .where(
                items.c.state == state,
                items.c.facet_id == facets.c.id,
                *_of_items(queue),
                ~_held(),
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


@lru_cache(_QUEUES)
def _skipped(queue: Queue) -> sa.Select[Any]:
    """Return a query of ids: items of a queue that a person has only skipped so far, the oldest
    skip first. It reads all of their decisions, and is asked only when nothing else is left."""
    return (
        sa.select(items.c.id)
        .join(decisions, decisions.c.item_id == items.c.id)
        .join(facets, facets.c.id == items.c.facet_id)
        .where(
            decisions.c.person_id == _PERSON,
            decisions.c.kind == "skip",
            decisions.c.undone_ms.is_(None),
            items.c.state.in_(("open", "second")),
            *_of_queue(queue),
            *_of_items(queue),
            ~_held(),
            ~_spoken(items.c.id, "label", "none"),
        )
        .group_by(items.c.id)
        .order_by(sa.func.max(decisions.c.id))
        .limit(8)
    )


@lru_cache(_QUEUES)
def _count_left(queue: Queue) -> sa.Select[Any]:
    some = (
        sa.select(items.c.id)
        .join(facets, facets.c.id == items.c.facet_id)
        .where(
            items.c.state.in_(("open", "second")),
            items.c.id.not_in(sa.bindparam("excluding", expanding=True)),
            *_of_queue(queue),
            *_of_items(queue),
            ~_held(claims.c.person_id != _PERSON),
            ~_spoken(items.c.id, "label", "none"),
        )
        .limit(sa.bindparam("most", type_=sa.Integer))
        .subquery()
    )
    return sa.select(sa.func.count()).select_from(some)


def _held(*by: sa.ColumnElement[bool]) -> sa.Exists:
    """Whether an item is held, by somebody who meets these conditions if any are given."""
    held = (claims.c.item_id == items.c.id, claims.c.until_ms > _NOW)
    return sa.select(claims.c.item_id).where(*held, *by).exists()


def _spoken(item_id: Any, *kinds: DecisionKind) -> sa.Exists:
    """Whether a person has decided an item, in one of these ways if any are named."""
    own = decisions.alias("own")  # a name of its own, where the query has decisions already
    query = sa.select(own.c.id).where(
        own.c.item_id == item_id, own.c.person_id == _PERSON, own.c.undone_ms.is_(None)
    )
    return (query.where(own.c.kind.in_(kinds)) if kinds else query).exists()


_GAVE_OPINION = sa.select(_spoken(_ITEM, "label", "none"))
_HAS_SKIPPED = sa.select(_spoken(_ITEM, "skip"))


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
    if queue.reveals_label:
        conditions.append(facets.c.origin.not_in(BLIND_ORIGINS))
    return conditions


def _of_items(queue: Queue) -> list[sa.ColumnElement[bool]]:
    conditions: list[sa.ColumnElement[bool]] = []
    if queue.min_age_s is not None:
        conditions.append(items.c.received_ms <= _NOW - int(queue.min_age_s * 1000))
    if queue.below is not None:
        conditions.append(items.c.confidence < queue.below)
    if queue.share is not None:
        part, parts = queue.share
        conditions.append(items.c.id % parts == part - 1)
    if queue.words:
        conditions.append(items.c.id.in_(sa.bindparam("among", expanding=True)))
    return conditions


def _of_words(queue: Queue, among: Among) -> dict[str, Any]:
    return {"among": list(among or ())} if queue.words else {}


def _order(order: Order) -> tuple[sa.ColumnElement[Any], ...]:
    if order == "newest":
        return items.c.received_ms.desc(), items.c.id.desc()
    if order == "doubtful":
        return items.c.confidence, items.c.id
    return items.c.received_ms, items.c.id
