"""The user of a request: by session, by a trusted proxy's header, or anyone on this machine."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.responses import Response

from desk.auth.rules import is_trusted
from desk.service import people
from desk.store.types import Person, Role
from desk.web.visit import Visit, Web

LOCAL_SUBJECT = "local"


@dataclass(frozen=True, slots=True)
class Identity:
    """The user and the token of the session; ``is_new`` if the browser does not have it yet."""

    person: Person | None
    token: str
    is_new: bool


def identify(web: Web, cookies: Mapping[str, str], headers: Headers, peer: str) -> Identity:
    """Return the user of a request. Raises NotAllowed for a closed account, DatabaseUnavailable."""
    options = web.options
    token = cookies.get(options.session_cookie, "")
    subject = _trusted_subject(web, headers, peer)
    person = None
    if token:
        person = people.whose(
            web.desk, token, longest_ms=options.longest_ms, idle_ms=options.idle_ms
        )
    if options.method in {"local", "oidc"}:
        return Identity(person, token, False)
    if subject is None:
        return Identity(None, "", False)
    # At the proxy another user may have signed in since the session began.
    if person is not None and person.subject == subject:
        return Identity(person, token, False)
    return _welcome(web, subject)


def csrf_token(token: str) -> str:
    """Return the CSRF token of a session: derived from its token, which no other site can read."""
    return hmac.new(token.encode(), b"clerk-desk form", hashlib.sha256).hexdigest()


def is_csrf_token(token: str, given: str) -> bool:
    """Tell whether a form came from a page of this session."""
    return bool(token) and hmac.compare_digest(csrf_token(token).encode(), given.encode())


def new_form_token() -> str:
    """Return a token for the sign-in form, which comes before there is a session."""
    return secrets.token_urlsafe(32)


def set_cookie(
    web: Web,
    response: Response,
    name: str,
    value: str,
    *,
    path: str = "/",
    age_s: int | None = None,
) -> None:
    """Set a cookie that scripts and other sites cannot read, for ``age_s`` seconds or until the
    browser is closed."""
    # lax, not strict: the OpenID provider leads back here from its own site, and a strict cookie
    # would not be sent then.
    response.set_cookie(
        name, value, age_s, path=path, secure=web.options.secure, httponly=True, samesite="lax"
    )


def drop_cookie(web: Web, response: Response, name: str, *, path: str = "/") -> None:
    """Delete a cookie."""
    response.delete_cookie(name, path=path, secure=web.options.secure, httponly=True)


def begin_session(visit: Visit, response: Response, person: Person) -> None:
    """Start a session in this browser. Ends an earlier one, so that it cannot be reused."""
    options = visit.web.options
    old = visit.cookies.get(options.session_cookie)
    if old:
        people.end_session(visit.desk, old)
    token = people.begin_session(
        visit.desk, person, longest_ms=options.longest_ms, idle_ms=options.idle_ms
    )
    set_cookie(visit.web, response, options.session_cookie, token)
    drop_cookie(visit.web, response, options.form_cookie)


def role_on_arrival(web: Web, subject: str) -> Role:
    """Return the role of a user at the first sign-in."""
    if web.options.method == "none" or subject in web.options.owners:
        return "owner"
    return "reviewer"


def _trusted_subject(web: Web, headers: Headers, peer: str) -> str | None:
    options = web.options
    if options.method == "none":
        return LOCAL_SUBJECT
    if options.method == "proxy" and is_trusted(peer, options.proxy_addresses):
        given = headers.getlist(options.proxy_header)
        # Two headers: the proxy appended its own to one that the visitor sent.
        subject = given[0].strip() if len(given) == 1 else ""
        return subject if 0 < len(subject) <= 200 else None
    return None


def _welcome(web: Web, subject: str) -> Identity:
    name = "You" if web.options.method == "none" else subject
    person = people.arrive(web.desk, subject, name, role=role_on_arrival(web, subject))
    token = people.begin_session(
        web.desk, person, longest_ms=web.options.longest_ms, idle_ms=web.options.idle_ms
    )
    return Identity(person, token, True)
