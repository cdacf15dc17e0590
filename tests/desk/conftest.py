"""As for the desk's unit tests: a database of its own for each test; and what browsers need."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.desk_day import picture
from tests.support.desk_site import Site, open_site
from tests.unit.desk.conftest import database, new_database, world

__all__ = ["database", "new_database", "world"]


@pytest.fixture(scope="module")
def taxonomy() -> Path:
    """The labels to choose from."""
    return Path(__file__).parents[2] / "config" / "taxonomy.toml"


@pytest.fixture(scope="module")
def site(bootstrap_servers: str, taxonomy: Path) -> Iterator[Site]:
    stamp = f"{os.getpid()}.{time.time_ns() % 1_000_000}"
    topics = {name: f"test.{stamp}.{name}" for name in ("in", "labels", "review", "corrections")}
    with open_site(bootstrap_servers, topics, taxonomy) as opened:
        yield opened


@pytest.fixture
def folder(site: Site, tmp_path: Path) -> Iterator[Path]:
    """Where pictures go; what is on every screen in the end is among them."""
    chosen = Path(os.environ.get("CLERK_TEST_PICTURES", tmp_path))
    yield chosen
    for number, page in enumerate(page for each in site.contexts for page in each.pages):
        picture(page, chosen, f"end-{number}")
        print(f"{page.url}: {page.title()}")
