"""Corrections and retractions on their way to Kafka.

A row is added in the transaction of the decision. The publisher gives rows their sequence numbers,
under a lock, before it publishes them: so a number that can be seen has no smaller one that is yet
to come, which keys that a database counts by itself cannot promise. An item has at most one row
without a number, and the last one with a number is what the topic says of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.items import insert_ignore
from desk.store.tables import counters, outbox

_COUNTER = "outbox"
_ADD = outbox.insert()
_WITHDRAW = outbox.delete().where(
    outbox.c.item_id == sa.bindparam("item"), outbox.c.sequence.is_(None)
)
_LAST_KIND = (
    sa.select(outbox.c.kind)
    .where(outbox.c.item_id == sa.bindparam("item"), outbox.c.sequence.is_not(None))
    .order_by(outbox.c.sequence.desc())
    .limit(1)
)

Kind = Literal["correction", "retraction"]


def add(tx: Tx, *, item_id: int, kind: Kind, key: bytes, value: bytes, due_ms: int) -> None:
    """Have a record published, not before ``due_ms``."""
    row = {"item_id": item_id, "kind": kind, "due_ms": due_ms}
    tx.execute(_ADD, {**row, "record_key": key, "value": value})


def withdraw(tx: Tx, item_id: int) -> None:
    """Delete the item's record that has no number yet. Ask with the item locked.

    On PostgreSQL this waits for a publisher that is giving the row a number, and then leaves it: a
    DELETE looks at a row again after it has waited for it.
    """
    tx.execute(_WITHDRAW, {"item": item_id})


def is_corrected(tx: Tx, item_id: int) -> bool:
    """Whether the topic has a correction of the item that nothing retracts, or will have it."""
    return tx.execute(_LAST_KIND, {"item": item_id}).scalar() == "correction"


def give_sequence(tx: Tx, now_ms: int, limit: int) -> int:
    """Give the next rows that are due their sequence numbers; return how many."""
    # Not a sequence of the database: this lock gives numbers in the order of commits, and a
    # transaction that is rolled back leaves no gap.
    last = _lock_counter(tx)
    due = (
        sa.select(outbox.c.id)
        .where(outbox.c.sequence.is_(None), outbox.c.due_ms <= now_ms)
        .order_by(outbox.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)
    )
    ids = list(tx.execute(due).scalars())
    for place, id_ in enumerate(ids, last + 1):
        tx.execute(
            outbox.update().where(outbox.c.id == id_).values(sequence=place, sequenced_ms=now_ms)
        )
    if ids:
        tx.execute(
            counters.update().where(counters.c.name == _COUNTER).values(value=last + len(ids))
        )
    return len(ids)


def pending(tx: Tx, limit: int) -> list[tuple[int, bytes, bytes]]:
    """Return what has its number and is not known to be published, in order: number, key, value."""
    rows = tx.execute(
        sa.select(outbox.c.sequence, outbox.c.record_key, outbox.c.value)
        .where(outbox.c.published_ms.is_(None), outbox.c.sequence.is_not(None))
        .order_by(outbox.c.sequence)
        .limit(limit)
    )
    return [(row.sequence, bytes(row.record_key), bytes(row.value)) for row in rows]


def published(tx: Tx, up_to: int, now_ms: int) -> int:
    """Note that all up to this number are in Kafka, and that no number up to it is given again;
    return how many were not known to be."""
    last = _lock_counter(tx)
    if up_to > last:  # the database was restored from before
        tx.execute(counters.update().where(counters.c.name == _COUNTER).values(value=up_to))
    done = tx.execute(
        outbox.update()
        .where(outbox.c.published_ms.is_(None), outbox.c.sequence <= up_to)
        .values(published_ms=now_ms)
    )
    return int(done.rowcount)


def in_doubt_since_ms(tx: Tx) -> int | None:
    """Return when the first number was given that is not known to be published."""
    query = (
        sa.select(outbox.c.sequenced_ms)
        .where(outbox.c.published_ms.is_(None), outbox.c.sequence.is_not(None))
        .order_by(outbox.c.sequence)
        .limit(1)
    )
    return tx.execute(query).scalar()


def backlog(tx: Tx) -> tuple[int, int | None]:
    """Return how many records are not published, and since when the oldest waits (Unix, ms)."""
    row = tx.execute(
        sa.select(sa.func.count(), sa.func.min(outbox.c.due_ms)).where(
            outbox.c.published_ms.is_(None)
        )
    ).one()
    return row[0], row[1]


def forget_published(tx: Tx, before_ms: int) -> int:
    """Delete the records that were published before a time: they name the sender's message id."""
    # The row stays with its kind, because a retraction may follow years later (is_corrected).
    old = (outbox.c.published_ms < before_ms, outbox.c.value.is_not(None))
    return tx.execute(outbox.update().where(*old).values(record_key=None, value=None)).rowcount


def _lock_counter(tx: Tx) -> int:
    tx.execute(insert_ignore(tx, counters).values(name=_COUNTER, value=0))
    query = sa.select(counters.c.value).where(counters.c.name == _COUNTER).with_for_update()
    return int(tx.execute(query).scalar_one())


# --- deliveries: How far what the outbox has published was delivered to the web address.


_WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Published:
    """A record that is in Kafka, by its place there; when it was published (Unix time, ms)."""

    sequence: int
    kind: Kind
    value: bytes
    published_ms: int


def begin_delivering(tx: Tx) -> None:
    """Begin to deliver, the first time with what is published from now on."""
    newest = sa.select(sa.func.max(outbox.c.sequence)).where(outbox.c.published_ms.is_not(None))
    start = sa.func.coalesce(newest.scalar_subquery(), 0)
    tx.execute(insert_ignore(tx, counters).values(name=_WEBHOOK, value=start))


def to_deliver(tx: Tx, limit: int) -> list[Published]:
    """Return what was published and not delivered, in order."""
    rows = tx.execute(
        sa.select(outbox.c.sequence, outbox.c.kind, outbox.c.value, outbox.c.published_ms)
        .where(*_undelivered())
        .order_by(outbox.c.sequence)
        .limit(limit)
    )
    return [Published(row.sequence, row.kind, bytes(row.value), row.published_ms) for row in rows]


def delivered(tx: Tx, sequence: int) -> None:
    """Note that all up to this number were delivered, or given up."""
    tx.execute(
        counters.update()
        .where(counters.c.name == _WEBHOOK, counters.c.value < sequence)
        .values(value=sequence)
    )


def undelivered(tx: Tx) -> int | None:
    """Return how many wait to be delivered; None where nothing ever was to be."""
    if tx.execute(_mark_query()).scalar() is None:
        return None
    count = sa.select(sa.func.count()).where(*_undelivered())
    return int(tx.execute(count).scalar_one())


def _undelivered() -> tuple[sa.ColumnElement[bool], ...]:
    # Without its value a record was published a month ago, or its person was purged.
    return (
        outbox.c.sequence > _mark_query().scalar_subquery(),
        outbox.c.published_ms.is_not(None),
        outbox.c.value.is_not(None),
    )


def _mark_query() -> sa.Select[tuple[int]]:
    return sa.select(counters.c.value).where(counters.c.name == _WEBHOOK)
