"""People and their roles, and the log of who saw and did what: for owners."""

from __future__ import annotations

from starlette.responses import Response

from desk.errors import Refused
from desk.service import people
from desk.store.types import Role
from desk.web.strings import t
from desk.web.visit import Page, Visit, number, redirect

ROLES: tuple[Role, ...] = ("reviewer", "adjudicator", "owner")


def show(visit: Visit) -> Response:
    """Everybody."""
    return visit.page("people.html", everybody=people.everybody(visit.desk, visit.who), roles=ROLES)


def act(visit: Visit) -> Response:
    """Change a role, close an account or open it again."""
    person_id = visit.number("person")
    known = {person.id for person in people.everybody(visit.desk, visit.who)}
    action = visit.form.get("action", "")
    role = next((each for each in ROLES if each == visit.form.get("role")), None)
    if person_id not in known or (action == "role" and role is None):
        raise Refused(t("error.action"))
    if action == "role":
        if visit.web.roles_elsewhere:
            raise Refused(t("people.elsewhere"))
        people.change(visit.desk, visit.who, person_id, role=role)
    elif action in {"close", "open"}:
        people.change(visit.desk, visit.who, person_id, active=action == "open")
    else:
        raise Refused(t("error.action"))
    return redirect("/people")


def log(visit: Visit) -> Response:
    """Who saw and did what, newest first."""
    before = number(visit.query.get("before", ""))
    entries = people.audit_log(visit.desk, visit.who, before_id=before if before >= 0 else None)
    return visit.page("log.html", entries=entries)


PAGES = (
    Page("/people", show, "owner", link="nav.people", order=80),
    Page("/people", act, "owner", "POST"),
    Page("/log", log, "owner", link="nav.log", order=90),
)
