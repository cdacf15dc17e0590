"""What every function of the service is given: the database, the project, how people work."""

from __future__ import annotations

from dataclasses import dataclass

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
    """How people work. Times in milliseconds; ``masked_roles`` see no personal data in texts. The
    shares are of tasks that two people decide, the second of those that are decided blind."""

    claim_ms: int = 900_000
    publish_delay_ms: int = 5_000
    masked_roles: frozenset[Role] = frozenset()
    double_share: float = 0.0
    audit_double_share: float = 0.0


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
    """Open the desk on a database whose schema is up to date; its project is made where there is
    none. Raises DatabaseAway, DatabaseRefused; SettingsError where decisions were made by another
    taxonomy than this one."""
    check_version(database)
    with database.read() as tx:
        project = projects.find(tx)
    if project is None:
        with database.write() as tx:
            project = projects.find(tx) or projects.create(tx, taxonomy, clock())
    if project.taxonomy_digest != taxonomy.digest:
        raise SettingsError(
            f"project.taxonomy is {taxonomy.name} {taxonomy.version} ({taxonomy.digest[:12]}) and "
            f"the database's is {project.taxonomy_digest[:12]}: run `clerk-desk taxonomy` to carry "
            "the decisions over, or name the old file"
        )
    return Desk(database, project, taxonomy, policy, clock)


def may(person: Person, role: Role) -> bool:
    """Tell whether a person has this role or a higher one, and may work here at all."""
    return person.active and _RANK[person.role] >= _RANK[role]


def require(person: Person, role: Role) -> None:
    """Raise NotAllowed unless a person has this role or a higher one, and may work here at all."""
    if not person.active:
        raise NotAllowed("this account has been closed")
    if _RANK[person.role] < _RANK[role]:
        raise NotAllowed(f"this needs the role {role}; yours is {person.role}")
