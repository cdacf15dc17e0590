"""The project of a database: its taxonomies, and the versions of its guidelines."""

from __future__ import annotations

import uuid
from dataclasses import dataclass

import sqlalchemy as sa

from desk.store.database import Tx
from desk.store.tables import guidelines, people, projects, taxonomies
from desk.store.types import Project, read_row
from worker.contract.taxonomy import Taxonomy

_COLUMNS = (projects.c.id, projects.c.installation, projects.c.taxonomy_digest)


@dataclass(frozen=True, slots=True)
class Guideline:
    """One version. ``body`` is Markdown, ``note`` says what was changed."""

    version: int
    body: str
    note: str
    by: str
    saved_ms: int


def find(tx: Tx) -> Project | None:
    """Return the project, None where there is none yet."""
    row = tx.execute(sa.select(*_COLUMNS).order_by(projects.c.id).limit(1)).first()
    return None if row is None else read_row(Project, row)


def create(tx: Tx, taxonomy: Taxonomy, now_ms: int) -> Project:
    """Create the project of this database, with a random installation name."""
    remember_taxonomy(tx, taxonomy, now_ms)
    tx.execute(
        projects.insert().values(
            installation=uuid.uuid4().hex[:12],
            taxonomy_digest=taxonomy.digest,
            created_ms=now_ms,
        )
    )
    found = find(tx)
    assert found is not None
    return found


def remember_taxonomy(tx: Tx, taxonomy: Taxonomy, now_ms: int) -> None:
    """Store a taxonomy by its digest, if it is new."""
    known = sa.select(taxonomies.c.digest).where(taxonomies.c.digest == taxonomy.digest)
    if tx.execute(known).first() is None:
        tx.execute(
            taxonomies.insert().values(
                digest=taxonomy.digest, body=taxonomy.to_dict(), since_ms=now_ms
            )
        )


def use_taxonomy(tx: Tx, project_id: int, digest: str) -> None:
    """Make a stored taxonomy the project's."""
    change = projects.update().where(projects.c.id == project_id)
    tx.execute(change.values(taxonomy_digest=digest))


def read_taxonomy(tx: Tx, digest: str) -> Taxonomy | None:
    """Return a taxonomy by its digest, None if it is unknown."""
    body = tx.execute(
        sa.select(taxonomies.c.body).where(taxonomies.c.digest == digest)
    ).scalar_one_or_none()
    return None if body is None else Taxonomy.from_dict(body)


def known_digests(tx: Tx) -> frozenset[str]:
    """Return the digests of all stored taxonomies."""
    return frozenset(tx.execute(sa.select(taxonomies.c.digest)).scalars())


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


def current_guideline(tx: Tx) -> Guideline | None:
    """Return the newest version, None where there is none."""
    row = tx.execute(_NEWEST).first()
    return None if row is None else Guideline(**row._mapping)


def guideline_versions(tx: Tx) -> list[Guideline]:
    """Return all versions, newest first."""
    return [Guideline(**row._mapping) for row in tx.execute(_NEWEST_FIRST)]


def save_guideline(tx: Tx, body: str, note: str, person_id: int, now_ms: int) -> Guideline:
    """Store a new version."""
    tx.execute(
        guidelines.insert().values(body=body, note=note, person_id=person_id, saved_ms=now_ms)
    )
    saved = current_guideline(tx)
    assert saved is not None
    return saved
