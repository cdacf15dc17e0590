"""Who works here. How they prove who they are is the pages' business."""

from __future__ import annotations

from typing import Any

from desk.errors import NotAllowed, Refused
from desk.service.context import Desk, require
from desk.store import claims, people
from desk.store.types import Person, Role


def arrive(
    desk: Desk, subject: str, name: str, *, role: Role = "reviewer", role_now: Role | None = None
) -> Person:
    """Return the person who signs in under a subject; somebody new is added, with ``role``.

    ``role_now`` is the role of anybody, new or not, where roles are given elsewhere. Raises
    NotAllowed for a closed account.
    """
    role = role_now or role
    with desk.database.write() as tx:
        found = people.find(tx, subject)
        if found is None:
            found = people.add(tx, subject, name, role, desk.clock())
            people.log(tx, desk.clock(), found.id, "person.added", detail={"role": role})
        elif found.name != name:
            found = people.change(tx, found.id, name=name)
        if found.active and role_now is not None and found.role != role_now:
            found = people.change(tx, found.id, role=role_now)
            detail = {"person": found.pseudonym, "role": role_now}
            people.log(tx, desk.clock(), None, "person.changed", detail=detail)
        if found.active:
            people.log(tx, desk.clock(), found.id, "person.arrived")
    if not found.active:
        raise NotAllowed("this account has been closed")
    return found


def leave(desk: Desk, person: Person) -> None:
    """Give back what the person holds."""
    with desk.database.write() as tx:
        claims.release_all(tx, person.id)
        people.log(tx, desk.clock(), person.id, "person.left")


def find(desk: Desk, person_id: int) -> Person:
    """Return a person as they are now: roles change."""
    with desk.database.read() as tx:
        return people.get(tx, person_id)


def everybody(desk: Desk, by: Person) -> list[Person]:
    """Return all people. Raises NotAllowed."""
    require(by, "owner")
    with desk.database.read() as tx:
        return people.everybody(tx)


def change(
    desk: Desk,
    by: Person,
    person_id: int,
    *,
    role: Role | None = None,
    active: bool | None = None,
) -> Person:
    """Give a person another role, or close or open their account. Raises NotAllowed, and Refused
    for one's own account, so that an owner is left."""
    require(by, "owner")
    if by.id == person_id:
        raise Refused("nobody changes their own account: ask another owner")
    with desk.database.write() as tx:
        changed = people.change(tx, person_id, role=role, active=active)
        if not changed.active:
            claims.release_all(tx, person_id)
        detail = {"person": changed.pseudonym, "role": changed.role, "active": changed.active}
        people.log(tx, desk.clock(), by.id, "person.changed", detail=detail)
    return changed


def audit_log(desk: Desk, by: Person, *, before_id: int | None = None) -> list[dict[str, Any]]:
    """Return the newest 100 entries of the log of who saw and did what, or those before one:
    id, at_ms, pseudonym, action, item_id, detail. Raises NotAllowed."""
    require(by, "owner")
    with desk.database.read() as tx:
        return people.log_entries(tx, before_id=before_id)
