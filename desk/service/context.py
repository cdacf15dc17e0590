"""The desk that every function of the service works on, its policy, and roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from desk.clock import Clock, now_ms
from desk.errors import NotAllowed, SettingsError
from desk.store import projects
from desk.store.database import Database
from desk.store.migrate import check_version
from desk.store.types import Person, Project, Role
from worker.contract.taxonomy import Taxonomy

_RANK: dict[Role, int] = {"reviewer": 0, "adjudicator": 1, "owner": 2}


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules of work. Times in milliseconds. ``masked_roles`` see personal data masked. Two
    reviewers decide a ``double_share`` of tasks, and an ``audit_double_share`` of blind ones.
    ``keys`` are labels' own, by name; ``goal`` is for a person and day, 0 for none."""

    claim_ms: int = 900_000
    publish_delay_ms: int = 5_000
    masked_roles: frozenset[Role] = frozenset()
    double_share: float = 0.0
    audit_double_share: float = 0.0
    keys: Mapping[str, str] = field(default_factory=dict)
    goal: int = 0


@dataclass(frozen=True, slots=True)
class Desk:
    """An open desk. Safe from any thread."""

    database: Database
    project: Project
    taxonomy: Taxonomy
    policy: Policy
    clock: Clock


def open_desk(
    database: Database, *, taxonomy: Taxonomy, policy: Policy, clock: Clock = now_ms
) -> Desk:
    """Open the desk on a database with the newest schema; create its project if there is none.

    Raises DatabaseUnavailable, DatabaseRefused; SettingsError if the database's taxonomy is another
    one.
    """
    check_version(database)
    with database.read() as tx:
        project = projects.find(tx)
    if project is None:
        with database.write() as tx:
            # Looked for again: another process may have created it in between.
            project = projects.find(tx) or projects.create(tx, taxonomy, clock())
    if project.taxonomy_digest != taxonomy.digest:
        raise SettingsError(
            f"project.taxonomy is {taxonomy.name} {taxonomy.version} ({taxonomy.digest[:12]}) and "
            f"the database's is {project.taxonomy_digest[:12]}: run `clerk-desk taxonomy` to carry "
            "the decisions over, or name the old file"
        )
    return Desk(database, project, taxonomy, policy, clock)


def may(person: Person, role: Role) -> bool:
    """Whether a person has this role or a higher one, and an open account."""
    return person.active and _RANK[person.role] >= _RANK[role]


def require_unless_operator(person: Person | None, role: Role) -> None:
    """Do what ``require`` does, unless the command line asks (None). A name of its own: a page that
    has nobody signed in must never pass for the operator."""
    if person is not None:
        require(person, role)


def require(person: Person, role: Role) -> None:
    """Raise NotAllowed unless a person has this role or a higher one, and an open account."""
    if not person.active:
        raise NotAllowed("this account has been closed")
    if _RANK[person.role] < _RANK[role]:
        raise NotAllowed(f"this needs the role {role}; yours is {person.role}")
