"""Files that wait to be loaded, and how far each is."""

from __future__ import annotations

from dataclasses import dataclass, fields

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import uploads


@dataclass(frozen=True, slots=True)
class Waiting:
    """An upload: ``loaded`` of its ``tasks`` are in batches. ``problem`` is why it was refused in
    the end."""

    id: int
    name: str
    tasks: int
    loaded: int
    person_id: int
    problem: str | None

    @property
    def ended(self) -> bool:
        """Whether nothing more will be loaded."""
        return self.problem is not None or self.loaded >= self.tasks


_QUERY = sa.select(*(uploads.c[each.name] for each in fields(Waiting)))


def put(tx: Tx, name: str, content: bytes, tasks: int, person_id: int, now_ms: int) -> None:
    """Store a file that is to be loaded."""
    given = {"name": name, "content": content, "tasks": tasks, "person_id": person_id}
    tx.execute(uploads.insert().values(**given, loaded=0, begun_ms=now_ms))


def newest(tx: Tx, most: int) -> list[Waiting]:
    """Return the newest uploads."""
    return [
        Waiting(**row._mapping)
        for row in tx.execute(_QUERY.order_by(uploads.c.id.desc()).limit(most))
    ]


def first_waiting(tx: Tx) -> Waiting | None:
    """Return the oldest upload that is not loaded yet."""
    query = _QUERY.where(uploads.c.content.is_not(None)).order_by(uploads.c.id).limit(1)
    row = tx.execute(query).first()
    return None if row is None else Waiting(**row._mapping)


def content(tx: Tx, upload_id: int) -> bytes:
    """Return the file of an upload that waits."""
    query = sa.select(uploads.c.content).where(uploads.c.id == upload_id)
    return bytes(tx.execute(query).scalar_one())


def advance(tx: Tx, upload: Waiting, loaded: int) -> None:
    """Note that so many tasks are loaded; forget the file if these are all."""
    done = {"content": None} if loaded >= upload.tasks else {}
    tx.execute(uploads.update().where(uploads.c.id == upload.id).values(loaded=loaded, **done))


def refuse(tx: Tx, upload: Waiting, problem: str) -> None:
    """Forget a file that cannot be loaded."""
    gone = uploads.update().where(uploads.c.id == upload.id)
    tx.execute(gone.values(content=None, problem=problem))


def forget_old(tx: Tx, before_ms: int) -> None:
    """Delete the uploads of before a time, finished or not."""
    tx.execute(uploads.delete().where(uploads.c.begun_ms < before_ms))
