"""Batches of tasks: messages that the trainer asks about. Each task is stored once, by its id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace

import sqlalchemy as sa

from desk.store import items as items_store
from desk.store.database import Tx
from desk.store.items import FoundText, NewItem, insert_ignore, insert_many
from desk.store.tables import batches, decisions, items, similar, tasks, texts
from worker.contract.exchange import Purpose


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a batch.

    Of the decided tasks, ``given`` counts those with a given label and ``kept`` those whose given
    label was kept; ``suggested`` and ``followed`` are the same for the suggested label; ``none``
    counts those that fit no label. ``doubly`` counts the tasks that several reviewers decided,
    ``agreed`` those on which they agree."""

    tasks: int = 0
    waiting: int = 0
    disputes: int = 0
    decided: int = 0
    closed: int = 0
    given: int = 0
    kept: int = 0
    suggested: int = 0
    followed: int = 0
    none: int = 0
    doubly: int = 0
    agreed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """Tasks that were made together. ``loaded_ms`` is None after an interrupted load."""

    id: int
    dataset: str | None
    name: str
    purpose: Purpose
    begun_ms: int
    loaded_ms: int | None
    progress: Progress = Progress()


@dataclass(frozen=True, slots=True)
class Like:
    """A message similar to a task's, and its label. ``message_id`` is None if the file has none."""

    label: str
    text: str
    message_id: str | None
    message_sha256: str


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task to store: its item (with no batch yet), its message, and the task's own fields."""

    item: NewItem
    text: str
    message_sha256: str
    band_keys: Sequence[str]
    given: str | None
    given_source: str | None
    suggested: str | None
    confidence: float | None
    codes: Sequence[str]
    guideline: str | None
    similar: Sequence[Like]


@dataclass(frozen=True, slots=True)
class Asked:
    """The fields that only a task has. ``codes`` are the reasons for asking, the weightiest first.
    ``confidence`` is the probability that the given label is wrong (a check), or that the suggested
    label is right (otherwise)."""

    batch: str
    purpose: Purpose
    given: str | None
    suggested: str | None
    confidence: float | None
    codes: tuple[str, ...]
    guideline: str | None
    similar: tuple[Like, ...]


_QUERY = sa.select(*(batches.c[name] for name in [each.name for each in fields(Batch)][:-1]))


def begin(
    tx: Tx,
    key: str,
    *,
    dataset: str | None,
    name: str,
    purpose: Purpose,
    person_id: int | None,
    now_ms: int,
) -> int:
    """Return the id of the batch with this key, created if needed. It is locked, and counts as not
    loaded until ``finish``."""
    # Look first: an insert that is ignored still uses up an id on PostgreSQL.
    mine = batches.update().where(batches.c.key == key).values(loaded_ms=None)
    mine = mine.returning(batches.c.id)
    there = tx.execute(mine).scalar_one_or_none()
    if there is not None:
        return int(there)
    tx.execute(
        # Of two loads of one file at once, one inserts the row and both find it below.
        insert_ignore(tx, batches).values(
            key=key,
            dataset=dataset,
            name=name,
            purpose=purpose,
            begun_ms=now_ms,
            person_id=person_id,
        )
    )
    return int(tx.execute(mine).scalar_one())


def finish(tx: Tx, batch_id: int, now_ms: int) -> None:
    """Mark a batch as loaded completely."""
    tx.execute(batches.update().where(batches.c.id == batch_id).values(loaded_ms=now_ms))


def known(tx: Tx, task_ids: Collection[str]) -> frozenset[str]:
    """Return which of these tasks are stored, in any batch."""
    query = sa.select(items.c.result_id).where(
        items.c.result_id.in_(list(task_ids)), items.c.batch_id.is_not(None)
    )
    return frozenset(tx.execute(query).scalars())


def add(tx: Tx, batch_id: int, new: Sequence[NewTask], now_ms: int) -> int:
    """Add the new ones of these tasks to a locked batch; return how many."""
    here = known(tx, [each.item.result_id for each in new])
    missing = [each for each in new if each.item.result_id not in here]
    items_store.add(tx, [replace(each.item, batch_id=batch_id) for each in missing], now_ms)
    ids = items_store.ids_of(tx, [each.item.result_id for each in missing])
    found = [
        FoundText(ids[each.item.result_id], each.text, None, each.message_sha256, each.band_keys)
        for each in missing
    ]
    items_store.texts_arrived(tx, found, now_ms)
    rows = [_row(batch_id, ids, each) for each in missing]
    insert_many(tx, tasks.insert().returning(tasks.c.item_id), rows)
    likes = [
        {"item_id": ids[each.item.result_id], "place": place, **asdict(like)}
        for each in missing
        for place, like in enumerate(each.similar)
    ]
    insert_many(tx, similar.insert().returning(similar.c.item_id), likes)
    return len(missing)


@dataclass(frozen=True, slots=True)
class Labelled:
    """A decided task of a batch, for a file of labelled messages. ``label`` is None if none fits;
    ``suggested`` is the label that was suggested, None without one."""

    message_id: str
    message_sha256: str
    text: str
    label: str | None
    suggested: str | None
    blind: bool
    seconds: float


def open_tasks(tx: Tx, batch_id: int) -> list[tuple[int, str, bool, int]]:
    """Return the tasks of a batch that nobody has decided: item, digest of the message, whether it
    is blind, and when it was received (Unix ms); in the order of the digests."""
    query = (
        sa.select(items.c.id, items.c.message_sha256, items.c.blind, items.c.received_ms)
        .where(items.c.batch_id == batch_id, items.c.state == "open")
        .order_by(items.c.message_sha256)
    )
    return [tuple(row) for row in tx.execute(query)]


def count_decided(tx: Tx, batch_id: int) -> Mapping[bool, int]:
    """Return how many tasks of a batch are decided or in dispute, of those that are blind (True)
    and of the others."""
    query = (
        sa.select(items.c.blind, sa.func.count())
        .where(items.c.batch_id == batch_id, items.c.state.in_(("decided", "dispute")))
        .group_by(items.c.blind)
    )
    found = {bool(blind): int(count) for blind, count in tx.execute(query)}
    return {blind: found.get(blind, 0) for blind in (True, False)}


def count_labels(tx: Tx, batch_id: int) -> Mapping[str, int]:
    """Return how many decided tasks of a batch have each label, of those that occur."""
    label = items.c.outcome_label
    query = (
        sa.select(label, sa.func.count())
        .where(items.c.batch_id == batch_id, items.c.state == "decided", label.is_not(None))
        .group_by(label)
    )
    return {str(name): int(count) for name, count in tx.execute(query)}


def arrange(tx: Tx, received_ms: Mapping[int, int]) -> None:
    """Set when items count as received (item -> Unix ms): the order of a batch."""
    if received_ms:
        tx.execute(
            items.update().where(items.c.id == sa.bindparam("item")),
            [{"item": item, "received_ms": at} for item, at in received_ms.items()],
        )


def suggest(tx: Tx, suggested: Mapping[int, tuple[str, float]]) -> None:
    """Set the suggested labels of tasks: item -> (label, confidence)."""
    if suggested:
        tx.execute(
            tasks.update().where(tasks.c.item_id == sa.bindparam("item")),
            [
                {"item": item, "suggested_label": label, "confidence": confidence}
                for item, (label, confidence) in suggested.items()
            ],
        )


def labelled(tx: Tx, batch_id: int) -> list[Labelled]:
    """Return the decided tasks of a batch whose text is here, in the order of the decisions."""
    query = (
        sa.select(
            items.c.message_id,
            items.c.message_sha256,
            texts.c.text,
            items.c.outcome_label,
            tasks.c.suggested_label,
            items.c.blind,
            decisions.c.seconds,
        )
        .join(tasks, tasks.c.item_id == items.c.id)
        .join(texts, texts.c.item_id == items.c.id)
        .join(decisions, decisions.c.id == items.c.outcome_decision_id)
        .where(items.c.batch_id == batch_id, items.c.state == "decided")
        .order_by(items.c.outcome_decision_id)
    )
    return [Labelled(*row) for row in tx.execute(query)]


def everything(tx: Tx) -> list[Batch]:
    """Return all batches with their progress, newest first."""
    known = progress(tx)
    rows = tx.execute(_QUERY.order_by(batches.c.id.desc()))
    return [Batch(**row._mapping, progress=known.get(row.id, Progress())) for row in rows]


def get(tx: Tx, batch_id: int) -> Batch | None:
    """Return a batch, without its progress."""
    row = tx.execute(_QUERY.where(batches.c.id == batch_id)).first()
    return None if row is None else Batch(**row._mapping)


def progress(tx: Tx) -> Mapping[int, Progress]:
    """Return the progress of each batch with tasks, by its id."""
    # A comparison with NULL is not true, so undecided tasks count as 0.
    same_given = sa.case((tasks.c.given_label == items.c.outcome_label, 1), else_=0)
    same_suggested = sa.case((tasks.c.suggested_label == items.c.outcome_label, 1), else_=0)
    query = (
        sa.select(
            tasks.c.batch_id,
            items.c.state,
            sa.func.count(),
            sa.func.count(tasks.c.given_label),
            sa.func.sum(same_given),
            sa.func.count(tasks.c.suggested_label),
            sa.func.sum(same_suggested),
            sa.func.sum(sa.case((items.c.outcome == "none", 1), else_=0)),
        )
        .join(items, items.c.id == tasks.c.item_id)
        .group_by(tasks.c.batch_id, items.c.state)
    )
    by_state: dict[int, dict[str, tuple[int, ...]]] = defaultdict(dict)
    for batch_id, state, *counts in tx.execute(query):
        by_state[batch_id][state] = tuple(int(count or 0) for count in counts)
    doubly = _doubly(tx)
    return {
        batch_id: _progress(states, *doubly.get(batch_id, (0, 0)))
        for batch_id, states in by_state.items()
    }


def asked(tx: Tx, item_id: int) -> Asked | None:
    """Return the task's own fields, None for an item from Kafka."""
    row = tx.execute(
        sa.select(
            batches.c.name,
            batches.c.purpose,
            tasks.c.given_label,
            tasks.c.suggested_label,
            tasks.c.confidence,
            tasks.c.codes,
            tasks.c.guideline,
        )
        .join(batches, batches.c.id == tasks.c.batch_id)
        .where(tasks.c.item_id == item_id)
    ).first()
    if row is None:
        return None
    name, purpose, given, suggested, confidence, codes, guideline = row
    likes = sa.select(*(similar.c[field.name] for field in fields(Like)))
    likes = likes.where(similar.c.item_id == item_id)
    return Asked(
        batch=name,
        purpose=purpose,
        given=given,
        suggested=suggested,
        confidence=confidence,
        codes=tuple(codes),
        guideline=guideline,
        similar=tuple(Like(*each) for each in tx.execute(likes.order_by(similar.c.place))),
    )


def _row(batch_id: int, ids: Mapping[str, int], task: NewTask) -> dict[str, object]:
    return {
        "item_id": ids[task.item.result_id],
        "batch_id": batch_id,
        "given_label": task.given,
        "given_source": task.given_source,
        "suggested_label": task.suggested,
        "confidence": task.confidence,
        "codes": list(task.codes),
        "guideline": task.guideline,
    }


def _doubly(tx: Tx) -> Mapping[int, tuple[int, int]]:
    """Return by batch how many tasks several reviewers decided, and on how many they agree."""
    # COUNT(DISTINCT) leaves out NULL, which here is the opinion that no label fits.
    said = sa.func.coalesce(decisions.c.label, "")
    by_item = (
        sa.select(tasks.c.batch_id, sa.func.count(said.distinct()).label("opinions"))
        .join(decisions, decisions.c.item_id == tasks.c.item_id)
        .where(
            decisions.c.kind.in_(("label", "none")),
            decisions.c.undone_ms.is_(None),
            decisions.c.final.is_(False),
        )
        .group_by(tasks.c.batch_id, tasks.c.item_id)
        .having(sa.func.count(decisions.c.person_id.distinct()) > 1)
        .subquery()
    )
    agreed = sa.func.sum(sa.case((by_item.c.opinions == 1, 1), else_=0))
    query = sa.select(by_item.c.batch_id, sa.func.count(), agreed).group_by(by_item.c.batch_id)
    return {batch_id: (int(both), int(same)) for batch_id, both, same in tx.execute(query)}


def _progress(states: Mapping[str, tuple[int, ...]], doubly: int, agreed: int) -> Progress:
    def tasks_in(*names: str) -> int:
        return sum(states[name][0] for name in names if name in states)

    _, given, kept, suggested, followed, none = states.get("decided", (0,) * 6)
    return Progress(
        tasks=tasks_in(*states),
        waiting=tasks_in("open", "second"),
        disputes=tasks_in("dispute"),
        decided=tasks_in("decided"),
        closed=tasks_in("closed"),
        given=given,
        kept=kept,
        suggested=suggested,
        followed=followed,
        none=none,
        doubly=doubly,
        agreed=agreed,
    )
