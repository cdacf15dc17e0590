"""What the trainer proposes to publish, and what an owner decided of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.items import insert_ignore
from desk.store.tables import people, proposals


@dataclass(frozen=True, slots=True)
class StoredProposal:
    """A proposal. ``publish`` is None until it is decided; ``by`` is a pseudonym, None where the
    command line decided."""

    id: int
    proposal_id: str
    body: Mapping[str, Any]
    loaded_ms: int
    publish: bool | None
    reason: str
    decided_ms: int | None
    by: str | None


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


def add(
    tx: Tx, proposal_id: str, body: Mapping[str, Any], *, person_id: int | None, now_ms: int
) -> bool:
    """Keep a proposal, once by its id; tell whether it is new."""
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


def everything(tx: Tx) -> list[StoredProposal]:
    """Return all proposals, newest first."""
    return [
        StoredProposal(**row._mapping) for row in tx.execute(_QUERY.order_by(proposals.c.id.desc()))
    ]


def find(tx: Tx, proposal_id: str) -> StoredProposal | None:
    """Return a proposal by the trainer's id of it."""
    row = tx.execute(_QUERY.where(proposals.c.proposal_id == proposal_id)).first()
    return None if row is None else StoredProposal(**row._mapping)


def decide(
    tx: Tx, proposal_id: str, *, publish: bool, reason: str, person_id: int | None, now_ms: int
) -> bool:
    """Keep what was decided; tell whether it is the first decision, the only one that counts."""
    done = tx.execute(
        proposals.update()
        .where(proposals.c.proposal_id == proposal_id, proposals.c.decided_ms.is_(None))
        .values(publish=publish, reason=reason, decided_by=person_id, decided_ms=now_ms)
    )
    return bool(done.rowcount)
