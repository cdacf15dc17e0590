"""Accounts, their roles and their sessions. ``desk.auth`` checks how they prove who they are."""

from __future__ import annotations

import hashlib
import secrets
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from desk.errors import NotAllowed, Refused
from desk.service.context import Desk, require, require_unless_operator
from desk.store import claims, people
from desk.store.database import Tx
from desk.store.decisions import Work, work_since
from desk.store.people import LogQuery
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


def everybody(desk: Desk, by: Person | None) -> list[Person]:
    """Return all people. ``by`` is None for the command line. Raises NotAllowed."""
    require_unless_operator(by, "owner")
    with desk.database.read() as tx:
        return people.everybody(tx)


def change(
    desk: Desk,
    by: Person,
    person_id: int,
    *,
    role: Role | None = None,
    active: bool | None = None,
    assigned: str | None = None,
) -> Person:
    """Give a person another role or queue, or close or open their account. Raises NotAllowed, and
    Refused for one's own role and account, so that an owner is left."""
    require(by, "owner")
    if by.id == person_id and assigned is None:
        raise Refused("you cannot change your own account: ask another owner")
    with desk.database.write() as tx:
        changed = people.change(tx, person_id, role=role, active=active, assigned=assigned)
        if not changed.active:
            claims.release_all(tx, person_id)
            people.end_sessions_of(tx, person_id)  # or opening the account would revive them
        detail = {"person": changed.pseudonym, "role": changed.role, "active": changed.active}
        detail |= {"assigned": changed.assigned}
        people.log(tx, desk.clock(), by.id, "person.changed", detail=detail)
    return changed


def work(desk: Desk, by: Person, days: int) -> Mapping[int, Work]:
    """Return pace and agreement of the last ``days`` days by person id. Raises NotAllowed."""
    require(by, "owner")
    with desk.database.read() as tx:
        return work_since(tx, desk.clock() - days * 86_400_000)


@dataclass(frozen=True, slots=True)
class LogPage:
    """Entries of the log, the newest first, and the people and actions to choose by."""

    entries: Sequence[Mapping[str, Any]]
    people: Sequence[Person]
    actions: Sequence[str]


_EVERYTHING = LogQuery()


def audit_log(desk: Desk, by: Person, wanted: LogQuery = _EVERYTHING) -> LogPage:
    """Return the newest 100 entries of the log of who saw and did what. Raises NotAllowed."""
    require(by, "owner")
    with desk.database.read() as tx:
        return LogPage(
            people.log_entries(tx, wanted), people.everybody(tx), people.logged_actions(tx)
        )


_TOUCH_MS = 60_000


def begin_session(desk: Desk, person: Person, *, longest_ms: int, idle_ms: int) -> str:
    """Begin a session and return its token, which the browser alone keeps; old ones are ended."""
    token = secrets.token_urlsafe(32)
    now_ms = desk.clock()
    with desk.database.write() as tx:
        # Here, so that no background task is needed for it.
        people.end_old_sessions(tx, now_ms - longest_ms, now_ms - idle_ms)
        people.begin_session(tx, _digest(token), person.id, now_ms)
    return token


def whose(desk: Desk, token: str, *, longest_ms: int, idle_ms: int) -> Person | None:
    """Return the person as they are now; None where the session has ended, or their account has
    been closed. A session is written to once a minute at most."""
    now_ms = desk.clock()
    digest = _digest(token)
    with desk.database.read() as tx:
        found = people.find_session(tx, digest)
        if found is None:
            return None
        person_id, created_ms, seen_ms = found
        person = people.get(tx, person_id)
    over = now_ms - created_ms >= longest_ms or now_ms - seen_ms >= idle_ms
    if over or not person.active:
        return None
    # With a short idle time, one touch a minute could let a session end that is in use.
    if now_ms - seen_ms >= min(_TOUCH_MS, idle_ms // 2):
        with desk.database.write() as tx:
            people.touch_session(tx, digest, now_ms)
    return person


def end_session(desk: Desk, token: str) -> None:
    """End a session."""
    with desk.database.write() as tx:
        people.end_session(tx, _digest(token))


def password_hash(desk: Desk, subject: str) -> str | None:
    """Return the hash of a local user's password, None where there is none."""
    with desk.database.read() as tx:
        return people.password_of(tx, subject)


def note_failure(
    desk: Desk, method: str, *, name: str = "", address: str = "", reason: str = ""
) -> None:
    """Log a failed sign-in. ``name`` must be that of an account: users type passwords into the
    name field. ``reason`` is one word."""
    detail = {"method": method, "name": name, "address": address}
    if reason:
        detail["reason"] = reason
    with desk.database.write() as tx:
        people.log(tx, desk.clock(), None, "sign_in.failed", detail=detail)


MAX_NAME_CHARS = 200


def add_local(
    desk: Desk, subject: str, name: str, role: Role, hashed: str, *, by: Person | None = None
) -> Person:
    """Add a user with a password. ``by`` is the owner who does it, None for the command line.

    Raises Refused for a name that is taken, looks like one that is, or cannot be typed at sign-in;
    NotAllowed.
    """
    require_unless_operator(by, "owner")
    # Sign-in strips the name that is typed.
    if not 0 < len(subject) <= MAX_NAME_CHARS or subject != subject.strip():
        raise Refused(f"a user name has 1 to {MAX_NAME_CHARS} characters, and no blanks around it")
    if not subject.isprintable():
        raise Refused("a user name has no invisible characters")
    now_ms = desk.clock()
    with desk.database.write() as tx:
        if people.find(tx, subject) is not None:
            raise Refused(f"there is a user {subject} already: reset the password instead")
        for other in people.everybody(tx):
            if _look_of(other.subject) == _look_of(subject):
                raise Refused(f"there is a user {other.subject}, which looks the same")
        person = people.add(tx, subject, name, role, now_ms)
        people.set_password(tx, person.id, hashed, now_ms)
        actor = by.id if by is not None else None
        people.log(tx, now_ms, actor, "person.added", detail={"person": person.pseudonym})
    return person


def give_password(desk: Desk, subject: str, hashed: str, *, by: Person | None = None) -> None:
    """Give a user another password, and sign them out everywhere. ``by`` is the owner or the user
    who does it, None for the command line. Raises Refused, NotAllowed."""
    if by is not None and by.subject != subject:
        require(by, "owner")
    now_ms = desk.clock()
    with desk.database.write() as tx:
        person = _named(tx, subject)
        people.set_password(tx, person.id, hashed, now_ms)
        # A person who knew the old password may still be signed in by it.
        people.end_sessions_of(tx, person.id)
        actor = by.id if by is not None else None
        people.log(tx, now_ms, actor, "password.changed", detail={"person": person.pseudonym})


def give_role(desk: Desk, subject: str, role: Role) -> None:
    """Give a person another role, as anyone who runs the desk. Raises Refused."""
    with desk.database.write() as tx:
        person = _named(tx, subject)
        people.change(tx, person.id, role=role)
        detail = {"person": person.pseudonym, "role": role}
        people.log(tx, desk.clock(), None, "person.changed", detail=detail)


def _named(tx: Tx, subject: str) -> Person:
    person = people.find(tx, subject)
    if person is None:
        raise Refused(f"there is no user {subject}: clerk-desk people list shows all")
    return person


def _look_of(subject: str) -> str:
    """Return what names have in common that a reader takes for one: case, and the several forms
    that Unicode has of a letter."""
    return unicodedata.normalize("NFKC", subject).casefold()


def _digest(token: str) -> str:
    # Only the digest is stored, so a copy of the database gives nobody a session.
    return hashlib.sha256(token.encode()).hexdigest()
