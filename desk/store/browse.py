"""Looking for items: by words, by likeness, by cluster."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from desk.core.near import LEAST_ALIKE, likeness
from desk.store.database import Tx
from desk.store.rows import ITEM, read
from desk.store.search_index import found_by, likest, words_of
from desk.store.tables import items, texts
from desk.store.types import Item

NEAR = 500
"""Among how many messages before this one, and after it, similar ones are looked for."""


_TWINS = (
    sa.select(items.c.id)
    .where(
        items.c.cluster_key
        == sa.select(items.c.cluster_key)
        .where(items.c.id == sa.bindparam("item_id"))
        .scalar_subquery(),
        items.c.state == "decided",
        items.c.id != sa.bindparam("item_id"),
    )
    .order_by(items.c.id.desc())
    .limit(sa.bindparam("most", type_=sa.Integer))
)
_WITH_TEXTS = (
    sa.select(*ITEM, texts.c.text)
    .join(texts, texts.c.item_id == items.c.id)
    .where(items.c.id.in_(sa.bindparam("ids", expanding=True)))
)


@dataclass(frozen=True, slots=True)
class Hit:
    """An item with its text."""

    item: Item
    text: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """Near-duplicates that wait: their key, how many, the labels the machine gave, one of them."""

    key: str
    waiting: int
    labels: tuple[str, ...]
    example_item_id: int


def search(
    tx: Tx,
    query: str,
    *,
    label: str | None = None,
    state: str | None = None,
    limit: int = 50,
    offset: int = 0,
) -> list[Hit]:
    """Return items whose text has all words of a query (the last may be begun only), best first.

    ``label`` is what people came to or, where they have not yet, the machine's; blind items that
    wait are left out then, for it would tell.
    """
    words = words_of(query)
    if not words:
        return []
    found, rank = found_by(tx, words)
    chosen = (
        sa.select(*ITEM, texts.c.text)
        .join(found, found.c.item_id == items.c.id)
        .join(texts, texts.c.item_id == items.c.id)
        .order_by(rank, items.c.id.desc())
        .limit(limit)
        .offset(offset)
    )
    if label is not None:
        waits = sa.and_(items.c.outcome.is_(None), items.c.label == label, items.c.blind.is_(False))
        chosen = chosen.where(sa.or_(items.c.outcome_label == label, waits))
    if state is not None:
        chosen = chosen.where(items.c.state == state)
    return [Hit(read(Item, row), row.text) for row in tx.execute(chosen)]


def neighbours(tx: Tx, item_id: int, text: str, limit: int = 5) -> list[Hit]:
    """Return decided items whose texts are like this one: near-duplicates, the newest first, then
    those alike (``desk.core.near``), the likest first, among the ``NEAR`` items before and after it
    that have most words in common. There may be none.

    Not of all: most words are in very many messages, and each page would look at all of these.
    """
    twins = list(tx.execute(_TWINS, {"item_id": item_id, "most": limit}).scalars())
    words = words_of(text)
    others: list[int] = []
    if words and len(twins) < limit:
        others = likest(tx, words, around=item_id, near=NEAR, limit=2 * limit)
    rows = tx.execute(_WITH_TEXTS, {"ids": [*{*twins, *others}]})
    found = {row.id: Hit(read(Item, row), row.text) for row in rows}
    alike = {id_: likeness(text, hit.text) for id_, hit in found.items() if id_ not in twins}
    others = [
        id_
        for id_ in sorted(alike, key=lambda id_: (-alike[id_], -id_))
        if alike[id_] >= LEAST_ALIKE
    ]
    return [found[id_] for id_ in (*twins, *others) if id_ in found][:limit]


def clusters(tx: Tx, *, least: int = 2, limit: int = 50) -> list[Cluster]:
    """Return clusters of near-duplicates that wait for a first decision, the largest first. Blind
    items are in none: each is decided by itself."""
    waiting = sa.func.count().label("waiting")
    query = (
        sa.select(items.c.cluster_key, waiting, sa.func.min(items.c.id))
        .where(items.c.state == "open", items.c.blind.is_(False), items.c.cluster_key.is_not(None))
        .group_by(items.c.cluster_key)
        .having(sa.func.count() >= least)
        .order_by(waiting.desc(), items.c.cluster_key)
        .limit(limit)
    )
    found = []
    for key, count, first in tx.execute(query).all():
        labels = (
            sa.select(items.c.label)
            .where(items.c.cluster_key == key, items.c.state == "open", items.c.blind.is_(False))
            .distinct()
            .order_by(items.c.label)
        )
        found.append(Cluster(key, count, tuple(tx.execute(labels).scalars()), first))
    return found


def members(tx: Tx, cluster_key: str, limit: int = 50) -> list[Hit]:
    """Return the items of a cluster that wait for a first decision, with their texts."""
    query = (
        sa.select(*ITEM, texts.c.text)
        .join(texts, texts.c.item_id == items.c.id)
        .where(
            items.c.cluster_key == cluster_key,
            items.c.state == "open",
            items.c.blind.is_(False),
        )
        .order_by(items.c.id)
        .limit(limit)
    )
    return [Hit(read(Item, row), row.text) for row in tx.execute(query)]
