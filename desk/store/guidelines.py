"""Guidelines: each saving is a version, and none is changed."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import guidelines, people


@dataclass(frozen=True, slots=True)
class Guideline:
    """One version. ``body`` is Markdown, ``note`` says what was changed."""

    version: int
    body: str
    note: str
    by: str
    saved_ms: int


_NEWEST_FIRST = (
    sa.select(
        guidelines.c.version,
        guidelines.c.body,
        guidelines.c.note,
        people.c.pseudonym.label("by"),
        guidelines.c.saved_ms,
    )
    .join(people, people.c.id == guidelines.c.person_id)
    .order_by(guidelines.c.version.desc())
)
_NEWEST = _NEWEST_FIRST.limit(1)


def current(tx: Tx) -> Guideline | None:
    """Return the newest version, None where there is none."""
    row = tx.execute(_NEWEST).first()
    return None if row is None else Guideline(**row._mapping)


def versions(tx: Tx) -> list[Guideline]:
    """Return all versions, newest first."""
    return [Guideline(**row._mapping) for row in tx.execute(_NEWEST_FIRST)]


def save(tx: Tx, body: str, note: str, person_id: int, now_ms: int) -> Guideline:
    """Keep a new version."""
    tx.execute(
        guidelines.insert().values(body=body, note=note, person_id=person_id, saved_ms=now_ms)
    )
    saved = current(tx)
    assert saved is not None
    return saved
