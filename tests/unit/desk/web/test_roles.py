"""Every page and every role: who gets in, and that a form without its token never does."""

from __future__ import annotations

import pytest

from desk.store.types import Role
from desk.web.application import find_pages
from tests.support.desk_browser import NewBrowser

pytestmark = pytest.mark.slow

RANK = ("reviewer", "adjudicator", "owner")
WHO_MAY: dict[tuple[str, str], Role | None] = {
    ("GET", "/"): "reviewer",
    ("GET", "/review"): "reviewer",
    ("POST", "/review"): "reviewer",
    ("GET", "/message"): "reviewer",
    ("POST", "/reopen"): "reviewer",
    ("GET", "/adjudicate"): "adjudicator",
    ("POST", "/adjudicate"): "adjudicator",
    ("GET", "/search"): "reviewer",
    ("GET", "/clusters"): "reviewer",
    ("GET", "/cluster"): "reviewer",
    ("POST", "/cluster"): "reviewer",
    ("GET", "/guidelines"): "reviewer",
    ("GET", "/guidelines/edit"): "adjudicator",
    ("POST", "/guidelines/edit"): "adjudicator",
    ("GET", "/my-day"): "reviewer",
    ("GET", "/accuracy"): "adjudicator",
    ("GET", "/together"): "reviewer",
    ("POST", "/together"): "reviewer",
    ("GET", "/export"): "owner",
    ("POST", "/export"): "owner",
    ("GET", "/load"): "owner",
    ("POST", "/load"): "owner",
    ("GET", "/advice"): "owner",
    ("GET", "/advice/messages"): "owner",
    ("POST", "/advice/messages"): "owner",
    ("GET", "/proposals"): "owner",
    ("POST", "/proposals"): "owner",
    ("GET", "/people"): "owner",
    ("POST", "/people"): "owner",
    ("GET", "/log"): "owner",
    ("GET", "/password"): "reviewer",
    ("POST", "/password"): "reviewer",
    ("GET", "/sign-in"): None,
    ("POST", "/sign-in"): None,
    ("POST", "/sign-out"): "reviewer",
    ("GET", "/sign-in/callback"): None,
    ("GET", "/signed-out"): None,
}
"""Written a second time on purpose: a page that is opened to more people changes this table too."""


def test_the_table_has_every_page() -> None:
    assert {(page.method, page.path): page.role for page in find_pages()} == WHO_MAY


@pytest.mark.parametrize("role", [None, *RANK])
def test_each_page_lets_in_its_roles_alone(browser: NewBrowser, role: Role | None) -> None:
    """Anyone who is not signed in is sent to do so; a lower role is refused, by every address."""
    for (method, path), needed in WHO_MAY.items():
        visitor = browser(None if role is None else f"{role}-{method}-{path}", role or "reviewer")
        values = {"csrf": visitor.csrf()} if role is not None else {"a": "b"}
        sent = visitor.client.request(method, path, data=values if method == "POST" else None)
        if needed is None:
            assert sent.status_code in {200, 303, 403, 401}, (method, path)
        elif role is None:
            assert sent.status_code in {303, 401}, (method, path)
            assert sent.headers.get("location", "/sign-in").startswith("/sign-in")
        elif RANK.index(role) < RANK.index(needed):
            assert sent.status_code == 403, (method, path)
        else:
            assert sent.status_code in {200, 303, 409}, (method, path)


def test_a_form_without_its_token_does_nothing(browser: NewBrowser) -> None:
    ada, mallory = browser("ada", "owner"), browser("mallory", "owner")
    for (method, path), needed in WHO_MAY.items():
        if method == "POST" and needed is not None:
            for values in ({"a": "b"}, {"csrf": ""}, {"csrf": mallory.csrf()}):
                assert ada.client.post(path, data=values).status_code == 403, path


def test_a_form_from_another_site_does_nothing(browser: NewBrowser) -> None:
    ada = browser("ada", "owner")
    refused = ada.post("/review", {"action": "undo"}, origin="https://elsewhere.example")
    assert refused.status_code == 403
    allowed = ada.post("/review", {"action": "undo"}, origin="http://127.0.0.1:8090")
    assert allowed.status_code == 409


def test_a_role_that_is_taken_away_is_gone_at_once(browser: NewBrowser) -> None:
    """Also in a session that began before; so is a closed account."""
    owner, other = browser("ada", "owner"), browser("bo", "owner")
    assert owner.person is not None
    assert owner.get("/people").status_code == 200
    changed = {"person": owner.person.id, "action": "role", "role": "reviewer"}
    assert other.post("/people", changed).status_code == 303
    assert owner.get("/people").status_code == 403
    assert other.post("/people", {"person": owner.person.id, "action": "close"}).status_code == 303
    assert owner.get("/").status_code == 303
