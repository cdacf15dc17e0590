"""The desk as a company runs it, for a browser: two replicas on PostgreSQL and Kafka, logins by an
OpenID provider, Debian's Chromium. All of it real, on loopback.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from desk.store.database import Database
from desk.store.migrate import migrate
from tests.support.desk_chromium import chromium
from tests.support.desk_messages import Message, publish_results
from tests.support.local_postgres import PROGRAMS, LocalPostgres
from tests.support.openid import SERVER_SECRET, openid_server
from tests.support.processes import PATIENCE_S, answering, free_ports, running
from worker.contract.taxonomy import Taxonomy

ROOT = Path(__file__).parents[2]


@dataclass
class Site:
    """Where everything is. ``addresses`` are the replicas; people sign in at the first."""

    addresses: Sequence[str]
    servers: str
    topics: Mapping[str, str]
    taxonomy: Taxonomy
    database: Database
    browser: Browser
    contexts: list[BrowserContext] = field(default_factory=list)

    def page(self, *, width: int = 1280, height: int = 860, **options: Any) -> Page:
        """A page in a separate browser, with its own cookies."""
        size = {"width": width, "height": height}
        context = self.browser.new_context(viewport=size, **options)  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE_S * 1000)
        self.contexts.append(context)
        return context.new_page()

    def sign_in(self, page: Page, name: str, path: str = "/") -> None:
        """Sign in by the provider's own forms, as a person does, and end where one began."""
        page.goto(self.addresses[0] + path)
        page.fill("input[name=login]", name)
        page.fill("input[name=password]", "any")
        page.keyboard.press("Enter")
        page.click("form button[autofocus]")
        page.wait_for_url(lambda url: url.startswith(self.addresses[0]))

    def publish(self, messages: Sequence[Message]) -> None:
        """Put messages into Kafka, with what a worker made of each."""
        publish_results(self.servers, self.topics, self.taxonomy, messages)


def missing() -> str:
    """Return what is not on this machine and how to get it, "" where all is."""
    wanted = {
        "chromium": chromium(),
        "postgresql": PROGRAMS,
        "npm": shutil.which("npm"),
    }
    lacking = [name for name, there in wanted.items() if not there]
    return f"not here: apt-get install {' '.join(lacking)}" if lacking else ""


@contextlib.contextmanager
def open_site(servers: str, topics: Mapping[str, str], taxonomy: Path) -> Iterator[Site]:
    """Start everything; skip with the reason where a program is missing, fail in CI."""
    if reason := missing():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
    for future in admin.create_topics([NewTopic(n, 1, 1) for n in topics.values()]).values():
        future.result(30)
    ports = free_ports(3)
    addresses = [f"http://127.0.0.1:{port}" for port in ports[:2]]
    with contextlib.ExitStack() as stack:
        postgres = stack.enter_context(LocalPostgres())
        url = postgres.url(postgres.create())
        database = Database(url)
        stack.callback(database.close)
        migrate(database)
        issuer = stack.enter_context(openid_server(ports[2], addresses[0]))
        given = {
            "project.taxonomy": str(taxonomy),
            "database.url": url,
            "kafka.bootstrap_servers": servers,
            "kafka.output_topic": topics["labels"],
            "kafka.review_topic": topics["review"],
            "kafka.corrections_topic": topics["corrections"],
            "sign_in.method": "oidc",
            "oidc.issuer": issuer,
            "oidc.client_id": "desk",
            "oidc.client_secret": SERVER_SECRET,
            "oidc.public_url": addresses[0],
            "oidc.scopes": '["openid", "profile", "groups"]',
            "oidc.role_claim": "groups",
            "oidc.reviewers": "support",
            "oidc.adjudicators": "leads",
            "oidc.owners": "managers",
            "review.publish_delay_s": "20",
            "review.double_share": "0.1",
            "audit.share": "0.1",
        }
        for port in ports[:2]:
            own = {"web.port": str(port), "web.metrics_port": "0"}
            stack.enter_context(_replica(given | own, port))
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(
            executable_path=chromium(),
            args=[
                "--no-sandbox",
                # The provider's forms want a font from elsewhere.
                "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
            ],
        )
        stack.callback(browser.close)
        yield Site(addresses, servers, topics, Taxonomy.from_toml(taxonomy), database, browser)


@contextlib.contextmanager
def _replica(given: Mapping[str, str], port: int) -> Iterator[None]:
    """One desk in its own process, configured by environment variables as in a container."""
    values = {f"CLERK_DESK_{k.replace('.', '__').upper()}": v for k, v in given.items()}
    command = [sys.executable, "-m", "desk", "run"]
    with (
        running(command, cwd=ROOT, env={**os.environ, **values}) as process,
        answering(f"http://127.0.0.1:{port}/readyz", process),
    ):
        yield
