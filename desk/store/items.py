"""Items, exactly one for each result id, and their messages: fetched and purged."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from desk.core.items import BLIND_ORIGINS, Origin, reason_bits
from desk.store.browse import forget_deleted
from desk.store.database import Tx
from desk.store.tables import (
    advice,
    advice_messages,
    claims,
    decisions,
    facets,
    items,
    near_bands,
    outbox,
    similar,
    texts,
    traffic,
)
from desk.store.types import ITEM, Item, read_row
from worker.contract.records.identity import Replay, supersedes
from worker.contract.scoring import ReviewReason


@dataclass(frozen=True, slots=True)
class NewItem:
    """A result for review, without its text. ``replay`` is the replay that made it, if one did."""

    result_id: str
    source_topic: str
    source_partition: int
    source_offset: int
    source_ms: int | None
    record_key: bytes | None
    message_id: str | None
    label: str
    confidence: float
    scores: Mapping[str, float]
    off_label_mass: float | None
    reasons: tuple[ReviewReason, ...]
    truncated: bool
    adapter_name: str
    adapter_digest: str
    taxonomy_digest: str
    labelled_ms: int
    origin: Origin
    sample_share: float | None
    opinions_wanted: int
    out_of_scope_method: str | None = None
    out_of_scope_score: float | None = None
    replay: Replay | None = None
    batch_id: int | None = None


Missing = Literal["expired", "unreadable"]
"""Why a message is missing: no longer in Kafka, or not in the format of the settings."""


@dataclass(frozen=True, slots=True)
class FoundText:
    """An item's message, what is computed from it, and the item's state from now on."""

    item_id: int
    text: str
    message_id: str | None
    message_sha256: str
    band_keys: Sequence[str]
    state: Literal["open", "held"] = "open"


def insert_ignore(tx: Tx, table: sa.Table) -> Any:
    """Return an INSERT that ignores existing rows."""
    # SQLAlchemy has ON CONFLICT only in the inserts of each dialect.
    kind: Any = sqlite if tx.dialect.name == "sqlite" else postgresql
    return kind.insert(table).on_conflict_do_nothing()


def add(tx: Tx, new: Sequence[NewItem], now_ms: int) -> dict[str, int]:
    """Add items, each once by its result id. A known item is changed if the new result is from a
    later replay and nobody has decided it yet. Return how many were new, changed and known."""
    facet_of = _facets(tx, new)
    counts = {"new": 0, "changed": 0, "known": 0}
    here = {"received_ms": now_ms, "state": "fetching", "text_state": "pending"}
    # Of two results with one id the first is inserted.
    first: dict[str, NewItem] = {}
    for item in new:
        first.setdefault(item.result_id, item)
    added = insert_many(
        tx,
        insert_ignore(tx, items).returning(items.c.result_id),
        [{**_values(item, facet_of[_facet(item)]), **here} for item in first.values()],
    )
    inserted = frozenset(added)
    for item in new:
        if item.result_id in inserted and first[item.result_id] is item:
            counts["new"] += 1
        elif item.replay is not None and _replace(
            tx, item.replay, _values(item, facet_of[_facet(item)])
        ):
            counts["changed"] += 1
        else:
            counts["known"] += 1
    return counts


def insert_many(tx: Tx, statement: Any, rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Insert rows, many a statement, and return the first column that the statement returns.

    It must return one: only then SQLAlchemy puts many rows into one statement for every driver.
    """
    return list(tx.execute(statement, list(rows)).scalars()) if rows else []


Traffic = tuple[int, str, str, bool]
"""What results are counted by: day since 1970, label, adapter's digest, doubtful."""


def count_traffic(tx: Tx, seen: Mapping[Traffic, int]) -> None:
    """Add counts of results."""
    kind: Any = sqlite if tx.dialect.name == "sqlite" else postgresql
    # Sorted, so that two processes lock the rows in the same order and never wait for each other.
    for (day, label, digest, doubtful), results in sorted(seen.items()):
        statement = kind.insert(traffic).values(
            day=day, label=label, adapter_digest=digest, doubtful=doubtful, results=results
        )
        tx.execute(
            statement.on_conflict_do_update(
                index_elements=["day", "label", "adapter_digest", "doubtful"],
                set_={"results": traffic.c.results + statement.excluded.results},
            )
        )


# Built once: building a statement, and looking it up in SQLAlchemy's cache, takes longer than
# running it.
_GET = sa.select(*ITEM).where(items.c.id == sa.bindparam("item_id"))

_LOCK = {wait: _GET.with_for_update(skip_locked=not wait) for wait in (True, False)}

_TEXT = sa.select(texts.c.text).where(texts.c.item_id == sa.bindparam("item_id"))


def get(tx: Tx, item_id: int) -> Item | None:
    """Return an item."""
    row = tx.execute(_GET, {"item_id": item_id}).first()
    return None if row is None else read_row(Item, row)


def lock(tx: Tx, item_id: int, *, wait: bool = True) -> Item | None:
    """Return an item, locked until the transaction ends. None if there is none, or if ``wait`` is
    false and another transaction has the lock."""
    row = tx.execute(_LOCK[wait], {"item_id": item_id}).first()
    return None if row is None else read_row(Item, row)


def ids_of(tx: Tx, result_ids: Collection[str]) -> dict[str, int]:
    """Return the ids of these results' items, by result id."""
    query = sa.select(items.c.result_id, items.c.id).where(items.c.result_id.in_(list(result_ids)))
    return dict(tx.execute(query).tuples().all())


def text_of(tx: Tx, item_id: int) -> str | None:
    """Return an item's text, None if it is not here."""
    return tx.execute(_TEXT, {"item_id": item_id}).scalar_one_or_none()


def release_held(tx: Tx, taxonomy_digest: str) -> int:
    """Open the items that waited for this taxonomy; return how many."""
    done = tx.execute(
        items.update()
        .where(items.c.state == "held", items.c.taxonomy_digest == taxonomy_digest)
        .values(state="open")
    )
    return int(done.rowcount)


_COPIED = [each.name for each in fields(NewItem) if each.name != "replay"]


def _values(item: NewItem, facet_id: int) -> dict[str, Any]:
    replay = item.replay
    return {
        **{name: getattr(item, name) for name in _COPIED},
        "scores": dict(item.scores),
        "reasons": list(item.reasons),
        "blind": item.origin in BLIND_ORIGINS,
        "facet_id": facet_id,
        "replay_at": replay.at if replay else None,
        "replay_id": replay.id if replay else None,
    }


def _replace(tx: Tx, replay: Replay, values: Mapping[str, Any]) -> bool:
    """Replace an item's result by a replay's. What was drawn for it stays as it was."""
    here = tx.execute(
        sa.select(items.c.id, items.c.origin, items.c.replay_at, items.c.replay_id, items.c.state)
        .where(items.c.result_id == values["result_id"])
        .with_for_update()
    ).one()
    old = Replay(here.replay_id, here.replay_at, "") if here.replay_id is not None else None
    said = sa.select(decisions.c.id).where(decisions.c.item_id == here.id).limit(1)
    # Who decided saw the earlier result, and the correction in the topic names it.
    if not supersedes(replay, old) or tx.execute(said).first() is not None:
        return False
    kept = ("origin", "blind", "sample_share", "opinions_wanted", "result_id")
    changed = {key: value for key, value in values.items() if key not in kept}
    tx.execute(items.update().where(items.c.id == here.id).values(changed))
    return True


def _facet(item: NewItem) -> tuple[str, str, int, str]:
    return item.label, item.adapter_digest, reason_bits(item.reasons), item.origin


def _facets(tx: Tx, new: Sequence[NewItem]) -> dict[tuple[str, str, int, str], int]:
    """Return the facets' ids; missing facets are added."""
    columns = (facets.c.label, facets.c.adapter_digest, facets.c.reason_bits, facets.c.origin)
    batch_of = {_facet(item): item.batch_id for item in new}
    wanted = sorted(batch_of)
    if not wanted:
        return {}
    names = [column.name for column in columns]
    # Inserted and then read, not the other way: two replicas may add the same facet at once.
    tx.execute(
        insert_ignore(tx, facets),
        [{**dict(zip(names, facet, strict=True)), "batch_id": batch_of[facet]} for facet in wanted],
    )
    rows = tx.execute(sa.select(facets.c.id, *columns).where(sa.tuple_(*columns).in_(wanted)))
    return {(r.label, r.adapter_digest, r.reason_bits, r.origin): r.id for r in rows}


def texts_wanted(tx: Tx, limit: int) -> list[tuple[int, str, tuple[str, int, int]]]:
    """Return items whose message is not here yet, with the taxonomy's digest and the place in the
    input (topic, partition, offset), ordered by that."""
    place = (items.c.source_topic, items.c.source_partition, items.c.source_offset)
    rows = tx.execute(
        sa.select(items.c.id, *place, items.c.taxonomy_digest)
        .where(items.c.text_state == "pending")
        .order_by(*place)
        .limit(limit)
    )
    return [(item_id, digest, (*at,)) for item_id, *at, digest in rows]


_ARRIVED = (
    items.update()
    .where(items.c.id == sa.bindparam("item"))
    .values(
        text_state="here",
        state=sa.bindparam("now"),
        message_id=sa.func.coalesce(items.c.message_id, sa.bindparam("named")),
        message_sha256=sa.bindparam("sha256"),
        cluster_key=sa.bindparam("cluster"),
    )
)


def texts_arrived(tx: Tx, found: Sequence[FoundText], now_ms: int) -> None:
    """Store messages that were found, of the items that still wait for them."""
    wait = sa.select(items.c.id).where(
        items.c.id.in_([each.item_id for each in found]), items.c.text_state == "pending"
    )
    waiting = frozenset(tx.execute(wait.order_by(items.c.id).with_for_update()).scalars())
    here = [each for each in found if each.item_id in waiting]
    if not here:
        return
    clusters = _clusters(tx, [each.band_keys for each in here])
    tx.execute(
        _ARRIVED,
        [
            {
                "item": each.item_id,
                "now": each.state,
                "named": each.message_id,
                "sha256": each.message_sha256,
                "cluster": cluster,
            }
            for each, cluster in zip(here, clusters, strict=True)
        ],
    )
    rows = [{"item_id": each.item_id, "text": each.text, "received_ms": now_ms} for each in here]
    insert_many(tx, texts.insert().returning(texts.c.item_id), rows)


def text_missing(tx: Tx, item_id: int, text_state: Missing) -> None:
    """Close an item whose message is missing."""
    tx.execute(
        items.update()
        .where(items.c.id == item_id, items.c.text_state == "pending")
        .values(text_state=text_state, state="closed")
    )


def purge_old(tx: Tx, before_ms: int, limit: int) -> int:
    """Delete messages that came before a time, ``limit`` at most; return how many.

    Decided items stay, with the message's digest; undecided ones are closed.
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
    """Delete a customer's messages, found by message ids or record keys; return how many items.

    Their digests, ids, keys, the notes on them, and their copies among similar messages and in
    advice are deleted too.
    """
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
    # In parts: a statement takes at most 32,766 values on SQLite and 65,535 on PostgreSQL.
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
            # A record on its way stays, because readers of the topic need the decision. It is
            # deleted after it was published (forget_published).
            published = (outbox.c.item_id.in_(some), outbox.c.published_ms.is_not(None))
            tx.execute(outbox.update().where(*published).values(record_key=None, value=None))
    if ids:
        forget_deleted(tx)
    return done


def _clusters(tx: Tx, keys: Sequence[Sequence[str]]) -> list[str | None]:
    """Return the clusters of messages, by their band keys: that of any message that shares a key,
    or a new one."""
    wanted = sorted({key for each in keys for key in each})
    rows = tx.execute(sa.select(near_bands).where(near_bands.c.band_key.in_(wanted)))
    known = {row.band_key: str(row.cluster_key) for row in rows}
    new: dict[str, str] = {}
    found: list[str | None] = []
    for each in keys:
        cluster = min((known[key] for key in each if key in known), default=next(iter(each), None))
        found.append(cluster)
        if cluster is not None:
            missing = {key: cluster for key in each if key not in known}
            new |= missing
            known |= missing
    inserted = [{"band_key": key, "cluster_key": new[key]} for key in sorted(new)]
    insert_many(tx, insert_ignore(tx, near_bands).returning(near_bands.c.band_key), inserted)
    return found
