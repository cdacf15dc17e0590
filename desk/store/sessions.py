"""Who is signed in, and the passwords of local users."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import passwords, people, sessions


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who is signed in. Times in milliseconds since 1970."""

    person_id: int
    created_ms: int
    seen_ms: int


def add(tx: Tx, token_sha256: str, person_id: int, now_ms: int) -> None:
    """Begin a session."""
    row = {"token_sha256": token_sha256, "person_id": person_id}
    tx.execute(sessions.insert().values(**row, created_ms=now_ms, seen_ms=now_ms))


_FIND = sa.select(sessions.c.person_id, sessions.c.created_ms, sessions.c.seen_ms).where(
    sessions.c.token_sha256 == sa.bindparam("token_sha256")
)


def find(tx: Tx, token_sha256: str) -> Session | None:
    """Return a session, None where there is none."""
    row = tx.execute(_FIND, {"token_sha256": token_sha256}).first()
    return None if row is None else Session(*row)


def touch(tx: Tx, token_sha256: str, now_ms: int) -> None:
    """Note that a session is used."""
    tx.execute(
        sessions.update().where(sessions.c.token_sha256 == token_sha256).values(seen_ms=now_ms)
    )


def end(tx: Tx, token_sha256: str) -> None:
    """End a session."""
    tx.execute(sessions.delete().where(sessions.c.token_sha256 == token_sha256))


def end_all_of(tx: Tx, person_id: int) -> None:
    """End all sessions of a person."""
    tx.execute(sessions.delete().where(sessions.c.person_id == person_id))


def end_old(tx: Tx, created_before_ms: int, seen_before_ms: int) -> None:
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
