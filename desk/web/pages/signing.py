"""Signing in with a password, and signing out."""

from __future__ import annotations

import math

from starlette.responses import Response

from desk.auth.passwords import is_password
from desk.errors import NotAllowed
from desk.service import people, signing_in
from desk.web.identity import role_on_arrival, set_cookie
from desk.web.strings import t
from desk.web.visit import Page, Visit, redirect


def show(visit: Visit) -> Response:
    """The form; where there are no passwords, the first page."""
    if visit.web.options.method != "local":
        return redirect("/")
    return visit.page("sign_in.html", name="", problem="", next=_inside(visit.query.get("next")))


def act(visit: Visit) -> Response:
    """Let them in, or say that it was not right, never what of it."""
    if visit.web.options.method != "local":
        return redirect("/")
    name, password = visit.form.get("name", "").strip()[:200], visit.form.get("password", "")
    desk, options, attempts = visit.desk, visit.web.options, visit.web.attempts
    wait_s = attempts.wait_s(name)
    if wait_s:
        return _again(visit, name, t("sign_in.wait", seconds=math.ceil(wait_s)), 429)
    if not is_password(signing_in.password_hash(desk, name), password):
        attempts.failed(name)
        signing_in.note_failure(desk, "local")
        return _again(visit, name, t("sign_in.wrong"), 401)
    attempts.succeeded(name)
    try:
        person = people.arrive(desk, name, name, role=role_on_arrival(visit.web, name))
    except NotAllowed:
        return _again(visit, name, t("sign_in.wrong"), 401)
    old = visit.cookies.get(options.session_cookie)
    if old:
        signing_in.end(desk, old)
    token = signing_in.begin(desk, person, longest_ms=options.longest_ms, idle_ms=options.idle_ms)
    response = redirect(_inside(visit.form.get("next")) or "/")
    set_cookie(visit.web, response, options.session_cookie, token)
    response.delete_cookie(options.form_cookie, path="/", secure=options.secure, httponly=True)
    return response


def leave(visit: Visit) -> Response:
    """End the session, and give back what the person holds."""
    options = visit.web.options
    people.leave(visit.desk, visit.who)
    signing_in.end(visit.desk, visit.cookies.get(options.session_cookie, ""))
    response = redirect("/sign-in") if options.method == "local" else visit.page("left.html")
    response.delete_cookie(options.session_cookie, path="/", secure=options.secure, httponly=True)
    return response


def _again(visit: Visit, name: str, problem: str, status: int) -> Response:
    inside = _inside(visit.form.get("next"))
    return visit.page("sign_in.html", status, name=name, problem=problem, next=inside)


def _inside(path: str | None) -> str:
    """Return a path of this desk, "" for anything that could lead elsewhere."""
    if path and path.startswith("/") and not path.startswith("//") and path.isascii():
        return "" if "\\" in path or any(char <= " " for char in path) else path[:500]
    return ""


PAGES = (
    Page("/sign-in", show, None),
    Page("/sign-in", act, None, "POST"),
    Page("/sign-out", leave, "reviewer", "POST"),
)
