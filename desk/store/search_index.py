"""Search over texts: FTS5 on SQLite, a tsvector on PostgreSQL, behind one condition."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import texts

_WORD = re.compile(r"\w+")
_MOST_WORDS = 32


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


def found_by(tx: Tx, words: list[str], *, every: bool) -> tuple[sa.FromClause, sa.ColumnElement]:  # type: ignore[type-arg]
    """Return a table of ``item_id`` and ``rank``, and the column to order it by, best first.

    ``every``: all words must be there, the last may be begun only; else any of them.
    """
    if tx.dialect.name == "sqlite":
        quoted = [f'"{word}"' for word in words]
        query = " AND ".join(quoted) + "*" if every else " OR ".join(quoted)
        found = (
            sa.text("SELECT rowid AS item_id, rank FROM text_search WHERE text_search MATCH :query")
            .bindparams(query=query)
            .columns(sa.column("item_id", sa.Integer), sa.column("rank", sa.Float))
            .subquery("found")
        )
        return found, found.c.rank
    quoted = [f"'{word}'" for word in words]
    query = " & ".join(quoted) + ":*" if every else " | ".join(quoted)
    search: sa.ColumnElement[Any] = sa.column("search")
    tsquery = sa.func.to_tsquery("simple", query)
    found = (
        sa.select(texts.c.item_id, (-sa.func.ts_rank(search, tsquery)).label("rank"))
        .where(search.op("@@")(tsquery))
        .subquery("found")
    )
    return found, found.c.rank


def forget_deleted(tx: Tx) -> None:
    """Rewrite the index after texts were deleted, so that their words are in no part of it."""
    if tx.dialect.name == "sqlite":
        tx.exec_driver_sql("INSERT INTO text_search(text_search) VALUES ('optimize')")
