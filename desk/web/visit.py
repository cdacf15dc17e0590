"""What a page is given, and what a page is."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment
from starlette.responses import HTMLResponse, RedirectResponse, Response

from desk.auth.attempts import Attempts
from desk.auth.provider import Provider
from desk.service.context import Desk
from desk.store.types import Person, Role
from desk.web.forms import Upload, number
from desk.web.options import WebOptions


@dataclass(frozen=True, slots=True)
class Web:
    """What all pages share."""

    desk: Desk
    options: WebOptions
    templates: Environment
    attempts: Attempts
    navigation: Sequence[Page] = ()
    provider: Provider | None = None

    @property
    def roles_elsewhere(self) -> bool:
        """Whether the OpenID provider gives roles, at each sign-in."""
        return self.provider is not None and bool(self.provider.config.role_claim)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. ``person`` is None on the pages that need nobody to be signed in.

    ``query`` and ``form`` hold the first value of each name, ``lists`` all values of the form.
    """

    web: Web
    person: Person | None
    csrf: str
    peer: str
    route: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    path: str = "/"
    upload: Upload | None = None

    @property
    def desk(self) -> Desk:
        """The desk that the page is of."""
        return self.web.desk

    @property
    def who(self) -> Person:
        """The person, on a page that needs one."""
        assert self.person is not None
        return self.person

    @property
    def by_script(self) -> bool:
        """Whether the script asks, which wants a part of a page."""
        return (self.form.get("part") or self.query.get("part")) == "1"

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Return a template as a page. Each has ``visit``, ``new_request`` and the words, ``t``."""
        shown = self.web.templates.get_template(template).render(
            visit=self, new_request=new_request, **values
        )
        return HTMLResponse(shown, status)

    def number(self, name: str) -> int:
        """Return a number of the form, -1 where there is none: no item has that."""
        return number(self.form.get(name, ""))

    def seconds(self) -> float:
        """Return for how long the page was on screen, 0 where it does not say."""
        try:
            given = float(self.form.get("seconds", "0"))
        except ValueError:
            return 0.0
        return given if math.isfinite(given) else 0.0


Handler = Callable[[Visit], Response]


@dataclass(frozen=True, slots=True)
class Page:
    """One address. ``role`` is who may; None: also whoever is not signed in.

    ``link`` is the key of its name in the navigation (``desk.web.strings``), "" where it is not
    there; ``order`` its place in it. ``takes_file``: its form sends one, as multipart.
    """

    path: str
    handler: Handler
    role: Role | None
    method: str = "GET"
    link: str = ""
    order: int = 100
    takes_file: bool = False


def new_request() -> str:
    """Return the id of a form: sent twice, it does once what it does."""
    return uuid.uuid4().hex


def inside(path: str | None) -> str:
    """Return a path of this desk, "" for anything that could lead elsewhere."""
    if path and path.startswith("/") and not path.startswith("//") and path.isascii():
        return "" if "\\" in path or any(char <= " " for char in path) else path[:500]
    return ""


def redirect(path: str, **query: str) -> Response:
    """Send the browser to a page of ours, by GET."""
    given = {key: value for key, value in query.items() if value}
    return RedirectResponse(f"{path}?{urlencode(given)}" if given else path, 303)
