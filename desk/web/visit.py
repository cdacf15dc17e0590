"""What a page gets: options, the request, the form; and what a page is."""

from __future__ import annotations

import math
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode

from jinja2 import Environment
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from desk.auth.passwords import Attempts, SignInQueue
from desk.auth.provider import Provider
from desk.auth.rules import Method, is_loopback
from desk.service.context import Desk
from desk.store.types import Person, Role


@dataclass(frozen=True, slots=True)
class WebOptions:
    """Where the pages are served, and how users sign in. Times in milliseconds; port 0 is any.

    ``batch`` is the only batch of a desk without Kafka: what is decided if no queue is named.
    """

    host: str = "127.0.0.1"
    port: int = 8090
    metrics_port: int = 0
    hostnames: tuple[str, ...] = ("*",)
    secure: bool = False
    method: Method = "none"
    proxy_header: str = "X-Forwarded-User"
    proxy_addresses: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    longest_ms: int = 12 * 3_600_000
    idle_ms: int = 2 * 3_600_000
    batch: int | None = None

    @property
    def session_cookie(self) -> str:
        """The cookie's name. With the prefix __Host- other hosts of the domain cannot set it."""
        return "__Host-clerk_desk" if self.secure else "clerk_desk"

    @property
    def form_cookie(self) -> str:
        """The cookie that the sign-in form is bound to."""
        return "__Host-clerk_desk_form" if self.secure else "clerk_desk_form"

    @property
    def provider_cookie(self) -> str:
        """The cookie that a browser keeps while the user is at the OpenID provider."""
        return "__Host-clerk_desk_provider" if self.secure else "clerk_desk_provider"

    @property
    def hint_cookie(self) -> str:
        """The cookie with the ID token for the provider at sign-out; sent to that page only."""
        return "__Secure-clerk_desk_hint" if self.secure else "clerk_desk_hint"

    @property
    def allowed_hosts(self) -> tuple[str, ...]:
        """Host headers that are answered. Without sign-in only this machine's names: another site
        could point its own name at 127.0.0.1 and read the pages (DNS rebinding)."""
        if self.method == "none" and self.hostnames == ("*",) and is_loopback(self.host):
            return ("localhost", "127.0.0.1", "[::1]", self.host)
        return self.hostnames


UNKNOWN_ACTION = "The desk does not know this action. Reload the page and try again."

# A guideline of 200,000 characters, each written as up to nine bytes in a form, must fit.
MAX_BYTES = 2_000_000
MAX_FIELDS = 2_000
MAX_UPLOAD_BYTES = 64_000_000
FORM_TYPE = "application/x-www-form-urlencoded"
UPLOAD_TYPE = "multipart/form-data"


class BadForm(Exception):
    """A form could not be read. ``status`` is the HTTP status of the answer."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that a form sent, with the browser's name for it."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Sent:
    """What a form sent: all values by name, and a file or None."""

    lists: Mapping[str, Sequence[str]]
    upload: Upload | None = None


NOTHING_SENT = Sent({})


class _InMemory(MultiPartParser):
    """Keeps uploads in memory: a temporary file would put messages on the disk."""

    spool_max_size = MAX_UPLOAD_BYTES


async def read_form(request: Request) -> Sent:
    """Return the values of a form without a file. Raises BadForm."""
    if _type_of(request) != FORM_TYPE:
        raise BadForm(415)
    body = b"".join([chunk async for chunk in _bounded(request, MAX_BYTES)])
    try:
        return Sent(
            parse_qs(
                body.decode("utf-8"),
                keep_blank_values=True,
                max_num_fields=MAX_FIELDS,
                errors="strict",
            )
        )
    except ValueError:  # no UTF-8, or too many fields
        raise BadForm(400) from None


def is_upload(request: Request) -> bool:
    """Tell whether a request is a form with a file."""
    return _type_of(request) == UPLOAD_TYPE


async def read_upload(request: Request) -> Sent:
    """Return the values of a form with a file. Raises BadForm."""
    body = _bounded(request, MAX_UPLOAD_BYTES)
    try:
        parsed = await _InMemory(request.headers, body, max_files=1, max_fields=20).parse()
    except MultiPartException:
        raise BadForm(400) from None
    values: dict[str, list[str]] = {}
    upload = None
    for name, value in parsed.multi_items():
        if isinstance(value, UploadFile):
            upload = Upload(value.filename or "", await value.read())
            await value.close()
        else:
            values.setdefault(name, []).append(value)
    return Sent(values, upload)


def number(text: str) -> int:
    """Parse a number from an address or a form; -1, which no row has, if it is not one."""
    # Of 18 digits or more some do not fit the database's 64 bits.
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 18 else -1


def number_or_none(text: str) -> int | None:
    """Parse a number that may be left out; None if it is not one."""
    found = number(text)
    return found if found >= 0 else None


def _type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > most:
            raise BadForm(413)
        yield chunk


@dataclass(frozen=True, slots=True)
class Web:
    """What all pages share."""

    desk: Desk
    options: WebOptions
    templates: Environment
    attempts: Attempts
    sign_ins: SignInQueue
    navigation: Sequence[Page] = ()
    provider: Provider | None = None

    @property
    def roles_elsewhere(self) -> bool:
        """Whether the OpenID provider gives roles, at each sign-in."""
        return self.provider is not None and bool(self.provider.config.role_claim)


@dataclass(frozen=True, slots=True)
class Visit:
    """One request. ``person`` is None on the pages that need nobody to be signed in. ``address`` is
    the browser's, behind a known proxy too; ``unknown_proxy``: the request came through another.
    ``from_here``: the reviewer, not another site, led the browser here (Sec-Fetch-Site).

    ``query`` and ``form`` hold the first value of each name, ``lists`` all values of the form.
    """

    web: Web
    person: Person | None
    csrf: str
    address: str = ""
    unknown_proxy: bool = False
    route: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] = field(default_factory=dict)
    lists: Mapping[str, Sequence[str]] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    path: str = "/"
    from_here: bool = False
    upload: Upload | None = None

    @property
    def desk(self) -> Desk:
        """The desk of the page."""
        return self.web.desk

    @property
    def who(self) -> Person:
        """The signed-in user, on a page that requires one."""
        assert self.person is not None
        return self.person

    @property
    def by_script(self) -> bool:
        """Whether the script asks for a part of a page."""
        return (self.form.get("part") or self.query.get("part")) == "1"

    def page(self, template: str, status: int = 200, **values: Any) -> Response:
        """Render a template. Each gets ``visit``, ``new_request`` and the texts, ``t``."""
        shown = self.web.templates.get_template(template).render(
            visit=self, new_request=new_request, **values
        )
        return HTMLResponse(shown, status)

    def number(self, name: str) -> int:
        """Return a number of the form, -1 if it is not one."""
        return number(self.form.get(name, ""))

    def seconds(self) -> float:
        """Return the seconds for which the page was on screen, 0 if unknown."""
        try:
            given = float(self.form.get("seconds", "0"))
        except ValueError:
            return 0.0
        # "nan" and "inf" are numbers to float().
        return given if math.isfinite(given) else 0.0


Handler = Callable[[Visit], Response]


@dataclass(frozen=True, slots=True)
class Page:
    """A path and its handler. ``role`` is the least role; None: open without sign-in.

    ``link`` is its name in the navigation, "" if it is not there;
    ``order`` is its place. ``takes_file``: its form sends a file, as multipart.
    ``checks_password``: requests wait for their turn (``SignInQueue``).
    """

    path: str
    handler: Handler
    role: Role | None
    method: str = "GET"
    link: str = ""
    order: int = 100
    takes_file: bool = False
    checks_password: bool = False


def new_request() -> str:
    """Return an id for a form. A form that is sent twice takes effect once."""
    return uuid.uuid4().hex


def inside(path: str | None) -> str:
    """Return a path of this desk, "" for anything that could lead to another site."""
    # Browsers read //host and /\host as another site, and drop tabs and line breaks in between.
    if path and path.startswith("/") and not path.startswith("//") and path.isascii():
        return "" if "\\" in path or any(char <= " " for char in path) else path[:500]
    return ""


def redirect(path: str, **query: str) -> Response:
    """Redirect to a page of this desk, by GET."""
    given = {key: value for key, value in query.items() if value}
    return RedirectResponse(f"{path}?{urlencode(given)}" if given else path, 303)
