"""Users and their roles, and the log of who saw and did what: for owners."""

from __future__ import annotations

from datetime import datetime
from urllib.parse import urlencode

from starlette.responses import Response

from desk.auth.passwords import MAX_CHARS, MIN_CHARS
from desk.core.items import REASON_BITS
from desk.errors import Refused
from desk.service import people
from desk.store.people import LogQuery
from desk.store.types import Role
from desk.web.pages.review import SHARES, queue_fields, queue_of
from desk.web.pages.signing import new_hash
from desk.web.visit import UNKNOWN_ACTION, Page, Visit, number_or_none, redirect

WORK_DAYS = 28
DAY_MS = 86_400_000

ROLES: tuple[Role, ...] = ("reviewer", "adjudicator", "owner")


def show(visit: Visit) -> Response:
    """All users, with their pace and agreement."""
    return visit.page(
        "people.html",
        everybody=people.everybody(visit.desk, visit.who),
        work=people.work(visit.desk, visit.who, WORK_DAYS),
        days=WORK_DAYS,
        roles=ROLES,
        queue_of=queue_of,
        reasons=tuple(REASON_BITS),
        shares=SHARES,
        by_password=visit.web.options.method == "local",
        least=MIN_CHARS,
        most=MAX_CHARS,
    )


def act(visit: Visit) -> Response:
    """Add a user, reset a password, change a role, assign a queue, close an account or open it."""
    person_id = visit.number("person")
    known = {person.id: person for person in people.everybody(visit.desk, visit.who)}
    action = visit.form.get("action", "")
    role = next((each for each in ROLES if each == visit.form.get("role")), None)
    if (action != "add" and person_id not in known) or (action in {"role", "add"} and role is None):
        raise Refused(UNKNOWN_ACTION)
    # An unattended browser of an owner must not lock the owner out.
    if action == "password" and person_id == visit.who.id:
        raise Refused("You need your current password to change it: use Change password.")
    if action in {"add", "password"}:
        if visit.web.options.method != "local":
            raise Refused("Users of this desk have no passwords here.")
        hashed = new_hash(visit.form.get("password", ""))
        if action == "add":
            name = visit.form.get("name", "")
            assert role is not None
            people.add_local(visit.desk, name, name, role, hashed, by=visit.who)
        else:
            people.give_password(visit.desk, known[person_id].subject, hashed, by=visit.who)
    elif action == "role":
        if visit.web.roles_elsewhere:
            raise Refused("The sign-in service gives roles, which count from the next sign-in.")
        people.change(visit.desk, visit.who, person_id, role=role)
    elif action == "assign":
        people.change(
            visit.desk, visit.who, person_id, assigned=urlencode(queue_fields(visit.form))
        )
    elif action in {"close", "open"}:
        people.change(visit.desk, visit.who, person_id, active=action == "open")
    else:
        raise Refused(UNKNOWN_ACTION)
    return redirect("/people")


def log(visit: Visit) -> Response:
    """Show who saw and did what, newest first, or what the form chooses of it."""
    given = {name: visit.query.get(name, "")[:200] for name in _CHOICES}
    until_ms = _day_ms(given["until"])
    wanted = LogQuery(
        person_id=number_or_none(given["person"]),
        action=given["action"] or None,
        item_id=number_or_none(given["item"]),
        since_ms=_day_ms(given["since"]),
        until_ms=None if until_ms is None else until_ms + DAY_MS,  # that day too
        before_id=number_or_none(visit.query.get("before", "")),
    )
    page = people.audit_log(visit.desk, visit.who, wanted)
    return visit.page("log.html", page=page, given=given)


_CHOICES = ("person", "action", "item", "since", "until")


def _day_ms(day: str) -> int | None:
    """Return the beginning of a day (2026-02-14, UTC) in Unix ms; None if it is not one."""
    try:
        return int(datetime.strptime(f"{day}+0000", "%Y-%m-%d%z").timestamp() * 1000)
    except ValueError:
        return None


PAGES = (
    Page("/people", show, "owner", link="People", order=80),
    Page("/people", act, "owner", "POST"),
    Page("/log", log, "owner", link="Log", order=90),
)
