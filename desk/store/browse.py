"""Find items: by words, by similarity, by cluster.

Search over texts is FTS5 on SQLite and a tsvector on PostgreSQL.
"""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from desk.core.texts import MIN_SIMILARITY, similarity
from desk.store.database import Tx
from desk.store.tables import items, texts
from desk.store.types import ITEM, Item, read_row

# A page that ranked all decided messages with a common word took 133 ms of CPU among 100,000 of
# them, and 7 ms among these.
NEAR = 500
"""Similar messages are searched among so many before and after this one."""

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
    """Near-duplicates that wait: their key, how many, the model's labels, and an example."""

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
    """Return items whose text has all words of a query, best first. The last word may be a prefix.

    ``label`` is the reviewers' or, for undecided items, the model's. Undecided blind items are then
    left out, because being found would give their label away.
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
    return [Hit(read_row(Item, row), row.text) for row in tx.execute(chosen)]


def waiting_with(tx: Tx, query: str, *, limit: int) -> list[int]:
    """Return the items that wait for an opinion and have all words of a query, best first."""
    words = words_of(query)
    if not words:
        return []
    found, rank = found_by(tx, words)
    chosen = (
        sa.select(items.c.id)
        .join(found, found.c.item_id == items.c.id)
        .where(items.c.state.in_(("open", "second")))
        .order_by(rank, items.c.id.desc())
        .limit(limit)
    )
    return list(tx.execute(chosen).scalars())


def neighbours(tx: Tx, item_id: int, text: str, limit: int = 5) -> list[Hit]:
    """Return decided items with similar texts; there may be none.

    Near-duplicates come first, the newest first. Then those with the highest ``similarity``, among
    the ``NEAR`` items before and after this one that have most words in common.

    Not among all items: most words are in very many messages, and each page would read them all.
    """
    twins = list(tx.execute(_TWINS, {"item_id": item_id, "most": limit}).scalars())
    words = words_of(text)
    others: list[int] = []
    if words and len(twins) < limit:
        others = most_similar(tx, words, around=item_id, near=NEAR, limit=2 * limit)
    rows = tx.execute(_WITH_TEXTS, {"ids": [*{*twins, *others}]})
    found = {row.id: Hit(read_row(Item, row), row.text) for row in rows}
    alike = {id_: similarity(text, hit.text) for id_, hit in found.items() if id_ not in twins}
    others = [
        id_
        for id_ in sorted(alike, key=lambda id_: (-alike[id_], -id_))
        if alike[id_] >= MIN_SIMILARITY
    ]
    return [found[id_] for id_ in (*twins, *others) if id_ in found][:limit]


def clusters(tx: Tx) -> list[Cluster]:
    """Return the 50 largest clusters of near-duplicates that wait for a first decision, the largest
    first. Blind items are left out, because each is decided by itself."""
    waiting = sa.func.count().label("waiting")
    query = (
        sa.select(items.c.cluster_key, waiting, sa.func.min(items.c.id))
        .where(items.c.state == "open", items.c.blind.is_(False), items.c.cluster_key.is_not(None))
        .group_by(items.c.cluster_key)
        .having(sa.func.count() > 1)
        .order_by(waiting.desc(), items.c.cluster_key)
        .limit(50)
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


_MOST_MEMBERS = 50


def members(tx: Tx, cluster_key: str) -> list[Hit]:
    """Return the items of a cluster that wait for a first decision, with their texts; 50 at
    most."""
    query = (
        sa.select(*ITEM, texts.c.text)
        .join(texts, texts.c.item_id == items.c.id)
        .where(
            items.c.cluster_key == cluster_key,
            items.c.state == "open",
            items.c.blind.is_(False),
        )
        .order_by(items.c.id)
        .limit(_MOST_MEMBERS)
    )
    return [Hit(read_row(Item, row), row.text) for row in tx.execute(query)]


_WORD = re.compile(r"\w+")

# A message is a query too (neighbours), and its sender chooses how many words it has.
_MOST_WORDS = 32

_SEARCH: sa.ColumnElement[Any] = sa.column("search")


def words_of(query: str) -> list[str]:
    """Return the distinct words of a query or a text, in order, 32 at most."""
    return list(dict.fromkeys(word.casefold() for word in _WORD.findall(query)))[:_MOST_WORDS]


def has_words(text: str, query: str) -> bool:
    """Whether a text has all words of a query. The last word may be a prefix."""
    asked, there = words_of(query), {word.casefold() for word in _WORD.findall(text)}
    return (
        bool(asked)
        and there.issuperset(asked[:-1])
        and any(word.startswith(asked[-1]) for word in there)
    )


def found_by(tx: Tx, words: list[str]) -> tuple[sa.FromClause, sa.ColumnElement]:  # type: ignore[type-arg]
    """Return a table (``item_id``, ``rank``) of the texts that have all words, the last as a
    prefix, and the column that orders it, best first."""
    if tx.dialect.name == "sqlite":
        # Quoted, or FTS5 would read the words AND, OR, NOT and NEAR of a message as operators.
        query = " AND ".join(f'"{word}"' for word in words) + "*"
        found = (
            sa.text("SELECT rowid AS item_id, rank FROM text_search WHERE text_search MATCH :query")
            .bindparams(query=query)
            .columns(sa.column("item_id", sa.Integer), sa.column("rank", sa.Float))
            .subquery("found")
        )
        return found, found.c.rank
    # "simple" has no stop words and no stemming of one language, as on SQLite.
    tsquery = sa.func.to_tsquery("simple", " & ".join(f"'{word}'" for word in words) + ":*")
    found = (
        # Negative, because the lowest rank is the best in FTS5.
        sa.select(texts.c.item_id, (-sa.func.ts_rank(_SEARCH, tsquery)).label("rank"))
        .where(_SEARCH.op("@@")(tsquery))
        .subquery("found")
    )
    return found, found.c.rank


def most_similar(tx: Tx, words: list[str], *, around: int, near: int, limit: int) -> list[int]:
    """Return the ids of decided items whose texts have most of these words, best first, among the
    ``near`` items before and after ``around``."""
    between = (around - near, around + near)
    if tx.dialect.name == "sqlite":
        return _most_similar_on_sqlite(tx, words, around, between, limit)
    tsquery = sa.func.to_tsquery("simple", " | ".join(f"'{word}'" for word in words))
    query = (
        sa.select(items.c.id)
        .join(texts, texts.c.item_id == items.c.id)
        .where(
            items.c.id.between(*between),
            items.c.id != around,
            items.c.state == "decided",
            _SEARCH.op("@@")(tsquery),
        )
        .order_by(sa.func.ts_rank(_SEARCH, tsquery).desc(), items.c.id.desc())
        .limit(limit)
    )
    return list(tx.execute(query).scalars())


def _most_similar_on_sqlite(
    tx: Tx, words: list[str], around: int, between: tuple[int, int], limit: int
) -> list[int]:
    """Rank by BM25 (Robertson and Zaragoza 2009), with each word counted once per text.

    A word's rarity is that among these items. FTS5's own ranking would count it in the whole index.
    """
    # The driver's own rows: a page reads thousands, and SQLAlchemy's take twice as long as finding
    # them.
    execute = tx.connection.cursor().execute
    # "+" keeps SQLite from using the index by state, which lists all decided items.
    nearby = "SELECT id FROM items WHERE id BETWEEN ? AND ? AND +state = 'decided' AND id <> ?"
    ids = {id_ for (id_,) in execute(nearby, (*between, around)).fetchall()}
    hits = "SELECT rowid FROM text_search WHERE text_search MATCH ? AND rowid BETWEEN ? AND ?"
    score: defaultdict[int, float] = defaultdict(float)
    for word in words:
        found = execute(hits, (f'"{word}"', *between)).fetchall()
        having = ids.intersection([id_ for (id_,) in found])
        weight = math.log1p((len(ids) - len(having) + 0.5) / (len(having) + 0.5))
        for id_ in having:
            score[id_] += weight
    best = heapq.nlargest(8 * limit, score, key=lambda id_: (score[id_], id_))
    query = sa.select(texts.c.item_id, sa.func.length(texts.c.text)).where(
        texts.c.item_id.in_(best)
    )
    long = dict(tx.execute(query).tuples().all())
    mean = sum(long.values()) / max(1, len(long))
    # BM25's denominator with k1 = 1.2 and b = 0.75, for a word that counts once.
    ranks = {id_: score[id_] / (1.3 + 0.9 * length / mean) for id_, length in long.items()}
    return sorted(ranks, key=lambda id_: (-ranks[id_], -id_))[:limit]


def forget_deleted(tx: Tx) -> None:
    """Rewrite the index after texts were deleted, so that it holds none of their words."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("INSERT INTO text_search(text_search) VALUES ('optimize')")
