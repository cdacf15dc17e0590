"""A desk in this process, and Debian's Chromium in front of it: for what only a browser shows."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, Response, sync_playwright

from desk.service import people
from desk.store import people as store_people
from desk.store.types import Person, Role
from desk.web.server import serve
from desk.web.visit import WebOptions
from tests.support.desk_world import DeskWorld
from tests.support.processes import PATIENCE_S

GUARD_MS = 200
"""For so long after a message appears, keys decide nothing: nobody has read it."""

# The address is the chosen port of a socket that is already listening.
LOCAL = WebOptions(method="local", port=0)


def chromium() -> str | None:
    """Return Debian's Chromium, or what is called so elsewhere."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)


@contextlib.contextmanager
def open_chromium() -> Iterator[Browser]:
    """Start the browser; skip where there is none, fail in CI."""
    program = chromium()
    if program is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("not here: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Window:
    """Browsers at one desk. ``address`` is where it is served."""

    world: DeskWorld
    browser: Browser
    address: str
    contexts: list[BrowserContext] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def page(self, name: str | None = None, role: Role = "reviewer", **options: Any) -> Page:
        """Open a page in a browser of its own, signed in where a name is given."""
        size = {"width": options.pop("width", 1280), "height": options.pop("height", 860)}
        context = self.browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_S * 1000)
        self.contexts.append(context)
        if name is not None:
            self.sign_in(context, self.world.person(name, role))
        page = context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        return page

    def sign_in(self, context: BrowserContext, person: Person) -> None:
        """Give a browser a session of this person."""
        token = people.begin_session(
            self.world.desk, person, longest_ms=LOCAL.longest_ms, idle_ms=LOCAL.idle_ms
        )
        context.add_cookies([{"name": LOCAL.session_cookie, "value": token, "url": self.address}])

    def end_sessions(self, name: str) -> None:
        """End what this person has signed in to, as the limits of time do."""
        person = self.world.person(name)
        with self.world.database.write() as tx:
            store_people.end_sessions_of(tx, person.id)


@contextlib.contextmanager
def open_window(world: DeskWorld, browser: Browser) -> Iterator[Window]:
    """Serve the desk on a free port; no script of a page may have failed in the end."""
    with serve(world.desk, LOCAL) as address:
        window = Window(world, browser, address)
        try:
            yield window
        finally:
            for context in window.contexts:
                context.close()
        assert window.errors == []


def item_of(page: Page) -> str:
    """Return the item on screen, "" where there is none."""
    found = page.query_selector(".task")
    return (found.get_attribute("data-item") or "") if found else ""


def is_ahead(answer: Response) -> bool:
    """Whether an answer is the message that the script fetches before it is needed."""
    sent = answer.request.post_data or ""
    return "action=next" in sent and "part=1" in sent


def is_decision(answer: Response) -> bool:
    """Whether an answer is to a decision, a skip, a flag or an undo."""
    return answer.request.method == "POST" and "action=next" not in (answer.request.post_data or "")


def press(page: Page, key: str) -> None:
    """Press a key as somebody does who has looked at the message; return when the desk answered."""
    page.wait_for_timeout(GUARD_MS + 30)
    with page.expect_response(is_decision):
        page.keyboard.press(key)
