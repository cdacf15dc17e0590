"""Browsers at a desk: each keeps its cookies and sends the forms of its pages."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from anyio.from_thread import BlockingPortal, start_blocking_portal
from starlette.applications import Starlette
from starlette.testclient import TestClient

from desk.service import people
from desk.store.types import Person, Role
from desk.web.application import build_application
from desk.web.visit import WebOptions
from tests.support.desk_world import DeskWorld

ADDRESS = "http://127.0.0.1:8090"
METRICS = "http://127.0.0.1:8091/metrics"
LOCAL = WebOptions(method="local", metrics_port=8091)
_shared: list[BlockingPortal] = []


@dataclass
class Browser:
    """Somebody's browser, signed in or not."""

    client: httpx2.Client
    person: Person | None

    def get(self, path: str, **headers: str) -> Any:
        """Load a page."""
        return self.client.get(path, headers={"Sec-Fetch-Site": "none", **headers})

    def open(self, path: str) -> Any:
        """Load a page as a browser with the script does: redirects are followed, and a form that
        claims what the page shows is sent."""
        page = self.get(path)
        for _ in range(4):
            while page.status_code == 303:
                page = self.get(page.headers["location"])
            form = re.search(r'<form method="post" action="([^"]+)"[^>]* data-begin>', page.text)
            if form is None:
                return page
            names = re.findall(r'<input type="hidden" name="(\w+)"', page.text[form.end() :])
            values = {name: field(page.text[form.end() :], name) for name in names}
            page = self.client.post(form[1], data=values)
        raise AssertionError(f"{path} does not come to an end")

    def post(self, path: str, values: Mapping[str, Any], **headers: str) -> Any:
        """Send a form with the token that this session's pages carry."""
        return self.client.post(path, data={"csrf": self.csrf(), **values}, headers=headers)

    def csrf(self) -> str:
        """The token of this session's forms."""
        return field(self.get("/my-day").text, "csrf")


def visit(app: Starlette, address: str = "testclient") -> TestClient:
    """A browser at this address that nobody has signed in with. Its requests run in the event loop
    of ``one_loop`` if there is one: a thread and a loop for each would be slow."""
    client = TestClient(app, base_url=ADDRESS, follow_redirects=False, client=(address, 50_000))
    client.portal = _shared[-1] if _shared else None
    return client


@contextmanager
def one_loop() -> Iterator[None]:
    """Have the requests of all browsers run in one event loop."""
    with start_blocking_portal() as portal:
        _shared.append(portal)
        try:
            yield
        finally:
            _shared.remove(portal)


def field(page: str, name: str) -> str:
    """The value of a hidden field."""
    found = re.search(rf'<input type="hidden" name="{name}" value="([^"]*)"', page)
    return html.unescape(found[1]) if found else ""


NewBrowser = Callable[..., Browser]
"""Opens a browser: of a person by name and role, or of nobody."""


def open_browser(
    world: DeskWorld,
    name: str | None = None,
    role: Role = "reviewer",
    options: WebOptions = LOCAL,
) -> Browser:
    """Open a browser, signed in where a name is given."""
    client = visit(build_application(world.desk, options))
    person = None
    if name is not None:
        person = world.person(name, role)
        token = people.begin_session(
            world.desk, person, longest_ms=options.longest_ms, idle_ms=options.idle_ms
        )
        client.cookies.set(options.session_cookie, token)
    return Browser(client, person)


def send(browser: Browser, content: bytes | str, name: str = "tasks.jsonl", **more: str) -> Any:
    """Send a file by the form of the page."""
    values = {"csrf": more.get("csrf") or browser.csrf(), **more}
    files = {"file": (name, content, "application/octet-stream")}
    return browser.client.post("/load", data=values, files=files)
