"""The messages of items: wanted, found, gone."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.items import insert_ignore
from desk.store.search_index import forget_deleted
from desk.store.tables import (
    advice,
    advice_messages,
    claims,
    decisions,
    items,
    near_bands,
    outbox,
    similar,
    texts,
)

Missing = Literal["expired", "unreadable"]
"""Why a message cannot be had: it is no longer in Kafka, or not in the format of the settings."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Where an item's message lies in the input."""

    item_id: int
    topic: str
    partition: int
    offset: int
    taxonomy_digest: str


@dataclass(frozen=True, slots=True)
class FoundText:
    """An item's message, and what was made of it."""

    item_id: int
    text: str
    message_id: str | None
    message_sha256: str
    band_keys: Sequence[str]


def wanted(tx: Tx, limit: int) -> list[Wanted]:
    """Return items whose message is not here yet, by their place in the input."""
    place = (items.c.source_topic, items.c.source_partition, items.c.source_offset)
    rows = tx.execute(
        sa.select(items.c.id, *place, items.c.taxonomy_digest)
        .where(items.c.text_state == "pending")
        .order_by(*place)
        .limit(limit)
    )
    return [Wanted(*row) for row in rows]


def arrived(tx: Tx, found: FoundText, now_ms: int, *, state: Literal["open", "held"]) -> None:
    """Keep a message that was found, if it is still wanted; its item can be decided then."""
    done = tx.execute(
        items.update()
        .where(items.c.id == found.item_id, items.c.text_state == "pending")
        .values(
            text_state="here",
            state=state,
            message_id=sa.func.coalesce(items.c.message_id, found.message_id),
            message_sha256=found.message_sha256,
            cluster_key=_cluster(tx, found.band_keys),
        )
    )
    if done.rowcount:
        tx.execute(
            texts.insert().values(item_id=found.item_id, text=found.text, received_ms=now_ms)
        )


def missing(tx: Tx, item_id: int, text_state: Missing) -> None:
    """Note that a message cannot be had: nobody can decide its item."""
    tx.execute(
        items.update()
        .where(items.c.id == item_id, items.c.text_state == "pending")
        .values(text_state=text_state, state="closed")
    )


def purge_old(tx: Tx, before_ms: int, limit: int) -> int:
    """Delete messages that came before a time, ``limit`` at most; return how many.

    What was decided stays, with the message's digest; what was not cannot be any more.
    """
    query = sa.select(texts.c.item_id).where(texts.c.received_ms < before_ms).limit(limit)
    old = sa.select(advice.c.id).where(advice.c.loaded_ms < before_ms)
    tx.execute(
        advice_messages.update()
        .where(advice_messages.c.advice_id.in_(old), advice_messages.c.text.is_not(None))
        .values(text=None)
    )
    return _purge(tx, list(tx.execute(query).scalars()), forget_who=False)


def purge_person(tx: Tx, *, message_ids: Collection[str], record_keys: Collection[bytes]) -> int:
    """Delete the messages of a person, known by their messages' ids or their records' keys, with
    digest, id, key and the notes of decisions, also where they stand beside others' as similar
    ones or in advice; return how many items were theirs."""
    theirs = sa.or_(
        items.c.message_id.in_(list(message_ids)), items.c.record_key.in_(list(record_keys))
    )
    rows = tx.execute(
        sa.select(items.c.id, items.c.message_id, items.c.message_sha256).where(theirs)
    ).all()
    their_ids = {*message_ids, *(row.message_id for row in rows if row.message_id)}
    digests = {row.message_sha256 for row in rows if row.message_sha256}
    tx.execute(similar.delete().where(_is_of(similar, their_ids, digests)))
    tx.execute(
        advice_messages.update()
        .where(_is_of(advice_messages, their_ids, digests))
        .values(text=None, message_id=None, message_sha256=None)
    )
    _purge(tx, [row.id for row in rows], forget_who=True)
    return len(rows)


def _is_of(
    table: sa.Table, message_ids: Collection[str], digests: Collection[str]
) -> sa.ColumnElement[bool]:
    return sa.or_(
        table.c.message_id.in_(list(message_ids)), table.c.message_sha256.in_(list(digests))
    )


def _purge(tx: Tx, ids: Sequence[int], *, forget_who: bool) -> int:
    done = 0
    for begin in range(0, len(ids), 500):
        some = list(ids[begin : begin + 500])
        tx.execute(texts.delete().where(texts.c.item_id.in_(some)))
        tx.execute(similar.delete().where(similar.c.item_id.in_(some)))
        tx.execute(claims.delete().where(claims.c.item_id.in_(some)))
        undecided = items.c.state.not_in(("decided", "closed"))
        changed = items.update().where(items.c.id.in_(some))
        done += tx.execute(changed.values(text_state="purged")).rowcount
        tx.execute(changed.where(undecided).values(state="closed"))
        if forget_who:
            nothing = {"message_id": None, "record_key": None, "message_sha256": None}
            tx.execute(changed.values(**nothing, cluster_key=None))
            tx.execute(decisions.update().where(decisions.c.item_id.in_(some)).values(note=""))
            gone = sa.and_(outbox.c.item_id.in_(some), outbox.c.published_ms.is_not(None))
            tx.execute(outbox.delete().where(gone))
    if ids:
        forget_deleted(tx)
    return done


def _cluster(tx: Tx, band_keys: Sequence[str]) -> str | None:
    """Return the cluster of a message with these keys: one that shares any of them, or its own."""
    if not band_keys:
        return None
    rows = tx.execute(sa.select(near_bands).where(near_bands.c.band_key.in_(list(band_keys))))
    known = {row.band_key: row.cluster_key for row in rows}
    cluster = min(known.values(), default=band_keys[0])
    new = [
        {"band_key": key, "cluster_key": cluster} for key in sorted(band_keys) if key not in known
    ]
    if new:
        tx.execute(insert_ignore(tx, near_bands), new)
    return str(cluster)
