"""People, their roles, and the log of what they saw and did."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.rows import read
from desk.store.tables import audit_log, people
from desk.store.types import Person, Role

_COLUMNS = tuple(people.c[field.name] for field in fields(Person))
_GET = sa.select(*_COLUMNS).where(people.c.id == sa.bindparam("person_id"))
_LOG = audit_log.insert()


def find(tx: Tx, subject: str) -> Person | None:
    """Return who signs in under this subject."""
    row = tx.execute(sa.select(*_COLUMNS).where(people.c.subject == subject)).first()
    return None if row is None else read(Person, row)


def get(tx: Tx, person_id: int) -> Person:
    """Return a person that is there."""
    return read(Person, tx.execute(_GET, {"person_id": person_id}).one())


def add(tx: Tx, subject: str, name: str, role: Role, now_ms: int) -> Person:
    """Add a person, under a pseudonym that says nothing about them."""
    new = {
        "subject": subject,
        "name": name,
        "pseudonym": f"annotator-{uuid.uuid4().hex[:8]}",
        "role": role,
        "active": True,
        "created_ms": now_ms,
    }
    id_ = tx.execute(people.insert().values(new).returning(people.c.id)).scalar_one()
    return get(tx, id_)


def change(
    tx: Tx,
    person_id: int,
    *,
    name: str | None = None,
    role: Role | None = None,
    active: bool | None = None,
) -> Person:
    """Change what is given of a person."""
    given = {"name": name, "role": role, "active": active}
    values = {key: value for key, value in given.items() if value is not None}
    if values:
        tx.execute(people.update().where(people.c.id == person_id).values(values))
    return get(tx, person_id)


def everybody(tx: Tx) -> list[Person]:
    """Return all people, by name."""
    rows = tx.execute(sa.select(*_COLUMNS).order_by(people.c.name, people.c.id))
    return [read(Person, row) for row in rows]


def log(
    tx: Tx,
    now_ms: int,
    person_id: int | None,
    action: str,
    *,
    item_id: int | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write what somebody saw or did. ``detail`` holds no message text; None is the desk itself."""
    line = {"at_ms": now_ms, "person_id": person_id, "action": action, "item_id": item_id}
    tx.execute(_LOG, {**line, "detail": dict(detail or {})})


def log_entries(tx: Tx, *, before_id: int | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Return the newest entries of the log, or those before one: id, at_ms, pseudonym, action,
    item_id, detail."""
    query = (
        sa.select(
            audit_log.c.id,
            audit_log.c.at_ms,
            people.c.pseudonym,
            audit_log.c.action,
            audit_log.c.item_id,
            audit_log.c.detail,
        )
        .outerjoin(people, people.c.id == audit_log.c.person_id)
        .order_by(audit_log.c.id.desc())
        .limit(limit)
    )
    if before_id is not None:
        query = query.where(audit_log.c.id < before_id)
    return [dict(row._mapping) for row in tx.execute(query)]
