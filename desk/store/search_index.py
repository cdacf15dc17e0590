"""Search over texts: FTS5 on SQLite, a tsvector on PostgreSQL, behind one condition."""

from __future__ import annotations

import heapq
import math
import re
from collections import defaultdict
from typing import Any

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import items, texts

_WORD = re.compile(r"\w+")
_MOST_WORDS = 32
_SEARCH: sa.ColumnElement[Any] = sa.column("search")


def words_of(query: str) -> list[str]:
    """Return the words of what a person typed, or of a text: distinct, in order, 32 at most."""
    return list(dict.fromkeys(word.casefold() for word in _WORD.findall(query)))[:_MOST_WORDS]


def has_words(text: str, query: str) -> bool:
    """Tell whether a text has all words of a query, the last of which may be begun only."""
    asked, there = words_of(query), {word.casefold() for word in _WORD.findall(text)}
    return (
        bool(asked)
        and there.issuperset(asked[:-1])
        and any(word.startswith(asked[-1]) for word in there)
    )


def found_by(tx: Tx, words: list[str]) -> tuple[sa.FromClause, sa.ColumnElement]:  # type: ignore[type-arg]
    """Return a table of ``item_id`` and ``rank`` of the texts that have all words, the last of
    which may be begun only, and the column to order it by, best first."""
    if tx.dialect.name == "sqlite":
        query = " AND ".join(f'"{word}"' for word in words) + "*"
        found = (
            sa.text("SELECT rowid AS item_id, rank FROM text_search WHERE text_search MATCH :query")
            .bindparams(query=query)
            .columns(sa.column("item_id", sa.Integer), sa.column("rank", sa.Float))
            .subquery("found")
        )
        return found, found.c.rank
    tsquery = sa.func.to_tsquery("simple", " & ".join(f"'{word}'" for word in words) + ":*")
    found = (
        sa.select(texts.c.item_id, (-sa.func.ts_rank(_SEARCH, tsquery)).label("rank"))
        .where(_SEARCH.op("@@")(tsquery))
        .subquery("found")
    )
    return found, found.c.rank


def likest(tx: Tx, words: list[str], *, around: int, near: int, limit: int) -> list[int]:
    """Return the ids of decided items whose texts have most of these words, best first, of the
    ``near`` items before ``around`` and after it."""
    between = (around - near, around + near)
    if tx.dialect.name == "sqlite":
        return _likest_on_sqlite(tx, words, around, between, limit)
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


def _likest_on_sqlite(
    tx: Tx, words: list[str], around: int, between: tuple[int, int], limit: int
) -> list[int]:
    """Rank by BM25 (Robertson and Zaragoza 2009), with each word counted once a text and as rare as
    it is among these: FTS5's own would count it in the whole index."""
    # The driver's own rows: these are thousands for a page, and SQLAlchemy's take twice as long as
    # finding them.
    execute = tx.connection.cursor().execute
    # "+", for SQLite would rather look through all that are decided.
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
    ranks = {id_: score[id_] / (1.3 + 0.9 * length / mean) for id_, length in long.items()}
    return sorted(ranks, key=lambda id_: (-ranks[id_], -id_))[:limit]


def forget_deleted(tx: Tx) -> None:
    """Rewrite the index after texts were deleted, so that their words are in no part of it."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("INSERT INTO text_search(text_search) VALUES ('optimize')")
