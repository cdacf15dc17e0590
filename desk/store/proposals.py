"""The trainer's advice and proposals, and the owners' decisions on proposals."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.items import insert_ignore
from desk.store.tables import advice, advice_messages, items, people, proposals, texts


@dataclass(frozen=True, slots=True)
class StoredAdvice:
    """Advice that was loaded. ``body`` is the file's JSON without its messages."""

    id: int
    body: Mapping[str, Any]
    loaded_ms: int


@dataclass(frozen=True, slots=True)
class Shown:
    """A message that a finding rests on. ``label`` is the file's, ``part`` the part of the finding
    that it belongs to; ``text`` is None if the desk has it no longer."""

    message_id: str | None
    message_sha256: str | None
    label: str | None
    part: int
    text: str | None


@dataclass(frozen=True, slots=True)
class StoredProposal:
    """A proposal. ``publish`` is None until it is decided; ``by`` is a pseudonym, None for the
    command line."""

    id: int
    proposal_id: str
    body: Mapping[str, Any]
    loaded_ms: int
    publish: bool | None
    reason: str
    decided_ms: int | None
    by: str | None


def add_advice(
    tx: Tx,
    digest: str,
    body: Mapping[str, Any],
    messages: Sequence[Sequence[Shown]],
    *,
    person_id: int | None,
    now_ms: int,
) -> tuple[int, bool]:
    """Store advice, once by its digest, with the messages of each finding. Return its id, and
    whether it is new."""
    new = tx.execute(
        insert_ignore(tx, advice)
        .values(digest=digest, body=dict(body), loaded_ms=now_ms, person_id=person_id)
        .returning(advice.c.id)
    ).scalar_one_or_none()
    if new is None:
        there = sa.select(advice.c.id).where(advice.c.digest == digest)
        return int(tx.execute(there).scalar_one()), False
    rows = [
        {"advice_id": new, "finding": finding, "place": place, **asdict(each)}
        for finding, some in enumerate(messages)
        for place, each in enumerate(some)
    ]
    if rows:
        tx.execute(advice_messages.insert(), rows)
    return int(new), True


def newest_advice(tx: Tx) -> list[StoredAdvice]:
    """Return the newest 20 pieces of advice, the newest first."""
    query = sa.select(advice.c.id, advice.c.body, advice.c.loaded_ms)
    return [StoredAdvice(*row) for row in tx.execute(query.order_by(advice.c.id.desc()).limit(20))]


def get_advice(tx: Tx, advice_id: int) -> StoredAdvice | None:
    """Return advice by its id."""
    query = sa.select(advice.c.id, advice.c.body, advice.c.loaded_ms)
    row = tx.execute(query.where(advice.c.id == advice_id)).first()
    return None if row is None else StoredAdvice(*row)


def messages(tx: Tx, advice_id: int, finding: int) -> list[Shown]:
    """Return the messages of a finding, with the text that its file had or that an item has."""
    query = (
        sa.select(*(advice_messages.c[field.name] for field in fields(Shown)))
        .where(advice_messages.c.advice_id == advice_id, advice_messages.c.finding == finding)
        .order_by(advice_messages.c.part, advice_messages.c.place)
    )
    found = [Shown(**row._mapping) for row in tx.execute(query)]
    here = _texts_of(tx, {each.message_id for each in found if each.text is None})
    return [
        each
        if each.text is not None
        else replace(each, text=here.get((each.message_id, each.message_sha256)))
        for each in found
    ]


def _texts_of(
    tx: Tx, message_ids: Collection[str | None]
) -> Mapping[tuple[str | None, str | None], str]:
    query = (
        sa.select(items.c.message_id, items.c.message_sha256, texts.c.text)
        .join(texts, texts.c.item_id == items.c.id)
        .where(items.c.message_id.in_(list(message_ids)))
    )
    return {(row[0], row[1]): row[2] for row in tx.execute(query)}


_QUERY = sa.select(
    proposals.c.id,
    proposals.c.proposal_id,
    proposals.c.body,
    proposals.c.loaded_ms,
    proposals.c.publish,
    proposals.c.reason,
    proposals.c.decided_ms,
    people.c.pseudonym.label("by"),
).outerjoin(people, people.c.id == proposals.c.decided_by)


def add_proposal(
    tx: Tx, proposal_id: str, body: Mapping[str, Any], *, person_id: int | None, now_ms: int
) -> bool:
    """Store a proposal, once by its id; return whether it is new."""
    done = tx.execute(
        insert_ignore(tx, proposals)
        .values(
            proposal_id=proposal_id,
            body=dict(body),
            loaded_ms=now_ms,
            person_id=person_id,
            reason="",
        )
        .returning(proposals.c.id)
    )
    return done.first() is not None


def all_proposals(tx: Tx) -> list[StoredProposal]:
    """Return all proposals, newest first."""
    return [
        StoredProposal(**row._mapping) for row in tx.execute(_QUERY.order_by(proposals.c.id.desc()))
    ]


def find_proposal(tx: Tx, proposal_id: str) -> StoredProposal | None:
    """Return a proposal by the trainer's id."""
    row = tx.execute(_QUERY.where(proposals.c.proposal_id == proposal_id)).first()
    return None if row is None else StoredProposal(**row._mapping)


def decide_proposal(
    tx: Tx, proposal_id: str, *, publish: bool, reason: str, person_id: int | None, now_ms: int
) -> bool:
    """Store a decision; return whether it is the first one. Only that counts."""
    done = tx.execute(
        proposals.update()
        .where(proposals.c.proposal_id == proposal_id, proposals.c.decided_ms.is_(None))
        .values(publish=publish, reason=reason, decided_by=person_id, decided_ms=now_ms)
    )
    return bool(done.rowcount)
