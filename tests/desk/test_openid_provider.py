"""Signing in by a provider that others wrote: npm's oidc-provider, by its own forms.

Needs node and npm; the provider comes by tests/desk/openid/package-lock.json.
"""

from __future__ import annotations

import html
import os
import re
import shutil
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from desk.auth.provider import Provider
from desk.auth.rules import ProviderConfig
from desk.clock import now_ms
from desk.web.application import build_application
from desk.web.visit import WebOptions
from tests.support.desk_browser import ADDRESS, Browser, visit
from tests.support.desk_world import DeskWorld
from tests.support.openid import SERVER_SECRET, openid_server
from tests.support.processes import free_ports


@pytest.fixture(scope="module")
def issuer() -> Iterator[str]:
    if not shutil.which("npm"):
        (pytest.fail if os.environ.get("CI") else pytest.skip)("npm is not here: install Node.js")
    with openid_server(free_ports(1)[0], ADDRESS) as running:
        yield running


@pytest.fixture
def visitor(world: DeskWorld, issuer: str) -> Browser:
    config = ProviderConfig(
        issuer,
        "desk",
        ADDRESS,
        SERVER_SECRET,
        scopes=("openid", "profile", "groups"),
        role_claim="groups",
        roles={"reviewer": ("support",), "adjudicator": ("leads",), "owner": ("managers",)},
        timeout_s=30,
    )
    provider = Provider(config, now_ms)
    app = build_application(world.desk, WebOptions(method="oidc"), provider)
    return Browser(visit(app), None)


class Outside:
    """The same browser at the provider's pages: follows and fills in until it is sent back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.client = httpx2.Client(timeout=60, limits=httpx2.Limits(max_keepalive_connections=0))

    def go(self, address: str) -> str:
        """Return where the provider sends the browser back to."""
        answer = self.client.get(address)
        for _ in range(20):
            if not answer.is_redirect:
                answer = self.fill_in(answer.text)
                continue
            to = answer.request.url.join(answer.headers["location"])
            if str(to).startswith(ADDRESS):
                return str(to)
            answer = self.client.get(to)
        raise AssertionError(answer.text)

    def fill_in(self, page: str) -> httpx2.Response:
        """Send the form of a page, with what a person puts in."""
        (action,) = re.findall(r'<form[^>]* action="([^"]+)"', page)
        hidden = re.findall(r'<input type="hidden" name="([^"]+)" value="([^"]*)"', page)
        values = dict(hidden)
        if 'name="login"' in page:
            values |= {"login": self.name, "password": "any"}
        if 'name="logout"' in page:
            values |= {"logout": "yes"}
        return self.client.post(html.unescape(action), data=values)


def test_somebody_signs_in_and_out(visitor: Browser) -> None:
    """With the role of their groups, which it tells at its userinfo endpoint; out of both."""
    outside = Outside("cleo")
    back = outside.go(visitor.get("/sign-in?next=/accuracy").headers["location"])
    assert visitor.get(back).headers["location"] == "/accuracy"
    page = visitor.get("/accuracy")
    assert page.status_code == 200
    assert "Cleo Laine" in page.text
    assert visitor.get("/people").status_code == 403
    left = visitor.post("/sign-out", {}).text
    onward = html.unescape(re.findall(r'content="0; url=([^"]+)"', left)[0])
    assert urlsplit(outside.go(onward)).path == "/signed-out"
    assert visitor.get("/accuracy").status_code == 303
    asked = outside.client.get(visitor.get("/sign-in").headers["location"], follow_redirects=True)
    assert 'name="login"' in asked.text  # signed out there too
