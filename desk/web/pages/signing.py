"""Signing in, and signing out."""

from __future__ import annotations

import math

from starlette.responses import Response

from desk.auth.passwords import is_password
from desk.errors import NotAllowed
from desk.service import people, signing_in
from desk.web.identity import begin_session, drop_cookie, role_on_arrival
from desk.web.provider_visit import go_to_provider, leave_provider
from desk.web.strings import t
from desk.web.visit import Page, Visit, inside, redirect


def show(visit: Visit) -> Response:
    """The form, or the provider; where there is neither, the first page."""
    next_path = inside(visit.query.get("next"))
    if visit.web.provider is not None:
        return go_to_provider(visit, visit.web.provider, next_path)
    if visit.web.options.method != "local":
        return redirect("/")
    return visit.page("sign_in.html", name="", problem="", next=next_path)


def act(visit: Visit) -> Response:
    """Let them in, or say that it was not right, never what of it."""
    if visit.web.options.method != "local":
        return redirect("/")
    name, password = visit.form.get("name", "").strip()[:200], visit.form.get("password", "")
    desk, attempts = visit.desk, visit.web.attempts
    wait_s = attempts.begin(name)
    if wait_s:
        return _again(visit, name, t("sign_in.wait", seconds=math.ceil(wait_s)), 429)
    right = False
    try:
        right = is_password(signing_in.password_hash(desk, name), password)
    finally:
        attempts.end(name, right=right)
    if not right:
        signing_in.note_failure(desk, "local")
        return _again(visit, name, t("sign_in.wrong"), 401)
    try:
        person = people.arrive(desk, name, name, role=role_on_arrival(visit.web, name))
    except NotAllowed:
        return _again(visit, name, t("sign_in.wrong"), 401)
    response = redirect(inside(visit.form.get("next")) or "/")
    begin_session(visit, response, person)
    return response


def leave(visit: Visit) -> Response:
    """End the session, and give back what the person holds."""
    options = visit.web.options
    people.leave(visit.desk, visit.who)
    signing_in.end(visit.desk, visit.cookies.get(options.session_cookie, ""))
    if visit.web.provider is not None:
        response = leave_provider(visit, visit.web.provider)
    elif options.method == "local":
        response = redirect("/sign-in")
    else:
        response = visit.page("left.html", onward="")
    drop_cookie(visit.web, response, options.session_cookie)
    return response


def _again(visit: Visit, name: str, problem: str, status: int) -> Response:
    next_path = inside(visit.form.get("next"))
    return visit.page("sign_in.html", status, name=name, problem=problem, next=next_path)


PAGES = (
    Page("/sign-in", show, None),
    Page("/sign-in", act, None, "POST"),
    Page("/sign-out", leave, "reviewer", "POST"),
)
