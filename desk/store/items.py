"""Items as they come in: exactly one for each result id."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from desk.core.queue import BLIND_ORIGINS, Origin, reason_bits
from desk.store.database import Tx
from desk.store.rows import ITEM, read
from desk.store.tables import decisions, facets, items, texts, traffic
from desk.store.types import Item
from worker.contract.records.identity import Replay, supersedes
from worker.contract.scoring import ReviewReason


@dataclass(frozen=True, slots=True)
class NewItem:
    """A result to look at, without its text. ``replay`` made it, where one did."""

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


@dataclass(frozen=True, slots=True)
class Added:
    """What became of a batch: new items, known ones that a replay changed, known ones."""

    new: int
    changed: int
    known: int


def insert_ignore(tx: Tx, table: sa.Table) -> Any:
    """Return an INSERT that passes over rows that are there."""
    kind: Any = sqlite if tx.dialect.name == "sqlite" else postgresql
    return kind.insert(table).on_conflict_do_nothing()


def add(tx: Tx, new: Sequence[NewItem], now_ms: int) -> Added:
    """Add items, each once by its result id. One that is there is changed where the new result is
    of a later replay and nobody has decided yet."""
    facet_of = _facets(tx, new)
    counts = {"new": 0, "changed": 0, "known": 0}
    for item in new:
        values = _values(item, facet_of[_facet(item)])
        added = tx.execute(
            insert_ignore(tx, items)
            .values(**values, received_ms=now_ms, state="fetching", text_state="pending")
            .returning(items.c.id)
        ).first()
        if added is not None:
            counts["new"] += 1
        elif item.replay is not None and _replace(tx, item.replay, values):
            counts["changed"] += 1
        else:
            counts["known"] += 1
    return Added(**counts)


def count_traffic(tx: Tx, seen: Mapping[tuple[int, str, str, bool], int]) -> None:
    """Add to what was read by (day since 1970, label, adapter's digest, doubtful)."""
    kind: Any = sqlite if tx.dialect.name == "sqlite" else postgresql
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


# Made once: to put a statement together, and to find out that it is a known one, takes longer than
# to carry it out.
_GET = sa.select(*ITEM).where(items.c.id == sa.bindparam("item_id"))
_LOCK = {wait: _GET.with_for_update(skip_locked=not wait) for wait in (True, False)}
_TEXT = sa.select(texts.c.text).where(texts.c.item_id == sa.bindparam("item_id"))


def get(tx: Tx, item_id: int) -> Item | None:
    """Return an item."""
    row = tx.execute(_GET, {"item_id": item_id}).first()
    return None if row is None else read(Item, row)


def lock(tx: Tx, item_id: int, *, wait: bool = True) -> Item | None:
    """Return an item that nobody else changes until the transaction ends. None where there is
    none, or where ``wait`` is off and somebody holds it."""
    row = tx.execute(_LOCK[wait], {"item_id": item_id}).first()
    return None if row is None else read(Item, row)


def ids_of(tx: Tx, result_ids: Collection[str]) -> dict[str, int]:
    """Return the items' ids by the results' ids, of those that are here."""
    query = sa.select(items.c.result_id, items.c.id).where(items.c.result_id.in_(list(result_ids)))
    return dict(tx.execute(query).tuples().all())


def text_of(tx: Tx, item_id: int) -> str | None:
    """Return an item's text, None where it is not here."""
    return tx.execute(_TEXT, {"item_id": item_id}).scalar_one_or_none()


def release_held(tx: Tx, taxonomy_digest: str) -> int:
    """Open the items that waited for a taxonomy that is known now; return how many."""
    done = tx.execute(
        items.update()
        .where(items.c.state == "held", items.c.taxonomy_digest == taxonomy_digest)
        .values(state="open")
    )
    return int(done.rowcount)


def _values(item: NewItem, facet_id: int) -> dict[str, Any]:
    values = asdict(item)
    del values["replay"]
    replay = item.replay
    return {
        **values,
        "scores": dict(item.scores),
        "reasons": list(item.reasons),
        "blind": item.origin in BLIND_ORIGINS,
        "facet_id": facet_id,
        "replay_at": replay.at if replay else None,
        "replay_id": replay.id if replay else None,
    }


def _replace(tx: Tx, replay: Replay, values: Mapping[str, Any]) -> bool:
    """Let a replay's result take an item's place. The sample and who decides stay as drawn."""
    here = tx.execute(
        sa.select(items.c.id, items.c.origin, items.c.replay_at, items.c.replay_id, items.c.state)
        .where(items.c.result_id == values["result_id"])
        .with_for_update()
    ).one()
    old = Replay(here.replay_id, here.replay_at, "") if here.replay_id is not None else None
    said = sa.select(decisions.c.id).where(decisions.c.item_id == here.id).limit(1)
    if not supersedes(replay, old) or tx.execute(said).first() is not None:
        return False
    kept = ("origin", "blind", "sample_share", "opinions_wanted", "result_id")
    changed = {key: value for key, value in values.items() if key not in kept}
    tx.execute(items.update().where(items.c.id == here.id).values(changed))
    return True


def _facet(item: NewItem) -> tuple[str, str, int, str]:
    return item.label, item.adapter_digest, reason_bits(item.reasons), item.origin


def _facets(tx: Tx, new: Sequence[NewItem]) -> dict[tuple[str, str, int, str], int]:
    """Return the facets' ids; those that are missing are added."""
    columns = (facets.c.label, facets.c.adapter_digest, facets.c.reason_bits, facets.c.origin)
    batch_of = {_facet(item): item.batch_id for item in new}
    wanted = sorted(batch_of)
    if not wanted:
        return {}
    names = [column.name for column in columns]
    tx.execute(
        insert_ignore(tx, facets),
        [{**dict(zip(names, facet, strict=True)), "batch_id": batch_of[facet]} for facet in wanted],
    )
    rows = tx.execute(sa.select(facets.c.id, *columns).where(sa.tuple_(*columns).in_(wanted)))
    return {(r.label, r.adapter_digest, r.reason_bits, r.origin): r.id for r in rows}
