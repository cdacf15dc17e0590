"""Sign-in and sign-out, with a password or at the OpenID provider; a user's own password."""

from __future__ import annotations

import base64
import binascii
import math
import secrets
from dataclasses import replace

import structlog
from starlette.responses import RedirectResponse, Response

from desk.auth.passwords import MAX_CHARS, MIN_CHARS, hash_password, is_password
from desk.auth.provider import Provider
from desk.errors import NotAllowed, ProviderUnavailable, ProviderWrong, Refused, SignInFailed
from desk.service import people
from desk.web.identity import begin_session, drop_cookie, role_on_arrival, set_cookie
from desk.web.visit import Page, Visit, inside, redirect

_log = structlog.get_logger("desk.web")

_LONGEST_S = 600

_WRONG = "Wrong user name or password."
_NOT_CHANGED = "Wrong password: it was not changed. Enter your current password."

_SIGN_OUT = "/sign-out"

_PROXY_HINT = (
    "the address is a proxy's: add it to sign_in.proxy_addresses, or everyone behind it shares one "
    "sign-in limit"
)

_LONGEST_HINT = 3_800  # of a cookie's 4,096 bytes


def show(visit: Visit) -> Response:
    """Show the form, or go to the provider; with other methods, to the first page."""
    next_path = inside(visit.query.get("next"))
    if visit.web.provider is not None:
        return go_to_provider(visit, visit.web.provider, next_path)
    if visit.web.options.method != "local":
        return redirect("/")
    return visit.page("sign_in.html", name="", problem="", next=next_path)


def act(visit: Visit) -> Response:
    """Sign the user in. A failure does not say whether the name or the password was wrong."""
    if visit.web.options.method != "local":
        return redirect("/")
    name, password = visit.form.get("name", "").strip()[:200], visit.form.get("password", "")
    wait_s, right = _check(visit, name, password)
    if wait_s:
        return _again(visit, name, f"Too many attempts: wait {wait_s} s.", 429)
    if not right:
        return _again(visit, name, _WRONG, 401)
    try:
        person = people.arrive(visit.desk, name, name, role=role_on_arrival(visit.web, name))
    except NotAllowed:
        # As for a wrong password: the answer must not show which accounts exist.
        return _again(visit, name, _WRONG, 401)
    response = redirect(inside(visit.form.get("next")) or "/")
    begin_session(visit, response, person)
    return response


def _check(visit: Visit, name: str, password: str, *, reason: str = "") -> tuple[int, bool]:
    """Return the seconds to wait before the next attempt, and whether the password is right. A
    wrong one is logged with ``reason``."""
    attempts = visit.web.attempts
    # Counted before the check: attempts that are sent at once would all find the count of the
    # first.
    wait_s = attempts.begin(visit.address, name)
    if wait_s:
        return math.ceil(wait_s), False
    right = False
    try:
        hashed = people.password_hash(visit.desk, name)
        right = is_password(hashed, password)
    finally:
        attempts.end(visit.address, name, right=right)
    if not right:
        _log_failure(visit, "local", name=name if hashed else "", reason=reason)
    return 0, right


def show_password(visit: Visit) -> Response:
    """Show the form to change the user's own password."""
    if visit.web.options.method != "local":
        return redirect("/")
    return _password_page(visit)


def change_password(visit: Visit) -> Response:
    """Change the user's own password, and end all their sessions but the one in this browser."""
    if visit.web.options.method != "local":
        return redirect("/")
    subject, new = visit.who.subject, visit.form.get("new", "")
    # An unattended browser must not help to guess the password: the limits of sign-in apply.
    wait_s, right = _check(visit, subject, visit.form.get("old", ""), reason="old_password")
    if wait_s:
        return _password_page(visit, f"Too many attempts: wait {wait_s} s.", 429)
    if not right:
        return _password_page(visit, _NOT_CHANGED, 409)
    if new != visit.form.get("again"):
        return _password_page(visit, "The two new passwords differ. Enter the same one twice.", 409)
    try:
        hashed = new_hash(new)
    except Refused as error:
        return _password_page(visit, str(error), 409)
    people.give_password(visit.desk, subject, hashed, by=visit.who)
    response = redirect("/password", changed="1")
    begin_session(visit, response, visit.who)
    return response


def _password_page(visit: Visit, problem: str = "", status: int = 200) -> Response:
    return visit.page("password.html", status, problem=problem, least=MIN_CHARS, most=MAX_CHARS)


def new_hash(password: str) -> str:
    """Return the hash of a new password. Raises Refused if it is too short or too long."""
    try:
        return hash_password(password)
    except ValueError as error:
        raise Refused(str(error)) from None


def _log_failure(visit: Visit, method: str, *, name: str, reason: str = "") -> None:
    people.note_failure(visit.desk, method, name=name, address=visit.address, reason=reason)
    hint = {"hint": _PROXY_HINT} if visit.unknown_proxy else {}
    _log.warning(
        "sign_in.failed", method=method, name=name, address=visit.address, reason=reason, **hint
    )


def _again(visit: Visit, name: str, problem: str, status: int) -> Response:
    next_path = inside(visit.form.get("next"))
    return visit.page("sign_in.html", status, name=name, problem=problem, next=next_path)


def leave(visit: Visit) -> Response:
    """End the session, and release the items that the user holds."""
    options = visit.web.options
    people.leave(visit.desk, visit.who)
    people.end_session(visit.desk, visit.cookies.get(options.session_cookie, ""))
    if visit.web.provider is not None:
        response = leave_provider(visit, visit.web.provider)
    elif options.method == "local":
        response = redirect("/sign-in")
    else:
        response = visit.page("left.html", onward="")
    drop_cookie(visit.web, response, options.session_cookie)
    return response


def callback(visit: Visit) -> Response:
    """Handle the provider's answer."""
    if visit.web.provider is None:
        return redirect("/")
    return come_back(visit, visit.web.provider)


def signed_out(visit: Visit) -> Response:
    """Show that the user is signed out, here and at the provider."""
    return visit.page("left.html", onward="")


def go_to_provider(visit: Visit, provider: Provider, next_path: str) -> Response:
    """Redirect to the provider; ``next_path`` is the page to show after sign-in."""
    secret = secrets.token_urlsafe(32)
    try:
        address = provider.begin(secret)
    except (ProviderUnavailable, ProviderWrong) as error:
        return _not_now(visit, error)
    response = RedirectResponse(address, 303)
    # A cookie's value takes no blanks, commas or semicolons (RFC 6265, section 4.1.1).
    held = base64.urlsafe_b64encode(next_path.encode()).decode().rstrip("=")
    name = visit.web.options.provider_cookie
    set_cookie(visit.web, response, name, f"{secret}.{held}", age_s=_LONGEST_S)
    return response


def come_back(visit: Visit, provider: Provider) -> Response:
    """Sign in the user that the provider names, or show why not. The secret is valid once."""
    secret, next_path = _kept(visit)
    try:
        found = provider.finish(secret, visit.query)
        person = people.arrive(
            visit.desk,
            f"{found.issuer} {found.sub}",
            found.name,
            role=role_on_arrival(visit.web, found.sub),
            role_now=found.role,
        )
    except SignInFailed as error:
        response = _refused(visit, error.reason, str(error), error.name)
    except NotAllowed as error:
        response = _refused(visit, "closed", str(error))
    except (ProviderUnavailable, ProviderWrong) as error:
        response = _not_now(visit, error)
    else:
        response = redirect(next_path or "/")
        begin_session(visit, response, person)
        if len(found.id_token) <= _LONGEST_HINT:
            name = visit.web.options.hint_cookie
            set_cookie(visit.web, response, name, found.id_token, path=_SIGN_OUT)
    drop_cookie(visit.web, response, visit.web.options.provider_cookie)
    return response


def leave_provider(visit: Visit, provider: Provider) -> Response:
    """Show that the user has signed out, with a link that signs out of the provider too.

    Not a redirect: the content security policy does not let a form of the desk end at another site.
    """
    hint = visit.web.options.hint_cookie
    try:
        onward = provider.leave(visit.cookies.get(hint, "")) or ""
    except (ProviderUnavailable, ProviderWrong) as error:
        _log.warning("oidc.not_left", reason=str(error))
        onward = ""
    response = replace(visit, person=None).page("left.html", onward=onward)
    drop_cookie(visit.web, response, hint, path=_SIGN_OUT)
    return response


def _kept(visit: Visit) -> tuple[str, str]:
    kept = visit.cookies.get(visit.web.options.provider_cookie, "")
    secret, _, held = kept.partition(".")
    try:
        path = base64.urlsafe_b64decode(held + "=" * (-len(held) % 4)).decode()
    except (binascii.Error, ValueError):
        path = ""
    return secret, inside(path)


def _refused(visit: Visit, reason: str, detail: str, name: str = "") -> Response:
    # With a wrong state the callback was not begun here: any site can send browsers to it, and must
    # not fill the log.
    begun_here = reason != "state"
    if begun_here:
        _log_failure(visit, "oidc", name=name, reason=reason)
    _log.warning("oidc.refused", reason=reason, detail=detail)
    return _said(visit, 403 if begun_here else 400, reason, name)


def _not_now(visit: Visit, error: ProviderUnavailable | ProviderWrong) -> Response:
    if isinstance(error, ProviderUnavailable):
        _log.warning("oidc.unreachable", reason=str(error))
        return _said(visit, 503, "unavailable")
    _log.error("oidc.misconfigured", reason=str(error))
    return _said(visit, 500, "wrong")


def _said(visit: Visit, status: int, reason: str, name: str = "") -> Response:
    return visit.page("sign_in_failed.html", status, reason=reason, name=name)


PAGES = (
    Page("/sign-in", show, None),
    Page("/sign-in", act, None, "POST", checks_password=True),
    Page("/password", show_password, "reviewer"),
    Page("/password", change_password, "reviewer", "POST", checks_password=True),
    Page("/sign-out", leave, "reviewer", "POST"),
    Page("/sign-in/callback", callback, None),
    Page("/signed-out", signed_out, None),
)
