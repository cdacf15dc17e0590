"""People, their roles, sessions and passwords, and the log of what they saw and did."""

from __future__ import annotations

import operator
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import audit_log, passwords, people, sessions
from desk.store.types import Person, Role, read_row

_COLUMNS = tuple(people.c[field.name] for field in fields(Person))

_GET = sa.select(*_COLUMNS).where(people.c.id == sa.bindparam("person_id"))

_LOG = audit_log.insert()


def find(tx: Tx, subject: str) -> Person | None:
    """Return the person with this subject."""
    row = tx.execute(sa.select(*_COLUMNS).where(people.c.subject == subject)).first()
    return None if row is None else read_row(Person, row)


def get(tx: Tx, person_id: int) -> Person:
    """Return a person by id."""
    return read_row(Person, tx.execute(_GET, {"person_id": person_id}).one())


def add(tx: Tx, subject: str, name: str, role: Role, now_ms: int) -> Person:
    """Add a person, with a random pseudonym."""
    new = {
        "subject": subject,
        "name": name,
        "pseudonym": f"annotator-{uuid.uuid4().hex[:8]}",
        "role": role,
        "active": True,
        "assigned": "",
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
    assigned: str | None = None,
) -> Person:
    """Change the given fields of a person."""
    given = {"name": name, "role": role, "active": active, "assigned": assigned}
    values = {key: value for key, value in given.items() if value is not None}
    if values:
        tx.execute(people.update().where(people.c.id == person_id).values(values))
    return get(tx, person_id)


def everybody(tx: Tx) -> list[Person]:
    """Return all people, by name."""
    rows = tx.execute(sa.select(*_COLUMNS).order_by(people.c.name, people.c.id))
    return [read_row(Person, row) for row in rows]


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


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which entries of the log are wanted; None restricts nothing. Times in Unix ms, ``until_ms``
    excluded; ``before_id``: only entries before this one."""

    person_id: int | None = None
    action: str | None = None
    item_id: int | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    before_id: int | None = None


def log_entries(tx: Tx, wanted: LogQuery) -> list[dict[str, Any]]:
    """Return the newest 100 entries that are wanted: id, at_ms, name, pseudonym, action, item_id,
    detail."""
    log = audit_log.c
    columns = (log.id, log.at_ms, log.action, log.item_id, log.detail)
    query = (
        sa.select(*columns, people.c.name, people.c.pseudonym)
        .outerjoin(people, people.c.id == log.person_id)
        .order_by(log.id.desc())
        .limit(100)
    )
    for column, compare, value in (
        (log.person_id, operator.eq, wanted.person_id),
        (log.action, operator.eq, wanted.action),
        (log.item_id, operator.eq, wanted.item_id),
        (log.at_ms, operator.ge, wanted.since_ms),
        (log.at_ms, operator.lt, wanted.until_ms),
        (log.id, operator.lt, wanted.before_id),
    ):
        if value is not None:
            query = query.where(compare(column, value))
    return [dict(row._mapping) for row in tx.execute(query)]


def logged_actions(tx: Tx) -> list[str]:
    """Return the actions that the log names, sorted."""
    return sorted(tx.execute(sa.select(audit_log.c.action).distinct()).scalars())


def forget_log(tx: Tx, before_ms: int, limit: int) -> int:
    """Delete the entries of the log of before a time, ``limit`` at most; return how many."""
    old = sa.select(audit_log.c.id).where(audit_log.c.at_ms < before_ms).limit(limit)
    return int(tx.execute(audit_log.delete().where(audit_log.c.id.in_(old))).rowcount)


def begin_session(tx: Tx, token_sha256: str, person_id: int, now_ms: int) -> None:
    """Begin a session."""
    row = {"token_sha256": token_sha256, "person_id": person_id}
    tx.execute(sessions.insert().values(**row, created_ms=now_ms, seen_ms=now_ms))


_FIND = sa.select(sessions.c.person_id, sessions.c.created_ms, sessions.c.seen_ms).where(
    sessions.c.token_sha256 == sa.bindparam("token_sha256")
)


def find_session(tx: Tx, token_sha256: str) -> tuple[int, int, int] | None:
    """Return a session's person, when it began, and when it was last used (Unix, ms); None where
    there is none."""
    row = tx.execute(_FIND, {"token_sha256": token_sha256}).first()
    return None if row is None else tuple(row)


def touch_session(tx: Tx, token_sha256: str, now_ms: int) -> None:
    """Note that a session is used."""
    tx.execute(
        sessions.update().where(sessions.c.token_sha256 == token_sha256).values(seen_ms=now_ms)
    )


def end_session(tx: Tx, token_sha256: str) -> None:
    """End a session."""
    tx.execute(sessions.delete().where(sessions.c.token_sha256 == token_sha256))


def end_sessions_of(tx: Tx, person_id: int) -> None:
    """End all sessions of a person."""
    tx.execute(sessions.delete().where(sessions.c.person_id == person_id))


def end_old_sessions(tx: Tx, created_before_ms: int, seen_before_ms: int) -> None:
    """End sessions that began, or were used last, before these times."""
    tx.execute(
        sessions.delete().where(
            sa.or_(sessions.c.created_ms < created_before_ms, sessions.c.seen_ms < seen_before_ms)
        )
    )


def password_of(tx: Tx, subject: str) -> str | None:
    """Return the hash of a local user's password."""
    query = sa.select(passwords.c.hash).join(people, people.c.id == passwords.c.person_id)
    found: str | None = tx.execute(query.where(people.c.subject == subject)).scalar_one_or_none()
    return found


def set_password(tx: Tx, person_id: int, hashed: str, now_ms: int) -> None:
    """Keep the hash of a local user's password."""
    tx.execute(passwords.delete().where(passwords.c.person_id == person_id))
    tx.execute(passwords.insert().values(person_id=person_id, hash=hashed, changed_ms=now_ms))
